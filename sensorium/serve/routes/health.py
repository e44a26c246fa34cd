"""Health and readiness: ``/health`` and ``/ready``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

if TYPE_CHECKING:
    from sensorium.serve.server import Server


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoints of this file."""

    @router.head("/health", include_in_schema=False)
    @router.get("/health", tags=["server"])
    async def health() -> dict[str, str]:
        """Liveness: the server runs."""
        return {"status": "ok"}

    @router.get("/ready", tags=["server"])
    async def ready() -> Response:
        """Readiness: the model can be asked; 503 where not."""
        fine = server.batcher.ready
        return JSONResponse({"status": "ready" if fine else "starting"}, 200 if fine else 503)
