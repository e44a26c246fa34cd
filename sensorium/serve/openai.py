"""OpenAI compatibility: what the routes ``openai_*`` share, so that programs which know that API need not be changed.

A text goes to the model's text column, a picture to its picture column, a sound to its sound column; ``column`` in a
request's extra body names another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from sensorium.serve.guard import Refused

if TYPE_CHECKING:
    from sensorium.serve.server import Server

PART_KINDS = {
    "text": "text",
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "video_url": "video",
}
"""The modality of a part of a message."""


class OpenAIRequest(BaseModel):
    """Request whose unknown fields are ignored, as clients send more than a model of columns needs."""

    model_config = ConfigDict(extra="allow")
    model: str


def check_model(server: Server, model: str) -> None:
    """Refuse another model than the one that is served."""
    if model != server.name:
        raise Refused(
            404, f"There is no model '{model[:80]}' here. Possible: {server.name}.", "model_not_found", "model"
        )


def input_column(server: Server, kind: str, what: str) -> str:
    """Column that takes a part of a modality.

    Raises:
        Refused: there is none.
    """
    found = server.columns_of(kind)
    if not found:
        raise Refused(
            400,
            f"This model has no column that takes {what}. Its columns: {', '.join(server.columns)}.",
            "column",
            "input",
        )
    return found[0]


def output_column(server: Server, kind: str, column: str | None) -> str:
    """Column of a modality that is generated: the named one, or the first.

    Raises:
        Refused: it isn't generated, or none is.
    """
    able = server.columns_of(kind, asked=True)
    if (column is not None and column not in able) or not able:
        which = f"'{column[:80]}' is none" if column is not None else "there is none"
        raise Refused(
            400,
            f"Wanted is a column of kind '{kind}' that this run learned to generate; {which}. Possible: "
            f"{', '.join(able) or 'none: fit with --generate COLUMN'}.",
            "column",
            "column",
        )
    return column or able[0]


def cell_of(part: Mapping[str, Any]) -> tuple[str, Any]:
    """A part of a message: its modality, and its cell.

    Raises:
        Refused: it is of no known type, or holds nothing that can be read.
    """
    given = str(part.get("type"))
    kind = PART_KINDS.get(given)
    if kind is None:
        raise Refused(
            400, f"Unknown part '{given[:40]}' of a message. Possible: {', '.join(PART_KINDS)}.", "content", "messages"
        )
    cell = part.get(given, part.get(kind))
    if kind == "text" and isinstance(cell, str):
        return kind, cell
    if isinstance(cell, Mapping):
        cell = cell.get("url", {"base64": cell["data"]} if isinstance(cell.get("data"), str) else None)
    if kind == "text" or not isinstance(cell, str | Mapping):
        raise Refused(
            400,
            f"A part '{given}' holds {'a text' if kind == 'text' else 'a url with a data URL, or data in base64'}.",
            "content",
            "messages",
        )
    return kind, cell
