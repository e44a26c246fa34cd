"""Plain models: what they find, that they come back the same, and that they keep to time, rows and missing cells."""

from __future__ import annotations

import datetime
import json
import time
import types
from collections.abc import Iterator

import numpy as np
import pytest

from sensorium.core.errors import UserError
from sensorium.ensemble import features as features_module
from sensorium.ensemble.features import relevance, select_features
from sensorium.evaluation import baseline_targets, trees
from sensorium.evaluation import baselines as module
from sensorium.evaluation.baselines import Baselines, fit_baselines

SECONDS = 10.0


@pytest.fixture(scope="module", autouse=True)
def own_clock() -> Iterator[None]:
    """Time is what this thread computes, so that what is found doesn't hang on how busy the machine is."""
    clock = types.SimpleNamespace(monotonic=time.thread_time, perf_counter=time.thread_time)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", clock)
        patch.setattr(trees, "time", clock)
        yield


def table(rows: int, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, list]]:
    """``clear`` tells the class, ``pair`` and ``part`` only together tell the number, ``noise`` nothing."""
    rng = np.random.default_rng(seed)
    sort = rng.integers(0, 3, rows)
    a, b = rng.standard_normal(rows), rng.standard_normal(rows)
    features = {
        "clear": np.stack([sort + 0.3 * rng.standard_normal(rows), rng.standard_normal(rows)], 1),
        "pair": a[:, None],
        "part": np.stack([b, np.full(rows, 7.0)], 1),
        "noise": rng.standard_normal((rows, 30)).astype(np.float32),
        "sort": np.eye(3)[sort],
    }
    start = datetime.datetime(2020, 1, 1)
    truth = {
        "sort": [["red", "green", "blue"][i] for i in sort],
        "number": list(1e6 * (3 * a + 2 * b) + 5e7),
        "day": [start + datetime.timedelta(days=float(100 * v)) for v in a],
    }
    return features, truth


KINDS = {"sort": "category", "number": "number", "day": "date"}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("run") / "baselines"
    features, truth = table(900)
    valid = table(300, 1)
    return fit_baselines(features, truth, KINDS, valid, folder, SECONDS, seed=3), folder


