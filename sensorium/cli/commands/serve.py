"""The command ``serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run
from sensorium.core.errors import UserError

GROUP = "Ask"
RANK = 300


def serve(
    run: Run,
    index: Annotated[Path | None, typer.Argument(help="An index of rows for this run, to be searched.")] = None,
    table: Annotated[str | None, typer.Option(help="The table whose rows the page shows.")] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; others than this machine's own want a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with a key a line, one of which each request must bring.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name under which the server is called; may be given several times.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that hold the model.")] = 1,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch files at web addresses that requests name, from public hosts only.")
    ] = False,
    deadline: Annotated[float, typer.Option(help="Seconds until a request must be answered.")] = 60.0,
    batch: Annotated[int, typer.Option(help="Rows that are asked together, of whatever requests wait.")] = 64,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")] = None,
) -> None:
    """Answer over HTTP: OpenAI's endpoints, Sensorium's own, and a page to look, ask and search."""
    try:
        from sensorium.serve.app import Settings, serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sensorium"):
            raise
        raise UserError(
            f"Serving takes more packages ('{error.name}' is not there). Install them: pip install 'sensorium[serve]'"
        ) from error

    serve(Settings(run, index, table, host, port, allow_host or [], key_file, workers, fetch, deadline, device, batch))
