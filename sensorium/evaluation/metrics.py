"""Metrics of answers as functions of the rows' weights, so that intervals are bootstrapped without asking again.

A bootstrap sample counts each row so many times ("Bootstrap methods: another look at the jackknife", Efron 1979). Rows
of one group are drawn together. It knows arrays and words, no modality.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

SAMPLES, LEVEL = 400, 0.95
"""Bootstrap samples, and the share of them that an interval holds."""
MAX_CELLS = 8_000_000
"""Numbers of an array of samples and rows, at most: the samples go through in parts."""
METRICS = (
    "accuracy", "balanced_accuracy", "f1_macro", "precision_macro", "mcc", "auroc", "average_precision", "log_loss",
    "brier", "r2", "mae", "rmse", "mape", "pinball", "exact", "rouge_l", "wer",
)  # fmt: skip
"""Metrics by which answers can be judged."""
LESS_IS_BETTER = frozenset({"mae", "rmse", "mape", "median_error", "pinball", "log_loss", "brier", "wer"})
"""Metrics of which less is better."""

Scores = dict[str, np.ndarray]
"""For each metric its value by each set of weights [samples]."""


class WeightedMetrics(abc.ABC):
    """Metrics of answers to some rows.

    Attributes:
        rows: how many there are.
    """

    rows: int

    @abc.abstractmethod
    def scores(self, weights: np.ndarray) -> Scores:
        """Metrics by weights of the rows [samples, rows]."""

    def point(self) -> dict[str, float]:
        """Metrics of the rows as they are; those that aren't defined are left out."""
        found = self.scores(np.ones((1, self.rows)))
        return {name: float(value[0]) for name, value in found.items() if np.isfinite(value[0])}

    def samples(self, weights: np.ndarray) -> Scores:
        """Metrics by many weights, in parts that fit into memory."""
        parts = np.array_split(weights, max(1, -(-weights.size // MAX_CELLS)))
        found = [self.scores(part) for part in parts]
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def intervals(self, weights: np.ndarray) -> dict[str, list[float]]:
        """Percentile intervals of the metrics, by bootstrap weights [samples, rows]."""
        found = {name: percentile_interval(values) for name, values in self.samples(weights).items()}
        return {name: interval for name, interval in found.items() if interval}


def percentile_interval(samples: np.ndarray) -> list[float]:
    """Interval that holds the share ``LEVEL`` of bootstrap samples, those that aren't defined aside; empty without
    any."""
    known, tails = samples[np.isfinite(samples)], (1 - LEVEL) / 2
    return [float(end) for end in np.quantile(known, (tails, 1 - tails))] if len(known) else []


def bootstrap_weights(rows: int, groups: np.ndarray | None = None, seed: int = 0, samples: int = SAMPLES) -> np.ndarray:
    """Weights of the rows in bootstrap samples [samples, rows]: how often each was drawn.

    Args:
        groups: number of each row's group, which is drawn as a whole; None: each row is one.
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        which, count = np.arange(rows), rows
    else:
        names, which = np.unique(groups, return_inverse=True)
        count = len(names)
    if not count:
        return np.zeros((samples, 0))
    counts = rng.multinomial(count, np.full(count, 1 / count), size=samples)
    return counts[:, which.reshape(-1)].astype(np.float64)


class ClassMetrics(WeightedMetrics):
    """Metrics of classes.

    ``auroc`` and ``average_precision`` are means over the classes that some rows have and others lack, each against the
    rest (Hand and Till 2001); ``mcc`` is Gorodkin's (2004).

    Args:
        truth: codes [n], -1 where the class is unknown to the model. predicted: codes [n].
        probabilities: [n, classes]; None: metrics that need them are left out.
    """

    def __init__(self, truth: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray | None) -> None:
        self.truth, self.predicted, self.probabilities, self.rows = truth, predicted, probabilities, len(truth)

    def scores(self, weights: np.ndarray) -> Scores:
        total, right = weights.sum(1), (self.truth == self.predicted).astype(np.float64)
        names = np.unique(np.concatenate([self.truth, self.predicted]))
        true = (self.truth[:, None] == names).astype(np.float64)
        predicted = (self.predicted[:, None] == names).astype(np.float64)
        hits, true_counts, predicted_counts = (weights @ part for part in (true * predicted, true, predicted))
        with np.errstate(all="ignore"):
            recall, precision = hits / true_counts, hits / predicted_counts
            f1 = 2 * hits / (true_counts + predicted_counts)
            f1[:, ~true.any(0)] = np.nan
            found = {
                "accuracy": (weights @ right) / total,
                "balanced_accuracy": nanmean(recall),
                "f1_macro": nanmean(f1),
                "precision_macro": nanmean(np.where(true_counts > 0, np.nan_to_num(precision), np.nan)),
            }
            both = (true_counts * predicted_counts).sum(1)
            spread = (total**2 - (true_counts**2).sum(1)) * (total**2 - (predicted_counts**2).sum(1))
            found["mcc"] = np.where(
                spread > 0, (hits.sum(1) * total - both) / np.sqrt(np.where(spread > 0, spread, 1)), 0.0
            )
            if self.probabilities is not None:
                found |= self.probability_scores(weights, self.probabilities, total)
        return found

    def probability_scores(self, weights: np.ndarray, chances: np.ndarray, total: np.ndarray) -> Scores:
        """Metrics of probabilities."""
        n, known = np.arange(self.rows), self.truth >= 0
        own = np.where(known, chances[n, self.truth.clip(0)], 0.0)
        squares = (chances**2).sum(1) - 2 * own + 1
        found = {
            "log_loss": (weights @ -np.log(own.clip(1e-7))) / total,
            "brier": (weights @ squares) / total,
        }
        areas, precisions = [], []
        for code in np.unique(self.truth[known]):
            true = self.truth == code
            if not true.all():
                area, precision = ranking(chances[:, code], true, weights)
                areas.append(area)
                precisions.append(precision)
        if areas:
            found["auroc"] = nanmean(np.stack(areas, 1))
            found["average_precision"] = nanmean(np.stack(precisions, 1))
        return found


class ValueMetrics(WeightedMetrics):
    """Metrics of values.

    Args:
        truth, predicted: [n]. ends: lower and upper ends of the intervals of ``level`` [n, 2]; None: no ``pinball``,
            which is the mean of the quantile losses of both ends and the prediction (Koenker and Bassett 1978).
    """

    def __init__(self, truth: np.ndarray, predicted: np.ndarray, ends: np.ndarray | None, level: float = 0.9) -> None:
        self.truth, self.predicted, self.ends, self.level, self.rows = truth, predicted, ends, level, len(truth)

    def scores(self, weights: np.ndarray) -> Scores:
        total, off = weights.sum(1), self.predicted - self.truth
        scale = float(np.abs(self.truth).max(initial=0.0)) or 1.0
        y = self.truth / scale
        with np.errstate(all="ignore"):
            mean = (weights @ y) / total
            spread = weights @ y**2 - total * mean**2
            r2 = np.where(spread > 1e-12 * total, 1 - (weights @ (off / scale) ** 2) / spread, 0.0)
            nonzero = np.abs(self.truth) > 1e-9 * scale
            relative = np.where(nonzero, np.abs(off) / np.where(nonzero, np.abs(self.truth), 1.0), 0.0)
            found = {
                "r2": r2,
                "mae": (weights @ np.abs(off)) / total,
                "rmse": scale * np.sqrt((weights @ (off / scale) ** 2) / total),
                "mape": (weights @ relative) / (weights @ nonzero.astype(np.float64)),
            }
            if self.ends is not None:
                tails = ((1 - self.level) / 2, 0.5, (1 + self.level) / 2)
                parts = [
                    np.maximum(tail * (self.truth - one), (tail - 1) * (self.truth - one))
                    for tail, one in zip(tails, (self.ends[:, 0], self.predicted, self.ends[:, 1]), strict=True)
                ]
                found["pinball"] = (weights @ np.mean(parts, 0)) / total
        return found


class TextMetrics(WeightedMetrics):
    """Metrics of texts: ``exact``, ``rouge_l`` (Lin 2004, F-measure) and ``wer``, the word error rate: the words that
    have to be changed, of those of the truth."""

    def __init__(self, truth: Sequence[str], predicted: Sequence[str]) -> None:
        from rapidfuzz.distance import LCSseq, Levenshtein

        self.rows = len(truth)
        wanted, found = ([text.casefold().split() for text in texts] for texts in (truth, predicted))
        pairs = list(zip(wanted, found, strict=True))
        self.exact = np.array([a == b for a, b in pairs], np.float64)
        self.length = np.array([len(a) for a, _ in pairs], np.float64)
        self.wrong = np.array([Levenshtein.distance(a, b) for a, b in pairs], np.float64)
        self.common = np.array(
            [2 * LCSseq.similarity(a, b) / (len(a) + len(b)) if a or b else 1.0 for a, b in pairs], np.float64
        )

    def scores(self, weights: np.ndarray) -> Scores:
        total = weights.sum(1)
        with np.errstate(all="ignore"):
            return {
                "exact": (weights @ self.exact) / total,
                "rouge_l": (weights @ self.common) / total,
                "wer": (weights @ self.wrong) / (weights @ self.length),
            }


class RankMetrics(WeightedMetrics):
    """Metrics of searches, each cut at ten: ``recall@k`` (a hit among the first k: HR), ``mrr``, ``ndcg@10`` (Järvelin
    and Kekäläinen 2002) and ``map@10``.

    Args:
        hit: which of what was found are right, bool [n, k], best first. rank: place of the first right one, from 1 [n].
        relevant: how many right ones there are [n].
    """

    def __init__(self, hit: np.ndarray, rank: np.ndarray, relevant: np.ndarray) -> None:
        self.rows = len(rank)
        hit = hit[:, :10].astype(np.float64)
        places, most = np.arange(1, hit.shape[1] + 1), np.minimum(relevant, hit.shape[1]).clip(1).astype(np.int64)
        gains = 1 / np.log2(places + 1)
        precision = hit.cumsum(1) / places
        self.values = {
            "recall@1": hit[:, :1].any(1).astype(np.float64),
            "recall@10": hit.any(1).astype(np.float64),
            "mrr": 1 / rank.astype(np.float64),
            "ndcg@10": (hit * gains).sum(1) / gains.cumsum()[most - 1],
            "map@10": (hit * precision).sum(1) / most,
        }

    def scores(self, weights: np.ndarray) -> Scores:
        return {name: (weights @ values) / weights.sum(1) for name, values in self.values.items()}


def ranking(score: np.ndarray, true: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve, and average precision, by weights [samples, n]: two arrays [samples]; ties are half."""
    order = np.argsort(-score, kind="stable")
    ties = np.flatnonzero(np.diff(score[order], prepend=np.inf))  # where each run of equal scores begins
    positive = np.add.reduceat(weights[:, order] * true[order], ties, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~true[order], ties, axis=1)
    hits, misses = positive.cumsum(1), negative.cumsum(1)
    below = misses[:, -1:] - misses
    area = (positive * (below + negative / 2)).sum(1) / (hits[:, -1] * misses[:, -1])
    precision = hits / np.maximum(hits + misses, 1e-12)
    return area, (precision * positive).sum(1) / hits[:, -1]


def nanmean(values: np.ndarray) -> np.ndarray:
    """Means of rows [n, k] over what is defined; NaN where nothing is."""
    known = np.isfinite(values)
    counts = known.sum(1)
    return np.where(counts > 0, np.where(known, values, 0.0).sum(1) / np.maximum(counts, 1), np.nan)


def difference(
    a: WeightedMetrics, b: WeightedMetrics, name: str, weights: np.ndarray
) -> tuple[float, tuple[float, float], float]:
    """Difference of a metric between two answers to the same rows: how much better the first is, its interval, and the
    p-value of the paired bootstrap (Efron and Tibshirani 1993): of there being none."""
    sign = -1.0 if name in LESS_IS_BETTER else 1.0
    gaps = sign * (a.samples(weights)[name] - b.samples(weights)[name])
    gaps = gaps[np.isfinite(gaps)]
    middle = sign * (a.point()[name] - b.point()[name])
    if not len(gaps):
        return middle, (middle, middle), 1.0
    tails = (1 - LEVEL) / 2
    low, high = np.quantile(gaps, (tails, 1 - tails))
    below, above = ((gaps <= 0).sum() + 1) / (len(gaps) + 1), ((gaps >= 0).sum() + 1) / (len(gaps) + 1)
    return middle, (float(low), float(high)), float(min(1.0, 2 * min(below, above)))
