"""The command ``export-trunk``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run

GROUP = "Train"
RANK = 150


def export_trunk(run: Run, out: Annotated[Path, typer.Option(help="A folder.")]) -> None:
    """The language model of a run for transformers alone: merged with what was tuned, and that as PEFT's adapter; of
    pictures with column.NAME.llava=true the whole as LLaVA.
    """
    from sensorium.model import Model

    exported = Model.load(run).export_trunk(out)
    for folder in exported["llava"] if isinstance(exported["llava"], list) else ():
        typer.echo(f"Wrote {folder}: all of it in the layout of LLaVA")
    if isinstance(exported["llava"], str):
        typer.echo(f"Nothing in the layout of LLaVA: {exported['llava']}.")
    typer.echo(
        f"Wrote {out}: {exported['parameters']:,} parameters"
        + (f", and {out / 'adapter'}: {exported['adapter_parameters']:,}" if exported["adapter_parameters"] else "")
    )
