"""The command ``reinforce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run

GROUP = "Train"
RANK = 140


def reinforce(
    run: Run,
    table: Annotated[
        str,
        typer.Argument(
            metavar="QUESTIONS",
            help="A table with conversation, which ends with the user, and answer (or chosen): see ask-data --pairs.",
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="reinforce.KEY=VALUE", help="Settings, as reinforce.score=judge.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that the model is saved to. Default: RUN itself.")] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to practise (10 by default).")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over the questions.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped.")] = False,
) -> None:
    """Let a run that talks draw answers and learn from which were good (GRPO), by a scoring function or a judge."""
    from sensorium.model import Model

    facts = (
        Model.load(run)
        .reinforce(
            table,
            out=out or run,
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            resume=resume,
            settings=settings or [],
            quiet=False,
        )
        .facts["reinforced"]
    )
    typer.echo(
        f"{facts['steps']:,} steps over {facts['questions']:,} questions; answers to {facts['held_out']} "
        f"held out score {facts['after']:.3f}, before {facts['before']:.3f}. Model: {out or run}"
    )
