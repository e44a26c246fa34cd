"""Child processes that answer messages, one after the other.

A child can die or hang, and whoever asks learns of that at once. It may send pieces of its answer before all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sensorium.core.errors import UserError
from sensorium.serve.messages import pack, unpack

log = logging.getLogger("sensorium.serve")

START_SECONDS = 600.0
"""Seconds until a process must have started: a large model takes long to load."""

Answer = Callable[[Any], Any]


class ProcessDied(Exception):
    """Error: the process ended, or was ended as it took too long, while it was asked."""


class Process:
    """One child process.

    Args:
        name: for messages.
        begin: called in the child with ``arguments``; returns what it says of itself, and the function that answers.
        preload: modules that children share, so that the next one starts fast.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[..., tuple[Any, Answer]],
        arguments: tuple[Any, ...],
        preload: tuple[str, ...] = (),
    ) -> None:
        self.name, self.begin, self.arguments = name, begin, arguments
        self.about: Any = None
        self.starts = 0
        self.context = process_context(preload)
        self.threads = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.lock = asyncio.Lock()
        self.child: Any = None
        self.pipe: Any = None
        self.asked, self.sending = False, threading.Lock()

    @property
    def alive(self) -> bool:
        """True if it can be asked."""
        return self.pipe is not None and self.child.is_alive()

    async def start(self) -> Any:
        """Start the process; returns what it says of itself.

        Raises:
            UserError: what it was started with is wrong.
            ProcessDied: it ended.
        """
        self.stop()
        self.starts += 1
        self.pipe, theirs = self.context.Pipe()
        self.child = self.context.Process(
            target=_run, args=(theirs, self.begin, self.arguments), daemon=True, name=self.name
        )
        try:
            await asyncio.get_running_loop().run_in_executor(self.threads, self.child.start)
        finally:
            theirs.close()
        kind, content = await self._exchange(START_SECONDS)
        if kind == "refused":
            raise UserError(content)
        self.about = content
        return content

    async def ask(self, message: Any, seconds: float, on_piece: Callable[[Any], None] | None = None) -> Any:
        """Answer to one message; ``on_piece`` is called with each piece that comes before it.

        Raises:
            ProcessDied: it ended before it had answered, or it took longer than ``seconds`` and was ended.
            Interrupted: it was cancelled.
            CallFailed: it met an error of ours.
        """
        async with self.lock:
            if not self.alive:
                raise ProcessDied(self.name)
            self.asked = True
            try:
                kind, content = await self._exchange(seconds, pack(message), on_piece)
            except OSError as error:
                self.stop()
                raise ProcessDied(self.name) from error
            except asyncio.CancelledError:
                self.stop()  # its answer would be taken for that of the next message
                raise
            finally:
                self.asked = False
        if kind == "cancelled":
            raise Interrupted
        if kind != "answer":
            raise CallFailed(content)
        return content

    async def _exchange(
        self, seconds: float, message: bytes | None = None, on_piece: Callable[[Any], None] | None = None
    ) -> Any:
        pipe, loop = self.pipe, asyncio.get_running_loop()

        def exchange() -> Any:
            if message is not None:
                with self.sending:
                    pipe.send_bytes(message)
            while (reply := unpack(pipe.recv_bytes()))[0] == "piece":
                if on_piece is not None:
                    loop.call_soon_threadsafe(on_piece, reply[1])
            return reply

        exchanging = loop.run_in_executor(self.threads, exchange)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(exchanging)
        except TimeoutError as error:
            self.stop()
            with contextlib.suppress(OSError, EOFError):
                await exchanging
            raise ProcessDied(f"{self.name}: no answer in {seconds:g} s") from error
        except (EOFError, OSError) as error:
            self.stop()
            raise ProcessDied(self.name) from error

    def cancel(self) -> None:
        """Cancel what it answers, where it looks for that: nobody waits for it any more."""
        if self.asked and self.pipe is not None:
            with contextlib.suppress(OSError), self.sending:
                self.pipe.send_bytes(pack(CANCEL))

    def stop(self) -> None:
        """Kill it now."""
        pipe, self.pipe = self.pipe, None
        if pipe is None:
            return
        if self.child.pid is not None:
            self.child.kill()
            self.child.join(5)
        pipe.close()


class Interrupted(Exception):
    """Error: the process left off, as it was cancelled."""


class CallFailed(Exception):
    """Error of ours in the process, which it has written to its log; it goes on."""


def process_context(preload: tuple[str, ...]) -> Any:
    """Context that makes children: a fork server that has imported what they share, where the system has such."""
    start_method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(start_method)
    if start_method == "forkserver" and preload:
        context.set_forkserver_preload(list(preload))
    return context


CANCEL = ["cancel"]
"""The message that cancels."""
_pipe: Any = None
"""In a child: the pipe to who asks."""


def send_piece(piece: Any) -> None:
    """Send a piece of the answer from a child; elsewhere nothing happens."""
    if _pipe is not None:
        _pipe.send_bytes(pack(["piece", piece]))


def check_cancelled() -> None:
    """Leave off in a child where nobody waits for the answer any more.

    Raises:
        Interrupted: that is so.
    """
    if _pipe is not None and _pipe.poll():
        _pipe.recv_bytes()  # while it answers nothing else is sent
        raise Interrupted


def _run(pipe: Any, begin: Callable[..., tuple[Any, Answer]], arguments: tuple[Any, ...]) -> None:
    """Main loop of the child: begin, then answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us when all is answered
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        about, answer = begin(*arguments)
    except UserError as error:
        pipe.send_bytes(pack(["refused", str(error)]))
        return
    pipe.send_bytes(pack(["ready", about]))
    global _pipe  # noqa: PLW0603
    _pipe = pipe
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            message = unpack(pipe.recv_bytes())
            if message == CANCEL:  # it came when all was answered
                continue
            try:
                reply = pack(["answer", answer(message)])
            except Interrupted:
                reply = pack(["cancelled", None])
            except MemoryError:
                os._exit(9)  # what is left of its memory can't be trusted to answer
            except Exception as error:
                log.error(error_location(error))
                reply = pack(["failed", type(error).__name__])
            pipe.send_bytes(reply)


def error_location(error: BaseException) -> str:
    """Type of an error and the line it came from, without its message, which may quote what a user sent."""
    trace, line = error.__traceback__, ""
    while trace is not None:
        line = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {line}"
