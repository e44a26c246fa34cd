"""The command ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import EntityKey, Run, Same, Seen, Source, names, renamed

GROUP = "Ask"
RANK = 210


def evaluate(
    run: Run,
    table: Source,
    split: Annotated[str | None, typer.Option(help="Only the rows of this part, by the split column.")] = None,
    seen: Seen = None,
    entity_key: EntityKey = None,
    limit: Annotated[int, typer.Option(min=0, help="Rows that are looked at, evenly spaced. Default: all.")] = 0,
    candidates: Annotated[
        int,
        typer.Option(min=0, help="Texts that each answer is chosen from; 0: as many as are cheap, as predict does."),
    ] = 1,
    json: Annotated[Path | None, typer.Option("--json", help="Write the results as JSON.")] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Ask it questions about the rows, and mark its answers; nothing else is measured."),
    ] = False,
    about: Annotated[
        str | None,
        typer.Option(help="With --chat: the column that names a row. Default: one of names or classes."),
    ] = None,
    same: Same = None,
) -> None:
    """Every column and direction, beside chance and plain models; or how well it talks."""
    from sensorium.cli.files import check_folder, write_json
    from sensorium.cli.output import note, print_results
    from sensorium.core.errors import unknown
    from sensorium.model import Model

    entity_key = renamed("--entity-key", entity_key, "--same", same)
    if json:
        check_folder(json, "--json")
    model = Model.load(run)
    opened = model.open(table)
    if entity_key is not None and entity_key not in opened.columns:
        raise unknown("column for --entity-key:", entity_key, opened.columns)
    if chat:
        results = {"chat": model.examine(opened, split=split, about=about, note=note)}
        typer.echo(
            "  ".join(
                f"of {value:,} rows" if key == "n" else f"{key} –" if value is None else f"{key} {value:.3f}"
                for key, value in results["chat"].items()
            )
        )
    else:
        results = model.evaluation(
            opened,
            split=split,
            seen=names(seen),
            entity_key=entity_key,
            limit=limit,
            candidates=candidates,
            note=note,
        ).results
        print_results(results)
    if json:
        write_json(json, results)
