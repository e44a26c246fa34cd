"""Server state that routes share: the workers behind a batcher, the decoders, the columns, and the table."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import Any

from sensorium.data.table import Table
from sensorium.serve.batcher import Batcher
from sensorium.serve.cells import RequestCells
from sensorium.serve.decoders import DecoderPool
from sensorium.serve.guard import Limits
from sensorium.serve.metrics import Metrics
from sensorium.serve.table_view import TableView


@dataclasses.dataclass
class Server:
    """State of one server.

    Attributes:
        name: of the model, as clients call it.
        table: what the page shows.
        fetching: whether web addresses in requests are fetched.
        run: the model's folder.
        table_view: the rows of ``table``.
        map_points: where rows lie on the map, once that was asked.
        about: what the model's process says of itself (``ModelWorker.about``).
        started_at: seconds since 1970.
    """

    name: str
    limits: Limits
    metrics: Metrics
    batcher: Batcher
    decoders: DecoderPool
    table: Table | None
    fetching: bool
    run: Path
    table_view: TableView | None = None
    map_points: list[Any] | None = None
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    started_at: int = dataclasses.field(default_factory=lambda: int(time.time()))

    @property
    def columns(self) -> dict[str, dict[str, Any]]:
        """Facts about each column."""
        return self.about["columns"]

    @property
    def cells(self) -> RequestCells:
        """Reader of cells of requests."""
        return RequestCells(self.columns, self.decoders.read, self.fetching)

    async def start(self) -> None:
        """Start all processes, and take what the model says of itself.

        Raises:
            UserError: the model or its index can't be loaded.
        """
        workers = asyncio.gather(*(worker.start() for worker in self.batcher.workers))
        (self.about, *_), _ = await asyncio.gather(workers, self.decoders.start())
        self.table_view = None if self.table is None else TableView(self.table, self.columns)
        self.batcher.start()

    async def stop(self) -> None:
        """Stop all processes."""
        await self.batcher.stop()
        self.decoders.stop()

    def columns_of(self, kind: str, *, asked: bool = False) -> list[str]:
        """Columns of one modality, or only those that can be asked; those that are searched by themselves first."""
        found = [c for c, about in self.columns.items() if about["kind"] == kind and (about["asked"] or not asked)]
        return sorted(found, key=lambda c: not self.columns[c]["searched"])
