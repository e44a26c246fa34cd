"""Map of the index: ``/table/map``, where each row lies in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter

from sensorium.core.errors import UserError
from sensorium.serve.dispatch import ask
from sensorium.serve.jobs import Job

if TYPE_CHECKING:
    from sensorium.serve.server import Server
    from sensorium.serve.worker import ModelWorker


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.get("/table/map", include_in_schema=False)
    async def places() -> dict[str, Any]:
        """Where each row of the index lies in the two directions in which rows differ most: its number, and both of 0
        to 1.
        """
        if server.map_points is None:
            server.map_points = await ask(server, "map", [{}])
        return {"points": server.map_points, "columns": [] if server.table_view is None else server.table_view.plain}


def answer(worker: ModelWorker, jobs: Sequence[Job]) -> list[Any]:
    """Points of the map: each row's number in the table that is shown, and both coordinates of 0 to 1.

    Rows that the table doesn't have are left out.
    """
    if worker.index is None:
        raise UserError("This server has no index, which a map is of.")
    rows, places = worker.index.places()
    numbers = np.arange(len(worker.index.store.gone)) if worker.table_rows is None else worker.table_rows
    points = [
        [int(numbers[row]), float(x), float(y)] for row, (x, y) in zip(rows, places, strict=True) if numbers[row] >= 0
    ]
    return [points for _ in jobs]
