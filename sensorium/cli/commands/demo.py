"""The command ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

GROUP = "Train"
RANK = 160


def demo(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings, as train.batch=64.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to train. Default: 5; 40 with --chat.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder. Default: runs/demo, runs/pretrained or runs/chat.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained", help="Let pictures and names stand on pretrained encoders, which come in packages."
        ),
    ] = False,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat",
            help="Build conversations about the table and tune a language model, which comes in a package, to "
            "talk about pictures.",
        ),
    ] = False,
) -> None:
    """Build the emoji table, train on it, print and report results."""
    from sensorium.cli.demo import run_chat_demo, run_demo

    if chat:
        run_chat_demo(minutes or 40.0, out or Path("runs/chat"), seed, settings or [])
    else:
        run_demo(
            minutes or 5.0,
            out or Path("runs/pretrained" if pretrained else "runs/demo"),
            seed,
            settings or [],
            pretrained,
        )
