"""Weights & Biases. Offline unless WANDB_MODE says otherwise: nothing leaves the machine unasked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensorium.core.errors import UserError
from sensorium.training.trackers import Tracker


class Wandb(Tracker):
    """Scalars to a W&B run named after the run's folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise UserError(
                "trackers=wandb needs the package wandb. Install it with: pip install 'sensorium[wandb]'"
            ) from error
        mode = os.environ.get("WANDB_MODE", "offline")
        self.run = wandb.init(project="sensorium", name=folder.name, dir=str(folder), config=dict(settings), mode=mode)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()
