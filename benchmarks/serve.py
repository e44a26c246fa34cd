"""The server under load: waiting requests asked together against one after the other, and a thousand connections of
mixed requests.

The model has the usual sizes and has learned next to nothing: what it says doesn't matter here, only that each client
gets what belongs to its own question.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import Comparison, Metric, Side

ROWS, NAMES, SHOWN = 256, 400, 7000
CLIENTS, SECONDS = 32, 15.0
CONNECTIONS, EACH, QUICK = 1000, 20, 100
WORDS = (
    "red",
    "green",
    "old",
    "new",
    "round",
    "long",
    "small",
    "huge",
    "quiet",
    "loud",
    "bar",
    "disc",
    "house",
    "tree",
    "boat",
    "bird",
)


def comparisons(quick: bool) -> list[Comparison]:
    """Throughput together and alone, and what a thousand connections meet."""
    seconds = SECONDS / 5 if quick else SECONDS
    found = [
        Comparison(
            name=f"{verb}, {CLIENTS} clients",
            metrics=(Metric(key="requests/s", unit="requests/s", less=False, wanted=4.0), Metric(key="p50", unit="ms")),
            ours=Side(run="together", arguments={"verb": verb, "batch": 64, "seconds": seconds}, needs=("fastapi",)),
            peers={
                "one at a time": Side(
                    run="together", arguments={"verb": verb, "batch": 1, "seconds": seconds}, needs=("fastapi",)
                )
            },
            repeats=1 if quick else 3,
        )
        for verb in ("embed", "predict")
    ]
    found.append(
        Comparison(
            name=f"the page, {SHOWN:,} rows",
            metrics=(Metric(key="first view", unit="s", limit=1.5), Metric(key="filled", unit="s", limit=0.3)),
            ours=Side(run="page", needs=("fastapi", "playwright")),
            repeats=1 if quick else 3,
        )
    )
    return [
        *found,
        Comparison(
            name=f"{QUICK if quick else CONNECTIONS} connections, {EACH} mixed requests each",
            metrics=(
                Metric(key="wrong", unit="", limit=0),
                Metric(key="resets", unit="", limit=0),
                Metric(key="other statuses", unit="", limit=0),
                Metric(key="answered", unit="", less=False),
                Metric(key="memory", unit="MB more"),
                Metric(key="back after", unit="s", limit=10),
            ),
            ours=Side(run="load", arguments={"connections": QUICK if quick else CONNECTIONS}, needs=("fastapi",)),
            repeats=1,
        ),
    ]


# --- a server ---------------------------------------------------------------------------------------------------------


def name_of(number: int) -> str:
    """A text for each number, all different."""
    return " ".join(WORDS[number // 16**place % 16] for place in range(3)) + f" {number}"


def picture_of(number: int) -> bytes:
    """A drawing for each number, as PNG."""
    from PIL import Image, ImageDraw

    image, out = Image.new("RGB", (48, 48), "white"), io.BytesIO()
    x, y = number % 20 + 4, number // 20 % 20 + 4
    ImageDraw.Draw(image).ellipse([x, y, x + 12, y + 16], fill=(number * 37 % 256, number * 91 % 256, 60))
    image.save(out, "PNG")
    return out.getvalue()


def table(rows: int = ROWS) -> Any:
    """Rows of a picture, a text and a category."""
    import pyarrow as pa

    return pa.table(
        {
            "photo": [picture_of(n) for n in range(rows)],
            "name": [name_of(n) for n in range(rows)],
            "kind": [WORDS[n % 7] for n in range(rows)],
        }
    )


@contextlib.contextmanager
def server(batch: int, shown: int = 0) -> Iterator[tuple[int, int]]:
    """A server of a model that has seen the table once, with an index and perhaps a table of so many rows to show: its
    port and its process.
    """
    import pyarrow.parquet as pq

    import sensorium.fit.stages
    from sensorium.model import Model

    with tempfile.TemporaryDirectory() as folder:
        sensorium.fit.stages.report = lambda *given, **named: None
        model = Model.fit(
            table(),
            out=f"{folder}/run",
            epochs=1,
            settings=["baselines.share=0", "trackers=none", "questions.generate=photo"],
        )
        model.index(table(), f"{folder}/index")
        if shown:
            pq.write_table(table(shown), f"{folder}/shown.parquet")
        with open(f"{folder}/log", "w", encoding="utf-8") as log:
            started = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "sensorium",
                    "serve",
                    f"{folder}/run",
                    f"{folder}/index",
                    "--port",
                    "0",
                    "--batch",
                    str(batch),
                    *(["--table", f"{folder}/shown.parquet"] if shown else []),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            try:
                line = started.stdout.readline()
                yield int(re.search(r":(\d+)/", line)[1]), started.pid
            finally:
                started.send_signal(signal.SIGINT)
                started.wait(60)


def memory(process: int) -> float:
    """Megabytes of a process and all that came of it."""
    parents, sizes = {}, {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(pid)] = int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[1])
            found = re.search(
                r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"), re.MULTILINE
            )
            sizes[int(pid)] = int(found[1]) / 1024 if found else 0.0
        except OSError:
            continue
    family = {process}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(sizes.get(pid, 0.0) for pid in family)


# --- clients ----------------------------------------------------------------------------------------------------------


class Client:
    """One connection that is kept, asked one request after the other."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON.

        Raises:
            ConnectionError, asyncio.IncompleteReadError: the server hung up in the middle.
        """
        if self.reader is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = json.dumps(body).encode()
        self.writer.write(
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
            f"{len(data)}\r\n\r\n".encode()
            + data
        )
        await self.writer.drain()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        said = await self.reader.readexactly(int(length[1]))
        if "connection: close" in head:
            self.close()
        return int(head.split()[1]), json.loads(said)

    def close(self) -> None:
        """Hang up."""
        if self.reader is not None:
            self.writer.close()
            self.reader = None


def question(verb: str, number: int) -> tuple[str, dict[str, Any]]:
    """The path and the body of a request."""
    match verb:
        case "embed":
            return "/embed", {"rows": [{"name": name_of(number)}]}
        case "look":
            return "/embed", {"rows": [{"photo": {"base64": base64.b64encode(picture_of(number)).decode()}}]}
        case "predict":
            return "/predict", {"rows": [{"name": name_of(number)}], "column": "kind"}
        case "search":
            return "/search", {"query": {"name": name_of(number)}, "k": 3}
        case _:
            return "/v1/embeddings", {"model": "run", "input": name_of(number)}


def essence(said: Any) -> list[float]:
    """The numbers of an answer, which tell it from others."""
    if isinstance(said, dict):
        return [
            value
            for name in sorted(said)
            if name not in ("usage", "tokens", "created")
            for value in essence(said[name])
        ]
    if isinstance(said, list):
        return [value for one in said for value in essence(one)]
    return [float(said)] if isinstance(said, int | float) else []


def together(verb: str, batch: int, seconds: float) -> dict[str, float]:
    """Requests a second and the median of their times, with many clients that each ask again and again."""

    async def measure(port: int) -> dict[str, float]:
        times: list[float] = []

        async def client(number: int, until: float) -> None:
            one = Client(port)
            while time.monotonic() < until:
                number = (number + 32) % NAMES
                begun = time.monotonic()
                status, said = await one.post(*question(verb, number))
                if status != 200:
                    raise RuntimeError(f"{status}: {said}")
                times.append(time.monotonic() - begun)
            one.close()

        await asyncio.gather(*(client(n, time.monotonic() + 2) for n in range(CLIENTS)))
        times.clear()
        await asyncio.gather(*(client(n, time.monotonic() + seconds) for n in range(CLIENTS)))
        return {"requests/s": len(times) / seconds, "p50": 1000 * statistics.median(times)}

    with server(batch) as (port, _):
        return asyncio.run(measure(port))


def page() -> dict[str, float]:
    """Seconds until a browser that knows nothing of the page shows the first rows of a table, and from a click until a
    hidden category is filled; medians.
    """
    import shutil

    from playwright.sync_api import sync_playwright

    with server(64, SHOWN) as (port, _), sync_playwright() as playing:
        browser = playing.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))),
            args=["--no-sandbox"],
        )
        views, filled = [], []
        for turn in range(5):
            shown = browser.new_context().new_page()
            begun = time.monotonic()
            shown.goto(f"http://127.0.0.1:{port}/")
            shown.wait_for_selector(".rows .cell img")
            while not shown.evaluate(
                "[...document.querySelectorAll('.rows .cell img')].slice(0, 5).every(one => one.naturalWidth > 0)"
            ):
                pass
            views.append(time.monotonic() - begun)
            shown.locator(f".rows [data-place='{turn}'] .cell.category").click()
            filled.append(
                shown.evaluate("""() => new Promise(done => {
                const begun = performance.now(), look = new MutationObserver(() => {
                    if (!document.querySelector('.answer')) return;
                    look.disconnect();
                    done((performance.now() - begun) / 1000);
                });
                look.observe(document.getElementById('panel'), { childList: true, subtree: true });
                document.querySelector('#panel button.main').click();
            })""")
            )
            shown.context.close()
        browser.close()
        return {"first view": statistics.median(views), "filled": statistics.median(filled)}


def load(connections: int) -> dict[str, float]:
    """What many connections meet that each ask twenty different things at once."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    verbs = ("embed", "predict", "search", "openai", "look")

    async def measure(port: int, process: int) -> dict[str, float]:
        calm = Client(port)
        known = {
            (verb, n): essence((await calm.post(*question(verb, n)))[1]) for verb in verbs for n in range(0, NAMES, 10)
        }
        usual = statistics.median([await timed(calm, n) for n in range(20)])
        count = {"answered": 0, "wrong": 0, "resets": 0, "other statuses": 0, "refused": 0}

        async def client(number: int) -> None:
            nonlocal count
            one = Client(port)
            for turn in range(EACH):
                verb, name = verbs[(number + turn) % len(verbs)], (number * 7 + turn) % (NAMES // 10) * 10
                try:
                    status, said = await asyncio.wait_for(one.post(*question(verb, name)), 120)
                except (OSError, asyncio.IncompleteReadError, TimeoutError):
                    count["resets"] += 1
                    one.close()
                    continue
                if status in (429, 503):
                    count["refused"] += 1
                    await asyncio.sleep(0.2)
                elif status != 200:
                    count["other statuses"] += 1
                else:
                    count["answered"] += 1
                    right, found = known[verb, name], essence(said)
                    count["wrong"] += (
                        len(right) != len(found) or max(abs(a - b) for a, b in zip(right, found, strict=True)) > 0.01
                    )
            one.close()

        first = memory(process)
        await asyncio.gather(
            *(client(n) for n in range(connections))
        )  # what is taken once, for buffers and caches, is no leak
        count, before = dict.fromkeys(count, 0), memory(process)
        begun = time.monotonic()
        await asyncio.gather(*(client(n) for n in range(connections)))
        took, ended = time.monotonic() - begun, time.monotonic()
        calm.close()  # it was kept longer than a server keeps a connection that says nothing
        while statistics.median([await timed(calm, n) for n in range(5)]) > 2 * usual and time.monotonic() - ended < 60:
            await asyncio.sleep(0.2)
        back = time.monotonic() - ended
        print(json.dumps({**count, "seconds": round(took, 1)}), file=sys.stderr)
        return {
            **{name: float(count[name]) for name in ("answered", "wrong", "resets", "other statuses", "refused")},
            "memory": memory(process) - before,
            "memory at first": before - first,
            "back after": back,
        }

    async def timed(one: Client, number: int) -> float:
        begun = time.monotonic()
        await one.post(*question("embed", number))
        return time.monotonic() - begun

    with server(64) as (port, process):
        return asyncio.run(measure(port, process))
