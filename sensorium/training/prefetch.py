"""Prefetching: the next batches are made in a thread while the network learns."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import torch


class Prefetcher:
    """Prefetching of batches in a thread, while the network learns, so that training doesn't wait for data.

    That thread computes with one core: OpenMP gives each thread a team of its own, and two teams that spin on the same
    cores cost a training step a fifth of its speed.
    """

    def __init__(self, make: Callable[[int], Any], step: int, depth: int = 3) -> None:
        self.queue: queue.Queue[Any] = queue.Queue(depth)
        self.closed = threading.Event()
        self.threads = torch.get_num_threads()
        self.thread = threading.Thread(target=self.work, args=(make, step), daemon=True, name="batches")
        self.thread.start()

    def work(self, make: Callable[[int], Any], step: int) -> None:
        torch.set_num_threads(1)
        while not self.closed.is_set():
            try:
                item = make(step)
            except BaseException as error:  # handed to the thread that waits
                item = error
            while not self.closed.is_set():
                try:
                    self.queue.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return
            step += 1

    def next(self) -> Any:
        """Batch of the next step; an error met while making it is raised here."""
        item = self.queue.get()
        if self.threads:  # one of torch's two kinds of number is the whole process's, and the other thread has set it
            torch.set_num_threads(self.threads)
            self.threads = 0
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stop making batches."""
        self.closed.set()
        self.thread.join(timeout=10)
