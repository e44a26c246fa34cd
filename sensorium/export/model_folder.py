"""A model kept as safetensors and JSON, never pickle: written whole, read back with its hashes checked.

FOLDER/ model.json model.safetensors memory.safetensors domain.safetensors
GIVEN/ model.json model.safetensors probes.safetensors  without rows, as ``Model.save_pretrained`` gives it away
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sensorium.backbones import ORIGIN, Backbone
from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write, digest
from sensorium.core.renamed_settings import with_current_names
from sensorium.core.tensors import write_tensors
from sensorium.data.schema import Schema
from sensorium.dialogue.reward_model import FILE as JUDGE
from sensorium.dialogue.reward_model import RewardModel, hash_of_rest
from sensorium.export import redaction
from sensorium.modalities._capabilities import Refinable
from sensorium.network.build import make_modalities, make_network
from sensorium.network.network import Network
from sensorium.network.older_formats import OLDEST, upgrade_weights
from sensorium.nn.linear_probe import LinearProbes
from sensorium.nn.out_of_distribution import OutOfDistribution
from sensorium.nn.row_memory import RowMemory

FORMAT = 8
MEMORY, DOMAIN, PROBES = "memory.safetensors", "domain.safetensors", "probes.safetensors"
BESIDE = (
    JUDGE,
    "baselines",
    "rows.npy",
    "report.html",
    "settings.json",
    "environment.json",
    "metrics.jsonl",
    "quarantine.jsonl",
)
"""What else of a run goes with its model, so that it can be measured and reported elsewhere."""

BACKBONES = "backbones"
"""The folder in which a model that was saved for others has its encoders, each under the beginning of its hash."""
ROWS = (
    MEMORY,
    DOMAIN,
    "rows.npy",
    "quarantine.jsonl",
    "baselines",
    "report.html",
    "splits.parquet",
    "checkpoints",
    "store",
)
"""Files and folders of a run that tell of single rows: a model that is given away has none of them, unless ``rows`` is said."""
WITHOUT = ("metrics.jsonl",)
"""What of ``BESIDE`` goes with a model without rows as it is."""
OWN = "settings.json", "environment.json"
"""What of a saved model tells of a machine, and isn't given to a hub."""


