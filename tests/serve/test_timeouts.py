"""Deadlines of arriving requests, with connections that ask before they were answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn")

from sensorium.serve.timeouts import timed

SLOW, SHORT = 0.8, 0.2


async def answers(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Reads a body, and says it after a while."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message.get("more_body"):
            break
    await asyncio.sleep(SLOW)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]}
    )
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server with short deadlines."""
    server = uvicorn.Server(
        uvicorn.Config(answers, port=0, http=timed(SHORT, SHORT), ws="none", lifespan="off", log_level="error")
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.servers[0].sockets[0].getsockname()[1])
    yield reader, writer
    writer.close()
    server.should_exit = True
    await serving


def post(body: bytes, sent: bytes | None = None) -> bytes:
    """A request, with only a part of its body where one is given."""
    return b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n" % len(body) + (body if sent is None else sent)


async def heard(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A status line and a body."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    size = next(int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head.split(b"\r\n")[0], await reader.readexactly(size)


@pytest.mark.parametrize("second", [post(b"two"), post(b"two", b""), b"POST / HTTP/1.1\r\nhost: "])
def test_who_asks_before_it_was_answered_is_answered_first(second: bytes) -> None:
    async def ask() -> None:
        async with connected() as (reader, writer):
            writer.write(post(b"one") + second)
            await asyncio.sleep(SHORT * 2)
            writer.write((post(b"two"))[len(second) :])
            assert await heard(reader) == (b"HTTP/1.1 200 OK", b"one")
            assert await heard(reader) == (b"HTTP/1.1 200 OK", b"two")

    asyncio.run(ask())


@pytest.mark.parametrize("second", [post(b"two", b"t"), b"POST / HTTP/1.1\r\nhost: "])
def test_who_is_slow_behind_an_answer_is_hung_up_on(second: bytes) -> None:
    async def ask() -> None:
        async with connected() as (reader, writer):
            writer.write(post(b"one") + second)
            begun = time.monotonic()
            assert (await heard(reader))[1] == b"one"
            rest = await asyncio.wait_for(reader.read(), 10)
            assert rest == b"" or rest.startswith(b"HTTP/1.1 408")
            assert time.monotonic() - begun < SLOW + 10 * SHORT

    asyncio.run(ask())


@pytest.mark.parametrize("first", [b"", b"POST / HTTP/1.1\r\nhost: ", post(b"one", b"o")])
def test_who_is_slow_at_once_is_told_so(first: bytes) -> None:
    async def ask() -> None:
        async with connected() as (reader, writer):
            writer.write(first)
            assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 408")

    asyncio.run(ask())
