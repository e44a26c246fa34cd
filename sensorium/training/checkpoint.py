"""Checkpoints: safetensors and JSON in a folder that exists under its name only when complete and on the disk.

Each file's SHA-256 stands in ``sha256.json``, so a flipped byte is found; the last two are kept, so that the one
before is there when the last can't be read.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sensorium.core.errors import UserError
from sensorium.core.files import digest, sync

KEEP = 2
HASHES = "sha256.json"


def write(folder: Path, step: int, tensors: dict[str, dict[str, torch.Tensor]], state: dict[str, Any]) -> Path:
    """Write ``folder/step-NNNNNNNNN``: one safetensors file a group of tensors, ``state.json`` and ``sha256.json``.

    Raises:
        UserError: the disk is full or can't be written; earlier checkpoints stay as they are.
    """
    final = folder / f"step-{step:09d}"
    temporary = folder / f".writing-{step:09d}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        hashes = {}
        for name, group in tensors.items():
            path = temporary / f"{name}.safetensors"
            save_file({key: value.detach().contiguous().cpu() for key, value in group.items()}, path)
            sync(path)
            hashes[path.name] = digest(path)
        for name, value in (("state.json", {**state, "step": step}), (HASHES, hashes)):
            path = temporary / name
            path.write_text(json.dumps(value), encoding="utf-8")
            sync(path)
            hashes[name] = digest(path)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        complete = steps(folder)
        last = (
            f"The last complete checkpoint is '{complete[-1]}'." if complete else "There is no complete checkpoint yet."
        )
        raise UserError(
            f"Can't write the checkpoint '{final}': {error}. {last} Free some space and go on with --resume."
        ) from error
    for old in (*steps(folder)[:-KEEP], *folder.glob(".writing-*")):  # and what a kill left half written
        shutil.rmtree(old, ignore_errors=True)
    return final


def read(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any], list[str]]:
    """Newest checkpoint that is whole: its groups of tensors, its state, and what was wrong with newer ones.

    Raises:
        UserError: there is none.
    """
    wrong: list[str] = []
    for path in reversed(steps(folder)):
        try:
            hashes = json.loads((path / HASHES).read_text(encoding="utf-8"))
            for name in {*hashes, "state.json"}:
                if digest(path / name) != hashes.get(name):
                    raise ValueError(f"'{name}' isn't what was written (its SHA-256 differs)")
            tensors = [name for name in hashes if name.endswith(".safetensors")]
            groups = {name.removesuffix(".safetensors"): load_file(path / name) for name in tensors}
            return groups, json.loads((path / "state.json").read_text(encoding="utf-8")), wrong
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            wrong.append(f"checkpoint '{path}' can't be used: {error}")
    found = "; ".join(wrong) or "none was found"
    raise UserError(f"No usable checkpoint in '{folder}': {found}. Start again without --resume.")


def steps(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(folder.glob("step-*")) if folder.is_dir() else []
