"""Conversations: a cell is a list of messages, of text and references to cells of the same row or of one after it.

It is read from OpenAI's form (``role``, ``content`` as text or parts), ShareGPT's and LLaVA's (``from``, ``value``,
``<image>``), as lists or JSON. The assistant's words are learned, by the language model's own chat template. No text of
a message can become one of its control tokens.
"""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.core.types import Claim, Profile
from sensorium.modalities._capabilities import Dialogue
from sensorium.modalities._messages import listed, messages_of
from sensorium.nn.platt import PlattScaler

if TYPE_CHECKING:
    from sensorium.backbones._language_model import LanguageModel
    from sensorium.nn.stem import Cells, Stem

EMPTY = np.zeros(0, np.int32)


class Conversation(Dialogue):
    """Messages between a user and an assistant. For its attributes see ``Dialogue``.

    Args:
        language: the language model whose words and template are used; by default that of the trunk.
        length: tokens kept of a conversation: where it is longer, its oldest exchanges are left out, each whole.
        system: the system message of conversations that have none; empty: none is added.
        recall: a column of texts or categories, as a name: beside a cell that it refers to a conversation gets the
            names of known rows that are similar.
        recalled: how many of these. remembered: number of rows that are known, the newest ones.
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
                f"recalled={recalled}, remembered={remembered}, tokens={tokens}: the first two must be at least 1, the "
                "last at least 0."
            )
        self.path, self.length, self.system = language, length, system
        self.recall, self.recalled, self.remembered, self.tokens_of_cells = recall, recalled, remembered, tokens
        self.referred: set[str] = set()
        self.bare = self.again = self.beside = False
        self.sureness: PlattScaler | None = None

    @property
    def language(self) -> LanguageModel:
        """Tokenizer of its language model.

        Raises:
            UserError: none was given.
        """
        from sensorium.backbones._open import open_language

        if not self.path:
            raise UserError(
                "Conversations need a language model: column.NAME.language=FOLDER, or as the trunk: trunk=causal_lm "
                "trunk.path=FOLDER."
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
        """Token ids of the messages, then a mask, 1 for each that is the assistant's, else 0: int32 [2k].

        Ids below 0 stand for referred cells (``reference``).

        Raises:
            BadCell: the assistant says nothing, or its last exchange by itself is too long.
        """
        messages = json.loads(read.tobytes())
        if not any(role == "assistant" for role, _ in messages):
            raise BadCell("the assistant says nothing in it, so there is nothing to learn")
        ids, own = self.shortened(messages)
        return np.array([*ids, *own], np.int32)

    def shortened(self, messages: list[Any], answer: bool = False) -> tuple[list[int], list[int]]:
        """Ids and mask of the assistant's, without the oldest exchanges where there are too many.

        Where no training conversation showed things more than once, exchanges about things that were shown before are
        left out too: a model that never learned that takes the next thing for the one before.

        Raises:
            BadCell: the last exchange by itself is too long.
        """
        showing_at = showing(messages)
        if not self.again and len(showing_at) > 1:
            messages = [*messages[: messages[0][0] == "system"], *messages[showing_at[-1] :]]
        while True:
            ids, own = self.ids(messages, answer)
            if len(ids) <= self.length:
                return ids, own
            first = 1 if messages[0][0] == "system" else 0
            later = next((at for at in range(first + 1, len(messages)) if messages[at][0] == "user"), None)
            if later is None:
                raise BadCell(
                    f"its last exchange has {len(ids)} tokens; {self.length} are kept of a conversation "
                    "(column.NAME.length)"
                )
            messages = messages[:first] + messages[later:]

    def ids(self, messages: Sequence[Any], answer: bool = False) -> tuple[list[int], list[int]]:
        """Ids of a whole conversation by the model's chat template, and a mask of the assistant's own.

        Args:
            answer: end where the assistant is to speak.
        """
        from sensorium.nn.packing import reference

        language, given = self.language, list(messages)
        if given[0][0] == "system" and not language.has_system:
            given = given[1:]
        elif given[0][0] != "system" and language.has_system:
            given = [["system", [self.system]], *given]
        ids, own, is_own = [], [], False
        for piece, content in language.written([{"role": role} for role, _ in given], answer):
            if content:
                role, parts = given[int(piece)]
                is_own = role == "assistant"
                for part in parts:
                    new = (
                        language.ids(part) if isinstance(part, str) else [reference(part["column"], part.get("row", 0))]
                    )
                    ids += new
                    own += [int(is_own)] * len(new)
            else:
                new = language.words.encode(piece, add_special_tokens=False).ids
                ended = next((at + 1 for at, i in enumerate(new) if i in language.special), 0) if is_own else 0
                ids += new
                own += [1] * ended + [0] * (len(new) - ended)
                is_own = False
        return ids, own

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        """``ids`` int64 [n, k], padded with the end, ``said`` bool [n, k] (the assistant's) and ``length`` [n]."""
        import torch

        lengths = np.array([len(cell) // 2 for cell in cells], np.int64)
        ids, own = (
            np.full((len(cells), int(lengths.max(initial=1))), self.language.end, np.int64),
            np.zeros((len(cells), int(lengths.max(initial=1))), bool),
        )
        for row, (cell, length) in enumerate(zip(cells, lengths, strict=True)):
            ids[row, :length], own[row, :length] = cell[:length], cell[length:]
        return {"ids": torch.from_numpy(ids), "said": torch.from_numpy(own), "length": torch.from_numpy(lengths)}

    def stem(self, width: int) -> Stem:
        from sensorium.modalities._stems.conversation import ConversationStem

        return ConversationStem(width)

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
        """Zero: what is said about a row isn't what its other columns are predicted from."""
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
        sureness = state.get("sureness")
        self.sureness = (
            PlattScaler(sureness["level"], *(tuple(sureness[key]) for key in ("slopes", "middle", "spread")))
            if sureness
            else None
        )


def showing(messages: Sequence[Any]) -> list[int]:
    """Indices of the user's messages that show something."""
    return [
        number
        for number, (role, parts) in enumerate(messages)
        if role == "user" and any(isinstance(part, dict) for part in parts)
    ]


def last_answer_only(ids: Sequence[int] | np.ndarray, own: Sequence[int] | np.ndarray) -> np.ndarray:
    """Conversation as ``prepare`` gives it, with only the assistant's last message in the mask."""
    mask = np.array(own, bool)
    starts = np.flatnonzero(mask & ~np.concatenate([[False], mask[:-1]]))
    mask[: starts[-1]] = False
    return np.array([*ids, *mask.astype(int)], np.int32)


def last_exchange(cell: np.ndarray) -> tuple[list[int], list[int]]:
    """Ids of a conversation as ``prepare`` gives it up to the assistant's last message, and those of that message."""
    ids, own = cell[: len(cell) // 2], last_answer_only(*np.split(cell, 2))[len(cell) // 2 :].astype(bool)
    first = int(np.flatnonzero(own)[0])
    return ids[:first].tolist(), ids[own].tolist()
