"""Point sets: the cloud of a lidar, a radar or a depth camera, or any set of places with measurements.

A set has no order. Points are read in the order of a space-filling curve (Morton 1966), so that the same set is always
the same cell, and neighbours are near one another where a set is generated.
"""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.core.numerals import number_form
from sensorium.core.types import Claim, Profile, Tokens
from sensorium.modalities._capabilities import Generable

if TYPE_CHECKING:
    import torch

    from sensorium.nn.stem import Cells, Stem

GROUP = 8
"""Points of one generated token."""
MAX_NUMBERS = 1 << 24
"""Numbers in a cell, at most."""
BITS, REACH = 10, 4.0
"""Bits of each coordinate on the curve, and its range in deviations from the mean."""
CLOUD = re.compile(r"(?i)(^|[^a-z])(points?|point_?clouds?|clouds?|lidar|radar)($|[^a-z])")


_PAIR = re.compile(
    r"(?:POINT\s*Z?\s*)?[(\[]?\s*([+-]?\d+(?:\.\d+)?)\s*(?:[,;]\s*|\s+)([+-]?\d+(?:\.\d+)?)"
    r"(?:\s*(?:[,;]\s*|\s+)([+-]?\d+(?:\.\d+)?))?\s*[)\]]?",
    re.IGNORECASE,
)
"""Two or three numbers: ``-29.3,4.7``, ``(1.5, 2.5)``, ``POINT(4.7 -29.3)``."""


def coordinates(text: str) -> list[float] | None:
    """Numbers of one point in writing; None where a text holds none."""
    found = _PAIR.fullmatch(text.strip()) if len(text) <= 100 else None
    return None if found is None else [float(part) for part in found.groups() if part is not None]


