"""Row memory of a network, built after training from training rows, and whether it counts.

Gists and sketches are judged on validation rows by how well each of their cells finds its row's other cells. Neither
counts where that is not better than without. What the rows predict of short columns is judged in calibration.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import torch

from sensorium.core.deadline import Deadline
from sensorium.core.settings import at_least
from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared
from sensorium.ensemble.question import ShortGenerator, short_generator
from sensorium.network.batch import collate
from sensorium.network.network import Network
from sensorium.nn.row_memory import RowMemory
from sensorium.training.calibrate import (
    encode,
    judged_columns,
    present_cells,
    standard_score,
)

STRENGTHS = 0.0, 0.5
"""What is found by gists, and by sketches, may count so much. Some hundred validation rows can't tell finer steps
apart."""
MAX_JUDGES, MIN_JUDGES = 1000, 20
"""Validation rows that judge, at most and at least."""
MIN_REMEMBERED = 128
"""Training rows that are kept, however short the time is."""
PART = 1024
"""Rows that are encoded at once."""


class MemorySettings:
    """Settings of the row memory (section ``memory``).

    Args:
        rows: gists, hashed words and the categories, numbers and dates that answers lean on are kept of so many
            training rows, chosen at random; 0: of none.
    """

    def __init__(self, *, rows: int = 4096) -> None:
        at_least("memory", 0, rows=rows)
        self.rows = rows


@torch.inference_mode()
def build_memory(
    network: Network,
    prepared: Prepared,
    remember: MemorySettings,
    sharpness: float,
    seed: int,
    deadline: Deadline | None = None,
) -> None:
    """Set ``network.calibration.memory``, where a row has several matched columns and there are validation rows to
    judge it, and ``network.calibration.counts``.

    Args:
        sharpness: the scale of cosines that training has learned. deadline: fewer rows are kept, and judge, where
            more wouldn't fit.
    """
    network.calibration.memory, network.calibration.counts = None, value_counts(network, prepared)
    matched = [c for c in network.columns if network.modalities[c].matched and c in prepared.ready.columns]
    rows, judges = prepared.rows["train"], prepared.rows.get("validation", np.zeros(0, np.int64))
    if not remember.rows or len(matched) < 2 or len(judges) < MIN_JUDGES:
        return
    judges = evenly_spaced(judges, MAX_JUDGES)
    most = min(len(rows), remember.rows)
    fitting = (deadline or Deadline()).rows(
        most + len(judges), lambda n: gists(network, prepared, matched, rows[:n]), MIN_REMEMBERED
    )
    if fitting < most + len(judges):
        most, judges = min(most, fitting), evenly_spaced(judges, max(fitting // 2, MIN_JUDGES))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    validation_gists, validation_sketches = (
        gists(network, prepared, matched, judges),
        sketches(network, prepared, matched, judges),
    )
    memory = RowMemory(
        gists(network, prepared, matched, rows),
        sharpness,
        0.0,
        sketches(network, prepared, matched, rows),
        targets=targets(network, prepared, rows),
    )
    kinds = {c: type(network.modalities[c]) for c in matched}
    pairs = [(a, b) for a, b in itertools.permutations(matched, 2) if kinds[a] is not kinds[b]] or list(
        itertools.permutations(matched, 2)
    )

    def found(strengths: tuple[float, float]) -> float:
        memory.strength, memory.trust = strengths
        refined = {c: memory(c, validation_gists[c], validation_sketches.get(c)) for c in matched}
        return float(np.mean([mean_reciprocal_rank(refined[a], refined[b]) for a, b in pairs]))

    memory.strength, memory.trust = max(
        itertools.product(STRENGTHS, STRENGTHS if memory.sketched else (0.0,)), key=found
    )
    memory.by = {
        column: [c for c in matched if is_informative(memory, short_generator(network, column), column, c)]
        for column in memory.asked_columns
    }
    network.calibration.memory = memory


def value_counts(network: Network, prepared: Prepared) -> dict[str, object]:
    """Number of training rows of each class of a category, and of rows that have a number or a date.

    A value of few rows is no part of a model that is given away.
    """
    found: dict[str, object] = {}
    rows = prepared.rows["train"]
    for column, modality in network.modalities.items():
        state = modality.state()
        if column not in prepared.ready.columns or not state.keys() & {"classes", "quantiles"}:
            continue
        have = rows[np.diff(prepared.ready.columns[column].offsets)[rows] > 0]
        if "classes" not in state:
            found[column] = len(have)
            continue
        total = np.zeros(1 + len(state["classes"]), np.int64)
        for start in range(0, len(have), PART):
            total += np.bincount(
                np.concatenate(present_cells(prepared, column, have[start : start + PART])), minlength=len(total)
            )
        found[column] = total[1:].tolist()
    prepared.ready.release()
    return found


@torch.inference_mode()
def is_informative(memory: RowMemory, generator: ShortGenerator, column: str, by: str) -> bool:
    """True where rows that are alike in one column predict another one surely better than any rows do.

    Two drawings of an entity by different makers are alike, and each predicts a maker for the other that is wrong.
    Validation rows can't show that where all rows of an entity are in one part of the split.
    """
    gains = []
    for rows, answer, others in memory.among_themselves(column, by, MAX_JUDGES):
        any_row = others / others.sum(1, keepdim=True).clamp(min=1)
        hidden, truth = answer.weights.new_zeros(len(rows), 1, generator.width), answer.targets[rows]
        plain = generator.loss(hidden, truth, dataclasses.replace(answer, weights=any_row))
        gains.append(
            plain - generator.loss(hidden, truth, dataclasses.replace(answer, weights=(answer.weights + any_row) / 2))
        )
    return sum(map(len, gains)) > 1 and standard_score(torch.cat(gains).float().cpu().numpy()) > 1


def gists(network: Network, prepared: Prepared, columns: list[str], rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Gists of some rows, by column [rows, gist], zeros where a row lacks it."""
    result = {
        c: torch.zeros(len(rows), network.gist_size, device=network.conditioning.to_gist.weight.device) for c in columns
    }
    done = 0
    for start in range(0, len(rows), PART):
        for batch, encoded in encode(network, prepared, rows[start : start + PART], columns):
            for column, part in encoded.items():
                assert part.gist is not None
                result[column][done + part.index] = part.gist.float()
            done += batch.rows
    return result


