"""Surprise: how unlikely a cell is beside the others of its row, by what the network predicts of each column.

A picture's, sound's or text's gist is compared with the gist of the row's other columns. Of a category, a number or a
date the loss is taken. Validation rows say what is usual. Out-of-distribution scores say how far what a row has lies
from all that was learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sensorium.core.errors import UserError
from sensorium.inference.rows import ROWS_PER_BATCH, Rows
from sensorium.inference.trained import Trained, bad_row_column
from sensorium.network.batch import collate
from sensorium.network.network import Network
from sensorium.network.types import Encoded, IgnoredColumns
from sensorium.nn.out_of_distribution import OutOfDistribution, distance, relative
from sensorium.nn.precision import autocast

LEVELS = 101
"""Number of quantiles by which usual values are described."""
MIN_ROWS = 10
"""Rows of a column that quantiles take, at least."""


@torch.inference_mode()
def misfits(
    network: Network,
    encoded: Mapping[str, Encoded],
    rows: torch.Tensor,
    targets: Mapping[str, torch.Tensor],
    columns: Sequence[str] | None = None,
) -> dict[str, torch.Tensor]:
    """Misfit of some rows' cells with the row's other columns, by column [n]; NaN where a row lacks it, or has nothing
    else.

    Args:
        encoded: the encoded columns. rows: which of their rows.
        targets: of columns without gists the target tokens, in the order of ``Encoded.index``.
        columns: those that are compared with the others; all by default.
    """
    found = {}
    for column in encoded if columns is None else [c for c in columns if c in encoded]:
        part = encoded[column]
        others, place = {c: e for c, e in encoded.items() if c != column}, part.place[rows]
        if not others or (part.gist is None and column not in targets):
            continue
        there = (place >= 0) & torch.stack([e.place[rows] >= 0 for e in others.values()]).any(0)
        value, some, at = torch.full((len(rows),), torch.nan, device=rows.device), rows[there], place[there]
        if len(some) and part.gist is not None:
            value[there] = 1 - (network.gists(others, list(others), some).float() * part.gist[at].float()).sum(1)
        elif len(some):
            heeded = network.calibration.ignored.get(column, IgnoredColumns()).left_out(others)
            value[there] = network.nll(heeded, column, list(others), some, targets[column][at]).mean(1).float()
        found[column] = value
    return found


def surprise_quantiles(found: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Quantiles of the ``misfits`` of validation rows, by column; none where too few rows have it."""
    finite = {column: values[np.isfinite(values)] for column, values in found.items()}
    return {column: quantiles(values) for column, values in finite.items() if len(values) >= MIN_ROWS}


def quantiles(values: np.ndarray) -> list[float]:
    """Quantiles of values at ``LEVELS`` levels."""
    return np.quantile(values, np.linspace(0, 1, LEVELS)).round(5).tolist()


