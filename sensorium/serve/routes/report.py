"""Report of the fit: ``/report``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from sensorium.serve.guard import Refused

if TYPE_CHECKING:
    from sensorium.serve.server import Server

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; media-src data:; "
    "frame-ancestors 'self'; sandbox allow-scripts"
)
"""Content security policy of a report: it is one file that holds all it shows."""


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.get("/report", include_in_schema=False)
    async def report() -> Response:
        """The report that the run's fit wrote, which may run its own scripts and reach nothing."""
        path = server.run / "report.html"
        if not path.is_file():
            raise Refused(404, "This run has no report. Write one with: sensorium report RUN TABLE", "report")
        return Response(
            await asyncio.to_thread(path.read_bytes),
            media_type="text/html; charset=utf-8",
            headers={"content-security-policy": POLICY, "x-frame-options": "SAMEORIGIN"},
        )
