"""The page: static files of ours, and what they ask beside the model's verbs: rows of the table, the files in its cells, a map of all rows."""

from __future__ import annotations

import asyncio
import hashlib
from importlib.resources import files
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from sensorium.core.errors import UserError
from sensorium.serve.guard import Refused
from sensorium.serve.own import StrictRequest, few
from sensorium.serve.server import Server

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}

REPORTED = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; media-src data:; frame-ancestors 'self'; sandbox allow-scripts"
"""What a report may do: it is one file that holds all it shows."""

Condition = Annotated[str | None, Query(max_length=4000)]


class Corrections(StrictRequest):
    """Cells of one column that shall be others, by the numbers of their rows."""

    column: str
    rows: Annotated[dict[int, str], few(10_000), Field(min_length=1)]


def routes(server: Server) -> APIRouter:
    """All of them, for one server."""
    router = APIRouter(include_in_schema=False)
    known = {
        path.name: (path.read_bytes(), TYPES[path.name.rpartition(".")[2]])
        for path in files(__package__).iterdir()
        if path.name.rpartition(".")[2] in TYPES
    }

    def static(name: str, request: Request) -> Response:
        if name not in known:
            raise Refused(404, "There is nothing at this path.", "path")
        data, kind = known[name]
        tag = f'"{hashlib.sha256(data).hexdigest()[:20]}"'
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=kind, headers=headers)

    @router.get("/")
    async def start(request: Request) -> Response:
        return static("index.html", request)

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        return static("docs.html", request)

    @router.get("/page/{name}")
    async def file(name: str, request: Request) -> Response:
        return static(name, request)

    @router.get("/table/rows")
    async def some(
        start: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=1, le=200)] = 50,
        where: Condition = None,
        rows: Annotated[str | None, Query(max_length=4000, pattern=r"^[0-9]+(,[0-9]+)*$")] = None,
    ) -> dict[str, Any]:
        """Some of the rows for which a condition holds, and how many there are; or those of some numbers."""
        if rows is not None:
            wanted = [int(row) for row in rows.split(",")]
            if len(wanted) > 200 or max(wanted) >= shown().table.rows:
                raise Refused(
                    422,
                    f"The table has rows 0 to {shown().table.rows - 1}, of which 200 are shown at once; asked: {len(wanted)}, up to {max(wanted)}.",
                    "rows",
                    "rows",
                )
            return {"total": len(wanted), "start": 0, "rows": await server.look(shown().lines, wanted)}
        found = await chosen(where)
        return {
            "total": len(found),
            "start": start,
            "rows": await server.look(shown().lines, found[start : start + count]),
        }

    @router.get("/table/numbers")
    async def numbers(where: Condition = None) -> dict[str, Any]:
        """The numbers of all rows for which a condition holds."""
        return {"rows": await chosen(where)}

    async def chosen(where: str | None) -> list[int]:
        await server.look(shown().cells)
        try:
            return await asyncio.to_thread(shown().numbers, where)
        except UserError as error:
            raise Refused(422, str(error), "where", "where") from None

    @router.get("/table/column")
    async def column(name: Annotated[str, Query(max_length=1000)]) -> dict[str, Any]:
        """All rows' plain cells of a column."""
        try:
            return {"values": await server.look(shown().values, name)}
        except KeyError:
            raise Refused(404, "The table has no plain column of that name.", "column", "name") from None

    @router.get("/table/map")
    async def places() -> dict[str, Any]:
        """Where each row of the index lies in the two directions in which rows differ most: its number, and both of 0 to 1."""
        if server.drawn_map is None:
            server.drawn_map = await server.ask("map", [{}])
        return {"points": server.drawn_map, "columns": [] if server.sheet is None else server.sheet.plain}

    @router.post("/table/corrections")
    async def corrections(asked: Corrections) -> Response:
        """Rows of the table with other cells of a column, as a Parquet file that ``fit`` takes."""
        try:
            data = await server.look(shown().corrected, asked.column, asked.rows)
        except (KeyError, ValueError, TypeError, pa.ArrowException):
            raise Refused(
                422, "The table has no such column or rows, or cells of that kind.", "column", "rows"
            ) from None
        return Response(
            data,
            media_type="application/octet-stream",
            headers={"content-disposition": 'attachment; filename="corrections.parquet"'},
        )

    @router.get("/report")
    async def report() -> Response:
        """The report that the run's fit wrote, which may run its own scripts and reach nothing."""
        path = server.run / "report.html"
        if not path.is_file():
            raise Refused(404, "This run has no report. Write one with: sensorium report RUN TABLE", "report")
        return Response(
            await asyncio.to_thread(path.read_bytes),
            media_type=TYPES["html"],
            headers={"content-security-policy": REPORTED, "x-frame-options": "SAMEORIGIN"},
        )

    @router.get("/table/file/{row}/{column:path}")
    async def cell(row: int, column: str) -> Response:
        """The file in a cell."""
        try:
            data, kind = await server.look(shown().file, row, column)
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

    def shown() -> Any:
        if server.sheet is None:
            raise Refused(
                404, "This server shows no table. Start it with: sensorium serve RUN INDEX --table TABLE", "table"
            )
        return server.sheet

    return router
