"""Waiting requests: those of one kind go together, none gets another's answer, and whoever leaves or is late isn't
asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from sensorium.serve.batcher import Batcher, ClientDisconnected, QueueFull, RequestTimeout, WorkerFailed
from sensorium.serve.process import CallFailed, Interrupted, ProcessDied


class Fake:
    """A process that answers each row with itself, slowly; ``spoilt`` rows break it."""

    name = "fake"

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds, self.heard, self.starts, self.alive, self.fatal = seconds, [], 1, True, False
        self.cuts, self.off = 0, asyncio.Event()

    async def start(self) -> None:
        self.starts += 1
        self.alive, self.fatal = True, False

    async def ask(self, message: dict[str, Any], seconds: float, heard: Callable[[Any], None]) -> list[Any]:
        self.heard.append((message["verb"], [job["rows"] for job in message["jobs"]]))
        for number, job in enumerate(message["jobs"]):
            heard([number, f"{job['rows']}"])
        self.off.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await self.off.wait()
            raise Interrupted
        if self.fatal:
            self.alive = False
            raise ProcessDied("fake")
        if any("spoilt" in job["rows"] for job in message["jobs"]):
            raise CallFailed("ValueError")
        return [{"said": list(job["rows"])} for job in message["jobs"]]

    def cancel(self) -> None:
        self.cuts += 1
        self.off.set()

    def stop(self) -> None:
        self.alive = False


def run(test: Callable[[Batcher, Fake], Any], **given: Any) -> None:
    async def inside() -> None:
        fake = Fake()
        batcher = Batcher([fake], **given)
        batcher.start()
        try:
            await test(batcher, fake)
        finally:
            await batcher.stop()

    asyncio.run(inside())


def test_those_of_one_kind_go_together_and_each_gets_its_own() -> None:
    async def test(batcher: Batcher, fake: Fake) -> None:
        asked = [
            batcher.ask("embed" if n % 2 else "predict", {"column": n % 3}, {"rows": [n, -n]}, 5) for n in range(60)
        ]
        said = await asyncio.gather(*asked)
        assert [answer["said"] for answer in said] == [[n, -n] for n in range(60)]
        assert len(fake.heard) <= 7 and max(len(jobs) for _, jobs in fake.heard) >= 9

    run(test)


def test_no_more_rows_than_allowed_go_together_and_the_oldest_go_first() -> None:
    async def test(batcher: Batcher, fake: Fake) -> None:
        said = await asyncio.gather(
            *(batcher.ask("embed", {}, {"rows": [n] * 3}, 5) for n in range(20)),
            batcher.ask("embed", {}, {"rows": [99] * 50}, 5),
        )
        assert said[-1] == {"said": [99] * 50} and all(
            sum(map(len, jobs)) <= 8 or len(jobs) == 1 for _, jobs in fake.heard
        )
        assert [jobs[0][0] for _, jobs in fake.heard] == sorted(jobs[0][0] for _, jobs in fake.heard)

    run(test, rows=8)


def test_one_that_is_to_be_alone_is() -> None:
    async def test(batcher: Batcher, fake: Fake) -> None:
        await asyncio.gather(
            *(batcher.ask("generate", {"seed": 1}, {"rows": [n]}, 5, exclusive=True) for n in range(5))
        )
        assert [len(jobs) for _, jobs in fake.heard] == [1] * 5

    run(test)


def test_too_many_are_refused_with_a_time() -> None:
    async def test(batcher: Batcher, fake: Fake) -> None:
        said = await asyncio.gather(
            *(batcher.ask("embed", {}, {"rows": [n]}, 5) for n in range(30)), return_exceptions=True
        )
        refused = [answer for answer in said if isinstance(answer, QueueFull)]
        assert len(refused) == 20 and all(full.seconds >= 1 for full in refused) and batcher.count == 0

    run(test, waiting=10)


def test_who_is_late_or_has_left_is_not_asked_for() -> None:
    async def test(batcher: Batcher, fake: Fake) -> None:
        fake.seconds = 0.3
        first = asyncio.create_task(batcher.ask("embed", {}, {"rows": ["first"]}, 5))
        await asyncio.sleep(0.05)
        late = asyncio.create_task(batcher.ask("embed", {}, {"rows": ["late"]}, 0.1))
        gone = asyncio.create_task(batcher.ask("embed", {}, {"rows": ["gone"]}, 5))
        await asyncio.sleep(0.02)
        gone.cancel()
        begun = time.monotonic()
        with pytest.raises(RequestTimeout):
            await late
        assert time.monotonic() - begun < 0.2 and await first == {"said": ["first"]}
        await batcher.ask("embed", {}, {"rows": ["last"]}, 5)
        assert [rows for _, jobs in fake.heard for rows in jobs] == [["first"], ["last"]]

    run(test)


def test_who_has_left_keeps_no_place() -> None:
    async def test(batcher: Batcher, fake: Fake) -> None:
        fake.seconds = 0.3
        first = asyncio.create_task(batcher.ask("embed", {}, {"rows": ["first"]}, 5))
        await asyncio.sleep(0.05)
        left = [asyncio.create_task(batcher.ask("embed", {"n": n}, {"rows": ["left"]}, 5)) for n in range(4)]
        await asyncio.sleep(0.02)
        assert batcher.count == 4
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert batcher.count == 0 and not batcher.queues and not batcher.options
        assert await batcher.ask("embed", {}, {"rows": ["next"]}, 5) == {"said": ["next"]} and await first == {
            "said": ["first"]
        }

    run(test, waiting=4)


def test_what_nobody_waits_for_any_more_is_left_off() -> None:
    async def test(batcher: Batcher, fake: Fake) -> None:
        fake.seconds = 5.0
        asked = [asyncio.create_task(batcher.ask("talk", {}, {"rows": [n]}, 30)) for n in range(3)]
        while not fake.heard:
            await asyncio.sleep(0.01)
        for one in asked[:2]:
            one.cancel()
        await asyncio.sleep(0.05)
        assert fake.cuts == 0  # one still waits
        begun = time.monotonic()
        asked[2].cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        fake.seconds = 0.02
        assert (
            await batcher.ask("talk", {}, {"rows": [7]}, 30) == {"said": [7]}
            and fake.cuts == 1
            and time.monotonic() - begun < 3
        )
        await batcher.ask("talk", {}, {"rows": [8]}, 30)
        assert fake.cuts == 1 and [rows for _, rows in fake.heard] == [[[0], [1], [2]], [[7]], [[8]]]

    run(test)


def test_one_that_breaks_the_model_breaks_no_other() -> None:
    async def test(batcher: Batcher, fake: Fake) -> None:
        said = await asyncio.gather(
            *(batcher.ask("embed", {}, {"rows": ["spoilt" if n == 3 else n]}, 5) for n in range(8)),
            return_exceptions=True,
        )
        assert isinstance(said[3], WorkerFailed) and [answer["said"] for n, answer in enumerate(said) if n != 3] == [
            [n] for n in range(8) if n != 3
        ]

    run(test)


def test_who_was_asked_for_hears_that_the_process_died_and_the_next_are_answered() -> None:
    async def test(batcher: Batcher, fake: Fake) -> None:
        fake.fatal = True
        with pytest.raises(ClientDisconnected):
            await batcher.ask("embed", {}, {"rows": [1]}, 5)
        assert await batcher.ask("embed", {}, {"rows": [2]}, 5) == {"said": [2]} and fake.starts == 2

    run(test)


def test_each_hears_what_is_told_of_his_own_and_nothing_twice() -> None:
    async def test(batcher: Batcher, fake: Fake) -> None:
        told: dict[Any, list[Any]] = {n: [] for n in (1, 2, "spoilt", 4)}
        first = asyncio.create_task(batcher.ask("talk", {}, {"rows": [0]}, 5))
        await asyncio.sleep(0.005)
        answers = await asyncio.gather(
            *(batcher.ask("talk", {}, {"rows": [n]}, 5, on_piece=None if n == 4 else told[n].append) for n in told),
            return_exceptions=True,
        )
        assert await first == {"said": [0]} and len(fake.heard[1][1]) == 4
        assert told == {1: ["[1]"], 2: ["[2]"], "spoilt": ["['spoilt']"], 4: []}
        assert all(isinstance(answer, WorkerFailed) for answer in answers[:3]) and answers[3] == {
            "said": [4]
        }  # what was begun to be told isn't told anew

    run(test)


def test_what_waits_at_the_end_is_told() -> None:
    async def inside() -> None:
        fake = Fake(5)
        batcher = Batcher([fake])
        batcher.start()
        asked = [asyncio.create_task(batcher.ask("embed", {"n": n}, {"rows": [n]}, 30)) for n in range(3)]
        await asyncio.sleep(0.05)
        await batcher.stop()
        assert all(
            isinstance(answer, ClientDisconnected) for answer in await asyncio.gather(*asked, return_exceptions=True)
        )

    asyncio.run(inside())
