"""Helpers of tests that read tables."""

from __future__ import annotations

import builtins
import io
import sys
import tarfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.data.options import ReadOptions
from sensorium.data.table import Table


def png(seed: int = 0) -> bytes:
    """A picture of noise, 4 × 4."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(file, "png")
    return file.getvalue()


def wav() -> bytes:
    """Silence of 100 samples."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\0" * 100)
    return file.getvalue()


def columns(table: Table, media: tuple[str, ...] = ()) -> dict[str, list]:
    """All cells of a table, arrays as nested lists."""
    result: dict[str, list] = {name: [] for name in table.columns}
    for _, batch in table.batches(5):
        for name in table.columns:
            result[name] += [
                cell.tolist() if isinstance(cell, np.ndarray) else cell
                for cell in table.cells(batch, name, name in media)
            ]
    return result


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    """An archive of these names and contents."""
    with tarfile.open(path, "w") as shard:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))


def rows_of(source: Any, **options: Any) -> list[dict[str, Any]]:
    """All rows of a source as objects."""
    return [
        row for _, batch in Table.open(source, options=ReadOptions(**options)).batches(3) for row in batch.to_pylist()
    ]


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a library weren't installed."""
    real = builtins.__import__

    def fake(wanted: str, *args: Any, **more: Any) -> Any:
        if wanted.partition(".")[0] == name:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(wanted, *args, **more)

    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", fake)
    monkeypatch.setattr("importlib.import_module", lambda wanted, package=None: fake(wanted, None, None, ["*"]))
