"""Web addresses: nothing that isn't public is dialled, however it is named, and what is fetched is bounded."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sensorium.serve import fetch as fetching
from sensorium.serve.fetch import FetchRefused, fetch, is_public


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.5.5", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "224.0.0.1", "255.255.255.255", "192.0.2.1", "240.0.0.1",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:0:1::", "fec0::1",
    "2001:db8::1",
])  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", [
    "http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://2130706433/", "http://0x7f.1/",
    "http://0177.0.0.1/", "http://127.1/", "http://[::ffff:127.0.0.1]/",
    "http://169.254.169.254/latest/meta-data", "ftp://8.8.8.8/", "file:///etc/passwd", "gopher://8.8.8.8/",
    "http://8.8.8.8:22/", "http://user@8.8.8.8/", "http://user:pass@8.8.8.8/",
    "http:///", "http://", "http://8.8.8.8:x/", "http://8.8.8.8/a b", "http://8.8.8.8/\r\nx: y", "http://[",
    "http://ex\u00e4mple/", "http://a" + "a" * 300 + ".example/",
])  # fmt: skip
def test_addresses_that_are_never_dialled(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def dialled(*_: Any) -> None:
        raise AssertionError("it was dialled")

    monkeypatch.setattr(socket.socket, "connect", dialled)
    with pytest.raises(FetchRefused) as error:
        asyncio.run(fetch(address, 2))
    assert "127" not in str(error.value) and "8.8" not in str(error.value)


class Pages(http.server.BaseHTTPRequestHandler):
    """What the test's host answers."""

    def do_GET(self) -> None:
        match self.path.split("?")[0]:
            case "/file":
                self.answer(200, b"the file")
            case "/large":
                self.answer(200, b"x" * 5000)
            case "/away":
                self.answer(302, b"", location="/file")
            case "/inside":
                self.answer(302, b"", location="http://127.0.0.1:80/file")
            case "/round":
                self.answer(302, b"", location="/round")
            case "/slow":
                self.send_response(200)
                self.end_headers()
                for _ in range(40):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.1)
            case _:
                self.answer(404, b"")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A host named files.example, which the test alone takes for a public one; gives the names that were resolved."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asked: list[str] = []

    def resolved(name: str, port: int, **_: Any) -> list[Any]:
        asked.append(name)
        place = ("203.0.114.9", port) if name == "files.example" else (name, port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place)]

    real = socket.socket.connect
    monkeypatch.setattr(fetching.socket, "getaddrinfo", resolved)
    monkeypatch.setattr(
        socket.socket,
        "connect",
        lambda self, place: real(self, ("127.0.0.1", server.server_port) if place[0] == "203.0.114.9" else place),
    )
    yield asked
    server.shutdown()
    server.server_close()


def test_files_are_fetched_along_redirects_and_resolved_once_each(host: list[str]) -> None:
    assert asyncio.run(fetch("http://files.example/file")) == b"the file"
    assert asyncio.run(fetch("http://files.example/away?x=1")) == b"the file" and host == ["files.example"] * 3


@pytest.mark.parametrize(("path", "given", "words"), [
    ("/inside", {}, "isn't a public one"),
    ("/round", {}, "leads on"),
    ("/large", {"most": 1000}, "more than"),
    ("/nothing", {}, "answers with 404"),
    ("/slow", {"seconds": 0.5}, "too long|more than"),
])  # fmt: skip
def test_what_isn_t_fetched(host: list[str], path: str, given: dict[str, Any], words: str) -> None:
    begun = time.monotonic()
    with pytest.raises(FetchRefused, match=words):
        asyncio.run(fetch(f"http://files.example{path}", **given))
    assert time.monotonic() - begun < 3


def test_a_second_answer_of_the_name_server_changes_nothing(host: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["203.0.114.9", "127.0.0.1"])
    monkeypatch.setattr(
        fetching.socket,
        "getaddrinfo",
        lambda name, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))],
    )
    assert asyncio.run(fetch("http://files.example/file")) == b"the file"
    with pytest.raises(FetchRefused, match="isn't a public one"):
        asyncio.run(fetch("http://files.example/file"))
