"""Golden loss curves: a change that should not change the training must not.

    SENSORIUM_GOLDEN=write pytest tests/training/test_golden.py

writes them anew, after a change that should. Processors add up in other orders, hence the tolerance, and few steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_table

GOLDEN = Path(__file__).parent.parent / "golden" / "losses.json"
RECIPES = {
    "default": [],
    "siglip and autoencode": ["match.kind=siglip", "objectives=tell,match,autoencode"],
    "concat, adamw": ["trunk=concat", "train.optimizer=adamw"],
    "late, sgd": ["trunk=late", "trunk.depth=1", "train.optimizer=sgd", "train.lr=0.01"],
    "target": [],
}
STEPS = 8


@pytest.mark.parametrize("name", RECIPES)
def test_losses_are_as_they_were(name: str, quick_fit: Callable[..., Any]) -> None:
    settings = RECIPES[name]
    model = quick_fit(tiny_table(48, seed=7), *settings, epochs=4, **({"target": "colour"} if name == "target" else {}))
    assert model.folder is not None
    lines = [json.loads(line) for line in (model.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [round(line["loss"], 5) for line in lines][:STEPS]
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if os.environ.get("SENSORIUM_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps({**golden, name: losses}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return
    assert len(losses) == STEPS
    np.testing.assert_allclose(losses, golden[name], rtol=0.02)
