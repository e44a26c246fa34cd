"""Calibrated probabilities of answers: right on average as often as predicted, and more often where confidence is
higher.
"""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.nn.platt import MIN_ANSWERS, PlattScaler, expected_error


def answers(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities, whole and by token, of names of many tokens and words of one, which are right as often as a
    rule of both says."""
    rng = np.random.default_rng(seed)
    tokens = rng.choice([2, 3, 9], count)
    score = -rng.gamma(1.0, 0.3, count) * tokens
    signs = np.stack([score, score / tokens], 1)
    return signs, rng.random(count) < truth(signs)


def truth(signs: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(2.0 + signs @ [0.4, 3.0])))


@pytest.mark.parametrize("seed", range(3))
def test_it_is_as_sure_as_it_is_right(seed: int) -> None:
    known = PlattScaler.fit(*answers(400, seed))
    signs, right = answers(4000, seed + 100)
    chance = known.right(signs)
    assert abs(chance.mean() - right.mean()) < 0.05 and expected_error(chance, right) < 0.06
    best = -np.mean(np.log(np.where(right, truth(signs), 1 - truth(signs))))
    found = -np.mean(np.log(np.where(right, chance, 1 - chance)))
    plain = -np.mean(np.log(np.where(right, right.mean(), 1 - right.mean())))
    assert best <= found < best + 0.03 < plain
    assert expected_error(np.exp(signs[:, 1]), right) > 2 * expected_error(chance, right)  # what it was before


def test_answers_that_were_all_right_or_all_wrong_are_no_promise() -> None:
    signs, _ = answers(100, 0)
    for right in (np.ones(100, bool), np.zeros(100, bool)):
        chance = PlattScaler.fit(signs, right).right(signs)
        assert (
            np.isfinite(chance).all()
            and (chance > 0).all()
            and (chance < 1).all()
            and abs(chance.mean() - right.mean()) < 0.05
        )


def test_few_answers_say_nothing() -> None:
    signs, right = answers(MIN_ANSWERS, 0)
    assert PlattScaler.fit(signs, right) is not None and PlattScaler.fit(signs[1:], right[1:]) is None


def test_what_is_like_nothing_known_is_answered_wrong_however_sure_it_is() -> None:
    """Two populations of equal confidence: known things, of which most answers are right, and others; and some of which
    nothing was looked up."""
    rng = np.random.default_rng(3)
    signs, _ = answers(600, 3)
    known = rng.random(600) < 0.5
    signs = np.concatenate([signs, 60.0 * known[:, None] + rng.normal(0, 10, (600, 1))], 1)
    right = rng.random(600) < np.where(known, 0.9, 0.1)
    half, other = np.arange(600) < 300, np.arange(600) >= 300
    told, blind = PlattScaler.fit(signs[half], right[half]), signs * [1, 1, np.nan]
    chance = told.right(signs[other])
    assert (
        chance[known[other]].mean() > 0.8
        and chance[~known[other]].mean() < 0.25
        and expected_error(chance, right[other]) < 0.12
    )
    never = PlattScaler.fit(blind[half], right[half]).right(signs[other])
    assert abs(never.mean() - right.mean()) < 0.1 and never.std() < 0.1  # by sureness alone nothing can be told
    lost = told.right(blind[other])
    assert ((lost > 0.2) & (lost < 0.8)).all()
