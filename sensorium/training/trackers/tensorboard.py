"""TensorBoard event files in ``RUN/tensorboard``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensorium.training.trackers import Tracker


class TensorBoard(Tracker):
    """Scalars, every tenth step."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step % 10 == 0:
            for name, value in values.items():
                self.writer.add_scalar(name.replace(" ", "/"), value, step)

    def close(self) -> None:
        self.writer.close()
