"""After training a model remembers gists of training rows, as much of them as helps rows held out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TINY, flip, tiny_table
from torch.nn import functional as F

from sensorium import Model
from sensorium.core.errors import UserError
from sensorium.core.types import Tokens
from sensorium.generators.categorical import Categorical
from sensorium.generators.quantile import Quantile
from sensorium.network.calibration import Calibration
from sensorium.nn.row_memory import RowMemory
from sensorium.training import build_memory, calibrate
from sensorium.training.build_memory import mean_reciprocal_rank
from sensorium.training.calibrate import memory_share

SETTINGS = (*TINY, "data.validation=0.3", "answer.members=network")


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of a few steps, with a memory put in by hand."""
    folder = tmp_path_factory.mktemp("memory") / "run"
    model = Model.fit(tiny_table(60), out=folder, epochs=1, settings=SETTINGS)
    model.network.calibration.memory = made(model)
    model.save(folder)
    return model


def made(model: Model, strength: float = 0.5) -> RowMemory:
    gists, sketches, table = {}, {}, tiny_table(60)
    rows = model.rows(table)
    for column in ("picture", "name", "tone"):
        at, found = rows.column_gists(column)
        gists[column] = torch.zeros(60, found.shape[1])
        gists[column][at] = torch.from_numpy(found)
        drawn = model.network.modalities[column].sketch([rows.cells[column][i] for i in at])
        if drawn is not None:
            sketches[column] = torch.zeros(60, drawn.shape[1])
            sketches[column][at] = torch.from_numpy(drawn)
    colours = model.network.modalities["colour"]
    have = torch.from_numpy(rows.has("colour"))
    told = torch.zeros(60, 1, dtype=torch.int64)
    told[have] = colours.target(
        colours.collate([cell for cell in rows.cells["colour"] if cell is not None and len(cell)])
    )
    return RowMemory(
        gists, 20.0, strength, sketches, strength, {"colour": (told, have)}, {"colour": 0.0}, {"colour": list(gists)}
    )


def test_it_is_kept_with_the_model_and_refines_what_is_compared_alone(remembering: Model, tmp_path: Path) -> None:
    loaded = Model.load(remembering.folder)
    table = tiny_table(9)
    assert np.array_equal(loaded.embed(table), remembering.embed(table))
    assert (
        loaded.network.calibration.memory.strength == loaded.network.calibration.memory.trust == 0.5
        and loaded.network.calibration.memory.sketched == ["name"]
    )
    with_it, search = (
        loaded.embed(table, ["picture"]),
        loaded.search({"name": "a red bar"}, among=table, column="picture"),
    )
    names = loaded.embed(table, ["name"])
    said = {column: loaded.predict(table, column, candidates=1) for column in ("colour", "width", "name")}
    have = [i for i, cell in enumerate(table["picture"].to_pylist()) if cell is not None]
    assert np.allclose(with_it[have], loaded.rows(table).column_gists("picture")[1], atol=1e-5)
    loaded.network.calibration.memory.trust = 0.0
    assert not np.allclose(names, loaded.embed(table, ["name"]), atol=1e-3) and np.array_equal(
        with_it, loaded.embed(table, ["picture"])
    )
    loaded.network.calibration.memory = None
    assert not np.allclose(with_it[have], loaded.embed(table, ["picture"])[have], atol=1e-3)
    assert (
        search["score"].to_pylist()
        != loaded.search({"name": "a red bar"}, among=table, column="picture")["score"].to_pylist()
    )
    for column, before in said.items():  # what the trunk hears is what it learned from
        assert loaded.predict(table, column, candidates=1).equals(before)


