"""TODO: docstring."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class ProgressReporter:
    """Progress on stderr: bars on a terminal, a line now and then elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __enter__(self) -> ProgressReporter:
        from rich.console import Console

        self.console = Console(stderr=True, quiet=self.quiet)
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, words: str) -> None:
        """One line."""
        self.console.print(words, markup=False, highlight=False)

    @contextlib.contextmanager
    def bar(self, words: str, total: float) -> Iterator[Callable[..., None]]:
        """A function that is told of each advance (and words to show beside it)."""
        if self.quiet or not self.console.is_terminal:
            state = {"done": 0.0, "said": time.monotonic()}

            def advance(amount: float, note: str = "") -> None:
                state["done"] += amount
                if time.monotonic() - state["said"] > 30:
                    state["said"] = time.monotonic()
                    self.say(f"{words}: {state['done'] / max(total, 1e-9):.0%} {note}")

            yield advance
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
        ) as progress:
            task = progress.add_task(words, total=total, note="")
            yield lambda amount, note="": progress.update(task, advance=amount, note=note)
