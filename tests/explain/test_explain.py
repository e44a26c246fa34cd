"""Why a cell was said: shares that add up, exactly, and find what was planted."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import tiny_table

from sensorium.cli.explanation import explain_rows, write_why
from sensorium.core.errors import UserError
from sensorium.core.seeds import mix
from sensorium.explain.attribution import parts_of_tokens, single
from sensorium.explain.columns import COPY, Explanation, explain, importance, shapley
from sensorium.explain.scoring import CellScorer
from sensorium.modalities.text import Text
from sensorium.modalities.video import Video
from sensorium.model import Model
from sensorium.network.batch import Batch
from sensorium.network.types import IgnoredColumns

SEEN = ["name", "colour", "width"]


def test_shares_add_up_to_what_all_columns_tell_together(drawing_model: Model) -> None:
    rows = tiny_table(4, gaps=0.0)
    for column, cells in (
        ("picture", drawing_model.generate(rows, "picture", seen=SEEN, steps=3)),
        ("name", rows.column("name").to_pylist()),
        ("day", rows.column("day").to_pylist()),
        ("colour", ["red", "blue", "green", "red"]),
    ):
        whys = drawing_model.explain(rows, column, cells, [c for c in SEEN if c != column])
        for why in whys:
            assert sum(why.shares.values()) == pytest.approx(why.everything - why.nothing, abs=1e-4)
            assert set(why.shares) == {c for c in SEEN if c != column}


def test_a_share_is_the_mean_over_all_orders(drawing_model: Model) -> None:
    rows = drawing_model.rows(tiny_table(3, gaps=0.0))
    witness = CellScorer(rows, "name", tiny_table(3, gaps=0.0).column("name").to_pylist())
    columns = ["colour", "width", "tone"]
    shares = shapley(witness, columns, 0).shares
    for column in columns:
        gained = []
        for order in itertools.permutations(columns):
            before = list(order[: order.index(column)])
            gained.append(witness.weigh([*before, column]).mean(1) - witness.weigh(before).mean(1))
        assert np.allclose(shares[column], np.mean(gained, 0), atol=1e-4)


def test_of_many_columns_orders_are_drawn_and_shares_still_add_up(
    drawing_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorium.explain.columns.MAX_EXACT", 1)
    rows = tiny_table(2, gaps=0.0)
    for why in drawing_model.explain(rows, "name", rows.column("name").to_pylist(), SEEN[1:]):
        assert sum(why.shares.values()) == pytest.approx(why.everything - why.nothing, abs=1e-4)


class Planted:
    """A witness that knows what each column is worth."""

    index, n_draws = np.arange(2), 1

    def weigh(self, seen: Any) -> np.ndarray:
        worth = 2.0 * ("a" in seen) + 1.0 * ("b" in seen) + 4.0 * ("a" in seen and "c" in seen)
        return np.full((2, 1), worth)


def test_what_two_columns_tell_only_together_is_shared() -> None:
    found = shapley(Planted(), ["a", "b", "c"], 0)  # type: ignore[arg-type]
    assert (
        found.nothing[0] == 0 and found.everything[0] == 7 and not any(error.any() for error in found.errors.values())
    )
    assert [found.shares[c][0] for c in "abc"] == pytest.approx((4.0, 1.0, 2.0))


def test_drawn_orders_come_near_and_say_how_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.explain.columns.MAX_EXACT", 1)
    found = shapley(Planted(), ["a", "b", "c"], 0)  # type: ignore[arg-type]
    for column, wanted in zip("abc", (4.0, 1.0, 2.0), strict=True):
        assert abs(found.shares[column][0] - wanted) <= 4 * found.errors[column][0] + 1e-6
    assert found.errors["b"][0] == 0 and sum(found.shares[c][0] for c in "abc") == pytest.approx(7.0)


def test_a_column_that_a_row_lacks_has_no_share_and_a_failed_cell_no_why(drawing_model: Model) -> None:
    rows = pa.table({"name": ["big red square", None, "tiny bar"], "colour": ["red", "blue", None]})
    cells = [*drawing_model.generate(rows, "picture", steps=2)[:2], None]
    first, second, third = drawing_model.explain(rows, "picture", cells)
    assert set(first.shares) == {"name", "colour"} and set(second.shares) == {"colour"} and third is None
    assert drawing_model.explain(rows, "picture", [None, None, b"no picture"]) == [None, None, None]
    with pytest.raises(UserError, match="one cell for each row"):
        drawing_model.explain(rows, "picture", cells[:2])


def test_parts_are_the_cells_without_them(drawing_model: Model) -> None:
    rows = tiny_table(2, gaps=0.0)
    why = drawing_model.explain(rows, "picture", rows.column("picture").to_pylist(), ["name", "tone", "curve"])[0]
    names, worse = why.parts["name"]
    assert " ".join(names) == rows.column("name")[0].as_py() and worse.shape == (len(names), 4)
    assert set(why.parts) == {"name", "tone", "curve"} and np.isfinite(worse).all() and worse.any()
    other = pa.table({"name": [" ".join(names[1:])], "picture": rows.column("picture")[:1]})
    there, without = (
        CellScorer(
            drawing_model.rows(table, ["name"]), "picture", other.column("picture").to_pylist(), seed=mix(0, 0)
        ).weigh(["name"])
        for table in (rows.slice(0, 1), other)
    )
    alone = drawing_model.explain(rows.slice(0, 1), "picture", other.column("picture").to_pylist(), ["name"])[0].parts[
        "name"
    ][1]
    assert np.allclose(alone[0], (there - without)[0], atol=1e-4)
    image = drawing_model.explain(rows, "name", rows.column("name").to_pylist(), ["picture"])[0]
    assert len(image.parts["picture"][0]) == 36 and image.parts["picture"][1].shape[1] >= 2


def test_a_copy_of_a_training_cell_is_told_from_a_new_one(drawing_model: Model) -> None:
    table = tiny_table(40, gaps=0.0)
    known, new = drawing_model.rows(table, ["picture"]), tiny_table(3, seed=9, gaps=0.0)
    noisy = drawing_model.generate(new, "picture", steps=1)
    for cells, copied in ((table.column("picture").to_pylist()[5:8], True), (noisy, False)):
        whys = explain(drawing_model.rows(new, ["name"]), "picture", cells, ["name"], among=known)
        assert [why.copied for why in whys] == [copied] * 3
    assert whys[0].nearest[0][1] >= COPY and len(whys[0].nearest) == 3


def test_the_page_and_the_json_are_written(
    drawing_model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tiny_table(30, gaps=0.0)
    pq.write_table(table, tmp_path / "t.parquet")
    cells = table.column("picture").to_pylist()[:4]
    source = str(tmp_path / "t.parquet")
    write_why(drawing_model, source, "picture", cells, tmp_path / "why.html", ["name", "tone", "curve"], source, 0)
    page = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert page.count("<h2>Row") == 4 and "nearly a copy" in page and "data:image/png" in page and "<script" not in page
    assert page.count('<span class="read">') == 8 and "<bdi>channel 1</bdi>" in page, (
        "heat on the spectrogram and the channels of each row"
    )
    assert "nearly a copy of row 0" in capsys.readouterr().err
    write_why(drawing_model, source, "name", ["<b>big</b> red"] * 2, tmp_path / "why.html", ["picture"], source, 0)
    assert "<b>big" not in (tmp_path / "why.html").read_text(encoding="utf-8")
    write_why(drawing_model, source, "picture", cells, tmp_path / "why.json", ["name"], None, 0)
    told = json.loads((tmp_path / "why.json").read_text(encoding="utf-8"))
    assert [entry["row"] for entry in told] == [0, 1, 2, 3] and set(told[0]["shares"]) == {"name"}


def test_a_number_is_no_copy_and_a_table_without_the_column_is_refused(drawing_model: Model) -> None:
    rows = tiny_table(5, gaps=0.0)
    for why in drawing_model.explain(rows, "width", rows.column("width").to_pylist(), ["name"], among=tiny_table(40)):
        assert why.nearest == [] and not why.copied
    with pytest.raises(UserError, match="near copies"):
        drawing_model.explain(
            rows, "picture", rows.column("picture").to_pylist(), ["name"], among=rows.select(["name"])
        )


def test_what_an_answer_leaves_unheeded_has_no_share(drawing_model: Model) -> None:
    rows, network = tiny_table(3, gaps=0.0).select(["name", "colour", "tone", "width"]), drawing_model.network
    cells = rows.column("width").to_pylist()
    try:
        network.calibration.ignored = {"width": IgnoredColumns(("tone",), ("name",))}
        assert all(set(why.shares) == {"name", "colour"} for why in drawing_model.explain(rows, "width", cells))
        assert all(
            set(why.shares) == {"name", "tone"} for why in drawing_model.explain(rows, "width", cells, ["name", "tone"])
        ), "unless it is named"
    finally:
        network.calibration.ignored = {}


def test_a_class_is_put_beside_rows_of_it_and_of_others_and_what_turns_it_does(drawing_model: Model) -> None:
    rows, among = tiny_table(6, gaps=0.0), tiny_table(60, seed=5)
    seen = ["name", "width", "curve"]
    said = drawing_model.predict(rows, "colour", seen).column("value").to_pylist()
    whys = drawing_model.explain(rows, "colour", seen=seen, among=among)
    colours = among.column("colour").to_pylist()
    for answer, why in zip(said, whys, strict=True):
        assert {colours[row] for row, _ in why.nearest} == {answer} and {colours[row] for row, _ in why.contrast} & {
            answer
        } == set()
        assert (
            len(why.contrast) == 3
            and [away for _, away in why.nearest] == sorted(away for _, away in why.nearest)
            and not why.copied
        )
    turned = [(row, why.turned) for row, why in enumerate(whys) if why.turned is not None]
    assert turned, "some answer turns with another row's cell"
    for row, turn in turned:
        cells = {c: [rows.column(c)[row].as_py()] for c in seen} | {
            turn.column: [among.column(turn.column)[turn.row].as_py()]
        }
        assert (
            drawing_model.predict(pa.table(cells), "colour", seen).column("value").to_pylist()
            == [turn.answer]
            != [said[row]]
        )


def test_what_matters_over_many_rows_has_an_interval() -> None:
    rng = np.random.default_rng(0)
    whys = [
        Explanation(0.0, 1.0, {"a": 1.0 + rng.normal(0, 0.1), **({"b": 0.2} if row % 2 else {})}, {}, {})
        for row in range(100)
    ]
    found = importance([*whys, None])
    assert list(found) == ["a", "b"] and found["b"] == pytest.approx((0.2, 0.2, 0.2))
    mean, low, high = found["a"]
    assert (
        low < mean < high
        and mean == pytest.approx(1.0, abs=0.05)
        and high - low == pytest.approx(4 * 0.1 / 10, rel=0.3)
    )
    assert (
        importance([None]) == {}
        and importance(whys[:4])["a"][1:] == (None, None)
        and None not in importance(whys[:5])["a"]
    )


def test_a_row_is_not_its_own_example(drawing_model: Model) -> None:
    among, seen = tiny_table(30, gaps=0.0), ["name", "width"]
    whys = drawing_model.explain(among.slice(0, 4), "colour", among.column("colour").to_pylist()[:4], seen, among)
    for row, why in enumerate(whys):
        assert row not in {number for number, _ in (*why.nearest, *why.contrast)} and why.nearest


def test_answers_are_explained_by_a_command_of_their_own(
    drawing_model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(tmp_path / "t.parquet")
    pq.write_table(tiny_table(30, gaps=0.0), source)
    explain_rows(drawing_model, source, "colour", tmp_path / "why.html", [], 5, ["name", "width"], source, 0)
    page = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert (
        page.count("<h2>Row") == 5
        and "Over these rows" in page
        and "Nearest of another class" in page
        and "Row 29" in page
    )
    explain_rows(drawing_model, source, "width", tmp_path / "why.json", [7, 3], 5, None, None, 0)
    told = json.loads((tmp_path / "why.json").read_text(encoding="utf-8"))
    assert (
        [entry["row"] for entry in told["rows"]] == [7, 3]
        and set(told["importance"]) >= {"name", "picture"}
        and isinstance(told["rows"][0]["said"], float)
    )
    for column, numbers, count, words in (
        ("picture", [], 5, "generate --column picture"),
        ("colour", [30], 5, "numbered from 0"),
        ("colour", [], 0, "at least 1"),
    ):
        with pytest.raises(UserError, match=words):
            explain_rows(drawing_model, source, column, tmp_path / "why.html", numbers, count, None, None, 0)


def test_integrated_gradients_of_a_cell_add_up_to_what_it_says(drawing_model: Model) -> None:
    rows = tiny_table(2, gaps=0.0)
    seen, network = ["picture", "tone", "curve"], drawing_model.network
    shown = drawing_model.rows(rows, seen)
    cells = rows.column("name").to_pylist()
    witness = CellScorer(shown, "name", cells)
    whole = witness.weigh(seen).mean(1)
    why = explain(shown, "name", cells, seen, how="gradients")[0]
    for column, (_, worth) in why.parts.items():
        modality, read = network.modalities[column], shown.read[column][0]
        parts = modality.parts(read)
        rest = [modality.prepare(other) for _, other in parts]
        for group in parts_of_tokens(modality, shown.cells[column][0], rest):
            keep = torch.ones(1, len(parts))
            keep[:, group] = 0
            faded = Batch(
                1,
                {column: modality.interpolate_parts(shown.cells[column][0], rest, keep)},
                {column: torch.zeros(1, dtype=torch.int64)},
                {},
            )
            blank = {**single(witness, 0, [c for c in seen if c != column], 1), column: network.encode(column, faded)}
            without = (
                -network.nll(blank, "name", seen, torch.zeros(1, dtype=torch.int64), witness.targets[0][:1])
                .mean()
                .item()
            )
            assert worth[group].sum() == pytest.approx(whole[0] - without, abs=0.02), column
    assert set(why.parts) == set(seen) and why.inside == "gradients"


def test_words_fade_where_they_stand_and_a_still_clip_has_no_change() -> None:
    text = Text(vocabulary=300)
    text.learn([text.read(cell) for cell in ("the cat and the dog saw the cat", "a dog and a cat")])
    read = text.read("the cat and the dog saw the cat")
    parts = text.parts(read)
    cell, rest = text.prepare(read), [text.prepare(other) for _, other in parts]
    cells = text.interpolate_parts(cell, rest, 1 - torch.eye(len(parts)))
    for row, (word, _) in enumerate(parts):
        gone = cell[cells["keep"][row, : len(cell)].numpy() == 0]
        assert text.decode(gone).strip() == word, word
    assert (cells["keep"] == 0).sum(0).max() == 1  # no token is two words'
    short = Text(vocabulary=300, length=6)
    short._set(text.merges)
    cells = short.interpolate_parts(
        short.prepare(read), [short.prepare(other) for _, other in parts], 1 - torch.eye(len(parts))
    )
    cell = short.prepare(read)
    gone = [short.decode(cell[row[: len(cell)] == 0]).strip() for row in cells["keep"].numpy()]
    assert (
        [word for word in gone if word] == text.decode(cell).split()[: len([word for word in gone if word])]
        and gone[0] == "the"
        and not gone[-1]
    )
    video = Video(frames=4, size=32)
    clip = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    faded = video.interpolate_parts(clip, [], torch.tensor([[1.0] * 4, [0.0] * 4]))["pixels"]
    assert torch.equal(faded[0], video.collate([clip])["pixels"][0].float()) and (faded[1] == faded[1, :1]).all()


def test_attention_is_shared_among_what_is_seen(drawing_model: Model) -> None:
    rows = tiny_table(2, gaps=0.0)
    whys = drawing_model.explain(
        rows, "name", rows.column("name").to_pylist(), ["picture", "curve"], inside="attention"
    )
    for why in whys:
        total = sum(looked.sum(0) for _, looked in why.parts.values())
        assert (
            all((looked >= 0).all() for _, looked in why.parts.values()) and (total > 0.01).all() and (total < 1).all()
        )
        assert why.parts["picture"][1].shape == (36, len(total)) and why.to_json()["inside"] == "attention"
    with pytest.raises(UserError, match="way to look inside a cell: 'atention'.*attention"):
        drawing_model.explain(rows, "name", inside="atention")


def test_a_trunk_without_attention_says_so(drawing_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.explain.attribution.attentions", lambda network: [])
    with pytest.raises(UserError, match="has no attention"):
        drawing_model.explain(tiny_table(2), "name", inside="attention")
