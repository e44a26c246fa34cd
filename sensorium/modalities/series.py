"""Time series: many channels of numbers, of any length, with gaps; and a one-dimensional convolutional stem."""

from __future__ import annotations

import html
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.core.types import Claim, Profile, Ragged, Tokens
from sensorium.modalities._capabilities import Attributable, Continuable
from sensorium.modalities._series_cells import MAX_VALUES, STRIDE, from_text, nesting, numbers, statistics, whole

if TYPE_CHECKING:
    import torch

    from sensorium.nn.stem import Cells, Stem

REACH = 20.0
"""Values are clipped to so many deviations from their channel's median."""
ACROSS, LINE, MAX_LINES = 240, 12, 24
"""Smallest width of a picture of a series in pixels, height of each channel's line in it, and the largest number of
channels."""
LINES = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")


class Series(Continuable, Attributable):
    """Numbers over time: ``[time]``, ``[time][channel]`` or ``[channel][time]``, as lists or arrays.

    None, NaN and infinity are gaps, told apart from zeros by a second set of channels.

    Args:
        length: largest number of steps; a longer series is averaged down to so many.
        order: order of dimensions. "auto" takes the dimension that stays the same over the column for the channels, the
            smaller where both do.
        norm: the norm of the convolutions (``nn.conv``).
        jitter: deviation of the noise added in training, in deviations of the channel.
        scaling: largest change of a channel's size in training, as a share.
        warp: largest change of tempo in training, as a share.
        crop: largest share cut off in training, together from both ends.
        drop: probability in training that a channel is a gap altogether.
        rotate_triples: rotate channels 1–3, 4–6, … as vectors in space in training, by up to ``rotate`` radians.
        rotate: see there.
    """

    display_rank = 3
    matched = True
    generator = "flow"
    is_nested = True

    def __init__(
        self,
        *,
        length: int = 256,
        order: Literal["auto", "time_first", "channels_first"] = "auto",
        norm: Ragged = "layer",
        jitter: float = 0.05,
        scaling: float = 0.2,
        warp: float = 0.2,
        crop: float = 0.2,
        drop: float = 0.05,
        rotate_triples: bool = False,
        rotate: float = 0.4,
    ) -> None:
        length = self.clamp("length", length, STRIDE)
        self.length, self.order, self.norm, self.jitter, self.scaling = length, order, norm, jitter, scaling
        self.warp, self.crop, self.drop, self.rotate_triples, self.rotate = warp, crop, drop, rotate_triples, rotate
        self.channels, self.time_first, self.flat, self.span = 0, order != "channels_first", False, whole(length)
        self.longest = 0
        self.mean = self.std = np.zeros(0, np.float32)

    @classmethod
    def claim(cls, profile: Profile) -> Claim | None:
        """Claim on lists of numbers, flat or nested once."""
        seen = [shape for shape in map(nesting, map(from_text, profile.sample[:200])) if shape]
        if not seen or len(seen) < 0.5 * len(profile.sample[:200]):
            return None
        if max(seen) == 2:
            return Claim(sure=0.9, why="cells are lists of lists of numbers")
        return Claim(sure=0.7, why="cells are lists of numbers")

    def read(self, cell: Any) -> np.ndarray:
        """Both sizes of a cell, then its values row by row, float32 [2 + rows · columns], NaN for a gap.

        The order of its dimensions is known only once the whole column is, hence the sizes. A flat series has 0
        columns. Rows of unequal length are filled up with gaps. An empty list, or one of nothing but gaps, is missing,
        [0]. A text is read as JSON.

        Raises:
            BadCell: no numbers, deeper lists, or more than 16,777,216 values.
        """
        values = numbers(from_text(cell))
        if values.ndim not in (1, 2):
            raise BadCell(f"a series has one or two dimensions, this cell has {values.ndim}")
        if values.size > MAX_VALUES:
            raise BadCell(f"the series has {values.size} values, more than {MAX_VALUES}")
        with np.errstate(over="ignore", invalid="ignore"):
            flat = np.where(np.abs(values) < 1e30, values, np.nan).astype(np.float32).ravel()
        if not np.isfinite(flat).any():
            if np.isfinite(values).any():
                raise BadCell("the series is nothing but gaps and numbers beyond 1e30")
            return np.zeros(0, np.float32)
        sizes = (len(values), values.shape[1] if values.ndim == 2 else 0)
        return np.concatenate([np.asarray(sizes, np.float32), flat])

    def as_image(self, read: np.ndarray) -> np.ndarray | None:
        """Heat map, a line per channel, time to the right: its lowest value white, its highest dark, gaps orange."""
        values = self._oriented(read).T.astype(np.float64)
        if not values.size:
            return None
        with np.errstate(invalid="ignore"):
            low, high = (
                np.array([one(line[np.isfinite(line)], initial=start) for line in values])[:, None]
                for one, start in ((np.min, np.inf), (np.max, -np.inf))
            )
            tone = 255 * (1 - 0.85 * np.nan_to_num((values - low) / np.where(high > low, high - low, 1)))
        pixels = np.repeat(np.clip(tone, 0, 255).astype(np.uint8)[:, :, None], 3, 2)
        pixels[~np.isfinite(values)] = (250, 200, 150)
        pixels = pixels[:MAX_LINES, :: max(1, pixels.shape[1] // (2 * ACROSS))]
        return np.repeat(np.repeat(pixels, LINE, 0), max(1, ACROSS // pixels.shape[1]), 1)

    def parts(self, read: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Channels, each made a gap, and tenths of the time."""
        values, result = self._oriented(read), []
        edges = np.unique(np.linspace(0, len(values), 11).round().astype(int))
        cuts = [
            (f"channel {channel}", (slice(None), channel))
            for channel in range(values.shape[1] if values.shape[1] > 1 else 0)
        ]
        for name, cut in [
            *cuts,
            *((f"step {start}", (slice(start, end), slice(None))) for start, end in itertools.pairwise(edges.tolist())),
        ]:
            rest = values.copy()
            rest[cut] = np.nan
            back = rest if self.time_first or not int(read[1]) else rest.T
            result.append((name, np.concatenate([read[:2], back.ravel()])))
        return result

    def truncation_note(self) -> str:
        return (
            f"series of up to {self.longest:,} steps are averaged to {self.span} (column.NAME.length={self.longest} "
            "keeps them)"
            if self.longest > self.span
            else ""
        )

    def learn(self, cells: Sequence[np.ndarray]) -> None:
        """Fit the order of dimensions, the longest length and the number of channels.

        Each channel is normalised by its median and its deviation (IQR / 1.349).
        """
        shapes = [(int(cell[0]), int(cell[1])) for cell in cells]
        if not shapes:
            return
        nested = [shape for shape in shapes if shape[1]]
        if self.order == "auto" and nested:
            rows, columns = (Counter(sizes).most_common(1)[0] for sizes in zip(*nested, strict=True))
            self.time_first = columns[0] <= rows[0] if rows[1] == columns[1] else columns[1] > rows[1]
        counts = Counter(columns if self.time_first else rows for rows, columns in nested)
        counts[1] += len(shapes) - len(nested)
        self.channels = counts.most_common(1)[0][0]
        self.flat = 2 * len(nested) < len(shapes)
        oriented = [self._oriented(cell) for cell in cells]
        self.longest = max(map(len, oriented))
        self.span = whole(min(self.length, self.longest))
        oriented = [values[:: max(1, len(values) // 128)] for values in oriented if values.shape[1] == self.channels]
        pooled = np.concatenate(oriented).astype(np.float64)
        self.mean, self.std = np.zeros(self.channels, np.float32), np.ones(self.channels, np.float32)
        for channel, values in enumerate(pooled.T):
            values = values[np.isfinite(values)]
            if len(values):
                low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
                spread = (high - low) / 1.349 or values.std()
                self.mean[channel], self.std[channel] = middle, spread if spread > 1e-6 * abs(middle) else 1.0

    def prepare(self, read: np.ndarray) -> np.ndarray:
        """Deviations from the median (0 at gaps), then presence masks, of a read cell: float32 [steps, 2 · channels].

        Raises:
            BadCell: another number of channels than the column has.
        """
        values = self._oriented(read)
        if values.shape[1] != self.channels:
            raise BadCell(f"the series has {values.shape[1]} channels where its column has {self.channels}")
        present = np.isfinite(values)
        values = np.where(present, np.clip((values - self.mean) / self.std, -REACH, REACH), 0)
        both = np.concatenate([values, present], 1).astype(np.float32)
        if len(both) > self.length:
            edges = np.arange(self.length) * len(both) // self.length
            both = np.add.reduceat(both, edges, 0) / np.diff(edges, append=len(both))[:, None]
            # The mean is that of what is present.
            both[:, : self.channels] /= np.maximum(both[:, self.channels :], 1e-6)
            both = both.astype(np.float32)
        return both

    def _oriented(self, read: np.ndarray) -> np.ndarray:
        """Read cell as [time, channels]."""
        rows, columns = int(read[0]), int(read[1])
        values = read[2:].reshape(rows, columns or 1)
        return values if self.time_first or not columns else values.T

    def interpolate_parts(self, cell: np.ndarray, rest: Sequence[np.ndarray | None], keep: torch.Tensor) -> Cells:
        """As the default, but values fade to the channel's median, not to gaps: a series can't have half a gap."""
        import torch

        cells = super().interpolate_parts(cell, rest, keep)
        there = self.collate([cell])["series"].to(keep.device).chunk(2, -1)[1]
        values = cells["series"].chunk(2, -1)[0]
        return {**cells, "series": torch.cat([values, there.expand_as(values)], -1)}

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        """``series`` float32 [n, steps, 2 · channels], padded with gaps to a multiple of 16; ``length`` int64 [n]."""
        import torch

        lengths = [len(cell) for cell in cells]
        series = np.zeros((len(cells), whole(max(lengths)), cells[0].shape[1]), np.float32)
        for row, cell in zip(series, cells, strict=True):
            row[: len(cell)] = cell
        return {"series": torch.from_numpy(series), "length": torch.tensor(lengths)}

    def augment(self, cells: Cells, generator: torch.Generator) -> Cells:
        """Random tempo, window of time, channel sizes, noise and dropout of channels."""
        import torch

        from sensorium.modalities._stems.series import rotated

        series, length = cells["series"], cells["length"]
        n, steps, _ = series.shape
        c, device = self.channels, series.device
        draw = torch.rand(3, n, generator=generator).to(device)
        tempo = torch.exp2((draw[0] * 2 - 1) * math.log2(1 + self.warp))
        cut = draw[1] * self.crop * length
        wanted = ((length - cut) / tempo).round().long().clamp(1, max(self.length, steps))
        wanted = torch.maximum(wanted, length.clamp(max=4))
        out = whole(int(wanted.max()))
        at = (cut * draw[2])[:, None] + torch.arange(out, device=device) * tempo[:, None]
        at = torch.minimum(at, (length - 1)[:, None].to(at.dtype))
        before = at.floor().long()
        after = torch.minimum(before + 1, (length - 1)[:, None])
        rows = torch.arange(n, device=device)[:, None]
        series = torch.lerp(series[rows, before], series[rows, after], (at - before)[:, :, None])
        values, present = series[..., :c], series[..., c:]
        if self.rotate_triples and c >= 3:
            values = rotated(values, generator, self.mean, self.std, self.rotate)
        size = (1 + self.scaling * (torch.rand(n, 1, c, generator=generator) * 2 - 1)).to(device)
        values = values * size + torch.randn(values.shape, generator=generator).to(device) * self.jitter
        keep = torch.rand(n, 1, c, generator=generator) >= self.drop
        keep |= ~keep.any(2, keepdim=True)
        keep = keep.to(device) & (torch.arange(out, device=device) < wanted[:, None])[:, :, None]
        present = present * keep
        series = torch.cat([values * (present > 0), present], 2)
        return {**cells, "series": series, "length": wanted, "whole": cells["series"]}

    def stem(self, width: int) -> Stem:
        """Stem with one token for every 16 steps."""
        from sensorium.modalities._stems.series import SeriesStem

        if not self.channels:
            raise UserError("A series column has no channels yet: it has to learn from some cells first.")
        return SeriesStem(width, self.channels, self.norm)

    def tokens(self) -> Tokens:
        """Segments of 16 steps, up to the longest series: each step's values and, in -1..1, their presence."""
        return Tokens(
            length=self.span // STRIDE,
            width=STRIDE * 2 * max(self.channels, 1),
            timed=True,
            grid=(self.span // STRIDE,),
            patch=(STRIDE,),
        )

    def target(self, cells: Cells) -> torch.Tensor:
        """Normalised values before augmentation, [n, span / 16, 16 · 2 · channels]."""
        import torch
        from torch.nn import functional as F

        series = cells.get("whole", cells["series"])[:, : self.span]
        series = F.pad(series, (0, 0, 0, self.span - series.shape[1]))
        values, there = series.chunk(2, -1)
        return torch.cat([values, 2 * there - 1], -1).reshape(len(series), self.span // STRIDE, -1)

    def decode(self, tokens: np.ndarray) -> list[Any]:
        """Series of segments [span / 16, 16 · 2 · channels] as the column has them, None at gaps.

        It ends after the last step that is present.
        """
        values, there = np.split(np.asarray(tokens, np.float64).reshape(self.span, -1), 2, -1)
        there = there > min(0.0, there.max() - 1e-9)
        return self._written(values, there, 0, int(np.flatnonzero(there.any(1)).max(initial=0)) + 1)

    def steps(self, read: np.ndarray) -> int:
        """Number of steps of a read cell."""
        return len(self._oriented(read))

    def prefix_tokens(self, cells: Sequence[np.ndarray], horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Prefixes, of which the last steps count, and the ``horizon`` steps to come.

        It is known that these are present, and that nothing is after them. Steps are as they were read: nothing is
        averaged.
        """
        import torch

        known = np.zeros((len(cells), self.span, 2, max(self.channels, 1)), bool)
        values = np.zeros(known.shape, np.float32)
        for row, have, cell in zip(values, known, cells, strict=True):
            prefix = self._oriented(cell)[-(self.span - horizon) :]
            here, count = np.isfinite(prefix), len(prefix)
            row[:count, 0] = np.where(here, np.clip((prefix - self.mean) / self.std, -REACH, REACH), 0)
            row[:, 1], row[:count, 1], row[count : count + horizon, 1] = -1, 2 * here - 1, 1
            have[:count, 0], have[:, 1] = True, True
        shape = (len(cells), self.span // STRIDE, -1)
        return torch.from_numpy(values).reshape(shape), torch.from_numpy(known).reshape(shape)

    def continuation(self, tokens: np.ndarray, cell: np.ndarray, horizon: int) -> list[Any]:
        """The ``horizon`` steps of a generated segment that follow on the read ``cell``, as the column has them."""
        values = np.split(np.asarray(tokens, np.float64).reshape(self.span, -1), 2, -1)[0]
        start = min(self.steps(cell), self.span - horizon)
        return self._written(values, np.ones(values.shape, bool), start, start + horizon)

    def _written(self, values: np.ndarray, there: np.ndarray, start: int, end: int) -> list[Any]:
        """Some steps of normalised values as the column has them, None at gaps."""
        values = values * (self.std if self.channels else 1) + (self.mean if self.channels else 0)
        cells = np.where(there, values.astype(object), np.array(None))[start:end]
        cells = cells[:, 0] if self.flat else cells if self.time_first else cells.T
        return cells.tolist()

    def score(self, truth: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """``r2``: explained share of the values' variance, over all steps that both series have."""
        both = []
        for pair in zip(truth, predicted, strict=True):
            a, b = (self._oriented(self.read(cell)) for cell in pair)
            steps = min(len(a), len(b))
            a, b = ((x[:steps] - self.mean) / self.std for x in (a, b))
            known = np.isfinite(a) & np.isfinite(b)
            both.append(np.stack([a[known], b[known]]))
        values = np.concatenate(both, 1) if both else np.zeros((2, 0))
        if not values.shape[1]:
            return {}
        return {"r2": float(1 - np.square(values[0] - values[1]).mean() / max(values[0].var(), 1e-12))}

    def show(self, cell: Any) -> str:
        """Line chart of the channels."""
        if cell is None:
            return ""
        try:
            read = self.read(cell)
        except BadCell as error:
            return f"<em>{html.escape(str(error))}</em>"
        if not len(read):
            return "<em>empty</em>"
        values = self._oriented(read)
        values = values[:: max(1, len(values) // 128), : len(LINES)]
        low, high = np.nanmin(values), np.nanmax(values)
        y = 46 - 44 * (values - low) / max(high - low, 1e-30)
        x = np.linspace(1, 159, len(values))
        lines = []
        for channel, colour in zip(y.T, LINES, strict=False):
            points = " ".join(f"{a:.0f},{b:.1f}" for a, b in zip(x, channel, strict=True) if np.isfinite(b))
            lines.append(f'<polyline fill="none" stroke="{colour}" points="{points}"/>')
        return f'<svg width="160" height="48" viewBox="0 0 160 48">{"".join(lines)}</svg>'

    def features(self, read: np.ndarray | None) -> np.ndarray:
        """14 statistics of each channel, and the length: float32 [14 · channels + 1], NaN where nothing is known.

        Mean, deviation, least, quartiles, most, slope, crossings of the mean, mean change, and the spectrum's power in
        four bands (log) and its strongest frequency.
        """
        result = np.full((self.channels, 14), np.nan, np.float32)
        if read is None or (values := self._oriented(read)).shape[1] != self.channels:
            return np.append(result.ravel(), np.float32(np.nan))
        for channel, y in enumerate(values.T.astype(np.float64)):
            if np.isfinite(y).any():
                result[channel] = statistics(y)
        return np.append(result.ravel(), np.float32(len(values)))

    def state(self) -> dict[str, Any]:
        """Channels, order and number of dimensions, the longest length, medians and deviations."""
        spread = {"mean": self.mean.tolist(), "std": self.std.tolist()}
        return {
            "channels": self.channels,
            "time_first": self.time_first,
            "flat": self.flat,
            "span": self.span,
            "longest": self.longest,
            **spread,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        self.channels, self.span, self.longest = int(state["channels"]), int(state["span"]), int(state["longest"])
        self.time_first, self.flat = bool(state["time_first"]), bool(state["flat"])
        self.mean, self.std = (np.asarray(state[key], np.float32) for key in ("mean", "std"))
