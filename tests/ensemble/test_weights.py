"""Weights of an ensemble: the better member counts more, few rows shrink to the prior, similar rows count most."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.ensemble.weights import (
    WeightBank,
    conformal_quantile,
    mixture_weights,
    onto_simplex,
    prior,
    value_weights,
)


def test_the_prior_is_half_on_the_best_member_and_falls_with_the_distance_from_it() -> None:
    near = np.exp([-2.0, 0.0, -1.0])
    assert prior(np.array([1.0, 3.0, 2.0])).tolist() == pytest.approx((near / near.sum() + [0, 1, 0]) / 2)
    assert prior(np.array([2.0, 2.0]))[0] == pytest.approx(0.75)


def test_a_mixture_is_likelier_than_each_of_its_members() -> None:
    rng = np.random.default_rng(0)
    right = rng.random((4000, 1)) < 0.5  # each member knows half of the rows
    likelihoods = np.where(np.concatenate([right, ~right, right | True], 1), [0.9, 0.9, 0.3], [0.05, 0.05, 0.3])
    weights = mixture_weights(likelihoods, np.ones(4000))
    mixed = np.log(likelihoods @ weights).mean()
    assert mixed > np.log(likelihoods).mean(0).max() + 0.2
    assert weights[:2] == pytest.approx([0.5, 0.5], abs=0.03) and weights.sum() == pytest.approx(1)


def test_stacked_values_have_less_error_than_each_of_them() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=3000)
    values = truth[:, None] + rng.normal(size=(3000, 3)) * [0.5, 0.5, 3.0]
    weights = value_weights(values, truth, np.ones(3000))
    assert ((values @ weights - truth) ** 2).mean() < 0.6 * ((values - truth[:, None]) ** 2).mean(0).min()
    assert weights[2] < 0.05 and weights[:2] == pytest.approx([0.5, 0.5], abs=0.05)


def test_of_few_rows_little_is_believed() -> None:
    likelihoods = np.array([[0.1, 0.9]] * 3)
    weights = mixture_weights(likelihoods, np.ones(3))
    assert weights[1] < 0.97, "three rows alone would say 1"
    values = np.array([[0.0, 1.0]] * 3)
    assert value_weights(values, np.ones(3), np.ones(3))[1] == pytest.approx(prior(np.array([0.0, 1.0]))[1], abs=0.3)


def test_rows_that_show_the_same_columns_choose() -> None:
    visible = np.array([[True, True]] * 300 + [[True, False]] * 300)
    likelihoods = np.array([[0.1, 0.9]] * 300 + [[0.9, 0.1]] * 300)
    bank = WeightBank(visible, likelihoods)
    both = np.array([True, True]).tobytes()
    assert bank.weights(both, both)[1] > 0.8
    assert bank.weights(np.array([True, False]).tobytes(), both)[0] > 0.8
    assert bank.weights(both, np.array([True, False]).tobytes()).tolist() == [1, 0], "the other can't answer such rows"


def test_where_few_rows_are_alike_others_count_more() -> None:
    rng = np.random.default_rng(0)
    visible = rng.random((150, 8)) < 0.5
    pattern = np.ones(8, bool).tobytes()
    assert WeightBank(visible, np.full((150, 2), 0.5)).count(pattern).sum() > 20
    many = np.concatenate([visible, np.ones((100, 8), bool)])
    count = WeightBank(many, np.full((250, 2), 0.5)).count(pattern)
    assert (count[150:] == 1).all() and count[:150].mean() < 0.05


def test_a_member_without_answers_gets_no_weight() -> None:
    visible = np.array([[True, True]] * 100 + [[True, False]] * 100)
    likelihoods = np.array([[0.5, 0.9]] * 100 + [[0.5, np.nan]] * 100)
    bank = WeightBank(visible, likelihoods)
    both = np.array([True, True]).tobytes()
    assert bank.weights(both, both)[1] > 0.7
    empty = WeightBank(np.zeros((0, 2)), np.zeros((0, 3)))
    assert empty.weights(both, np.ones(3, bool).tobytes()).tolist() == [1, 0, 0]


def test_conformal_quantiles_hold_their_share() -> None:
    rng = np.random.default_rng(0)
    scores, later = rng.normal(size=2000), rng.normal(size=20_000)
    assert (later <= conformal_quantile(scores, np.ones(2000), 0.9)).mean() == pytest.approx(0.9, abs=0.02)
    count = np.where(scores > 0, 1.0, 1e-9)
    assert (np.abs(later) <= conformal_quantile(scores, count, 0.9)).mean() == pytest.approx(0.9, abs=0.02)
    assert conformal_quantile(scores[:5], np.ones(5), 0.9) == np.inf, "five rows can't say so much"


def test_the_nearest_point_of_the_simplex() -> None:
    assert onto_simplex(np.array([0.2, 0.3, 0.5])).tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert onto_simplex(np.array([2.0, 0.0, -1.0])).tolist() == [1, 0, 0]
