"""Which shoulder exercise is somebody doing? Six channels of a smart watch, 5 seconds at a time.

    python examples/exercises.py --minutes 3

Windows of one recording overlap, so a random split puts nearly the same seconds on both sides and shows an accuracy
that nobody new would ever see. The split by person tells the truth; both are printed.
"""

from __future__ import annotations

from _compare import arguments, build, compare, fit, run, show

WHO = "column.subject.kind=out"
"""Who somebody is can't be known of people who weren't there."""


def main() -> None:
    given = arguments(__doc__, minutes=3)
    table = build("exercises", given)
    model = fit(table, "exercise", given, "by-person", [WHO])
    show("People it never saw", model, compare(model, table, "exercise"))
    model = fit(table, "exercise", given, "at-random", [WHO, "data.split=hash"])
    show("A random split, which is a leak", model, compare(model, table, "exercise"))
    print(f"\nReport: {given.out / 'by-person' / 'report.html'}")


if __name__ == "__main__":
    run(main)
