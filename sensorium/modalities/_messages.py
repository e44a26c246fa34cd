"""Readers of a conversation's messages, in the layouts that are common."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sensorium.core.attachments import MAX_ROWS
from sensorium.core.errors import BadCell

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "observation": "tool", "function": "tool"}
KNOWN = ("system", "user", "assistant", "tool")
MARK = re.compile(r"<(image|audio|video)>")
MEDIA = ("image_url", "input_image", "input_audio", "video_url", "audio_url")

Part = str | dict[str, Any]
"""Text, or {"column": name or kind}; in conversations that go on perhaps with "row": so many rows after the first."""


def listed(cell: Any) -> Sequence[Any]:
    """List of messages of a cell: of a list, of JSON, or under ``messages`` or ``conversations``.

    Raises:
        BadCell: there is none.
    """
    if isinstance(cell, (str, bytes)):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise BadCell(f"it is no JSON: {error}") from error
    if isinstance(cell, Mapping):
        cell = next((cell[key] for key in ("messages", "conversations", "conversation") if key in cell), cell)
    if hasattr(cell, "tolist"):
        cell = cell.tolist()
    if not isinstance(cell, Sequence) or isinstance(cell, str):
        raise BadCell("it is no list of messages")
    return cell


def messages_of(cell: Any, ended: bool = True) -> list[tuple[str, list[Part]]]:
    """Roles and parts of the messages of a cell in any of its layouts.

    Args:
        ended: the conversation is whole, as in a table, and not one that is to be continued.

    Raises:
        BadCell: a message that is none, an unknown role, or roles out of order, with its number.
    """
    result: list[tuple[str, list[Part]]] = []
    for number, message in enumerate(listed(cell), 1):
        if not isinstance(message, Mapping) or not (("role" in message) or ("from" in message)):
            raise BadCell(f"message {number} is no object with a role and content")
        own = "from" in message and "role" not in message
        given = str(message["from" if own else "role"])
        role = ROLES.get(given, "system" if given == "developer" else given)
        if role not in KNOWN:
            raise BadCell(f"message {number} is by '{given}'; known are {', '.join(KNOWN)}")
        content = message.get("value" if own else "content")
        before = result[-1][0] if result else None
        wrong = (
            (role == "system" and result)
            or (role == "user" and before == "user")
            or (role in ("assistant", "tool") and before in (None, "system"))
            or (role == "assistant" and before == "assistant")
        )
        if wrong:
            raise BadCell(
                f"message {number} is by '{role}' after '{before or 'nothing'}': a user and the assistant take turns, "
                "the user first, a system message before all"
            )
        parts = list(parts_of(content, number, role != "assistant"))
        if any("\ud800" <= letter <= "\udfff" for part in parts if isinstance(part, str) for letter in part):
            raise BadCell(f"message {number} holds half of a character (a lone surrogate)")
        parts += [f"<tool_call>\n{call}\n</tool_call>" for call in calls_of(message)]
        result.append((role, parts))
    if not result:
        raise BadCell("it has no messages")
    if ended and all(role == "system" for role, _ in result):
        raise BadCell("it has nothing but a system message")
    return result


def parts_of(content: Any, number: int, marks: bool = True) -> Iterable[Part]:
    """Texts and references of a message's content.

    Raises:
        BadCell: a part of no known type.
    """
    if content is None:
        return
    if isinstance(content, str):
        for at, piece in enumerate(MARK.split(content) if marks else [content]):
            if at % 2:
                yield {"column": piece}
            elif piece.strip():
                yield piece.strip("\n") if marks else piece
        return
    if not isinstance(content, Sequence):
        raise BadCell(
            f"message {number} has {type(content).__name__} as its content, which is a text or a list of parts"
        )
    for part in content:
        if isinstance(part, str):
            yield part
            continue
        if not isinstance(part, Mapping):
            raise BadCell(f"message {number} has a part that is neither text nor an object")
        kind = str(part.get("type", "text"))
        if part.get("column"):
            row = part.get("row") or 0
            if not isinstance(row, int) or not 0 <= row < MAX_ROWS:
                raise BadCell(f"message {number} refers to row {row!r}; rows are 0, the first, to {MAX_ROWS - 1}")
            yield {"column": str(part["column"]), **({"row": row} if row else {})}
        elif kind in ("text", "input_text", "output_text", "refusal") and part.get("text") is not None:
            yield str(part["text"])
        elif kind in MEDIA or any(part.get(key) is not None for key in ("image", "audio", "video")):
            raise BadCell(
                f"message {number} brings its media inside ({kind}); put them in a column of their own and refer to "
                f'that: {{"type": "image", "column": NAME}}'
            )
        elif kind in ("image", "audio", "video"):
            yield {"column": kind}
        else:
            raise BadCell(
                f"message {number} has a part of type '{kind}' with nothing in it that is known; known are text, "
                'image, audio and video, or any with a "column"'
            )


def calls_of(message: Mapping[str, Any]) -> list[str]:
    """Tool calls of a message, each as JSON with ``name`` and ``arguments``, as most templates write them.

    OpenAI's ``tool_calls`` and the older ``function_call``; arguments that are JSON in a text are parsed.
    """
    given = message.get("tool_calls") or ([message["function_call"]] if message.get("function_call") else [])
    result = []
    for call in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
        function = call.get("function", call) if isinstance(call, Mapping) else {"name": str(call)}
        function = function if isinstance(function, Mapping) else {"name": str(function)}
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError, RecursionError):
                arguments = json.loads(arguments)
        result.append(
            json.dumps({"name": function.get("name"), "arguments": arguments}, ensure_ascii=False, default=str)
        )
    return result
