"""Reader of ``.ts`` files, the format of the UEA and UCR archives of time series classification.

A header of lines that begin with ``#`` or ``@``, then a case a line: its channels and at last its class, parted by
colons; values by commas, ``?`` where one is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sensorium.core.errors import UserError


def cases(path: Path) -> Iterator[tuple[list[list[float | None]], str]]:
    """Yield each case of a file: its series as [time][channel], and its class.

    Raises:
        UserError: a case whose channels differ in length, or with a value that is no number.
    """
    data = False
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.strip()
            if not data:
                data = line.lower() == "@data"
            elif line:
                *channels, label = line.split(":")
                try:
                    values = [[None if v == "?" else float(v) for v in channel.split(",")] for channel in channels]
                    yield [list(step) for step in zip(*values, strict=True)], label.strip()
                except ValueError as error:
                    raise UserError(f"{path}, line {number}, is no case of a .ts file: {error}") from error
