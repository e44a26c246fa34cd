"""What is settled after training, on validation rows: which columns an answer heeds, how much it leans on remembered rows, how sure it is, and how well
cells of a row usually go together.

Columns differ in how soon they are known by heart: a name tells every training row apart, and a network that has learned
names has no need of the numbers beside them, which alone would serve it on new rows ("What makes training multi-modal
classification networks hard?", Wang et al. 2020, arXiv 1905.12681). Rows held out show which columns mislead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared
from sensorium.inference.surprise import domain, gists, misfits, told, usual
from sensorium.network.batch import Batch, collate
from sensorium.network.network import Network
from sensorium.network.types import Encoded, IgnoredColumns

ROWS, FEWEST, JUDGES = 1000, 20, 40
"""Validation rows looked at, at most and at least; and the fewest that can say that a column misleads."""
ASKED, SHOWN = 8, 24
"""Columns asked and columns judged, at most."""
WORK = 20_000
"""Rows through the trunk for each column asked: the work grows with the square of the columns shown."""
SHARES = 0.25, 0.5, 0.75
"""What remembered rows may count in an answer."""
PART = 64
FITTED = 256
"""Rows that say how well cells usually go together."""
KNOWN = 512
"""Training rows from which it is told how far others lie."""


@torch.inference_mode()
def settle(network: Network, prepared: Prepared, judge: bool = True) -> None:
    """Set ``network.unheeded`` and what its memory counts in answers (if ``judge``), and calibrate probabilities, sets and intervals on the validation
    rows. Of the memory no more is kept than what counts."""
    rows = prepared.rows.get("validation", np.zeros(0, np.int64))
    rows = evenly_spaced(rows, ROWS) if len(rows) >= FEWEST else rows[:0]
    short, judged = short_columns(network), judged_columns(network) if judge else []
    parts = encode(network, prepared, rows if short else evenly_spaced(rows, FITTED))
    for column in short:
        generator, memory = network.generator(column), network.calibration.memory
        if not len(rows) or (column not in judged and not hasattr(generator, "calibrate")):
            continue
        held = ValidationRows(network, column, parts)
        if column in judged and held.count >= JUDGES:
            network.calibration.ignored[column] = misleading(held)
            if memory is not None and memory.by.get(column):
                memory.shares[column] = leaning(held)
        if hasattr(generator, "calibrate") and held.count:
            generator.calibrate(held.residuals(leaned=False))
            if memory is not None and memory.shares.get(column):
                memory.margins[column] = generator.margin(held.residuals(leaned=True)).tolist()
    network.calibration.surprise_quantiles = usual(together(network, parts))
    if len(rows):
        learned = encode(network, prepared, evenly_spaced(prepared.rows["train"], KNOWN))
        network.calibration.out_of_distribution = domain(
            *(
                [
                    {
                        kind: vectors
                        for kind, (_, vectors) in gists(
                            network, encoded, torch.arange(batch.rows, device=next(network.parameters()).device)
                        ).items()
                    }
                    for batch, encoded in some
                ]
                for some in (learned, parts)
            )
        )
    if network.calibration.memory is not None:
        network.calibration.memory = network.calibration.memory.needed()


def together(network: Network, parts: Sequence[tuple[Batch, dict[str, Encoded]]]) -> dict[str, np.ndarray]:
    """How little the cells of the first rows go together, by column."""
    found: dict[str, list[np.ndarray]] = {}
    for batch, encoded in parts[: FITTED // PART]:
        targets = {c: network.asked_modality(c).target(batch.cells[c]) for c in told(network) if c in encoded}
        for column, values in misfits(
            network, encoded, torch.arange(batch.rows, device=next(network.parameters()).device), targets
        ).items():
            found.setdefault(column, []).append(values.cpu().numpy())
    return {column: np.concatenate(values) for column, values in found.items()}


def short_columns(network: Network) -> list[str]:
    """Columns that are asked by one token."""
    return [
        c
        for c in network.asked_columns
        if network.token_count(c) == 1 and c not in network.generative_columns
    ]


def judged_columns(network: Network) -> list[str]:
    """Those of them whose answers are judged on rows held out."""
    return [c for c in short_columns(network) if c in network.targets or not network.targets][:ASKED]


def misleading(held: ValidationRows) -> IgnoredColumns:
    """The columns without which the answers on rows held out are better, or at least not surely worse; the worst first.

    Sought from both ends: from all, a column is left out where the mean loss falls by more than its standard error; from the
    best one, a column is added where it falls by as much. The few columns that are found so serve, unless those that are left
    are better by more than a standard error. Those without which the loss would rise by as much are what a row needs to do
    without the others.
    """
    if not 1 < len(held.shown) <= SHOWN:
        return IgnoredColumns()
    held.judges = WORK // len(held.shown) ** 2
    left, out, now = backward_elimination(held)
    few, losses = forward_selection(held)
    if len(few) < len(left) and sureness(losses - now) <= 1:
        left, out, now = few, [c for c in [*out, *left] if c not in few], losses
    needed = [c for c in left if sureness(held.losses([x for x in left if x != c]) - now) > 1] if out else []
    return IgnoredColumns(tuple(out), tuple(needed))


def backward_elimination(held: ValidationRows) -> tuple[list[str], list[str], np.ndarray]:
    """All columns without those that mislead, left out one after the other; those, the worst first; the losses without them."""
    seen, out, now = list(held.shown), [], held.losses(held.shown)
    while len(seen) > 1:
        tried = {column: held.losses([c for c in seen if c != column]) for column in seen}
        worst = max(tried, key=lambda column: sureness(now - tried[column]))
        if sureness(now - tried[worst]) <= 1:
            break
        seen.remove(worst)
        out.append(worst)
        now = tried[worst]
    return seen, out, now


def forward_selection(held: ValidationRows) -> tuple[list[str], np.ndarray]:
    """The best column, and those that make the answers from it better, added one after the other; the losses with them."""
    tried = {column: held.losses([column]) for column in held.shown}
    best = min(tried, key=lambda column: float(tried[column].mean()))
    seen, now = [best], tried[best]
    while len(seen) < len(held.shown):
        tried = {column: held.losses([*seen, column]) for column in held.shown if column not in seen}
        best = max(tried, key=lambda column: sureness(now - tried[column]))
        if sureness(now - tried[best]) <= 1:
            break
        seen.append(best)
        now = tried[best]
    return seen, now


def leaning(held: ValidationRows) -> float:
    """The share of remembered rows in an answer with which the mean loss on rows held out is least, over answers from all columns and
    from each one that has gists; 0 unless it falls by more than its standard error, and from all columns doesn't rise."""
    lone = [c for c in held.shown if held.network.modalities[c].matched]
    held.judges = WORK // (1 + len(lone))
    without, *leaned = held.leaned(lone, (0.0, *SHARES))
    gains = {
        share: without - losses
        for share, losses in zip(SHARES, leaned, strict=True)
        if (without - losses)[0].mean() >= 0
    }
    best = max(gains, key=lambda share: float(gains[share].mean()), default=0.0)
    return best if best and sureness(gains[best].mean(0)) > 1 else 0.0


