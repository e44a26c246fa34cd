"""Decoder pool: files of requests are decoded in processes of their own, with little memory and little time.

A file that breaks a decoder breaks nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.serve.process import Process, ProcessDied

log = logging.getLogger("sensorium.serve")

MAX_MEMORY = 1 << 30
"""Bytes that a decoder may take beside what it began with."""
MAX_SECONDS = 10.0
"""Until a file must be decoded."""


class Unreadable(Exception):
    """Cell that can't be read; says why."""


class DecoderPool:
    """Pool of decoder processes, in which a broken one is replaced.

    Args:
        run: the folder of the model whose columns' files are decoded.
        count: decoders.
        seconds, memory: what one file may take.
    """

    def __init__(self, run: Path, count: int = 1, seconds: float = MAX_SECONDS, memory: int = MAX_MEMORY) -> None:
        self.seconds = seconds
        self.decoders = [
            Process(f"decoder-{n}", begin, (str(run), memory), ("sensorium.serve.preload",)) for n in range(count)
        ]
        self.free: asyncio.Queue[Process] = asyncio.Queue()

    async def start(self) -> None:
        """Start all decoders."""
        await asyncio.gather(*(decoder.start() for decoder in self.decoders))
        for decoder in self.decoders:
            self.free.put_nowait(decoder)

    async def read(self, column: str, data: bytes) -> np.ndarray:
        """Decoded file, as its column's modality reads it.

        Raises:
            Unreadable: it can't be, or it takes too much.
        """
        decoder = await self.free.get()
        task = asyncio.create_task(self.decode(decoder, column, data))
        result = await asyncio.shield(task)  # who leaves meanwhile doesn't break a decoder
        if "bad" in result:
            raise Unreadable(result["bad"])
        return result["read"]

    async def decode(self, decoder: Process, column: str, data: bytes) -> dict[str, Any]:
        """Result of a decoder for a file, ``{"read": …}`` or ``{"bad": why}``; the decoder is free afterwards."""
        try:
            if not decoder.alive:
                await decoder.start()
            return await decoder.ask({"column": column, "data": data}, self.seconds)
        except ProcessDied:
            return {"bad": f"to decode it takes more than {self.seconds:g} s, or more memory than a file may"}
        except Exception as error:
            log.error("a decoder failed: %s", type(error).__name__)
            return {"bad": "it can't be decoded"}
        finally:
            self.free.put_nowait(decoder)

    def stop(self) -> None:
        """Stop all decoders."""
        for decoder in self.decoders:
            decoder.stop()


def begin(run: str, memory: int) -> tuple[Any, Any]:
    """Load the model's modalities in the child process; returns the function that decodes by them."""
    import torch

    from sensorium.core.errors import BadCell
    from sensorium.core.registry import name_of
    from sensorium.export.model_folder import read

    torch.set_num_threads(1)
    modalities = read(Path(run))[0].modalities
    limit(memory)

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"read": modalities[message["column"]].read(message["data"])}
        except BadCell as error:  # what a library says may hold addresses
            return {
                "bad": str(error)
                if error.__cause__ is None
                else f"no {name_of(modalities[message['column']])} can be read from this file"
            }

    return None, answer


def limit(memory: int) -> None:
    """Limit this process: from now on so much more memory, no files written and few opened."""
    try:
        import resource
    except ImportError:  # not on this system: the time limit is left
        return
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