def test_answers_lean_on_what_rows_like_it_say(remembering: Model, tmp_path: Path) -> None:
    model, table = Model.load(remembering.folder), tiny_table(60)
    before = model.predict(table, "colour")
    assert "remembered" not in model.evaluate(table)["columns"]["colour"]
    model.network.calibration.memory.sharpness, model.network.calibration.memory.shares["colour"] = 2000.0, 0.75
    after, truth = model.predict(table, "colour"), table["colour"].to_pylist()
    met = [
        i
        for i in range(60)
        if truth[i] is not None and any(table[c][i].as_py() is not None for c in ("picture", "name", "tone"))
    ]
    assert met and all(after["value"][i].as_py() == truth[i] and after["probability"][i].as_py() > 0.7 for i in met)
    assert after["value"].to_pylist() != before["value"].to_pylist()
    assert model.evaluate(table)["columns"]["colour"]["remembered"] == 0.75
    assert model.predict([{}], "colour").equals(
        Model.load(remembering.folder).predict([{}], "colour")
    )  # shows nothing to go by
    model.save(tmp_path)
    assert Model.load(tmp_path).predict(table, "colour").equals(model.predict(table, "colour"))


def test_intervals_hold_with_a_memory_and_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "memory_share", lambda validation: 0.5)
    monkeypatch.setattr(build_memory, "is_informative", lambda *_: True)
    table, settings = tiny_table(600), SETTINGS
    with_it, without = (
        Model.fit(table, out=tmp_path / str(rows), epochs=1, settings=[*settings, f"memory.rows={rows}"])
        for rows in (4096, 0)
    )
    memory = with_it.network.calibration.memory
    assert {"colour", "width"} <= set(memory.asked_columns) == set(memory.shares) and {"colour", "width"} <= set(
        memory.margins
    )
    held = np.flatnonzero(pq.read_table(tmp_path / "4096" / "splits.parquet").column("code").to_numpy() == 1)
    held = held[np.isfinite(table["width"].to_numpy()[held])]
    for model in (with_it, without):
        said, truth = model.predict(table.take(held), "width"), table["width"].take(held).to_numpy()
        inside = (said["low"].to_numpy() <= truth + 1e-6) & (truth <= said["high"].to_numpy() + 1e-6)
        assert 0.9 <= inside.mean() <= 0.99
    (tmp_path / "4096" / "memory.safetensors").unlink()
    for column in ("colour", "width"):
        assert Model.load(tmp_path / "4096").predict(table, column).equals(without.predict(table, column))
        assert not with_it.predict(table, column).equals(without.predict(table, column))


def test_a_memory_that_counts_nowhere_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "memory_share", lambda validation: 0.0)
    monkeypatch.setattr(build_memory, "STRENGTHS", (0.0,))
    model = Model.fit(tiny_table(240), out=tmp_path / "run", epochs=1, settings=[*SETTINGS, "data.validation=0.4"])
    assert model.network.calibration.memory is None and not (tmp_path / "run" / "memory.safetensors").exists()


def test_its_file_may_be_removed_and_a_damaged_one_is_found(remembering: Model, tmp_path: Path) -> None:
    for name in ("model.json", "model.safetensors", "memory.safetensors"):
        shutil.copy2(remembering.folder / name, tmp_path / name)
    flip(tmp_path / "memory.safetensors", -3)
    with pytest.raises(UserError, match=r"memory\.safetensors.*SHA-256"):
        Model.load(tmp_path)
    (tmp_path / "memory.safetensors").unlink()
    assert Model.load(tmp_path).network.calibration.memory is None
    model = Model.load(remembering.folder)
    model.network.calibration.memory = None
    shutil.copy2(remembering.folder / "memory.safetensors", tmp_path / "memory.safetensors")
    model.save(tmp_path)
    assert not (tmp_path / "memory.safetensors").exists() and Model.load(tmp_path).network.calibration.memory is None


