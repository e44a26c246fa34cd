"""Dataset builders: tables that are built, not downloaded.

One file, one table; ``find(Builder, "emoji")`` gives its class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

Progress = Callable[[int, int], None]


class Builder(ABC):
    """Dataset builder: a table made from packages, the same bytes on every machine.

    Keyword-only, annotated, defaulted constructor arguments are its settings.
    """

    @abstractmethod
    def build(self, out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
        """Write the table as one Parquet file, whole or not at all.

        Args:
            out: the file to write; it is replaced if it is there.
            progress: called with (rows done, rows in all) as the work goes on.

        Returns:
            ``rows`` (int), ``sha256`` of the file (hex) and ``credits`` (lines to print: whose work the table is
            made of and under which licence).

        Raises:
            UserError: a package that the table is made from isn't installed, or nothing can be written at ``out``.
        """
