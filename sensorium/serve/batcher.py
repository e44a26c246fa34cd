"""Continuous batching: waiting requests of one kind are asked together, as sixty rows take little longer than one.

Nothing is waited for: whatever has come while the model was busy is taken at once when it is free, the kind that has
waited longest first.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from sensorium.serve.process import CallFailed, Interrupted, Process, ProcessDied

log = logging.getLogger("sensorium.serve")

MAX_BATCH_ROWS = 64
"""Rows that are asked together."""
MAX_WAITING = 512
"""Requests that may wait."""
MAX_SECONDS = 300.0
"""Seconds until a process that doesn't answer is ended."""

RESTART_PAUSES = 0.1, 5.0
"""Seconds between attempts to start a process again, at first and at most."""


class QueueFull(Exception):
    """Error: too many requests wait; ``seconds`` until it may be better."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class RequestTimeout(Exception):
    """Error: the request waited longer than it was to."""


class ClientDisconnected(Exception):
    """Error: the process that was to answer ended, or nobody waits any more."""


class WorkerFailed(Exception):
    """Error of ours in the worker."""


@dataclasses.dataclass(eq=False)
class QueuedRequest:
    """Request in a queue.

    Attributes:
        job: what it asks.
        until, since: when it is too late, and when it came.
        answer: where its answer is awaited.
        on_piece: is called with pieces that come before the answer.
        taken: a process was asked.
        streamed: a piece came.
        asked: while a process answers, that one and the requests that are asked with it.
    """

    job: dict[str, Any]
    until: float
    answer: asyncio.Future
    since: float
    on_piece: Callable[[Any], None] | None = None
    taken: bool = False
    streamed: bool = False
    asked: tuple[Process, list[QueuedRequest]] | None = None

    @property
    def wanted(self) -> bool:
        """True if anybody still waits for it."""
        return not self.answer.done()


Kind = tuple[str, str]
"""Verb and its options, as text that is equal where they are."""


class Batcher:
    """Batcher that hands waiting requests to the processes that hold the model.

    Args:
        workers: those processes.
        rows: asked together.
        waiting: requests that may wait.
        longest: seconds until a process that doesn't answer is ended.
        watch: is called with how many requests and rows were asked together, and how long that took.
    """

    def __init__(
        self,
        workers: list[Process],
        rows: int = MAX_BATCH_ROWS,
        waiting: int = MAX_WAITING,
        longest: float = MAX_SECONDS,
        watch: Callable[[int, int, float], None] = lambda requests, rows, seconds: None,
    ) -> None:
        self.workers, self.most_rows, self.most_waiting, self.longest, self.watch = (
            workers,
            rows,
            waiting,
            longest,
            watch,
        )
        self.queues: dict[Kind, collections.deque[QueuedRequest]] = {}
        self.options: dict[Kind, Mapping[str, Any]] = {}
        self.count = 0
        self.some = asyncio.Event()
        self.took = 0.05
        self.tasks: list[asyncio.Task] = []

    def start(self) -> None:
        """Start to hand out requests."""
        self.tasks = [asyncio.create_task(self._serve(worker)) for worker in self.workers]

    async def stop(self) -> None:
        """Stop, whatever waits."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for queue in self.queues.values():
            for one in queue:
                if one.wanted:
                    one.answer.set_exception(ClientDisconnected())
        for worker in self.workers:
            worker.stop()

    @property
    def ready(self) -> bool:
        """True if a process can be asked."""
        return any(worker.alive for worker in self.workers)

    async def ask(
        self,
        verb: str,
        options: Mapping[str, Any],
        job: dict[str, Any],
        seconds: float,
        exclusive: bool = False,
        on_piece: Callable[[Any], None] | None = None,
    ) -> Any:
        """Answer to one request, which is asked with others of its kind unless it is ``exclusive``.

        Args:
            on_piece: is called with the pieces of the answer that come before all of it.

        Raises:
            QueueFull, RequestTimeout, ClientDisconnected, WorkerFailed: see there.
        """
        if self.count >= self.most_waiting:
            raise QueueFull(max(1.0, self.took * self.count / max(1, len(self.workers))))
        if not self.ready and not any(worker.starts for worker in self.workers):
            raise ClientDisconnected
        now = time.monotonic()
        kind = verb, repr(sorted(options.items())) + (f" {id(job)}" if exclusive else "")
        one = QueuedRequest(job, now + seconds, asyncio.get_running_loop().create_future(), now, on_piece)
        self.queues.setdefault(kind, collections.deque()).append(one)
        self.options[kind] = options
        self.count += 1
        self.some.set()
        late = asyncio.get_running_loop().call_at(asyncio.get_running_loop().time() + seconds, expire, one)
        try:
            return await one.answer
        finally:
            late.cancel()
            if one.asked is not None and not any(other.wanted for other in one.asked[1]):
                one.asked[0].cancel()
            queue = self.queues.get(kind)
            if not one.taken and queue is not None and one in queue:  # who is late or has left keeps no place
                queue.remove(one)
                self.count -= 1
                if not queue:
                    del self.queues[kind], self.options[kind]

    def take(self) -> tuple[Kind, Mapping[str, Any], list[QueuedRequest]] | None:
        """Next requests that are asked together; None if there are none."""
        while self.queues:
            kind = min(self.queues, key=lambda kind: self.queues[kind][0].since)
            queue, taken, rows, options = self.queues[kind], [], 0, self.options[kind]
            while queue and (not taken or rows + len(queue[0].job["rows"]) <= self.most_rows):
                one = queue.popleft()
                one.taken = True
                self.count -= 1
                if one.wanted:
                    taken.append(one)
                    rows += len(one.job["rows"])
            if not queue:
                del self.queues[kind], self.options[kind]
            if taken:
                return kind, options, taken
        self.some.clear()
        return None

    async def _serve(self, worker: Process) -> None:
        pause = RESTART_PAUSES[0]
        while True:
            if not worker.alive:
                try:
                    await worker.start()
                    pause = RESTART_PAUSES[0]
                except Exception as error:
                    log.error("the process %s can't be started again: %s", worker.name, type(error).__name__)
                    await asyncio.sleep(pause)
                    pause = min(RESTART_PAUSES[1], 2 * pause)
                    continue
            with contextlib.suppress(TimeoutError):  # a process that dies while nobody asks is started again, too
                async with asyncio.timeout(1):  # unlike wait_for of Python 3.11 it never swallows that we are ended
                    await self.some.wait()
            taken = self.take() if worker.alive else None
            if taken is not None:
                await self._together(worker, *taken)

    async def _together(
        self, worker: Process, kind: Kind, options: Mapping[str, Any], taken: list[QueuedRequest]
    ) -> None:
        started = time.monotonic()
        for one in taken:
            one.asked = worker, taken

        def on_message(streamed: Any) -> None:
            number, piece = streamed
            one = taken[number]
            if one.on_piece is not None and one.wanted:
                one.streamed = True
                one.on_piece(piece)

        try:
            results = await worker.ask(
                {"verb": kind[0], "options": dict(options), "jobs": [one.job for one in taken]},
                self.longest,
                on_message,
            )
        except asyncio.CancelledError:
            settle(taken, ClientDisconnected())
            raise
        except Interrupted:
            settle(taken, ClientDisconnected())
            return
        except ProcessDied:
            log.error("the process %s died", worker.name)
            settle(taken, ClientDisconnected())
            return
        except Exception as error:  # of the process (CallFailed), or a message that can't be sent
            if len(taken) == 1:
                log.error(
                    "%s failed: %s", kind[0], str(error) if isinstance(error, CallFailed) else type(error).__name__
                )
                settle(taken, WorkerFailed())
                return
            settle([one for one in taken if one.streamed], WorkerFailed())  # what was sent can't be taken back
            try:
                for one in taken:  # which of them it was is found out by asking each by itself
                    if one.wanted:
                        await self._together(worker, kind, options, [one])
            finally:
                settle(taken, ClientDisconnected())
            return
        finally:
            for one in taken:
                one.asked = None
        seconds = time.monotonic() - started
        self.took += 0.1 * (seconds / len(taken) - self.took)
        self.watch(len(taken), sum(len(one.job["rows"]) for one in taken), seconds)
        for one, answer in zip(taken, results, strict=True):
            if one.wanted:
                one.answer.set_result(answer)


def expire(one: QueuedRequest) -> None:
    """Fail a request that took too long."""
    if one.wanted:
        one.answer.set_exception(RequestTimeout())


def settle(taken: list[QueuedRequest], error: Exception) -> None:
    """Fail all requests that somebody still waits for."""
    for one in taken:
        if one.wanted:
            one.answer.set_exception(error)
