"""Fusion must do no harm: what says nothing beside what says all must not cost the answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sensorium import Model
from sensorium.training.calibrate import ValidationRows, find_misleading, forward_selection

ROWS = 3000
WORDS = np.array(
    [
        "amber",
        "birch",
        "coral",
        "delta",
        "ember",
        "flint",
        "grove",
        "heron",
        "indigo",
        "jade",
        "kelp",
        "linen",
        "maple",
        "north",
        "ochre",
        "pearl",
    ]
)
SETTINGS = ("trackers=none", "baselines.share=0", "data.split=column:split")


def some_words(rng: np.random.Generator, rows: int, count: int) -> list[str]:
    return [" ".join(rng.choice(WORDS, count)) for _ in range(rows)]


def useless(rng: np.random.Generator) -> pd.DataFrame:
    """The class is in ``telling``'s first words, with one class in ten drawn anew; all other columns are noise."""
    truth = rng.integers(0, 6, ROWS)
    kinds = np.array(["red", "green", "blue", "black", "white", "grey"])
    said = np.where(rng.random(ROWS) < 0.1, rng.integers(0, 6, ROWS), truth)
    return pd.DataFrame(
        {
            "telling": [f"{kinds[k]} {words}" for k, words in zip(said, some_words(rng, ROWS, 4), strict=True)],
            "words": some_words(rng, ROWS, 6),
            "noise": rng.standard_normal(ROWS).astype(np.float32),
            "answer": kinds[truth],
        }
    )


def shared(rng: np.random.Generator) -> pd.DataFrame:
    """The class is a band of ``number``; the text is one of five that hundreds of rows share."""
    number = rng.random(ROWS).astype(np.float32)
    band = np.clip(np.floor((number + rng.normal(0, 0.01, ROWS)) * 6), 0, 5).astype(int)
    return pd.DataFrame(
        {
            "number": number,
            "notice": np.array(some_words(rng, 5, 8))[rng.integers(0, 5, ROWS)],
            "answer": np.array(list("abcdef"))[band],
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [useless, shared])
def test_fused_answers_are_within_a_point_of_the_best_column(make, tmp_path: Path) -> None:
    table = make(np.random.default_rng(0))
    table["split"] = np.where(np.arange(ROWS) % 3 == 0, "test", "train")
    Model.fit(table, out=tmp_path / "run", target="answer", epochs=20, seed=0, settings=SETTINGS)
    entry = json.loads((tmp_path / "run" / "results-test.json").read_text(encoding="utf-8"))["columns"]["answer"]
    best = max(entry["alone"].values())
    assert best > 0.8, entry  # it has learned what there is to learn
    assert entry["accuracy"] >= best - 0.01, entry


class Fixed:
    """Losses of rows held out: ``gain[column]`` is lost where a column is seen, give or take ``spread``."""

    def __init__(self, gain: dict[str, float], spread: float = 1.0, rows: int = 100) -> None:
        rng = np.random.default_rng(0)
        noise = {c: spread * rng.standard_normal(rows) for c in gain}
        self.seen_columns, self.gain = list(gain), {c: value + noise[c] - noise[c].mean() for c, value in gain.items()}

    def losses(self, seen: list[str]) -> np.ndarray:
        return 10 + sum((self.gain[c] for c in seen), np.zeros(100))


def test_columns_that_mislead_are_left_out_the_worst_first() -> None:
    def found(**gain: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
        left = find_misleading(Fixed(gain))  # type: ignore[arg-type]
        return left.columns, left.needed

    assert found(good=-1.0, bad=0.4, worse=0.9) == (("worse", "bad"), ("good",))
    assert found(good=-1.0, better=-2.0) == ((), ())  # nothing is left out, so nothing is needed for it
    assert found(only=3.0) == found() == ((), ())
    assert found(**{f"c{i}": 3.0 for i in range(30)}) == ((), ())


def test_one_column_that_says_it_all_is_heeded_alone_where_others_are_no_surer() -> None:
    class Learned(Fixed):
        """``all`` says everything; each of the others, seen beside it, says it less surely, or says nothing more."""

        def losses(self, seen: list[str]) -> np.ndarray:
            if "all" not in seen:
                return np.full(100, 3.0) - 0.2 * len(seen) + (self.gain["a"] if seen == ["a"] else 0)
            return np.full(100, 0.1) + sum((self.gain[c] for c in seen if c != "all"), np.zeros(100))

    left = find_misleading(Learned({"all": 0.0, "a": 0.0, "b": 0.05, "c": -0.01}))  # type: ignore[arg-type]
    assert set(left.columns) == {"a", "b", "c"} and left.needed == ("all",)


def test_columns_that_tell_something_only_together_are_kept() -> None:
    class Parity(Fixed):
        """None of three columns says anything without both others."""

        def losses(self, seen: list[str]) -> np.ndarray:
            return (0.1 if {"a", "b", "c"} <= set(seen) else 2.0) + sum((self.gain[c] for c in seen), np.zeros(100))

    held = Parity({"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.9}, spread=0.1)
    assert len(forward_selection(held)[0]) == 1  # type: ignore[arg-type]
    left = find_misleading(held)  # type: ignore[arg-type]
    assert left.columns == ("d",) and set(left.needed) == {"a", "b", "c"}


def test_as_many_rows_judge_as_are_wanted() -> None:
    held = ValidationRows.__new__(ValidationRows)
    held.parts = [({}, torch.arange(n), torch.zeros(n)) for n in (3, 30, 0, 20, 64, 64)]
    for judges, parts in ((1, 4), (53, 4), (54, 5), (118, 6), (10**6, 6)):  # 40 rows at least
        held.judges = judges
        assert len(held.first()) == parts, judges
