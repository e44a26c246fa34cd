"""How often the answers of a model that talks are right, by how sure they are: asked on conversations held out (``nn.platt``)."""

from __future__ import annotations

import numpy as np

from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared
from sensorium.data.split import ROWWISE, VALIDATION
from sensorium.dialogue.chat import batches, go_on, signs
from sensorium.inference.rows import Rows
from sensorium.modalities.conversation import last_exchange
from sensorium.network.network import Network
from sensorium.nn.platt import MAX_ANSWER_TOKENS, PlattScaler

ASKED = 128
"""Conversations of a part that are asked, at most."""


def sure(network: Network, prepared: Prepared, precision: str) -> None:
    """Go on with conversations held out where they are about some cell and end with a short answer, and note how often what is said is what stands there."""
    for column in network.dialogue_columns:
        modality = network.modalities[column]
        asked = [each for part in (VALIDATION, ROWWISE) for each in short_ones(network, prepared, column, part)]
        source = np.array([row for row, _, _ in asked], np.int64)
        if not len(source):
            continue
        read = Rows(
            network,
            {
                c: list(prepared.ready.cells(c, source))
                for c in network.columns
                if c != column and c in prepared.ready.columns
            },
            {},
            len(source),
        )
        read.precision = precision
        told, right = [[0.0]] * len(asked), np.zeros(len(asked), bool)
        for some in batches([before for _, before, _ in asked]):
            for at, answer in zip(some, go_on(network, read, some, [asked[at][1] for at in some], MAX_ANSWER_TOKENS), strict=True):
                told[at], right[at] = signs(answer, asked[at][1], modality.language), answer.text == asked[at][2]
        modality.sureness = PlattScaler.fit(np.array(told), right)


def short_ones(network: Network, prepared: Prepared, column: str, part: str) -> list[tuple[int, list[int], str]]:
    """Conversations of a part that are about some cell of their own row and end with a short answer: their rows, their ids up to it, and the answer."""
    language, own = network.modalities[column].language, network.references(1)
    rows = evenly_spaced(np.asarray(prepared.rows.get(part, ()), np.int64), 4 * ASKED)
    found = []
    for row, cell in zip(rows.tolist(), prepared.ready.cells(column, rows) if len(rows) else [], strict=True):
        if len(cell):
            before, said = last_exchange(np.array(cell))
            if len(said) <= MAX_ANSWER_TOKENS and any(i < 0 for i in before) and all(i in own for i in before if i < 0):
                found.append((row, before, language.text(said).strip()))
    return [found[at] for at in evenly_spaced(np.arange(len(found)), ASKED).tolist()]
