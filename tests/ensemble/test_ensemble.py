"""Ensembles of a fitted model: answers from any columns, saved, explained, turned off, and left out for others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sensorium.core.errors import SensoriumWarning, UserError
from sensorium.model import Model

SETTINGS = ["network.width=48", "baselines.share=0", "trackers=none"]


def table(rows: int = 600, seed: int = 0) -> pa.Table:
    """Rows whose numbers a and b tell the class together; c tells nothing, and d lacks in many rows."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=(3, rows)).round(3)
    d = [None if rng.random() < 0.3 else float(x) for x in rng.normal(size=rows).round(3)]
    kind = np.where(a > 0.5, "high", np.where(a + b > 0, "middle", "low"))
    total = (2 * a - b + rng.normal(size=rows) * 0.1).round(3)
    return pa.table({"a": a, "b": b, "c": c, "d": d, "kind": kind, "total": total})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("ensemble") / "run"
    return Model.fit(table(), out=folder, minutes=0.05, target=["kind", "total"], settings=SETTINGS)


def accuracy(model: Model, seen: list[str]) -> float:
    rows = table(400, seed=1)
    return float(np.mean([x == y for x, y in zip(model.predict(rows, "kind", seen).column("value").to_pylist(),
                                                 rows.column("kind").to_pylist(), strict=True)]))  # fmt: skip


def test_the_answer_is_right_where_three_seconds_of_training_are_not(fitted: Model) -> None:
    ensembles = fitted.network.calibration.ensembles
    assert list(ensembles)[:2] == ["kind", "total"], "targets first"
    together = accuracy(fitted, ["a", "b", "c", "d"])
    assert together > 0.9
    kept = dict(ensembles)
    ensembles.clear()
    alone = accuracy(fitted, ["a", "b", "c", "d"])
    ensembles.update(kept)
    assert together > alone


def test_any_columns_have_an_answer(fitted: Model) -> None:
    both, one, nothing = accuracy(fitted, ["a", "b"]), accuracy(fitted, ["a"]), accuracy(fitted, ["c"])
    assert both > 0.85 and both > one > nothing
    some = table(50, seed=2).append_column("e", pa.array([None] * 50, pa.float64()))
    answers = fitted.predict([{"a": 2.0}, {"c": 0.1}, {}], "kind", coverage=0.9)
    assert answers.column("value")[0].as_py() == "high" and all(answers.column("set").to_pylist())
    chances = fitted.predict(some.drop(["e"]), "kind").column("probability").to_numpy()
    assert ((chances > 0) & (chances <= 1)).all()


def test_intervals_hold_the_answer_and_most_truths(fitted: Model) -> None:
    rows = table(400, seed=1)
    found = fitted.predict(rows, "total")
    value, low, high = (found.column(name).to_numpy() for name in ("value", "low", "high"))
    truth = rows.column("total").to_numpy()
    assert (low <= value).all() and (value <= high).all()
    assert 0.82 < ((low <= truth) & (truth <= high)).mean() < 0.98
    assert 1 - ((value - truth) ** 2).mean() / truth.var() > 0.9
    some = fitted.predict(rows, "total", ["a", "c"])
    inside = (some.column("low").to_numpy() <= truth) & (truth <= some.column("high").to_numpy())
    assert inside.mean() > 0.8, "from a part of the columns they are wider"


def test_results_list_members_that_sum_to_one(fitted: Model) -> None:
    results = fitted.evaluate(table(300, seed=1))
    for column, metric in (("kind", "accuracy"), ("total", "r2")):
        members = results["columns"][column]["members"]
        assert sum(member["weight"] for member in members.values()) == pytest.approx(1, abs=0.01)
        assert "network" in members and "trees on all columns" in members
        best = max(member[metric] for member in members.values())
        assert results["columns"][column][metric] > best - 0.03


