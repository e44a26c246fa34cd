"""Pictures, sounds and series asked for: from a fit that learns them to cells of the column's own kind."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from conftest import tiny_table
from PIL import Image

from sensorium.core.errors import UserError
from sensorium.model import Model


def test_every_kind_is_drawn_as_the_column_has_it(drawing_model: Model) -> None:
    rows = tiny_table(5)
    picture, *_ = drawing_model.generate(rows, "picture", steps=3)
    assert Image.open(io.BytesIO(picture)).size == (16, 16)
    tone, *_ = drawing_model.generate(rows, "tone", seen=["name"], steps=3)
    wave, rate = soundfile.read(io.BytesIO(tone))
    assert rate == 16_000 and 0 < len(wave) <= 16_000 and np.isfinite(wave).all()
    curve, *_ = drawing_model.generate(rows, "curve", steps=3)
    assert 1 <= len(curve) <= 32 and all(len(step) == 2 for step in curve)
    for column, cell in (("picture", picture), ("tone", tone), ("curve", curve)):
        assert drawing_model.embed([{column: cell}], columns=[column]).shape == (1, 24), (
            "what is drawn can be read again"
        )


def test_samples_differ_and_a_seed_gives_the_same(drawing_model: Model, tmp_path: Path) -> None:
    rows = tiny_table(3)
    several = drawing_model.generate(rows, "picture", samples=2, steps=2, seed=5)
    assert [len(cells) for cells in several] == [2, 2, 2] and several[0][0] != several[0][1]
    assert several == drawing_model.generate(rows, "picture", samples=2, steps=2, seed=5)
    assert several != drawing_model.generate(rows, "picture", samples=2, steps=2, seed=6)
    again = Model.load(drawing_model.save(tmp_path / "kept"))
    assert several == again.generate(rows, "picture", samples=2, steps=2, seed=5)


def test_what_is_seen_and_guidance_matter(drawing_model: Model) -> None:
    one, other = ([{"colour": colour, "name": f"big {colour} square"}] for colour in ("red", "blue"))

    def draw(row: Any, guidance: float) -> list[Any]:
        return drawing_model.generate(row, "picture", steps=2, guidance=guidance)

    assert draw(one, 2.0) != draw(other, 2.0) and draw(one, 1.0) != draw(one, 3.0)
    assert draw([{"colour": None}], 1.0) == draw([{"colour": None}], 3.0), (
        "where nothing is seen there is nothing to be guided by"
    )


def test_one_run_learns_several_generators_and_any_of_them_can_be_asked(
    quick_fit: Callable[..., Any], tmp_path: Path
) -> None:
    ways = ["gan", "flow", "vae", "codes"]
    model = quick_fit(
        tiny_table(40),
        "questions.generate=picture",
        f"questions.generator={','.join(ways)}",
        *(f"generator.{w}.depth=1" for w in ways),
        epochs=6,
    )
    told = (model.folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert all(f"tell picture by {way}" in told for way in ways)
    model = Model.load(model.save(tmp_path / "kept"))
    row = tiny_table(1)
    drawn = {way: model.generate(row, "picture", generator=way, seed=1)[0] for way in ways}
    assert len(set(drawn.values())) == len(ways) and all(
        Image.open(io.BytesIO(cell)).size == (16, 16) for cell in drawn.values()
    )
    assert model.generate(row, "picture", seed=1)[0] == drawn["gan"], "the first is asked where none is named"
    assert model.generate(row, "picture", generator="vae", temperature=0.0, seed=1) == model.generate(
        row, "picture", generator="vae", temperature=0.0, seed=2
    )
    with pytest.raises(UserError, match="vea.*vae"):
        model.generate(row, "picture", generator="vea")
    with pytest.raises(UserError, match="steps"):
        model.generate(row, "picture", generator="vae", steps=3)


@pytest.mark.parametrize("generator", ["flow", "vae,gan"])
def test_drawing_apart_changes_nothing_that_is_learned_without_it(
    quick_fit: Callable[..., Any], generator: str
) -> None:
    """Every parameter, to the last bit: questions, random numbers, gradients and their norms are those of a run that
    draws nothing.
    """
    without, drawing = (
        quick_fit(
            tiny_table(),
            f"questions.generate={drawn}",
            f"questions.generator={generator}",
            "questions.detach_generation=true",
            "train.max_grad_norm=0.5",
        ).network
        for drawn in ("", "picture,tone,curve")
    )
    mine, theirs = dict(drawing.named_parameters()), dict(without.named_parameters())
    assert all(torch.equal(mine[key], value) for key, value in theirs.items()) and len(mine) > len(theirs)
    together = dict(
        quick_fit(
            tiny_table(), "questions.generate=picture,tone,curve", f"questions.generator={generator}"
        ).network.named_parameters()
    )
    assert not all(torch.equal(together[key], value) for key, value in theirs.items())


def test_a_generator_that_does_not_draw_is_refused_before_long_work(quick_fit: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="categorical.*codes, flow, gan, vae"):
        quick_fit(tiny_table(20), "questions.generate=picture", "questions.generator=categorical")


def test_a_column_that_was_not_learned_is_refused_with_what_to_do(fitted: Model, drawing_model: Model) -> None:
    with pytest.raises(UserError, match="--generate picture"):
        fitted.generate(tiny_table(2), "picture")
    with pytest.raises(UserError, match="generated, not predicted"):
        drawing_model.predict(tiny_table(2), "picture")
    with pytest.raises(UserError, match="samples=0"):
        drawing_model.generate(tiny_table(2), "picture", samples=0)
    with pytest.raises(UserError, match="one cell is generated"):
        drawing_model.generate(tiny_table(2), "name", samples=2)
    with pytest.raises(UserError, match="temperature"):
        drawing_model.generate(tiny_table(2), "picture", temperature=1.0)


@pytest.mark.parametrize(("wanted", "words"), [("pictur", "picture"), ("colour", "asked like any other")])
def test_columns_to_generate_are_checked_before_long_work(
    quick_fit: Callable[..., Any], wanted: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        quick_fit(tiny_table(20), f"questions.generate={wanted}")


def test_resuming_gives_the_same_numbers(quick_fit: Callable[..., Any], tmp_path: Path) -> None:
    settings = ["questions.generate=picture", "generator.flow.depth=1", "train.checkpoint_steps=2"]
    whole = quick_fit(tiny_table(40), *settings, epochs=3, out=tmp_path / "whole")
    folder = tmp_path / "part"
    quick_fit(tiny_table(40), *settings, epochs=3, out=folder)
    newest = sorted((folder / "checkpoints").glob("step-*"))
    assert len(newest) > 1
    shutil.rmtree(newest[-1])
    again = quick_fit(tiny_table(40), *settings, epochs=3, out=folder, resume=True)
    lines = [(m.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for m in (whole, again)]
    losses = [[json.loads(line)["loss"] for line in part] for part in lines]
    assert losses[0] == losses[1] and any("tell picture" in line for line in lines[0])


def test_the_command_writes_a_folder_or_a_table(drawing_model: Model, tmp_path: Path) -> None:
    from sensorium.cli.generation import write_samples

    table = tmp_path / "t.parquet"
    pq.write_table(tiny_table(3), table)
    write_samples(drawing_model, str(table), "picture", tmp_path / "drawn", ["name"], 0, 2, {"steps": 2})
    told = [
        json.loads(line) for line in (tmp_path / "drawn" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(entry["row"], entry["sample"]) for entry in told] == [(r, s) for r in range(3) for s in range(2)]
    for entry in told:
        with Image.open(tmp_path / "drawn" / entry["file_name"]) as picture:
            assert picture.size == (16, 16)
    write_samples(drawing_model, str(table), "tone", tmp_path / "tones.parquet", None, 0, 1, {"steps": 2})
    kept = pq.read_table(tmp_path / "tones.parquet")
    assert kept.num_rows == 3 and kept.schema.field("value").type == pa.binary()
    write_samples(drawing_model, str(table), "curve", tmp_path / "curves.jsonl", None, 0, 1, {"steps": 2})
    assert len((tmp_path / "curves.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    pq.write_table(tiny_table(0), table)
    write_samples(drawing_model, str(table), "tone", tmp_path / "none.parquet", None, 0, 1, {"steps": 2})
    assert pq.read_table(tmp_path / "none.parquet").column_names == ["row", "sample", "value"]
    with pytest.raises(UserError, match="folder"):
        write_samples(drawing_model, str(table), "picture", tmp_path / "drawn.csv", None, 0, 1, {})
    with pytest.raises(UserError, match="a series can't stand"):
        write_samples(drawing_model, str(table), "curve", tmp_path / "curves.csv", None, 0, 1, {})
    with pytest.raises(UserError, match="--samples 0"):
        write_samples(drawing_model, str(table), "picture", tmp_path / "drawn", None, 0, 0, {})


def interrupted(monkeypatch: pytest.MonkeyPatch, model: Model, after: int) -> None:
    """Let somebody press Ctrl-C in a model's questions, after some."""
    say, count = model.network.sample, [0]

    def stopping(*given: Any, **named: Any) -> Any:
        count[0] += 1
        if count[0] > after:
            raise KeyboardInterrupt
        return say(*given, **named)

    monkeypatch.setattr(model.network, "sample", stopping)


