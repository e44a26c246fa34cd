"""Which of nine men said "ae"? Twelve cepstral coefficients, 7 to 29 steps long.

    python examples/vowels.py --minutes 1

Series of different lengths, and a test part in which the speakers are not as frequent as in training.
"""

from __future__ import annotations

from _compare import arguments, build, compare, fit, run, show


def main() -> None:
    given = arguments(__doc__, minutes=1)
    table = build("vowels", given)
    model = fit(table, "speaker", given, "run")
    show("Rows it never saw", model, compare(model, table, "speaker"))
    print(f"\nReport: {given.out / 'run' / 'report.html'}")


if __name__ == "__main__":
    run(main)
