"""Sets of points: no order, any number, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from sensorium.core.errors import BadCell
from sensorium.data.schema import infer
from sensorium.data.table import Table
from sensorium.modalities.points import Points, curve


def learned(cells: list[Any], **settings: Any) -> Points:
    points = Points(**settings)
    points.learn([points.read(cell) for cell in cells])
    return points


def test_the_order_of_points_says_nothing() -> None:
    rng = np.random.default_rng(0)
    cells = [rng.normal(size=(n, 3)) for n in (5, 40, 17)]
    points = learned(cells)
    for cell in cells:
        assert np.array_equal(points.prepare(points.read(cell)), points.prepare(points.read(rng.permutation(cell))))


def test_neighbours_in_space_are_neighbours_along_the_curve() -> None:
    rng = np.random.default_rng(0)
    place = rng.normal(size=(4000, 3))
    steps = np.linalg.norm(np.diff(place[np.argsort(curve(place))], axis=0), axis=1)
    assert np.median(steps) < 0.25 * np.median(np.linalg.norm(np.diff(place, axis=0), axis=1))


def test_a_large_set_is_thinned_evenly_and_gaps_are_left_out() -> None:
    rng = np.random.default_rng(0)
    cell = rng.uniform(-1, 1, (5000, 2))
    points = learned([cell], most=64)
    kept = points.prepare(points.read(cell))
    assert kept.shape == (64, 2) and np.bincount((kept[:, 0] > 0) * 2 + (kept[:, 1] > 0), minlength=4).min() > 10
    assert len(points.read([[1.0, 2.0], [None, 3.0], [float("inf"), 1.0]])) == 1 + 2
    assert points.read([[1, 2, 3, None]]).tolist() == [4, 1, 2, 3, 0], "what was measured may be unknown, the place not"


@pytest.mark.parametrize("cell", [[1.0, 2.0], "points", b"x", 7, [[1, 2], [1, 2, 3]], [["a", "b"]], None])
def test_what_is_no_set_of_points_is_a_bad_cell(cell: Any) -> None:
    with pytest.raises(BadCell):
        Points().read(cell)
    assert Points().read([]).shape == Points().read([[None, 1.0]]).shape == (0,), "missing"
    with pytest.raises(BadCell, match="3 numbers where"):
        points = learned([[[1.0, 2.0], [3.0, 4.0]]])
        points.prepare(points.read([[1.0, 2.0, 3.0]]))


def test_settings_that_can_not_be_are_clamped_and_it_is_said() -> None:
    points = Points(most=3, tokens=0)
    assert (points.most, points.seen_as) == (8, 1) and [words.split(": ")[1] for words in points.clamped] == [
        "most=8 is used",
        "tokens=1 is used",
    ]


def test_only_a_name_tells_points_from_a_series() -> None:
    cells = [[[float(i), float(j), 1.0] for j in range(4 + i % 5)] for i in range(20)]
    table = Table.open(pa.table({"front lidar": cells, "beats": cells, "n": list(range(20))}))
    kinds = {c.name: c.kind for c in infer(table).columns.values()}
    assert kinds["front lidar"] == "points" and kinds["beats"] == "series"
    kinds = {c.name: c.kind for c in infer(table, overrides={"beats": {"kind": "points"}}).columns.values()}
    assert kinds["beats"] == "points"


def test_a_turned_set_keeps_its_shape() -> None:
    rng = np.random.default_rng(0)
    points = learned([rng.normal(size=(30, 3)) * [5, 1, 2]], turn=3.0, zoom=0.0, move=0.0, jitter=0.0, drop=0.0)
    cells = points.collate([points.prepare(points.read(rng.normal(size=(30, 3)) * [5, 1, 2]))])
    before, after = (x["points"][0, :30] for x in (cells, points.augment(cells, torch.Generator().manual_seed(0))))
    assert not torch.allclose(before, after, atol=0.01) and torch.allclose(
        *(torch.cdist(x.double(), x.double()) for x in (before, after)), atol=1e-3
    )


def shape(kind: str, rng: np.random.Generator) -> list[list[float]]:
    """A noisy ring, a bar or a cross."""
    t = rng.uniform(-1, 1, int(rng.integers(30, 60)))
    x, y = {
        "ring": (np.cos(np.pi * t), np.sin(np.pi * t)),
        "bar": (t, 0 * t),
        "cross": (np.where(t > 0, 2 * t - 1, 0), np.where(t > 0, 0, 2 * t + 1)),
    }[kind]
    return (np.stack([x, y], 1) + rng.normal(size=(len(t), 2)) * 0.05).tolist()


def test_a_model_tells_sets_apart_and_draws_them(quick_fit: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    kinds = [["ring", "bar", "cross"][i % 3] for i in range(96)]
    table = pa.table({"points": [shape(kind, rng) for kind in kinds], "kind": kinds})
    model = quick_fit(
        table,
        "questions.generate=points",
        "generator.flow.depth=1",
        "column.points.most=64",
        "train.lr=0.01",
        target=["kind"],
        epochs=15,
    )
    new = [shape(kind, rng) for kind in ("ring", "bar", "cross") * 10]
    said = model.predict([{"points": cell} for cell in new], "kind").column("value").to_pylist()
    assert np.mean([a == b for a, b in zip(said, ("ring", "bar", "cross") * 10, strict=True)]) > 0.8
    drawn = model.generate([{"kind": "bar"}], "points", steps=3)[0]
    assert drawn and all(len(point) == 2 and np.isfinite(point).all() for point in drawn)