def gists_by_kind(
    network: Network, encoded: Mapping[str, Encoded], rows: torch.Tensor
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Rows that have a gist, by place, and these gists [those, gist]: of each matched column, and of all that a row has
    under the name "".
    """
    found = {}
    if encoded:
        there = torch.stack([e.place[rows] >= 0 for e in encoded.values()]).any(0).nonzero().squeeze(1)
        found[""] = there, network.gists(encoded, list(encoded), rows[there]).float()
    for column, part in encoded.items():
        if part.gist is not None:
            there = (part.place[rows] >= 0).nonzero().squeeze(1)
            found[column] = there, part.gist[part.place[rows[there]]].float()
    return {kind: (there, vectors) for kind, (there, vectors) in found.items() if len(there)}


def fit_out_of_distribution(
    known: Sequence[Mapping[str, torch.Tensor]], validation: Sequence[Mapping[str, torch.Tensor]]
) -> OutOfDistribution | None:
    """Out-of-distribution detector from the gists of training rows, and the distance of validation rows' gists from
    them; None where there are too few.

    Args:
        known, validation: parts of both, gists by kind.
    """
    whole = [
        {
            kind: torch.cat([part[kind] for part in parts if kind in part])
            for kind in dict.fromkeys(kind for part in parts for kind in part)
        }
        for parts in (known, validation)
    ]
    kinds = [kind for kind, vectors in whole[1].items() if len(vectors) >= MIN_ROWS and kind in whole[0]]
    levels = {kind: quantiles(distance(whole[1][kind], whole[0][kind]).cpu().numpy()) for kind in kinds}
    return OutOfDistribution({kind: whole[0][kind].cpu() for kind in kinds}, levels) if kinds else None


@torch.inference_mode()
def distance_scores(rows: Rows) -> dict[str, np.ndarray]:
    """Distance of all rows' gists from those of training rows, by kind (see ``gists_by_kind``): 0 is usual, 1 as far as
    one of ten; NaN where a row has none.
    """
    network = rows.network
    if network.calibration.out_of_distribution is None:
        return {}
    encoded, result = (
        rows.encoded_columns(network.columns),
        {kind: np.full(rows.count, np.nan) for kind in network.calibration.out_of_distribution.known},
    )
    for some in torch.arange(rows.count, device=rows.device).split(ROWS_PER_BATCH):
        with autocast(rows.precision, rows.device):
            found = gists_by_kind(network, encoded, some)
        for kind, (there, vectors) in found.items():
            if kind in result:
                result[kind][some[there].cpu().numpy()] = (
                    network.calibration.out_of_distribution.away(kind, vectors).cpu().numpy()
                )
    return result


def scored_columns(network: Network) -> list[str]:
    """Columns whose misfit is a loss: those without gists that are asked by one token."""
    return [
        c for c in network.asked_columns if not network.modalities[c].matched and c not in network.generative_columns
    ]


def agreement(rows: Rows, column: str, which: np.ndarray) -> list[float | None]:
    """Agreement of some rows' cells of a column with their other cells: the share of validation rows whose misfit is
    larger, 0 to 1; None where there is none.
    """
    network = rows.network
    if column not in network.calibration.surprise_quantiles or not rows.has(column).any():
        return [None] * len(which)
    encoded, found = rows.encoded_columns(network.columns), []
    for some in torch.from_numpy(which).to(rows.device).split(ROWS_PER_BATCH):
        with autocast(rows.precision, rows.device):
            found.append(
                misfits(network, encoded, some, {}, [column])
                .get(column, torch.full((len(some),), torch.nan))
                .cpu()
                .numpy()
            )
    values, levels = np.concatenate(found) if found else np.zeros(0), network.calibration.surprise_quantiles[column]
    return [
        None if np.isnan(value) else float(1 - np.interp(value, levels, np.linspace(0, 1, len(levels))))
        for value in values
    ]


def surprise_scores(rows: Rows) -> dict[str, np.ndarray]:
    """Misfits of all rows, in units of what is usual: 0 is the median of validation rows, 1 as unusual as one of ten;
    NaN where there is none.
    """
    network = rows.network
    encoded = rows.encoded_columns(
        [c for c in network.columns if c in network.calibration.surprise_quantiles or rows.has(c).any()]
    )
    targets = {}
    for column in scored_columns(network):
        if column in encoded:
            cells = [rows.cells[column][row] for row in encoded[column].index.tolist()]
            targets[column] = (
                network.asked_modality(column)
                .target(collate(network.modalities, {column: cells}, len(cells)).cells[column])
                .to(rows.device)
            )
    result = {column: np.full(rows.count, np.nan) for column in network.calibration.surprise_quantiles}
    for some in torch.arange(rows.count, device=rows.device).split(ROWS_PER_BATCH):
        with autocast(rows.precision, rows.device):
            found = misfits(network, encoded, some, targets)
        for column, values in result.items():
            if column in found:
                values[some.cpu().numpy()] = relative(
                    found[column].cpu().numpy(), network.calibration.surprise_quantiles[column]
                )
    return result


def surprise_table(trained: Trained, rows: Any, note: Callable[[str], None] | None = None) -> pa.Table:
    """Surprise of each row, as a table: see ``Model.surprise``."""
    if not trained.network.calibration.surprise_quantiles:
        raise UserError(
            "This run has too few validation rows to know what is usual: 20 are needed. Fit it on more rows."
        )
    parts, far, bad, count = [], [], {}, 0
    for part in trained.windows(rows, None, note):
        parts.append(surprise_scores(part))
        far.append(distance_scores(part))
        bad |= {count + row: why for row, why in part.bad.items()}
        count += part.count
    each, far = (
        {column: np.concatenate([part[column] for part in some]) for column in some[0]} for some in (parts, far)
    )
    known = np.stack(list(each.values()), 1)
    most = np.where(np.isfinite(known), known, -np.inf)
    some = most.max(1) > -np.inf
    names = [list(each)[place] if there else None for place, there in zip(most.argmax(1), some, strict=True)]
    return pa.table(
        {
            "surprise": pa.array(np.where(some, most.max(1), np.nan), pa.float32(), from_pandas=True),
            "column": pa.array(names, pa.string()),
            **{f"of {column}": pa.array(values, pa.float32(), from_pandas=True) for column, values in each.items()},
            **{
                f"away of {kind}" if kind else "away": pa.array(values, pa.float32(), from_pandas=True)
                for kind, values in far.items()
            },
            **bad_row_column(bad, count),
        }
    )
