"""Progress reports on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator


class ProgressReporter:
    """Progress reports on stderr: bars on a terminal, a line now and then elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __enter__(self) -> ProgressReporter:
        from rich.console import Console

        self.console = Console(stderr=True, quiet=self.quiet)
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def log(self, words: str) -> None:
        """Print one line."""
        self.console.print(words, markup=False, highlight=False)

    @contextlib.contextmanager
    def bar(self, words: str, total: float) -> Generator[Callable[..., None]]:
        """Context of a progress bar: gives a function to call with each advance, and a note to display beside it."""
        if self.quiet or not self.console.is_terminal:
            state = {"done": 0.0, "logged": time.monotonic()}

            def advance(amount: float, note: str = "") -> None:
                state["done"] += amount
                if time.monotonic() - state["logged"] > 30:
                    state["logged"] = time.monotonic()
                    self.log(f"{words}: {state['done'] / max(total, 1e-9):.0%} {note}")

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
