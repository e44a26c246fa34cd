"""Numbers in units of any size, with tails of any weight: a quantile transform maps each to a normal score and back."""

from __future__ import annotations

import dataclasses
import decimal as decimals_
import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium.core.errors import BadCell
from sensorium.core.numerals import MAX_LENGTH, MISSING_WORDS, PLAIN_NUMBER, NumberForm, lossy_example, number_form
from sensorium.core.quantiles import Quantiles
from sensorium.core.types import Claim, Profile, Tokens
from sensorium.modalities._capabilities import Scalar

if TYPE_CHECKING:
    import torch

    from sensorium.nn.stem import Cells, Stem

EMPTY = np.zeros(0, np.float64)
MIN_SHARE = 0.98
"""Share of a column's texts that must be numbers."""
MAX_DECIMALS = 6
"""Decimals of a written answer where the column's numbers have more."""


class Number(Scalar):
    """Finite number. What is learned and predicted is its normal score.

    Args:
        decimal: the decimal sign in cells that are text.
        thousands: the sign between groups of three digits in cells that are text; empty: there is none.
        prefix, suffix: what stands before and behind the number in cells that are text, as € and %; answers have it
            too.
        places: digits behind the decimal sign in such answers; -1: as many as the column's numbers need. parentheses:
            minus is written as accountants do, (5.25).
        noise: standard deviation of the noise that training adds to a score that is seen.
        waves: frequencies of the sines and cosines of the score in the stem's input. bins: equal shares of the values,
            each of which the stem sees filled from 0 to 1 (both Gorishniy et al. 2022, arXiv 2203.05556).
    """

    generator = "quantile"
    is_scalar = True
    metric = "r2"

    def __init__(
        self, *, decimal: str = ".", thousands: str = "", prefix: str = "", suffix: str = "", places: int = -1,
        parentheses: bool = False,
        noise: float = 0.02, waves: int = 6, bins: int = 32,
    ) -> None:  # fmt: skip
        self.form = NumberForm(decimal, thousands, prefix, suffix, places, parentheses)
        self.noise, self.waves, self.bins = noise, waves, bins
        self.quantiles, self.decimals = Quantiles(), -1

    @classmethod
    def reads_as_written(cls, settings: Mapping[str, Any]) -> bool:
        return bool({"decimal", "thousands", "prefix", "suffix"} & set(settings))

    @property
    def as_written(self) -> bool:
        """True where numbers are in a form of their own: ``1.234`` may be a thousand and more."""
        return not self.form.plain

    @classmethod
    def claim(cls, profile: Profile) -> Claim | None:
        cells = [cell for cell in profile.sample if cell is not None]
        if profile.type.startswith(("int", "uint", "float", "double", "half", "decimal")):
            return Claim(sure=0.8, why=f"numbers, {profile.distinct} distinct")
        if not cells or not all(isinstance(cell, str) for cell in cells):
            numbers = [cell for cell in cells if isinstance(cell, (int, float)) and not isinstance(cell, bool)]
            return Claim(sure=0.8, why="numbers") if cells and len(numbers) == len(cells) else None
        texts = [text for cell in cells if (text := cell.strip()).lower() not in MISSING_WORDS]
        if not texts:
            return None
        plain = [text for text in texts if len(text) <= MAX_LENGTH and PLAIN_NUMBER.fullmatch(text)]
        if len(plain) >= MIN_SHARE * len(texts):
            if lossy_example(plain):  # codes: 049.96, 10E4
                return None
            return Claim(sure=0.8, why=f"texts that are numbers, {profile.distinct} distinct")
        form, written = number_form(texts)
        if form is None:
            return None
        settings = {
            key: value for key, value in dataclasses.asdict(form).items() if value != getattr(NumberForm(), key)
        }
        signs = [f"'{sign}' between thousands" for sign in [form.thousands] if sign]
        signs += [f"decimal '{form.decimal}'"] if form.decimal != "." else []
        signs += [f"with '{sign.strip()}'" for sign in (form.prefix, form.suffix) if sign.strip()]
        why = (
            f"numbers written as '{written[:24]}'{', ' if signs else ''}{', '.join(signs)}; {profile.distinct} distinct"
        )
        return Claim(sure=0.85, why=why, form=settings)

    def read(self, cell: Any) -> np.ndarray:
        """Number (or its text) as float64 [1]; NaN, infinity, an empty text and "n/a" are missing, float64 [0].

        Raises:
            BadCell: no number.
        """
        if cell is None:
            return EMPTY
        if isinstance(cell, (bytes, bytearray)):
            cell = bytes(cell[: MAX_LENGTH + 1]).decode("utf-8", "replace")
        if isinstance(cell, str):
            cell = self._parse(cell)
        elif isinstance(cell, np.generic):
            cell = cell.item()
        if not isinstance(cell, (bool, int, float, decimals_.Decimal)):
            raise BadCell(f"{type(cell).__name__} is no number")
        try:
            value = float(cell)
        except (OverflowError, ValueError) as error:
            raise BadCell("number beyond the range of floats") from error
        return np.array([value]) if math.isfinite(value) else EMPTY

    def _parse(self, text: str) -> float:
        text = text.strip() if len(text) <= MAX_LENGTH else text
        if text.lower() in MISSING_WORDS:
            return math.nan
        plain = self.form.parse(text) if len(text) <= MAX_LENGTH else None
        if plain is None and text.lstrip("+-").lower() in ("inf", "infinity"):
            return math.inf
        if plain is None:
            raise BadCell(f"'{text[:40]}' is no number")
        if math.isinf(value := float(plain)):
            raise BadCell("number beyond the range of floats")
        return value

    def learn(self, cells: Sequence[np.ndarray]) -> None:
        values = np.concatenate([EMPTY, *cells])
        self.quantiles, self.decimals = Quantiles.fit(values), decimals(values)

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        import torch

        values = np.concatenate([EMPTY, *cells])[:, None]
        score, raw = self.quantiles.encode(values), self.quantiles.robust_scale(values)
        return {"score": torch.from_numpy(score).float(), "raw": torch.from_numpy(raw).float()}

    def augment(self, cells: Cells, generator: torch.Generator) -> Cells:
        import torch

        if not self.noise:
            return cells
        score = cells["score"]
        noise = torch.randn(score.shape, generator=generator).to(score.device) * self.noise
        return {**cells, "score": score + noise, "raw": cells["raw"] + noise, "whole": score}

    def stem(self, width: int) -> Stem:
        from sensorium.modalities._stems.number import NumberStem

        return NumberStem(width, self.waves, self.bins)

    def tokens(self) -> Tokens:
        return Tokens(length=1, width=1)

    def target(self, cells: Cells) -> torch.Tensor:
        return cells.get("whole", cells["score"]).unsqueeze(-1)

    def decode(self, tokens: np.ndarray) -> int | float | str:
        """Number of a normal score, or its text where the column writes its numbers with signs or a unit."""
        value = float(self.quantiles.decode(np.asarray(tokens, np.float64).reshape(-1)[:1])[0])
        if not self.form.plain:
            return self.form.write(value, self.decimals if self.decimals >= 0 else MAX_DECIMALS)
        if self.decimals == 0:
            return round(value)
        return round(value, self.decimals) if self.decimals > 0 else float(f"{value:.7g}")

    def show(self, cell: Any) -> str:
        return html.escape(str(cell)[:40])

    def features(self, read: np.ndarray | None) -> np.ndarray:
        return np.full(1, np.nan) if read is None or not len(read) else read.astype(np.float64)

    def score(self, truth: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """``r2`` (1 − squared error / variance of the truth), ``mae`` and ``median_error`` in the column's units."""
        pairs = [(self.read(t), self.read(s)) for t, s in zip(truth, predicted, strict=True)]
        both = np.array([(t[0], s[0]) for t, s in pairs if len(t) and len(s)]).reshape(-1, 2)
        return errors(both[:, 0], both[:, 1])

    def state(self) -> dict[str, Any]:
        return {"quantiles": self.quantiles.state(), "decimals": self.decimals}

    def load_state(self, state: dict[str, Any]) -> None:
        self.quantiles, self.decimals = Quantiles.from_state(state["quantiles"]), int(state["decimals"])


def decimals(values: np.ndarray) -> int:
    """Digits after the point that all values need: 0 for whole numbers, -1 if more than six."""
    if not len(values) or np.abs(values).max() > 2.0**53:
        return -1
    for digits in range(7):
        scaled = values * 10.0**digits
        if np.all(np.abs(scaled - np.round(scaled)) <= 1e-15 * np.abs(scaled)):  # 1.1 · 10 isn't 11 to the last bit
            return digits
    return -1


def errors(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """``r2``, ``mae`` and ``median_error`` of float64 [n] against [n]; r2 is 0 where the truth is constant."""
    if not len(truth):
        return {}
    unit = max(float(np.abs(truth).max()), float(np.abs(predicted).max())) or 1.0
    truth, predicted = truth / unit, predicted / unit  # squares of large numbers overflow
    off, variance = np.abs(truth - predicted), float(((truth - truth.mean()) ** 2).sum())
    r2 = 1 - float((off**2).sum()) / variance if variance else 0.0
    return {"r2": r2, "mae": float(off.mean()) * unit, "median_error": float(np.median(off)) * unit}
