"""Numbers: what is read, what is missing, what is bad; round trips; scores."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.core.errors import BadCell
from sensorium.core.types import Profile
from sensorium.modalities.number import Number


def learned(cells: list[Any], **options: Any) -> Number:
    number = Number(**options)
    number.learn([number.read(cell) for cell in cells])
    return number


def there_and_back(number: Number, cells: list[Any]) -> list[Any]:
    collated = number.collate([number.prepare(number.read(cell)) for cell in cells])
    return [number.decode(said) for said in number.target(collated).numpy()]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=50))
def test_floats_come_back(cells: list[float]) -> None:
    back = there_and_back(learned(cells), cells)
    assert np.allclose(back, cells, rtol=1e-4, atol=1e-5 * max(map(abs, cells)))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=50))
def test_whole_numbers_come_back_exactly_and_as_whole_numbers(cells: list[int]) -> None:
    back = there_and_back(learned(cells), cells)
    assert back == cells and all(type(value) is int for value in back)


def test_prices_come_back_with_their_cents() -> None:
    cells = [19.99, 5.0, 1249.5, 0.01, 3.25]
    assert there_and_back(learned(cells), cells) == cells


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (3, 3.0),
        (True, 1.0),
        (np.float32(1.5), 1.5),
        (Decimal("2.50"), 2.5),
        (" -1.5e3 ", -1500.0),
        (".5", 0.5),
        (b"12", 12.0),
    ],
)
def test_numbers_and_plain_texts_are_read(cell: Any, value: float) -> None:
    assert Number().read(cell).tolist() == [value]


@pytest.mark.parametrize(
    "cell",
    [
        None,
        float("nan"),
        Decimal("nan"),
        np.float64("nan"),
        "",
        "  ",
        "NaN",
        "n/a",
        float("inf"),
        "-inf",
    ],
)
def test_missing(cell: Any) -> None:
    assert Number().read(cell).shape == (0,)


@pytest.mark.parametrize(
    "cell",
    [
        "1e999",
        pytest.param(10**400, id="huge"),
        "1,234",
        "1_000",
        "٣",
        "12 kg",
        pytest.param("1" * 1000, id="thousand ones"),
        "0x10",
        [1],
        {},
        b"\xff",
        1j,
        "--1",
        pytest.param("9" * 10**7, id="long"),
    ],
)
def test_bad(cell: Any) -> None:
    with pytest.raises(BadCell) as caught:
        Number().read(cell)
    assert len(str(caught.value)) < 100


def test_thousands_and_decimal_signs() -> None:
    english, german = Number(thousands=","), Number(thousands=".", decimal=",")
    assert english.read("-1,234,567.5").tolist() == [-1234567.5]
    assert german.read("1.234,5").tolist() == [1234.5]
    assert german.read("1,5").tolist() == [1.5]
    for number, cell in ((english, "1,2"), (english, "1,23,456"), (english, "1.234,5"), (german, "1.5")):
        with pytest.raises(BadCell):
            number.read(cell)


def test_an_absurd_value_gives_a_modest_target() -> None:
    number = learned(list(range(1000)))
    target = number.target(number.collate([number.read(1e300), number.read(-1e300)]))
    assert target.abs().max() < 40


def test_noise_leaves_the_target_alone() -> None:
    number = learned(list(range(100)))
    cells = number.collate([number.read(5), number.read(50)])
    noisy = number.augment(cells, torch.Generator().manual_seed(0))
    assert not torch.equal(noisy["score"], cells["score"])
    assert torch.equal(number.target(noisy), number.target(cells))


def test_state_makes_a_copy() -> None:
    number, copy = learned([1.5, 2.5, 9.0]), Number()
    copy.load_state(json.loads(json.dumps(number.state())))
    assert there_and_back(copy, [1.5, 9.0, 4.0]) == there_and_back(number, [1.5, 9.0, 4.0]) == [1.5, 9.0, 4.0]


def test_score_against_sums_by_hand() -> None:
    assert Number().score([1, 2, 3, 6], [1, 2, 3, 2]) == pytest.approx(
        {"r2": 1 - 16 / 14, "mae": 1.0, "median_error": 0.0}
    )
    assert Number().score([1e200, 2e200], [1e200, 2e200])["r2"] == 1.0
    assert Number().score([None], [3]) == {}


def claim(type_: str, sample: list[Any]) -> bool:
    found = Number.claim(
        Profile(name="x", type=type_, sample=sample, present=len(sample), rows=len(sample), distinct=len(set(sample)))
    )
    return found is not None


def test_claims() -> None:
    assert claim("double", [1.5, 2.5]) and claim("string", ["1.5", "2", ""])
    assert not claim("string", ["00123", "04567"])  # postcodes
    assert not claim("string", ["1.5", "two"]) and not claim("bool", [True, False]) and not claim("string", [""])
