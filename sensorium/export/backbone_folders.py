"""Pretrained models that a model stands on: where a model folder finds them, and copies of them inside it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensorium.backbones import ORIGIN, Backbone
from sensorium.backbones._language_model import LanguageModel
from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write

BACKBONES = "backbones"
"""Folder in which a model that was saved for others has its encoders, each under the beginning of its hash."""


def with_backbones(folder: Path, settings: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose columns have their backbones from the model's folder, or from those in which they lay.

    Args:
        entries: of ``model.json``: for each column the folder and the SHA-256.

    Raises:
        UserError: a backbone isn't there. ValueError: an entry has no hash.
    """
    columns = {
        column: {key: value for key, value in given.items() if key != "backbone"}
        if isinstance(given, Mapping)
        else given
        for column, given in settings.get("column", {}).items()
    }
    for column, one in entries.items():
        if not re.fullmatch("[0-9a-f]{64}", str(one["sha256"])):
            raise ValueError(f"'{one['sha256']}' is no SHA-256")
        if not (folder / BACKBONES / one["sha256"][:16]).is_dir() and not Path(one["folder"]).is_dir():
            raise UserError(
                f"column.{column}.backbone: There is no backbone '{one['folder']}', on which this model stands. "
                "Put it back there."
            )
        given = columns.get(column, {})
        columns[column] = {
            **(given if isinstance(given, Mapping) else {"": given}),
            "backbone": str(beside if (beside := folder / BACKBONES / one["sha256"][:16]).is_dir() else one["folder"]),
        }
    return {**settings, "column": columns}


def with_language(folder: Path, settings: Mapping[str, Any], entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings whose trunk has its language model from the model's folder, or from that in which it lay.

    Raises:
        UserError: it isn't there. ValueError: the entry has no hash.
    """
    if entry is None:
        return dict(settings)
    if not re.fullmatch("[0-9a-f]{64}", str(entry["sha256"])):
        raise ValueError(f"'{entry['sha256']}' is no SHA-256")
    beside = folder / BACKBONES / entry["sha256"][:16]
    if not beside.is_dir() and not Path(entry["folder"]).exists():
        raise UserError(
            f"There is no language model '{entry['folder']}', on which this model stands. Put it back there."
        )
    found = beside if beside.is_dir() else Path(entry["folder"])
    single = (
        next(iter(sorted(found.glob("*.gguf"))), None)
        if found.is_dir() and not (found / "config.json").is_file()
        else None
    )
    return {**settings, "trunk": {**settings["trunk"], "path": str(single or found)}}


def copy_backbones(folder: Path, encoders: Mapping[str, Backbone]) -> None:
    """Copy columns' encoders, by their hashes, into a model's folder: their files and their cards.

    The model then names no other folder.
    """
    if not encoders:
        return
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    for column, encoder in encoders.items():
        described["backbones"][column]["folder"] = f"{BACKBONES}/{encoder.sha256[:16]}"
        if isinstance(described["settings"].get("column", {}).get(column), dict):
            described["settings"]["column"][column].pop("backbone", None)
        described["schema"]["columns"][column].get("settings", {}).pop("backbone", None)
    with atomic_write(folder / "model.json") as part:
        part.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    for encoder in encoders.values():
        copy_folder(encoder.folder, folder / BACKBONES / encoder.sha256[:16], encoder.name)


def copy_language(folder: Path, language: LanguageModel) -> None:
    """Copy the language model that a model stands on, by its hash, into its folder, which then names no other."""
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    described["language"]["folder"] = f"{BACKBONES}/{language.sha256[:16]}"
    described["settings"]["trunk"].pop("path", None)
    with atomic_write(folder / "model.json") as part:
        part.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    copy_folder(language.folder, folder / BACKBONES / language.sha256[:16], language.name)


def copy_folder(source: Path, target: Path, name: str) -> None:
    """Copy the files that a pretrained model is opened from, its card and licence, and note where it came from."""
    if source.resolve() == target.resolve():
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in [source] if source.is_file() else source.iterdir():
        if path.is_file() and (
            path.suffix in (".json", ".jinja", ".safetensors", ".gguf", ".txt", ".model")
            or path.name.startswith(("README", "LICENSE"))
        ):
            with atomic_write(target / path.name) as part:
                shutil.copyfile(path, part)
    (target / ORIGIN).write_text(name, encoding="utf-8")
