"""Written numbers: what survives as a number, and forms with signs and units."""

from __future__ import annotations

import pytest

from sensorium.core.numerals import NumberForm, lossy_example, number_form


@pytest.mark.parametrize(
    ("texts", "lost"),
    [
        (["3.1", "3.10"], "3.10"), (["3.9", "3.10", "3.11"], "3.10"), (["049.96", "50.1"], "049.96"),
        (["007", "12"], "007"),
        (["10E4", "100000"], "10E4"), (["1E5", "2E3"], "1E5"), (["+4917012345", "+4412345"], "+4917012345"),
    ],
)  # fmt: skip
def test_codes_would_lose_something(texts: list[str], lost: str) -> None:
    assert lossy_example(texts) == lost


@pytest.mark.parametrize(
    "texts",
    [
        ["2.50", "13.00", "0.99"], ["2.50", "13", "0.99"], ["2.5", "3.0", "1.25"], ["1.50", "10.0", "0.100"],
        ["1e-05", "2.5e+10", "3"],
        ["+1", "-2"], ["+0.5", "0.3"], ["0.5", ".5", "5."], ["1e3", "2"], ["5.50", "1.0"],
    ],
)  # fmt: skip
def test_numbers_as_programs_write_them_lose_nothing(texts: list[str]) -> None:
    assert lossy_example(texts) is None


@pytest.mark.parametrize(
    ("texts", "values", "form"),
    [
        (["€860.95", "€1,062.87"], [860.95, 1062.87], NumberForm(thousands=",", prefix="€", places=2)),
        (["$3,553.78", "-$5.10", "$12.00"], [3553.78, -5.1, 12], NumberForm(thousands=",", prefix="$", places=2)),
        (["12 %", "7 %"], [12, 7], NumberForm(suffix=" %", places=0)),
        (["79.19%", "3%"], [79.19, 3], NumberForm(suffix="%")),
        (["1.234,5", "2,25", "1.000.000,0"], [1234.5, 2.25, 1e6], NumberForm(decimal=",", thousands=".")),
        (["12,34 €", "1.234,00 €"], [12.34, 1234], NumberForm(decimal=",", thousands=".", suffix=" €", places=2)),
        (["1,5", "2,75"], [1.5, 2.75], NumberForm(decimal=",")),
        (["45.3°", "12°"], [45.3, 12], NumberForm(suffix="°")),
        (["1 234,5", "12,0"], [1234.5, 12], NumberForm(decimal=",", thousands=" ", places=1)),
        (["1'234.5", "2'000.0"], [1234.5, 2000], NumberForm(thousands="'", places=1)),
        (["1,234", "12", "1,234,567"], [1234, 12, 1234567], NumberForm(thousands=",", places=0)),
        (["(5.25)", "3.00"], [-5.25, 3], NumberForm(places=2, parentheses=True)),
        (["5 km/h", "72 km/h"], [5, 72], NumberForm(suffix=" km/h", places=0)),
        (["USD 5", "USD 6.5"], [5, 6.5], NumberForm(prefix="USD ")),
    ],
)  # fmt: skip
def test_forms_are_found_read_and_written_again(texts: list[str], values: list[float], form: NumberForm) -> None:
    found, example = number_form(texts)
    assert found == form and example == texts[0]
    assert [float(found.parse(text) or "nan") for text in texts] == values
    again = [found.write(value, 2) for value in values]
    assert [float(found.parse(text) or "nan") for text in again] == values
    plain = [text for text in texts if "(" not in text and "000,0" not in text and "," not in text[-3:-1]]
    assert {text for text in plain if text not in again} == set(), (
        "a text in its column's own form is written as it was"
    )


@pytest.mark.parametrize(
    "texts",
    [
        ["A1", "B2"], ["v1.2", "v1.3"], ["10:30", "11:40"], ["2024-05-01"], ["£5", "$6"], ["192.168.1.1", "10.0.0.1"],
        ["1-2", "2-3"],
        ["600 123 456", "601 222 333"], ["3.9 GB", "3.10 GB"], ["red", "5"], ["-29.3,4.7", "3.4,5.5"], [""],
    ],
)  # fmt: skip
def test_what_is_no_number_has_no_form(texts: list[str]) -> None:
    assert number_form(texts)[0] is None


def test_a_form_takes_numbers_without_its_signs_and_refuses_others() -> None:
    form = NumberForm(decimal=",", thousands=".", suffix=" €")
    assert form.parse("1.234,5") == "1234.5" and form.parse("\u00a01.234,5\u202f€ ") == "1234.5"
    assert [form.parse(text) for text in ("1,2,3", "12.34,5", "1.5", "--1", "x", "")] == [None] * 6
    assert form.write(-0.001, 2) == "0 €" and NumberForm(prefix="$", places=2).write(-1234.5, 0) == "-$1234.50"
