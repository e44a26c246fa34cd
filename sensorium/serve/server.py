"""What routes hold: the model's process behind a batcher, the decoders, what is known of the columns, and the table that is shown."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sensorium.core.errors import UserError
from sensorium.data.media import HEAD, sniff
from sensorium.data.table import Table
from sensorium.serve.batcher import Batcher, ClientDisconnected, QueueFull, RequestTimeout, WorkerFailed
from sensorium.serve.cells import RequestCells
from sensorium.serve.decoders import DecoderPool
from sensorium.serve.guard import Limits, Refused
from sensorium.serve.messages import pack
from sensorium.serve.metrics import Metrics
from sensorium.serve.table_view import TableView

log = logging.getLogger("sensorium.serve")


@dataclasses.dataclass
class Server:
    """One server.

    Attributes:
        name: of the model, as clients call it. about: what the model's process says of itself (``worker.Desk.about``). begun: seconds since 1970.
        table: what the page shows; sheet: its rows. run: the model's folder. drawn_map: where rows lie, once that was asked. fetching: whether web addresses in requests are fetched.
    """

    name: str
    limits: Limits
    metrics: Metrics
    batcher: Batcher
    uploads: DecoderPool
    table: Table | None
    fetching: bool
    run: Path
    sheet: TableView | None = None
    drawn_map: list[Any] | None = None
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    begun: int = dataclasses.field(default_factory=lambda: int(time.time()))

    @property
    def columns(self) -> dict[str, dict[str, Any]]:
        """What is known of each column."""
        return self.about["columns"]

    @property
    def cells(self) -> RequestCells:
        """Reads cells of requests."""
        return RequestCells(self.columns, self.uploads.read, self.fetching)

    async def start(self) -> None:
        """Begin all processes, and hear what the model is.

        Raises:
            UserError: the model or its index can't be loaded.
        """
        self.about, *_ = await asyncio.gather(
            *(worker.start() for worker in self.batcher.workers), self.uploads.start()
        )
        self.sheet = None if self.table is None else TableView(self.table, self.columns)
        self.batcher.start()

    async def stop(self) -> None:
        """End all."""
        await self.batcher.stop()
        self.uploads.stop()

    async def ask(
        self,
        verb: str,
        rows: Sequence[Mapping[str, Any]],
        without: Sequence[Mapping[str, Any]] = (),
        alone: bool = False,
        strict: int | None = None,
        own: Mapping[str, Any] | None = None,
        heard: Callable[[Any], None] | None = None,
        **options: Any,
    ) -> Any:
        """What the model says; ``alone``: not with other requests. ``strict``: cells that can't be read are refused in so many rows, all by default, and count as
        missing in those behind them. ``own``: what else this request brings that doesn't keep it from being asked with others; ``heard``: is told what is said before all is.

        Raises:
            Refused: too much is asked, the request is wrong, or the model's process died.
        """
        given = {name: value for name, value in options.items() if value is not None}
        try:
            pack([given, own])
        except (TypeError, ValueError, OverflowError):
            raise Refused(422, f"The options can't be read: {', '.join(given)}.", "request") from None
        try:
            said = await self.batcher.ask(
                verb,
                given,
                {
                    "rows": list(rows),
                    "without": list(without),
                    "strict": len(rows) if strict is None else strict,
                    "told": heard is not None,
                    **(own or {}),
                },
                self.limits.seconds,
                alone,
                heard,
            )
        except QueueFull as full:
            raise Refused(
                429, "Too many requests wait. Try again.", "busy", headers={"Retry-After": str(round(full.seconds))}
            ) from None
        except RequestTimeout:
            raise Refused(
                503, f"It took longer than {self.limits.seconds:g} s.", "deadline", headers={"Retry-After": "5"}
            ) from None
        except ClientDisconnected:
            raise Refused(
                503,
                "The model's process ended and is started again. Try again.",
                "restarting",
                headers={"Retry-After": "2"},
            ) from None
        except WorkerFailed:
            raise Refused(500, "This is a fault of the server. Its log says more.", "fault") from None
        if "wrong" in said:
            place = [f"Row {said['row']}"] if said.get("row") is not None else []
            place += [f"column '{said['column']}'"] if said.get("column") else []
            raise Refused(
                422,
                (", ".join(place) + ": " if place else "") + said["wrong"],
                "cell" if place else "request",
                said.get("column"),
            )
        return said["said"]

    async def look(self, read: Callable[..., Any], *given: Any) -> Any:
        """What is read of the table, beside all else.

        Raises:
            Refused: it can't be read; the log says why.
        """
        try:
            return await asyncio.to_thread(read, *given)
        except UserError as error:
            log.error("the table can't be read: %s", error)
            raise Refused(503, "The table can't be read just now. The server's log says why.", "table") from None

    def columns_of(self, kind: str, *, asked: bool = False) -> list[str]:
        """The columns of one kind, perhaps only those that can be asked; those that are searched alone first."""
        found = [c for c, about in self.columns.items() if about["kind"] == kind and (about["asked"] or not asked)]
        return sorted(found, key=lambda c: not self.columns[c]["searched"])


def shown(value: Any) -> Any:
    """A value as JSON can have it: files as data URLs, arrays as lists."""
    if isinstance(value, bytes):
        return f"data:{sniff(value[:HEAD]) or 'application/octet-stream'};base64,{base64.b64encode(value).decode()}"
    if hasattr(value, "tolist"):
        return shown(value.tolist())
    if isinstance(value, Mapping):
        return {name: shown(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [shown(one) for one in value]
    if isinstance(value, float) and value != value:
        return None
    return value