def test_none_is_kept_where_none_is_wanted_or_nothing_is_matched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_memory, "STRENGTHS", (0.25,))  # whatever the rows held out say
    for number, more in enumerate((["memory.rows=0"], ["objectives=tell"])):
        model = Model.fit(
            tiny_table(240), out=tmp_path / str(number), epochs=1, settings=[*SETTINGS, "data.validation=0.4", *more]
        )
        assert model.network.calibration.memory is None and not (tmp_path / str(number) / "memory.safetensors").exists()
    assert (
        Model.fit(tiny_table(60), out=tmp_path / "few", epochs=1, settings=SETTINGS).network.calibration.memory is None
    )  # too few judges
    with pytest.raises(UserError, match=r"memory\.rows"):
        Model.fit(tiny_table(60), out=tmp_path / "wrong", epochs=1, settings=["memory.rows=-1"])


def test_a_fit_with_the_same_seed_remembers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_memory, "STRENGTHS", (0.25,))
    kept = []
    for name in ("one", "two"):
        Model.fit(
            tiny_table(240),
            out=tmp_path / name,
            epochs=1,
            settings=[*SETTINGS, "data.validation=0.4", "memory.rows=40"],
        )
        kept.append(json.loads((tmp_path / name / "model.json").read_text(encoding="utf-8"))["memory"])
    assert kept[0] == kept[1] and kept[0]["strength"] == 0.25
    assert Model.load(tmp_path / "one").network.calibration.memory.known.shape == (4, 40, 24)


