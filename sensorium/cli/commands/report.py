"""The command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import EntityKey, Run, Same, renamed
from sensorium.core.errors import UserError

GROUP = "Ask"
RANK = 280


def report(
    run: Run,
    table: Annotated[
        str | None, typer.Argument(help="A file or folder; without one, where the report of the fit is gets printed.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The .html file. Default: report.html in the run's folder.")] = None,
    split: Annotated[str | None, typer.Option(help="Only the rows of this part, by the split column.")] = None,
    entity_key: EntityKey = None,
    same: Same = None,
) -> None:
    """Write the report page anew, measured on a table: results, searches, samples beside the truth and how they came
    from noise.
    """
    from sensorium.cli.files import check_ending, check_folder
    from sensorium.cli.output import note
    from sensorium.model import Model

    entity_key = renamed("--entity-key", entity_key, "--same", same)
    if table is None:
        if out is not None or split is not None or entity_key is not None or not (run / "report.html").is_file():
            raise UserError(f"A report is measured on a table. Give one: sensorium report {run} TABLE")
        typer.echo(
            f"The report that fit wrote: {run / 'report.html'}. With a TABLE it is written anew, measured on that."
        )
        return
    out = out or run / "report.html"
    check_ending(out, ".html", only=True)
    check_folder(out, "--out")
    Model.load(run).report(table, out, split=split, entity_key=entity_key, note=note)
    typer.echo(f"Wrote {out}")
