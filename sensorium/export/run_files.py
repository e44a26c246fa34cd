"""Files of a run that go with its model, and those that tell of single rows or of the machine."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from sensorium.core.errors import UserError
from sensorium.dialogue.reward_model import FILE as JUDGE
from sensorium.dialogue.reward_model import RewardModel, hash_of_rest
from sensorium.export.ensemble_files import ARRAYS, ENSEMBLES
from sensorium.export.memory_files import DOMAIN, MEMORY
from sensorium.export.model_folder import read
from sensorium.network.network import Network

RUN_FILES = (
    JUDGE,
    "baselines",
    "rows.npy",
    "report.html",
    "settings.json",
    "environment.json",
    "metrics.jsonl",
    "quarantine.jsonl",
)
"""Files of a run that go with its model, so that it can be measured and reported elsewhere."""
FILES_WITH_ROWS = (
    MEMORY,
    DOMAIN,
    ENSEMBLES,
    ARRAYS,
    "rows.npy",
    "quarantine.jsonl",
    "baselines",
    "report.html",
    "splits.parquet",
    "checkpoints",
    "store",
)
"""Files and folders of a run that tell of single rows: a model for others has none, unless ``rows`` is given."""
FILES_WITHOUT_ROWS = ("metrics.jsonl",)
"""Those of ``RUN_FILES`` that go with a model without rows as they are."""
MACHINE_FILES = "settings.json", "environment.json"
"""Files of a saved model that tell of a machine, and aren't uploaded to a hub."""


def check_target(folder: Path, own: bool) -> None:
    """Refuse to write a model without rows over the whole one, or where files of rows lie, which would go with it.

    Raises:
        UserError: it is the model's ``own`` folder, or there are some.
    """
    found = [name for name in FILES_WITH_ROWS if (folder / name).exists()]
    if own or found:
        reason = (
            "is this model's own folder"
            if own
            else f"holds files that tell of single training rows ({', '.join(found)})"
        )
        raise UserError(
            f"'{folder}' {reason}, and a model without rows was to be written there. "
            "Choose another folder, or say rows=True to keep them."
        )


def copy_run_files(source: Path, target: Path, network: Network, rows: bool) -> None:
    """Copy the files of a run that go with its model, and its results; with ``rows`` also those that tell of them."""
    copy_existing(
        source,
        target,
        [*(RUN_FILES if rows else FILES_WITHOUT_ROWS), *(path.name for path in source.glob("results*.json"))],
    )
    if (
        not rows and (source / JUDGE).is_file()
    ):  # a judge knows the network that it is of, whose weights may have changed
        dataclasses.replace(RewardModel.load(source / JUDGE, network), rest=hash_of_rest(read(target)[0])).save(
            target / JUDGE
        )


def copy_existing(source: Path, target: Path, names: Sequence[str]) -> None:
    """Copy files and folders that exist."""
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        elif (source / name).exists():
            shutil.copy2(source / name, target / name)
