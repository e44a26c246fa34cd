"""Chat messages in OpenAI's form: media that they bring become cells of rows, and retrieved rows are told in words."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sensorium.core.attachments import assign_cell
from sensorium.core.errors import BadCell, UserError
from sensorium.core.registry import name_of
from sensorium.modalities._messages import messages_of
from sensorium.network.network import Network

MAX_CELL_LETTERS = 200
"""Letters of a cell that are told of a retrieved row."""


def attach_media(
    messages: Sequence[Any], network: Network, taken: Sequence[Mapping[str, Any]] = ()
) -> tuple[list[Any], list[dict[str, Any]]]:
    """Messages whose pictures, sounds and clips have become references to cells, and the rows of these cells.

    The first picture is a cell of the first column of pictures, the second of the second. Where there are no more
    columns of the kind the next one is a cell of the first again, in a row of its own.

    Args:
        messages: in OpenAI's form; parts may be ``image_url`` (a data URL), ``input_audio``, or ``image``, ``audio``,
            ``video`` with bytes, a path or a PIL picture.
        taken: rows of cells that are there already.

    Raises:
        UserError: a kind of which the model has no column, more than it can look at in one conversation, an address,
            or what is no media.
    """
    columns: dict[str, list[str]] = {}
    for column, modality in network.modalities.items():
        columns.setdefault(name_of(modality), []).append(column)
    rows, result = [dict(row) for row in taken] or [{}], []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), (list, tuple)):
            result.append(message)
            continue
        parts = []
        for part in message["content"]:
            found = media_of(part, number) if isinstance(part, Mapping) and not part.get("column") else None
            if found is None:
                parts.append(part)
                continue
            kind, cell = found
            try:
                row, column = assign_cell(kind, columns.get(kind, ()), rows)
            except UserError as error:
                raise UserError(f"Message {number}: {error}") from None
            rows[row][column] = cell
            parts.append({"type": "cell", "column": column, "row": row})
        result.append({**message, "content": parts})
    return result, rows


def messages_to_answer(messages: Any) -> list[Any]:
    """Messages in any layout as roles with parts, where the assistant is to speak next.

    Raises:
        UserError: they are in no order, or there is nothing to answer.
    """
    try:
        result = messages_of(messages, False)
    except BadCell as error:
        raise UserError(f"The conversation can't be gone on with: {error}.") from error
    if result[-1][0] not in ("user", "tool"):
        raise UserError(
            f"The last message is by '{result[-1][0]}', so there is nothing to answer. End with one by the user."
        )
    return result


def media_of(part: Mapping[str, Any], number: int) -> tuple[str, Any] | None:
    """The kind and the cell that a message's part brings; None where it brings text.

    Raises:
        UserError: an address, or a data URL that is none.
    """
    kind = str(part.get("type", "text"))
    if kind in ("image_url", "audio_url", "video_url"):
        given = part.get(kind)
        address = str(given.get("url", "") if isinstance(given, Mapping) else given)
        found = re.fullmatch(r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,(.*)", address, re.S)
        if found is None:
            raise UserError(
                f"Message {number}: '{address[:60]}' is no data URL (data:image/png;base64,…). "
                "Nothing is fetched from addresses here."
            )
        return kind.removesuffix("_url"), decode_base64(found[1], number)
    if kind == "input_audio" and isinstance(part.get("input_audio"), Mapping):
        return "audio", decode_base64(str(part["input_audio"].get("data", "")), number)
    if kind in ("image", "audio", "video") and part.get(kind) is not None:
        cell = part[kind]
        if isinstance(cell, (str, Path)):
            try:
                cell = Path(cell).read_bytes()
            except OSError as error:
                raise UserError(f"Message {number}: '{cell}' can't be read: {error.strerror}.") from error
        elif hasattr(cell, "save"):  # a PIL picture
            buffer = io.BytesIO()
            cell.save(buffer, "PNG")
            cell = buffer.getvalue()
        return kind, cell
    return None


def decode_base64(text: str, number: int) -> bytes:
    """Bytes from base64.

    Raises:
        UserError: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UserError(f"Message {number} brings media that are no base64: {error}.") from error


def row_text(row: Mapping[str, Any]) -> str:
    """The plain cells of a retrieved row, in words."""
    return "; ".join(
        f"{column}: {str(cell)[:MAX_CELL_LETTERS]}"
        for column, cell in row.items()
        if column not in ("row", "score") and isinstance(cell, (str, int, float)) and cell != ""
    )


def with_retrieved_rows(messages: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Retrieval-augmented prompt: the rows retrieved for a conversation's last question, in words, stand before it.

    Cells that no words say are left out.
    """
    lines = [f"Row {row['row']}: {row_text(row)}" for row in rows]
    role, parts = messages[-1]
    return [*messages[:-1], (role, ["Known rows:\n" + "\n".join(lines) + "\n\n", *parts])] if lines else list(messages)
