"""Helpers of several sources: ``FILE#PART``, optional libraries, and bounded unpacking of ZIP members."""

from __future__ import annotations

import copy
import importlib
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.blocks import Blocks, MemoryBlocks
from sensorium.data.contents import READ_ERRORS
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, converted
from sensorium.data.spool import Spool

CHUNK_BYTES = 1 << 20
ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    IndexError,
    UnicodeDecodeError,
    struct.error,
    *READ_ERRORS,
)
"""Exceptions that a damaged ZIP archive raises."""
MAX_ERROR_LENGTH = 300


def split_part(given: Any, fits: Callable[[Path], bool]) -> tuple[Path, str] | None:
    """File and part that ``FILE#PART`` names; None where no such file fits, or one has the whole name.

    The shortest file name wins, as a part (a query, a sheet's name) may hold ``#`` too.
    """
    text = os.path.expanduser(str(given)) if isinstance(given, (str, Path)) else ""
    if "#" not in text or os.path.exists(text):
        return None
    for at in (at for at, sign in enumerate(text) if sign == "#"):
        if os.path.isfile(text[:at]) and fits(Path(text[:at])):
            return Path(text[:at]), text[at + 1 :].strip()
    return None


def optional_import(name: str, extra: str, what: str) -> Any:
    """Import an optional library.

    Raises:
        UserError: it isn't installed; the extra that has it is named.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{what} can't be read without the package {error.name}. Install it with: pip install 'sensorium[{extra}]'"
        ) from error


def error_summary(error: BaseException) -> str:
    """First line of an exception's message, or its type where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:MAX_ERROR_LENGTH]


def unpack_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> Iterator[bytes]:
    """Unpack a member in pieces, up to its real end, which may lie beyond the size that the archive states.

    Raises:
        zipfile.BadZipFile: it is damaged.
        OverflowError: it unpacks to more than ``limit`` bytes.
    """
    whole = copy.copy(info)
    whole.file_size = 1 << 62
    left = limit
    with archive.open(whole) as file:
        while piece := file.read(CHUNK_BYTES):
            left -= len(piece)
            if left < 0:
                raise OverflowError(f"'{info.filename[:100]}' unpacks to more than {limit:,} bytes")
            yield piece


def spool_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, spool: Spool, options: ReadOptions, opened: Opened
) -> Blocks:
    """Write Arrow batches to a spool and give its blocks.

    Raises:
        UserError: two columns share a name, or there are too many.
    """
    blocks: Blocks = MemoryBlocks(schema.empty_table(), spool.where)
    options.check_columns(len(blocks.schema.names), spool.where)
    for batch in batches:
        piece = MemoryBlocks(pa.Table.from_batches([batch]), spool.where)
        spool.add_blocks(piece)
        for column, cells in piece.repairs().items():
            opened.mended(column, cells)
    found = converted(spool, empty=blocks.schema.names)
    found.remarks |= blocks.remarks
    found.declared |= blocks.declared & set(found.schema.names)
    return found
