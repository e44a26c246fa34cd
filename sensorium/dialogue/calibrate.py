"""Calibration of answers: how often they are right, by how sure they are, on validation rows (``nn.platt``)."""

from __future__ import annotations

import numpy as np

from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared
from sensorium.data.split import ROWWISE, VALIDATION
from sensorium.dialogue.decoding import Sampling, decode_replies, length_batches
from sensorium.dialogue.parts import dialogue_head
from sensorium.dialogue.reply import confidence_features
from sensorium.inference.rows import Rows
from sensorium.modalities.conversation import last_exchange
from sensorium.network.network import Network
from sensorium.nn.platt import MAX_ANSWER_TOKENS, PlattScaler
from sensorium.nn.precision import Precision

MAX_CONVERSATIONS = 128
"""Conversations of a part that are asked, at most."""


def calibrate_answers(network: Network, prepared: Prepared, precision: Precision) -> None:
    """Fit a ``PlattScaler`` for each column of conversations.

    It learns how often the network's answers are the validation conversations' own, where these are about some cell and
    end with a short answer.
    """
    for column in network.dialogue_columns:
        modality = network.dialogue_modality(column)
        asked = [each for part in (VALIDATION, ROWWISE) for each in short_exchanges(network, prepared, column, part)]
        source = np.array([row for row, _, _ in asked], np.int64)
        if not len(source):
            continue
        columns = [c for c in network.columns if c != column and c in prepared.ready.columns]
        read = Rows(network, {c: list(prepared.ready.cells(c, source)) for c in columns}, {}, len(source))
        read.precision = precision
        features, right = [[0.0]] * len(asked), np.zeros(len(asked), bool)
        sampling = Sampling(max_tokens=MAX_ANSWER_TOKENS)
        for batch in length_batches([prompt for _, prompt, _ in asked]):
            replies = decode_replies(network, read, batch, [asked[at][1] for at in batch], sampling)
            for at, reply in zip(batch, replies, strict=True):
                features[at] = confidence_features(reply, asked[at][1], modality.language)
                right[at] = reply.text == asked[at][2]
        modality.sureness = PlattScaler.fit(np.array(features), right)


def short_exchanges(network: Network, prepared: Prepared, column: str, part: str) -> list[tuple[int, list[int], str]]:
    """Conversations of a part that are about some cell of their own row and end with a short answer.

    Returns:
        for each its row, the ids up to the answer, and the answer.
    """
    language, own = network.dialogue_modality(column).language, dialogue_head(network).references(1)
    rows = evenly_spaced(np.asarray(prepared.rows.get(part, ()), np.int64), 4 * MAX_CONVERSATIONS)
    found = []
    for row, cell in zip(rows.tolist(), prepared.ready.cells(column, rows) if len(rows) else [], strict=True):
        if cell is not None and len(cell):
            prompt, answer = last_exchange(np.array(cell))
            references = [i for i in prompt if i < 0]
            if len(answer) <= MAX_ANSWER_TOKENS and references and all(i in own for i in references):
                found.append((row, prompt, language.text(answer).strip()))
    return [found[at] for at in evenly_spaced(np.arange(len(found)), MAX_CONVERSATIONS).tolist()]
