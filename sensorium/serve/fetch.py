"""Fetching of web addresses without request forgery (SSRF): nothing but public hosts is dialled.

A name is resolved once; the connection goes to the address that was checked, so that a second answer of the name's
server changes nothing (DNS rebinding), and every redirect is checked anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from urllib.parse import SplitResult, urljoin, urlsplit

MAX_BYTES, MAX_SECONDS, MAX_HOPS = 25 << 20, 10.0, 4
"""Bytes and seconds of one file, and redirects on the way to it."""
PORTS = {"http": 80, "https": 443}
CHUNK_BYTES = 1 << 16
IPV4_IN_IPV6 = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
"""Addresses of IPv6 that lead to ones of IPv4."""


class FetchRefused(Exception):
    """File that isn't fetched; says why, without addresses."""


async def fetch(address: str, seconds: float = MAX_SECONDS, most: int = MAX_BYTES) -> bytes:
    """Bytes at a web address.

    Raises:
        FetchRefused: no address of a public host, or the file is too large, too slow or not there.
    """
    stop = threading.Event()
    sockets: list[socket.socket] = []
    task = asyncio.get_running_loop().run_in_executor(
        None, follow, address, time.monotonic() + seconds, most, stop, sockets
    )
    try:
        async with asyncio.timeout(seconds + 1):
            return await asyncio.shield(task)
    except TimeoutError as error:
        raise FetchRefused(f"fetching it took more than {seconds:g} s") from error
    finally:
        stop.set()
        for one in sockets:  # a thread that still reads hears of it at once
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def follow(address: str, until: float, most: int, stop: threading.Event, sockets: list[socket.socket]) -> bytes:
    """Bytes at a web address, along redirects."""
    for _ in range(MAX_HOPS + 1):
        parts = checked(address)
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        connection = CheckedAddress(host, port, parts.scheme == "https", until, sockets)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(
                "GET", path, headers={"User-Agent": "sensorium", "Accept-Encoding": "identity", "Connection": "close"}
            )
            with connection.getresponse() as answer:
                if answer.status in (301, 302, 303, 307, 308):
                    address = urljoin(address, answer.headers.get("Location", ""))
                    continue
                if answer.status != 200:
                    raise FetchRefused(f"the host answers with {answer.status}")
                return body(answer, until, most, stop)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FetchRefused(
                "the host can't be reached" if time.monotonic() < until else "fetching it took too long"
            ) from error
        finally:
            connection.close()
    raise FetchRefused(f"it leads on more than {MAX_HOPS} times")


def checked(address: str) -> SplitResult:
    """Parts of an address that may be fetched.

    Raises:
        FetchRefused: it may not be.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise FetchRefused("this is no web address") from error
    if parts.scheme not in PORTS or not parts.hostname or parts.username is not None or parts.password is not None:
        raise FetchRefused(
            "only addresses that begin with http:// or https:// and name a host are fetched, without a user"
        )
    if port not in (None, 80, 443):
        raise FetchRefused("only the ports 80 and 443 are dialled")
    if any(ord(sign) <= 32 or ord(sign) > 126 for sign in address):
        raise FetchRefused("an address holds no spaces and only letters of ASCII, others as %XX")
    return parts


def body(answer: http.client.HTTPResponse, until: float, most: int, stop: threading.Event) -> bytes:
    """Body of a response, if it isn't too large.

    Raises:
        FetchRefused: it is, or it takes too long.
    """
    pieces, size = [], 0
    while piece := answer.read1(CHUNK_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise FetchRefused(f"it has more than {most >> 20} MiB")
        if time.monotonic() > until or stop.is_set():
            raise FetchRefused("fetching it took too long")
    return b"".join(pieces)


class CheckedAddress(http.client.HTTPConnection):
    """Connection that dials only public addresses, those that it checked."""

    def __init__(self, host: str, port: int, safe: bool, until: float, sockets: list[socket.socket]) -> None:
        super().__init__(host, port, timeout=max(0.1, until - time.monotonic()))
        self.safe, self.sockets = safe, sockets

    def connect(self) -> None:
        """Resolve the name, check every address, dial the first that answers."""
        found = public(self.host, self.port)
        for number, (family, place) in enumerate(found):
            dialled = socket.socket(family, socket.SOCK_STREAM)
            dialled.settimeout(self.timeout)
            self.sockets.append(dialled)
            try:
                dialled.connect(place)
            except OSError:
                dialled.close()
                if number + 1 == len(found):
                    raise
                continue
            self.sock = (
                ssl.create_default_context().wrap_socket(dialled, server_hostname=self.host) if self.safe else dialled
            )
            self.sockets.append(self.sock)
            return


def public(host: str, port: int) -> list[tuple[int, tuple]]:
    """Addresses of a host, if all of them are public.

    Raises:
        FetchRefused: one isn't, or the name has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchRefused("the host's name can't be resolved") from error
    if not found or not all(is_public(str(place[0])) for *_, place in found):
        raise FetchRefused("the host isn't a public one")
    return [(family, place) for family, *_, place in found]


def is_public(address: str) -> bool:
    """True if an IP address is one of the public internet, however it is written."""
    parsed = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        if any(parsed in network for network in IPV4_IN_IPV6) or parsed.is_site_local:
            return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved
