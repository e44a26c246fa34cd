"""The quantile map: monotone, invertible, finite, and a normal score where the sample is large."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.core.quantiles import MAX_DISTANCE, Quantiles

floats = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=300)
@given(st.lists(floats, max_size=60), st.lists(floats, min_size=1, max_size=20))
def test_any_sample_gives_a_finite_rising_map(sample: list[float], values: list[float]) -> None:
    quantiles = Quantiles.fit(np.array(sample))
    ordered = np.sort(np.array(values))
    scores = quantiles.encode(ordered)
    assert np.isfinite(scores).all() and np.isfinite(quantiles.robust_scale(ordered)).all()
    assert (np.diff(scores) >= -1e-9).all()
    assert np.isfinite(quantiles.decode(scores)).all()
    assert np.abs(scores).max() <= MAX_DISTANCE + 6


@settings(deadline=None, max_examples=300)
@given(st.lists(floats, min_size=1, max_size=60))
def test_values_of_the_sample_come_back(sample: list[float]) -> None:
    values = np.array(sample)
    quantiles = Quantiles.fit(values)
    back = quantiles.decode(quantiles.encode(values))
    assert np.allclose(back, values, rtol=1e-9, atol=np.abs(values).max() * 1e-12)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e15])
def test_heavy_tails_in_any_unit_become_normal(unit: float) -> None:
    values = np.random.default_rng(0).standard_cauchy(50_000) * unit
    quantiles = Quantiles.fit(values)
    scores = quantiles.encode(values)
    assert abs(scores.mean()) < 0.01 and abs(scores.std() - 1) < 0.01
    assert np.allclose(quantiles.decode(scores), values, rtol=1e-6, atol=unit * 1e-9)
    assert len(quantiles.values) <= 257


def test_values_outside_the_sample_come_back_and_stay_small() -> None:
    quantiles = Quantiles.fit(np.random.default_rng(0).normal(size=1000))
    far = np.array([-1e9, -50.0, 50.0, 1e9])
    scores = quantiles.encode(far)
    assert np.abs(scores).max() < 30
    assert np.allclose(quantiles.decode(scores), far, rtol=1e-6)


def test_an_atom_has_a_stretch_of_scores() -> None:
    rain = np.concatenate([np.zeros(700), np.random.default_rng(0).exponential(5.0, 300)])
    quantiles = Quantiles.fit(rain)
    assert (quantiles.decode(np.linspace(-1.2, 0.3, 50)) == 0).all()
    assert quantiles.decode(np.array([1.0]))[0] > 0
    assert quantiles.encode(np.array([0.0]))[0] == pytest.approx(-0.385, abs=0.01)  # the normal score of 0.35


def test_a_constant_and_an_empty_sample_are_harmless() -> None:
    for sample, value in (([7.0] * 5, 7.0), ([], 0.0), ([np.nan, np.inf], 0.0)):
        quantiles = Quantiles.fit(np.array(sample))
        assert quantiles.encode(np.array([value]))[0] == 0
        assert quantiles.decode(np.array([0.0]))[0] == value


def test_the_state_is_json_and_complete() -> None:
    values = np.random.default_rng(0).lognormal(3, 3, 5000)
    quantiles = Quantiles.fit(values)
    copy = Quantiles.from_state(json.loads(json.dumps(quantiles.state())))
    assert np.array_equal(copy.encode(values), quantiles.encode(values))
