"""Objects as JSON has them: parsed strictly, and written to a spool as rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from sensorium.core.errors import UserError
from sensorium.data.arrow import scrub, to_array
from sensorium.data.spool import BYTES, ROWS, Spool


def spool_objects(
    objects: Iterable[tuple[dict[str, Any], int]], spool: Spool, mended: Callable[[str, int], None]
) -> None:
    """Write objects piece by piece; their keys are the columns.

    Args:
        objects: each with about how many bytes it has.
        spool: where they are written.
        mended: told how many cells of a column held text that had to be mended.
    """
    piece: list[dict[str, Any]] = []
    size = 0

    def write() -> None:
        arrays = {}
        for name in dict.fromkeys(key for row in piece for key in row):
            arrays[name], bad = to_array([row.get(name) for row in piece], name)
            mended(name, len(bad))
        spool.add(arrays, len(piece))

    for row, weight in objects:
        piece.append(row)
        size += weight
        if len(piece) == ROWS or size > BYTES:
            write()
            piece, size = [], 0
    if piece:
        write()


def parse(data: bytes) -> Any:
    """JSON in UTF-8; bad bytes come through as surrogates, which are mended and counted later.

    Raises:
        UserError: an object has a key twice.
        ValueError: it is no JSON.
    """
    return _decoder.decode(data.decode("utf-8", "surrogateescape"))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        twice = sorted({key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1})
        named = ", ".join(map(repr, twice))
        raise UserError(f"A JSON object has the key {named} twice. Give each column its own name.")
    return row if all(map(str.isprintable, row)) else {scrub(key): value for key, value in row.items()}


_decoder = json.JSONDecoder(object_pairs_hook=_object)
