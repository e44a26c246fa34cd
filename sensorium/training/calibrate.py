"""Calibration after training, on validation rows: which columns an answer ignores, the weight of the row memory, the
probabilities, and the usual misfit of cells.

Columns differ in how soon they overfit. A name identifies every training row, and a network that has learned names has
no need of the numbers beside them, which would generalise better to new rows ("What makes training multi-modal
classification networks hard?", Wang et al. 2020, arXiv 1905.12681). Validation rows show which columns mislead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sensorium.core.deadline import Deadline
from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared
from sensorium.ensemble.question import short_generator
from sensorium.inference.surprise import (
    fit_out_of_distribution,
    gists_by_kind,
    misfits,
    scored_columns,
    surprise_quantiles,
)
from sensorium.network.batch import Batch, collate
from sensorium.network.network import Network
from sensorium.network.types import Encoded, IgnoredColumns
from sensorium.nn.row_memory import RowMemory

MAX_ROWS, MIN_ROWS, MIN_JUDGED_ROWS = 1000, 20, 40
"""Validation rows, at most and at least; and the fewest by which a column is found to mislead."""
MIN_CALIBRATED_ROWS = 127
"""Validation rows that answers are calibrated by, however short the time is."""
MAX_ASKED_COLUMNS, MAX_SEEN_COLUMNS = 8, 24
"""Columns asked and columns judged beside one, at most."""
MAX_TRUNK_ROWS = 20_000
"""Rows through the trunk for each column asked: the work grows with the square of the columns shown."""
MEMORY_SHARES = 0.25, 0.5, 0.75
"""Shares of the row memory in an answer that are tried."""
PART = 64
"""Rows that are encoded at once."""
SURPRISE_ROWS = 256
"""Rows from which the usual misfit of cells is estimated."""
KNOWN_ROWS = 512
"""Training rows from which the distance of other rows is measured."""


@torch.inference_mode()
def calibrate_network(
    network: Network, prepared: Prepared, judge: bool = True, deadline: Deadline | None = None
) -> None:
    """Set ``network.calibration``: ignored columns and the memory's shares (if ``judge``), probabilities, sets and
    intervals, surprise and out-of-distribution quantiles. No more of the memory is kept than what counts.

    Args:
        deadline: by which ignored columns are found: on fewer rows where more wouldn't fit.
    """
    deadline = deadline or Deadline()
    rows = prepared.rows.get("validation", np.zeros(0, np.int64))
    rows = evenly_spaced(rows, MAX_ROWS) if len(rows) >= MIN_ROWS else rows[:0]
    short, judged = short_columns(network), judged_columns(network) if judge else []
    parts = encode(network, prepared, rows if short else evenly_spaced(rows, SURPRISE_ROWS))
    if short and len(rows) and judge:
        parts = affordable_parts(network, parts, short, deadline.part(0.7))
    for column in short:
        generator, memory = short_generator(network, column), network.calibration.memory
        if not len(rows) or (column not in judged and not hasattr(generator, "calibrate")):
            continue
        validation = ValidationRows(network, column, parts)
        if column in judged and validation.count >= MIN_JUDGED_ROWS:
            mine = deadline.part(1 / max(len(judged) - judged.index(column), 1))
            network.calibration.ignored[column] = find_misleading(validation, mine)
            if memory is not None and memory.by.get(column):
                memory.shares[column] = memory_share(validation)
        if hasattr(generator, "calibrate") and validation.count:
            generator.calibrate(validation.residuals(with_memory=False))
            if memory is not None and memory.shares.get(column):
                memory.margins[column] = generator.margin(validation.residuals(with_memory=True)).tolist()
    network.calibration.surprise_quantiles = surprise_quantiles(misfits_by_column(network, parts))
    if len(rows):
        learned = encode(network, prepared, evenly_spaced(prepared.rows["train"], KNOWN_ROWS))
        network.calibration.out_of_distribution = fit_out_of_distribution(
            *(
                [
                    {
                        kind: vectors
                        for kind, (_, vectors) in gists_by_kind(
                            network, encoded, torch.arange(batch.rows, device=next(network.parameters()).device)
                        ).items()
                    }
                    for batch, encoded in some
                ]
                for some in (learned, parts)
            )
        )
    if isinstance(network.calibration.memory, RowMemory):
        network.calibration.memory = network.calibration.memory.needed()


def affordable_parts(
    network: Network, parts: list[tuple[Batch, dict[str, Encoded]]], short: Sequence[str], deadline: Deadline
) -> list[tuple[Batch, dict[str, Encoded]]]:
    """Parts of validation rows, the first so many that they can be asked for everything before the deadline."""
    matched = sum(network.modalities[c].matched for c in network.columns)
    passes = len(short) * (3 + matched) + len(network.columns)
    rows = sum(batch.rows for batch, _ in parts)
    validation = ValidationRows(network, short[0], parts)
    if not validation.parts:
        return parts
    fitting = deadline.rows(rows * passes, validation.time) // passes
    return parts[: 1 + max(fitting, MIN_CALIBRATED_ROWS) // PART]


def misfits_by_column(network: Network, parts: Sequence[tuple[Batch, dict[str, Encoded]]]) -> dict[str, np.ndarray]:
    """Misfits of the first rows' cells with their rows' other cells, by column."""
    found: dict[str, list[np.ndarray]] = {}
    for batch, encoded in parts[: SURPRISE_ROWS // PART]:
        targets = {c: network.asked_modality(c).target(batch.cells[c]) for c in scored_columns(network) if c in encoded}
        for column, values in misfits(
            network, encoded, torch.arange(batch.rows, device=next(network.parameters()).device), targets
        ).items():
            found.setdefault(column, []).append(values.cpu().numpy())
    return {column: np.concatenate(values) for column, values in found.items()}


def short_columns(network: Network) -> list[str]:
    """Columns that are asked by one token."""
    return [c for c in network.asked_columns if network.token_count(c) == 1 and c not in network.generative_columns]


def judged_columns(network: Network) -> list[str]:
    """Short columns whose answers are judged on validation rows."""
    return [c for c in short_columns(network) if c in network.targets or not network.targets][:MAX_ASKED_COLUMNS]


def find_misleading(validation: ValidationRows, deadline: Deadline | None = None) -> IgnoredColumns:
    """Columns without which the answers on validation rows are better, or at least not surely worse; the worst first.

    Where time allows too few rows, none is sought. Sought from both ends: from all, a column is left out where the
    mean loss falls by more than its standard error; from the best one, a column is added where it falls by as much.
    The few columns that are found so serve, unless those that are left are better by more than a standard error.
    Those without which the loss would rise by as much are what a row needs to do without the others.
    """
    if not 1 < len(validation.seen_columns) <= MAX_SEEN_COLUMNS:
        return IgnoredColumns()
    count = len(validation.seen_columns)
    validation.judges = MAX_TRUNK_ROWS // count**2
    if deadline is not None:
        fitting = deadline.rows(validation.judges * count**2, validation.time, 0)
        if fitting // count**2 < PART:  # rows are asked in parts
            return IgnoredColumns()
        validation.judges = fitting // count**2
    left, out, now = backward_elimination(validation)
    few, losses = forward_selection(validation)
    if len(few) < len(left) and standard_score(losses - now) <= 1:
        left, out, now = few, [c for c in [*out, *left] if c not in few], losses
    needed = (
        [c for c in left if standard_score(validation.losses([x for x in left if x != c]) - now) > 1] if out else []
    )
    return IgnoredColumns(tuple(out), tuple(needed))


def backward_elimination(validation: ValidationRows) -> tuple[list[str], list[str], np.ndarray]:
    """Backward elimination of columns that mislead, one after the other.

    Returns:
        the columns that are left; those left out, the worst first; the losses without them.
    """
    seen, out, now = list(validation.seen_columns), [], validation.losses(validation.seen_columns)
    while len(seen) > 1:
        tried = {column: validation.losses([c for c in seen if c != column]) for column in seen}
        worst = max(tried, key=lambda column: standard_score(now - tried[column]))
        if standard_score(now - tried[worst]) <= 1:
            break
        seen.remove(worst)
        out.append(worst)
        now = tried[worst]
    return seen, out, now


def forward_selection(validation: ValidationRows) -> tuple[list[str], np.ndarray]:
    """Forward selection: the best column, then those that make the answers from it better, one after the other; the
    losses."""
    tried = {column: validation.losses([column]) for column in validation.seen_columns}
    best = min(tried, key=lambda column: float(tried[column].mean()))
    seen, now = [best], tried[best]
    while len(seen) < len(validation.seen_columns):
        tried = {column: validation.losses([*seen, column]) for column in validation.seen_columns if column not in seen}
        best = max(tried, key=lambda column: standard_score(now - tried[column]))
        if standard_score(now - tried[best]) <= 1:
            break
        seen.append(best)
        now = tried[best]
    return seen, now


def memory_share(validation: ValidationRows) -> float:
    """Share of the row memory in an answer with which the mean loss on validation rows is least.

    The mean is over answers from all columns and from each one that has gists. The share is 0 unless the loss falls by
    more than its standard error, and from all columns doesn't rise.
    """
    matched = [c for c in validation.seen_columns if validation.network.modalities[c].matched]
    validation.judges = MAX_TRUNK_ROWS // (1 + len(matched))
    without, *with_memory = validation.memory_losses(matched, (0.0, *MEMORY_SHARES))
    gains = {
        share: without - losses
        for share, losses in zip(MEMORY_SHARES, with_memory, strict=True)
        if (without - losses)[0].mean() >= 0
    }
    best = max(gains, key=lambda share: float(gains[share].mean()), default=0.0)
    return best if best and standard_score(gains[best].mean(0)) > 1 else 0.0


def standard_score(gain: np.ndarray) -> float:
    """Mean in units of its standard error."""
    return float(gain.mean() / max(gain.std() / len(gain) ** 0.5, 1e-9))


def encode(
    network: Network, prepared: Prepared, rows: np.ndarray, columns: Sequence[str] = ()
) -> list[tuple[Batch, dict[str, Encoded]]]:
    """Encoded columns of some rows, in parts; all columns by default."""
    parts, device = [], next(network.parameters()).device
    for start in range(0, len(rows), PART):
        part = rows[start : start + PART]
        cells = {c: prepared.ready.cells(c, part) for c in columns or network.columns if c in prepared.ready.columns}
        batch = collate(network.modalities, cells, len(part)).to(device)
        prepared.ready.release()  # rows far apart map many pages
        parts.append((batch, network.encode_all(batch)))
    return parts


def present_cells(prepared: Prepared, column: str, rows: np.ndarray) -> list[np.ndarray]:
    """Prepared cells of rows that all have a column."""
    return [cell for cell in prepared.ready.cells(column, rows) if cell is not None]


class ValidationRows:
    """Validation rows that have a column, to be asked for it from any others."""

    def __init__(self, network: Network, column: str, parts: Sequence[tuple[Batch, dict[str, Encoded]]]) -> None:
        self.network, self.column, self.generator, self.judges = (
            network,
            column,
            short_generator(network, column),
            MAX_ROWS,
        )
        self.parts: list[tuple[dict[str, Encoded], torch.Tensor, torch.Tensor]] = []
        self.known: dict[tuple[int, frozenset[str]], np.ndarray] = {}
        visible = set()
        for batch, encoded in parts:
            if column in encoded:
                others, rows = {c: e for c, e in encoded.items() if c != column}, encoded[column].index
                self.parts.append((others, rows, network.asked_modality(column).target(batch.cells[column])))
                visible |= {c for c, e in others.items() if (e.place[rows] >= 0).any()}
        self.seen_columns = [c for c in network.columns if c in visible]
        self.count = sum(len(rows) for _, rows, _ in self.parts)

    def losses(self, seen: Sequence[str]) -> np.ndarray:
        """Losses of the first rows, about ``judges`` many, from what they have of some columns."""
        key = self.judges, frozenset(seen)
        if key not in self.known:
            found = [self.generator.loss(self.hidden(seen, *part), part[2]).float() for part in self.first()]
            self.known[key] = torch.cat(found).cpu().numpy()
        return self.known[key]

    def time(self, rows: int) -> None:
        """Compute the losses of so many rows from all columns, to see how long it takes."""
        encoded, index, target = self.parts[0]
        self.generator.loss(self.hidden(self.seen_columns, encoded, index[:rows], target[:rows]), target[:rows])

    def first(self) -> list[tuple[dict[str, Encoded], torch.Tensor, torch.Tensor]]:
        """First parts, until they have ``judges`` rows, and no fewer than ``MIN_JUDGED_ROWS`` where there are
        as many."""
        reached = np.cumsum([len(rows) for _, rows, _ in self.parts])
        return self.parts[: 1 + int(np.searchsorted(reached, max(self.judges, MIN_JUDGED_ROWS)))]

    def memory_losses(self, matched: Sequence[str], shares: Sequence[float]) -> np.ndarray:
        """Losses of the first rows for each share of the row memory [shares, 1 + lone, rows]: from all columns, then
        from each of ``lone``. What a row lacks is as if nothing were seen.
        """
        ignored, losses = self.network.calibration.ignored.get(self.column, IgnoredColumns()), []
        for encoded, rows, target in self.first():
            views: list[tuple[Mapping[str, Encoded], ...]] = [(ignored.left_out(encoded), encoded)]
            views += [({c: encoded[c]} if c in encoded else {},) * 2 for c in matched]
            losses.append(
                torch.stack(
                    [self.mixed_losses(not_ignored, visible, rows, target, shares) for not_ignored, visible in views], 1
                )
            )
        return torch.cat(losses, 2).cpu().numpy()

    def mixed_losses(
        self,
        not_ignored: Mapping[str, Encoded],
        visible: Mapping[str, Encoded],
        rows: torch.Tensor,
        target: torch.Tensor,
        shares: Sequence[float],
    ) -> torch.Tensor:
        """Losses [shares, rows] from the columns that aren't ignored, mixed with the row memory's answer from all that
        is seen."""
        hidden, answer = (
            self.hidden(list(not_ignored), not_ignored, rows, target),
            self.network.memory_answer(visible, self.column, rows, 1.0),
        )
        if answer is None:
            return self.generator.loss(hidden, target).float().expand(len(shares), -1)
        return torch.stack(
            [self.generator.loss(hidden, target, dataclasses.replace(answer, share=share)).float() for share in shares]
        )

    def residuals(self, with_memory: bool) -> torch.Tensor:
        """Residuals of the rows, by which the generator is calibrated, from the network only or mixed with its
        memory."""
        ignored, found = self.network.calibration.ignored.get(self.column, IgnoredColumns()), []
        for encoded, rows, target in self.parts:
            answer = self.network.memory_answer(encoded, self.column, rows) if with_memory else None
            hidden = self.hidden(self.seen_columns, ignored.left_out(encoded), rows, target)
            found.append(self.generator.residual(hidden, target, *([] if answer is None else [answer])))
        return torch.cat(found)

    def hidden(
        self, seen: Sequence[str], encoded: Mapping[str, Encoded], rows: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Hidden states of the trunk at the asked tokens of some rows of a part."""
        network = self.network
        asked = network.asked_tokens(self.column, target, network.condition_vector(encoded, seen, rows))
        return network.trunk(network.seen_tokens(encoded, seen, rows), [asked], [self.generator.causal])[0]
