"""The command ``prefer``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run

GROUP = "Train"
RANK = 130


def prefer(
    run: Run,
    table: Annotated[
        str,
        typer.Argument(metavar="PAIRS", help="A table with conversation, chosen and rejected: see ask-data --pairs."),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="prefer.KEY=VALUE", help="Settings, as prefer.beta=0.3.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that the model is saved to. Default: RUN itself.")] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to learn (10 by default).")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over the pairs.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped.")] = False,
) -> None:
    """Teach a run that talks which of two answers is better (DPO), or, with prefer.loss=reward, a judge that scores
    answers.
    """
    from sensorium.model import Model

    model = Model.load(run).prefer(
        table,
        out=out or run,
        minutes=minutes,
        epochs=epochs,
        seed=seed,
        resume=resume,
        settings=settings or [],
        quiet=False,
    )
    judge = "prefer.loss=reward" in (settings or [])
    facts = model.facts["judge" if judge else "preferred"]
    better = "has the higher score" if judge else "is likelier"
    typer.echo(
        f"{facts['steps']:,} steps over {facts['pairs']:,} pairs; of {facts['held_out']} validation pairs the chosen "
        f"answer {better} in {facts['after']:.2f}, before in {facts['before']:.2f}. Model: {out or run}"
    )
