"""The command ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    metric: Annotated[
        str | None, typer.Option(help="By which slices are ordered and runs compared. Default: accuracy, r2 or exact.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Column: results for each of its values too, or each quarter of numbers.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another run, which answers the same rows: is the difference more than chance?")
    ] = None,
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
    from sensorium.evaluation.compare import compare as differences
    from sensorium.model import Model

    entity_key = renamed("--entity-key", entity_key, "--same", same)
    if json:
        check_folder(json, "--json")
    model, other = Model.load(run), Model.load(compare) if compare else None
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
        options: dict[str, Any] = {"split": split, "seen": names(seen), "entity_key": entity_key, "limit": limit}
        options |= {"candidates": candidates, "metric": metric, "by": by, "note": note}
        found = model.evaluation(opened, **options)
        if other is not None:
            found.results["compared"] = differences(found, other.evaluation(opened, **options))
        results = found.results
        print_results(results)
    if json:
        write_json(json, results)