def write(
    folder: Path,
    network: Network,
    schema: Schema,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    rows: bool = True,
    own: bool = True,
) -> None:
    """Write a model to a folder, file by file.

    Args:
        rows: with what tells of single training rows; else without it, and what the memory of rows adds as linear probes. own: with paths of this machine and the
            name of the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: Mapping[str, Any] = network.calibration.counts
    rare = {} if rows else redaction.common(network, counts)
    memory = network.calibration.memory if rows else redaction.memory_of(network, rare, counts)
    domain, weights = network.calibration.out_of_distribution if rows else None, folder / "model.safetensors"
    write_tensors(weights, network.state_dict() if rows else redaction.tensors(network, rare))
    known, learned = write_memory(folder, memory)
    if domain is None:
        (folder / DOMAIN).unlink(missing_ok=True)
    else:
        write_tensors(folder / DOMAIN, {str(number): vectors for number, vectors in enumerate(domain.known.values())})
    described = {
        "format": FORMAT,
        "schema": schema.to_json(),
        "settings": settings if own else redaction.settings_of(settings),
        "facts": facts if own else redaction.facts_of(facts),
        "modalities": {column: m.state() for column, m in network.modalities.items()}
        if rows
        else redaction.states(network, rare, counts, int(facts.get("rows", {}).get("train", 0))),
        **network.calibration.state(),
        "domain": None
        if domain is None
        else {"levels": [[kind, domain.levels[kind]] for kind in domain.known], "sha256": digest(folder / DOMAIN)},
        "sha256": digest(weights),
        "backbones": {
            column: {"folder": str(m.encoder.folder), "sha256": m.encoder.sha256}
            for column, m in network.modalities.items()
            if m.encoder is not None
        },
        "language": None
        if (language := getattr(network.trunk, "language", None)) is None
        else {"folder": str(language.folder), "sha256": language.sha256},
        "finished": [
            c for c, m in network.modalities.items() if isinstance(m, Refinable) and m.refiner is not None
        ],
        "memory": known,
        "probes": learned,
        **({"counts": counts} if rows and counts else {}),
    }
    if not own:
        for column in described["schema"]["columns"].values():
            column["settings"] = redaction.without_paths(column.get("settings", {}))
    with atomic_write(folder / "model.json") as part:
        part.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")


def write_memory(
    folder: Path, memory: RowMemory | LinearProbes | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Write a memory of rows, or the probes that stand for one; what ``model.json`` says of each. A file of what the model hasn't is removed."""
    if not isinstance(memory, RowMemory):
        (folder / MEMORY).unlink(missing_ok=True)
    if not isinstance(memory, LinearProbes):
        (folder / PROBES).unlink(missing_ok=True)
    if isinstance(memory, LinearProbes):
        write_tensors(folder / PROBES, memory.tensors())
        return None, {**memory.described(), "sha256": digest(folder / PROBES)}
    if memory is None:
        return None, None
    told = memory.targets()
    write_tensors(
        folder / MEMORY,
        {
            "known": memory.known,
            **{f"sketches.{c}": kept for c, kept in memory.sketches().items()},
            **{f"tokens.{c}": tokens for c, (tokens, _) in told.items()},
            **{f"have.{c}": have for c, (_, have) in told.items()},
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


def read(folder: Path) -> tuple[Network, Schema, dict[str, Any], dict[str, Any]]:
    """The network, the schema, the settings and the facts that ``write`` wrote.

    Raises:
        UserError: no model there, one of another format, or a file that isn't what was written.
    """
    path, weights = folder / "model.json", folder / "model.safetensors"
    if not path.is_file() or not weights.is_file():
        raise UserError(
            f"'{folder}' holds no model (model.json and model.safetensors). Make one with: sensorium fit TABLE --out {folder}"
        )
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        if described["format"] > FORMAT:
            raise UserError(
                f"'{folder}' was written by a newer Sensorium (format {described['format']}; this one reads "
                f"{FORMAT}). Upgrade with: pip install -U sensorium"
            )
        if described["format"] < OLDEST:
            raise UserError(
                f"'{folder}' was written by an older Sensorium (format {described['format']}; this one reads {FORMAT}), "
                "whose networks were others. Train it again."
            )
        if digest(weights) != described["sha256"]:
            raise UserError(f"'{weights}' isn't what was written: its SHA-256 differs. Copy it again or train again.")
        tensors = load_file(weights)
        described["settings"] = with_current_names(described["settings"], quiet=True)
        schema = Schema.from_json(described["schema"])
        for column in schema.columns.values():
            column.settings.pop("backbone", None)  # where it lies stands beside
        settings = with_language(
            folder,
            with_backbones(
                folder, with_current_names(described["settings"], quiet=True), described.get("backbones", {})
            ),
            described.get("language"),
        )
        modalities = make_modalities(schema, settings)
        for column, kept in described.get("backbones", {}).items():
            if (encoder := modalities[column].encoder) is None or encoder.sha256 != kept["sha256"]:
                raise UserError(
                    f"The backbone of column '{column}' in '{kept['folder']}' isn't the one that '{folder}' was trained with: its SHA-256 differs. Put that one back."
                )
        for column, modality in modalities.items():
            modality.load_state(described["modalities"][column])
        network = make_network(modalities, settings, 0)
        if (language := described.get("language")) and network.trunk.language.sha256 != language["sha256"]:
            raise UserError(
                f"The language model in '{language['folder']}' isn't the one that '{folder}' was trained on: its SHA-256 differs. Put that one back."
            )
        with torch.random.fork_rng(devices=[]):
            for column in described.get("finished", ()):
                network.add_refiner(column)
        network.load_state_dict(upgrade_weights(tensors, described["format"]))
        network.calibration.load(described)
        network.calibration.out_of_distribution = domain_of(folder / DOMAIN, described.get("domain"))
        network.calibration.memory = remembered(
            folder / MEMORY, described.get("memory"), network.gist_size
        ) or probes_of(folder / PROBES, described.get("probes"))
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RuntimeError,
        SafetensorError,
        OSError,
    ) as error:
        raise UserError(f"'{folder}' can't be read as a model: {error}") from error
    return network, schema, described["settings"], described["facts"]


def with_backbones(folder: Path, settings: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Settings where columns have their backbones from the model's folder, or from those in which they lay."""
    columns = {
        column: {key: value for key, value in given.items() if key != "backbone"}
        if isinstance(given, Mapping)
        else given
        for column, given in settings.get("column", {}).items()
    }
    for column, one in kept.items():
        if not re.fullmatch("[0-9a-f]{64}", str(one["sha256"])):
            raise ValueError(f"'{one['sha256']}' is no SHA-256")
        if not (folder / BACKBONES / one["sha256"][:16]).is_dir() and not Path(one["folder"]).is_dir():
            raise UserError(
                f"column.{column}.backbone: There is no backbone '{one['folder']}', on which this model stands. Put it back there."
            )
        given = columns.get(column, {})
        columns[column] = {
            **(given if isinstance(given, Mapping) else {"": given}),
            "backbone": str(beside if (beside := folder / BACKBONES / one["sha256"][:16]).is_dir() else one["folder"]),
        }
    return {**settings, "column": columns}


def with_language(folder: Path, settings: Mapping[str, Any], kept: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings where the trunk has its language model from the model's folder, or from that in which it lay."""
    if kept is None:
        return dict(settings)
    if not re.fullmatch("[0-9a-f]{64}", str(kept["sha256"])):
        raise ValueError(f"'{kept['sha256']}' is no SHA-256")
    beside = folder / BACKBONES / kept["sha256"][:16]
    if not beside.is_dir() and not Path(kept["folder"]).exists():
        raise UserError(
            f"There is no language model '{kept['folder']}', on which this model stands. Put it back there."
        )
    found = beside if beside.is_dir() else Path(kept["folder"])
    single = (
        next(iter(sorted(found.glob("*.gguf"))), None)
        if found.is_dir() and not (found / "config.json").is_file()
        else None
    )
    return {**settings, "trunk": {**settings["trunk"], "path": str(single or found)}}


def copy_backbones(folder: Path, encoders: Mapping[str, Backbone]) -> None:
    """Columns' encoders, by their hashes, into a model's folder: what they are opened from, and their cards. The model then names no other folder."""
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


def copy_language(folder: Path, language: Any) -> None:
    """The language model that a model stands on, by its hash, into the model's folder, which then names no other."""
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    described["language"]["folder"] = f"{BACKBONES}/{language.sha256[:16]}"
    described["settings"]["trunk"].pop("path", None)
    with atomic_write(folder / "model.json") as part:
        part.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    copy_folder(language.folder, folder / BACKBONES / language.sha256[:16], language.name)


def copy_folder(source: Path, target: Path, name: str) -> None:
    """What a pretrained model is opened from, with its card and licence, and where it came from."""
    import shutil

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


def identity(folder: Path) -> str:
    """What tells the model of a folder from all others whose vectors differ: of its weights and its memory, hex.

    Raises:
        UserError: no model there.
    """
    try:
        described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        memory = next(
            (
                described[key]["sha256"]
                for key, file in (("memory", MEMORY), ("probes", PROBES))
                if described.get(key) and (folder / file).is_file()
            ),
            "",
        )
        return hashlib.sha256(f"{described['sha256']} {memory}".encode()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{folder}' holds no model that can be read: {error}.") from error


def domain_of(path: Path, how: Mapping[str, Any] | None) -> OutOfDistribution | None:
    """The known gists that were written to a file; a model whose file of them was removed does without."""
    if how is None or not path.is_file():
        return None
    if digest(path) != how["sha256"]:
        raise UserError(
            f"'{path}' isn't what was written: its SHA-256 differs. Copy it again, or remove it to do without."
        )
    kept = load_file(path)
    return OutOfDistribution(
        {kind: kept[str(number)] for number, (kind, _) in enumerate(how["levels"])}, dict(how["levels"])
    )


def remembered(path: Path, how: Mapping[str, Any] | None, size: int) -> RowMemory | None:
    """The memory that was written to a file, its gists of ``size``; a model whose file of it was removed does without."""
    if how is None or not path.is_file():
        return None
    if digest(path) != how["sha256"]:
        raise UserError(
            f"'{path}' isn't what was written: its SHA-256 differs. Copy it again, or remove it to do without memory."
        )
    kept = load_file(path)
    known = kept["known"]
    if known.ndim != 3 or known.shape[2] != size:
        raise ValueError(f"{path.name} holds gists of shape {list(known.shape)}, not of size {size}")
    sketches = {column: kept[f"sketches.{column}"] for column in how.get("sketched", ())}
    told = {column: (kept[f"tokens.{column}"], kept[f"have.{column}"]) for column in how.get("told", ())}
    return RowMemory(
        dict(zip(how["columns"], known, strict=True)),
        how["sharpness"],
        how["strength"],
        sketches,
        how.get("trust", 0.0),
        told,
        how.get("shares"),
        how.get("by"),
        how.get("margins"),
    )


def probes_of(path: Path, how: Mapping[str, Any] | None) -> LinearProbes | None:
    """The linear probes that were written to a file in place of a memory; a model whose file of them was removed does without."""
    if how is None or not path.is_file():
        return None
    if digest(path) != how["sha256"]:
        raise UserError(
            f"'{path}' isn't what was written: its SHA-256 differs. Copy it again, or remove it to do without."
        )
    return LinearProbes.of(load_file(path), how)


def check_given(folder: Path, own: bool) -> None:
    """Refuse to write a model without rows over the whole one, or where files of rows lie, which would be given away with it.

    Raises:
        UserError: it is the model's ``own`` folder, or there are some.
    """
    there = [name for name in ROWS if (folder / name).exists()]
    if own or there:
        why = (
            "is this model's own folder"
            if own
            else f"holds files that tell of single training rows ({', '.join(there)})"
        )
        raise UserError(
            f"'{folder}' {why}, and a model without rows was to be written there. Choose another folder, or say rows=True to keep them."
        )


def copy_beside(source: Path, target: Path, network: Network, rows: bool) -> None:
    """Copy what else of a run goes with its model, and its results; with ``rows`` also what tells of them."""
    copy_if_there(
        source, target, [*(BESIDE if rows else WITHOUT), *(path.name for path in source.glob("results*.json"))]
    )
    if (
        not rows and (source / JUDGE).is_file()
    ):  # a judge knows the network that it is of, whose weights may have changed
        dataclasses.replace(RewardModel.load(source / JUDGE, network), rest=hash_of_rest(read(target)[0])).save(
            target / JUDGE
        )


def copy_if_there(source: Path, target: Path, names: Sequence[str]) -> None:
    """Copy files and folders that exist."""
    import shutil

    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        elif (source / name).exists():
            shutil.copy2(source / name, target / name)
