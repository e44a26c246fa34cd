"""The command ``chat``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run

GROUP = "Ask"
RANK = 290


def chat(
    run: Run,
    index: Annotated[
        Path | None, typer.Argument(metavar="[INDEX]", help="An index whose rows can be looked up.")
    ] = None,
    table: Annotated[str | None, typer.Option(help="A table whose rows can be talked about (/row N).")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest word each time.")] = 0.0,
    sure: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Answer 'I don't know' where answers as sure as this one were right less often on validation "
            "conversations.",
        ),
    ] = 0.0,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(
            help="Talk with other low-rank updates, in PEFT's files, than the run's own; of several the last, "
            "/adapter changes."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
) -> None:
    """Talk with a model that was fitted on conversations; /help says how to show it things."""
    from sensorium.cli.chat import run_chat

    run_chat(run, index, table, max_tokens, temperature, sure, adapter or [], seed)
