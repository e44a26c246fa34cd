"""Who may ask, how much and how slowly; and what a server does when its parts break."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from live_server import Served, wait_until

KEY = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def locked(started: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A server that wants a key."""
    file = tmp_path_factory.mktemp("key") / "key"
    file.write_text(f"another-key-of-somebody-else\n{KEY}\n", encoding="utf-8")
    file.chmod(0o600)
    return started("--key-file", str(file), "--allow-host", "Model.Example", index=False)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/columns",
        "/ready",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/v1/models",
        "/table/rows",
        "/page/app.js",
        "/nothing",
        "//health",
        "/health/",
        "/HEALTH",
    ],
)
def test_every_route_but_health_wants_the_key(locked: Served, path: str) -> None:
    for header in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": KEY},
        {"authorization": "Bearer "},
        {"authorization": "Basic !!"},
        {"authorization": f"Digest {KEY}"},
    ):
        assert locked.ask("GET", path, headers=header)[0] == 401
    assert locked.ask("GET", "/health")[0] == 200


def test_the_key_is_a_bearers_or_a_password(locked: Served) -> None:
    basic = base64.b64encode(f"anybody:{KEY}".encode()).decode()
    for header in (f"Bearer {KEY}", f"bearer {KEY}", f"Basic {basic}", "Bearer another-key-of-somebody-else"):
        assert locked.ask("GET", "/columns", headers={"authorization": header})[0] == 200
    assert "Basic" in locked.ask("GET", "/")[2]["www-authenticate"]


def test_it_answers_to_its_names_only(locked: Served, served: Served) -> None:
    for name in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "127.0.0.1@evil.example"):
        assert served.ask("GET", "/health", headers={"host": name})[0] == 421
    for name in ("localhost:1", "LOCALHOST", "[::1]:80", "127.0.0.1"):
        assert served.ask("GET", "/health", headers={"host": name})[0] == 200
    assert locked.ask("GET", "/health", headers={"host": "model.example"})[0] == 200


