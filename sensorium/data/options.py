"""Read options of a table: encoding, delimiter and limits. They are settings of the section ``data``."""

from __future__ import annotations

import codecs
import dataclasses
import json
from pathlib import Path
from typing import Any

from sensorium.core.errors import UserError
from sensorium.core.settings import convert

DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Read options of a table's files.

    Attributes:
        encoding: of text files, as Python names it; empty: detected.
        delimiter: of CSV files, one character or tab, comma, semicolon, pipe, space; empty: detected.
        max_columns: a table with more columns is refused.
        max_cell_mb: MiB of the longest line or cell of a text file.
        as_written: columns of CSV files whose cells stay text, as their kind reads texts.

    Raises:
        UserError: no such encoding, or a value out of range.
    """

    encoding: str = ""
    delimiter: str = ""
    max_columns: int = 4096
    max_cell_mb: float = 16.0
    as_written: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        try:
            known = not self.encoding or (
                codecs.lookup(self.encoding)._is_text_encoding
                and "a".encode(self.encoding).decode(self.encoding) == "a"
            )
        except (LookupError, ValueError):
            known = False
        known = known and self.encoding.lower() not in ("idna", "punycode")
        if known and self.encoding:
            object.__setattr__(self, "encoding", codecs.lookup(self.encoding).name)
        if not known:
            raise UserError(
                f"data.encoding={self.encoding} is no text encoding. Give its name in Python, such as utf-8, cp1252, "
                "utf-16, gb18030 or cp932; leave it empty to have it detected."
            )
        if self.delimiter and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise UserError(
                f"data.delimiter={self.delimiter} is no delimiter. Give one character, or one of "
                f"{', '.join(DELIMITERS)}."
            )
        if self.max_columns < 1 or not 0 < self.max_cell_mb < 1 << 20:
            raise UserError(
                f"data.max_columns={self.max_columns}, data.max_cell_mb={self.max_cell_mb:g}: both are "
                "above 0, and the second is below 2**20."
            )

    @property
    def separator(self) -> str:
        """Delimiter as one character; empty: to be detected."""
        return DELIMITERS.get(self.delimiter, self.delimiter)

    @property
    def max_cell_size(self) -> int:
        """Bytes, or characters, of the longest line or cell."""
        return int(self.max_cell_mb * 2**20)

    def check_columns(self, count: int, where: str) -> None:
        """Refuse a table with too many columns.

        Raises:
            UserError: naming the limit and its setting.
        """
        if count > self.max_columns:
            raise UserError(
                f"{where} has {count:,} columns or more, over the limit of data.max_columns={self.max_columns}. "
                "Leave out what isn't needed, put numbers that belong together into one column of lists, or raise "
                "the limit."
            )

    def too_long(self, where: str) -> UserError:
        """UserError for a line or cell beyond ``max_cell_mb``."""
        return UserError(
            f"{where} is longer than data.max_cell_mb={self.max_cell_mb:g} MiB. Is it a table of this format, and is "
            "every quote closed? Raise the limit where cells are really so long."
        )


def open_arguments(folder: Path) -> dict[str, Any]:
    """Arguments of ``Table.open`` for the tables of a run, from the settings saved with its model.

    Raises:
        UserError: there is no model, or it can't be read.
    """
    try:
        given = json.loads((folder / "model.json").read_text(encoding="utf-8"))["settings"].get("data", {})
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"'{folder}' holds no model (model.json), or one that can't be read: {error}.") from error
    known = {
        field.name: {"str": str, "int": int, "float": float}.get(str(field.type))
        for field in dataclasses.fields(ReadOptions)
    }
    arguments = {
        key: convert(given[key], kind, f"data.{key}")
        for key, kind in known.items()
        if kind is not None and key in given
    }
    return {
        "allow_outside": convert(given.get("outside", False), bool, "data.outside"),
        "options": ReadOptions(**arguments),
    }
