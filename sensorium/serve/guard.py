"""Access control and limits, as ASGI middleware: it stands before every route, and no route is reached around it.

It reads a request's whole body, so that routes never wait for a slow sender, and cancels what a client that has left
was waiting for.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
import hashlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from sensorium.serve.metrics import Metrics
from sensorium.serve.process import error_location

log = logging.getLogger("sensorium.serve")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

GRACE_SECONDS, UNREAD_SECONDS = 0.5, 30.0
"""Seconds beyond those in which a request must be answered, so that who is nearer to what takes long says so first; and
until a client must have read on."""
PUBLIC_PATHS = frozenset({"/health"})
"""Paths that need no key."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' "
    "blob: data:; "
    "connect-src 'self'; frame-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "unavailable_error",
}
"""The ``type`` of an error by its status, in OpenAI's words."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        body: bytes of one request; bodies: of all that are being answered.
        values: of one request's JSON.
        asking: requests that are being answered.
        seconds: until a request must be answered.
        hosts: names under which the server may be called, without ports; empty: any.
        keys: SHA-256 of each key; empty: no key is wanted.
    """

    body: int = 32 << 20
    bodies: int = 512 << 20
    values: int = 1_000_000
    asking: int = 2048
    seconds: float = 60.0
    hosts: frozenset[str] = frozenset()
    keys: tuple[bytes, ...] = ()


