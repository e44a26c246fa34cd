"""Static files of the page: ``/``, ``/docs`` and ``/page/NAME``."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from sensorium.serve.guard import Refused

if TYPE_CHECKING:
    from sensorium.serve.server import Server

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoints."""
    known = {
        path.name: (path.read_bytes(), TYPES[path.name.rpartition(".")[2]])
        for path in files("sensorium.serve").joinpath("page").iterdir()
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

    @router.get("/", include_in_schema=False)
    async def start(request: Request) -> Response:
        return static("index.html", request)

    @router.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return static("docs.html", request)

    @router.get("/page/{name}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        return static(name, request)
