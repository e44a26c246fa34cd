"""What tests of sources share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def nothing_written(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Call it once the files are there: at the end there are no others beside them."""
    before: list[set[Path]] = []
    yield lambda: before.append(set(tmp_path.rglob("*")))
    assert not before or set(tmp_path.rglob("*")) == before[0]
