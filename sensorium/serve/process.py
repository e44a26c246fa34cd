"""A child process that answers messages, one after the other: it can die or hang, and whoever asks hears of that at once. What it ``tell``s meanwhile is heard before its answer."""

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

PATIENCE = 600.0
"""Seconds until a process must have begun: a large model takes long to load."""

Answer = Callable[[Any], Any]


class ProcessDied(Exception):
    """The process ended, or was ended as it took too long, while it was asked."""


class Process:
    """One child.

    Args:
        name: for messages. begin: called in the child with ``arguments``; gives what it says of itself, and the function that answers.
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
        self.context = children(preload)
        self.threads = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.lock = asyncio.Lock()
        self.child: Any = None
        self.pipe: Any = None
        self.asked, self.sending = False, threading.Lock()

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.pipe is not None and self.child.is_alive()

    async def start(self) -> Any:
        """Begin, and hear what it says of itself.

        Raises:
            UserError: what it began with is wrong. Died: it ended.
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
        kind, said = await self._hear(PATIENCE)
        if kind == "refused":
            raise UserError(said)
        self.about = said
        return said

    async def ask(self, message: Any, seconds: float, heard: Callable[[Any], None] | None = None) -> Any:
        """One message's answer; ``heard`` is told what comes before it.

        Raises:
            Died: the process ended before it had answered, or it took longer than ``seconds`` and was ended. Cut: it was told to leave off.
        """
        async with self.lock:
            if not self.alive:
                raise ProcessDied(self.name)
            self.asked = True
            try:
                kind, said = await self._hear(seconds, pack(message), heard)
            except OSError as error:
                self.stop()
                raise ProcessDied(self.name) from error
            except asyncio.CancelledError:
                self.stop()  # its answer would be taken for that of the next message
                raise
            finally:
                self.asked = False
        if kind == "cut":
            raise Interrupted
        if kind != "answer":
            raise CallFailed(said)
        return said

    async def _hear(
        self, seconds: float, message: bytes | None = None, heard: Callable[[Any], None] | None = None
    ) -> Any:
        pipe, loop = self.pipe, asyncio.get_running_loop()

        def exchange() -> Any:
            if message is not None:
                with self.sending:
                    pipe.send_bytes(message)
            while (said := unpack(pipe.recv_bytes()))[0] == "told":
                if heard is not None:
                    loop.call_soon_threadsafe(heard, said[1])
            return said

        hearing = loop.run_in_executor(self.threads, exchange)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(hearing)
        except TimeoutError as error:
            self.stop()
            with contextlib.suppress(OSError, EOFError):
                await hearing
            raise ProcessDied(f"{self.name}: no answer in {seconds:g} s") from error
        except (EOFError, OSError) as error:
            self.stop()
            raise ProcessDied(self.name) from error

    def cut(self) -> None:
        """Let it leave off what it answers, where it says it piece by piece: nobody waits for it any more."""
        if self.asked and self.pipe is not None:
            with contextlib.suppress(OSError), self.sending:
                self.pipe.send_bytes(pack(CUT))

    def stop(self) -> None:
        """End it now."""
        pipe, self.pipe = self.pipe, None
        if pipe is None:
            return
        if self.child.pid is not None:
            self.child.kill()
            self.child.join(5)
        pipe.close()


class Interrupted(Exception):
    """The process left off, as it was told."""


class CallFailed(Exception):
    """The process met an error of ours, which it has written to its log; it goes on."""


def children(preload: tuple[str, ...]) -> Any:
    """How children are made: from a server that has imported what they share, where the system has such."""
    way = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(way)
    if way == "forkserver" and preload:
        context.set_forkserver_preload(list(preload))
    return context


CUT = ["cut"]
"""What a process is told that is to leave off."""
_ours: Any = None
"""In a child: the pipe to who asks."""


def tell(piece: Any) -> None:
    """In a child: something that is heard before the answer; elsewhere nobody hears it."""
    if _ours is not None:
        _ours.send_bytes(pack(["told", piece]))


def go_on_or_cut() -> None:
    """In a child: leave off where nobody waits for the answer any more.

    Raises:
        Cut: that is so.
    """
    if _ours is not None and _ours.poll():
        _ours.recv_bytes()  # while it answers nothing else is sent
        raise Interrupted


def _run(pipe: Any, begin: Callable[..., tuple[Any, Answer]], arguments: tuple[Any, ...]) -> None:
    """The child: begin, then answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us when all is answered
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        about, answer = begin(*arguments)
    except UserError as error:
        pipe.send_bytes(pack(["refused", str(error)]))
        return
    pipe.send_bytes(pack(["ready", about]))
    global _ours  # noqa: PLW0603
    _ours = pipe
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            message = unpack(pipe.recv_bytes())
            if message == CUT:  # it came when all was said
                continue
            try:
                said = pack(["answer", answer(message)])
            except Interrupted:
                said = pack(["cut", None])
            except MemoryError:
                os._exit(9)  # what is left of its memory can't be trusted to answer
            except Exception as error:
                log.error(where(error))
                said = pack(["failed", type(error).__name__])
            pipe.send_bytes(said)


def where(error: BaseException) -> str:
    """The kind of an error and the line of ours it came from, without what it says, which may quote what a user sent."""
    trace, line = error.__traceback__, ""
    while trace is not None:
        line = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {line}"
