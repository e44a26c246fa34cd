"""Written dates: the order of day and month is found from a whole column, or refused."""

from __future__ import annotations

import pytest

from sensorium.core.datetexts import date_form, read_date, write_date


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["24/07/2017", "01/02/2018"], "%d/%m/%Y"), (["07/24/2017", "01/02/2018"], "%m/%d/%Y"),
        (["24.07.17", "01.02.18"], "%d.%m.%y"),
        (["01.02.2018", "03.04.2018"], "%d.%m.%Y"), (["24/07/2017 13:45", "01/02/2018 01:00"], "%d/%m/%Y %H:%M"),
        (["24/07/2017 01:45 PM"], "%d/%m/%Y %I:%M %p"), (["24 Jul 2017", "01 May 2018"], "%d %b %Y"),
        (["July 24, 2017", "May 01, 2018"], "%B %d, %Y"), (["24-Jul-17"], "%d-%b-%y"),
        (["2017/07/24 10:00:01"], "%Y/%m/%d %H:%M:%S"),
        (["Mon, 24 Jul 2017 10:00:00"], "%a, %d %b %Y %H:%M:%S"), (["July 24th, 2017"], "%B %dth, %Y"),
    ],
)  # fmt: skip
def test_forms_are_found_and_written_again(texts: list[str], form: str) -> None:
    found, why = date_form(texts)
    assert found == form and why
    assert [write_date(read_date(text, form), form) for text in texts] == texts


def test_an_order_that_no_day_tells_is_refused_and_named() -> None:
    form, why = date_form(["01/02/2018", "03/04/2018"])
    assert form is None and "%d/%m/%Y" in why and "%m/%d/%Y" in why


@pytest.mark.parametrize(
    "texts",
    [["1.2.10", "10.2.3"], ["555-12-1234"], ["192.168.1.1"], ["red"], ["13/13/2017"], ["24/07/2017", "07/24/2017"]],
)
def test_other_texts_are_no_dates(texts: list[str]) -> None:
    assert date_form(texts)[0] is None


def test_years_before_1000_have_four_digits() -> None:
    assert write_date(read_date("01/02/0033", "%d/%m/%Y"), "%d/%m/%Y") == "01/02/0033"
