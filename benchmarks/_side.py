"""One side of a benchmark: ``python -m benchmarks._side BENCHMARK FUNCTION ARGUMENTS``; its numbers as JSON last."""

from __future__ import annotations

import importlib
import json
import sys

if __name__ == "__main__":
    benchmark, function, arguments = sys.argv[1:]
    values = getattr(importlib.import_module(f"benchmarks.{benchmark}"), function)(**json.loads(arguments))
    print("\n" + json.dumps(values))
