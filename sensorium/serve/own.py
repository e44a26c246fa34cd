"""Our endpoints: the model's verbs on rows of any columns, and the state of the server."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from sensorium.core.errors import UserError
from sensorium.serve.guard import Refused
from sensorium.serve.metrics import TYPE
from sensorium.serve.server import Server, shown

ROWS, DRAWN = 256, 64
"""Rows of one request, and cells that are drawn for one."""

Row = dict[str, Any]

COLUMNS = 4096
"""Names of columns that a request may list."""


def few(most: int) -> BeforeValidator:
    """Refuse what is too long before each of its parts is looked at, of which every wrong one would become an error of its own."""

    def look(value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > most:
            raise ValueError(f"at most {most:,} are taken, not {len(value):,}")
        return value

    return BeforeValidator(look)


class StrictRequest(BaseModel):
    """A request of which nothing is left aside."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def fields(cls, given: Any) -> Any:
        """Not so many that each unknown one is told."""
        if isinstance(given, dict) and len(given) > 64:
            raise ValueError(f"{len(given):,} fields are more than there are")
        return given


class RowsRequest(StrictRequest):
    """Rows to be asked about: given as cells, or by their numbers in the table that the server shows."""

    rows: Annotated[
        list[Row], Field(max_length=ROWS, description='Cells by column; files as data URLs or {"base64": …}.')
    ] = []
    table_rows: Annotated[
        list[int], Field(max_length=ROWS, description="Rows of the table that the server shows.")
    ] = []
    seen: Annotated[
        list[str] | None,
        few(COLUMNS),
        Field(description="The columns that are looked at; all but the asked one by default."),
    ] = None


class EmbedRequest(RowsRequest):
    """Vectors of rows."""

    size: Annotated[
        int | None, Field(ge=8, le=65_536, description="Dimensions; fewer than all only where the server has an index.")
    ] = None


class PredictRequest(RowsRequest):
    """A column of rows: text, a category, a number, a date."""

    column: str
    coverage: Annotated[
        float | None, Field(gt=0, lt=1, description="The share of rows whose truth the interval or the set holds.")
    ] = None


class GenerateRequest(RowsRequest):
    """A column of rows, drawn or said."""

    column: str
    samples: Annotated[int, Field(ge=1, le=DRAWN)] = 1
    seed: Annotated[
        int | None,
        Field(ge=0, lt=2**53, description="The same seed gives the same cells; such requests are asked alone."),
    ] = None
    generator: str | None = None
    steps: Annotated[int | None, Field(ge=1, le=200)] = None
    guidance: Annotated[float | None, Field(ge=0, le=20)] = None
    solver: str | None = None
    temperature: Annotated[float | None, Field(ge=0, le=5, description="Below 0.001 the likeliest is said.")] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None


class ExplainRequest(RowsRequest):
    """Why a column is said so."""

    column: str
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    inside: Literal["occlusion", "gradients", "attention"] = "occlusion"


Weight = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class SearchRequest(StrictRequest):
    """Rows of the index near to a query of any columns."""

    query: Row = {}
    table_row: Annotated[int | None, Field(description="Or a row of the table that the server shows.")] = None
    seen: Annotated[
        list[str] | None, few(COLUMNS), Field(description="The columns of that row which are looked at.")
    ] = None
    without: Annotated[Row, Field(description="Cells of what shall not be found.")] = {}
    where: Annotated[
        str | None,
        Field(max_length=4000, description='A condition on the rows\' plain cells, as year > 2015 and group = "food".'),
    ] = None
    weights: Annotated[
        dict[str, Weight] | None, few(COLUMNS), Field(description="How much each column of the query counts.")
    ] = None
    among: Annotated[str | None, Field(description="The column that is compared; all that a row has by default.")] = (
        None
    )
    k: Annotated[int, Field(ge=1, le=1000)] = 20


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


class EmbedResponse(BaseModel):
    """One vector a row, of length 1."""

    vectors: list[list[float]]
    tokens: int


class PredictResponse(BaseModel):
    """One answer a row: ``value``, ``probability``, for numbers and dates ``low`` and ``high``, with a coverage for categories ``set``."""

    answers: list[dict[str, Any]]
    tokens: int


class GenerateResponse(BaseModel):
    """For each row its samples; files as data URLs, null for one that failed."""

    cells: list[list[Any]]
    tokens: int


