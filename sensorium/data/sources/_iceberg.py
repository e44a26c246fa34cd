"""Iceberg file access: only those below the table's folder, wherever the table was when it was written."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io import InputFile, OutputFile
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import StaticTable
from pyiceberg.table.metadata import TableMetadataUtil

from sensorium.core.errors import UserError


class _Local(PyArrowFileIO):
    """Read-only file access by the place that files had in the table's folder."""

    def __init__(self, folder: Path, location: str) -> None:
        super().__init__()
        self.folder, self.location = folder, location.rstrip("/") + "/"

    def new_input(self, location: str) -> InputFile:
        """Input file of the table.

        Raises:
            UserError: it lies elsewhere.
        """
        if location.startswith(self.location):
            path = location.removeprefix(self.location)
        else:
            path = re.sub(r"^file:(//)?(?=/)", "", location)
        full = os.path.realpath(self.folder / path)
        if re.match(r"[A-Za-z][\w+.-]+://", path) or not Path(full).is_relative_to(self.folder):
            raise UserError(
                f"The Iceberg table in '{self.folder}' names the file '{location[:200]}', which doesn't lie in its "
                "folder. "
                "Copy the whole table to one folder; nothing is fetched."
            )
        return super().new_input(full)

    def new_output(self, location: str) -> OutputFile:
        raise PermissionError("tables are only read")

    def delete(self, location: Any) -> None:
        raise PermissionError("tables are only read")


def open_table(metadata: Path, folder: Path) -> StaticTable:
    """Open the table of a metadata file.

    Its own properties, which may name a class that reads its files, have no say in that here.
    """
    parsed = TableMetadataUtil.parse_raw(metadata.read_text(encoding="utf-8"))
    return StaticTable(
        identifier=("table", metadata.name),
        metadata=parsed,
        metadata_location=str(metadata),
        io=_Local(folder, parsed.location),
        catalog=NoopCatalog("table"),
    )
