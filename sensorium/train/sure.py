"""How often the answers of a model that talks are right, by how sure they are: asked on conversations held out (``layers.sureness``)."""

from __future__ import annotations

import numpy as np

from sensorium.chat import batches, go_on
from sensorium.data.order import spread
from sensorium.data.prepare import Prepared
from sensorium.inference import Rows
from sensorium.layers.sureness import SHORT, Sureness
from sensorium.modalities.conversation import last_exchange
from sensorium.network import Network

ASKED = 128
"""Conversations that are asked, at most."""


def sure(network: Network, prepared: Prepared, precision: str) -> None:
    """Go on with validation conversations where they are about some cell and end with a short answer, and note how often what is said is what stands there."""
    for column in network.talked_columns:
        modality = network.modalities[column]
        rows = spread(np.asarray(prepared.rows.get("validation", ()), np.int64), 4 * ASKED)
        if not len(rows):
            continue
        asked = []
        for row, cell in zip(rows.tolist(), prepared.ready.cells(column, rows), strict=True):
            if len(cell):
                before, said = last_exchange(np.array(cell))
                if len(said) <= SHORT and any(i < 0 for i in before):
                    asked.append((row, before, modality.language.text(said).strip()))
        asked = [asked[at] for at in spread(np.arange(len(asked)), ASKED).tolist()]
        source = np.array([row for row, _, _ in asked], np.int64)
        read = Rows(network, {c: list(prepared.ready.cells(c, source)) for c in network.columns if c != column and c in prepared.ready.columns}, {}, len(source))
        read.precision = precision
        score, tokens, right = np.zeros(len(asked)), np.ones(len(asked)), np.zeros(len(asked), bool)
        for some in batches([before for _, before, _ in asked]):
            for at, answer in zip(some, go_on(network, read, some, [asked[at][1] for at in some], SHORT), strict=True):
                score[at], tokens[at], right[at] = answer.score, answer.tokens, answer.text == asked[at][2]
        modality.sureness = Sureness.of(score, tokens, right)
