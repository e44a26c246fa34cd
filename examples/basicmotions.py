"""What is somebody doing who wears a smart watch? 40 recordings to learn from.

    python examples/basicmotions.py --minutes 0.5

Standing, walking, running or playing badminton; ten seconds of six channels at 10 Hz. As small as a table gets.
"""

from __future__ import annotations

from _compare import arguments, build, compare, fit, run, show


def main() -> None:
    given = arguments(__doc__, minutes=0.5)
    table = build("basicmotions", given)
    model = fit(table, "activity", given, "run")
    show("Rows it never saw", model, compare(model, table, "activity"))
    print(f"\nReport: {given.out / 'run' / 'report.html'}")


if __name__ == "__main__":
    run(main)
