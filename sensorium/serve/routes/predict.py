"""Predictions: ``/predict``, a column's cell for each row, with its probability and an interval or a set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from sensorium.serve.dispatch import as_json, ask, read_rows
from sensorium.serve.jobs import Job, with_tokens
from sensorium.serve.requests import RowsRequest

if TYPE_CHECKING:
    from sensorium.serve.server import Server
    from sensorium.serve.worker import ModelWorker


class PredictRequest(RowsRequest):
    """A column of rows: text, a category, a number, a date."""

    column: str
    coverage: Annotated[
        float | None, Field(gt=0, lt=1, description="The share of rows whose truth the interval or the set holds.")
    ] = None


class PredictResponse(BaseModel):
    """One answer a row: ``value``, ``probability``, for numbers and dates ``low`` and ``high``, with a coverage for
    categories ``set``.
    """

    answers: list[dict[str, Any]]
    tokens: int


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.post("/predict", tags=["model"])
    async def predict(request: PredictRequest) -> PredictResponse:
        """A column's cell for each row, how sure it is, and for numbers and dates an interval."""
        rows = await read_rows(server, request, request.column)
        options: dict[str, Any] = {"column": request.column, "seen": request.seen, "coverage": request.coverage}
        answer = await ask(server, "predict", rows, strict=len(request.rows), **options)
        return PredictResponse(answers=as_json(answer["answers"]), tokens=answer["tokens"])


def answer(
    worker: ModelWorker,
    jobs: Sequence[Job],
    column: str,
    seen: Sequence[str] | None = None,
    coverage: float | None = None,
) -> list[Any]:
    """Each job's answers, a mapping a row, and tokens read."""
    options: dict[str, Any] = {} if coverage is None else {"coverage": coverage}
    rows = worker.rows(jobs)
    return with_tokens("answers", worker.model.predict(rows, column, seen, **options).to_pylist(), rows, jobs)
