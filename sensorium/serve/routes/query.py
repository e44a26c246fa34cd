"""Questions about many rows: ``/query``, as SQL over the table that the server shows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from sensorium.core.errors import UserError
from sensorium.serve.guard import Refused
from sensorium.serve.requests import StrictRequest

if TYPE_CHECKING:
    from sensorium.serve.server import Server


class QueryRequest(StrictRequest):
    """A question about many rows of the table that the server shows."""

    question: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1000,
            description="In English, as: Which group has the most? Or one SELECT over rows, which only reads.",
        ),
    ]


class QueryResponse(BaseModel):
    """Query, its answer of at most 1,000 rows, and other queries that might be intended."""

    sql: str
    rows: list[dict[str, Any]]
    others: list[str]


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.post("/query", tags=["table"])
    async def query(request: QueryRequest) -> QueryResponse:
        """A question about many rows of the table as a query over its plain columns, and its answer."""
        if server.table_view is None:
            raise Refused(
                422,
                "This server shows no table, so there is nothing to ask about. Start it with --table TABLE.",
                "table",
                "question",
            )
        try:
            return QueryResponse(**await asyncio.to_thread(server.table_view.answer, request.question))
        except UserError as error:
            # the words of DuckDB may tell of files and settings
            foreign = type(error.__cause__).__module__.partition(".")[0].strip("_") == "duckdb"
            raise Refused(
                422,
                "The query can't be answered. One SELECT over the plain columns of the table 'rows' is possible."
                if foreign
                else str(error),
                "question",
                "question",
            ) from None
