"""Files of the package under 80 % of branch coverage, the least covered first: ``python tests/low_coverage.py FILE``,
FILE from ``coverage json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

MIN_PERCENT = 80


def low_coverage(report: dict) -> list[tuple[float, str]]:
    """Percent of lines and branches that ran, and the file, for each file with fewer than there should be."""
    found = [(each["summary"]["percent_covered"], name) for name, each in report["files"].items()]
    return sorted((percent, name) for percent, name in found if percent < MIN_PERCENT)


if __name__ == "__main__":
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for percent, name in low_coverage(report):
        print(f"{percent:5.1f} %  {name}")
    print(f"{report['totals']['percent_covered']:5.1f} %  of all lines and branches")
