"""Anomaly scores of rows: ``/surprise``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from pydantic import BaseModel

from sensorium.serve.dispatch import as_json, ask, read_rows
from sensorium.serve.jobs import Job, split_by_job
from sensorium.serve.requests import RowsRequest

if TYPE_CHECKING:
    from sensorium.serve.server import Server
    from sensorium.serve.worker import ModelWorker


class SurpriseResponse(BaseModel):
    """For each row how little its cells go together: see docs/surprise.md."""

    rows: list[dict[str, Any]]


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.post("/surprise", tags=["model"])
    async def surprise(request: RowsRequest) -> SurpriseResponse:
        """Anomaly scores of rows: how little the cells of each go together."""
        rows = await read_rows(server, request)
        return SurpriseResponse(rows=as_json(await ask(server, "surprise", rows, strict=len(request.rows))))


def answer(worker: ModelWorker, jobs: Sequence[Job]) -> list[Any]:
    """Each job's anomaly scores, a mapping a row."""
    return split_by_job(worker.model.surprise(worker.rows(jobs)).to_pylist(), jobs)
