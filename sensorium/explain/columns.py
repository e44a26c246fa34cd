"""Explanations of an answer: Shapley values of columns, attribution to parts of cells, nearest training cells and
counterfactuals.

A model that answers from any columns needs no surrogate. It is asked again without a column, or with a cell that lacks
a word or a patch.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from sensorium.explain.attribution import check_method, inside, repeated
from sensorium.explain.scoring import CellScorer
from sensorium.inference.rows import Rows
from sensorium.network.batch import collate

MAX_EXACT, MAX_EXACT_GENERATED = 10, 6
"""Columns up to which all subsets are asked: of an answer, and of a generated cell, which takes eight times as long. Of
more columns, orders are sampled."""
ORDERS = 32
"""Orders that are sampled then, half of them the reverse of the others."""
NEAREST, AROUND = 3, 50
"""Nearest training cells that are given, and those whose mean distance is the unit of distances."""
RESAMPLES, CONFIDENCE = 2000, 0.95
"""Bootstrap samples of rows for the interval of a column's importance, and its confidence."""
MIN_INTERVAL_ROWS = 5
"""Rows from which on an interval is given."""
CLOSE = 24
"""Nearest cells of the reference table that are put in a row's place to see whether the answer changes."""
COPY = 0.5
"""Relative distance below which a cell is nearly a copy of a training cell (Carlini et al. 2023, arXiv 2301.13188,
section 4)."""


@dataclasses.dataclass
class Counterfactual:
    """Counterfactual: the smallest change of one cell, among real cells, that changes an answer.

    Attributes:
        column, row: column of the cell that was put in place, and its row in the reference table. answer: the new one.
        distance: of that cell from the row's own, relative to the mean of those around it.
    """

    column: str
    row: int
    answer: Any
    distance: float


@dataclasses.dataclass
class Explanation:
    """Explanation of one answer.

    Attributes:
        nothing, everything: minus its loss where nothing and where all that the row has is seen. For texts, categories
            and codes that is a mean log-probability in nats; for flow matching minus the error of the velocity.
        shares: for each seen column its Shapley value (arXiv 1705.07874, equation 8): they add up to ``everything`` -
            ``nothing``.
        errors: their standard errors where orders were sampled; 0 where every subset was asked.
        parts: for each seen column whose cell has parts their names, and the attribution of each token of the answer to
            them, [parts, tokens].
        inside: the method of that (``attribution.METHODS``): how much worse the token is without the part; the part's
            integrated gradient, of the whole answer, [parts, 1]; or its share of the token's attention.
        nearest: rows of the reference table, nearest first, with their distance relative to the mean of those around.
            Of generated cells and texts those whose own cells are nearest; of a category those of the same class whose
            seen columns are.
        contrast: of a category the nearest rows of other classes. turned: its counterfactual.
        copied: the nearest is so near that the cell is nearly a copy of it.
    """

    nothing: float
    everything: float
    shares: dict[str, float]
    errors: dict[str, float]
    parts: dict[str, tuple[list[str], np.ndarray]]
    inside: str = "occlusion"
    nearest: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    contrast: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    turned: Counterfactual | None = None
    copied: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return {
            "nothing": self.nothing,
            "everything": self.everything,
            "shares": self.shares,
            "errors": self.errors,
            "parts": {
                column: {"names": names, "worse": np.round(worse, 4).tolist()}
                for column, (names, worse) in self.parts.items()
            },
            "inside": self.inside,
            "nearest": [{"row": row, "distance": distance} for row, distance in self.nearest],
            "contrast": [{"row": row, "distance": distance} for row, distance in self.contrast],
            "turned": None if self.turned is None else dataclasses.asdict(self.turned),
            "copied": self.copied,
        }


def explain(
    rows: Rows,
    column: str,
    cells: Sequence[Any],
    seen: Sequence[str] | None = None,
    generator_name: str | None = None,
    seed: int = 0,
    among: Rows | None = None,
    done: Callable[[int], None] | None = None,
    how: str = "occlusion",
) -> list[Explanation | None]:
    """Explanations of the answers for a column, one for each row.

    Args:
        rows: what was seen. cells: the answers, one for each row; None has no explanation.
        seen: columns that could be seen, all others by default. generator_name: the generator of the answers.
        among: rows of the training table, as reference; those without the column are left out.
        done: called with the number of rows explained since. how: method of attribution to parts of seen cells, a name
            of ``attribution.METHODS``.
    """
    check_method(how, rows.network)
    witness = CellScorer(rows, column, cells, generator_name, seed, heedless=seen is None)
    result: list[Explanation | None] = [None] * rows.count
    if not len(witness.index):
        return result
    columns = [c for c in (rows.network.columns if seen is None else seen) if c != column and rows.has(c).any()]
    split = shapley(witness, columns, seed)
    seen_by = witness.encoded(rows)
    chosen = (
        among is not None
        and rows.network.asked_modality(column).tokens().vocabulary > 0
        and rows.network.token_count(column) == 1
    )
    near = nearest(witness, among) if among is not None and not chosen else [[] for _ in witness.index]
    known = ReferenceRows(rows, column, among, [c for c in columns if c in seen_by]) if chosen else None
    for place, row in enumerate(witness.index.tolist()):
        here = [c for c in columns if c in seen_by and seen_by[c].place[row] >= 0]
        parts = {c: found for c in here if (found := inside(witness, place, c, here, how)) is not None}
        why = Explanation(
            float(split.nothing[place]),
            float(split.everything[place]),
            {c: float(split.shares[c][place]) for c in here},
            {c: float(split.errors[c][place]) for c in here},
            parts,
            how,
            near[place],
            copied=bool(near[place]) and near[place][0][1] < COPY,
        )
        if known is not None and here:
            why.nearest, why.contrast = known.sides(row, cells[row])
            why.turned = known.turn(row, cells[row], here)
        result[row] = why
        if done:
            done(1)
    return result


