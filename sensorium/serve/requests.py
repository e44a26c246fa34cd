"""Request types that several routes share: rows to be asked about, and limits on what a body holds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAX_ROWS = 256
"""Rows of one request."""
MAX_SAMPLES = 64
"""Cells that are generated for one request."""
MAX_COLUMNS = 4096
"""Names of columns that a request may list."""

Row = dict[str, Any]
"""Cells by column; files as data URLs or ``{"base64": …}``."""


def at_most(count: int) -> BeforeValidator:
    """Length limit that is checked before the parts, of which every wrong one would become an error of its own."""

    def check(value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > count:
            raise ValueError(f"at most {count:,} are taken, not {len(value):,}")
        return value

    return BeforeValidator(check)


class StrictRequest(BaseModel):
    """Request without unknown fields."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def fields(cls, given: Any) -> Any:
        """Refuse so many fields that each unknown one would become an error of its own."""
        if isinstance(given, dict) and len(given) > 64:
            raise ValueError(f"{len(given):,} fields are more than there are")
        return given


class RowsRequest(StrictRequest):
    """Rows to be asked about: given as cells, or by their numbers in the table that the server shows."""

    rows: Annotated[
        list[Row], Field(max_length=MAX_ROWS, description='Cells by column; files as data URLs or {"base64": …}.')
    ] = []
    table_rows: Annotated[
        list[int], Field(max_length=MAX_ROWS, description="Rows of the table that the server shows.")
    ] = []
    seen: Annotated[
        list[str] | None,
        at_most(MAX_COLUMNS),
        Field(description="The columns seen; by default all but the asked one."),
    ] = None
