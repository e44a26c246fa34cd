"""OpenAI's ``/v1/models``: the one model that is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from sensorium.serve.openai import check_model

if TYPE_CHECKING:
    from sensorium.serve.server import Server


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoints."""

    @router.get("/v1/models", tags=["openai"])
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [card()]}

    @router.get("/v1/models/{name}", tags=["openai"])
    async def model(name: str) -> dict[str, Any]:
        """Facts about the model."""
        check_model(server, name)
        return card()

    def card() -> dict[str, Any]:
        return {"id": server.name, "object": "model", "created": server.started_at, "owned_by": "sensorium"}
