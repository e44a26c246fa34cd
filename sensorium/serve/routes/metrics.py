"""Prometheus metrics: ``/metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from sensorium.serve.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from sensorium.serve.server import Server


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.get("/metrics", tags=["server"])
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(server.metrics.text(), media_type=CONTENT_TYPE)
