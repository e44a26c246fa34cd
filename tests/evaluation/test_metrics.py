"""Metrics agree with scikit-learn's, their intervals hold the truth, and a difference is found where there is one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from sensorium.evaluation.answer_metrics import slice_scores, slices_of
from sensorium.evaluation.metrics import (
    ClassMetrics,
    RankMetrics,
    TextMetrics,
    ValueMetrics,
    bootstrap_weights,
    difference,
)

RNG = np.random.default_rng(0)
ROWS = 500


def classes(classes: int = 4, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    truth = RNG.integers(0, classes, ROWS)
    logits = RNG.normal(size=(ROWS, classes)).round(1)
    logits[np.arange(ROWS), truth] += skill
    chances = np.exp(logits)
    return truth, chances / chances.sum(1, keepdims=True)


def test_metrics_of_classes_are_scikit_learns() -> None:
    truth, chances = classes()
    said = chances.argmax(1)
    found = ClassMetrics(truth, said, chances).point()
    each = [sk.average_precision_score(truth == c, chances[:, c]) for c in range(4)]
    assert found == pytest.approx({
        "accuracy": sk.accuracy_score(truth, said),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, said),
        "f1_macro": sk.f1_score(truth, said, average="macro"),
        "precision_macro": sk.precision_score(truth, said, average="macro"),
        "mcc": sk.matthews_corrcoef(truth, said),
        "log_loss": sk.log_loss(truth, chances),
        "brier": float(((chances - np.eye(4)[truth]) ** 2).sum(1).mean()),
        "auroc": sk.roc_auc_score(truth, chances, multi_class="ovr"),
        "average_precision": float(np.mean(each)),
    })  # fmt: skip


def test_weights_are_as_good_as_repeated_rows() -> None:
    truth, chances = classes()
    weights = bootstrap_weights(ROWS, samples=3)
    found = ClassMetrics(truth, chances.argmax(1), chances).scores(weights)
    for sample in range(3):
        rows = np.repeat(np.arange(ROWS), weights[sample].astype(int))
        again = ClassMetrics(truth[rows], chances[rows].argmax(1), chances[rows]).point()
        assert {name: value[sample] for name, value in found.items()} == pytest.approx(again)


def test_a_class_that_the_model_does_not_know_is_a_miss() -> None:
    found = ClassMetrics(np.array([-1, 0, 1]), np.array([0, 0, 1]), np.eye(2)[[0, 0, 1]]).point()
    assert (
        found["accuracy"] == pytest.approx(2 / 3) and found["log_loss"] > 5 and np.isfinite(list(found.values())).all()
    )


def test_metrics_of_values_are_scikit_learns() -> None:
    truth = RNG.normal(5, 2, ROWS)
    said = truth + RNG.normal(size=ROWS)
    ends = np.stack([said - 1.6, said + 1.6], 1)
    found = ValueMetrics(truth, said, ends).point()
    losses = [sk.mean_pinball_loss(truth, x, alpha=a) for x, a in ((ends[:, 0], 0.05), (said, 0.5), (ends[:, 1], 0.95))]
    assert found == pytest.approx({
        "r2": sk.r2_score(truth, said),
        "mae": sk.mean_absolute_error(truth, said),
        "rmse": sk.root_mean_squared_error(truth, said),
        "mape": sk.mean_absolute_percentage_error(truth, said),
        "pinball": float(np.mean(losses)),
    })  # fmt: skip
    huge = ValueMetrics(truth * 1e200, said * 1e200, None).point()
    assert huge["r2"] == pytest.approx(found["r2"]) and np.isfinite(huge["rmse"])
    assert ValueMetrics(np.ones(9), np.ones(9), None).point()["r2"] == 0


def test_metrics_of_texts() -> None:
    found = TextMetrics(["the cat sat", "a dog", ""], ["the cat sat down", "A dog", ""]).point()
    assert found == pytest.approx({"exact": 2 / 3, "rouge_l": (6 / 7 + 1 + 1) / 3, "wer": 1 / 5})


def test_metrics_of_searches() -> None:
    hit = np.array([[True, False, True], [False, False, False]])
    found = RankMetrics(hit, np.array([1, 20]), np.array([2, 1])).point()
    gain = (1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    assert found == pytest.approx({
        "recall@1": 0.5, "recall@10": 0.5, "mrr": (1 + 1 / 20) / 2, "ndcg@10": gain / 2, "map@10": (1 + 2 / 3) / 4
    })  # fmt: skip


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        right = rng.random(300) < 0.7
        low, high = ClassMetrics(np.ones(300, int), right.astype(int), None).intervals(
            bootstrap_weights(300, seed=seed)
        )["accuracy"]
        held.append(low <= 0.7 <= high)
    assert np.mean(held) >= 0.85


def test_rows_of_a_group_are_drawn_together() -> None:
    groups = np.repeat(np.arange(30), 10)
    weights = bootstrap_weights(300, groups)
    assert (weights.reshape(-1, 30, 10) == weights.reshape(-1, 30, 10)[:, :, :1]).all()
    right = np.repeat(np.random.default_rng(0).random(30) < 0.6, 10)
    one = ClassMetrics(np.ones(300, int), right.astype(int), None)
    wide, narrow = (np.diff(one.intervals(w)["accuracy"])[0] for w in (weights, bootstrap_weights(300)))
    assert wide > 2 * narrow


def test_a_difference_is_found_where_there_is_one() -> None:
    truth = RNG.normal(size=ROWS)
    good, same, bad = (ValueMetrics(truth, truth + RNG.normal(size=ROWS) * s, None) for s in (0.5, 0.5, 0.8))
    weights = bootstrap_weights(ROWS)
    better, (low, high), p = difference(good, bad, "rmse", weights)
    assert better > 0 and 0 < low < better < high and p < 0.05, "less error is better"
    assert difference(good, same, "rmse", weights)[2] > 0.05 and difference(good, good, "r2", weights)[2] == 1


def test_slices_are_values_or_quarters_and_the_worst_is_first() -> None:
    assert set(slices_of(["a"] * 20 + ["b"] * 20 + ["rare"] + [None] * 12)) == {"a", "b", "(missing)"}
    quarters = slices_of([float(i) for i in range(100)])
    assert len(quarters) == 4 and sum(map(len, quarters.values())) == 100
    truth = np.ones(100, int)
    said = np.where(np.arange(100) < 25, 0, 1)
    found = slice_scores(ClassMetrics(truth, said, None), "accuracy", quarters, bootstrap_weights(100))
    worst, best = next(iter(found.values())), list(found.values())[-1]
    assert worst["accuracy"] < 0.1 and best["accuracy"] == 1 and worst["interval"][0] <= worst["accuracy"]
