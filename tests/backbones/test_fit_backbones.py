"""A model whose columns stand on pretrained encoders: it learns, answers, explains, is kept and found again, and
nothing is encoded twice.
"""

from __future__ import annotations

import json
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import TINY, tiny_table
from tiny_models import twin

from sensorium import backbones
from sensorium.core.errors import SensoriumWarning, UserError
from sensorium.model import Model
from sensorium.network.batch import collate

COLUMNS = {"picture": ("clip", "image"), "name": ("clip", "text"), "tone": ("wav2vec2", "audio")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("twins")


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    settings = [*TINY, *(f"column.{column}.backbone={twin(name, folder)}" for column, (name, _) in COLUMNS.items())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
        return Model.fit(tiny_table(60), out=tmp_path_factory.mktemp("run"), epochs=3, settings=settings, seed=1)


def test_it_answers_from_features_as_before_and_after_it_is_kept(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tiny_table(12, seed=5)
    said = model.predict(rows, "colour").column("value").to_pylist()
    assert len(said) == 12 and all(isinstance(cell, str) for cell in said)
    vectors = model.embed(rows, ["picture"])
    other = Model.load(shutil.copytree(model.folder, tmp_path / "copy"))
    assert other.predict(rows, "colour").column("value").to_pylist() == said
    assert np.allclose(other.embed(rows, ["picture"]), vectors, atol=1e-5)
    assert model.generate(rows, "name", seen=["picture"])[0] is not None  # words are still said
    monkeypatch.chdir(tmp_path)
    assert Model.load(tmp_path / "copy").predict(rows, "colour").column("value").to_pylist() == said


def test_what_stands_on_a_backbone_is_seen_and_not_drawn(model: Model) -> None:
    assert not {"picture", "tone"} & set(model.network.asked_columns) and "name" in model.network.asked_columns
    with pytest.raises(UserError, match="picture"):
        model.generate(tiny_table(2), "picture")


def test_nothing_is_encoded_twice(model: Model, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbones.feature_cache.cache_clear()
    for column in COLUMNS:
        monkeypatch.setattr(
            model.network.modalities[column].encoder,
            "encode",
            lambda cells: pytest.fail(f"{len(cells)} cells are encoded again"),
        )
    monkeypatch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
    settings = [*TINY, *(f"column.{column}.backbone={twin(name, folder)}" for column, (name, _) in COLUMNS.items())]
    Model.fit(
        tiny_table(60), out=tmp_path / "again", epochs=1, settings=settings, seed=1
    )  # another seed would keep other rows


@pytest.mark.parametrize("how", ["occlusion", "gradients", "attention"])
def test_parts_of_cells_are_looked_at_through_their_features(model: Model, how: str) -> None:
    rows = tiny_table(2, gaps=0.0)
    why = model.explain(rows, "colour", seen=["picture", "name", "tone"], inside=how)[0]
    assert len(why.parts["picture"][0]) == 36 and all(
        np.isfinite(worse).all() and worse.any() for _, worse in why.parts.values()
    )


@pytest.mark.parametrize("column", COLUMNS)
def test_a_cell_whose_parts_are_all_there_is_itself(model: Model, column: str) -> None:
    rows, modality = model.rows(tiny_table(1, gaps=0.0)), model.network.modalities[column]
    ready, parts = rows.cells[column][0], modality.parts(rows.read[column][0])
    rest = [modality.prepare(other) if len(other) else None for _, other in parts]
    stem = model.network.stems[model.network.stem_key[column]].eval()
    with torch.inference_mode():
        whole, there = stem(collate(model.network.modalities, {column: [ready]}, 1).cells[column])
        same, _ = stem(modality.interpolate_parts(ready, rest, torch.ones(1, len(parts))))
        less, _ = stem(modality.interpolate_parts(ready, rest, torch.zeros(1, len(parts))))
    assert torch.allclose(whole[there], same[there], atol=1e-4) and not torch.allclose(
        whole[there], less[there], atol=1e-3
    )


def test_saved_for_others_it_needs_nothing_of_this_machine(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = model.save_pretrained(tmp_path / "given", rows=True)
    assert str(tmp_path) not in (given / "model.json").read_text() and 'backbone"' not in json.dumps(
        json.loads((given / "model.json").read_text())["settings"]
    )
    monkeypatch.chdir(tmp_path)
    rows = tiny_table(8, seed=7)
    other = Model.from_pretrained(given)
    assert (
        other.predict(rows, "colour").column("value").to_pylist()
        == model.predict(rows, "colour").column("value").to_pylist()
    )
    card = (given / "README.md").read_text()
    assert (
        all(f"| {column} |" in card for column in model.columns)
        and card.count("not stated: ask its maker") == 3
        and "Nothing was measured" in card
    )
    again = other.save_pretrained(tmp_path / "again")  # from its own copies
    assert {path.name for path in (again / "backbones").iterdir()} == {
        path.name for path in (given / "backbones").iterdir()
    }

    seen: dict[str, Any] = {}

    class Hub:
        def __init__(self, token: str | None = None) -> None:
            seen["token"] = token

        def create_repo(self, name: str, **options: Any) -> None:
            seen[name] = options

        def repo_info(self, name: str) -> Any:
            return types.SimpleNamespace(private=name != "me/public")

        def upload_folder(self, repo_id: str, folder_path: Path, ignore_patterns: list[str]) -> str:
            seen["files"], seen["left"] = {path.name for path in folder_path.iterdir()}, ignore_patterns
            if repo_id == "nobody":
                raise ValueError("no such name")
            return f"hub/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert model.push_to_hub("me/mine", token="t") == "hub/me/mine" and seen["me/mine"] == {
        "private": True,
        "exist_ok": True,
    }
    assert {"README.md", "model.json", "model.safetensors", "backbones"} <= seen["files"]
    assert not {"rows.npy"} & seen["files"] or "rows.npy" in seen["left"]
    assert str(tmp_path) not in (again / "model.json").read_text()
    with pytest.raises(UserError, match="OWNER/NAME"):
        model.push_to_hub("nobody")
    with pytest.raises(UserError, match="there and public"):
        model.push_to_hub("me/public")
    assert model.folder is not None and model.folder.is_dir()


def test_another_backbone_in_its_place_and_a_missing_one_are_told(model: Model, folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(model.folder, tmp_path / "run")
    about = json.loads((run / "model.json").read_text())
    for wrong, words in (
        (twin("siglip", folder), "isn't the one that"),
        (tmp_path / "nowhere", "column.picture.backbone: There is no backbone"),
    ):
        changed = json.loads(json.dumps(about))
        changed["backbones"]["picture"]["folder"] = str(wrong)
        (run / "model.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=words):
            Model.load(run)


def test_a_wrong_backbone_is_told_before_a_row_is_read(folder: Path, tmp_path: Path) -> None:
    for setting, words in (
        (
            f"column.picture.backbone={twin('bert', folder)}",
            "column.picture.backbone: .*encoder of text; the column holds image",
        ),
        ("column.colour.backbone=x", "backbone"),
        (f"column.name.backbone={tmp_path}", "no config.json"),
    ):
        with pytest.raises(UserError, match=words):
            Model.fit(tiny_table(20), out=tmp_path / "run", epochs=1, settings=[*TINY, setting])
    assert not (tmp_path / "run" / "model.json").exists()


def test_broken_cells_are_put_aside_as_ever(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
    table = tiny_table(40, gaps=0.0)
    pictures = table.column("picture").to_pylist()
    pictures[3], pictures[4] = b"no picture", pictures[5][:40]
    table = table.set_column(table.column_names.index("picture"), "picture", pa.array(pictures))
    made = Model.fit(
        table, out=tmp_path / "run", epochs=1, settings=[*TINY, f"column.picture.backbone={twin('timm-cnn', folder)}"]
    )
    bad = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    with pytest.warns(SensoriumWarning, match="2 cell"):
        assert {entry["row"] for entry in bad} == {3, 4} and made.predict(table, "colour").num_rows == 40
