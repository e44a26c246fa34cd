"""Answers scored by a language model: their log-probabilities, choices among several, and attribution to cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sensorium.core.errors import BadCell, UserError
from sensorium.core.registry import name_of
from sensorium.dialogue.decoding import length_batches, tuning_context
from sensorium.dialogue.parts import dialogue_column, dialogue_head, dialogue_modality
from sensorium.inference.rows import Rows
from sensorium.inference.trained import Trained, bad_row_column
from sensorium.modalities._capabilities import Attributable
from sensorium.modalities.conversation import last_answer_only
from sensorium.network.network import Network
from sensorium.network.packed_conversation import PackedConversation, summed_losses
from sensorium.nn.precision import autocast


@torch.inference_mode()
def answer_log_probabilities(
    network: Network, rows: Rows, which: Sequence[int], conversations: Sequence[Sequence[Any]]
) -> np.ndarray:
    """Log-probability [n] of the assistant's last message in each conversation, of which each is about a row.

    Raises:
        UserError: as ``generate_replies``.
    """
    result = np.zeros(len(conversations))
    for numbers, refers, packed in pack_last_answers(network, rows, which, conversations):
        with autocast(rows.precision, rows.device), tuning_context(network, refers):
            result[numbers] = -summed_losses(network.trunk, packed)[0].float().cpu().numpy()
    return result


def pack_last_answers(
    network: Network, rows: Rows, which: Sequence[int], conversations: Sequence[Sequence[Any]]
) -> Iterator[tuple[list[int], bool, PackedConversation]]:
    """Batches of conversations in which only the assistant's last message is a target.

    Yields:
        their numbers, whether they refer to cells, and the batch.

    Raises:
        UserError: one is too long, or in no order that the language model takes.
    """
    column, modality = dialogue_column(network), dialogue_modality(network)
    encoded, prepared = rows.encoded_columns([c for c in rows.cells if c != column]), []
    for messages in conversations:
        try:
            prepared.append(modality.shortened([[role, list(parts)] for role, parts in messages]))
        except BadCell as error:
            raise UserError(f"A conversation can't be weighed: {error}") from error
    for numbers in length_batches([ids for ids, _ in prepared]):
        cells = modality.collate([last_answer_only(*prepared[number]) for number in numbers])
        own = torch.tensor([which[number] for number in numbers])
        with autocast(rows.precision, rows.device):  # what cells' tokens were encoded in
            packed = dialogue_head(network).pack_conversations(column, encoded, cells, own)
        yield numbers, any(i < 0 for number in numbers for i in prepared[number][0]), packed


def choice_probabilities(
    network: Network, rows: Rows, columns: Sequence[str], question: str, options: Sequence[str]
) -> np.ndarray:
    """Zero-shot probabilities [n, options] of answers to a question about each row: a softmax of log-probabilities.

    The options need be none that were ever learned.

    Args:
        columns: cells that the question refers to, where a row has them.

    Raises:
        UserError: as ``generate_replies``, fewer than two options, or two that are alike.
    """
    if len(options) < 2 or len(set(options)) < len(options):
        raise UserError(
            f"Answers to choose among are at least two, and no two alike; given were: {', '.join(options) or 'none'}."
        )
    if not rows.count:
        return np.zeros((0, len(options)))
    visible = [[{"column": c} for c in columns if rows.has(c)[row]] for row in range(rows.count)]
    asked = [[("user", [*cells, question]), ("assistant", [option])] for cells in visible for option in options]
    which = [row for row in range(rows.count) for _ in options]
    scores = answer_log_probabilities(network, rows, which, asked).reshape(rows.count, len(options))
    chance = np.exp(scores - scores.max(1, keepdims=True))
    return chance / chance.sum(1, keepdims=True)


def choose_answers(
    trained: Trained,
    rows: Any,
    question: str,
    options: Sequence[str],
    of: Sequence[str] | None = None,
    note: Callable[[str], None] | None = None,
) -> pa.Table:
    """The likeliest of some answers to a question about each row, as a table: see ``Model.choose``."""
    network = trained.network
    known = dialogue_modality(network).referred
    columns = list(of) if of else [c for c in trained.columns if c in known or name_of(network.modalities[c]) in known]
    trained.check(columns)
    chances: list[np.ndarray] = []
    bad: dict[int, str] = {}
    count = 0
    for read in trained.windows(rows, columns, note):
        chances.append(choice_probabilities(network, read, columns, question, options))
        chances[-1][list(read.bad)] = np.nan
        bad |= {count + row: reason for row, reason in read.bad.items()}
        count += read.count
    chance = np.concatenate(chances)
    best = [None if row in bad else options[at] for row, at in enumerate(chance.argmax(1).tolist())]
    return pa.table(
        {
            "value": pa.array(best, pa.string()),
            "probability": pa.array(chance.max(1), pa.float32(), from_pandas=True),
            **{option: pa.array(chance[:, at], pa.float32(), from_pandas=True) for at, option in enumerate(options)},
            **bad_row_column(bad, count),
        }
    )


@dataclasses.dataclass
class TextAttribution:
    """Leave-one-out attribution: how much likelier an answer is with a cell, or with a part of one, in nats."""

    column: str
    part: str
    nats: float


def attribute_answer(
    network: Network, rows: Rows, row: int, messages: Sequence[Any], answer: str
) -> list[TextAttribution]:
    """Attribution of an answer to the cells that its conversation refers to, and to their parts, each left out once.

    Returns:
        whole cells first, then parts, each by weight.

    Raises:
        UserError: as ``generate_replies``.
    """
    whole = [*messages, ("assistant", [answer])]
    names = {name_of(network.modalities[c]): c for c in reversed(network.columns)} | {c: c for c in network.columns}
    referred = dict.fromkeys(
        (names.get(part["column"], ""), row + part.get("row", 0))
        for _, parts in messages
        for part in parts
        if isinstance(part, dict)
    )
    base, result = float(answer_log_probabilities(network, rows, [row], [whole])[0]), []
    for column, at in referred:
        if column not in rows.cells or at >= rows.count or not rows.has(column)[at]:
            continue
        called = f"{column} {at - row + 1}" if at > row else column
        hidden = rows.with_cells(column, np.array([at]), [None])
        left = float(answer_log_probabilities(network, hidden, [row], [whole])[0])
        result.append(TextAttribution(called, "", base - left))
        modality = network.modalities[column]
        parts = modality.parts(rows.read[column][at]) if isinstance(modality, Attributable) else []
        ready = modality.prepare_all([cell for _, cell in parts], keep=False) if parts else []
        able = [(name, cell) for (name, _), cell in zip(parts, ready, strict=True) if not isinstance(cell, BadCell)]
        if not able:
            continue
        span = rows.count - row  # the conversation's rows once for each part, one of them without it
        others = Rows(network, {c: cells[row:] * len(able) for c, cells in rows.cells.items()}, {}, span * len(able))
        for number, (_, cell) in enumerate(able):
            others.cells[column][number * span + at - row] = cell
        others.precision = rows.precision
        starts = [number * span for number in range(len(able))]
        without = answer_log_probabilities(network, others, starts, [whole] * len(able))
        result += [
            TextAttribution(called, name, base - float(value)) for (name, _), value in zip(able, without, strict=True)
        ]
    return sorted(result, key=lambda because: (because.part != "", -because.nats))
