"""How often answers are right, told from how sure they are: on average as often as was said, and more often where it is surer."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.layers.sureness import FEWEST, Sureness, expected_error


def answers(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of many tokens and words of one, which are right as often as a rule says that looks at both numbers."""
    rng = np.random.default_rng(seed)
    tokens = rng.choice([2, 3, 9], count)
    score = -rng.gamma(1.0, 0.3, count) * tokens
    chance = 1 / (1 + np.exp(-(2.0 + 0.4 * score + 3.0 * score / tokens)))
    return score, tokens, rng.random(count) < chance


@pytest.mark.parametrize("seed", range(3))
def test_it_is_as_sure_as_it_is_right(seed: int) -> None:
    known = Sureness.of(*answers(400, seed))
    score, tokens, right = answers(4000, seed + 100)
    chance = known.right(score, tokens)
    assert abs(chance.mean() - right.mean()) < 0.05 and expected_error(chance, right) < 0.06
    best = -np.mean(np.log(np.where(right, 1 / (1 + np.exp(-(2.0 + 0.4 * score + 3.0 * score / tokens))), 1 / (1 + np.exp(2.0 + 0.4 * score + 3.0 * score / tokens)))))
    found = -np.mean(np.log(np.where(right, chance, 1 - chance)))
    plain = -np.mean(np.log(np.where(right, right.mean(), 1 - right.mean())))
    assert best <= found < best + 0.03 < plain
    assert expected_error(np.exp(score / tokens), right) > 2 * expected_error(chance, right)  # what it was before


def test_answers_that_were_all_right_or_all_wrong_are_no_promise() -> None:
    score, tokens, _ = answers(100, 0)
    for right in (np.ones(100, bool), np.zeros(100, bool)):
        chance = Sureness.of(score, tokens, right).right(score, tokens)
        assert np.isfinite(chance).all() and (chance > 0).all() and (chance < 1).all() and abs(chance.mean() - right.mean()) < 0.05


def test_few_answers_say_nothing() -> None:
    score, tokens, right = answers(FEWEST, 0)
    assert Sureness.of(score, tokens, right) is not None and Sureness.of(score[1:], tokens[1:], right[1:]) is None
