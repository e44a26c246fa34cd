"""Metrics log of a run: a line of JSON for each step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from sensorium.training.trainer import Progress


class MetricsLog:
    """Log of metrics, ``metrics.jsonl``: one line a step; cut back to the checkpoint's step when a run goes on."""

    def __init__(self, path: Path, step: int) -> None:
        lines = []
        if path.exists() and step:
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        lines.append(line)
                except (ValueError, KeyError):
                    continue  # a line that a kill cut in two
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        self.file: IO[str] = path.open("a", encoding="utf-8", buffering=1)

    def write(self, at: Progress, values: dict[str, float]) -> None:
        """Write one step's numbers."""
        self.file.write(
            json.dumps({"step": at.step, "seconds": round(at.seconds, 3), "rows": at.rows, **values}) + "\n"
        )

    def close(self) -> None:
        """Close the file."""
        self.file.close()
