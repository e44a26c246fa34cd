"""Model worker: the process that holds the model, and answers waiting requests of one kind together.

It knows rows and the model, nothing of HTTP; what a verb does is in its route's file (``serve/routes``). A request that
is wrong is answered with words and doesn't touch its neighbours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensorium.core.errors import BadCell, UserError
from sensorium.core.registry import name_of
from sensorium.serve.jobs import Job, RequestRefused
from sensorium.serve.process import check_cancelled
from sensorium.serve.routes import route_modules

if TYPE_CHECKING:
    import numpy as np

    from sensorium.data.table import Table
    from sensorium.inference.rows import Rows
    from sensorium.model import Model
    from sensorium.search.index import Index

CHECK_SECONDS = 0.05
"""Seconds after which a network looks again whether anybody waits."""
NEEDS_CELLS = ("embed", "search")
"""Verbs that refuse a row without any seen cell."""
FACTS = ("rows", "seconds", "seed", "steps", "table", "targets", "results", "parameters")
"""Facts of a fit that clients are told."""
MAX_CLASSES = 200
"""Classes of a column that clients are told."""


class ModelWorker:
    """Model, perhaps with an index of rows for it, that answers messages.

    Attributes:
        table_rows: for each row of the index its number in the table that is shown, below 0 where that doesn't have it.
    """

    def __init__(self, model: Model, index: Index | None, table: Table | None = None) -> None:
        self.model, self.index = model, index
        self.table_rows: np.ndarray | None = None if index is None or table is None else index.rows_in(table)

    def about(self) -> dict[str, Any]:
        """Facts about the model: its columns, and what can be asked of them."""
        network = self.model.network
        return {
            "columns": {column: self.column_about(column) for column in network.modalities},
            "gist": network.gist_size,
            "index": self.index_about(),
            "facts": {key: value for key, value in self.model.facts.items() if key in FACTS},
            "surprise": list(network.calibration.surprise_quantiles),
        }

    def column_about(self, column: str) -> dict[str, Any]:
        """Facts about a column."""
        network = self.model.network
        modality, asked = network.modalities[column], column in network.asked_columns
        tokens = network.asked_modality(column).tokens() if asked else None
        return {
            "kind": name_of(modality),
            "media": modality.media,
            "talks": column in network.dialogue_columns,
            "asked": asked,
            "drawn": column in network.generative_columns,
            "searched": modality.matched,
            "generators": list(network.generator_keys.get(column, ())),
            "ending": modality.ending,
            "classes": [str(value) for value in getattr(modality, "classes", [])][:MAX_CLASSES],
            "tokens": tokens.length if tokens else None,
        }

    def index_about(self) -> dict[str, Any] | None:
        """Facts about the index; None without one."""
        if self.index is None:
            return None
        store = self.index.store
        return {
            "rows": len(self.index),
            "columns": store.about["columns"],
            "among": store.about["kinds"][1:],
            "recall": store.about["recall"],
            "size": store.about["size"],
            "table": store.about["table"],
            "elsewhere": 0 if self.table_rows is None else int(((self.table_rows < 0) & ~store.gone).sum()),
        }

    def __call__(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Results of jobs of one verb with the same options: for each ``{"answer": …}`` or ``{"error": …}``."""
        results: list[dict[str, Any]] = [{} for _ in message["jobs"]]
        readable: list[int] = []
        for number, job in enumerate(message["jobs"]):
            try:
                job["number"] = number
                job["read"] = [self.read(cells, row, row < job["strict"]) for row, cells in enumerate(job["rows"])]
                seen = self.model.columns if message["options"].get("seen") is None else message["options"]["seen"]
                empty = [
                    row
                    for row, read in enumerate(job["read"])
                    if not any(len(cell) for column, (cell, _) in read.items() if column in seen)
                ]
                if empty and message["verb"] in NEEDS_CELLS:
                    raise RequestRefused("it is empty", empty[0])
                job["barred"] = [self.read(cells, row) for row, cells in enumerate(job.get("without", ()))]
                readable.append(number)
            except RequestRefused as wrong:
                results[number] = wrong.result
        self.answer(message, readable, results)
        return results

    def answer(self, message: dict[str, Any], which: Sequence[int], results: list[dict[str, Any]]) -> None:
        """Put the results of some jobs in their places.

        An error is found by asking each job by itself, so that only the one it concerns is refused.
        """
        if not which:
            return
        handler = route_modules()[message["verb"]].answer
        try:
            found = handler(self, [message["jobs"][number] for number in which], **message["options"])
            for number, one in zip(which, found, strict=True):
                results[number] = {"answer": one}
        except UserError as error:
            if len(which) == 1:
                results[which[0]] = RequestRefused(str(error)).result
                return
            for number in which:
                self.answer(message, [number], results)

    def read(self, cells: dict[str, Any], row: int, strict: bool = True) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """A row's cells as they are read and as they are prepared; files were decoded before.

        Those that can't be read are missing unless it is ``strict``.
        """
        found = {}
        for column, cell in cells.items():
            modality = self.model.network.modalities[column]
            try:
                read = cell if modality.media else modality.read(cell)
                found[column] = read, modality.prepare(read) if len(read) else read
            except BadCell as error:
                if strict:
                    raise RequestRefused(str(error), row, column) from None
        return found

    def rows(self, jobs: Sequence[Job], which: str = "read") -> Rows:
        """The rows of all jobs, one after the other."""
        from sensorium.inference.rows import Rows

        every = [read for job in jobs for read in job[which]]
        columns, none = [c for c in self.model.columns if any(c in read for read in every)], (None, None)
        read, prepared = ({c: [row.get(c, none)[side] for row in every] for c in columns} for side in (0, 1))
        return Rows(self.model.network, prepared, read, len(every))

    def with_table_rows(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of the index with ``table_row``, their numbers in the table that is shown; None where it hasn't them."""
        if self.table_rows is not None:
            for line in found:
                number = int(self.table_rows[line["row"]])
                line["table_row"] = number if number >= 0 else None
        return found


def begin(
    run: str, index: str | None, table: str | None, threads: int, device: str | None
) -> tuple[dict[str, Any], ModelWorker]:
    """Load the model in the child process; returns what it says of itself, and the worker."""
    import torch

    from sensorium.backbones._feature_cache import LIMIT
    from sensorium.model import Model

    torch.set_num_threads(threads)
    os.environ[LIMIT] = "0"  # of what people ask no features stay on the disk
    model = Model.load(Path(run), device)
    worker = ModelWorker(
        model,
        None if index is None else model.open_index(Path(index)),
        None if table is None or index is None else model.open(table),
    )
    cancel_in_forward(model.network)
    return worker.about(), worker


def cancel_in_forward(network: Any) -> None:
    """Hook a network's norms to look now and then whether anybody still waits for what it computes."""
    last = time.monotonic()

    def look(*_: Any) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > CHECK_SECONDS:
            last = now
            check_cancelled()

    for module in network.modules():
        if type(module).__name__.endswith("Norm"):
            module.register_forward_pre_hook(look)
