"""Application of the server, and its start: ``sensorium serve``."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import os
import re
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from sensorium import __version__
from sensorium.core.errors import UserError
from sensorium.data.options import open_arguments
from sensorium.data.table import Table
from sensorium.serve.batcher import MAX_BATCH_ROWS, Batcher
from sensorium.serve.decoders import DecoderPool
from sensorium.serve.guard import Guard, Limits, Refused
from sensorium.serve.metrics import Metrics
from sensorium.serve.process import Process
from sensorium.serve.routes import route_modules
from sensorium.serve.server import Server
from sensorium.serve.timeouts import timed
from sensorium.serve.worker import begin

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIN_KEY_LENGTH = 16
"""Characters of a key."""
MAX_FILES = 65_536
"""Open files, and so connections, that are asked of the system."""
BACKLOG = 2048
"""Connections that may wait to be taken."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of ``sensorium serve``.

    Attributes:
        run: the model's folder.
        index: of its rows.
        table: what the page shows, and ``table_rows`` name.
        host, port: where it listens.
        hosts: more names under which it may be called.
        key_file: a key a line.
        workers: processes with the model.
        fetching: whether web addresses in requests are fetched.
        seconds: until a request must be answered.
        device: where the model is.
        batch: rows that are asked together.
    """

    run: Path
    index: Path | None = None
    table: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    hosts: Sequence[str] = ()
    key_file: Path | None = None
    workers: int = 1
    fetching: bool = False
    seconds: float = 60.0
    device: str | None = None
    batch: int = MAX_BATCH_ROWS


def limits_of(settings: Settings) -> Limits:
    """Limits on who may ask: closed unless it is opened.

    Raises:
        UserError: another address than loopback without a key, or a key file that holds none.
    """
    keys = keys_in(settings.key_file) if settings.key_file is not None else ()
    if settings.host not in LOOPBACK and not keys:
        raise UserError(
            f"--host {settings.host}: whoever reaches that address could ask this model. Give a key: "
            "--key-file FILE, which holds one. To make one: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))" > FILE'
        )
    if settings.host in ("0.0.0.0", "::") and not settings.hosts:
        raise UserError(
            f"--host {settings.host} listens on every address: say by which names the server is called: "
            "--allow-host NAME, once for each."
        )
    hosts = {*(LOOPBACK if settings.host in LOOPBACK else (settings.host,)), *settings.hosts}
    return Limits(
        seconds=settings.seconds,
        keys=keys,
        hosts=frozenset(f"[{host}]" if ":" in host and not host.startswith("[") else host.lower() for host in hosts),
    )


def keys_in(path: Path) -> tuple[bytes, ...]:
    """Hashes of a file's keys, one a line."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise UserError(
            f"--key-file {path} can't be read: {getattr(error, 'strerror', None) or 'it is no text'}."
        ) from error
    if not lines or min(map(len, lines)) < MIN_KEY_LENGTH:
        raise UserError(
            f"--key-file {path}: a key has at least {MIN_KEY_LENGTH} characters, one key a line; "
            + (f"the shortest has {min(map(len, lines))}." if lines else "it is empty.")
        )
    if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH):
        print(f"'{path}' can be read by others on this machine. Close it: chmod 600 {path}", file=sys.stderr)
    return tuple(hashlib.sha256(line.encode()).digest() for line in lines)


