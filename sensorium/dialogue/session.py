"""Chat sessions: one path for a chat message, from the terminal, from Python (``Model.chat``) and over HTTP.

A session knows a trained network, cells that messages bring, and an index whose rows its answers cite. It knows no
terminal and no server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
import torch

from sensorium.core.errors import UserError
from sensorium.core.registry import name_of
from sensorium.data.table import Table
from sensorium.dialogue.decoding import OnText, Sampling, fit_retrieved_rows, generate_replies
from sensorium.dialogue.messages import attach_media, messages_to_answer
from sensorium.dialogue.parts import dialogue_column
from sensorium.dialogue.reply import Reply, abstain_if_unsure
from sensorium.dialogue.scoring import TextAttribution, attribute_answer
from sensorium.inference.rows import Rows
from sensorium.inference.trained import Trained

N_CITED = 3
"""Rows of an index that are retrieved for an answer, by default."""

Cells = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
"""The row that a conversation is about, by columns, or several rows."""


class Retriever(Protocol):
    """Index of rows that answers cite (``search.index.Index``)."""

    @property
    def store(self) -> Any:
        """Vectors on the disk; ``about["columns"]``: those that are searched by."""

    def search_rows(self, rows: Rows, *, k: int) -> list[pa.Table]:
        """The nearest rows of the index to each of some rows."""


class ChatSession:
    """Conversation with a trained network: its messages, the cells that they refer to, and how it is answered.

    ``ask`` keeps the state of one conversation; ``reply`` and ``reply_all`` answer conversations that are handed in.

    Args:
        trained: a network that was trained on conversations. sampling: how answers are decoded; seed: of the random
            draws, the same for each answer.
        sure: answer "I don't know." where answers like this one were right less often, 0 to 1 (``Reply.right``).
        index: ``n_cited`` of its rows that are like what is shown come with the answer; where nothing is shown, those
            that are like the question are told before it.
        cells: the row that the conversation is about, or several, of which ``"row": 1`` names the second.

    Attributes:
        messages: those that were answered, with the answers. cells: rows that the conversation refers to.
        pending: cells, as parts of a message, that go with the next question.
        answer: the last one, or what it would have been; empty where there is none.

    Raises:
        UserError: the network wasn't trained on conversations.
    """

    def __init__(
        self,
        trained: Trained,
        sampling: Sampling = Sampling(),
        *,
        seed: int = 0,
        sure: float = 0.0,
        index: Retriever | None = None,
        n_cited: int = N_CITED,
        cells: Cells = None,
    ) -> None:
        dialogue_column(trained.network)
        self.trained, self.network, self.sampling, self.seed = trained, trained.network, sampling, seed
        self.sure, self.index, self.n_cited = sure, index, n_cited
        self.reset(cells)

    # --- one conversation that goes on --------------------------------------------------------------------------------

    def reset(self, cells: Cells = None) -> None:
        """Begin a new conversation, about other cells."""
        self.messages: list[dict[str, Any]] = []
        self.cells: list[dict[str, Any]] = [dict(row) for row in listed(cells)] or [{}]
        self.pending: list[dict[str, Any]] = []
        self.answer = ""

    def attach(self, column: str, cell: Any, row: int = 0) -> None:
        """Attach a cell to the next question."""
        self.cells[row][column] = cell
        self.pending.append({"type": "cell", "column": column, "row": row})

    def ask(self, text: str, on_text: Callable[[str], None] | None = None) -> Reply:
        """Answer a question in this conversation, which goes on with it.

        Args:
            on_text: see ``reply``.
        """
        messages = [*self.messages, {"role": "user", "content": [*self.pending, {"type": "text", "text": text}]}]
        result = self.reply(messages, self.cells, on_text)
        self.messages, self.pending = [*messages, {"role": "assistant", "content": result.text}], []
        self.answer = result.unsure or result.text
        return result

    def add_exchange(self, question: str, answer: str) -> None:
        """Append a question that was answered otherwise, as by a query."""
        self.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        self.answer = ""

    def attribute(self) -> list[TextAttribution]:
        """Attribution of the last answer to the cells that the conversation refers to."""
        rows, messages = self.read(self.messages[:-1], self.cells)
        return attribute_answer(self.network, rows, 0, messages, self.answer)

    # --- conversations that are handed in -----------------------------------------------------------------------------

    def reply(
        self, messages: Sequence[Any], cells: Cells = None, on_text: Callable[[str], None] | None = None
    ) -> Reply:
        """Reply to messages in OpenAI's form.

        Args:
            messages: see ``messages.attach_media``; parts may name a cell: ``{"type": "cell", "column": NAME}``.
            on_text: is called with each piece of the answer as it is decoded; with all of it at its end, where it must
                be ``sure``.

        Raises:
            UserError: messages are in no order, or a cell can't be read.
        """
        rows, read = self.read(messages, cells)
        early = None if on_text is None or self.sure > 0 else lambda _, text: on_text(text)
        result = self.reply_all([read], lambda _: rows, [0], early)[0]
        if on_text and self.sure > 0:
            on_text(result.text)
        return result

    def reply_all(
        self,
        conversations: Sequence[Sequence[Any]],
        rows_of: Callable[[Sequence[int]], Rows],
        starts: Sequence[int],
        on_text: OnText | None = None,
    ) -> list[Reply]:
        """Replies to several conversations, decoded side by side.

        Args:
            conversations: as ``messages_to_answer`` gives them. rows_of: the rows that some of them are about, read.
            starts: for each conversation its first row among those of all.
            on_text: is called with each piece as it is decoded, also where answers must be ``sure``.
        """
        prompts: list[Sequence[Any]] = list(conversations)
        cited: list[list[dict[str, Any]]] = [[] for _ in conversations]
        if self.index is not None and self.n_cited:
            for number, messages in enumerate(conversations):
                rows = rows_of([number])
                cited[number] = self.retrieve(rows, messages)
                if not rows.cells:
                    prompts[number] = fit_retrieved_rows(self.network, messages, cited[number])
        every = rows_of(range(len(conversations)))
        sampling = dataclasses.replace(self.sampling, generator=torch.Generator().manual_seed(self.seed))
        replies = generate_replies(self.network, every, starts, prompts, sampling, on_text)
        return [
            dataclasses.replace(abstain_if_unsure(one, self.sure), cited=rows)
            for one, rows in zip(replies, cited, strict=True)
        ]

    def read(self, messages: Sequence[Any], cells: Cells = None) -> tuple[Rows, list[Any]]:
        """The row that a conversation is about, read, with those that follow; and its messages as roles with parts.

        Raises:
            UserError: messages are in no order, refer to a cell that isn't there, or to one that can't be read.
        """
        columns, modalities = self.trained.columns, self.network.modalities
        cleaned, brought = attach_media(messages, self.network, listed(cells))
        result = messages_to_answer(cleaned)
        every = [
            {column: cell for column, cell in row.items() if column in columns and cell is not None} for row in brought
        ]
        for part in (part for _, parts in result for part in parts if isinstance(part, dict)):
            column, at = part["column"], part.get("row", 0)
            row = every[at] if at < len(every) else {}
            if column not in row and not any(name_of(modalities[c]) == column for c in row):
                raise UserError(
                    f"The conversation refers to '{column}', which isn't there. Give it with "
                    f"cells={{'{column}': …}}, or bring it in the message. Columns: {', '.join(columns)}."
                )

        def refuse(number: int, column: str, reason: str) -> None:
            raise UserError(f"The {column} of the conversation can't be read: {reason}.")

        used = [c for c in columns if any(c in row for row in every)]
        table = Table.open([{c: row.get(c) for c in used} or {columns[0]: None} for row in every])
        return Rows.of(
            self.network, table, [c for c in used if c not in self.network.dialogue_columns], bad=refuse
        ), result

    def retrieve(self, rows: Rows, messages: Sequence[Any]) -> list[dict[str, Any]]:
        """Rows of the index that are like the row that a conversation is about, or like its last question.

        The question counts where the conversation is about no row; none come where neither can be searched by.
        """
        assert self.index is not None
        able = [c for c in self.index.store.about["columns"] if c in self.network.modalities]
        if not any(rows.has(c).any() for c in able if c in rows.cells):
            words = next((c for c in able if self.network.modalities[c].is_text), None)
            if words is None or rows.cells:
                return []
            question = " ".join(part for part in messages[-1][1] if isinstance(part, str))
            rows = Rows.of(self.network, Table.open([{words: question}]), [words])
        return self.index.search_rows(rows, k=self.n_cited)[-1].to_pylist()


def listed(cells: Cells) -> list[Mapping[str, Any]]:
    """Cells as rows."""
    return [cells] if isinstance(cells, Mapping) else list(cells or ())
