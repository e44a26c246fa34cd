"""Drawing questions: what is seen is never asked, targets are asked mostly, and the same seed draws the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.core.errors import UserError
from sensorium.network.types import ColumnFacts
from sensorium.training.questions import QuestionSampler


def facts(language_model: bool = False, **kinds: str) -> ColumnFacts:
    """Columns by their kinds: text, image (not asked), picture (generated), category."""
    columns = tuple(kinds)
    of = {kind: tuple(c for c in columns if kinds[c] == kind) for kind in ("text", "image", "picture", "category")}
    return ColumnFacts(
        columns=columns,
        matched=tuple(c for c in columns if kinds[c] != "category"),
        asked=tuple(c for c in columns if kinds[c] != "image"),
        short=of["category"],
        long=of["text"],
        generators=dict.fromkeys(of["picture"], ("flow",)),
        dialogue=(),
        modality=kinds,
        language_model=language_model,
    )


def network(texts: int = 2, images: int = 1, categories: int = 2) -> ColumnFacts:
    counts = {"text": texts, "image": images, "class": categories}
    kinds = {"text": "text", "image": "image", "class": "category"}
    return facts(**{f"{name}{i}": kinds[name] for name, count in counts.items() for i in range(count)})


shapes = st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3)).filter(any)


@settings(max_examples=150, deadline=None)
@given(shapes, st.integers(1, 70), st.integers(0, 2**63 - 1), st.integers(0, 10_000), st.data())
def test_plans_make_sense(shape: tuple[int, int, int], rows: int, seed: int, step: int, data: st.DataObject) -> None:
    made = network(*shape)
    targets = data.draw(st.lists(st.sampled_from(made.asked), unique=True)) if made.asked else []
    sampler = QuestionSampler(made, targets)
    plans, looked_at = sampler.draw(rows, (seed, step)), sampler.columns_read((seed, step))
    again = QuestionSampler(network(*shape), targets).draw(rows, (seed, step))
    assert [(p.rows.tolist(), p.seen, p.asked) for p in plans] == [(p.rows.tolist(), p.seen, p.asked) for p in again]
    dealt = np.concatenate([p.rows.numpy() for p in plans])
    assert len(set(dealt.tolist())) == len(dealt) and dealt.min() >= 0 and dealt.max() < rows
    assert len(plans) == min(sampler.plans, rows)
    sizes = {len(plan.rows) for plan in plans}
    assert (
        sizes == {max(1, int(rows * sampler.trunk_share / sampler.plans))}
        and abs(len(dealt) - rows * sampler.trunk_share) <= sampler.plans
    )
    for plan in plans:
        assert not set(plan.seen) & set(plan.asked) and set(plan.seen) | set(plan.asked) <= set(looked_at)
        assert set(plan.asked) <= set(made.asked) and (np.diff(plan.rows.numpy()) > 0).all() and len(plan.rows)
        assert [c for c in made.columns if c in plan.seen] == list(plan.seen)
        assert [c for c in made.columns if c in plan.asked] == list(plan.asked)
    for kind in ("text", "image"):
        assert sum(made.modality[c] == kind and c not in targets for c in looked_at) <= sampler.max_per_modality
    assert set(targets) <= set(looked_at)


def drawn(sampler: QuestionSampler, steps: int = 400) -> list[Any]:
    return [plan for step in range(steps) for plan in sampler.draw(32, (1, step))]


def test_targets_are_asked_mostly_and_hardly_ever_seen() -> None:
    plans = drawn(QuestionSampler(network(), targets=["class0", "text1"]))
    for target in ("class0", "text1"):
        assert sum(target in p.asked for p in plans) > 0.9 * len(plans)
        assert sum(target in p.seen for p in plans) < 0.06 * len(plans)
    assert np.mean(["class1" in p.asked for p in plans]) > 0.2 and np.mean(["class1" in p.seen for p in plans]) > 0.02


def test_every_column_is_seen_asked_and_left_out() -> None:
    plans = drawn(QuestionSampler(network()))
    for column in ("text0", "text1", "image0", "class0", "class1"):
        seen, asked = (
            np.mean([column in part for part in parts]) for parts in ([p.seen for p in plans], [p.asked for p in plans])
        )
        assert seen > 0.05 and seen + asked < 0.99 and (asked > 0.05) == (column != "image0")
    lone = np.mean([len(p.seen) == 1 for p in plans])
    assert lone > 0.4 and any(len(p.seen) >= 3 for p in plans) and any(not p.seen for p in plans)


def test_columns_of_one_kind_take_turns_by_weight() -> None:
    sampler = QuestionSampler(network(texts=5), weights={"text0": 4.0, "text4": 0.0}, max_per_modality=2)
    looked = [sampler.columns_read((0, step)) for step in range(600)]
    share = {c: np.mean([c in columns for columns in looked]) for c in sampler.facts.columns}
    assert (
        share["text4"] == 0
        and share["text0"] > 0.7
        and 0.2 < share["text1"] < 0.6
        and share["image0"] == share["class0"] == 1
    )
    asked = drawn(sampler)
    assert not any("text4" in p.asked or "text4" in p.seen for p in asked)


def test_steps_differ() -> None:
    sampler = QuestionSampler(network())
    assert (
        len({str([(p.rows.tolist(), p.seen, p.asked) for p in sampler.draw(32, (1, step))]) for step in range(50)})
        == 50
    )


def test_columns_that_are_not_there_are_told() -> None:
    with pytest.raises(UserError, match="Did you mean .text[01]"):
        QuestionSampler(network(), weights={"text9": 1.0})
    with pytest.raises(UserError, match="'image0' can't be asked"):
        QuestionSampler(network(), targets=["image0"])
    with pytest.raises(UserError, match="nothing"):
        QuestionSampler(network(), targets=["nothing"])


def test_a_table_with_nothing_to_ask_is_only_matched() -> None:
    plans = drawn(QuestionSampler(network(texts=0, images=2, categories=0)), 20)
    assert all(p.asked == () for p in plans)


def test_targets_are_asked_of_many_subsets() -> None:
    plans = drawn(QuestionSampler(network(), targets=["class0"]))
    sizes = np.array([len(p.seen) for p in plans])
    assert 0.15 < np.mean(sizes == 1) < 0.5 and len({p.seen for p in plans}) > 8


def test_what_is_to_be_drawn_has_a_question_of_its_own() -> None:
    made = facts(text="text", image="picture", other="picture", group="category")
    plans = [QuestionSampler(made, generate_share=0.5).draw(32, (3, step)) for step in range(400)]
    own = [part[-1] for part in plans]
    assert all(len(part) == 4 and len(part[-1].rows) == 16 and len(part[-1].asked) == 1 for part in plans)
    assert not any({"image", "other"} & set(p.asked) for part in plans for p in part[:-1])
    share = np.mean([p.asked == ("image",) for p in own])
    assert 0.4 < share < 0.6 and not any(p.asked[0] in p.seen for p in own)
    blank, whole = np.mean([not p.seen for p in own]), np.mean([len(p.seen) == 3 for p in own])
    assert 0.05 < blank < 0.2 and whole > 0.2 and len({p.seen for p in own}) > 6
    assert all(
        len(part) == 3 for part in ([QuestionSampler(made, generate_share=0).draw(32, (3, step)) for step in range(9)])
    )


def test_what_is_drawn_is_apart_where_there_is_anything_else_to_learn() -> None:
    made, alone, talking = (
        facts(text="text", image="picture"),
        facts(image="picture"),
        facts(language_model=True, text="text", image="picture"),
    )
    assert [plan.detached for plan in QuestionSampler(made).draw(32, (0, 0))] == [False, False, False, True]
    assert QuestionSampler(made).detach_generation and not any(
        sampler.detach_generation
        for sampler in (
            QuestionSampler(alone),
            QuestionSampler(talking),
            QuestionSampler(made, ["image"]),
            QuestionSampler(made, detach_generation=False),
        )
    )
    assert QuestionSampler(alone, detach_generation=True).detach_generation