@pytest.mark.parametrize("helps", [True, False])
def test_rows_held_out_say_whether_anything_is_remembered(helps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Things look alike in either column, but their two gists lie far apart: only a row that has both says which belong
    together. Where the rows that are remembered are mixed up, nothing is kept of them."""
    noise = torch.Generator().manual_seed(0)
    things = {column: F.normalize(torch.randn(30, 24, generator=noise), dim=1) for column in ("name", "picture")}

    def some(rows: int, same: bool) -> dict[str, torch.Tensor]:
        thing = torch.arange(rows) % 30
        other = thing if same else thing.roll(7)
        drawn = {"name": things["name"][thing], "picture": things["picture"][other]}
        return {c: F.normalize(x + 0.1 * torch.randn(x.shape, generator=noise), dim=1) for c, x in drawn.items()}

    answers = iter([some(30, True), some(90, helps)])
    monkeypatch.setattr(build_memory, "gists", lambda *_: next(answers))
    modalities = {c: SimpleNamespace(matched=True, sketch=lambda _: None, state=dict) for c in things}
    network = SimpleNamespace(
        columns=["name", "picture"], modalities=modalities, asked_columns=[], calibration=Calibration()
    )
    prepared = SimpleNamespace(
        ready=SimpleNamespace(columns=network.columns, release=lambda: None),
        rows={"train": np.arange(90), "validation": np.arange(30)},
    )
    build_memory.build_memory(network, prepared, build_memory.MemorySettings(), 20.0, 0)
    assert (network.calibration.memory.strength > 0) == helps


@pytest.mark.parametrize("helps", [True, False])
def test_rows_held_out_say_whether_sketches_count(helps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name's gist says nothing of a new thing, but names of a kind share their words, and pictures of a kind look
    alike.
    """
    noise = torch.Generator().manual_seed(0)
    kinds = F.normalize(torch.randn(30, 24, generator=noise), dim=1)

    def some(rows: int) -> dict[str, torch.Tensor]:
        pictures = kinds[torch.arange(rows) % 30] + 0.1 * torch.randn(rows, 24, generator=noise)
        return {
            "name": F.normalize(torch.randn(rows, 24, generator=noise), dim=1),
            "picture": F.normalize(pictures, dim=1),
        }

    def words(cells: list[np.ndarray]) -> np.ndarray:
        kind = np.array([int(cell[0]) % 30 for cell in cells], np.int64)
        return np.eye(30, dtype=np.float32)[kind if helps or len(cells) == 30 else (kind + 7) % 30]

    answers = iter([some(30), some(90)])
    monkeypatch.setattr(build_memory, "gists", lambda *_: next(answers))
    drawn = {
        "name": SimpleNamespace(matched=True, sketch=words, state=dict),
        "picture": SimpleNamespace(matched=True, sketch=lambda _: None, state=dict),
    }
    network = SimpleNamespace(
        columns=["name", "picture"],
        modalities=drawn,
        asked_columns=[],
        conditioning=SimpleNamespace(to_gist=SimpleNamespace(weight=torch.zeros(1))),
        calibration=Calibration(),
    )
    ready = SimpleNamespace(
        columns=network.columns, release=lambda: None, cells=lambda _, rows: [np.array([row]) for row in rows]
    )
    build_memory.build_memory(
        network,
        SimpleNamespace(ready=ready, rows={"train": np.arange(90), "validation": np.arange(30)}),
        build_memory.MemorySettings(),
        20.0,
        0,
    )
    assert (network.calibration.memory.trust > 0) == helps


def test_answers_go_by_columns_in_which_like_rows_agree() -> None:
    """Things in pairs: both are of one kind, but by different makers."""
    noise = torch.Generator().manual_seed(0)
    thing, gists = torch.arange(60) // 2, torch.randn(30, 24, generator=noise)
    drawn = {
        c: F.normalize(gists[thing] + 0.1 * torch.randn(60, 24, generator=noise), dim=1) for c in ("picture", "name")
    }
    drawn["noise"] = F.normalize(torch.randn(60, 24, generator=noise), dim=1)
    have = torch.ones(60, dtype=torch.bool)
    told = {"kind": (1 + thing % 5, have), "maker": (1 + torch.arange(60) % 2, have)}
    memory = RowMemory(drawn, 30.0, 0.0, targets={c: (tokens.unsqueeze(1), have) for c, (tokens, have) in told.items()})
    says = {
        "kind": Categorical(Tokens(length=1, vocabulary=6), 8),
        "maker": Categorical(Tokens(length=1, vocabulary=3), 8),
    }
    found = {c: [by for by in drawn if build_memory.is_informative(memory, says[c], c, by)] for c in says}
    assert found == {"kind": ["picture", "name"], "maker": []}
    size = (1.0 + 0.1 * thing + 0.02 * torch.randn(60, generator=noise)).view(60, 1, 1)
    memory = RowMemory(drawn, 30.0, 0.0, targets={"size": (size, have)})
    quantile = Quantile(Tokens(length=1, width=1), 8)
    assert [by for by in drawn if build_memory.is_informative(memory, quantile, "size", by)] == ["picture", "name"]


@pytest.mark.parametrize(
    ("worth", "alone", "share"),
    [(0.0, 0.0, 0.0), (1.0, 1.0, 0.75), (-1.0, -1.0, 0.0), (-0.5, 9.0, 0.0), (0.5, 9.0, 0.75)],
)
def test_rows_held_out_say_how_much_an_answer_leans(worth: float, alone: float, share: float) -> None:
    """Never where it is worth something from one column alone, but from all columns less than nothing."""
    noise, asked = np.random.default_rng(0).standard_normal(200), []

    class Held:
        seen_columns, judges = ["name", "width"], 0
        network = SimpleNamespace(
            modalities={"name": SimpleNamespace(matched=True), "width": SimpleNamespace(matched=False)}
        )

        def memory_losses(self, matched: list[str], shares: tuple[float, ...]) -> np.ndarray:
            asked.append(matched)
            gain = np.stack([worth + noise - noise.mean(), alone + noise - noise.mean()])
            return np.stack([2.0 - share * gain for share in shares])

    assert memory_share(Held()) == share  # type: ignore[arg-type]
    assert asked[0] == ["name"]


def test_nearness_is_the_mean_reciprocal_rank() -> None:
    a = F.normalize(torch.eye(4) + 0.01, dim=1)
    assert mean_reciprocal_rank(a, a) == pytest.approx(1.0)
    assert mean_reciprocal_rank(a, a.flip(0)) < 0.5
    assert mean_reciprocal_rank(a[:2], a[[1, 0]]) == pytest.approx(0.5)
    assert mean_reciprocal_rank(a, torch.zeros(4, 4)) == 0.0
