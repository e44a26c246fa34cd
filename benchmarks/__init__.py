"""Benchmarks: ours beside the best-known peer, in one run on one machine.

A file without a leading underscore is a benchmark: its function ``comparisons(quick)`` gives what is measured. Each
side runs in a process of its own, in turns, so that none warms or starves the other. Only the standard library is
imported here, so that a peer may live in another environment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """What is compared.

    Attributes:
        key: its name in what a side gives back.
        unit: shown behind its values.
        less: whether less is better.
        wanted: how many times better than every peer ours should be; None: nothing is promised.
        limit: what ours should keep to, whatever the peers do.
    """

    key: str
    unit: str
    less: bool = True
    wanted: float | None = None
    limit: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One contestant: a function of the benchmark's file that gives a number for each metric.

    Attributes:
        run: the function's name. It is called with ``arguments`` in a process of its own.
        needs: modules it imports and that may not be installed.
        python: the interpreter, if it isn't this one.
    """

    run: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    python: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question: ours against its peers, ``repeats`` times in turns."""

    name: str
    metrics: tuple[Metric, ...]
    ours: Side | None
    peers: Mapping[str, Side] = dataclasses.field(default_factory=dict)
    repeats: int = 3