def test_what_is_finished_is_kept_and_what_was_there_is_not_lost(
    drawing_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sensorium.cli.generation import write_forecast, write_samples, write_together

    table, out, folder = tmp_path / "t.parquet", tmp_path / "drawn.parquet", tmp_path / "drawn.v2"
    pq.write_table(tiny_table(5), table)
    write_samples(drawing_model, str(table), "picture", out, ["name"], 0, 1, {"steps": 1})
    folder.mkdir()
    write_samples(drawing_model, str(table), "picture", folder, ["name"], 0, 1, {"steps": 1})
    before, told = out.read_bytes(), (folder / "metadata.jsonl").read_bytes()

    def untouched() -> None:
        assert out.read_bytes() == before and (folder / "metadata.jsonl").read_bytes() == told

    for options in (
        {"solver": "huen"},
        {"guidance": -1.0},
        {"steps": 0},
        {"steps": 10**11},
        {"guidance": float("nan")},
        {"blank": None},
        {"judged": True},
    ):
        for place in (out, folder):
            with pytest.raises(UserError):
                write_samples(drawing_model, str(table), "picture", place, ["name"], 0, 1, options)
            untouched()
    with pytest.raises(UserError, match="All 5 failed"):
        write_samples(drawing_model, str(table), "picture", out, ["name"], 0, 1, {"guidance": 1e30})
    untouched()
    monkeypatch.setattr("sensorium.inference.rows.ROWS_PER_BATCH", 2)
    with monkeypatch.context() as patch:
        interrupted(patch, drawing_model, 0)
        for place in (out, folder):
            with pytest.raises(KeyboardInterrupt):
                write_samples(drawing_model, str(table), "picture", place, ["name"], 0, 1, {"steps": 1})
            untouched()
    for place, rows in (
        (out, lambda: pq.read_table(out).num_rows),
        (folder, lambda: len((folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines())),
    ):
        with monkeypatch.context() as patch:
            interrupted(patch, drawing_model, 2)
            with pytest.raises(KeyboardInterrupt):
                write_samples(drawing_model, str(table), "picture", place, ["name"], 0, 1, {"steps": 1})
            assert rows() == 4 and "finished is saved: 4" in capsys.readouterr().err
    monkeypatch.setattr("sensorium.inference.generate.GENERATED_WINDOW", 2)
    with monkeypatch.context() as patch:
        interrupted(patch, drawing_model, 2)
        with pytest.raises(KeyboardInterrupt):
            write_forecast(drawing_model, str(table), "curve", 3, tmp_path / "rest.parquet", None, 0, 1, {"steps": 1})
        assert pq.read_table(tmp_path / "rest.parquet").num_rows
    with monkeypatch.context() as patch:
        interrupted(patch, drawing_model, 2)
        with pytest.raises(KeyboardInterrupt):
            write_together(
                drawing_model, str(table), ["picture", "tone"], tmp_path / "both.parquet", ["name"], False, 0
            )
        assert pq.read_table(tmp_path / "both.parquet").num_rows == 2


def test_drawn_files_show_themselves_in_a_notebook(drawing_model: Model, tmp_path: Path) -> None:
    rows = tiny_table(3)
    pictures, tones = (drawing_model.generate(rows, column, steps=1, samples=2) for column in ("picture", "tone"))
    assert isinstance(pictures[0][0], bytes) and pictures[0][0]._repr_html_().startswith(
        '<img src="data:image/png;base64,'
    )
    assert pictures._repr_html_().count("<div>") == 3 and pictures._repr_html_().count("<img") == 6
    assert tones._repr_html_().count("<audio controls") == 6 and repr(tones[0][0]).startswith("<audio/wav, ")
    cells = drawing_model.generate(rows, "picture", steps=1)
    pq.write_table(pa.table({"picture": list(cells)}), tmp_path / "t.parquet")
    assert (
        pq.read_table(tmp_path / "t.parquet").column("picture").to_pylist() == cells
        and cells._repr_html_().count("<img") == 3
    )
    assert (
        type(cells)([None, type(cells[0])(b"<script>")])._repr_html_()
        == "<div><span>(failed)</span></div><div>&lt;file, 8 bytes&gt;</div>"
    )
    assert isinstance(drawing_model.generate(rows, "curve", steps=1)[0], list)


def test_wrong_requests_from_python_are_told(drawing_model: Model) -> None:
    rows = tiny_table(2)
    for given, words in (
        ({"seen": "name"}, "as a list"),
        ({"seen": ["picture"]}, "either asked or seen"),
        ({"steps": "many"}, "steps"),
        ({"watch": print}, "Unknown setting"),
    ):
        with pytest.raises(UserError, match=words):
            drawing_model.generate(rows, "picture", **given)
    with pytest.raises(UserError, match="none of this model's columns"):
        drawing_model.generate([{"nmae": "red heart"}], "picture")
    assert drawing_model.generate(rows, "picture", ["name"], steps="2") == drawing_model.generate(
        rows, "picture", ["name"], steps=2
    )
    heard: list[str] = []
    drawing_model.generate([{"tone": b"no sound"}], "picture", steps=1, note=heard.append)
    assert any("'tone'" in words and "row 0" in words for words in heard)


def test_numbers_that_are_not_finite_fail_alone(drawing_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = drawing_model.network.generator("picture")
    clean = generator.net.predict_clean

    def broken(*given: Any) -> Any:
        x = clean(*given)
        x[1] = float("nan")
        return x

    monkeypatch.setattr(generator.net, "predict_clean", broken)
    drawn = drawing_model.generate(tiny_table(3), "picture", steps=2)
    assert drawn[1] is None and drawn[0] is not None and drawn[2] is not None


def test_a_series_is_continued(drawing_model: Model, tmp_path: Path) -> None:
    from sensorium.cli.generation import write_forecast

    rows = pa.table(
        {
            "curve": [
                tiny_table(3).column("curve")[0].as_py()[:20],
                None,
                tiny_table(3).column("curve")[2].as_py()[:9],
            ],
            "name": ["a", "b", "c"],
        }
    )
    told = drawing_model.forecast(rows, "curve", 5, samples=2, steps=3, seed=1)
    assert [len(cells) for cells in told] == [2, 0, 2] and all(
        len(cell) == 5 and len(cell[0]) == 2 for cells in told for cell in cells
    )
    assert told[0][0] != told[0][1] and told == drawing_model.forecast(rows, "curve", 5, samples=2, steps=3, seed=1)
    other = pa.table({"curve": [[[-x for x in step] for step in rows.column("curve")[0].as_py()]], "name": ["a"]})
    assert drawing_model.forecast(other, "curve", 5, samples=2, steps=3, seed=1)[0] != told[0], "the beginning matters"
    heard: list[str] = []
    assert len(drawing_model.forecast(rows, "curve", 30, steps=1, note=heard.append)[0][0]) == 30
    assert any("last 2 steps" in words for words in heard)
    assert len(drawing_model.forecast(rows, "curve", 32, steps=1, note=heard.append)[0][0]) == 31
    assert any("31 steps follow instead of 32" in words for words in heard)
    with pytest.raises(UserError, match="1 to 31"):
        drawing_model.forecast(rows, "curve", 0)
    with pytest.raises(UserError, match="Possible: curve"):
        drawing_model.forecast(rows, "picture", 3)
    table = tmp_path / "t.parquet"
    pq.write_table(rows, table)
    write_forecast(drawing_model, str(table), "curve", 4, tmp_path / "rest.parquet", None, 0, 1, {"steps": 2})
    assert pq.read_table(tmp_path / "rest.parquet").column("row").to_pylist() == [0, 2]


def test_a_column_with_too_few_rows_is_refused_with_the_count_needed(
    quick_fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tiny_table(40)
    cells = table.column("picture").to_pylist()[:5] + [None] * 35
    table = table.set_column(table.column_names.index("picture"), "picture", pa.array(cells, pa.binary()))
    with pytest.raises(UserError, match=r"--generate picture: .* has [1-5] training rows .* at least 16"):
        quick_fit(table, "questions.generate=picture")
    monkeypatch.setattr("sensorium.fit.generation.MINUTES_TO_GENERATE", (0.0, 0.0))
    assert quick_fit(table, minutes=0.05).network.generative_columns == ["curve", "tone"], "unasked it is left out"


def test_the_report_shows_samples_each_step_and_what_generating_took(drawing_model: Model, tmp_path: Path) -> None:
    assert 0 <= drawing_model.facts["generating_share"] < 1
    page = drawing_model.report(tiny_table(12), tmp_path / "page.html").read_text(encoding="utf-8")
    assert (
        page.count('class="scrub"') == 2 * 4 and "of the time of a step" in page and "Measured on 12 of 12 rows" in page
    )
    assert page.count("<span hidden>") == 2 * 4 * 20
    assert page.count('<details class="why">') == 3 * 3 and "Nearest in training" in page
    new = drawing_model.report(tiny_table(3, seed=9), tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Nearest in training" not in new, "no row of that table was trained on"
    with pytest.raises(UserError, match="no rows"):
        drawing_model.report(tiny_table(0), tmp_path / "page.html")
    with pytest.raises(UserError, match="Save it first"):
        Model(drawing_model.network, drawing_model.schema, drawing_model.settings, drawing_model.facts).report(
            tiny_table(3), tmp_path / "page.html"
        )


def test_steps_lead_to_what_is_drawn(drawing_model: Model) -> None:
    rows = drawing_model.rows(tiny_table(2))
    steps = rows.steps("picture", seed=3, steps=4)
    assert [len(each) for each in steps] == [5, 5] and len(set(steps[0])) > 2
    assert [each[-1] for each in steps] == [cells[0] for cells in rows.generate("picture", seed=3, steps=4)]


def test_a_long_series_is_continued_at_its_own_pace(quick_fit: Callable[..., Any]) -> None:
    ramp = [float(i) for i in range(100)]
    table = pa.table(
        {"pulse": [[x + row for x in ramp[:60]] for row in range(30)], "level": [float(row) for row in range(30)]}
    )
    model = quick_fit(table, "questions.generate=pulse", "generator.flow.depth=1", epochs=1)
    read = model.network.modalities["pulse"].read(ramp)
    values, known = model.network.modalities["pulse"].prefix_tokens([read], 4)
    steps = (
        values.reshape(64, 2)[:60, 0].numpy() * model.network.modalities["pulse"].std
        + model.network.modalities["pulse"].mean
    )
    assert np.allclose(steps, ramp[-60:], atol=0.05) and known.reshape(64, 2)[:, 0].sum() == 60
    assert len(model.forecast([{"pulse": ramp}], "pulse", 4, steps=1)[0][0]) == 4
    short = quick_fit(table, "questions.generate=pulse", "generator.flow.depth=1", "column.pulse.length=32", epochs=1)
    with pytest.raises(UserError, match="averaged them to 32.*length=60"):
        short.forecast(table, "pulse", 4)


def test_one_column_that_is_drawn_is_enough_for_a_run(quick_fit: Callable[..., Any]) -> None:
    table = tiny_table(40, gaps=0.0).select(["picture"])
    model = quick_fit(table, "questions.generate= picture", "generator.flow.depth=1", "objectives=tell")
    assert model.network.generative_columns == ["picture"] and len(model.generate([{}], "picture", steps=1)) == 1


def test_flow_continues_a_series_also_where_it_is_not_the_first_generator(quick_fit: Callable[..., Any]) -> None:
    table = tiny_table(40)
    model = quick_fit(
        table,
        "questions.generate=curve",
        "questions.generator=vae,flow",
        "generator.flow.depth=1",
        "generator.vae.depth=1",
        epochs=1,
    )
    assert len(model.forecast(table.slice(0, 1), "curve", 3, steps=1)[0][0]) == 3
    plain = quick_fit(table, "questions.generate=curve", "questions.generator=vae", "generator.vae.depth=1", epochs=1)
    with pytest.raises(UserError, match="Possible: none"):
        plain.forecast(table.slice(0, 1), "curve", 3)


def test_a_model_that_was_kept_elsewhere_is_reported_as_the_run_is(drawing_model: Model, tmp_path: Path) -> None:
    drawing_model.save(tmp_path / "kept")
    assert {"metrics.jsonl", "environment.json", "rows.npy"} <= {path.name for path in (tmp_path / "kept").iterdir()}
    alone = Model(drawing_model.network, drawing_model.schema, drawing_model.settings, drawing_model.facts)
    alone.save(tmp_path / "alone")
    assert alone.folder == tmp_path / "alone" and alone.report(tiny_table(3), tmp_path / "page.html").is_file()


def test_what_is_drawn_in_time_hears_a_texts_tokens_at_their_places(drawing_model: Model) -> None:
    network = drawing_model.network
    rows = drawing_model.rows(
        pa.table({"name": ["big red square 7", "big red square 9", None, "tiny"], "colour": ["red"] * 4})
    )
    encoded, every = rows.encoded_columns(["name", "colour"]), torch.arange(4)
    overview = network.condition_vector(encoded, ["name", "colour"], every)
    tone, picture = (
        network.condition(overview, encoded, ["name", "colour"], every, column) for column in ("tone", "picture")
    )
    assert picture is overview and tone.shape == (4, network.modalities["tone"].tokens().length, network.width)
    added = (tone - overview.unsqueeze(1)).abs().sum(-1) > 1e-6
    lengths = [0 if cell is None else len(cell) for cell in rows.cells["name"]]
    for row, length in enumerate(lengths):
        assert added[row].tolist() == [place < length for place in range(added.shape[1])]
    assert torch.equal(
        network.condition(overview, encoded, ["colour"], every, "tone"), overview.unsqueeze(1).expand_as(tone)
    )
    alone = drawing_model.rows(pa.table({"name": ["tiny"], "colour": ["red"]}))
    shown = alone.encoded_columns(["name", "colour"])
    one = network.condition(
        network.condition_vector(shown, ["name", "colour"], every[:1]), shown, ["name", "colour"], every[:1], "tone"
    )
    assert torch.allclose(one[0], tone[3], atol=1e-5), "whatever its neighbours are"