class SearchResponse(BaseModel):
    """Rows, nearest first: ``row``, ``score``, their plain cells, and ``table_row``: their number in the table that is served, null where it doesn't have them."""

    rows: list[dict[str, Any]]


class QueryResponse(BaseModel):
    """What was asked, its answer of at most 1,000 rows, and other queries that might have been meant."""

    sql: str
    rows: list[dict[str, Any]]
    others: list[str]


class ExplainResponse(BaseModel):
    """For each row its explanation: see docs/explain.md."""

    whys: list[dict[str, Any] | None]


class SurpriseResponse(BaseModel):
    """For each row how little its cells go together: see docs/surprise.md."""

    rows: list[dict[str, Any]]


def routes(server: Server) -> APIRouter:
    """All of them, for one server."""
    router = APIRouter()

    async def taken(asked: RowsRequest, hidden: str | None = None) -> list[dict[str, Any]]:
        """The rows of a request, read."""
        cells, rows = server.cells, []
        cells.check(*(asked.seen or ()), param="seen")
        if hidden is not None:
            cells.check(hidden)
        if not asked.rows and not asked.table_rows:
            raise Refused(422, "No rows were given: send them as 'rows', each its cells by column.", "rows", "rows")
        for number, row in enumerate(asked.rows):
            rows.append(await cells.row({c: cell for c, cell in row.items() if c != hidden}, number))
        found = await of_table(
            asked.table_rows, [c for c in server.columns if c != hidden and (not asked.seen or c in asked.seen)]
        )
        return rows + [await cells.row(row, place, "table_rows", strict=False) for place, row in enumerate(found)]

    async def of_table(numbers: list[int], columns: list[str]) -> list[dict[str, Any]]:
        if not numbers:
            return []
        if server.sheet is None:
            raise Refused(
                422, "This server shows no table: give the cells themselves, as 'rows'.", "table", "table_rows"
            )
        if not 0 <= min(numbers) <= max(numbers) < server.sheet.table.rows:
            wrong = next(number for number in numbers if not 0 <= number < server.sheet.table.rows)
            raise Refused(
                422, f"The table has rows 0 to {server.sheet.table.rows - 1}, not {wrong}.", "row", "table_rows"
            )
        return await server.look(server.sheet.rows, numbers, columns)

    @router.head("/health", include_in_schema=False)
    @router.get("/health", tags=["server"])
    async def health() -> dict[str, str]:
        """Whether the server runs."""
        return {"status": "ok"}

    @router.get("/ready", tags=["server"])
    async def ready() -> Response:
        """Whether the model can be asked; 503 where not."""
        fine = server.batcher.ready
        return JSONResponse({"status": "ready" if fine else "starting"}, 200 if fine else 503)

    @router.get("/metrics", tags=["server"])
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(server.metrics.text(), media_type=TYPE)

    @router.get("/columns", tags=["model"])
    async def columns() -> dict[str, Any]:
        """The model's columns, what can be asked of each, and what is known of the model and the index."""
        return {
            "model": server.name,
            **server.about,
            "report": (server.run / "report.html").is_file(),
            "table": None
            if server.sheet is None
            else {
                "name": server.sheet.table.name,
                "rows": server.sheet.table.rows,
                "columns": server.sheet.columns,
                "plain": server.sheet.plain,
            },
        }

    @router.post("/embed", tags=["model"], response_model=EmbedResponse)
    async def embed(asked: EmbedRequest) -> Response:
        """One vector for each row, from what it has of the seen columns."""
        said = await server.ask("embed", await taken(asked), strict=len(asked.rows), seen=asked.seen, size=asked.size)
        return written({"vectors": numbers(said["vectors"]), "tokens": said["tokens"]})

    @router.post("/predict", tags=["model"])
    async def predict(asked: PredictRequest) -> PredictResponse:
        """A column's cell for each row, how sure it is, and for numbers and dates an interval."""
        said = await server.ask(
            "predict",
            await taken(asked, asked.column),
            strict=len(asked.rows),
            column=asked.column,
            seen=asked.seen,
            coverage=asked.coverage,
        )
        return PredictResponse(answers=shown(said["answers"]), tokens=said["tokens"])

    @router.post("/generate", tags=["model"])
    async def generate(asked: GenerateRequest) -> GenerateResponse:
        """A column's cells for each row, drawn anew each time unless there is a seed."""
        if asked.samples * max(1, len(asked.rows) + len(asked.table_rows)) > DRAWN:
            raise Refused(
                422,
                f"{asked.samples} samples of {len(asked.rows) + len(asked.table_rows)} rows: at most {DRAWN} cells are drawn for a request.",
                "samples",
                "samples",
            )
        options = asked.model_dump(
            include={"generator", "steps", "guidance", "solver", "temperature", "top_p"}, exclude_none=True
        )
        said = await draw(
            server,
            await taken(asked, asked.column),
            asked.column,
            asked.seen,
            asked.samples,
            asked.seed,
            strict=len(asked.rows),
            **options,
        )
        return GenerateResponse(cells=shown(said["cells"]), tokens=said["tokens"])

    @router.post("/explain", tags=["model"])
    async def explain(asked: ExplainRequest) -> ExplainResponse:
        """Why a column is said as it is: each seen column's exact share, and what in it counted."""
        if len(asked.rows) + len(asked.table_rows) > 16:
            raise Refused(422, "At most 16 rows are explained for a request.", "rows", "rows")
        rows = await taken(
            asked, asked.column
        )  # what is drawn is looked at with noises that hang on a row's place among all that are asked together
        return ExplainResponse(
            whys=shown(
                await server.ask(
                    "explain",
                    rows,
                    alone=server.columns[asked.column]["drawn"],
                    strict=len(asked.rows),
                    column=asked.column,
                    seen=asked.seen,
                    seed=asked.seed,
                    inside=asked.inside,
                )
            )
        )

    @router.post("/surprise", tags=["model"])
    async def surprise(asked: RowsRequest) -> SurpriseResponse:
        """How little the cells of each row go together."""
        return SurpriseResponse(rows=shown(await server.ask("surprise", await taken(asked), strict=len(asked.rows))))

    @router.post("/search", tags=["index"])
    async def search(asked: SearchRequest) -> SearchResponse:
        """The rows of the index that are nearest to a query of any columns."""
        cells = server.cells
        cells.check(asked.among, param="among")
        cells.check(*(asked.seen or ()), param="seen")
        query = await cells.row(asked.query, 0, "query")
        if asked.table_row is not None:
            (row,) = await of_table([asked.table_row], list(server.columns) if asked.seen is None else asked.seen)
            query = {**await cells.row(row, 0, "table_row", strict=False), **query}
        without = [await cells.row(asked.without, 0, "without")] if asked.without else []
        found = await server.ask(
            "search",
            [query],
            without,
            among=asked.among,
            k=asked.k,
            condition=asked.where or None,
            weights=asked.weights or None,
        )
        return SearchResponse(rows=shown(found[0]))

    @router.post("/query", tags=["table"])
    async def query(asked: QueryRequest) -> QueryResponse:
        """A question about many rows of the table as a query over its plain columns, and its answer."""
        if server.sheet is None:
            raise Refused(
                422,
                "This server shows no table, so there is nothing to ask about. Start it with --table TABLE.",
                "table",
                "question",
            )
        try:
            return QueryResponse(**await asyncio.to_thread(server.sheet.answer, asked.question))
        except UserError as error:
            foreign = (
                type(error.__cause__).__module__.partition(".")[0].strip("_") == "duckdb"
            )  # whose words may tell of files and settings
            raise Refused(
                422,
                "The query can't be answered. One SELECT over the plain columns of the table 'rows' is possible."
                if foreign
                else str(error),
                "question",
                "question",
            ) from None

    return router


def numbers(vectors: np.ndarray) -> list[Any]:
    """Vectors as JSON has them, no longer than float32 is exact."""
    return vectors.astype(np.float64).round(8).tolist()


def written(said: dict[str, Any]) -> Response:
    """An answer of many numbers: looking at each of them once more takes longer than the model does."""
    return Response(json.dumps(said), media_type="application/json")


async def draw(
    server: Server,
    rows: list[dict[str, Any]],
    column: str,
    seen: list[str] | None,
    samples: int,
    seed: int | None,
    strict: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Cells of a column; with a seed the same ones each time, whoever else asks."""
    if 0 < (options.get("temperature") or 0) < 0.001:
        options["temperature"] = 0.0
    return await server.ask(
        "generate",
        rows,
        alone=seed is not None,
        strict=strict,
        column=column,
        seen=seen,
        samples=samples,
        seed=seed,
        **options,
    )
