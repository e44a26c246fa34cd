"""Request cells: the JSON of a row as cells for the model; files come as data URLs or base64."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sensorium.core.errors import did_you_mean
from sensorium.serve.decoders import Unreadable
from sensorium.serve.fetch import FetchRefused, fetch
from sensorium.serve.guard import Refused

Read = Callable[[str, bytes], Awaitable[Any]]

_DATA = re.compile(r"data:[\w.+/-]*(?:;[\w.+=-]+)*;base64,", re.IGNORECASE)
MAX_TEXT, MAX_DEPTH = 1 << 20, 8
"""Characters of a text, and lists in one another."""


class RequestCells:
    """Reader of cells for the columns of one model.

    Args:
        columns: what the model's process says of each.
        read: decodes a file.
        fetching: whether web addresses are fetched.
    """

    def __init__(self, columns: Mapping[str, Mapping[str, Any]], read: Read, fetching: bool) -> None:
        self.columns, self.read, self.fetching = columns, read, fetching

    def check(self, *names: str | None, param: str = "column") -> None:
        """Refuse columns that the model doesn't know."""
        for name in names:
            if name is not None and name not in self.columns:
                raise Refused(
                    422, f"Unknown column '{whole(name[:80])}'.{did_you_mean(name[:80], self.columns)}", "column", param
                )

    async def row(
        self, cells: Mapping[str, Any], number: int = 0, param: str = "rows", strict: bool = True
    ) -> dict[str, Any]:
        """Row with its files decoded.

        Empty cells are left out, and unless it is ``strict`` also those that can't be read.

        Raises:
            Refused: a column that isn't there, or a cell that can't be read; says which.
        """
        row = {}
        for column, cell in cells.items():
            self.check(column, param=param)
            if cell is None or (isinstance(cell, str) and not cell):
                continue
            if not self.columns[column]["media"]:
                row[column] = plain(cell, column, number, param)
                continue
            try:
                row[column] = await self.read(column, await self.file(cell))
            except (Unreadable, FetchRefused) as error:
                if not strict:
                    continue
                raise Refused(422, f"Row {number}, column '{column}': {error}.", "cell", param) from None
        return row

    async def file(self, cell: Any) -> bytes:
        """Bytes of a file.

        Raises:
            Unreadable, FetchRefused: there are none.
        """
        if isinstance(cell, bytes):
            return cell
        kind = 'a data URL (data:image/png;base64,…) or {"base64": "…"}'
        if isinstance(cell, Mapping) and set(cell) == {"base64"} and isinstance(cell["base64"], str):
            text = cell["base64"]
        elif isinstance(cell, str) and (begin := _DATA.match(cell[:256])):
            text = cell[begin.end() :]
        elif isinstance(cell, str) and cell[:8].lower().startswith(("http://", "https://")):
            if not self.fetching:
                raise Unreadable(f"web addresses are not fetched by this server; send the file itself, as {kind}")
            return await fetch(cell)
        else:
            raise Unreadable(f"a file comes as {kind}")
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Unreadable("this is no base64") from None
        if not data:
            raise Unreadable("the file is empty")
        return data


def plain(cell: Any, column: str, number: int, param: str) -> Any:
    """Cell as JSON has it, if it can be sent on.

    Raises:
        Refused: it is too long or too deep.
    """
    if isinstance(cell, str) and len(cell) > MAX_TEXT:
        raise Refused(
            422,
            f"Row {number}, column '{column}': {len(cell):,} characters, more than the limit of {MAX_TEXT:,}.",
            "cell",
            param,
        )
    try:
        return whole(cell)
    except RecursionError:
        raise Refused(
            422, f"Row {number}, column '{column}': lists in lists, {MAX_DEPTH} deep and more.", "cell", param
        ) from None


def whole(cell: Any, depth: int = 0) -> Any:
    """Cell that can be sent on: text that UTF-8 can hold; numbers beyond 64 bits as ones that have a place there, or as
    texts, which no column of numbers takes.

    Raises:
        RecursionError: too many lists in one another.
    """
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(cell, str):
        return cell.encode("utf-8", "replace").decode()
    if isinstance(cell, int) and not -(2**63) <= cell < 2**63:
        return float(cell) if cell.bit_length() < 1000 else str(cell)[:1000]
    if isinstance(cell, list):
        return [whole(value, depth + 1) for value in cell]
    if isinstance(cell, dict):
        return {whole(str(name)): whole(value, depth + 1) for name, value in cell.items()}
    return cell
