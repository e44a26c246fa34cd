"""Model folders: a model as safetensors and JSON, never pickle, whose hashes are checked when it is read.

FOLDER/ model.json model.safetensors memory.safetensors domain.safetensors ensembles.json ensembles.safetensors
FOLDER/ model.json model.safetensors probes.safetensors  without rows, as ``Model.save_pretrained`` writes it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write, digest
from sensorium.core.renamed_settings import with_current_names
from sensorium.core.tensors import write_tensors
from sensorium.data.columns import make_modalities
from sensorium.data.schema import Schema
from sensorium.export import redaction
from sensorium.export.backbone_folders import with_backbones, with_language
from sensorium.export.ensemble_files import read_ensembles, write_ensembles
from sensorium.export.memory_files import DOMAIN, MEMORY, PROBES, read_domain, read_memory, read_probes, write_memory
from sensorium.modalities._capabilities import Refinable
from sensorium.network.build import make_network
from sensorium.network.network import Network
from sensorium.network.older_formats import OLDEST, upgrade_weights

FORMAT = 8
"""Version of the format, which ``model.json`` names."""


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
        rows: with what tells of single training rows; else without it, and with linear probes for what the memory of
            rows adds.
        own: with paths of this machine and the name of the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: Mapping[str, Any] = network.calibration.counts
    rare = {} if rows else redaction.common_classes(network, counts)
    memory = network.calibration.memory if rows else redaction.redacted_memory(network, rare, counts)
    domain, weights = network.calibration.out_of_distribution if rows else None, folder / "model.safetensors"
    write_tensors(weights, network.state_dict() if rows else redaction.redacted_tensors(network, rare))
    known, learned = write_memory(folder, memory)
    if domain is None:
        (folder / DOMAIN).unlink(missing_ok=True)
    else:
        write_tensors(folder / DOMAIN, {str(number): vectors for number, vectors in enumerate(domain.known.values())})
    described = {
        "format": FORMAT,
        "schema": schema.to_json(),
        "settings": settings if own else redaction.redacted_settings(settings),
        "facts": facts if own else redaction.redacted_facts(facts),
        "modalities": {column: m.state() for column, m in network.modalities.items()}
        if rows
        else redaction.redacted_states(network, rare, counts, int(facts.get("rows", {}).get("train", 0))),
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
        "finished": [c for c, m in network.modalities.items() if isinstance(m, Refinable) and m.refiner is not None],
        "memory": known,
        "probes": learned,
        "ensembles": write_ensembles(folder, network.calibration.ensembles if rows else {}),
        **({"counts": counts} if rows and counts else {}),
    }
    if not own:
        for column in described["schema"]["columns"].values():
            column["settings"] = redaction.without_paths(column.get("settings", {}))
    with atomic_write(folder / "model.json") as part:
        part.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")


def read(folder: Path) -> tuple[Network, Schema, dict[str, Any], dict[str, Any]]:
    """Read the network, the schema, the settings and the facts that ``write`` wrote.

    Raises:
        UserError: no model there, one of another format, or a file that isn't what was written.
    """
    path, weights = folder / "model.json", folder / "model.safetensors"
    if not path.is_file() or not weights.is_file():
        raise UserError(
            f"'{folder}' holds no model (model.json and model.safetensors). "
            f"Make one with: sensorium fit TABLE --out {folder}"
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
                f"'{folder}' was written by an older Sensorium (format {described['format']}; this one reads "
                f"{FORMAT}), whose networks were others. Train it again."
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
        for column, entry in described.get("backbones", {}).items():
            if (encoder := modalities[column].encoder) is None or encoder.sha256 != entry["sha256"]:
                raise UserError(
                    f"The backbone of column '{column}' in '{entry['folder']}' isn't the one that '{folder}' was "
                    "trained with: its SHA-256 differs. Put that one back."
                )
        for column, modality in modalities.items():
            modality.load_state(described["modalities"][column])
        network = make_network(modalities, settings, 0)
        language, opened = described.get("language"), getattr(network.trunk, "language", None)
        if language and (opened is None or opened.sha256 != language["sha256"]):
            raise UserError(
                f"The language model in '{language['folder']}' isn't the one that '{folder}' was trained on: "
                "its SHA-256 differs. Put that one back."
            )
        with torch.random.fork_rng(devices=[]):
            for column in described.get("finished", ()):
                network.add_refiner(column)
        network.load_state_dict(upgrade_weights(tensors, described["format"]))
        network.calibration.load(described)
        network.calibration.ensembles = read_ensembles(folder, described.get("ensembles"))
        network.calibration.out_of_distribution = read_domain(folder / DOMAIN, described.get("domain"))
        network.calibration.memory = read_memory(
            folder / MEMORY, described.get("memory"), network.gist_size
        ) or read_probes(folder / PROBES, described.get("probes"))
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


def identity(folder: Path) -> str:
    """Hash of a model's weights and memory, hex: of models with the same one vectors are the same.

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