def application(settings: Settings, **changed: Any) -> tuple[Any, Server]:
    """ASGI application, routes behind the guard, and their state, which is to be started.

    ``changed``: limits that differ.
    """
    limits, metrics = dataclasses.replace(limits_of(settings), **changed), Metrics()
    threads = max(1, (os.cpu_count() or 1) // settings.workers)
    arguments = (
        str(settings.run),
        None if settings.index is None else str(settings.index),
        settings.table,
        threads,
        settings.device,
    )
    workers = [Process(f"model-{n}", begin, arguments, ("sensorium.serve.preload",)) for n in range(settings.workers)]
    batcher = Batcher(workers, settings.batch, watch=metrics.batch)
    table = None if settings.table is None else Table.open(settings.table, **open_arguments(settings.run))
    server = Server(
        re.sub(r"[^\w.-]", "-", settings.run.resolve().name),
        limits,
        metrics,
        batcher,
        DecoderPool(settings.run, 1 + settings.workers),
        table,
        settings.fetching,
        settings.run,
    )
    metrics.gauge("waiting", "Requests that wait for the model.", lambda: batcher.count)
    metrics.gauge(
        "restarts",
        "Times that a model's process was started again.",
        lambda: sum(max(0, worker.starts - 1) for worker in workers),
    )

    app = FastAPI(
        title="Sensorium",
        version=__version__,
        description="One model of a table: any column finds, predicts or generates any other.",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    router = APIRouter()
    for module in route_modules().values():
        if hasattr(module, "add_routes"):
            module.add_routes(router, server)
    app.include_router(router)

    def error_response(refused: Refused) -> Response:
        return Response(refused.body(), refused.status, refused.headers, "application/json")

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")[:200]
        if "json" not in request.headers.get("content-type", "") and tuple(first["loc"]) == ("body",):
            return error_response(
                Refused(415, "Send JSON, and say so: -H 'content-type: application/json'.", "request")
            )
        words = "this is no JSON" if first["type"] == "json_invalid" else first["msg"]
        return error_response(
            Refused(
                422,
                f"{place}: {words}" if place and first["type"] != "json_invalid" else words,
                "request",
                place or None,
            )
        )

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        words = {
            404: "There is nothing at this path. See /docs for what there is.",
            405: "This path is asked in another way. See /docs.",
            400: "The body can't be read as JSON.",
        }
        return error_response(
            Refused(
                error.status_code,
                words.get(error.status_code, "The request can't be answered."),
                None,
                headers=dict(error.headers or {}),
            )
        )

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return error_response(Refused(500, "This is a fault of the server. Its log says more.", "fault"))

    return Guard(app, limits, metrics), server


def serve(settings: Settings) -> None:
    """Serve until Ctrl-C, which lets what is being answered be finished.

    Raises:
        UserError: what was asked can't be: no model, an open address without a key, a port that is taken.
    """
    if not (settings.run / "model.json").is_file():
        raise UserError(f"'{settings.run}' holds no model. A run's folder is wanted, as fit wrote it.")
    if settings.index is not None and not (settings.index / "index.json").is_file():
        raise UserError(
            f"'{settings.index}' holds no index. Make one with: sensorium index {settings.run} TABLE --out "
            f"{settings.index}"
        )
    if settings.workers < 1 or settings.batch < 1 or settings.seconds <= 0:
        raise UserError(
            f"--workers {settings.workers} --batch {settings.batch} --deadline {settings.seconds:g}: each is "
            "at least 1."
        )
    app, server = application(settings)
    bound = bind(settings.host, settings.port)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    more_files()

    class Announced(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            host, port = bound.getsockname()[:2]
            print(
                f"Sensorium answers at http://{f'[{host}]' if ':' in host else host}:{port}/ with "
                f"'{server.name}'. Ctrl-C ends it.",
                flush=True,
            )

    async def answer() -> None:
        try:
            print(f"Loading '{server.name}' …", file=sys.stderr)
            await server.start()
            if elsewhere := (server.about["index"] or {}).get("elsewhere"):
                print(
                    f"{elsewhere:,} rows of '{settings.index}' are not those of '{settings.table}': they are "
                    "found, but not shown. Make the index of that table, with --key to tell rows by.",
                    file=sys.stderr,
                )
            await Announced(
                uvicorn.Config(
                    app,
                    http=timed(),
                    ws="none",
                    lifespan="off",
                    log_level="warning",
                    access_log=False,
                    server_header=False,
                    timeout_keep_alive=30,
                    timeout_graceful_shutdown=30,
                    proxy_headers=False,
                    backlog=BACKLOG,
                )
            ).serve([bound])
        finally:
            await server.stop()

    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(answer())


def fast_loop() -> Any:
    """Factory of a faster event loop than Python's; None where it isn't installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def bind(host: str, port: int) -> socket.socket:
    """Socket bound to an address; nobody reaches it before it listens.

    Raises:
        UserError: the address can't be had.
    """
    if not 0 <= port < 65_536:
        raise UserError(f"--port {port}: ports are 0 to 65535; 0 takes a free one.")
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        one = socket.socket(family, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(place)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port} can't be listened on: {error.strerror or error}. Choose another: "
            "--port 0 takes a free one."
        ) from error
    return one


def more_files() -> None:
    """Ask the system for as many open files as connections may need."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