def r2(truth: list[float], said: list[float]) -> float:
    truth, said = np.array(truth), np.array(said)
    return 1 - ((truth - said) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()


def test_finds_what_is_there(fitted) -> None:
    features, truth = table(400, 2)
    plain = fitted[0].predict("sort", features, list(features))
    name, one = plain["one_column"]
    assert name == "clear"
    assert np.mean([a == b for a, b in zip(truth["sort"], one, strict=True)]) > 0.8
    assert np.mean([a == b for a, b in zip(truth["sort"], plain["trees"], strict=True)]) > 0.8
    assert len(set(plain["chance"])) == 1 and plain["chance"][0] in ("red", "green", "blue")

    plain = fitted[0].predict("number", features, list(features))
    assert plain["one_column"][0] == "pair"
    assert abs(r2(truth["number"], plain["chance"])) < 0.05
    assert r2(truth["number"], plain["trees"]) > r2(truth["number"], plain["one_column"][1]) + 0.1 > 0.5

    plain = fitted[0].predict("day", features, list(features))
    assert plain["one_column"][0] == "pair"
    off = [abs(a.replace(tzinfo=datetime.UTC) - b) for a, b in zip(truth["day"], plain["trees"], strict=True)]
    assert np.median([d.total_seconds() for d in off]) < 15 * 86400


def test_comes_back_the_same(fitted) -> None:
    before, folder = fitted
    features, _ = table(200, 4)
    after = Baselines.load(folder)
    assert after.notes == before.notes and after.targets == before.targets
    for target in KINDS:
        assert after.predict(target, features, list(features)) == before.predict(target, features, list(features))


def test_never_uses_what_is_not_seen(fitted) -> None:
    features, truth = table(300, 5)
    only = fitted[0].predict("sort", features, ["noise", "sort"])
    assert only["one_column"][0] == "noise" and only["trees"] == only["one_column"][1]
    assert np.mean([a == b for a, b in zip(truth["sort"], only["trees"], strict=True)]) < 0.5
    changed = {**features, "clear": features["clear"] + 9, "sort": features["sort"] * 0}
    assert fitted[0].predict("sort", changed, ["noise", "pair"]) == fitted[0].predict(
        "sort", features, ["noise", "pair"]
    )
    nothing = fitted[0].predict("sort", features, [])
    assert nothing["one_column"] == (None, nothing["chance"]) and nothing["trees"] == nothing["chance"]


def test_another_set_of_columns_is_learned_anew(fitted) -> None:
    features, truth = table(300, 6)
    plain = fitted[0].predict("number", features, ["part", "noise"])
    assert plain["one_column"][0] == "part"
    assert 0.1 < r2(truth["number"], plain["trees"]) < 0.45  # 4 of 13 parts of the variance


def test_missing_columns_and_cells(fitted) -> None:
    features, _ = table(50, 7)
    gone = {**features, "clear": np.full_like(features["clear"], np.nan)}
    without = {k: v for k, v in features.items() if k != "clear"}
    assert fitted[0].predict("sort", gone, list(features)) == fitted[0].predict("sort", without, list(features))


def test_says_what_is_wrong(fitted, tmp_path) -> None:
    features, _ = table(10)
    with pytest.raises(UserError, match=r"No baselines were fitted for 'nose'.*sort"):
        fitted[0].predict("nose", features, [])
    with pytest.raises(UserError, match="'clear' have shape"):
        fitted[0].predict("sort", {**features, "clear": features["clear"][:, :1]}, ["clear"])
    with pytest.raises(UserError, match="at least one column"):
        fitted[0].predict("sort", {}, [])
    with pytest.raises(UserError, match="can't be read"):
        Baselines.load(tmp_path)
    (tmp_path / "baselines.json").write_bytes((fitted[1] / "baselines.json").read_bytes())
    whole = (fitted[1] / "baselines.npz").read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:300] + bytes(200) + whole[500:], b""):
        (tmp_path / "baselines.npz").write_bytes(broken)
        with pytest.raises(UserError, match="Fit the run again"):
            Baselines.load(tmp_path)
    with pytest.raises(UserError, match="can't predict 'x', which is text"):
        fit_baselines(features, {"x": ["a"] * 10}, {"x": "text"}, ({}, {}), tmp_path, 1.0)


def test_nothing_is_pickled(fitted) -> None:
    assert {path.name for path in fitted[1].iterdir()} == {"baselines.json", "baselines.npz"}
    with np.load(fitted[1] / "baselines.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind == "f" for name in arrays.files)
    json.loads((fitted[1] / "baselines.json").read_text())


def test_limits_are_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 200)
    monkeypatch.setattr(baseline_targets, "MAX_CLASSES", 5)
    monkeypatch.setattr(features_module, "MAX_COLUMN_FEATURES", 20)
    features, truth = table(600)
    many = {"many": [f"c{i % 9}" for i in range(600)], "sort": truth["sort"]}
    plain = fit_baselines(features, many, {"many": "category", "sort": "category"}, ({}, {}), tmp_path, 4.0)
    words = " ".join(plain.notes)
    assert "200 of 600 training rows" in words
    assert "20 of the 30 features of 'noise'" in words
    assert "the 5 most frequent of 9 classes" in words
    assert plain.columns["noise"].shape == (200, 20)
    said = plain.predict("many", features, list(features))
    assert set(said["trees"]) <= {f"c{i}" for i in range(9)}


