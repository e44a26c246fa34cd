"""Model card: ``/columns``, the columns, what can be asked of each, and what is known of the model and the index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

if TYPE_CHECKING:
    from sensorium.serve.server import Server


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.get("/columns", tags=["model"])
    async def columns() -> dict[str, Any]:
        """The model's columns, what can be asked of each, and what is known of the model and the index."""
        view = server.table_view
        return {
            "model": server.name,
            **server.about,
            "report": (server.run / "report.html").is_file(),
            "table": None
            if view is None
            else {
                "name": view.table.name,
                "rows": view.table.rows,
                "columns": view.columns,
                "plain": view.plain,
            },
        }