def test_pages_of_other_sites_are_refused(served: Served) -> None:
    own = f"127.0.0.1:{served.port}"
    assert served.ask("GET", "/columns", headers={"origin": "http://evil.example"})[0] == 403
    assert served.ask("POST", "/predict", {}, headers={"origin": "null"})[0] == 403
    assert (
        served.ask("GET", "/columns", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"})[0] == 403
    )
    assert (
        served.ask(
            "GET", "/columns", headers={"origin": f"http://{own}", "host": own, "sec-fetch-site": "same-origin"}
        )[0]
        == 200
    )


def test_a_body_that_is_too_large_is_refused_while_it_is_read(served: Served) -> None:
    assert served.ask("POST", "/predict", headers={"content-length": str(33 << 20)})[0] == 413
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as one:
        one.sendall(
            b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: "
            b"chunked\r\n\r\n"
        )
        piece, sent, answer = b"100000\r\n" + b" " * (1 << 20) + b"\r\n", 0, b""
        try:
            while sent < 64:
                one.sendall(piece)
                sent += 1
        except OSError:
            pass
        try:
            answer = one.recv(1000)
        except OSError:
            assert sent < 60  # it hung up while we still sent
        assert (b" 413 " in answer or not answer) and sent < 64
    assert served.ask("GET", "/health")[0] == 200


def test_slow_senders_are_hung_up_on_and_hurt_nobody(served: Served) -> None:
    slow = [socket.create_connection(("127.0.0.1", served.port), timeout=60) for _ in range(500)]
    try:
        for number, one in enumerate(slow):
            one.sendall(
                b"POST /predict HTTP/1.1\r\nhost: localhost\r\n"
                + (b"content-length: 1000\r\n\r\n" if number % 2 else b"x-slow: ")
            )

        def ask(number: int) -> bool:
            return all(served.ask("GET", "/columns")[0] == 200 for _ in range(4))

        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            begun = time.monotonic()
            assert all(pool.map(ask, range(50)))
            took = time.monotonic() - begun
        held = slow[::2]  # those whose heads don't come to an end
        wait_until(lambda: not [held.remove(one) for one in list(held) if hung_up(one)] and not held, 30)
        assert took < 20
    finally:
        for one in slow:
            one.close()


def test_headers_behind_a_body_are_not_heard_out(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as one:
        one.sendall(b"POST /predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
        sent = 0
        with pytest.raises(OSError):
            while sent < 64 << 20:
                one.sendall(b"".join(b"x%d: y\r\n" % n for n in range(5000)))
                sent += 50_000
        assert sent < 16 << 20


def hung_up(one: socket.socket) -> bool:
    """Send one more byte, and see whether the server still listens."""
    try:
        one.sendall(b"x")
        one.setblocking(False)
        return one.recv(100) is not None
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        one.setblocking(True)


def test_a_model_that_dies_is_started_again_and_ctrl_c_lets_what_is_asked_be_answered(
    started: Callable[..., Served],
) -> None:
    server = started(index=False)
    body = {"rows": [{"name": "a red bar"}], "column": "picture", "samples": 64, "steps": 200}
    held: list[tuple[int, float]] = []

    def ask() -> None:
        status, _, _ = server.ask("POST", "/generate", body)
        held.append((status, time.monotonic()))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(1)
    begun = time.monotonic()
    for pid in model_processes(server.process.pid):
        os.kill(pid, signal.SIGKILL)
    thread.join(10)
    assert held and held[0][0] == 503 and held[0][1] - begun < 2
    wait_until(lambda: server.ask("GET", "/ready")[0] == 200, 60)
    assert server.post("/predict", rows=[{"name": "a red bar"}], column="colour")["answers"]
    thread = threading.Thread(
        target=lambda: held.append((server.ask("POST", "/generate", {**body, "samples": 32, "steps": 100})[0], 0.0))
    )
    thread.start()
    time.sleep(0.7)
    assert server.stop() == 0
    thread.join(5)
    assert held[1][0] == 200


def model_processes(server: int) -> list[int]:
    """The children that hold the model or decode: those of the process that the server makes its children from."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            continue
        found.append((int(pid), int(line[1])))
    makers = [pid for pid, parent in found if parent == server]
    return [pid for pid, parent in found if parent in makers]


def test_uploads_that_eat_memory_or_time_break_nothing(served: Served, shown: pa.Table) -> None:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = chunk(b"IHDR", (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0]))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000_000))) + chunk(b"IEND", b"")
    good = shown["picture"][3].as_py()
    for data in (
        bomb,
        good[: len(good) // 2],
        b"\x89PNG\r\n\x1a\n" + os.urandom(1000),
        b"<svg onload=alert(1)>",
        os.urandom(100_000),
    ):
        status, said, _ = served.ask(
            "POST", "/embed", {"rows": [{"picture": {"base64": base64.b64encode(data).decode()}}]}
        )
        assert status == 422 and said["error"]["message"].startswith("Row 0, column 'picture': ")
    assert served.post("/embed", rows=[{"picture": {"base64": base64.b64encode(good).decode()}}])["vectors"]


def test_errors_hold_no_addresses_and_no_traces(served: Served) -> None:
    answers = [
        served.ask("GET", path)
        for path in (
            "/nothing",
            "/table/file/9/x",
            "/table/rows?where=%27",
            "/v1/models/x",
            "/page/..%2f..%2fapp.py",
            "/page/%2e%2e/app.py",
        )
    ]
    answers += [
        served.ask("PUT", "/predict"),
        served.ask("POST", "/predict", b"{"),
        served.ask("POST", "/predict", {"rows": [{"x" * 500: 1}], "column": "name"}),
    ]
    for status, said, headers in answers:
        words = json.dumps(said)
        assert 400 <= status < 500 and not any(
            sign in words for sign in ("Traceback", ".py", "/tmp", "0x", "site-packages")
        ), words
        assert headers["content-security-policy"].startswith("default-src 'none'")


def test_each_client_gets_its_own_answer(served: Served) -> None:
    names = [f"tiny {colour} bar {number}" for number in range(40) for colour in ("red", "blue")]
    alone = {name: served.post("/embed", rows=[{"name": name}])["vectors"][0] for name in names[:10]}

    def ask(name: str) -> tuple[str, list[float]]:
        return name, served.post("/embed", rows=[{"name": name}])["vectors"][0]

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        together = dict(pool.map(ask, names))
    for name, vector in alone.items():
        assert max(abs(a - b) for a, b in zip(vector, together[name], strict=True)) < 1e-4
    _, text, _ = served.ask("GET", "/metrics")
    rows = float(
        next(line for line in text.decode().splitlines() if line.startswith("sensorium_batch_rows_sum")).split()[1]
    )
    batches = float(
        next(line for line in text.decode().splitlines() if line.startswith("sensorium_batch_rows_count")).split()[1]
    )
    assert rows > batches


@pytest.mark.parametrize(("arguments", "words"), [
    (["--host", "192.0.2.1"], "Give a key"),
    (["--host", "0.0.0.0", "--key-file", "KEY"], "--allow-host"),
    (["--key-file", "SHORT"], "at least 16 characters"),
    (["--key-file", "nowhere"], "can't be read"),
    (["--port", "70000"], "ports are 0 to 65535"),
    (["--workers", "0"], "at least 1"),
    (["--table", "nowhere.parquet"], "nowhere.parquet"),
])  # fmt: skip
def test_what_can_t_be_served_is_said_at_once(kept: tuple, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "KEY").write_text(KEY, encoding="utf-8")
    (tmp_path / "SHORT").write_text("short", encoding="utf-8")
    told = subprocess.run(
        [sys.executable, "-m", "sensorium", "serve", str(kept[0]), *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert told.returncode == 2 and words in told.stderr and "Traceback" not in told.stderr


def test_a_run_that_isn_t_one_and_an_index_of_another_are_said(kept: tuple, fitted: object, tmp_path: Path) -> None:
    for arguments, words in (([str(tmp_path)], "holds no model"), ([str(kept[0]), str(tmp_path)], "holds no index")):
        told = subprocess.run(
            [sys.executable, "-m", "sensorium", "serve", *arguments, "--port", "0"],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert told.returncode == 2 and words in told.stderr and "Traceback" not in told.stderr
