"""After training: what the network keeps of training rows, and whether it counts.

Gists and sketches are judged on validation rows by how well each of their cells finds its row's other cells; neither counts where
that is not better than without. What the rows say in short columns is judged where answers are settled.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import torch

from sensorium.core.settings import at_least
from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared
from sensorium.generators import Generator
from sensorium.network.batch import collate
from sensorium.network.network import Network
from sensorium.nn.row_memory import RowMemory
from sensorium.training.calibrate import encode, judged_columns, sureness

STRENGTHS = 0.0, 0.5
"""What is found by gists, and by sketches, may count so much. Some hundred validation rows can't tell finer steps apart."""
JUDGES, FEWEST = 1000, 20
"""Validation rows that judge, at most and at least."""
PART = 1024
"""Rows that are encoded at once."""


class MemorySettings:
    """What a model remembers of its training rows (section ``memory``).

    Args:
        rows: gists, hashed words and the categories, numbers and dates that answers lean on are kept of so many training rows, drawn
            at random; 0: of none.
    """

    def __init__(self, *, rows: int = 4096) -> None:
        at_least("memory", 0, rows=rows)
        self.rows = rows


@torch.inference_mode()
def memorise(network: Network, prepared: Prepared, remember: MemorySettings, sharpness: float, seed: int) -> None:
    """Set ``network.calibration.memory``, where a row has several columns that are matched and there are validation rows to judge it; and ``network.calibration.counts``.

    Args:
        sharpness: the scale of cosines that training has learned.
    """
    network.calibration.memory, network.calibration.counts = None, counts(network, prepared)
    matched = [c for c in network.columns if network.modalities[c].matched and c in prepared.ready.columns]
    rows, judges = prepared.rows["train"], prepared.rows.get("validation", np.zeros(0, np.int64))
    if not remember.rows or len(matched) < 2 or len(judges) < FEWEST:
        return
    if len(rows) > remember.rows:
        rows = np.sort(np.random.default_rng(seed).choice(rows, remember.rows, replace=False))
    judges = evenly_spaced(judges, JUDGES)
    held, drawn = gists(network, prepared, matched, judges), sketches(network, prepared, matched, judges)
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
        refined = {c: memory(c, held[c], drawn.get(c)) for c in matched}
        return float(np.mean([nearness(refined[a], refined[b]) for a, b in pairs]))

    memory.strength, memory.trust = max(
        itertools.product(STRENGTHS, STRENGTHS if memory.sketched else (0.0,)), key=found
    )
    memory.by = {
        column: [c for c in matched if telling(memory, network.generator(column), column, c)]
        for column in memory.asked_columns
    }
    network.calibration.memory = memory


def counts(network: Network, prepared: Prepared) -> dict[str, list[int] | int]:
    """How many training rows have each class of a category, and how many have a number or a date: what few have is no part of a model that is given away."""
    found: dict[str, list[int] | int] = {}
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
                np.concatenate(prepared.ready.cells(column, have[start : start + PART])), minlength=len(total)
            )
        found[column] = total[1:].tolist()
    prepared.ready.release()
    return found


@torch.inference_mode()
def telling(memory: RowMemory, generator: Generator, column: str, by: str) -> bool:
    """Whether rows that are alike in one column say of another what is so, surely more often than any rows do.

    Two drawings of a thing by different makers are alike, and each says of the other's maker what isn't so. Rows held out can't show
    that where all rows of a thing are held out together.
    """
    gains = []
    for rows, told, others in memory.among_themselves(column, by, JUDGES):
        any_row = others / others.sum(1, keepdim=True).clamp(min=1)
        hidden, truth = told.weights.new_zeros(len(rows), 1, generator.width), told.targets[rows]
        plain = generator.loss(hidden, truth, dataclasses.replace(told, weights=any_row))
        gains.append(
            plain - generator.loss(hidden, truth, dataclasses.replace(told, weights=(told.weights + any_row) / 2))
        )
    return sum(map(len, gains)) > 1 and sureness(torch.cat(gains).float().cpu().numpy()) > 1


def gists(network: Network, prepared: Prepared, columns: list[str], rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Each column's gists of some rows [rows, gist], zeros where a row lacks it."""
    result = {
        c: torch.zeros(len(rows), network.gist_size, device=network.conditioning.to_gist.weight.device) for c in columns
    }
    done = 0
    for start in range(0, len(rows), PART):
        for batch, encoded in encode(network, prepared, rows[start : start + PART], columns):
            for column, part in encoded.items():
                result[column][done + part.index] = part.gist.float()
            done += batch.rows
    return result


def sketches(network: Network, prepared: Prepared, columns: list[str], rows: np.ndarray) -> dict[str, torch.Tensor]:
    """The sketches [rows, any] of the columns that have some, zeros where a row lacks it."""
    result = {}
    for column in columns:
        modality = network.modalities[column]
        if modality.sketch([]) is None:
            continue
        cells = prepared.ready.cells(column, rows)
        here = [row for row, cell in enumerate(cells) if cell is not None and len(cell)]
        drawn = modality.sketch([cells[row] for row in here])
        result[column] = torch.zeros(len(rows), drawn.shape[1], device=network.conditioning.to_gist.weight.device)
        result[column][here] = torch.from_numpy(drawn).to(result[column])
        prepared.ready.release()
    return result


def targets(network: Network, prepared: Prepared, rows: np.ndarray) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The tokens [rows, ...] of the columns whose answers may lean on them, and which rows have them [rows]."""
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


def nearness(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean reciprocal rank of each row's own cell of ``b`` among all, by those of ``a``; 0 where no row has both."""
    both = (a.abs().sum(1) > 0) & (b.abs().sum(1) > 0)
    if not both.any():
        return 0.0
    a, b = a[both], b[both]
    scores = a @ b.T
    return float((1 / (scores >= scores.diagonal()[:, None]).sum(1).float()).mean())
