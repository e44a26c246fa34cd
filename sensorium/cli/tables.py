"""Tables built from packages: the command ``table``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from sensorium.cli.output import note
from sensorium.core.registry import find
from sensorium.core.settings import build


def build_table(name: str, out: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Build one of Sensorium's tables and print what it is made of."""
    from sensorium.core.errors import UserError
    from sensorium.datasets import Builder

    given = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"'{setting}' is no setting. Write KEY=VALUE, as rows=200.")
        given[key] = value
    builder = build(find(Builder, name), given, f"table {name}")
    with Progress(transient=True) as progress:
        task = progress.add_task(f"Building {name}", total=None)
        built = builder.build(out, progress=lambda done, total: progress.update(task, completed=done, total=total))
    note(f"{out}: {built['rows']:,} rows, SHA-256 {built['sha256'][:16]}…")
    for line in built["credits"]:
        note(f"  {line}")
    return built
