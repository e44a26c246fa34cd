"""A server in a process of its own, as a user starts it, and a way to ask it."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = tuple[int, Any, dict[str, str]]


class Served:
    """A server that runs.

    Attributes:
        port: where it listens. log: the file that it writes to. process: as it was started.
    """

    def __init__(self, *arguments: str, log: Path) -> None:
        self.log = log
        with open(log, "w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sensorium", "serve", *arguments, "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        line = self.process.stdout.readline()
        found = re.search(r"http://[^:]*:(\d+)/", line)
        if found is None:
            raise RuntimeError(f"the server said {line!r} and {log.read_text(encoding='utf-8')}")
        self.port = int(found[1])

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, seconds: float = 60
    ) -> Answer:
        """Status, body (JSON where it is) and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            sent = {} if body is None else {"content-type": "application/json"}
            connection.request(
                method,
                path,
                None if body is None else body if isinstance(body, bytes) else json.dumps(body),
                sent | (headers or {}),
            )
            answer = connection.getresponse()
            data = answer.read()
            kind = answer.headers.get("content-type", "")
            return (
                answer.status,
                json.loads(data) if kind.startswith("application/json") else data,
                {name.lower(): value for name, value in answer.headers.items()},
            )
        finally:
            connection.close()

    def post(self, path: str, **body: Any) -> Any:
        """The answer to a request that is right."""
        status, said, _ = self.ask("POST", path, body)
        assert status == 200, said
        return said

    def stop(self) -> int:
        """Ctrl-C, and the status it ends with."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Until something is so.

    Raises:
        AssertionError: it isn't, after so long.
    """
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)
