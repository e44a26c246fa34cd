"""Rows of one thing are brought together where a key says that they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sensorium import Model

THINGS = 40
TINY_ROWS = [
    "network.width=24",
    "network.gist=24",
    "trunk.depth=1",
    "trunk.heads=2",
    "trackers=none",
    "baselines.share=0",
]


@pytest.mark.parametrize(("weight", "found"), [(1.0, True), (0.0, False)])
def test_what_only_a_key_tells_is_learned(weight: float, found: bool, tmp_path: Path) -> None:
    """Two names of each thing, drawn at random: nothing but the key says which belong together."""
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("abcdefghij"), 6)) for _ in range(2 * THINGS)]
    rows = pd.DataFrame({"thing": [f"t{i % THINGS}" for i in range(2 * THINGS)], "name": names, "split": "train"})
    settings = [
        "data.entity_key=thing",
        "column.thing.kind=out",
        "column.name.kind=text",
        f"match.same_thing={weight}",
        "data.validation=0",
        "baselines.share=0",
        "trackers=none",
        "train.batch=40",
        "column.name.dropout=0",
        "network.width=64",
        "trunk.heads=2",
        "trunk.depth=1",
    ]
    model = Model.fit(rows, out=tmp_path, epochs=50, settings=settings, quiet=True)
    gists = model.embed(rows, columns=["name"])
    scores = gists @ gists.T
    np.fill_diagonal(scores, -2)
    right = np.mean(scores.argmax(1) % THINGS == np.arange(2 * THINGS) % THINGS)
    assert (right > 0.9) if found else (right < 0.3), right
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any("same" in line for line in lines) == found


def test_a_key_without_a_column_that_is_matched_changes_nothing(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"thing": [f"t{i % 20}" for i in range(40)], "size": np.arange(40) * 0.5, "kind": list("ab") * 20}
    )
    model = Model.fit(
        rows,
        out=tmp_path,
        epochs=1,
        settings=[*TINY_ROWS, "data.entity_key=thing", "column.thing.kind=out"],
        quiet=True,
    )
    assert len(model.predict(rows, "kind")) == 40