def importance(
    whys: Sequence[Explanation | None], seed: int = 0
) -> dict[str, tuple[float, float | None, float | None]]:
    """Importance of each column, the largest first: the mean of its Shapley values over the rows that have it, and the
    ends of its 95 % interval.

    The interval is a percentile bootstrap over rows; None of fewer than five rows, where it would claim too much.
    """
    rng, shares = np.random.default_rng(seed), {}
    for why in whys:
        for column, share in (why.shares if why is not None else {}).items():
            shares.setdefault(column, []).append(share)
    found = {}
    for column, each in shares.items():
        means = np.array(each)[rng.integers(len(each), size=(RESAMPLES, len(each)))].mean(1)
        low, high = np.quantile(means, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
        found[column] = (
            (float(np.mean(each)), float(low), float(high))
            if len(each) >= MIN_INTERVAL_ROWS
            else (float(np.mean(each)), None, None)
        )
    return dict(sorted(found.items(), key=lambda pair: -pair[1][0]))


@dataclasses.dataclass
class ShapleyValues:
    """Shapley values of each column for every answer, [n], and their standard errors, [n]; and the value of the empty
    and of the full coalition, [n]."""

    shares: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    nothing: np.ndarray
    everything: np.ndarray


def shapley(witness: CellScorer, columns: Sequence[str], seed: int) -> ShapleyValues:
    """Shapley values of columns: exact over all subsets where there are few columns, else over sampled orders, each
    with its reverse (antithetic sampling)."""
    known: dict[frozenset[str], np.ndarray] = {}

    def worth(seen: frozenset[str]) -> np.ndarray:
        if seen not in known:
            known[seen] = witness.weigh([c for c in columns if c in seen]).mean(1)
        return known[seen]

    count, shares = len(columns), {c: np.zeros(len(witness.index)) for c in columns}
    errors = {c: np.zeros(len(witness.index)) for c in columns}
    if count <= (MAX_EXACT if witness.n_draws == 1 else MAX_EXACT_GENERATED):
        for column in columns:
            others = [c for c in columns if c != column]
            for size in range(count):
                weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
                for some in itertools.combinations(others, size):
                    shares[column] += weight * (worth(frozenset(some) | {column}) - worth(frozenset(some)))
    else:
        rng = np.random.default_rng(seed)
        gained: dict[str, list[np.ndarray]] = {c: [] for c in columns}
        for order in (rng.permutation(columns).tolist() for _ in range(ORDERS // 2)):
            for both in (order, order[::-1]):
                for number, column in enumerate(both):
                    gained[column].append(worth(frozenset(both[: number + 1])) - worth(frozenset(both[:number])))
        for column, each in gained.items():
            pairs = np.array(each).reshape(ORDERS // 2, 2, -1).mean(1)  # an order and its reverse are one draw
            shares[column], errors[column] = pairs.mean(0), pairs.std(0, ddof=1) / math.sqrt(len(pairs))
    return ShapleyValues(shares, errors, worth(frozenset()), worth(frozenset(columns)))


class ReferenceRows:
    """Reference rows of known class, beside which answers for others are put.

    Args:
        rows: those that are explained. column: the category that was asked. among: the known ones. seen: what is seen.
    """

    def __init__(self, rows: Rows, column: str, among: Rows, seen: Sequence[str]) -> None:
        self.rows, self.column, self.among, self.seen = rows, column, among, [c for c in seen if among.has(c).any()]
        self.which = np.flatnonzero(among.has(column))
        # Of columns without gists, which reference rows have it and their features.
        self.plain: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        modality, cells = rows.network.asked_modality(column), [among.cells[column][i] for i in self.which]
        self.classes = [
            modality.decode(tokens)
            for tokens in modality.target(
                collate(rows.network.modalities, {column: cells}, len(cells)).cells[column]
            ).numpy()
        ]
        self.gaps = (
            1 - rows.gists(self.seen) @ among.gists(self.seen)[self.which].T
            if self.seen and len(self.which)
            else np.zeros((rows.count, 0))
        )

    def sides(self, row: int, answer: Any) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        """Nearest reference rows of the answer's class, and of other classes."""
        order = np.argsort(self.gaps[row], kind="stable")
        usual = max(float(self.gaps[row][order[:AROUND]].mean()), 1e-9) if len(order) else 1.0

        def first(same: bool) -> list[tuple[int, float]]:
            found = (
                (int(self.which[i]), float(self.gaps[row][i]) / usual)
                for i in order
                if (self.classes[i] == answer) == same
            )
            return list(itertools.islice((one for one in found if not self.itself(row, one[0])), NEAREST))

        return first(True), first(False)

    def itself(self, row: int, other: int) -> bool:
        """True where a reference row has the same seen cells as an explained row: it is that row, or no other
        example."""

        def same(mine: np.ndarray | None, theirs: np.ndarray | None) -> bool:
            if mine is None or theirs is None:
                return mine is theirs
            return np.array_equal(mine, theirs)

        return all(
            same(
                self.rows.cells[c][row] if c in self.rows.cells else None,
                self.among.cells[c][other] if c in self.among.cells else None,
            )
            for c in self.seen
        )

    def turn(self, row: int, answer: Any, seen: Sequence[str]) -> Counterfactual | None:
        """Counterfactual: the nearest real cell of any column that, put in the row's place, changes the answer; None
        where none of the nearest does."""
        best = None
        for column in seen:
            where, distance = self.away(row, column)
            if not len(where):
                continue
            one = repeated(self.rows, row, seen, len(where))
            one.cells[column], one.read[column] = (
                [chosen[column][i] for i in where] for chosen in (self.among.cells, self.among.read)
            )
            answers = one.predict(self.column, seen).cells
            other = next((i for i, cell in enumerate(answers) if cell != answer), None)
            if other is not None and (best is None or distance[other] < best.distance):
                best = Counterfactual(column, int(where[other]), answers[other], float(distance[other]))
        return best

    def away(self, row: int, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Reference rows whose cells of a column are nearest to a row's, and their distances relative to the mean of
        those around."""
        if not self.among.has(column).any():
            return np.zeros(0, np.int64), np.zeros(0)
        if self.rows.network.modalities[column].matched:
            mine, gists = self.rows.column_gists(column)
            where, others = self.among.column_gists(column)
            gap = 1 - others @ gists[mine == row][0]
        else:
            features = self.rows.network.modalities[column].features
            if column not in self.plain:
                here = np.flatnonzero(self.among.has(column))
                self.plain[column] = here, np.nan_to_num(np.stack([features(self.among.read[column][i]) for i in here]))
            where, others = self.plain[column]
            gap = np.abs(others - np.nan_to_num(features(self.rows.read[column][row]))).mean(1)
        _, first = np.unique(gap.round(6), return_index=True)  # one of those that are alike
        order = first[np.argsort(gap[first], kind="stable")]
        order = order[gap[order] > 1e-6][:AROUND]
        if not len(order):
            return where[order], np.zeros(0)
        return where[order[:CLOSE]], gap[order[:CLOSE]] / max(float(gap[order].mean()), 1e-9)


def nearest(witness: CellScorer, among: Rows) -> list[list[tuple[int, float]]]:
    """Nearest cells of ``among`` for each answer, by the distance of the tokens or, where these are ids, of gists."""
    network, column = witness.rows.network, witness.column
    where = np.flatnonzero(among.has(column))
    if len(where) < 2 or network.token_count(column) == 1:  # a class or a number is no copy
        return [[] for _ in witness.index]
    if network.asked_modality(column).tokens().width:
        chosen, answers = (
            flat(network, column, cells) for cells in ([among.cells[column][row] for row in where], witness.prepared)
        )
    elif network.modalities[column].matched:
        chosen = among.column_gists(column)[1]
        answers = Rows(network, {column: witness.prepared}, {}, len(witness.prepared)).column_gists(column)[1]
    else:
        return [[] for _ in witness.index]
    result = []
    for cell in answers:
        distance = np.sqrt(np.square(chosen - cell).mean(1))
        order = np.argsort(distance, kind="stable")
        usual = max(float(distance[order[1 : 1 + AROUND]].mean()), 1e-9)
        result.append([(int(where[i]), float(distance[i]) / usual) for i in order[:NEAREST]])
    return result


def flat(network: Any, column: str, cells: Sequence[np.ndarray]) -> np.ndarray:
    """Prepared cells as one vector each, float32."""
    parts = [
        network.asked_modality(column).target(
            collate(network.modalities, {column: cells[at : at + 256]}, len(cells[at : at + 256])).cells[column]
        )
        for at in range(0, len(cells), 256)
    ]
    return torch.cat(parts).flatten(1).float().numpy()
