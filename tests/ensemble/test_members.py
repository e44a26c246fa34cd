"""What every member of an ensemble promises: it learns, does without columns or says so, and is saved as it is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sensorium.core.errors import UserError
from sensorium.core.registry import find, names
from sensorium.ensemble.features import FeatureRows, count_terms, matrix, overlaps, pick_features, text_pairs
from sensorium.ensemble.members import FitData, Member
from sensorium.ensemble.members._forest import Forest

MEMBERS = names(Member)


def data(classes: int, rows: int = 400, seconds: float = 20.0) -> FitData:
    """Rows whose columns a and t (a text) tell the target, b nothing; c is missing in half of them and constant."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2 * rows, 2)), rng.normal(size=(2 * rows, 3))
    c = np.where(rng.random((2 * rows, 1)) < 0.5, np.nan, 1.0)
    telling = a @ [1.0, -0.5]
    target = np.digitize(telling, [[0.0], [-0.6, 0.6]][classes > 2]) if classes else telling
    blocks = {"a": a, "b": b, "c": c}
    parts = [{name: block[part] for name, block in blocks.items()} for part in (slice(rows), slice(rows, None))]
    target = target.astype(np.float64)
    words = [np.array([500 + round(4 * value), 7, 7]) for value in telling]
    terms = [{"t": count_terms(words[part])} for part in (slice(rows), slice(rows, None))]
    parts = [{**part, "t": np.ones((rows, 1))} for part in parts]
    features = [FeatureRows(*both) for both in zip(parts, terms, strict=True)]
    return FitData(features[0], target[:rows], features[1], target[rows:], classes, seconds)


def right(member: Member, given: FitData) -> float:
    """Share of right classes, or R²."""
    found = member.predict(given.valid)
    if given.classes:
        assert found.shape == (len(given.valid_target), given.classes) and found.sum(1) == pytest.approx(1)
        return float((found.argmax(1) == given.valid_target).mean())
    assert found.shape == given.valid_target.shape
    return 1 - float(((found - given.valid_target) ** 2).mean() / given.valid_target.var())


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("classes", [0, 2, 3])
def test_it_learns_and_is_saved_as_it_is(name: str, classes: int) -> None:
    given = data(classes)
    member = find(Member, name).fit(given, ["a", "b", "c", "t"])
    assert member is not None and set(member.columns) & {"a", "t"}
    assert right(member, given) > 0.85
    described, arrays = member.state()
    again = find(Member, name).load(json.loads(json.dumps(described)), arrays)
    assert np.array_equal(again.predict(given.valid), member.predict(given.valid))


@pytest.mark.parametrize("name", MEMBERS)
def test_one_that_does_without_columns_stays_calm_without_the_telling_one(name: str) -> None:
    given = data(2)
    member = find(Member, name).fit(given, ["a", "b", "c", "t"])
    assert member is not None
    every = np.ones(len(given.valid), dtype=bool)
    found = member.predict(given.valid.hidden({c: every if c in "bc" else ~every for c in given.valid.blocks}))
    assert np.isfinite(found).all()
    if not member.whole:
        assert found.max(1).mean() < 0.75, "of what it doesn't see it can't be sure"


@pytest.mark.parametrize("name", MEMBERS)
def test_nothing_to_learn_gives_no_member(name: str) -> None:
    given = data(2)
    same = FitData(given.rows, np.zeros(400), given.valid, np.zeros(400), 2, 1.0)
    assert find(Member, name).fit(same, ["a", "b", "t"]) is None
    assert find(Member, name).fit(given, ["c"]) is None


@pytest.mark.parametrize("name", MEMBERS)
def test_a_class_that_no_training_row_has_gets_no_probability(name: str) -> None:
    given = data(3)
    few = FitData(given.rows, given.target, given.valid, given.valid_target, 5, 20.0)
    member = find(Member, name).fit(few, ["a", "t"])
    assert member is not None and member.predict(few.valid)[:, 3:].max() < 0.05


@pytest.mark.parametrize("classes", [0, 2, 3])
@pytest.mark.parametrize("gaps", [False, True])
def test_a_forest_answers_as_lightgbm_does(classes: int, gaps: bool) -> None:
    import lightgbm

    rng = np.random.default_rng(0)
    x = rng.normal(size=(700, 6)).astype(np.float32)
    telling = x[:, 0] - x[:, 1] ** 2
    if gaps:
        x[rng.random(x.shape) < 0.2] = np.nan
    target = np.digitize(telling, np.quantile(telling, np.linspace(0, 1, classes + 1)[1:-1])) if classes else telling
    options = {"objective": "binary" if classes == 2 else "multiclass" if classes else "regression", "verbosity": -1,
               "num_class": classes if classes > 2 else 1, "num_threads": 1}  # fmt: skip
    booster = lightgbm.train(options, lightgbm.Dataset(x, target), 30)
    later = np.concatenate([x, np.full((1, 6), np.nan, np.float32), np.zeros((1, 6), np.float32)])
    wanted = np.asarray(booster.predict(later))
    forest = Forest.of(booster.dump_model(), classes)
    found = forest.predict(later)
    assert found == pytest.approx(np.stack([1 - wanted, wanted], 1) if classes == 2 else wanted, abs=1e-9)
    assert forest.predict(later[:0]).shape[0] == 0


def test_trees_end_in_time() -> None:
    import time

    given = data(3, rows=3000, seconds=0.3)
    started = time.monotonic()
    assert find(Member, "trees").fit(given, ["a", "b", "c"]) is not None
    assert time.monotonic() - started < 5


def test_without_lightgbm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(UserError, match="pip install lightgbm"):
        find(Member, "trees").fit(data(2), ["a"])


def test_masked_rows_show_a_random_share_of_their_columns() -> None:
    rows = FeatureRows({c: np.ones((1000, 2)) for c in "abcd"}).masked(0)
    visible = np.stack([rows.shows(c) for c in "abcd"], 1)
    assert 0.4 < visible.mean() < 0.6 and set(visible.sum(1)) == {0, 1, 2, 3, 4}


def test_features_that_vary_and_tell_are_picked() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500).astype(np.float64)
    telling = np.stack([y + rng.normal(size=500) * 0.1, np.ones(500)], 1)
    noise = rng.normal(size=(500, 50))
    picked = pick_features({"a": telling, "b": noise}, y, True, 4)
    assert picked["a"] == [0] and len(picked["b"]) == 3
    assert matrix({"a": telling, "b": noise}, ["a", "b"]).shape == (500, 52)


def test_overlap_of_two_texts_is_measured_where_both_are_seen() -> None:
    terms = {"a": count_terms([np.array([1, 2, 3, 3]), np.array([1]), None]), "b": count_terms([np.array([2, 3])] * 3)}
    seen = np.ones((3, 1))
    rows = FeatureRows({"a": np.array([[1.0], [1.0], [np.nan]]), "b": seen}, terms)
    found = overlaps(rows, text_pairs(rows, ["a", "b"]))
    assert found[0] == pytest.approx([2 / 6**0.5, 2 / 3, 1.0]) and found[1] == pytest.approx([0, 0, 0])
    assert np.isnan(found[2]).all()
