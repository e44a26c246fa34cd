"""Pictures that lie on others are moved as these are: masks stay on what they mask."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from sensorium.core.errors import UserError
from sensorium.model import Model
from sensorium.nn.geometry import Geometry
from sensorium.training.table_trainer import TableTrainer

SETTINGS = [
    "train.batch=16", "network.width=16", "network.gist=16", "trunk.depth=1", "trunk.heads=2", "trackers=none",
    "baselines.share=0",
    "column.photo.size=32", "column.mask.size=32", "column.mask.kind=image", "column.mask.of=photo",
    "column.photo.colour=0", "column.mask.colour=0", "column.photo.bend=0.1", "memory.rows=0",
]  # fmt: skip


def png(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(array).save(out, "PNG")
    return out.getvalue()


def rows(count: int = 48) -> list[dict[str, object]]:
    """Photos of a black square somewhere, and the square's mask; some rows lack one of the two."""
    rng, result = np.random.default_rng(0), []
    for i in range(count):
        square = np.full((32, 32, 3), 255, np.uint8)
        x, y = rng.integers(6, 18, 2)
        square[y : y + 8, x : x + 8] = 0
        photo, mask = png(square), png(square)
        result.append({"photo": photo if i % 7 else None, "mask": mask if i % 5 else None, "name": f"thing {i % 3}"})
    return result


def test_masks_follow_their_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_report: None) -> None:
    seen = []
    whole = TableTrainer.augment

    def watched(self, step, batch):
        whole(self, step, batch)
        photo, mask = batch.index["photo"].tolist(), batch.index["mask"].tolist()
        both = [(photo.index(row), mask.index(row)) for row in photo if row in mask]
        only = [number for number, row in enumerate(mask) if row not in photo]
        seen.append((batch.cells["photo"]["pixels"], batch.cells["mask"]["pixels"], both, only, batch.cells["mask"]))

    monkeypatch.setattr(TableTrainer, "augment", watched)
    Model.fit(rows(), out=tmp_path / "run", epochs=2, settings=SETTINGS, seed=0)
    assert len(seen) >= 4 and any(only for *_, only, _ in seen)
    for photos, masks, both, only, cells in seen:
        for of_photo, of_mask in both:
            assert (photos[of_photo].int() - masks[of_mask].int()).abs().max() <= 1
        moved = [not torch.equal(masks[number], cells["whole"][number]) for number in only]
        assert all(moved), "a mask without its photo moves by itself"


@pytest.mark.parametrize("of", ["name", "mask", "nothing"])
def test_what_a_column_can_not_lie_on_is_refused(of: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"column of pictures in column\.mask\.of"):
        Model.fit(rows(), out=tmp_path / "run", epochs=1, settings=[*SETTINGS, f"column.mask.of={of}"])


def test_a_geometry_is_replaced_for_some_images() -> None:
    def made(value: float, n: int, bent: bool) -> Geometry:
        return Geometry(
            *(torch.full((n, 2), value) for _ in range(3)), torch.full((n, 2, 4, 4), value) if bent else None
        )

    result = made(1.0, 3, False).replaced(made(2.0, 2, True), torch.tensor([0, 2]), torch.tensor([1, 0]))
    assert result.across[:, 0].tolist() == [2.0, 1.0, 2.0] and result.field[:, 0, 0, 0].tolist() == [2.0, 0.0, 2.0]