class Refused(Exception):
    """Error of a request that isn't answered: status, words and what else the client gets."""

    def __init__(
        self,
        status: int,
        words: str,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(words)
        self.status, self.words, self.code, self.param, self.headers = status, words, code, param, headers or {}

    def body(self) -> bytes:
        """Body of the response, as OpenAI's errors are."""
        kind = ERROR_TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return json.dumps(
            {"error": {"message": self.words, "type": kind, "param": self.param, "code": self.code}}
        ).encode()


class Guard:
    """ASGI middleware before the application."""

    def __init__(self, app: App, limits: Limits, metrics: Metrics) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.asking = self.body_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await GuardedRequest(self, scope, receive, send).run()
        # WebSockets are not spoken here: uvicorn refuses what isn't accepted

    def check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Check that a client may ask.

        Raises:
            Refused: it may not, and why.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        if self.limits.hosts and bare(host) not in self.limits.hosts:
            raise Refused(
                421, "This server isn't called by that name. Start it with --allow-host NAME to add one.", "host"
            )
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
            raise Refused(403, "Pages of other sites may not ask this server.", "origin")
        if (
            headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")
            and headers.get(b"sec-fetch-mode") != b"navigate"
        ):
            raise Refused(403, "Pages of other sites may not ask this server.", "origin")
        if (
            self.limits.keys
            and scope["path"] not in PUBLIC_PATHS
            and not self.has_key(headers.get(b"authorization", b""))
        ):
            raise Refused(
                401,
                "A key is wanted: 'Authorization: Bearer KEY', or as the password of any user.",
                "key",
                headers={"WWW-Authenticate": 'Basic realm="Sensorium"'},
            )
        if self.asking > self.limits.asking:
            raise Refused(429, "Too many requests are being answered. Try again.", "busy", headers={"Retry-After": "1"})

    def has_key(self, given: bytes) -> bool:
        """True if a header holds a key; every key is compared, each in constant time."""
        scheme, _, value = given.partition(b" ")
        if scheme.lower() == b"basic":
            try:
                value = base64.b64decode(value.strip(), validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                value = b""
        elif scheme.lower() != b"bearer":
            value = b""
        digest, found = hashlib.sha256(value.strip()).digest(), False
        for key in self.limits.keys:
            found |= hmac.compare_digest(digest, key)
        return found and bool(value)


class GuardedRequest:
    """One request on its way through the guard."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.scope, self.receive, self.reply = guard, scope, receive, send
        self.status, self.sent, self.size, self.values = 0, 0, 0, 0
        self.name = uuid.uuid4().hex[:16]
        self.gone = asyncio.Event()

    async def run(self) -> None:
        """Check it, read it, have it answered, count it."""
        guard, started = self.guard, time.monotonic()
        headers: dict[bytes, bytes] = {}
        for name, value in self.scope["headers"]:
            headers.setdefault(name, value)
        guard.asking += 1
        try:
            guard.check(self.scope, headers)
            await self.answer(headers)
        except Refused as refused:
            await self.refuse(refused)
        except ClientGone:
            self.status = self.status or 499
        finally:
            guard.asking -= 1
            guard.body_bytes -= self.size
            route = getattr(self.scope.get("route"), "path", None) or "none"
            seconds = time.monotonic() - started
            guard.metrics.answered(route, self.status, seconds)
            log.info(
                json.dumps(
                    {
                        "time": round(time.time(), 3),
                        "request": self.name,
                        "method": self.scope["method"] if len(self.scope["method"]) < 10 else "?",
                        "route": route,
                        "status": self.status,
                        "ms": round(1000 * seconds, 1),
                        "in": self.size,
                        "out": self.sent,
                    }
                )
            )

    async def answer(self, headers: dict[bytes, bytes]) -> None:
        """Read the body and have the request answered, as long as its client waits for it."""
        body = await self.read(headers)
        leaving = asyncio.create_task(self.leave())
        working = asyncio.create_task(self.work(body))
        try:
            await asyncio.wait(
                {leaving, working},
                timeout=self.guard.limits.seconds + GRACE_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if leaving.done() and not working.done():
                raise ClientGone
            if not working.done():
                raise Refused(
                    503,
                    f"It took longer than {self.guard.limits.seconds:g} s.",
                    "deadline",
                    headers={"Retry-After": "5"},
                )
            try:
                working.result()
            except (Refused, ClientGone):
                raise
            except Exception as error:
                log.error(json.dumps({"request": self.name, "error": error_location(error)}))
                raise Refused(
                    500, f"This is a fault of the server. Its log says more of request {self.name}.", "fault"
                ) from None
        finally:
            for task in (leaving, working):
                task.cancel()
            await asyncio.gather(leaving, working, return_exceptions=True)

    async def read(self, headers: dict[bytes, bytes]) -> bytes:
        """Whole body of the request.

        Raises:
            Refused: it is too large.
            ClientGone: the client has left.
        """
        limits, pieces = self.guard.limits, []
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limits.body:
            raise Refused(413, f"A request may have {limits.body >> 20} MiB.", "size", headers={"Connection": "close"})
        plain = b"multipart/" not in headers.get(b"content-type", b"")
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            self.size += len(piece)
            self.guard.body_bytes += len(piece)
            if self.size > limits.body:
                raise Refused(
                    413, f"A request may have {limits.body >> 20} MiB.", "size", headers={"Connection": "close"}
                )
            if self.guard.body_bytes > limits.bodies:
                raise Refused(
                    429,
                    "Too much is being read at once. Try again.",
                    "busy",
                    headers={"Retry-After": "2", "Connection": "close"},
                )
            if plain:  # whose numbers are read while nobody else is answered
                self.values += piece.count(b",") + piece.count(b"[") + piece.count(b"{")
                if self.values > limits.values:
                    raise Refused(
                        413, f"A request may have {limits.values:,} values.", "size", headers={"Connection": "close"}
                    )
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)

    async def leave(self) -> None:
        """Wait until the client has left."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.gone.set()

    async def work(self, body: bytes) -> None:
        """Run the application with the body that was read."""
        given = False

        async def receive() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        await self.guard.app(self.scope, receive, self.send)

    async def send(self, message: Message) -> None:
        """Send what is answered, with our headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in message.get("headers", ())}
            message = {
                **message,
                "headers": [
                    *message.get("headers", ()),
                    *((name, value) for name, value in HEADERS if name not in own),
                    (b"x-request-id", self.name.encode()),
                ],
            }
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                await self.reply(message)
        except TimeoutError:  # who doesn't read the answer doesn't hold a place
            raise ClientGone from None

    async def refuse(self, refused: Refused) -> None:
        """Send an error, if nothing was answered yet."""
        if self.status:
            return
        body = refused.body()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in refused.headers.items()),
        ]
        await self.send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class ClientGone(Exception):
    """Error: the client has left."""


def bare(host: str) -> str:
    """Name of a host without its port, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
