"""Run folders: made or checked, with hashes of the training rows and a description of the machine."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write, write_json
from sensorium.core.renamed_settings import with_current_names
from sensorium.data.hashes import row_hashes
from sensorium.data.table import Table


def open_run_folder(
    folder: Path, resume: bool, given: Mapping[str, Any], seed: int, target: Sequence[str], table: Table
) -> None:
    """Make the run's folder, or check that it is the one to go on with.

    Raises:
        UserError: the run was begun with other settings, or the folder can't be written.
    """
    described = {"settings": given, "seed": seed, "target": list(target), "table": table.name}
    path = folder / "settings.json"
    if resume:
        if not path.is_file():
            raise UserError(f"There is no run in '{folder}' to go on with. Start it without --resume.")
        before = json.loads(path.read_text(encoding="utf-8"))
        before["settings"] = with_current_names(before["settings"], quiet=True)
        now = json.loads(json.dumps(described))
        changed = [key for key in ("settings", "seed", "target") if before[key] != now[key]]
        if changed:
            raise UserError(
                f"'{folder}' was started with other {', '.join(changed)}: {[before[k] for k in changed]}, now "
                f"{[now[k] for k in changed]}. Resume with the same, or start a new run with another --out."
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for old in (
                *(
                    folder / name
                    for name in ("checkpoints", "store", "baselines", "tensorboard", "prefer", "reinforce")
                ),
                *folder.glob("distill-*"),
            ):
                shutil.rmtree(old, ignore_errors=True)
            for old in (
                "quarantine.jsonl",
                "metrics.jsonl",
                "model.json",
                "model.safetensors",
                "memory.safetensors",
                "ensembles.json",
                "ensembles.safetensors",
                "reward.safetensors",
                "report.html",
                "results.json",
            ):
                (folder / old).unlink(missing_ok=True)
        write_json(path, described)
    except OSError as error:
        raise UserError(
            f"The run can't be written to '{folder}': {error.strerror}. Choose another folder with --out."
        ) from error


def write_row_hashes(folder: Path, table: Table, columns: list[str], rows: np.ndarray, resume: bool) -> None:
    """Write the hashes of the training rows, sorted; a run that goes on must have the same.

    Raises:
        UserError: it has others.
    """
    hashes, path = np.sort(row_hashes(table, columns)[rows]), folder / "rows.npy"
    if resume and path.is_file() and not np.array_equal(read_hashes(path), hashes):
        raise UserError(
            f"The table '{table.name}' has other training rows than the run in '{folder}' was started with. "
            "Resume with the same table, or start a new run with another --out."
        )
    with atomic_write(path) as part:
        np.save(part, hashes, allow_pickle=False)


def trained_on(folder: Path | None, table: Table, columns: Sequence[str]) -> np.ndarray | None:
    """Rows of a table that the run was trained on, by content, bool [rows]; None where that isn't known."""
    if folder is None or not (folder / "rows.npy").is_file() or not set(columns) <= set(table.columns):
        return None
    return np.isin(row_hashes(table, list(columns)), read_hashes(folder / "rows.npy"))


def trained_row_count(folder: Path | None, table: Table, columns: Sequence[str]) -> int | None:
    """Number of rows of a table that the run was trained on; None where that isn't known."""
    known = trained_on(folder, table, columns)
    return None if known is None else int(known.sum())


def read_hashes(path: Path) -> np.ndarray:
    """Hashes that ``write_row_hashes`` wrote.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"'{path}' can't be read: {error}. Remove it to go on without knowing which rows were trained on."
        ) from error


def describe_environment() -> dict[str, Any]:
    """Environment of the run: versions and machine, no names of users or hosts."""
    from importlib.metadata import version

    packages = (
        "sensorium",
        "torch",
        "numpy",
        "pyarrow",
        "tokenizers",
        "scikit-learn",
        "pillow",
        "soundfile",
        "safetensors",
    )
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else torch.backends.cpu.get_cpu_capability(),
        "packages": {name: found for name in packages if (found := version_or_none(version, name))},
    }


def version_or_none(version: Callable[[str], str], name: str) -> str | None:
    """Version of a package, None where it isn't installed as a package."""
    try:
        return version(name)
    except Exception:  # importlib.metadata raises its own error, and others for broken metadata
        return None