def sketches(network: Network, prepared: Prepared, columns: list[str], rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Sketches [rows, any] of the columns that have some, zeros where a row lacks it."""
    result = {}
    for column in columns:
        modality = network.modalities[column]
        if modality.sketch([]) is None:
            continue
        cells = prepared.ready.cells(column, rows)
        present = {row: cell for row, cell in enumerate(cells) if cell is not None and len(cell)}
        vectors = modality.sketch(list(present.values()))
        assert vectors is not None
        result[column] = torch.zeros(len(rows), vectors.shape[1], device=network.conditioning.to_gist.weight.device)
        result[column][list(present)] = torch.from_numpy(vectors).to(result[column])
        prepared.ready.release()
    return result


def targets(network: Network, prepared: Prepared, rows: np.ndarray) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Target tokens [rows, ...] of the columns whose answers may lean on them, and which rows have them [rows]."""
    result = {}
    for column in judged_columns(network):
        if column not in prepared.ready.columns or not network.generator(column).uses_memory:
            continue
        batch = collate(network.modalities, {column: prepared.ready.cells(column, rows)}, len(rows))
        if column in batch.cells:
            found, index = network.asked_modality(column).target(batch.cells[column]), batch.index[column]
            tokens, have = found.new_zeros(len(rows), *found.shape[1:]), torch.zeros(len(rows), dtype=torch.bool)
            tokens[index], have[index] = found, True
            result[column] = (
                tokens.to(network.conditioning.to_gist.weight.device),
                have.to(network.conditioning.to_gist.weight.device),
            )
    prepared.ready.release()
    return result


def mean_reciprocal_rank(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean reciprocal rank of each row's own cell of ``b`` among all, by those of ``a``; 0 where no row has both."""
    both = (a.abs().sum(1) > 0) & (b.abs().sum(1) > 0)
    if not both.any():
        return 0.0
    a, b = a[both], b[both]
    scores = a @ b.T
    return float((1 / (scores >= scores.diagonal()[:, None]).sum(1).float()).mean())
