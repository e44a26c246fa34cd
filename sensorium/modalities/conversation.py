"""Conversations: a cell is a list of messages, whose content is text and references to cells of the same row, or of one of those after it, whatever these are.

It is read from OpenAI's form (``role``, ``content`` as text or parts), ShareGPT's and LLaVA's (``from``, ``value``, ``<image>``), as lists or JSON. What the
assistant says is learned, by the language model's own template. No text of a message can become one of its control tokens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sensorium.backbones._language_model import LanguageModel
from sensorium.backbones._open import open_language
from sensorium.core.attachments import MAX_ROWS
from sensorium.core.errors import BadCell, UserError
from sensorium.core.types import Claim, Profile
from sensorium.modalities import Cells, Stem
from sensorium.modalities._capabilities import Dialogue
from sensorium.nn.packing import reference
from sensorium.nn.platt import PlattScaler

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "observation": "tool", "function": "tool"}
KNOWN = ("system", "user", "assistant", "tool")
MARK = re.compile(r"<(image|audio|video)>")
MEDIA = ("image_url", "input_image", "input_audio", "video_url", "audio_url")
EMPTY = np.zeros(0, np.int32)

Part = str | dict[str, Any]
"""A text, or {"column": name or kind}; in talks that go on perhaps with "row": so many rows after the first."""


class Conversation(Dialogue):
    """Messages between a user and an assistant.

    Attributes:
        referred: columns, or kinds of columns, that training conversations refer to. bare: whether some refer to none; again: whether some show things more than once; beside: whether some refer to rows after their own. sureness: how often short answers are right, once
            that was asked on conversations held out.

    Args:
        language: the language model whose words and template are used; by default that of the trunk.
        length: tokens kept of a conversation: where it is longer, its oldest exchanges are left out, each whole.
        system: the system message of conversations that have none; empty: none is said.
        recall: a column of texts or categories, as a name: beside a cell that it refers to a conversation is told what known rows that are like it have there.
        recalled: how many of these; remembered: rows that are known, the newest ones.
        tokens: of a cell that a conversation refers to, the first ones; 0: all.
    """

    def __init__(
        self,
        *,
        language: str = "",
        length: int = 512,
        system: str = "",
        recall: str = "",
        recalled: int = 6,
        remembered: int = 8192,
        tokens: int = 0,
    ) -> None:
        if length < 8:
            raise UserError(f"length={length} leaves no room for a conversation. Give at least 8.")
        if recalled < 1 or remembered < 1 or tokens < 0:
            raise UserError(
                f"recalled={recalled}, remembered={remembered}, tokens={tokens}: the first two must be at least 1, the last at least 0."
            )
        self.path, self.length, self.system = language, length, system
        self.recall, self.recalled, self.remembered, self.tokens_of_cells = recall, recalled, remembered, tokens
        self.referred: set[str] = set()
        self.bare = self.again = self.beside = False
        self.sureness: PlattScaler | None = None

    @property
    def language(self) -> LanguageModel:
        """Its language model's tokenizer.

        Raises:
            UserError: none was given.
        """
        if not self.path:
            raise UserError(
                "Conversations need a language model: column.NAME.language=FOLDER, or as the trunk: trunk=causal_lm trunk.path=FOLDER."
            )
        return open_language(self.path)

    @classmethod
    def claim(cls, profile: Profile) -> Claim | None:
        cells = [cell for cell in profile.sample if cell is not None]
        if not cells or not all(isinstance(cell, (list, str, dict)) for cell in cells):
            return None
        alike = 0
        for cell in cells[:64]:
            if isinstance(cell, str) and cell.lstrip()[:1] not in ("[", "{"):
                return None
            try:
                messages = listed(cell)
            except BadCell:
                continue
            alike += bool(messages) and all(
                isinstance(m, Mapping) and ({"role", "content"} <= set(m) or {"from", "value"} <= set(m))
                for m in messages
            )
        share = alike / len(cells[:64])
        return (
            Claim(sure=0.98, why=f"{share:.0%} of the cells are lists of messages with roles") if share >= 0.8 else None
        )

    def read(self, cell: Any) -> np.ndarray:
        """Messages as JSON, uint8: [[role, [text or {"column": name}, …]], …]."""
        text = json.dumps(messages_of(cell), ensure_ascii=False)
        return np.frombuffer(text.encode("utf-8", "replace"), np.uint8)

    def learn(self, cells: Sequence[np.ndarray]) -> None:
        talks = [json.loads(cell.tobytes()) for cell in cells]
        named = [{part["column"] for _, parts in talk for part in parts if isinstance(part, dict)} for talk in talks]
        self.referred, self.bare, self.again = (
            set().union(*named),
            any(not columns for columns in named),
            any(len(showing(talk)) > 1 for talk in talks),
        )
        self.beside = any(
            isinstance(part, dict) and part.get("row") for talk in talks for _, parts in talk for part in parts
        )

    def prepare(self, read: np.ndarray) -> np.ndarray:
        """Messages to int32 [2k]: ids, where numbers below 0 stand for referred cells (``reference``), then 1 for each that is the assistant's, else 0.

        Raises:
            BadCell: the assistant says nothing, or its last exchange alone is too long.
        """
        messages = json.loads(read.tobytes())
        if not any(role == "assistant" for role, _ in messages):
            raise BadCell("the assistant says nothing in it, so there is nothing to learn")
        ids, said = self.shortened(messages)
        return np.array([*ids, *said], np.int32)

    def shortened(self, messages: list[Any], answer: bool = False) -> tuple[list[int], list[int]]:
        """Ids and which are the assistant's, without the oldest exchanges where there are too many, and, where no conversation showed things more than once, without those about what was shown before:
        who never learned that calls the next thing as the one before.

        Raises:
            BadCell: the last exchange alone is too long.
        """
        shown = showing(messages)
        if not self.again and len(shown) > 1:
            messages = [*messages[: messages[0][0] == "system"], *messages[shown[-1] :]]
        while True:
            ids, said = self.ids(messages, answer)
            if len(ids) <= self.length:
                return ids, said
            first = 1 if messages[0][0] == "system" else 0
            later = next((at for at in range(first + 1, len(messages)) if messages[at][0] == "user"), None)
            if later is None:
                raise BadCell(
                    f"its last exchange has {len(ids)} tokens; {self.length} are kept of a conversation (column.NAME.length)"
                )
            messages = messages[:first] + messages[later:]

    def ids(self, messages: Sequence[Any], answer: bool = False) -> tuple[list[int], list[int]]:
        """Ids of a whole conversation by the model's template, and for each whether it is the assistant's own; ``answer``: up to where it is to speak."""
        language, given = self.language, list(messages)
        if given[0][0] == "system" and not language.has_system:
            given = given[1:]
        elif given[0][0] != "system" and language.has_system:
            given = [["system", [self.system]], *given]
        ids, said, own = [], [], False
        for piece, content in language.written([{"role": role} for role, _ in given], answer):
            if content:
                role, parts = given[piece]
                own = role == "assistant"
                for part in parts:
                    new = (
                        language.ids(part) if isinstance(part, str) else [reference(part["column"], part.get("row", 0))]
                    )
                    ids += new
                    said += [int(own)] * len(new)
            else:
                new = language.words.encode(piece, add_special_tokens=False).ids
                ended = next((at + 1 for at, i in enumerate(new) if i in language.special), 0) if own else 0
                ids += new
                said += [1] * ended + [0] * (len(new) - ended)
                own = False
        return ids, said

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        """``ids`` int64 [n, k], padded with the end, ``said`` bool [n, k] and ``length`` [n]."""
        lengths = np.array([len(cell) // 2 for cell in cells], np.int64)
        ids, said = (
            np.full((len(cells), int(lengths.max(initial=1))), self.language.end, np.int64),
            np.zeros((len(cells), int(lengths.max(initial=1))), bool),
        )
        for row, (cell, length) in enumerate(zip(cells, lengths, strict=True)):
            ids[row, :length], said[row, :length] = cell[:length], cell[length:]
        return {"ids": torch.from_numpy(ids), "said": torch.from_numpy(said), "length": torch.from_numpy(lengths)}

    def stem(self, width: int) -> Stem:
        return _ConversationStem(width)

    def show(self, cell: Any) -> str:
        try:
            messages = messages_of(cell)
        except BadCell as error:
            return html.escape(str(error))
        return "<br>".join(
            f"<b>{html.escape(role)}:</b> "
            + html.escape(" ".join(part if isinstance(part, str) else f"[{part['column']}]" for part in parts)[:300])
            for role, parts in messages[:6]
        )

    def features(self, read: np.ndarray | None) -> np.ndarray:
        """Nothing: what is said about a row isn't what its other columns are told from."""
        return np.zeros(1)

    def state(self) -> dict[str, Any]:
        return {
            "referred": sorted(self.referred),
            "bare": self.bare,
            "again": self.again,
            "beside": self.beside,
            "sureness": None if self.sureness is None else dataclasses.asdict(self.sureness),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.referred, self.bare, self.again, self.beside = (
            set(state["referred"]),
            bool(state["bare"]),
            bool(state.get("again")),
            bool(state.get("beside")),
        )
        told = state.get("sureness")
        self.sureness = (
            PlattScaler(told["level"], *(tuple(told[key]) for key in ("slopes", "middle", "spread"))) if told else None
        )


def showing(messages: Sequence[Any]) -> list[int]:
    """The numbers of the user's messages that show something."""
    return [
        number
        for number, (role, parts) in enumerate(messages)
        if role == "user" and any(isinstance(part, dict) for part in parts)
    ]


def last_said(ids: Sequence[int], said: Sequence[int]) -> np.ndarray:
    """A conversation as ``prepare`` gives it, of which only what the assistant says last is said."""
    own = np.array(said, bool)
    starts = np.flatnonzero(own & ~np.concatenate([[False], own[:-1]]))
    own[: starts[-1]] = False
    return np.array([*ids, *own.astype(int)], np.int32)


def last_exchange(cell: np.ndarray) -> tuple[list[int], list[int]]:
    """Of a conversation as ``prepare`` gives it the ids up to where the assistant speaks last, and what it says there."""
    ids, own = cell[: len(cell) // 2], last_said(*np.split(cell, 2))[len(cell) // 2 :].astype(bool)
    first = int(np.flatnonzero(own)[0])
    return ids[:first].tolist(), ids[own].tolist()


def listed(cell: Any) -> Sequence[Any]:
    """The list of messages of a cell: of a list, of JSON, or under ``messages`` or ``conversations``.

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
    """A cell in any of its layouts as roles with their parts; ``ended``: it is whole, as in a table, and not one that is to be gone on with.

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
                f"message {number} is by '{role}' after '{before or 'nothing'}': a user and the assistant take turns, the user first, a system message before all"
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
    """A message's content as texts and references.

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
                f'message {number} brings its media inside ({kind}); put them in a column of their own and refer to that: {{"type": "image", "column": NAME}}'
            )
        elif kind in ("image", "audio", "video"):
            yield {"column": kind}
        else:
            raise BadCell(
                f"message {number} has a part of type '{kind}' with nothing in it that is known; known are text, image, audio and video, or any with a \"column\""
            )


def calls_of(message: Mapping[str, Any]) -> list[str]:
    """The calls of tools in a message, each as JSON with ``name`` and ``arguments``, as most templates write them.

    OpenAI's ``tool_calls`` and the older ``function_call``; arguments that are JSON in a text are taken out of it.
    """
    given = message.get("tool_calls") or ([message["function_call"]] if message.get("function_call") else [])
    result = []
    for call in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
        told = call.get("function", call) if isinstance(call, Mapping) else {"name": str(call)}
        told = told if isinstance(told, Mapping) else {"name": str(told)}
        arguments = told.get("arguments", {})
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError, RecursionError):
                arguments = json.loads(arguments)
        result.append(json.dumps({"name": told.get("name"), "arguments": arguments}, ensure_ascii=False, default=str))
    return result


class _ConversationStem(Stem):
    """Conversations are asked, never seen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, cells: Cells) -> tuple[torch.Tensor, torch.Tensor | None]:
        said = cells["said"]
        return torch.zeros(len(said), 0, self.width, device=said.device), said[:, :0]