def sureness(gain: np.ndarray) -> float:
    """A mean in units of its standard error."""
    return float(gain.mean() / max(gain.std() / len(gain) ** 0.5, 1e-9))


def encode(
    network: Network, prepared: Prepared, rows: np.ndarray, columns: Sequence[str] = ()
) -> list[tuple[Batch, dict[str, Encoded]]]:
    """Some rows behind their stems, by parts; all columns by default."""
    parts, device = [], next(network.parameters()).device
    for start in range(0, len(rows), PART):
        part = rows[start : start + PART]
        cells = {c: prepared.ready.cells(c, part) for c in columns or network.columns if c in prepared.ready.columns}
        batch = collate(network.modalities, cells, len(part)).to(device)
        prepared.ready.release()  # rows far apart map many pages
        parts.append((batch, network.encode_all(batch)))
    return parts


class ValidationRows:
    """Rows held out that have a column, to be asked for it from any others."""

    def __init__(self, network: Network, column: str, parts: Sequence[tuple[Batch, dict[str, Encoded]]]) -> None:
        self.network, self.column, self.generator, self.judges = network, column, network.generator(column), ROWS
        self.parts: list[tuple[dict[str, Encoded], torch.Tensor, torch.Tensor]] = []
        shown = set()
        for batch, encoded in parts:
            if column in encoded:
                others, rows = {c: e for c, e in encoded.items() if c != column}, encoded[column].index
                self.parts.append((others, rows, network.asked_modality(column).target(batch.cells[column])))
                shown |= {c for c, e in others.items() if (e.place[rows] >= 0).any()}
        self.shown = [c for c in network.columns if c in shown]
        self.count = sum(len(rows) for _, rows, _ in self.parts)

    def losses(self, seen: Sequence[str]) -> np.ndarray:
        """The loss of each of the first rows, about ``judges`` many, from what it has of some columns."""
        return (
            torch.cat([self.generator.loss(self.hidden(seen, *part), part[2]).float() for part in self.first()])
            .cpu()
            .numpy()
        )

    def first(self) -> list[tuple[dict[str, Encoded], torch.Tensor, torch.Tensor]]:
        """The first parts, until they have ``judges`` rows, and no fewer than ``JUDGES`` where there are as many."""
        reached = np.cumsum([len(rows) for _, rows, _ in self.parts])
        return self.parts[: 1 + int(np.searchsorted(reached, max(self.judges, JUDGES)))]

    def leaned(self, lone: Sequence[str], shares: Sequence[float]) -> np.ndarray:
        """For each share of remembered rows the losses [shares, 1 + lone, rows] of the first rows: from all columns, then from each of
        ``lone`` (what a row lacks is as if nothing were shown)."""
        unheeded, losses = self.network.calibration.ignored.get(self.column, IgnoredColumns()), []
        for encoded, rows, target in self.first():
            views = [(unheeded.left_out(encoded), encoded)]
            views += [({c: encoded[c]} if c in encoded else {},) * 2 for c in lone]
            losses.append(torch.stack([self.mixed(heeded, shown, rows, target, shares) for heeded, shown in views], 1))
        return torch.cat(losses, 2).cpu().numpy()

    def mixed(
        self,
        heeded: Mapping[str, Encoded],
        shown: Mapping[str, Encoded],
        rows: torch.Tensor,
        target: torch.Tensor,
        shares: Sequence[float],
    ) -> torch.Tensor:
        """Losses [shares, rows] from what is heeded, mixed with what remembered rows say by what is shown."""
        hidden, recalled = (
            self.hidden(list(heeded), heeded, rows, target),
            self.network.memory_answer(shown, self.column, rows, 1.0),
        )
        if recalled is None:
            return self.generator.loss(hidden, target).float().expand(len(shares), -1)
        return torch.stack(
            [
                self.generator.loss(hidden, target, dataclasses.replace(recalled, share=share)).float()
                for share in shares
            ]
        )

    def residuals(self, leaned: bool) -> torch.Tensor:
        """What a generator is calibrated by, of each row, answered by the network alone or leaning on its memory: its ``residual``."""
        unheeded, found = self.network.calibration.ignored.get(self.column, IgnoredColumns()), []
        for encoded, rows, target in self.parts:
            recalled = self.network.memory_answer(encoded, self.column, rows) if leaned else None
            hidden = self.hidden(self.shown, unheeded.left_out(encoded), rows, target)
            found.append(self.generator.residual(hidden, target, *([] if recalled is None else [recalled])))
        return torch.cat(found)

    def hidden(
        self, seen: Sequence[str], encoded: Mapping[str, Encoded], rows: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """What the trunk says at the asked tokens of some rows of a part."""
        network = self.network
        asked = network.asked_tokens(self.column, target, network.condition_vector(encoded, seen, rows))
        return network.trunk(network.seen_tokens(encoded, seen, rows), [asked], [self.generator.causal])[0]
