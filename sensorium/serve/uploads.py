"""Files that a request holds are decoded in processes of their own, with little memory and little time: a file that breaks a decoder breaks nothing else."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.serve.process import Died, Failed, Process

MEMORY = 1 << 30
"""Bytes that a decoder may take beside what it began with."""
SECONDS = 10.0
"""Until a file must be decoded."""


class Unreadable(Exception):
    """A cell that can't be read; says why."""


class Uploads:
    """Decoders, of which a broken one is replaced.

    Args:
        run: the folder of the model whose columns' files are decoded. count: decoders. seconds, memory: what one file may take.
    """

    def __init__(self, run: Path, count: int = 1, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self.seconds = seconds
        self.decoders = [Process(f"decoder-{n}", begin, (str(run), memory), ("sensorium.serve.preload",)) for n in range(count)]
        self.free: asyncio.Queue[Process] = asyncio.Queue()

    async def start(self) -> None:
        """Begin all."""
        await asyncio.gather(*(decoder.start() for decoder in self.decoders))
        for decoder in self.decoders:
            self.free.put_nowait(decoder)

    async def read(self, column: str, data: bytes) -> np.ndarray:
        """A file as what its column's modality reads.

        Raises:
            Unreadable: it can't be, or it takes too much.
        """
        return await asyncio.shield(self._read(column, data))  # who leaves meanwhile doesn't break a decoder

    async def _read(self, column: str, data: bytes) -> np.ndarray:
        decoder = await self.free.get()
        try:
            if not decoder.alive:
                await decoder.start()
            said = await decoder.ask({"column": column, "data": data}, self.seconds)
        except Died as error:
            raise Unreadable(f"to decode it takes more than {self.seconds:g} s, or more memory than a file may") from error
        except Failed as error:
            raise Unreadable("it can't be decoded") from error
        finally:
            self.free.put_nowait(decoder)
        if "bad" in said:
            raise Unreadable(said["bad"])
        return said["read"]

    def stop(self) -> None:
        """End all."""
        for decoder in self.decoders:
            decoder.stop()


def begin(run: str, memory: int) -> tuple[Any, Any]:
    """In the child: the model's modalities, and what they read."""
    import torch

    from sensorium.core.errors import BadCell
    from sensorium.kept import read

    torch.set_num_threads(1)
    modalities = read(Path(run))[0].modalities
    limit(memory)

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"read": modalities[message["column"]].read(message["data"])}
        except BadCell as error:
            return {"bad": str(error)}

    return None, answer


def limit(memory: int) -> None:
    """From now on take no more than so much memory, write no files and open few."""
    try:
        import resource
    except ImportError:  # not on this system: the time limit is left
        return
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
