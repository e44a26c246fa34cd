"""Child processes that answer messages: answers arrive unchanged, and who asks one that dies or hangs is told."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import os
import time
from typing import Any

import numpy as np
import pytest

from sensorium.core.errors import UserError
from sensorium.serve.decoders import limit
from sensorium.serve.messages import pack, unpack
from sensorium.serve.process import CallFailed, Interrupted, Process, ProcessDied, check_cancelled, send_piece


def begin(number: int) -> tuple[Any, Any]:
    if number < 0:
        raise UserError("a number below 0")

    def answer(message: dict[str, Any]) -> Any:
        match message["do"]:
            case "die":
                os._exit(3)
            case "hang":
                time.sleep(60)
            case "break":
                raise ValueError("secret words")
            case "count":
                for n in range(message["to"]):
                    send_piece([n, "ä" * n])
            case "talk":
                for n in range(1000):
                    check_cancelled()
                    send_piece(n)
                    time.sleep(0.01)
            case "eat":
                limit(1 << 28)
                return np.ones(1 << 29, np.uint8).sum()
        return {"number": number, "got": message}

    return {"born": number}, answer


def test_it_answers_dies_and_is_started_again() -> None:
    async def test() -> None:
        child = Process("child", begin, (3,))
        try:
            assert await child.start() == {"born": 3} and child.alive
            array = np.arange(6, dtype=np.float32).reshape(2, 3)
            said = await child.ask({"do": "", "array": array, "bytes": b"\x00\xff", "text": "ä"}, 10)
            assert (
                said["number"] == 3
                and np.array_equal(said["got"]["array"], array)
                and said["got"]["bytes"] == b"\x00\xff"
            )
            told: list[Any] = []
            assert (await child.ask({"do": "count", "to": 50}, 10, told.append))["number"] == 3 and told == [
                [n, "ä" * n] for n in range(50)
            ]
            assert (await child.ask({"do": "count", "to": 5}, 10))["number"] == 3  # nobody listens
            with pytest.raises(CallFailed) as failed:
                await child.ask({"do": "break"}, 10)
            assert "secret" not in str(failed.value) and child.alive
            for way, longest in (("die", 10.0), ("eat", 10.0), ("hang", 0.3)):
                begun = time.monotonic()
                with pytest.raises(ProcessDied):
                    await child.ask({"do": way}, longest)
                assert time.monotonic() - begun < 8 and not child.alive
                with pytest.raises(ProcessDied):
                    await child.ask({"do": ""}, 1)
                await child.start()
                assert (await child.ask({"do": ""}, 10))["number"] == 3
        finally:
            child.stop()
        assert not child.alive

    asyncio.run(test())


def test_it_leaves_off_what_nobody_waits_for_and_answers_the_next() -> None:
    async def test() -> None:
        child = Process("child", begin, (3,))
        try:
            await child.start()
            for _ in range(3):
                told: list[int] = []
                asking, begun = asyncio.create_task(child.ask({"do": "talk"}, 60, told.append)), time.monotonic()
                while len(told) < 3:
                    await asyncio.sleep(0.01)
                child.cancel()
                with pytest.raises(Interrupted):
                    await asking
                assert time.monotonic() - begun < 8 and len(told) < 900
                child.cancel()  # nothing is asked: nobody hears it
                assert (await child.ask({"do": ""}, 10))["number"] == 3
            asking = asyncio.create_task(child.ask({"do": "count", "to": 2000}, 60))
            await asyncio.sleep(0)
            while not child.asked:
                await asyncio.sleep(0)
            child.cancel()  # who doesn't look goes on, and what comes too late changes nothing
            assert (await asking)["number"] == 3 and (await child.ask({"do": "count", "to": 3}, 10))["number"] == 3
            assert child.starts == 1
        finally:
            child.stop()

    asyncio.run(test())


def test_what_it_can_t_begin_with_is_said() -> None:
    async def test() -> None:
        child = Process("child", begin, (-1,))
        with pytest.raises(UserError, match="a number below 0"):
            await child.start()
        child.stop()

    asyncio.run(test())


def test_a_start_that_fails_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        child = Process("child", begin, (1,))
        with monkeypatch.context() as patch:
            patch.setattr(
                child.context.Process, "start", lambda self: (_ for _ in ()).throw(OSError(11, "no more processes"))
            )
            with pytest.raises(OSError, match="no more"):
                await child.start()
        assert not child.alive
        assert await child.start() == {"born": 1}
        child.stop()
        child.stop()

    asyncio.run(test())


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), np.float16),
        np.array(2.5, np.float32),
        np.arange(12).reshape(3, 4)[:, ::2],
        np.array([True, False]),
        np.arange(3, dtype=">i4"),
    ],
)
def test_arrays_arrive_as_they_were(array: np.ndarray) -> None:
    got = unpack(pack({"x": array}))["x"]
    assert np.array_equal(got, array) and got.dtype == array.dtype and got.shape == array.shape


def test_dates_and_decimals_arrive_as_json_would_write_them_and_objects_don_t() -> None:
    assert unpack(
        pack([datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3), decimal.Decimal("1.5"), np.float32(0.5)])
    ) == ["2020-01-02", "2020-01-02T03:00:00", 1.5, 0.5]
    for value in (object(), np.array(["x"], object), np.array(["x"])):
        with pytest.raises(TypeError, match="can't be sent"):
            pack(value)
