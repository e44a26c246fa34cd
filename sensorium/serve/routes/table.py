"""Table view: ``/table/…``, rows some at a time, the files in their cells, and corrections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Query, Response
from pydantic import Field

from sensorium.core.errors import UserError
from sensorium.serve.dispatch import read_table
from sensorium.serve.guard import Refused
from sensorium.serve.requests import StrictRequest, at_most

if TYPE_CHECKING:
    from sensorium.serve.server import Server
    from sensorium.serve.table_view import TableView

MAX_LISTED = 200
"""Rows that are listed at once."""

Condition = Annotated[str | None, Query(max_length=4000)]


class Corrections(StrictRequest):
    """Cells of one column that shall be others, by the numbers of their rows."""

    column: str
    rows: Annotated[dict[int, str], at_most(10_000), Field(min_length=1)]


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoints."""

    @router.get("/table/rows", include_in_schema=False)
    async def some(
        start: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
        where: Condition = None,
        rows: Annotated[str | None, Query(max_length=4000, pattern=r"^[0-9]+(,[0-9]+)*$")] = None,
    ) -> dict[str, Any]:
        """Some of the rows for which a condition holds, and how many there are; or those of some numbers."""
        if rows is not None:
            view, wanted = view_of(server), [int(row) for row in rows.split(",")]
            if len(wanted) > MAX_LISTED or max(wanted) >= view.table.rows:
                raise Refused(
                    422,
                    f"The table has rows 0 to {view.table.rows - 1}, of which {MAX_LISTED} are shown at once; asked: "
                    f"{len(wanted)}, up to {max(wanted)}.",
                    "rows",
                    "rows",
                )
            return {"total": len(wanted), "start": 0, "rows": await read_table(view.lines, wanted)}
        found = await matching_rows(server, where)
        lines = await read_table(view_of(server).lines, found[start : start + count])
        return {"total": len(found), "start": start, "rows": lines}

    @router.get("/table/numbers", include_in_schema=False)
    async def numbers(where: Condition = None) -> dict[str, Any]:
        """The numbers of all rows for which a condition holds."""
        return {"rows": await matching_rows(server, where)}

    @router.get("/table/column", include_in_schema=False)
    async def column(name: Annotated[str, Query(max_length=1000)]) -> dict[str, Any]:
        """All rows' plain cells of a column."""
        try:
            return {"values": await read_table(view_of(server).values, name)}
        except KeyError:
            raise Refused(404, "The table has no plain column of that name.", "column", "name") from None

    @router.post("/table/corrections", include_in_schema=False)
    async def corrections(request: Corrections) -> Response:
        """Rows of the table with other cells of a column, as a Parquet file that ``fit`` takes."""
        try:
            data = await read_table(view_of(server).corrected, request.column, request.rows)
        except (KeyError, ValueError, TypeError, pa.ArrowException):
            raise Refused(
                422, "The table has no such column or rows, or cells of that kind.", "column", "rows"
            ) from None
        return Response(
            data,
            media_type="application/octet-stream",
            headers={"content-disposition": 'attachment; filename="corrections.parquet"'},
        )

    @router.get("/table/file/{row}/{column:path}", include_in_schema=False)
    async def cell(row: int, column: str) -> Response:
        """The file in a cell."""
        try:
            data, kind = await read_table(view_of(server).file, row, column)
        except KeyError:
            raise Refused(404, "There is no file in this cell.", "cell") from None
        if not data:
            return Response(status_code=204)
        return Response(
            data,
            media_type=kind,
            headers={
                "cache-control": "private, max-age=3600",
                "content-security-policy": "default-src 'none'; sandbox",
            },
        )


def view_of(server: Server) -> TableView:
    """The table that is shown.

    Raises:
        Refused: there is none.
    """
    if server.table_view is None:
        raise Refused(
            404, "This server shows no table. Start it with: sensorium serve RUN INDEX --table TABLE", "table"
        )
    return server.table_view


async def matching_rows(server: Server, where: str | None) -> list[int]:
    """Numbers of the rows for which a condition holds.

    Raises:
        Refused: there is no table, or it is no condition.
    """
    view = view_of(server)
    await read_table(view.cells)
    try:
        return await asyncio.to_thread(view.numbers, where)
    except UserError as error:
        raise Refused(422, str(error), "where", "where") from None
