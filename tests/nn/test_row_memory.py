"""Row memory: a gist moves towards what similar rows, by gist or by sketch, hold in their other columns, and to nothing
else."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sensorium.nn.row_memory import MAX_QUERY_ROWS, RowMemory


def unit(rows: int, size: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def known() -> dict[str, torch.Tensor]:
    gists = {"a": unit(20, 16, 0), "b": unit(20, 16, 1), "c": unit(20, 16, 2)}
    gists["b"][3] = 0
    gists["b"][4] = gists["c"][4] = 0
    return gists


def found_by_hand(
    known: dict[str, torch.Tensor], column: str, query: torch.Tensor, keys: torch.Tensor, sharpness: float
) -> torch.Tensor:
    """What one query finds, one row after the other, as the words say."""
    weights, values = [], []
    for row in range(20):
        own, others = known[column][row], sum(known[c][row] for c in known if c != column)
        if own.any() and others.any():
            weights.append(sharpness * query @ keys[row])
            values.append(F.normalize(others, dim=0))
    return F.normalize(torch.stack(weights).softmax(0) @ torch.stack(values), dim=0)


def by_hand(
    known: dict[str, torch.Tensor], column: str, gist: torch.Tensor, sharpness: float, strength: float
) -> torch.Tensor:
    return torch.stack(
        [F.normalize(g + strength * found_by_hand(known, column, g, known[column], sharpness), dim=0) for g in gist]
    )


@pytest.mark.parametrize("column", ["a", "b", "c"])
@pytest.mark.parametrize(("sharpness", "strength"), [(1.0, 0.25), (40.0, 1.0)])
def test_it_is_what_its_words_say(known, column: str, sharpness: float, strength: float) -> None:
    gist = unit(7, 16, 5)
    assert torch.allclose(
        RowMemory(known, sharpness, strength)(column, gist),
        by_hand(known, column, gist, sharpness, strength),
        atol=2e-3,
    )


def test_a_row_that_is_remembered_leans_to_its_own_other_columns(known) -> None:
    row = known["a"][7:8]
    refined, others = RowMemory(known, 100.0, 1.0)("a", row), F.normalize(known["b"][7:8] + known["c"][7:8], dim=1)
    assert (refined @ others.T).item() > 0.7
    assert (row @ others.T).item() < 0.3
    assert torch.allclose(refined.norm(dim=1), torch.ones(1), atol=1e-5)


def test_each_gist_is_refined_by_itself_however_many_come(known) -> None:
    memory, many = RowMemory(known, 20.0, 0.5), unit(MAX_QUERY_ROWS + 9, 16, 6)
    refined = memory("a", many)
    for i in (0, MAX_QUERY_ROWS - 1, MAX_QUERY_ROWS, MAX_QUERY_ROWS + 8):
        assert torch.allclose(refined[i : i + 1], memory("a", many[i : i + 1]), atol=1e-5)


def test_it_leaves_a_gist_as_it_is_where_nothing_is_known(known) -> None:
    gist = unit(3, 16, 5)
    assert RowMemory(known, 20.0, 0.0)("a", gist) is gist
    assert RowMemory(known, 20.0, 0.5)("d", gist) is gist
    assert RowMemory({"a": known["a"], "b": torch.zeros(20, 16)}, 20.0, 0.5)("a", gist) is gist
    assert RowMemory(known, 20.0, 0.5)("a", gist[:0]).shape == (0, 16)


def test_sketches_find_rows_beside_gists(known) -> None:
    gist, sketches, drawn = unit(7, 16, 5), {"b": unit(20, 30, 7)}, unit(7, 30, 8)
    drawn[2] = 0
    memory = RowMemory(known, 20.0, 0.5, sketches, 0.25)
    wanted = []
    for g, sketch in zip(gist, drawn, strict=True):
        total = g + 0.5 * found_by_hand(known, "b", g, known["b"], 20.0)
        if sketch.any():  # a cell without a sketch is sought by its gist alone
            total = total + 0.25 * found_by_hand(known, "b", sketch, sketches["b"], 20.0)
        wanted.append(F.normalize(total, dim=0))
    assert torch.allclose(memory("b", gist, drawn), torch.stack(wanted), atol=2e-3)
    assert torch.equal(memory("b", gist), RowMemory(known, 20.0, 0.5)("b", gist))
    assert torch.equal(memory("a", gist, drawn), RowMemory(known, 20.0, 0.5)("a", gist))
    assert torch.equal(RowMemory(known, 20.0, 0.5, sketches)("b", gist, drawn), RowMemory(known, 20.0, 0.5)("b", gist))
    alone = RowMemory(known, 20.0, 0.0, sketches, 0.5)
    assert alone("a", gist) is gist and alone("b", gist) is gist
    assert not torch.allclose(alone("b", gist, drawn)[0], gist[0], atol=1e-2) and torch.allclose(
        alone("b", gist, drawn)[2], gist[2]
    )


def told(column: str = "kind") -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What the rows say: their numbers; row 5 says nothing."""
    return {column: (torch.arange(20).unsqueeze(1), torch.arange(20) != 5)}