class Points(Generable):
    """Set of points, each of the same few numbers: its place (up to three), then its measurements.

    Args:
        most: number of points read; of a larger set so many, evenly spread along the curve.
        tokens: number of tokens of the stem for a set.
        turn: largest rotation in training, in radians, about the third axis (in the plane for points of two numbers).
        zoom, move: largest change of scale and shift, as a share of the deviation. jitter: deviation of each number's
            noise.
        drop: share of points that training hides.
    """

    display_rank = 3
    matched = True
    generator = "flow"
    is_nested = True

    def __init__(
        self,
        *,
        most: int = 256,
        tokens: int = 8,
        turn: float = 0.1,
        zoom: float = 0.1,
        move: float = 0.1,
        jitter: float = 0.02,
        drop: float = 0.1,
    ) -> None:
        most, tokens = self.clamp("most", most, GROUP), self.clamp("tokens", tokens, 1)
        self.most, self.seen_as, self.turn, self.zoom, self.move, self.jitter, self.drop = (
            most,
            tokens,
            turn,
            zoom,
            move,
            jitter,
            drop,
        )
        self.size, self.span = 0, whole(most)
        self.mean = self.std = np.zeros(0, np.float32)

    @classmethod
    def claim(cls, profile: Profile) -> Claim | None:
        """Claim on lists of points.

        A series looks the same, so it is sure only where the column's name says so (points, cloud, lidar, radar).
        """
        texts = [cell for cell in profile.sample[:200] if isinstance(cell, str)]
        if texts:
            pairs = [pair for cell in texts if (pair := coordinates(cell)) is not None]
            fractions = sum(cell.count(".") >= 2 for cell in texts)
            if len(pairs) >= 0.98 * len(texts) and 2 * fractions > len(texts) and number_form(texts)[0] is None:
                return Claim(
                    sure=0.86, why=f"coordinates, such as '{texts[0][:30]}': each a point of {len(pairs[0])} numbers"
                )
            return None
        some = profile.sample[:200]
        sizes = [
            {len(point) for point in cell[:20]}
            for cell in some
            if isinstance(cell, (list, np.ndarray))
            and len(cell)
            and all(
                isinstance(point, (list, np.ndarray)) and not any(hasattr(part, "__len__") for part in point)
                for point in cell[:20]
            )
        ]
        if (
            not sizes
            or 2 * len(sizes) < len(some)
            or not all(len(each) == 1 and 2 <= min(each) <= 16 for each in sizes)
        ):
            return None
        if CLOUD.search(profile.name):
            return Claim(sure=0.95, why="cells are lists of points, and the column is called so")
        return Claim(sure=0.3, why="cells could be lists of points; say kind=points if they have no order")

    def read(self, cell: Any) -> np.ndarray:
        """Size of a point and the points, float32 [1 + points · size]; those with a gap in their place are left out.

        An empty set, or one of no point whose place is known, is missing, [0]. A text holds the coordinates of one
        point.

        Raises:
            BadCell: no list of points of one size, or more than 16,777,216 numbers.
        """
        if isinstance(cell, str):
            pair = coordinates(cell)
            if pair is None:
                raise BadCell(f"'{cell[:40]}' are no coordinates")
            cell = [pair]
        if (isinstance(cell, (list, tuple)) and not cell) or (isinstance(cell, np.ndarray) and not cell.size):
            return np.zeros(0, np.float32)
        try:
            cell = list(cell.values()) if isinstance(cell, dict) else cell
            cell = (
                [list(item.values()) if isinstance(item, dict) else item for item in cell]
                if isinstance(cell, list)
                else cell
            )
            points = np.asarray(cell, np.float64)
        except (ValueError, TypeError) as error:
            raise BadCell("expected a list of points of one size, each a list of numbers") from error
        if points.ndim != 2 or points.shape[1] < 2:
            raise BadCell(
                f"expected a list of points, each a list of at least two numbers; found the shape {points.shape}"
            )
        if points.size > MAX_NUMBERS:
            raise BadCell(f"the set has {points.size} numbers, more than {MAX_NUMBERS}")
        points = np.where(np.abs(points) < 1e30, points, np.nan)
        points = points[np.isfinite(points[:, :3]).all(1)]
        if not points.size:
            return np.zeros(0, np.float32)
        points = np.nan_to_num(points, nan=0.0).astype(np.float32)
        return np.concatenate([np.array([points.shape[1]], np.float32), points.ravel()])

    def learn(self, cells: Sequence[np.ndarray]) -> None:
        """Fit the size of a point, the largest set, the mean, and the deviation.

        The deviation is one for all three coordinates, and one for each other number.
        """
        sets = [points_of(cell) for cell in cells]
        if not sets:
            return
        self.size = Counter(points.shape[1] for points in sets).most_common(1)[0][0]
        sets = [points for points in sets if points.shape[1] == self.size]
        self.span = whole(min(self.most, max(map(len, sets))))
        pooled = np.concatenate([points[:: max(1, len(points) // 256)] for points in sets]).astype(np.float64)
        place = min(3, self.size)
        self.mean, self.std = pooled.mean(0).astype(np.float32), np.maximum(pooled.std(0), 1e-9).astype(np.float32)
        self.std[:place] = math.sqrt(
            np.square(self.std[:place].astype(np.float64)).mean()
        )  # else a turned set would be another one

    def prepare(self, read: np.ndarray) -> np.ndarray:
        """Normalised points float32 [points, size] of a read cell, in the order of the curve.

        Raises:
            BadCell: points of another size than the column's.
        """
        points = points_of(read)
        if points.shape[1] != self.size:
            raise BadCell(f"the points have {points.shape[1]} numbers where those of their column have {self.size}")
        points = ((points - self.mean) / self.std).clip(-100, 100)
        points = points[np.lexsort((*points.T[::-1], curve(points[:, :3])))]
        if len(points) > self.most:
            points = points[np.arange(self.most) * len(points) // self.most]
        return np.ascontiguousarray(points, np.float32)

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        """``points`` float32 [n, points, size], padded with zeros to a multiple of 8; ``length`` int64 [n]."""
        import torch

        lengths = [len(cell) for cell in cells]
        points = np.zeros((len(cells), whole(max(lengths)), cells[0].shape[1]), np.float32)
        for row, cell in zip(points, cells, strict=True):
            row[: len(cell)] = cell
        return {"points": torch.from_numpy(points), "length": torch.tensor(lengths)}

    def augment(self, cells: Cells, generator: torch.Generator) -> Cells:
        """Random rotation, scale, shift, noise and dropout of points for each set."""
        import torch

        from sensorium.nn.conv import present

        points, length = cells["points"], cells["length"]
        n, count, size = points.shape
        draw = (torch.rand(5, n, generator=generator) * 2 - 1).to(points.device)
        angle, zoom, place = draw[0] * self.turn, torch.exp2(draw[1] * math.log2(1 + self.zoom)), min(3, size)
        cos, sin = angle.cos().view(-1, 1), angle.sin().view(-1, 1)
        x, y, rest = points[..., 0], points[..., 1], points[..., 2:]
        turned = torch.cat([torch.stack([cos * x - sin * y, sin * x + cos * y], -1), rest], -1)
        turned = torch.cat(
            [
                turned[..., :place] * zoom.view(-1, 1, 1) + (draw[2 : 2 + place].T * self.move).unsqueeze(1),
                turned[..., place:],
            ],
            -1,
        )
        turned = turned + torch.randn(turned.shape, generator=generator).to(points.device) * self.jitter
        chance = torch.rand(n, count, generator=generator).to(points.device).masked_fill(~present(length, count), -1.0)
        keep = present(length, count) & ((chance >= self.drop) | (chance == chance.amax(1, keepdim=True)))
        order = keep.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        turned = (turned * keep.unsqueeze(-1)).gather(1, order.unsqueeze(-1).expand_as(turned))
        return {**cells, "points": turned, "length": keep.sum(1), "whole": points, "whole_length": length}

    def stem(self, width: int) -> Stem:
        """Stem with ``tokens`` tokens for a set, however many points it has."""
        from sensorium.modalities._stems.points import PointsStem

        if not self.size:
            raise UserError("A column of points has no size of a point yet: it has to learn from some cells first.")
        return PointsStem(width, self.size, self.seen_as)

    def tokens(self) -> Tokens:
        """Groups of eight points along the curve, up to the largest set: their numbers, and their presence in -1..1."""
        return Tokens(length=self.span // GROUP, width=GROUP * (max(self.size, 1) + 1))

    def target(self, cells: Cells) -> torch.Tensor:
        """Normalised points before augmentation, and their presence, [n, span / 8, 8 · (size + 1)]."""
        import torch
        from torch.nn import functional as F

        from sensorium.nn.conv import present

        points, length = cells.get("whole", cells["points"])[:, : self.span], cells.get("whole_length", cells["length"])
        points = F.pad(points, (0, 0, 0, self.span - points.shape[1]))
        there = present(length, self.span).unsqueeze(-1).to(points.dtype) * 2 - 1
        return torch.cat([points, there], -1).reshape(len(points), self.span // GROUP, -1)

    def decode(self, tokens: np.ndarray) -> list[list[float]]:
        """List of points of groups [span / 8, 8 · (size + 1)]; at least one."""
        points = np.asarray(tokens, np.float64).reshape(self.span, -1)
        points, there = points[:, :-1], points[:, -1] > min(0.0, points[:, -1].max() - 1e-9)
        return ((points * (self.std if self.size else 1) + (self.mean if self.size else 0))[there]).tolist()

    def score(self, truth: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """``chamfer``: Chamfer distance, the mean distance of a point to the nearest of the other set, in both
        directions, in deviations (arXiv 1612.00603, equation 1)."""
        gaps = []
        for pair in zip(truth, predicted, strict=True):
            a, b = (self.prepare(self.read(cell))[:, :3].astype(np.float64) for cell in pair)
            distances = np.sqrt(np.square(a[:, None] - b).sum(-1))
            gaps.append((distances.min(0).mean() + distances.min(1).mean()) / 2)
        return {"chamfer": float(np.mean(gaps))} if gaps else {}

    def show(self, cell: Any) -> str:
        """Scatter plot of the points from above; the third number sets the opacity."""
        if cell is None:
            return ""
        try:
            read = self.read(cell)
        except BadCell as error:
            return f"<em>{html.escape(str(error))}</em>"
        if not len(read):
            return "<em>empty</em>"
        points = points_of(read).astype(np.float64)
        points = points[:: max(1, len(points) // 200)]
        low, reach = points[:, :2].min(0), max(float(np.ptp(points[:, :2], axis=0).max()), 1e-30)
        depth = (
            (points[:, 2] - points[:, 2].min()) / max(float(np.ptp(points[:, 2])), 1e-30)
            if points.shape[1] > 2
            else np.zeros(len(points))
        )
        dots = "".join(
            f'<circle cx="{2 + 92 * (x - low[0]) / reach:.1f}" cy="{94 - 92 * (y - low[1]) / reach:.1f}" r="1.5" '
            f'opacity="{1 - 0.7 * d:.2f}"/>'
            for (x, y), d in zip(points[:, :2], depth, strict=True)
        )
        return f'<svg width="96" height="96" viewBox="0 0 96 96" fill="currentColor">{dots}</svg>'

    def features(self, read: np.ndarray | None) -> np.ndarray:
        """Number of points; mean, deviation and five quantiles of each number; the share of points on a 4 × 4 grid from
        above."""
        size = max(self.size, 1)
        points = None if read is None else points_of(read)
        if points is None or points.shape[1] != self.size:
            return np.full(1 + 7 * size + 16, np.nan, np.float32)
        flat = np.concatenate([points.mean(0), points.std(0), *np.quantile(points, (0, 0.25, 0.5, 0.75, 1), axis=0)])
        cells = (((points[:, :2] - self.mean[:2]) / self.std[:2] + 2).clip(0, 3.999)).astype(int)
        grid = np.bincount(cells[:, 0] * 4 + cells[:, 1], minlength=16) / len(points)
        return np.concatenate([[len(points)], flat, grid]).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """Size of a point, the largest set, means and deviations."""
        return {"size": self.size, "span": self.span, "mean": self.mean.tolist(), "std": self.std.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        self.size, self.span = int(state["size"]), int(state["span"])
        self.mean, self.std = (np.asarray(state[key], np.float32) for key in ("mean", "std"))


def whole(points: int) -> int:
    """``points`` rounded up to whole tokens."""
    return -(-max(points, 1) // GROUP) * GROUP


def points_of(read: np.ndarray) -> np.ndarray:
    """Points [points, size] of a read cell."""
    return read[1:].reshape(-1, int(read[0]))


def curve(place: np.ndarray) -> np.ndarray:
    """Position of each place [n, 1 to 3], in deviations, on a Z-order curve: the bits of its coordinates in turn
    (Morton 1966)."""
    steps = ((place / REACH + 1) / 2 * (1 << BITS)).clip(0, (1 << BITS) - 1).astype(np.int64)
    code = np.zeros(len(place), np.int64)
    for bit in range(BITS):
        for axis in range(place.shape[1]):
            code |= (steps[:, axis] >> bit & 1) << (bit * place.shape[1] + axis)
    return code
