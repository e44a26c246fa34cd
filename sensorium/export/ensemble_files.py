"""Files of a model folder that hold its ensembles: what they are as JSON, all arrays as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write, digest
from sensorium.core.tensors import write_tensors
from sensorium.ensemble.ensemble import Ensemble

ENSEMBLES, ARRAYS = "ensembles.json", "ensembles.safetensors"
"""Names of the files."""


def write_ensembles(folder: Path, ensembles: Mapping[str, Ensemble]) -> dict[str, Any] | None:
    """Write the ensembles of some columns; where there are none, files of others are removed.

    Returns:
        entry of ``model.json``.
    """
    if not ensembles:
        for name in (ENSEMBLES, ARRAYS):
            (folder / name).unlink(missing_ok=True)
        return None
    described, tensors = [], {}
    for number, (column, ensemble) in enumerate(ensembles.items()):
        own, arrays = ensemble.state()
        described.append({"column": column, **own})
        tensors |= {f"{number}/{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    write_tensors(folder / ARRAYS, tensors)
    with atomic_write(folder / ENSEMBLES) as part:
        part.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    return {name: digest(folder / name) for name in (ENSEMBLES, ARRAYS)}


def read_ensembles(folder: Path, entry: Mapping[str, str] | None) -> dict[str, Ensemble]:
    """Read ensembles by column; a model whose files of them were removed answers by its network alone.

    Raises:
        UserError: a file isn't what was written.
    """
    if not entry or not all((folder / name).is_file() for name in entry):
        return {}
    for name, wanted in entry.items():
        if digest(folder / name) != wanted:
            raise UserError(
                f"'{folder / name}' isn't what was written: its SHA-256 differs. Copy it again, or remove it to answer "
                "by the network alone."
            )
    arrays = {name: tensor.numpy() for name, tensor in load_file(folder / ARRAYS).items()}
    result = {}
    for number, described in enumerate(json.loads((folder / ENSEMBLES).read_text(encoding="utf-8"))):
        own = {name.partition("/")[2]: array for name, array in arrays.items() if name.partition("/")[0] == str(number)}
        result[described["column"]] = Ensemble.load(described, own)
    return result