def test_a_saved_model_answers_the_same(fitted: Model, tmp_path: Path) -> None:
    assert fitted.folder is not None
    again, rows = Model.load(shutil.copytree(fitted.folder, tmp_path / "run")), table(100, seed=3)
    for column, seen in (("kind", None), ("kind", ["b", "c"]), ("total", None)):
        found, wanted = (model.predict(rows, column, seen).to_pydict() for model in (again, fitted))
        assert found["value"] == wanted["value"] or found["value"] == pytest.approx(wanted["value"], abs=2e-3)
        assert found["probability"] == pytest.approx(wanted["probability"], abs=1e-4)
    for name in ("ensembles.json", "ensembles.safetensors"):
        (tmp_path / "run" / name).unlink()
    assert not Model.load(tmp_path / "run").network.calibration.ensembles
    shutil.copy2(fitted.folder / "ensembles.safetensors", tmp_path / "run")
    text = (fitted.folder / "ensembles.json").read_text()
    (tmp_path / "run" / "ensembles.json").write_text(text + " ")
    with pytest.raises(UserError, match="its SHA-256 differs.*by the network alone"):
        Model.load(tmp_path / "run")


def test_a_model_for_others_has_none(fitted: Model, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "given")
    assert not (tmp_path / "given" / "ensembles.json").exists()
    assert not (tmp_path / "given" / "ensembles.safetensors").exists()
    assert not Model.load(tmp_path / "given").network.calibration.ensembles


def test_shares_explain_the_combined_answer(fitted: Model) -> None:
    rows = table(6, seed=4)
    seen = ["a", "b", "c"]
    answers = fitted.predict(rows, "kind", seen)
    whys = fitted.explain(rows, "kind", answers.column("value").to_pylist(), seen)
    for why, chance in zip(whys, answers.column("probability").to_pylist(), strict=True):
        assert why is not None
        assert why.everything == pytest.approx(float(np.log(chance)), abs=1e-3)
        assert sum(why.shares.values()) == pytest.approx(why.everything - why.nothing, abs=1e-3)


def test_members_can_be_chosen(tmp_path: Path) -> None:
    def fit(members: str) -> Model:
        settings = [*SETTINGS, f"answer.members={members}"]
        return Model.fit(table(200), out=tmp_path / "run", epochs=1, target=["kind"], settings=settings)

    assert not fit("network").network.calibration.ensembles
    names = fit("network,linear").network.calibration.ensembles["kind"].names
    assert "linear on all columns" in names and not any("trees" in name for name in names)
    with pytest.raises(UserError, match="answer.members.*'tree'.*robust_trees, trees"):
        fit("tree")


def test_without_lightgbm_the_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.warns(SensoriumWarning, match="answered without robust trees, trees.*pip install lightgbm"):
        model = Model.fit(table(200), out=tmp_path / "run", epochs=1, target=["kind"], settings=SETTINGS)
    names = model.network.calibration.ensembles["kind"].names
    assert "linear on all columns" in names and not any("trees" in name for name in names)


def test_few_validation_rows_make_no_ensemble(tmp_path: Path) -> None:
    model = Model.fit(table(60), out=tmp_path / "run", epochs=1, target=["kind"], settings=SETTINGS)
    assert not model.network.calibration.ensembles


def test_what_is_saved_is_json_and_arrays(fitted: Model) -> None:
    assert fitted.folder is not None
    described: list[dict[str, Any]] = json.loads((fitted.folder / "ensembles.json").read_text())
    assert [entry["column"] for entry in described][:2] == ["kind", "total"]
    assert {model["kind"] for entry in described for model in entry["models"]} >= {
        "linear",
        "neighbours",
        "robust_trees",
        "trees",
    }


def test_few_rows_are_cross_fitted_and_members_do_not_know_the_rows_that_weigh_them(tmp_path: Path) -> None:
    settings = [*SETTINGS, "answer.share=4"]
    model = Model.fit(table(220), out=tmp_path / "run", minutes=0.05, target=["kind"], settings=settings)
    ensemble = model.network.calibration.ensembles["kind"]
    assert all(len(bag.parts) > 3 for bag in ensemble.models)
    assert len(ensemble.plain_bank.answers) > len(ensemble.bank.answers), "training rows weigh too"
    assert np.isnan(ensemble.plain_bank.answers).mean() < 0.5
    full = ensemble.plain_bank.visible.sum(1) >= len(ensemble.columns) - 1
    trees = ensemble.names.index("trees on all columns") - len(ensemble.views)
    likely = ensemble.plain_bank.answers[full, trees]
    assert 0.5 < likely[np.isfinite(likely)].mean() < 0.97, "what a member learned by heart it would know for sure"
    again = Model.load(tmp_path / "run").network.calibration.ensembles["kind"]
    pattern = np.ones(len(ensemble.columns), dtype=bool).tobytes()
    assert again.pattern_weights(pattern) == pytest.approx(ensemble.pattern_weights(pattern), abs=1e-6)
