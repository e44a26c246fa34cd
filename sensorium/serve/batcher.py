"""Waiting requests of one kind are asked together: a model answers sixty rows in little more time than one.

Nothing is waited for: whatever has come while the model was busy is taken at once when it is free, the kind that has waited longest first.
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

ROWS = 64
"""Rows that are asked together."""
WAITING = 512
"""Requests that may wait."""
LONGEST = 300.0
"""Seconds until a process that doesn't answer is ended."""

PAUSES = 0.1, 5.0
"""Seconds between attempts to start a process again, at first and at most."""


class QueueFull(Exception):
    """Too many requests wait; ``seconds`` until it may be better."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class RequestTimeout(Exception):
    """The request waited longer than it was to."""


class ClientDisconnected(Exception):
    """The process that was to answer ended."""


class WorkerFailed(Exception):
    """An error of ours."""


@dataclasses.dataclass(eq=False)
class QueuedRequest:
    """One request: what it asks, until when, where its answer is awaited, since when, who hears what is told before that, whether a process was asked and something was told, and, while one answers, by whom and with whom."""

    job: dict[str, Any]
    until: float
    answer: asyncio.Future
    since: float
    heard: Callable[[Any], None] | None = None
    taken: bool = False
    told: bool = False
    asked: tuple[Process, list[QueuedRequest]] | None = None

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return not self.answer.done()


Kind = tuple[str, str]
"""A verb and its options, as text that is equal where they are."""


class Batcher:
    """Hands what waits to the processes that hold the model.

    Args:
        workers: those processes. rows: asked together. waiting: requests that may wait. watch: hears how many requests and rows were asked together, and how long
            that took.
    """

    def __init__(
        self,
        workers: list[Process],
        rows: int = ROWS,
        waiting: int = WAITING,
        longest: float = LONGEST,
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
        """Begin to hand out."""
        self.tasks = [asyncio.create_task(self._serve(worker)) for worker in self.workers]

    async def stop(self) -> None:
        """End, whatever waits."""
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
        """Whether a process can be asked."""
        return any(worker.alive for worker in self.workers)

    async def ask(
        self,
        verb: str,
        options: Mapping[str, Any],
        job: dict[str, Any],
        seconds: float,
        alone: bool = False,
        heard: Callable[[Any], None] | None = None,
    ) -> Any:
        """The answer to one request, with others of its kind unless it is to be asked ``alone``; ``heard`` is told what a process tells of it before that.

        Raises:
            Full, Late, Gone, Broken: see there.
        """
        if self.count >= self.most_waiting:
            raise QueueFull(max(1.0, self.took * self.count / max(1, len(self.workers))))
        if not self.ready and not any(worker.starts for worker in self.workers):
            raise ClientDisconnected
        now = time.monotonic()
        kind = verb, repr(sorted(options.items())) + (f" {id(job)}" if alone else "")
        one = QueuedRequest(job, now + seconds, asyncio.get_running_loop().create_future(), now, heard)
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
                one.asked[0].cut()
            queue = self.queues.get(kind)
            if not one.taken and queue is not None and one in queue:  # who is late or has left keeps no place
                queue.remove(one)
                self.count -= 1
                if not queue:
                    del self.queues[kind], self.options[kind]

    def take(self) -> tuple[Kind, Mapping[str, Any], list[QueuedRequest]] | None:
        """The next requests that are asked together."""
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
        pause = PAUSES[0]
        while True:
            if not worker.alive:
                try:
                    await worker.start()
                    pause = PAUSES[0]
                except Exception as error:
                    log.error("the process %s can't be started again: %s", worker.name, type(error).__name__)
                    await asyncio.sleep(pause)
                    pause = min(PAUSES[1], 2 * pause)
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
        begun = time.monotonic()
        for one in taken:
            one.asked = worker, taken

        def hear(told: Any) -> None:
            number, piece = told
            one = taken[number]
            if one.heard is not None and one.wanted:
                one.told = True
                one.heard(piece)

        try:
            said = await worker.ask(
                {"verb": kind[0], "options": dict(options), "jobs": [one.job for one in taken]}, self.longest, hear
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
        except Exception as error:  # of the process (Failed), or a message that can't be sent
            if len(taken) == 1:
                log.error(
                    "%s failed: %s", kind[0], str(error) if isinstance(error, CallFailed) else type(error).__name__
                )
                settle(taken, WorkerFailed())
                return
            settle([one for one in taken if one.told], WorkerFailed())  # what was told can't be taken back
            try:
                for one in taken:  # which of them it was is found out by asking each alone
                    if one.wanted:
                        await self._together(worker, kind, options, [one])
            finally:
                settle(taken, ClientDisconnected())
            return
        finally:
            for one in taken:
                one.asked = None
        seconds = time.monotonic() - begun
        self.took += 0.1 * (seconds / len(taken) - self.took)
        self.watch(len(taken), sum(len(one.job["rows"]) for one in taken), seconds)
        for one, answer in zip(taken, said, strict=True):
            if one.wanted:
                one.answer.set_result(answer)


def expire(one: QueuedRequest) -> None:
    """Tell who waits that it took too long."""
    if one.wanted:
        one.answer.set_exception(RequestTimeout())


def settle(taken: list[QueuedRequest], error: Exception) -> None:
    """Tell all who still wait the same."""
    for one in taken:
        if one.wanted:
            one.answer.set_exception(error)
