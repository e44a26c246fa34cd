"""Embeddings of rows: ``/embed``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from sensorium.core.errors import UserError
from sensorium.serve.dispatch import ask, json_response, read_rows, vectors_as_lists
from sensorium.serve.jobs import Job, with_tokens
from sensorium.serve.requests import RowsRequest

if TYPE_CHECKING:
    from sensorium.serve.server import Server
    from sensorium.serve.worker import ModelWorker


class EmbedRequest(RowsRequest):
    """Vectors of rows."""

    size: Annotated[
        int | None, Field(ge=8, le=65_536, description="Dimensions; fewer than all only where the server has an index.")
    ] = None


class EmbedResponse(BaseModel):
    """One vector a row, of length 1."""

    vectors: list[list[float]]
    tokens: int


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.post("/embed", tags=["model"], response_model=EmbedResponse)
    async def embed(request: EmbedRequest) -> Response:
        """One vector for each row, from what it has of the seen columns."""
        rows = await read_rows(server, request)
        answer = await ask(server, "embed", rows, strict=len(request.rows), seen=request.seen, size=request.size)
        return json_response({"vectors": vectors_as_lists(answer["vectors"]), "tokens": answer["tokens"]})


def answer(
    worker: ModelWorker, jobs: Sequence[Job], seen: Sequence[str] | None = None, size: int | None = None
) -> list[Any]:
    """Each job's vectors [rows, size] of length 1, rotated as the index's are where there is one, and tokens read."""
    from sensorium.search.store import turned

    rows = worker.rows(jobs)
    gists = rows.gists(seen)
    largest = gists.shape[1] if worker.index is None else worker.index.store.turn.shape[1]
    if size is not None and size > largest:
        raise UserError(f"Vectors of {size} dimensions are asked; they have {largest}.")
    if worker.index is not None:
        gists = turned(gists, worker.index.store.turn[:, : size or None])
    elif size not in (None, largest):
        raise UserError(
            f"This model's vectors have {largest} dimensions, and which of them matter most only an index says. "
            f"Serve one with it to have {size}."
        )
    found = with_tokens("vectors", gists, rows, jobs)
    return [{**one, "vectors": np.ascontiguousarray(one["vectors"])} for one in found]
