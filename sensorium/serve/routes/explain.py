"""Explanations of predictions: ``/explain``, attributions to the seen columns and their parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from sensorium.data.cells import row_dicts
from sensorium.modalities._capabilities import Attributable
from sensorium.serve.dispatch import as_json, ask, read_rows
from sensorium.serve.guard import Refused
from sensorium.serve.jobs import Job, split_by_job
from sensorium.serve.requests import RowsRequest

if TYPE_CHECKING:
    from sensorium.inference.rows import Rows
    from sensorium.search.index import Index
    from sensorium.serve.server import Server
    from sensorium.serve.worker import ModelWorker

MAX_EXPLAINED = 16
"""Rows that are explained for a request."""
N_NEAREST, N_CANDIDATES = 4, 64
"""Rows that are shown beside an explained answer, not counting the row itself, and the nearest ones that they are taken
from."""


class ExplainRequest(RowsRequest):
    """Why a column is said so."""

    column: str
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    inside: Literal["occlusion", "gradients", "attention"] = "occlusion"


class ExplainResponse(BaseModel):
    """For each row its explanation: see docs/explain.md."""

    whys: list[dict[str, Any] | None]


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.post("/explain", tags=["model"])
    async def explain(request: ExplainRequest) -> ExplainResponse:
        """Why a column is said as it is: each seen column's exact share, and what in it counted."""
        if len(request.rows) + len(request.table_rows) > MAX_EXPLAINED:
            raise Refused(422, f"At most {MAX_EXPLAINED} rows are explained for a request.", "rows", "rows")
        rows = await read_rows(server, request, request.column)
        answer = await ask(
            server,
            "explain",
            rows,
            # generated cells are looked at with noises that hang on a row's place among all that are asked together
            exclusive=server.columns[request.column]["drawn"],
            strict=len(request.rows),
            column=request.column,
            seen=request.seen,
            seed=request.seed,
            inside=request.inside,
        )
        return ExplainResponse(whys=as_json(answer))


def answer(
    worker: ModelWorker,
    jobs: Sequence[Job],
    column: str,
    seen: Sequence[str] | None = None,
    seed: int = 0,
    cells: Sequence[Any] | None = None,
    inside: str = "occlusion",
) -> list[Any]:
    """Each job's explanations, ``Explanation`` as JSON, with the nearest rows of the index."""
    from sensorium.media.images import png

    model, rows = worker.model, worker.rows(jobs)
    given = None if cells is None else list(cells)
    if given is None and column not in model.network.generative_columns:
        given = model.answers(rows, column, seen, seed).cells
    whys = [
        None if why is None else why.to_json()
        for why in model.explain(rows, column, given, seen, seed=seed, inside=inside)
    ]
    modalities = model.network.modalities
    for number, why in enumerate(whys):
        if why is not None:
            why["answer"] = given[number] if given is not None else None
            images = {
                c: modality.as_image(cell)
                for c in why["parts"]
                if c in rows.read
                and (cell := rows.read[c][number]) is not None
                and isinstance(modality := modalities[c], Attributable)
            }
            why["pictures"] = {c: png(pixels) for c, pixels in images.items() if pixels is not None}
    if worker.index is not None:
        known = worker.index.store.about["columns"]
        compared = [c for c in known if c != column and (seen is None or c in seen)]
        for why, near in zip(whys, nearest(worker, worker.index, rows, column, compared, given), strict=True):
            if why is not None:
                why["index"] = near
    return split_by_job(whys, jobs)


def nearest(
    worker: ModelWorker,
    index: Index,
    rows: Rows,
    column: str,
    compared: Sequence[str],
    answers: Sequence[Any] | None,
) -> list[dict[str, Any]]:
    """Nearest rows of the index to each row by some columns.

    They are split into those of the answer's class and of others where ``column`` is one of the index's plain cells.
    """
    from sensorium.search.store import turned

    found = []
    for number, table in enumerate(index.nearest(turned(rows.gists(compared), index.store.turn), None, N_CANDIDATES)):
        columns = [c for c in ("row", "score", column) if c in table.column_names]
        some = worker.with_table_rows(row_dicts(table.select(columns)))
        categorical = worker.model.network.modalities[column].is_categorical
        if column not in table.column_names or answers is None or not categorical:
            found.append({"nearest": some[: N_NEAREST + 1], "contrast": []})
            continue
        same = [line for line in some if line[column] == answers[number]]
        other = [line for line in some if line[column] is not None and line[column] != answers[number]]
        found.append({"nearest": same[: N_NEAREST + 1], "contrast": other[:N_NEAREST]})
    return found
