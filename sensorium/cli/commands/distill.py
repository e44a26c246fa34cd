"""The command ``distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run, Source

GROUP = "Train"
RANK = 120


def distill(
    run: Run,
    table: Source,
    column: Annotated[
        str, typer.Option(help="The column of pictures, sounds, clips or series that the run generates by flow.")
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings, as distill.pairs=8192.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to save to. Default: RUN.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="How long the student learns (10 by default), after the flow has generated its examples."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over that.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")] = None,
) -> None:
    """Teach a run to draw a column in one step instead of many: generate --generator onestep."""
    from sensorium.cli.output import note
    from sensorium.model import Model

    model = Model.load(run, device).distill(
        table,
        column,
        out=out or run,
        minutes=minutes,
        epochs=epochs,
        seed=seed,
        resume=resume,
        settings=settings or [],
        quiet=False,
        note=note,
    )
    facts = model.facts["distilled"][column]
    if facts["stopped"]:
        typer.echo(f"Stopped after {facts['steps']:,} steps; the student is saved as it is. Go on with --resume.")
    typer.echo(
        f"{facts['steps']:,} steps on {facts['pairs']:,} generated cells. From validation cells the student is "
        f"{facts['away']} away, the flow's own first guess {facts['teacher_away']}. Model: {out or run}; "
        "generate with --generator onestep."
    )
