"""The command ``ask-data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Source, names

GROUP = "Tables"
RANK = 30


def ask_data(
    table: Source,
    out: Annotated[Path, typer.Option(help="A .parquet file.")],
    about: Annotated[
        str | None, typer.Option(help="The column that names a row. Default: one of names or classes.")
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(
            help="Columns whose cells are shown, joined by commas. Default: pictures, videos, sounds and series, "
            "or else all others."
        ),
    ] = None,
    each: Annotated[int, typer.Option(help="Conversations about each row.")] = 4,
    kinds: Annotated[
        str | None,
        typer.Option(
            help="Kinds of questions and how often each is asked. Default: "
            "name:4,choice:2,yes_no:2,absent:1.5,field:1,describe:0.5,unknown:0.25,next:1,compare:1,how_many:0.5."
        ),
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Columns that come along and may be asked for, joined by commas. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Questions, each with a right and a wrong answer, for the command prefer.")
    ] = False,
    words: Annotated[
        Path | None,
        typer.Option(
            help='Wordings of questions beside ours, in any language, as JSON: {"name": ["What animal is it?"]}. '
            "With --reword it may not be there yet: it is written."
        ),
    ] = None,
    reword: Annotated[
        str | None, typer.Option(help="A language model, as trunk.path, that rephrases the questions.")
    ] = None,
    rewordings: Annotated[int, typer.Option(help="How many other wordings of each question it may add.")] = 4,
) -> None:
    """Build conversations about a table's training rows, from its columns' names and values."""
    from sensorium.cli.conversations import write_conversations

    write_conversations(
        table, out, about, names(of) or [], each, kinds, names(keep), seed, pairs, words, reword, rewordings
    )