def test_keeps_to_its_time(tmp_path) -> None:
    rng = np.random.default_rng(0)
    features = {f"c{i}": rng.standard_normal((3000, 60)).astype(np.float32) for i in range(20)}
    truth = {f"t{i}": [str(v) for v in rng.integers(0, 12, 3000)] for i in range(3)}
    started = time.thread_time()
    plain = fit_baselines(features, truth, dict.fromkeys(truth, "category"), (features, truth), tmp_path, 3.0)
    assert time.thread_time() - started < 8  # two rounds of some are grown in any case; all would take minutes
    assert any("to end in time" in words or "time allowed" in words for words in plain.notes)
    plain = fit_baselines(features, truth, dict.fromkeys(truth, "category"), (features, truth), tmp_path, 0.0)
    assert all("The time was over" in words for words in plain.notes) and len(plain.notes) == 3
    assert plain.predict("t0", features, list(features))["trees"] == plain.predict("t0", features, [])["chance"]


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        ("category", ["a"] * 60),
        ("category", [None] * 60),
        ("category", ["a", "b"] + [None] * 58),
        ("number", [1.0] * 60),
        ("number", [float("nan")] * 60),
        ("number", [1e308, -1e308, 5.0] * 20),
        ("number", ["12", "x", "3.5"] * 20),
        ("date", [datetime.date(2020, 1, 1), None] * 30),
        ("date", ["2020-01-02", "1999-05-05T10:00:00Z", "never"] * 20),
        ("date", list(np.array(["2020-01-02", "NaT"], "datetime64[D]")) * 30),
        ("category", [True, 3, 2.5, "x"] * 15),
    ],
)
def test_odd_targets(kind: str, cells: list, tmp_path) -> None:
    rng = np.random.default_rng(0)
    features = {
        "x": rng.standard_normal((60, 3)),
        "void": np.full((60, 4), np.nan),
        "huge": np.full((60, 1), np.inf),
        "same": np.ones((60, 5), np.float32),
    }
    plain = fit_baselines(features, {"y": cells}, {"y": kind}, (features, {"y": cells}), tmp_path, 2.0)
    if "y" not in plain.targets:
        assert "no known value" in " ".join(plain.notes)
        return
    said = Baselines.load(tmp_path).predict("y", features, list(features))
    for values in (said["chance"], said["one_column"][1], said["trees"]):
        assert len(values) == 60
        if kind == "category":
            assert set(values) <= set(cells)
        elif kind == "number":
            assert np.isfinite(values).all()
        else:
            assert all(isinstance(value, datetime.datetime) for value in values)


def test_whole_numbers_stay_whole(tmp_path) -> None:
    x = np.arange(100, dtype=np.float64)[:, None]
    plain = fit_baselines({"x": x}, {"y": list(range(100))}, {"y": "number"}, ({}, {}), tmp_path, 2.0)
    said = plain.predict("y", {"x": x}, ["x"])
    assert all(isinstance(value, int) for value in said["trees"])
    assert r2(list(range(100)), said["trees"]) > 0.9


def test_relevance_is_the_share_of_variance() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 4000).astype(np.float64)
    x = np.stack([y + rng.standard_normal(4000), rng.standard_normal(4000), np.ones(4000), np.full(4000, np.nan)], 1)
    for sort in (True, False):
        found = relevance(x, y, sort)
        assert found[0] == pytest.approx(0.2, abs=0.03)  # variance ¼ between classes, 1 within
        assert found[1] < 0.01 and found[2] == found[3] == 0


def test_each_column_keeps_a_share_of_the_features() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal(500)
    strong, weak = y[:, None] + 0.1 * rng.standard_normal((500, 40)), rng.standard_normal((500, 40))
    picked = select_features(np.concatenate([strong, weak], 1), y, False, [40, 40], 20)
    assert len(picked) == 20 and (picked >= 40).sum() == 5


@pytest.mark.filterwarnings("error")
def test_nearly_as_many_classes_as_rows_are_no_warning():
    from sensorium.evaluation.trees import fit_trees

    x = np.arange(24.0)[:, None]
    assert len(fit_trees(x, np.arange(24) * 2 // 3, True, 2, 0).classes_) > 12
