"""Files of a model folder beside its weights: its memory of rows, or linear probes, and its known gists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from sensorium.core.errors import UserError
from sensorium.core.files import digest
from sensorium.core.tensors import write_tensors
from sensorium.nn.linear_probe import LinearProbes
from sensorium.nn.out_of_distribution import OutOfDistribution
from sensorium.nn.row_memory import RowMemory

MEMORY, DOMAIN, PROBES = "memory.safetensors", "domain.safetensors", "probes.safetensors"
"""Names of the files."""


def write_memory(
    folder: Path, memory: RowMemory | LinearProbes | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Write a memory of rows, or the probes that stand for one. A file of what the model hasn't is removed.

    Returns:
        entries of ``model.json``: of the memory, and of the probes.
    """
    if not isinstance(memory, RowMemory):
        (folder / MEMORY).unlink(missing_ok=True)
    if not isinstance(memory, LinearProbes):
        (folder / PROBES).unlink(missing_ok=True)
    if isinstance(memory, LinearProbes):
        write_tensors(folder / PROBES, memory.tensors())
        return None, {**memory.described(), "sha256": digest(folder / PROBES)}
    if memory is None:
        return None, None
    targets = memory.targets()
    write_tensors(
        folder / MEMORY,
        {
            "known": memory.known,
            **{f"sketches.{c}": sketch for c, sketch in memory.sketches().items()},
            **{f"tokens.{c}": tokens for c, (tokens, _) in targets.items()},
            **{f"have.{c}": have for c, (_, have) in targets.items()},
        },
    )
    return {
        "columns": memory.columns,
        "sharpness": memory.sharpness,
        "strength": memory.strength,
        "sketched": memory.sketched,
        "trust": memory.trust,
        "told": memory.asked_columns,
        "shares": memory.shares,
        "by": memory.by,
        "margins": memory.margins,
        "sha256": digest(folder / MEMORY),
    }, None


def read_domain(path: Path, entry: Mapping[str, Any] | None) -> OutOfDistribution | None:
    """Read the known gists from a file; a model whose file of them was removed does without."""
    if entry is None or not path.is_file():
        return None
    if digest(path) != entry["sha256"]:
        raise UserError(
            f"'{path}' isn't what was written: its SHA-256 differs. Copy it again, or remove it to do without."
        )
    tensors = load_file(path)
    return OutOfDistribution(
        {kind: tensors[str(number)] for number, (kind, _) in enumerate(entry["levels"])}, dict(entry["levels"])
    )


def read_memory(path: Path, entry: Mapping[str, Any] | None, size: int) -> RowMemory | None:
    """Read a memory, whose gists have ``size``, from a file; a model whose file of it was removed does without.

    Raises:
        UserError: the file isn't what was written. ValueError: its gists have another size.
    """
    if entry is None or not path.is_file():
        return None
    if digest(path) != entry["sha256"]:
        raise UserError(
            f"'{path}' isn't what was written: its SHA-256 differs. Copy it again, or remove it to do without memory."
        )
    tensors = load_file(path)
    known = tensors["known"]
    if known.ndim != 3 or known.shape[2] != size:
        raise ValueError(f"{path.name} holds gists of shape {list(known.shape)}, not of size {size}")
    sketches = {column: tensors[f"sketches.{column}"] for column in entry.get("sketched", ())}
    targets = {column: (tensors[f"tokens.{column}"], tensors[f"have.{column}"]) for column in entry.get("told", ())}
    return RowMemory(
        dict(zip(entry["columns"], known, strict=True)),
        entry["sharpness"],
        entry["strength"],
        sketches,
        entry.get("trust", 0.0),
        targets,
        entry.get("shares"),
        entry.get("by"),
        entry.get("margins"),
    )


def read_probes(path: Path, entry: Mapping[str, Any] | None) -> LinearProbes | None:
    """Read linear probes, which stand for a memory, from a file; a model whose file was removed does without."""
    if entry is None or not path.is_file():
        return None
    if digest(path) != entry["sha256"]:
        raise UserError(
            f"'{path}' isn't what was written: its SHA-256 differs. Copy it again, or remove it to do without."
        )
    return LinearProbes.of(load_file(path), entry)
