"""Generation: ``/generate``, samples of a column's cell for each row."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from sensorium.serve import dispatch
from sensorium.serve.guard import Refused
from sensorium.serve.jobs import Job, with_tokens
from sensorium.serve.requests import MAX_SAMPLES, RowsRequest

if TYPE_CHECKING:
    from sensorium.serve.server import Server
    from sensorium.serve.worker import ModelWorker

OPTIONS = {"generator", "steps", "guidance", "solver", "temperature", "top_p"}


class GenerateRequest(RowsRequest):
    """A column of rows, drawn or said."""

    column: str
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 1
    seed: Annotated[
        int | None,
        Field(ge=0, lt=2**53, description="The same seed gives the same cells; such requests are asked alone."),
    ] = None
    generator: str | None = None
    steps: Annotated[int | None, Field(ge=1, le=200)] = None
    guidance: Annotated[float | None, Field(ge=0, le=20)] = None
    solver: str | None = None
    temperature: Annotated[float | None, Field(ge=0, le=5, description="Below 0.001 the likeliest is generated.")] = (
        None
    )
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None


class GenerateResponse(BaseModel):
    """For each row its samples; files as data URLs, null for one that failed."""

    cells: list[list[Any]]
    tokens: int


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.post("/generate", tags=["model"])
    async def generate(request: GenerateRequest) -> GenerateResponse:
        """A column's cells for each row, drawn anew each time unless there is a seed."""
        count = len(request.rows) + len(request.table_rows)
        if request.samples * max(1, count) > MAX_SAMPLES:
            raise Refused(
                422,
                f"{request.samples} samples of {count} rows: at most {MAX_SAMPLES} cells are generated for a request.",
                "samples",
                "samples",
            )
        answer = await dispatch.generate(
            server,
            await dispatch.read_rows(server, request, request.column),
            request.column,
            request.seen,
            request.samples,
            request.seed,
            strict=len(request.rows),
            **request.model_dump(include=OPTIONS, exclude_none=True),
        )
        return GenerateResponse(cells=dispatch.as_json(answer["cells"]), tokens=answer["tokens"])


def answer(
    worker: ModelWorker,
    jobs: Sequence[Job],
    column: str,
    seen: Sequence[str] | None = None,
    samples: int = 1,
    generator: str | None = None,
    seed: int | None = None,
    **options: Any,
) -> list[Any]:
    """Each job's cells, a list of samples a row; new ones each time where no seed is given."""
    model, rows = worker.model, worker.rows(jobs)
    seed = secrets.randbelow(2**31) if seed is None else seed
    if column in model.network.generative_columns:
        cells = list(model.iter_generate(rows, column, seen, seed, samples, None, generator, **options))
    else:
        found = model.generate(rows, column, seen, seed, samples=samples, generator=generator, **options)
        cells = [[cell] for cell in found]
    return with_tokens("cells", cells, rows, jobs)
