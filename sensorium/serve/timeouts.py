"""Read timeouts below the application, against clients that send a byte now and then to hold a connection (Slowloris).

uvicorn waits for a request's head and body as long as they take; here each has its time, and a connection on which
nothing was asked yet, too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS, BODY_SECONDS = 10.0, 30.0
"""Seconds for the head of a request, and for its body from there on."""
TIMEOUT_RESPONSE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
MAX_HEAD = 65_536
"""Bytes of a head."""


def timed(head: float = HEAD_SECONDS, body: float = BODY_SECONDS) -> type[HttpToolsProtocol]:
    """Protocol class for uvicorn with these deadlines."""

    class Timed(HttpToolsProtocol):
        timer: asyncio.TimerHandle | None = None
        heading, seen = True, 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.expect(head)

        def connection_lost(self, exc: Exception | None) -> None:
            self.expect(None)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.heading:
                self.seen += len(data)
                if self.seen > MAX_HEAD + (1 << 20):  # a head and the beginning of its body may come together
                    self.transport.close()
                    return
            super().data_received(data)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.heading = True
            self.expect(head)

        def on_header(self, name: bytes, value: bytes) -> None:
            if self.heading:
                super().on_header(name, value)
            else:  # behind a body in pieces may stand more headers, which nobody reads and which have no end
                self.transport.close()

        def on_headers_complete(self) -> None:
            self.heading, self.seen = False, 0
            self.expect(body)
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self.expect(None)
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.timer is not None:  # another request is on its way, which wasn't read on meanwhile
                self.expect(head if self.heading else body)

        def expect(self, seconds: float | None) -> None:
            """Restart the timer; None: wait as long as it takes."""
            if self.timer is not None:
                self.timer.cancel()
            self.timer = None if seconds is None else self.loop.call_later(seconds, self.late)

        def late(self) -> None:
            """Answer 408 and hang up, once all that came before is answered."""
            if self.pipeline or (self.heading and self.cycle is not None and not self.cycle.response_complete):
                self.expect(head if self.heading else body)
            elif not self.transport.is_closing():
                if self.cycle is None or not self.cycle.response_started:
                    self.transport.write(TIMEOUT_RESPONSE)
                self.transport.close()

    return Timed
