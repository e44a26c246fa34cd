"""Which state is an airport in? Its name and city in words, where it lies in numbers.

    python examples/airports.py --minutes 2

Where it lies says nearly all, but not at a border; what it is called says a little. The model should make use of both.
"""

from __future__ import annotations

from _compare import arguments, build, compare, fit, run, show

KIND = "column.state.kind=category"
"""In the beginning of the table alone, two letters that are nearly all different look like words."""


def main() -> None:
    given = arguments(__doc__, minutes=2)
    table = build("airports", given)
    model = fit(table, "state", given, "run", [KIND])
    show("Rows it never saw", model, compare(model, table, "state"))
    print(f"\nReport: {given.out / 'run' / 'report.html'}")


if __name__ == "__main__":
    run(main)
