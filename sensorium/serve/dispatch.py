"""Dispatch of requests to the model: rows are read, the worker is asked, and its answer is made JSON.

All routes go this way, ours and OpenAI's. A verb is a file of ``serve/routes`` with a function
``answer(worker, jobs)``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import Response

from sensorium.core.errors import UserError
from sensorium.data.media import HEAD_BYTES, sniff
from sensorium.serve.batcher import ClientDisconnected, QueueFull, RequestTimeout, WorkerFailed
from sensorium.serve.guard import Refused
from sensorium.serve.messages import pack
from sensorium.serve.requests import RowsRequest

if TYPE_CHECKING:
    from sensorium.serve.server import Server

log = logging.getLogger("sensorium.serve")


async def ask(
    server: Server,
    verb: str,
    rows: Sequence[Mapping[str, Any]],
    without: Sequence[Mapping[str, Any]] = (),
    *,
    exclusive: bool = False,
    strict: int | None = None,
    extra: Mapping[str, Any] | None = None,
    on_piece: Callable[[Any], None] | None = None,
    **options: Any,
) -> Any:
    """The worker's answer to one request.

    Args:
        rows: what is asked about; without: rows that a search shall not find.
        exclusive: not in one batch with other requests.
        strict: cells that can't be read are refused in so many rows, all by default, and missing in those behind them.
        extra: what else this request brings that doesn't keep it from being asked with others.
        on_piece: is called with each piece of the answer that comes before all of it.
        options: of the verb; requests with the same ones are asked together. None: not given.

    Raises:
        Refused: too much is asked, the request is wrong, or the model's process died.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        pack([given, extra])
    except (TypeError, ValueError, OverflowError):
        raise Refused(422, f"The options can't be read: {', '.join(given)}.", "request") from None
    job = {
        "rows": list(rows),
        "without": list(without),
        "strict": len(rows) if strict is None else strict,
        "stream": on_piece is not None,
        **(extra or {}),
    }
    seconds = server.limits.seconds
    try:
        result = await server.batcher.ask(verb, given, job, seconds, exclusive, on_piece)
    except QueueFull as full:
        raise Refused(
            429, "Too many requests wait. Try again.", "busy", headers={"Retry-After": str(round(full.seconds))}
        ) from None
    except RequestTimeout:
        raise Refused(503, f"It took longer than {seconds:g} s.", "deadline", headers={"Retry-After": "5"}) from None
    except ClientDisconnected:
        raise Refused(
            503,
            "The model's process ended and is started again. Try again.",
            "restarting",
            headers={"Retry-After": "2"},
        ) from None
    except WorkerFailed:
        raise Refused(500, "This is a fault of the server. Its log says more.", "fault") from None
    if "error" in result:
        place = [f"Row {result['row']}"] if result.get("row") is not None else []
        place += [f"column '{result['column']}'"] if result.get("column") else []
        raise Refused(
            422,
            (", ".join(place) + ": " if place else "") + result["error"],
            "cell" if place else "request",
            result.get("column"),
        )
    return result["answer"]


async def generate(
    server: Server,
    rows: list[dict[str, Any]],
    column: str,
    seen: list[str] | None,
    samples: int,
    seed: int | None,
    *,
    strict: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Generated cells of a column; with a seed the same ones each time, whoever else asks."""
    if 0 < (options.get("temperature") or 0) < 0.001:
        options["temperature"] = 0.0
    given: dict[str, Any] = {"column": column, "seen": seen, "samples": samples, "seed": seed, **options}
    return await ask(server, "generate", rows, exclusive=seed is not None, strict=strict, **given)


async def read_rows(server: Server, request: RowsRequest, hidden: str | None = None) -> list[dict[str, Any]]:
    """The rows of a request as cells, without the ``hidden`` column; those of the table behind the others.

    Raises:
        Refused: no rows, an unknown column or row, or a cell that can't be read.
    """
    cells, rows = server.cells, []
    cells.check(*(request.seen or ()), param="seen")
    if hidden is not None:
        cells.check(hidden)
    if not request.rows and not request.table_rows:
        raise Refused(422, "No rows were given: send them as 'rows', each its cells by column.", "rows", "rows")
    for number, row in enumerate(request.rows):
        rows.append(await cells.row({c: cell for c, cell in row.items() if c != hidden}, number))
    columns = [c for c in server.columns if c != hidden and (not request.seen or c in request.seen)]
    found = await table_rows(server, request.table_rows, columns)
    return rows + [await cells.row(row, place, "table_rows", strict=False) for place, row in enumerate(found)]


async def table_rows(server: Server, rows: list[int], columns: list[str]) -> list[dict[str, Any]]:
    """Cells of rows of the table that is shown.

    Raises:
        Refused: there is no table, or no such row.
    """
    if not rows:
        return []
    view = server.table_view
    if view is None:
        raise Refused(422, "This server shows no table: give the cells themselves, as 'rows'.", "table", "table_rows")
    if not 0 <= min(rows) <= max(rows) < view.table.rows:
        wrong = next(row for row in rows if not 0 <= row < view.table.rows)
        raise Refused(422, f"The table has rows 0 to {view.table.rows - 1}, not {wrong}.", "row", "table_rows")
    return await read_table(view.rows, rows, columns)


async def read_table(read: Callable[..., Any], *given: Any) -> Any:
    """Result of a function that reads the table, in a thread.

    Raises:
        Refused: it can't be read; the log says why.
    """
    try:
        return await asyncio.to_thread(read, *given)
    except UserError as error:
        log.error("the table can't be read: %s", error)
        raise Refused(503, "The table can't be read just now. The server's log says why.", "table") from None


def as_json(value: Any) -> Any:
    """Value as JSON can have it: files as data URLs, arrays as lists, NaN as null."""
    if isinstance(value, bytes):
        return (
            f"data:{sniff(value[:HEAD_BYTES]) or 'application/octet-stream'};base64,{base64.b64encode(value).decode()}"
        )
    if hasattr(value, "tolist"):
        return as_json(value.tolist())
    if isinstance(value, Mapping):
        return {name: as_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    if isinstance(value, float) and value != value:
        return None
    return value


def vectors_as_lists(vectors: np.ndarray) -> list[Any]:
    """Vectors as JSON has them, no longer than float32 is exact."""
    return vectors.astype(np.float64).round(8).tolist()


def json_response(content: dict[str, Any]) -> Response:
    """Response of many numbers: to validate each of them once more takes longer than the model does."""
    return Response(json.dumps(content), media_type="application/json")
