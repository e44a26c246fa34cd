"""Nearest-neighbour search in the index: ``/search``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from sensorium.core.errors import UserError
from sensorium.data.cells import row_dicts
from sensorium.serve.dispatch import as_json, ask, table_rows
from sensorium.serve.jobs import Job, split_by_job
from sensorium.serve.requests import MAX_COLUMNS, Row, StrictRequest, at_most

if TYPE_CHECKING:
    from sensorium.serve.server import Server
    from sensorium.serve.worker import ModelWorker

Weight = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class SearchRequest(StrictRequest):
    """Rows of the index near to a query of any columns."""

    query: Row = Field({})
    table_row: Annotated[int | None, Field(description="Or a row of the table that the server shows.")] = None
    seen: Annotated[
        list[str] | None, at_most(MAX_COLUMNS), Field(description="The columns of that row which are seen.")
    ] = None
    without: Row = Field({}, description="Cells of what shall not be found.")
    where: Annotated[
        str | None,
        Field(max_length=4000, description='A condition on the rows\' plain cells, as year > 2015 and group = "food".'),
    ] = None
    weights: Annotated[
        dict[str, Weight] | None,
        at_most(MAX_COLUMNS),
        Field(description="How much each column of the query counts."),
    ] = None
    among: Annotated[str | None, Field(description="The column that is compared; all that a row has by default.")] = (
        None
    )
    k: Annotated[int, Field(ge=1, le=1000)] = 20


class SearchResponse(BaseModel):
    """Rows, nearest first: ``row``, ``score``, their plain cells, and ``table_row``: their number in the table that is
    served, null where it doesn't have them.
    """

    rows: list[dict[str, Any]]


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.post("/search", tags=["index"])
    async def search(request: SearchRequest) -> SearchResponse:
        """The rows of the index that are nearest to a query of any columns."""
        cells = server.cells
        cells.check(request.among, param="among")
        cells.check(*(request.seen or ()), param="seen")
        query = await cells.row(request.query, 0, "query")
        if request.table_row is not None:
            columns = list(server.columns) if request.seen is None else request.seen
            (row,) = await table_rows(server, [request.table_row], columns)
            query = {**await cells.row(row, 0, "table_row", strict=False), **query}
        without = [await cells.row(request.without, 0, "without")] if request.without else []
        found = await ask(
            server,
            "search",
            [query],
            without,
            among=request.among,
            k=request.k,
            condition=request.where or None,
            weights=request.weights or None,
        )
        return SearchResponse(rows=as_json(found[0]))


def answer(
    worker: ModelWorker,
    jobs: Sequence[Job],
    among: str | None = None,
    k: int = 10,
    condition: str | None = None,
    weights: dict[str, float] | None = None,
) -> list[Any]:
    """Each job's rows, nearest first."""
    if worker.index is None:
        raise UserError(
            "This server has no index to search in. Make one with: sensorium index RUN TABLE --out INDEX, and start: "
            "sensorium serve RUN INDEX"
        )
    query = worker.rows(jobs)
    barred = [{**job, "barred": job["barred"] or [{} for _ in job["rows"]]} for job in jobs]
    without = worker.rows(barred, "barred") if any(job["barred"] for job in jobs) else None
    found = worker.index.search_rows(query, among=among, k=k, condition=condition, without=without, weights=weights)
    return split_by_job([worker.with_table_rows(row_dicts(table)) for table in found], jobs)
