"""The user's model: fitted, saved, asked of tables that differ from the one that it learned, and measured."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import TINY, drawing, flip, tiny_cells, tiny_table

from sensorium.core.errors import UserError
from sensorium.data.table import Table
from sensorium.inference.trained import Trained
from sensorium.model import Model
from sensorium.network.types import IgnoredColumns
from sensorium.training.table_trainer import TableTrainer

COLUMNS = ["picture", "name", "colour", "width", "day", "curve", "tone"]
ASKED = ["name", "colour", "width", "day"]
MATCHED = ["picture", "name", "curve", "tone"]


def same(a: pa.Table, b: pa.Table, column: str = "probability") -> bool:
    return a.column_names == b.column_names and np.allclose(a[column].to_numpy(), b[column].to_numpy(), atol=1e-5)


def unit(vectors: np.ndarray) -> bool:
    return np.isfinite(vectors).all() and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


# --- keeping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["fitted", "saved"])
def test_a_loaded_model_answers_as_the_one_that_was_kept(
    folder: str, fitted: Model, tiny: pa.Table, tmp_path: Path
) -> None:
    loaded = Model.load(fitted.folder if folder == "fitted" else fitted.save(tmp_path / "a" / "b"))
    assert (
        loaded.columns == fitted.columns == COLUMNS
        and loaded.facts == fitted.facts
        and loaded.settings == fitted.settings
    )
    assert np.array_equal(loaded.embed(tiny), fitted.embed(tiny))
    for column in ASKED:
        assert loaded.predict(tiny, column).equals(fitted.predict(tiny, column))
    assert loaded.generate(tiny, "name", temperature=1.0, seed=3) == fitted.generate(
        tiny, "name", temperature=1.0, seed=3
    )
    first, second = (m.evaluate(tiny) for m in (loaded, fitted))
    assert {**first, "seconds": 0} == {**second, "seconds": 0} and first["trained_on"] == fitted.facts["rows"]["train"]


def test_saving_where_it_lies_and_over_another_works(
    fitted: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fitted.folder, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    model = Model.load("run")
    model.save(tmp_path / "run")
    model.save("run")
    other = Model.load(model.save(tmp_path / "other"))
    other.save(tmp_path / "run")
    assert np.array_equal(Model.load("run").embed(tiny_table(5)), fitted.embed(tiny_table(5)))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file"):
        model.save(tmp_path / "file" / "run")


def test_loading_and_fitting_leave_the_users_random_numbers_alone(fitted: Model) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Model.load(fitted.folder)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: (d / "model.json").unlink(), lambda d: (d / "model.safetensors").unlink(),
        lambda d: (d / "model.json").write_text("{"),
        lambda d: (d / "model.json").write_text("[]"), lambda d: (d / "model.json").write_text("null"),
        lambda d: (d / "model.json").write_text('{"format": 1}'), lambda d: (d / "model.json").write_bytes(b"\xff\xfe"),
        lambda d: edit(d, format=99), lambda d: edit(d, format="x"), lambda d: edit(d, schema=[]),
        lambda d: edit(d, modalities={}),
        lambda d: edit(d, settings={"trunk": {"": "nothing"}}), lambda d: edit(d, settings={"network": {"width": 48}}),
        lambda d: edit(d, modalities={c: {} for c in COLUMNS}), lambda d: flip(d / "model.safetensors", -3),
        lambda d: flip(d / "model.safetensors", 4), lambda d: (d / "model.safetensors").write_bytes(b""),
    ],
)  # fmt: skip
def test_a_damaged_model_is_told(spoil: Callable[[Path], Any], fitted: Model, tmp_path: Path) -> None:
    for name in ("model.json", "model.safetensors"):
        shutil.copy(fitted.folder / name, tmp_path / name)
    spoil(tmp_path)
    with pytest.raises(UserError) as error:
        Model.load(tmp_path)
    assert str(tmp_path) in str(error.value) or "Unknown trunk" in str(error.value)


def edit(folder: Path, **values: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}))


# --- asking -----------------------------------------------------------------------------------------------------------


def test_predictions_have_a_value_a_probability_and_an_interval(fitted: Model, tiny: pa.Table) -> None:
    for column in ASKED:
        said = fitted.predict(tiny, column)
        assert said.num_rows == 80 and said.column_names[:2] == ["value", "probability"]
        chance = said["probability"].to_numpy()
        assert ((chance >= 0) & (chance <= 1)).all() and said["value"].null_count == 0
        if column in ("width", "day"):
            low, value, high = (said[name].to_pylist() for name in ("low", "value", "high"))
            assert all(a <= b <= c for a, b, c in zip(low, value, high, strict=True))
    assert set(fitted.predict(tiny, "colour")["value"].to_pylist()) <= {"red", "green", "blue"}


def test_a_row_does_not_hang_on_its_neighbours(fitted: Model, tiny: pa.Table) -> None:
    order = np.random.default_rng(0).permutation(80)
    whole, mixed = fitted.embed(tiny), fitted.embed(tiny.take(order))
    assert unit(whole) and np.allclose(mixed, whole[order], atol=1e-5)
    answers = {column: fitted.answers(tiny, column, None, 0) for column in ASKED}
    for row in (0, 11, 79):
        alone = tiny.slice(row, 1)
        assert np.allclose(fitted.embed(alone)[0], whole[row], atol=1e-5)
        for column, said in answers.items():
            own = fitted.answers(alone, column, None, 0)
            assert own.cells[0] == said.cells[row] and np.allclose(own.scores[0], said.scores[row], atol=1e-4)
            if said.probabilities is not None:
                assert np.allclose(own.probabilities[0], said.probabilities[row], atol=1e-5)


def test_what_is_asked_is_never_seen(fitted: Model, tiny: pa.Table) -> None:
    for column in ASKED:
        without = tiny.drop_columns([column])
        assert fitted.predict(tiny, column).equals(fitted.predict(without, column))
        assert fitted.predict(tiny, column, [column, "picture"]).equals(fitted.predict(tiny, column, ["picture"]))


def test_a_table_may_lack_columns_have_others_and_be_in_any_order(fitted: Model, tiny: pa.Table) -> None:
    heard: list[str] = []
    whole = fitted.predict(tiny, "colour")
    turned = (
        tiny.select(COLUMNS[::-1])
        .append_column("new", pa.array(range(80)))
        .append_column("split", pa.array(["test"] * 80))
    )
    assert fitted.predict(turned, "colour").equals(whole) and np.array_equal(fitted.embed(turned), fitted.embed(tiny))
    some = fitted.predict(tiny.select(["name", "tone"]), "colour", note=heard.append)
    assert some.equals(fitted.predict(tiny, "colour", ["name", "tone"])) and not same(some, whole)
    assert len(heard) == 1 and "'picture', 'width', 'day', 'curve'" in heard[0]
    assert unit(fitted.embed(tiny.select(["width"])))


def test_a_missing_cell_is_as_a_missing_column(fitted: Model, tiny: pa.Table) -> None:
    for column in COLUMNS:
        empty = tiny.set_column(tiny.column_names.index(column), column, pa.nulls(80, tiny.schema.field(column).type))
        assert np.allclose(fitted.embed(empty), fitted.embed(tiny.drop_columns([column])), atol=1e-6)


def test_other_types_of_the_same_cells_mean_the_same(fitted: Model) -> None:
    cells = tiny_cells(20, gaps=0.0)
    plain = fitted.predict(pa.table(cells), "colour")
    other = {
        **cells, "width": [str(value) for value in cells["width"]], "day": [day.isoformat() for day in cells["day"]],
        "curve": [[list(channel) for channel in zip(*curve, strict=True)] for curve in cells["curve"]],
        "picture": [{"bytes": cell, "path": "x.png"} for cell in cells["picture"]],
        "name": pa.array(cells["name"]).dictionary_encode(), "tone": pa.array(cells["tone"], pa.large_binary()),
    }  # fmt: skip
    del other["curve"]
    assert same(
        fitted.predict(pa.table(other), "colour"), fitted.predict(pa.table(cells).drop_columns(["curve"]), "colour")
    )
    narrow = pa.table(
        {
            **cells,
            "width": pa.array(cells["width"], pa.float32()),
            "day": pa.array(cells["day"]).cast(pa.timestamp("ms")),
        }
    )
    assert same(fitted.predict(narrow, "colour"), plain)
    frame = pa.table(cells).to_pandas()
    assert same(fitted.predict(frame, "colour"), plain)
    assert same(fitted.predict(Table.open(pa.table(cells)), "colour"), plain)
    assert same(fitted.predict([{c: cells[c][i] for c in COLUMNS} for i in range(20)], "colour"), plain)


def test_a_row_without_any_cell_is_answered(fitted: Model) -> None:
    nothing = pa.table({"colour": pa.nulls(3, pa.string()), "other": [1, 2, 3]})
    for column in ASKED:
        said = fitted.predict(nothing, column)
        assert said.num_rows == 3 and np.isfinite(said["probability"].to_numpy()).all()
        assert len({str(value) for value in said["value"].to_pylist()}) == 1
        assert fitted.predict([{}, {}, {}], column).equals(said)
    assert unit(fitted.embed(nothing)) and unit(fitted.embed([{}]))
    for verb in (fitted.embed, fitted.evaluate, fitted.fill, lambda table: fitted.predict(table, "colour")):
        with pytest.raises(UserError, match="none of this model's columns: it has other, and the model knows picture"):
            verb(pa.table({"other": [1, 2, 3]}))


def test_an_empty_table_gets_empty_answers(fitted: Model, tiny: pa.Table) -> None:
    empty = tiny.slice(0, 0)
    assert fitted.embed(empty).shape == (0, 24) and fitted.embed(empty).dtype == fitted.embed(tiny).dtype
    for column in ASKED:
        said = fitted.predict(empty, column)
        assert said.num_rows == 0 and said.column_names == fitted.predict(tiny, column).column_names
        assert said.schema.equals(fitted.predict(tiny.slice(0, 2), column).schema)
    assert fitted.generate(empty, "name") == []
    assert fitted.search({"name": "red"}, among=empty, column="picture").num_rows == 0
    with pytest.raises(UserError, match="no rows"):
        fitted.evaluate(empty)


def test_unseen_categories_and_absurd_numbers_are_borne(fitted: Model) -> None:
    cells = tiny_cells(6, gaps=0.0)
    cells["colour"] = ["mauve", "Red", " red ", "", "x" * 900, "💥"]
    cells["width"] = [1e300, -1e300, 1e-300, 0.0, float("inf"), float("nan")]
    cells["name"] = ["\x00", "\u202e", "a" * 100_000, "🏳️‍🌈" * 50, " ", "\n\n"]
    table = pa.table(cells)
    assert unit(fitted.embed(table))
    for column in ASKED:
        assert np.isfinite(fitted.predict(table, column)["probability"].to_numpy()).all()


def test_only_columns_that_the_model_knows_can_be_asked(fitted: Model, tiny: pa.Table) -> None:
    with pytest.raises(UserError, match="Did you mean 'colour'"):
        fitted.predict(tiny, "color")
    with pytest.raises(UserError, match="Did you mean 'picture'"):
        fitted.embed(tiny, columns=["pictures"])
    with pytest.raises(UserError, match="image, which this run did not learn to generate. Fit with --generate picture"):
        fitted.generate(tiny, "picture")
    with pytest.raises(UserError, match="temperture"):
        fitted.generate(tiny, "name", temperture=1.0)
    with pytest.raises(UserError, match="top_p"):
        fitted.generate(tiny, "name", top_p=3.0)
    with pytest.raises(UserError, match="Unknown column"):
        fitted.evaluate(tiny, seen=["nothing"])
    with pytest.raises(UserError, match="--entity-key"):
        fitted.evaluate(tiny, entity_key="nothing")


def test_seen_narrows_what_is_looked_at_down_to_nothing(fitted: Model, tiny: pa.Table) -> None:
    nothing = fitted.predict(tiny, "colour", seen=[])
    assert len(set(nothing["probability"].to_pylist())) == 1
    assert not same(nothing, fitted.predict(tiny, "colour", seen=["picture"]))


def test_generated_text_follows_the_seed(fitted: Model, tiny: pa.Table) -> None:
    drawn = [fitted.generate(tiny, "name", ["picture"], temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and all(isinstance(text, str) for text in drawn[0])
    greedy, beams = (fitted.answers(tiny.slice(0, 9), "name", None, 0, beam=beam) for beam in (1, 3))
    assert (beams.scores >= greedy.scores - 1e-4).all()


def test_of_several_texts_the_one_nearest_to_what_is_seen_is_said(
    fitted: Model, tiny: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sensorium.inference.rerank.LIKELIHOOD_WEIGHT", 0.0
    )  # a model that knows little finds all that it draws unlikely
    rows, part = fitted.rows(tiny), np.arange(30)
    wanted = fitted.embed(tiny.slice(0, 30), ["picture"])

    def near(candidates: int) -> tuple[list[str], np.ndarray]:
        said = rows.predict("name", ["picture"], part, candidates=candidates).cells
        return said, (fitted.embed(pa.table({"name": said}), ["name"]) * wanted).sum(1)

    (first, one), (_, eight), (again, _), (same_again, _) = near(1), near(8), near(0), near(0)
    assert eight.mean() > one.mean() and again == same_again
    assert first == rows.predict("name", ["picture"], part, beam=1).cells  # with other options there is no choice
    with pytest.raises(UserError, match="candidates"):
        fitted.generate(tiny, "name", candidates=-1)


def test_what_is_unheeded_is_left_out_unless_asked_for_or_alone(fitted: Model, tiny: pa.Table, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    model = Model.load(tmp_path)
    model.network.calibration.ensembles = {}  # the network's own answers
    others = [c for c in model.columns if c not in ("colour", "name")]
    without = model.predict(tiny, "colour", others)
    before = model.predict(tiny, "colour")
    model.network.calibration.ignored["colour"] = IgnoredColumns(("name",), ("picture",))
    after = model.predict(tiny, "colour")
    pictures = np.array([cell is not None for cell in tiny.column("picture").to_pylist()])
    assert same(after.filter(pictures), without.filter(pictures)) and same(
        after.filter(~pictures), before.filter(~pictures)
    )
    assert not same(before, after) and 0 < pictures.sum() < 80
    assert same(model.predict(tiny.select(["name"]), "colour"), model.predict(tiny, "colour", ["name"]))
    model.network.calibration.ignored["colour"] = IgnoredColumns(("name",))
    assert same(model.predict(tiny.select(["name"]), "colour"), model.predict(tiny, "colour", ["name"]))
    model.network.calibration.ignored["colour"] = IgnoredColumns(("name",), ("picture",))
    model.save(tmp_path)
    assert same(Model.load(tmp_path).predict(tiny, "colour"), after)
    entry = model.evaluate(tiny.slice(0, 9))["columns"]["colour"]
    assert (
        entry["unheeded"] == ["name"]
        and "unheeded" not in model.evaluate(tiny.slice(0, 9), seen=["name"])["columns"]["colour"]
    )


# --- search -----------------------------------------------------------------------------------------------------------


def test_search_finds_the_nearest_by_any_columns(fitted: Model, tiny: pa.Table) -> None:
    have = [i for i, cell in enumerate(tiny["picture"].to_pylist()) if cell is not None]
    gists, query = fitted.embed(tiny, ["picture"]), fitted.embed([{"name": "a red bar"}], ["name"])[0]
    found = fitted.search({"name": "a red bar"}, among=tiny, column="picture", k=7)
    rows, scores = found["row"].to_pylist(), found["score"].to_numpy()
    assert len(rows) == 7 and set(rows) <= set(have) and (np.diff(scores) <= 0).all()
    assert np.allclose(scores, gists[rows] @ query, atol=1e-5) and math.isclose(
        scores[0], (gists[have] @ query).max(), abs_tol=1e-5
    )
    assert fitted.search({"name": "a red bar"}, among=tiny, column="picture", k=1000).num_rows == len(have)
    again = fitted.search({"picture": tiny["picture"][3].as_py()}, among=tiny, column="picture", k=1)
    assert tiny["picture"][again["row"][0].as_py()] == tiny["picture"][3] and again["score"][0].as_py() > 0.999
    both = fitted.search({"name": "a red bar", "colour": "red"}, among=tiny, k=80)
    assert sorted(both["row"].to_pylist()) == list(range(80))
    assert fitted.search({"name": "a"}, among=tiny, column="colour", k=2).num_rows == 2
    assert fitted.search({"name": "a"}, among=tiny.select(["tone"]), column="picture").num_rows == 0


@pytest.mark.parametrize(
    "query",
    [{}, {"name": None}, {"name": "  "}, {"picture": b"no picture"}, {"picture": "no/such/file.png"}, {"width": "ten"}],
)
def test_a_query_that_says_nothing_is_refused(query: dict[str, Any], fitted: Model, tiny: pa.Table) -> None:
    with pytest.raises(UserError, match="query"):
        fitted.search(query, among=tiny, column="picture")


def test_a_search_for_less_than_one_row_is_refused(fitted: Model, tiny: pa.Table) -> None:
    for k in (0, -1):
        with pytest.raises(UserError, match="k"):
            fitted.search({"name": "red"}, among=tiny, k=k)


# --- windows ----------------------------------------------------------------------------------------------------------


def test_a_large_table_is_asked_in_windows_with_the_same_answers(
    fitted: Model, tiny: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (
        fitted.embed(tiny),
        fitted.predict(tiny, "width"),
        fitted.search({"name": "red"}, among=tiny, column="tone", k=80),
    )
    monkeypatch.setattr("sensorium.inference.trained.WINDOW", 7)
    monkeypatch.setattr(Trained.windows, "__defaults__", (None, None, 7))
    heard: list[str] = []
    assert np.allclose(fitted.embed(tiny, note=heard.append), whole[0], atol=1e-5) and not heard
    assert same(fitted.predict(tiny, "width"), whole[1])
    found = fitted.search({"name": "red"}, among=tiny, column="tone", k=80)
    assert set(found["row"].to_pylist()) == set(whole[2]["row"].to_pylist()) and same(found, whole[2], "score")
    fitted.embed(tiny.drop_columns(["tone"]), note=heard.append)
    assert len(heard) == 1


# --- measuring --------------------------------------------------------------------------------------------------------


def test_an_evaluation_has_the_promised_keys(quick_fit: Callable[..., Model], tiny: pa.Table, tmp_path: Path) -> None:
    model = quick_fit(tiny_table(90, seed=2), "baselines.share=1", epochs=1)
    results = model.evaluate(tiny)
    text = json.dumps(results, allow_nan=False)
    assert json.loads(text) == results
    assert set(results) >= {"rows", "columns", "retrieval", "seconds", "trained_on"} and results["rows"] == 80
    assert set(results["columns"]) == set(ASKED)
    for column, measures in {
        "colour": ["accuracy"],
        "width": ["r2", "mae"],
        "day": ["r2", "mae"],
        "name": ["exact", "chrf"],
    }.items():
        entry = results["columns"][column]
        kinds = {"colour": "category", "width": "number", "day": "date", "name": "text"}
        assert entry["kind"] == kinds[column] and all(isinstance(entry[m], float) for m in measures)
        if column != "name":
            assert isinstance(entry["chance"], float) and 0 <= entry["covered"] <= 1
            assert isinstance(entry["baseline"]["one_column"], float) and isinstance(entry["baseline"]["trees"], float)
    assert set(results["retrieval"]) == {f"{a}>{b}" for a in MATCHED for b in MATCHED if a != b}
    for direction, entry in results["retrieval"].items():
        assert 0 <= entry["recall@1"] <= entry["recall@10"] <= 1
        assert entry["gallery"] == 80 - tiny[direction.split(">")[1]].null_count
    assert (
        results["trained_on"] == 0
        and model.evaluate(tiny_table(90, seed=2))["trained_on"] == model.facts["rows"]["train"]
    )
    assert model.evaluate(tiny.drop_columns(["tone"]))["trained_on"] is None


def test_intervals_and_sets_are_of_the_coverage_that_is_asked(fitted: Model, tiny: pa.Table) -> None:
    narrow, wide = (fitted.predict(tiny, "width", coverage=coverage) for coverage in (0.5, 0.95))
    spans = [np.mean(said["high"].to_numpy() - said["low"].to_numpy()) for said in (narrow, wide)]
    assert spans[0] < spans[1] and narrow["value"].equals(wide["value"])
    few, many = (fitted.predict(tiny, "colour", coverage=coverage)["set"].to_pylist() for coverage in (0.3, 0.9))
    values = fitted.predict(tiny, "colour")
    assert (
        "set" not in values.column_names
        and [some[0] for some in few] == [some[0] for some in many] == values["value"].to_pylist()
    )
    assert all(set(a) <= set(b) <= {"red", "green", "blue"} for a, b in zip(few, many, strict=True))
    with pytest.raises(UserError, match="coverage"):
        fitted.predict(tiny, "name", coverage=0.5)


def test_an_evaluation_sees_only_what_it_may(fitted: Model, tiny: pa.Table) -> None:
    narrow = fitted.evaluate(tiny, seen=["picture"])["columns"]["colour"]
    truth = np.array(tiny["colour"].to_pylist(), dtype=object)
    said = np.array(fitted.predict(tiny, "colour", ["picture"])["value"].to_pylist(), dtype=object)
    have = truth != np.array(None)
    assert math.isclose(narrow["accuracy"], float((truth[have] == said[have]).mean())) and set(narrow["alone"]) == {
        "picture"
    }


def test_rows_of_one_thing_are_all_hits(fitted: Model) -> None:
    once = tiny_table(30, gaps=0.0)
    keys = pa.array([i % 10 for i in range(30)])
    plain, shared = (
        fitted.evaluate(once.append_column("id", keys), entity_key=key_column)["retrieval"]
        for key_column in (None, "id")
    )
    assert all(shared[d]["recall@10"] >= plain[d]["recall@10"] for d in plain)
    assert sum(shared[d]["recall@10"] for d in plain) > sum(plain[d]["recall@10"] for d in plain)
    twice = pa.concat_tables([once, once])
    key = pa.array([*range(30), *range(30)])
    both = fitted.evaluate(twice.append_column("id", key), entity_key="id")["retrieval"]["picture>name"]
    assert both["gallery"] == 60 and both["recall@1"] == plain["picture>name"]["recall@1"]


def test_a_split_is_a_part_of_the_table(fitted: Model, tiny: pa.Table) -> None:
    table = tiny.append_column("split", pa.array(["test_a"] * 50 + ["test_b"] * 30))
    assert fitted.evaluate(table, split="test_b")["rows"] == 30
    with pytest.raises(UserError, match="Did you mean 'test_a'|Did you mean 'test_b'"):
        fitted.evaluate(table, split="test_c")
    with pytest.raises(UserError, match="no column 'split'"):
        fitted.evaluate(tiny, split="test")


# --- fitting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [
    ["trunk=concat"], ["trunk=late", "match.kind=siglip"], ["objectives=tell,match,autoencode"], ["objectives=tell"],
    ["network.summary=false"],
    ["trunk.depth=0"], ["train.max_grad_norm=0"],
], ids=" ".join)  # fmt: skip
def test_every_kind_of_model_is_fitted_kept_and_asked(
    settings: list[str], quick_fit: Callable[..., Model], tmp_path: Path
) -> None:
    table = tiny_table(40).select(["picture", "name", "colour", "width"])
    if settings[0] in ("trunk=concat", "trunk=late"):
        settings = [*settings, "trunk.depth=1"]
    model = quick_fit(table, *settings)
    loaded = Model.load(tmp_path / "run")
    assert np.array_equal(loaded.embed(table), model.embed(table)) and unit(model.embed(table))
    assert loaded.predict(table, "width").equals(model.predict(table, "width"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(math.isfinite(line["loss"]) for line in lines)


def test_it_learns(quick_fit: Callable[..., Model]) -> None:
    train, test = (tiny_table(96, seed=seed, gaps=0.05).select(["picture", "colour", "name"]) for seed in (3, 4))
    model = quick_fit(train, "train.lr=0.005", epochs=25)
    results = model.evaluate(test)
    assert results["columns"]["colour"]["accuracy"] >= 0.9
    seen = model.evaluate(test, seen=["picture"])["columns"]["colour"]
    assert seen["accuracy"] >= 0.9
    assert results["retrieval"]["name>picture"]["recall@10"] >= 0.4


def test_targets_are_learned_and_must_be_askable(quick_fit: Callable[..., Model], tiny: pa.Table) -> None:
    model = quick_fit(tiny.select(["name", "colour", "picture"]), target="colour")
    assert model.facts["targets"] == ["colour"]
    with pytest.raises(UserError, match="Did you mean 'colour'"):
        quick_fit(tiny, target="color")
    with pytest.raises(UserError, match="'picture' can't be asked"):
        quick_fit(tiny, target=["picture"])
    with pytest.raises(UserError, match="colour"):
        quick_fit(tiny, "column.colour.kind=out", target="colour")


def test_a_step_that_is_not_finite_is_skipped_and_counted(
    quick_fit: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    losses, calls = TableTrainer.losses, []

    def spoiled(self: TableTrainer, *given: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        found = losses(self, *given)
        return {name: loss * float("nan") if len(calls) in (2, 5) else loss for name, loss in found.items()}

    monkeypatch.setattr(TableTrainer, "losses", spoiled)
    model = quick_fit(tiny_table(50).select(["name", "colour", "width"]), epochs=3)
    assert model.facts["skipped_steps"] == 2 and model.facts["steps"] == len(calls)
    assert all(torch.isfinite(p).all() for p in model.network.parameters())
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "loss" not in line] == [2, 5] and len(lines) == len(calls)


def test_a_gradient_that_is_not_finite_changes_nothing(
    quick_fit: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = TableTrainer.losses

    class Spoiled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * float("inf")

    monkeypatch.setattr(
        TableTrainer, "losses", lambda self, *given: {k: Spoiled.apply(v) for k, v in losses(self, *given).items()}
    )
    model = quick_fit(tiny_table(50).select(["name", "colour"]), epochs=2)
    assert model.facts["skipped_steps"] == model.facts["steps"] and all(
        torch.isfinite(p).all() for p in model.network.parameters()
    )


def test_a_run_that_never_is_finite_says_so(quick_fit: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        TableTrainer, "losses", lambda self, batch, plans: {"x": self.objectives["match"].log_scale * float("inf")}
    )
    with pytest.raises(UserError, match="isn't finite"):
        quick_fit(tiny_table(50).select(["name", "colour"]), epochs=60)


ODD: dict[str, dict[str, list[Any]]] = {
    "one class": {"kind": ["a"] * 40, "value": [float(i % 7) for i in range(40)]},
    "one class and a target": {"kind": ["a"] * 38 + ["b"] * 2, "value": [float(i % 7) for i in range(40)]},
    "one column": {"value": [float(i % 7) + 0.5 * i for i in range(40)]},
    "a text alone": {"note": [f"word {i} and more" for i in range(40)]},
    "a picture alone": {"photo": [drawing(("red", "green", "blue")[i % 3], "bar", i % 4) for i in range(20)]},
    "an empty name": {"": ["x", "y"] * 20, "value": [float(i % 7) for i in range(40)]},
    "odd names": {"a.b": ["x", "y"] * 20, "☃ \n": [float(i % 7) for i in range(40)], "text": ["u", "v", "w", "u"] * 10,
    "self": [i % 3 for i in range(40)]},
    "rows that are all alike": {"kind": ["a", "b"] * 20, "note": ["the same words", "other words there"] * 20},
    "mostly missing": {"kind": ["a", "b", *[None] * 38], "value": [1.0, 2.5, 3.0, *[None] * 37]},
    "three rows": {"kind": ["a", "b", "a"], "value": [1.5, 2.0, 3.0]},
    "rows without cells": {"kind": ["a", "b", None, None] * 10, "value": [1.5, 2.5, None, None] * 10},
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_tables_are_learned_and_asked(name: str, quick_fit: Callable[..., Model]) -> None:
    table = pa.table(ODD[name])
    settings = ["train.batch=8"] + (["column.photo.size=16"] if "photo" in table.column_names else [])
    model = quick_fit(table, *settings, epochs=2)
    assert unit(model.embed(table))
    for column in model.network.asked_columns:
        assert model.predict(table, column).num_rows == table.num_rows
    json.dumps(model.evaluate(table), allow_nan=False)


def test_tables_that_cannot_be_learned_are_told(quick_fit: Callable[..., Model], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rows"):
        quick_fit(pa.table({"a": pa.array([], pa.string())}))
    with pytest.raises(UserError, match="No column of .* can be used"):
        quick_fit(pa.table({"a": pa.nulls(5, pa.string()), "b": ["x"] * 5}))
    with pytest.raises(UserError, match="several columns named 'a'"):
        quick_fit(pa.Table.from_arrays([pa.array([1, 2]), pa.array([3, 4])], ["a", "a"]))
    with pytest.raises(UserError):
        quick_fit(tmp_path / "nothing.parquet")


@pytest.mark.parametrize(("settings", "words"), [
    (["network.widht=3"], "width"), (["trunk=segmnt"], "segment"), (["netwrk.width=3"], "network"),
    (["train.batch=many"], "whole number"),
    (["baselines.shre=0"], "share"), (["trackers=tensorbord"], "tensorboard"),
    (["generator.quantil.levels=3"], "quantile"),
    (["generator.quantile.levels=4"], "odd"), (["objectives=tel"], "tell"), (["column.colur.kind=text"], "colour"),
    (["column.colour.kind=txt"], "text"), (["questions.weights=nme:3"], "name"), (["network.width=25"], "multiple"),
    (["train.accumulate=0"], "accumulate"), (["train.batch=-1"], "batch"), (["data.workers=0"], "workers"),
    (["data.max_bad=lots"], "max-bad"),
    (["data.split=column:nme"], "name"), (["train.precision=fp8"], "bf16"), (["train.lr=-1"], "lr"),
    (["train.ema_decay=1"], "ema"), (["match.kind=clip"], "siglip"),
    (["column.name.vocabulary=3"], "vocabulary"), (["train.optimizer=adam"], "adamw"),
    (["data.validation=2"], "validation"),
], ids=lambda value: value[0] if isinstance(value, list) else "")  # fmt: skip
def test_settings_that_make_no_sense_are_told_before_any_work(
    settings: list[str], words: str, quick_fit: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorium.fit.stages.train", lambda *given: pytest.fail("training began"))
    with pytest.raises(UserError, match=words):
        quick_fit(tiny_table(40).select(["name", "colour", "width"]), *settings)


@pytest.mark.parametrize(
    "arguments",
    [{"seed": -1}, {"epochs": 0}, {"epochs": float("nan")}, {"minutes": -1}, {"device": "cuda:99"}, {"device": "tpu"}],
    ids=str,
)
def test_arguments_that_make_no_sense_are_told(arguments: dict[str, Any], quick_fit: Callable[..., Model]) -> None:
    with pytest.raises(UserError):
        quick_fit(tiny_table(40).select(["name", "colour"]), **arguments)


def test_settings_may_be_a_mapping(no_report: None, tmp_path: Path) -> None:
    settings = {
        "trunk": "concat",
        "network": {"width": 24, "gist": 24},
        "train": {"batch": 16},
        "trackers": "none",
        "column": {"width": "category", "name": {"kind": "text", "length": 5}},
        "baselines": {"share": 0},
    }
    table = tiny_table(30).select(["name", "width", "colour"])
    table = table.set_column(1, "width", pa.array([i % 4 for i in range(30)]))
    model = Model.fit(table, out=tmp_path, epochs=1, settings=settings)
    assert type(model.network.trunk).__name__ == "Concat" and model.schema.columns["width"].kind == "category"
    assert Model.load(tmp_path).predict(table, "width").num_rows == 30


def test_fits_with_one_seed_are_equal_and_with_another_not(quick_fit: Callable[..., Model], tmp_path: Path) -> None:
    table = tiny_table(40).select(["name", "colour", "picture"])
    first, second, other = (
        quick_fit(table, epochs=1, seed=seed, out=tmp_path / str(i)) for i, seed in enumerate((4, 4, 5))
    )
    assert np.array_equal(first.embed(table), second.embed(table)) and not np.allclose(
        first.embed(table), other.embed(table)
    )


def test_a_run_without_a_folder_leaves_a_model(no_report: None, tiny: pa.Table) -> None:
    table = tiny.select(["colour", "width"])
    model = Model.fit(table, epochs=1, settings=[s for s in TINY if not s.startswith("column.")])
    try:
        assert model.predict(table, "width").num_rows == 80 and (model.folder / "model.json").is_file()
    finally:
        shutil.rmtree(model.folder)
