"""The page: static files of ours, and what they ask beside the model's verbs: rows of the table, the files in its cells, a map of all rows."""

from __future__ import annotations

import asyncio
import hashlib
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from sensorium.core.errors import UserError
from sensorium.serve.guard import Refused
from sensorium.serve.server import Server

TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}


def routes(server: Server) -> APIRouter:
    """All of them, for one server."""
    router = APIRouter(include_in_schema=False)
    known = {path.name: (path.read_bytes(), TYPES[path.name.rpartition(".")[2]]) for path in files(__package__).iterdir() if path.name.rpartition(".")[2] in TYPES}

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
    async def rows(start: Annotated[int, Query(ge=0)] = 0, count: Annotated[int, Query(ge=1, le=200)] = 50,
                   where: Annotated[str | None, Query(max_length=4000)] = None) -> dict[str, Any]:
        """Some of the rows for which a condition holds, and how many there are."""
        sheet = shown()
        try:
            found = await asyncio.to_thread(sheet.numbers, where)
            return {"total": len(found), "start": start, "rows": await asyncio.to_thread(sheet.lines, found[start : start + count])}
        except UserError as error:
            raise Refused(422, str(error), "where", "where") from None

    @router.get("/table/file/{row}/{column:path}")
    async def cell(row: int, column: str) -> Response:
        """The file in a cell."""
        try:
            data, kind = await asyncio.to_thread(shown().file, row, column)
        except KeyError:
            raise Refused(404, "There is no file in this cell.", "cell") from None
        return Response(data, media_type=kind, headers={"cache-control": "private, max-age=3600", "content-security-policy": "default-src 'none'; sandbox"})

    def shown() -> Any:
        if server.sheet is None:
            raise Refused(404, "This server shows no table. Start it with: sensorium serve RUN INDEX --table TABLE", "table")
        return server.sheet

    return router
