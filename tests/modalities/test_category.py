"""Categories: types come back, unseen values are unseen, other spellings of a value are found."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.core.errors import BadCell
from sensorium.core.types import Profile
from sensorium.modalities.category import EMPTY, Category


def learned(cells: list[Any], **options: Any) -> Category:
    category = Category(**options)
    category.learn([category.read(cell) for cell in cells])
    return category


def ids(category: Category, cells: list[Any]) -> list[int]:
    return [int(category.prepare(category.read(cell))[0]) for cell in cells]


values = st.one_of(
    st.text(min_size=1, max_size=20).filter(lambda t: t.replace("\0", "").strip()),
    st.booleans(),
    st.integers(-(2**62), 2**62),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(values, min_size=1, max_size=20))
def test_values_come_back_with_their_type(cells: list[Any]) -> None:
    category = learned(cells)
    copy = Category()
    copy.load_state(json.loads(json.dumps(category.state())))
    for cell, i in zip(cells, ids(copy, cells), strict=True):
        back = copy.decode(np.array([i]))
        assert i > 0
        assert type(back) is type(cell)
        assert back == (cell.replace("\0", "") if isinstance(cell, str) else cell)


def test_classes_are_ranked_by_frequency_and_cut() -> None:
    category = learned(["c", "a", "b", "a", "b", "a", "d"], max_classes=2)
    assert category.classes == ["a", "b"] and ids(category, ["a", "b", "c"]) == [1, 2, 0]
    assert category.tokens().vocabulary == 3


def test_unseen_is_zero_and_decodes_to_nothing() -> None:
    category = learned(["a"])
    assert ids(category, ["z", 3, True]) == [0, 0, 0]
    assert category.decode(np.array([0])) is None and category.decode(np.array([99])) is None


def test_a_value_is_found_in_another_type() -> None:
    assert ids(learned([3, 4]), ["3", 3.0, np.int8(3), "4"]) == ids(learned([3, 4]), [3, 3, 3, 4])
    assert ids(learned(["3", "4"]), [3, 4]) == [1, 2]
    truth = learned([True, False, True])
    assert ids(truth, ["true", 1, "False", 0, np.bool_(True)]) == [1, 1, 2, 2, 1]
    assert ids(learned([True, 1, "1"]), [True, 1, "1"]) == ids(learned([True, 1, "1"]), [True, 1.0, "1"])
    assert len(set(ids(learned([True, 1, "1"]), [True, 1, "1"]))) == 3


@pytest.mark.parametrize("cell", [None, "", " \t", float("nan"), np.float32("nan")])
def test_missing(cell: Any) -> None:
    assert len(Category().read(cell)) == 0


@pytest.mark.parametrize(
    "cell",
    [
        [1],
        {"a": 1},
        b"\xff\xfe",
        float("inf"),
        pytest.param("x" * 10**7, id="long"),
        pytest.param(b"x" * 10**7, id="long bytes"),
        10**30,
        1j,
    ],
)
def test_bad(cell: Any) -> None:
    with pytest.raises(BadCell):
        Category().read(cell)


def test_odd_texts_are_read() -> None:
    category = learned(["\ud800a", "a\x00b", datetime.date(2024, 5, 13)])
    assert set(category.classes) == {"\ufffda", "ab", "2024-05-13"}


def test_forgetting_turns_to_unseen_and_leaves_the_target() -> None:
    category = learned(["a", "b"], forget=0.5)
    cells = category.collate([category.prepare(category.read("a"))] * 1000)
    seen = category.augment(cells, torch.Generator().manual_seed(0))
    assert 400 < int((seen["ids"] == 0).sum()) < 600
    assert torch.equal(category.target(seen), cells["ids"])
    tokens, mask = category.stem(8)(seen)
    assert tokens.shape == (1000, 1, 8) and mask is None


def test_score_counts_an_unseen_truth_as_a_miss() -> None:
    category = learned(["a", "a", "b"])
    assert category.score(["a", "a", "a", "b"], ["a", "a", "b", "b"]) == pytest.approx(
        {"accuracy": 0.75, "balanced_accuracy": (2 / 3 + 1) / 2}
    )
    assert category.score(["new"], ["a"])["accuracy"] == 0
    assert learned([1, 2]).score([1.0, 2.0], [1, 2])["accuracy"] == 1


def test_features_are_fixed_in_length() -> None:
    few, many = learned(["a", "b", "c"]), learned([str(i) for i in range(100)])
    assert few.features(few.read("z")).tolist() == [0, 0, 0] and few.features(few.read("a")).sum() == 1
    for category in (few, many, learned([])):
        assert category.features(None).shape == category.features(category.read("a")).shape
        assert np.isnan(category.features(None)).all() and np.isnan(category.features(EMPTY)).all()


def claim(sample: list[Any], type_: str = "string") -> float:
    found = Category.claim(
        Profile(name="x", type=type_, sample=sample, present=len(sample), rows=len(sample), distinct=len(set(sample)))
    )
    return found.sure if found else 0.0


def test_claims() -> None:
    assert claim(["red", "green", "blue"] * 20) > 0.8
    assert claim([True, False] * 5, "bool") > 0.9
    assert claim([0, 1, 2] * 20, "int64") > 0.8
    assert claim(["u", "v"], "dictionary<string>") > 0.9
    assert not claim([f"name {i}" for i in range(100)])
    assert not claim(list(range(2010, 2026)) * 20, "int64")  # years are numbers
    assert not claim([0.5, 1.5] * 20, "double")