def test_what_remembered_rows_say_is_weighed_by_what_both_show(known) -> None:
    memory = RowMemory(known, 20.0, 0.0, targets=told(), shares={"kind": 0.5}, by={"kind": ["a", "b"]})
    yes = torch.tensor([True, True, True])
    seen = {
        "a": (known["a"][[3, 7, 5]], yes),
        "b": (known["b"][[9, 7, 5]], torch.tensor([False, True, False])),
        "c": (known["c"][[11, 11, 11]], yes),
        "unknown": (unit(3, 16, 9), yes),
    }
    said = memory.answer("kind", seen)
    assert said.share == 0.5 and said.targets.flatten().tolist() == list(range(20)) and said.margin is None
    assert torch.allclose(said.weights.sum(1), torch.ones(3), atol=1e-5)
    assert said.weights.argmax(1)[:2].tolist() == [3, 7] and not said.weights[:, 5].any()  # row 5 doesn't have it
    alone = memory.answer("kind", {"a": (known["a"][[3]], yes[:1])}).weights[0]
    assert torch.allclose(alone, said.weights[0], atol=1e-6), "what isn't shown says nothing"
    for i, shows in ((0, "a"), (1, "ab")):
        like = torch.full((20,), -math.inf)
        for row in range(20):
            if row != 5 and any(known[c][row].any() for c in shows):
                cosines = {c: [float(seen[c][0][i] @ other) for other in known[c] if other.any()] for c in shows}
                each = [
                    float(seen[c][0][i] @ known[c][row]) if known[c][row].any() else sum(cosines[c]) / len(cosines[c])
                    for c in shows
                ]
                like[row] = 20.0 * sum(each) / len(each)
        assert torch.allclose(said.weights[i], like.softmax(0), atol=3e-3)
    memory.by = {"kind": ["b"]}
    alone = memory.answer("kind", seen).weights
    assert not alone[0].any() and not alone[1][[3, 4, 5]].any() and alone[1].argmax() == 7  # 3 and 4 lack "b"
    assert memory.answer("kind", {}) is memory.answer("other", seen) is memory.answer("kind", seen, 0.0) is None
    assert memory.answer("kind", seen, 0.25).share == 0.25
    memory.margins = {"kind": [0.5]}
    assert memory.answer("kind", seen).margin.tolist() == [0.5]
    nobody = RowMemory(
        {"a": known["a"], "b": torch.zeros(20, 16)}, 20.0, 0.0, targets=told(), shares={"kind": 0.5}, by={"kind": ["b"]}
    )
    assert not nobody.answer("kind", {"b": (unit(2, 16, 8), yes[:2])}).weights.any()


def test_remembered_rows_speak_to_one_another_but_not_to_themselves(known) -> None:
    memory = RowMemory(known, 20.0, 0.0, targets=told())
    ((rows, said, others),) = memory.among_themselves("kind", "b", 100)
    assert rows.tolist() == [row for row in range(20) if row not in (3, 4, 5)] and said.share == 1.0  # 3 and 4 lack "b"
    assert (
        torch.allclose(said.weights.sum(1), torch.ones(17), atol=1e-5)
        and not said.weights[torch.arange(17), rows].any()
    )
    assert torch.equal(others, said.weights > 0) and not others[:, [3, 4, 5]].any()
    like = (20.0 * known["b"][9] @ known["b"].T).index_fill(0, torch.tensor([3, 4, 5, 9]), -math.inf)
    assert torch.allclose(said.weights[rows.tolist().index(9)], like.softmax(0), atol=2e-3)
    assert [len(part) for part, _, _ in memory.among_themselves("kind", "b", 8)] == [9]
    assert (
        sum(
            len(part)
            for part, _, _ in RowMemory(
                {"a": known["a"], "b": torch.zeros(20, 16)}, 20.0, 0.0, targets=told()
            ).among_themselves("kind", "b", 100)
        )
        == 0
    )


def test_no_more_is_kept_than_what_counts(known) -> None:
    sketches, targets = {"b": unit(20, 30, 7)}, told("kind") | told("size")
    by, margins = {"kind": ["a"], "size": ["b"]}, {"size": [0.1]}

    def kept(strength: float, trust: float, **shares: float) -> RowMemory | None:
        return RowMemory(known, 20.0, strength, sketches, trust, targets, shares, by, margins).needed()

    assert kept(0.0, 0.0, kind=0.0, size=0.0) is None
    memory = kept(0.5, 0.0, kind=0.25, size=0.0)
    assert (memory.strength, memory.trust, memory.sketched, memory.asked_columns) == (0.5, 0.0, [], ["kind"])
    assert (memory.shares, memory.by, memory.margins) == ({"kind": 0.25}, {"kind": ["a"]}, {})
    gist = unit(2, 16, 5)
    assert torch.equal(memory("a", gist), RowMemory(known, 20.0, 0.5)("a", gist))
    assert kept(0.0, 0.5).sketched == ["b"] and not kept(0.0, 0.5).asked_columns
    assert kept(0.0, 0.0, size=0.5).margins == margins and list(kept(0.0, 0.0, size=0.5).asked_columns) == ["size"]
