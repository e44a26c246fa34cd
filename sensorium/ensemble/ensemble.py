"""Ensemble of one column: the network's answers from different columns, and plain models', combined by weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.ensemble.bag import Bag
from sensorium.ensemble.features import FeatureRows
from sensorium.ensemble.question import AskedRows, short_generator
from sensorium.ensemble.weights import WeightBank, conformal_quantile
from sensorium.generators import GeneratorOutput
from sensorium.generators.categorical import PERCENTS
from sensorium.modalities import Modality
from sensorium.modalities._capabilities import Scalar

MIN_MISSING = 0.02
"""A plain model of rows as they are answers a row without a column if so many training rows lacked it."""


@dataclasses.dataclass(frozen=True)
class View:
    """A member that is the network, from some of the columns.

    Attributes:
        columns: those; None: all. ignoring: without those that mislead (``Calibration.ignored``).
        mean: of a value the mean of its distribution, not the median.
    """

    columns: tuple[str, ...] | None = None
    ignoring: bool = False
    mean: bool = False

    @property
    def name(self) -> str:
        """Name for people."""
        what = "network" if self.columns is None else f"network from {', '.join(self.columns)}"
        return what + (", mean" if self.mean else "") + (" without what misleads" if self.ignoring else "")


class Ensemble:
    """Ensemble of a column's answers.

    Attributes:
        views: members that are the network; the first sees everything. models: the others.
        columns: the columns that a row may show, in the order of the bank. widths: of their features.
        missing: share of training rows that lack each.
        prior: class frequencies, a member of its own, empty for a value. mean, std: of a value's training rows.
        bank: validation rows by which weights are chosen. full_margin: calibration of answers from all columns.
        plain_bank: rows by which weights of the members that aren't the network are chosen: validation rows and, where
            these are few, training rows with out-of-fold answers; empty in older models.
        margins: calibration of answers from others, as it was needed.
    """

    def __init__(
        self,
        views: Sequence[View],
        models: Sequence[Bag],
        columns: Sequence[str],
        widths: Mapping[str, int],
        missing: Mapping[str, float],
        prior: np.ndarray,
        mean: float,
        std: float,
    ) -> None:
        self.views, self.models, self.columns = list(views), list(models), list(columns)
        self.widths, self.missing, self.prior, self.mean, self.std = dict(widths), dict(missing), prior, mean, std
        self.bank = WeightBank(np.zeros((0, len(self.columns))), np.zeros((0, len(self.names))))
        self.plain_bank = WeightBank(np.zeros((0, len(self.columns))), np.zeros((0, self.plain)))
        self.full_margin = torch.zeros(0)
        self.margins: dict[bytes, Tensor] = {}

    @property
    def classes(self) -> int:
        """Number of classes; 0 for a value."""
        return len(self.prior)

    @property
    def plain(self) -> int:
        """Number of members that aren't the network."""
        return len(self.models) + bool(self.classes)

    @property
    def names(self) -> list[str]:
        """Names of the members, in the bank's order."""
        models = [f"{m.name} on {describe(m.columns, self.columns)}" for m in self.models]
        return [view.name for view in self.views] + models + ["class frequencies"] * bool(self.classes)

    # --- answers ------------------------------------------------------------------------------------------------------

    def member_answers(
        self, question: AskedRows, wanted: Sequence[bool] | None = None, fold: int | None = None
    ) -> np.ndarray:
        """Answers of the members: probabilities [members, n, classes] or standardised values [members, n, 1], NaN where
        one has none.

        Args:
            wanted: which members are asked; the others' are NaN. fold: of the rows, where members that learned from
                them are not to answer.
        """
        answers = np.full((len(self.names), len(question.rows), self.classes or 1), np.nan)
        for number, view in enumerate(self.views):
            if wanted is None or wanted[number] or not number:
                answers[number] = self.network_answer(question, view)
        asked = [wanted is None or wanted[number] for number in range(len(self.names))]
        models = [model for number, model in enumerate(self.models, len(self.views)) if asked[number]]
        needed = {c: self.widths[c] for model in models for c in model.columns}
        self.ask_models(question.feature_rows(needed), answers, asked, fold)
        return answers

    def ask_models(self, rows: FeatureRows, answers: np.ndarray, asked: Sequence[bool], fold: int | None) -> None:
        """Fill in the answers of members that aren't the network [members, n, outputs]; see ``member_answers``."""
        for number, model in enumerate(self.models, len(self.views)):
            if asked[number]:
                able = self.can_answer(rows, model)
                if able.any():
                    found = model.predict(rows.columns(model.columns).rows(able), fold)
                    answers[number, able] = found.reshape(-1, answers.shape[2])
        if self.classes:
            answers[-1] = self.prior

    def network_answer(self, question: AskedRows, view: View) -> np.ndarray:
        """Answers of the network from a view [n, outputs], NaN where a row shows nothing of it."""
        distribution, margin = question.by_network(view.columns, view.ignoring)
        if self.classes:
            found = (distribution[:, 0] / margin[0]).softmax(-1).double().cpu().numpy()
        else:
            levels = self.values(question.modality, distribution[:, 0].double().cpu().numpy())
            found = levels.mean(1, keepdims=True) if view.mean else levels[:, levels.shape[1] // 2][:, None]
        if view.columns is not None:
            visible = np.logical_or.reduce([question.shows(c) for c in view.columns])
            found = np.where(visible[:, None], found, np.nan)
        return found

    def can_answer(self, rows: FeatureRows, model: Bag) -> np.ndarray:
        """Rows for which a plain model has an answer, bool [n]."""
        visible = {c: rows.shows(c) for c in model.columns}
        if not model.whole:
            return np.logical_or.reduce(list(visible.values()))
        usual = [visible[c] for c in model.needed if self.missing[c] < MIN_MISSING]
        return np.logical_and.reduce([np.ones(len(rows), dtype=bool), *usual])

    def values(self, modality: Modality, scores: np.ndarray) -> np.ndarray:
        """Standardised values of normal scores."""
        assert isinstance(modality, Scalar)
        return (modality.quantiles.decode(scores) - self.mean) / self.std

    def scores(self, modality: Modality, values: np.ndarray) -> np.ndarray:
        """Normal scores of standardised values."""
        assert isinstance(modality, Scalar)
        return modality.quantiles.encode(values * self.std + self.mean)

    def patterns(self, question: AskedRows) -> tuple[list[bytes], np.ndarray]:
        """Kinds of rows by the columns that they show, and each row's kind [n]."""
        visible = np.stack([question.shows(c) for c in self.columns], 1)
        patterns, kind = np.unique(visible, axis=0, return_inverse=True)
        return [pattern.tobytes() for pattern in patterns], kind.reshape(-1)

    def weights(self, question: AskedRows) -> np.ndarray:
        """Weights of the members for each row [n, members]."""
        patterns, kind = self.patterns(question)
        return np.stack([self.pattern_weights(pattern) for pattern in patterns])[kind]

    def pattern_weights(self, pattern: bytes) -> np.ndarray:
        """Weights of the members [members] for rows that show certain columns (bool [columns], as bytes)."""
        visible = dict(zip(self.columns, np.frombuffer(pattern, bool).tolist(), strict=True))
        able = [view.columns is None or any(visible[c] for c in view.columns) for view in self.views]
        for model in self.models:
            needed = [c for c in model.needed if self.missing[c] < MIN_MISSING]
            able.append(all(visible[c] for c in needed) if model.whole else any(visible[c] for c in model.columns))
        able += [True] * bool(self.classes)
        plain = b""
        if len(self.plain_bank.answers):
            plain = self.plain_bank.weights(pattern, np.array(able[len(self.views) :], dtype=bool).tobytes()).tobytes()
        return self.bank.weights(pattern, np.array(able, dtype=bool).tobytes(), plain)

    def combine(self, question: AskedRows, answers: np.ndarray, weights: np.ndarray) -> Tensor:
        """Distribution of each row before calibration: as the column's generator makes it.

        Args:
            answers: of the members. weights: of the members for each row [n, members].
        """
        filled = np.where(np.isnan(answers), answers[:1], answers)
        mixed = np.einsum("mno,nm->no", filled, weights)
        distribution, _ = question.by_network()
        if self.classes:
            return torch.from_numpy(np.log(mixed.clip(1e-9))).float().unsqueeze(1).to(distribution.device)
        centre = torch.from_numpy(self.scores(question.modality, mixed)).float().to(distribution.device)
        middle = distribution[..., distribution.shape[-1] // 2]
        return distribution.float() + (centre - middle).unsqueeze(-1)

    def margin(self, question: AskedRows, pattern: bytes) -> Tensor:
        """Calibration of answers to rows that show certain columns.

        From all columns it is known exactly. From others, rows of the bank that show similar ones tell it.
        """
        visible = np.frombuffer(pattern, bool)
        if all(here or self.missing[c] >= MIN_MISSING for c, here in zip(self.columns, visible, strict=True)):
            return self.full_margin
        if pattern not in self.margins:
            bank, count = self.bank, self.bank.count(pattern)
            mixed = bank.filled @ self.pattern_weights(pattern)
            if self.classes:
                levels = [conformal_quantile(1 - mixed, count, p / PERCENTS) for p in range(PERCENTS + 1)]
                margin = torch.tensor([1.0, *(min(level, 1.0) for level in levels)])
            else:
                assert bank.truth is not None and bank.spread is not None
                off = self.scores(question.modality, bank.truth) - self.scores(question.modality, mixed)
                outside = np.maximum(bank.spread[:, :, 0] - off[:, None], off[:, None] - bank.spread[:, :, 1])
                covers = short_generator(question.network, question.column).covers
                found = [
                    min(conformal_quantile(some, count, cover), float(some.max()))
                    for some, cover in zip(outside.T, covers, strict=True)
                ]
                margin = torch.tensor(found)[:, None]
            self.margins[pattern] = margin
        return self.margins[pattern]

    def distribution(self, question: AskedRows) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Distribution of each row before calibration, and for each kind of row which rows are of it and their
        calibration."""
        patterns, kind = self.patterns(question)
        weights = np.stack([self.pattern_weights(pattern) for pattern in patterns])
        answers = self.member_answers(question, [bool(column.any()) for column in weights.T])
        distribution = self.combine(question, answers, weights[kind])
        return distribution, [
            (
                torch.from_numpy(np.flatnonzero(kind == number)).to(distribution.device),
                self.margin(question, pattern).to(distribution.device),
            )
            for number, pattern in enumerate(patterns)
        ]

    def answer(self, question: AskedRows, generator: torch.Generator | None = None, **options: Any) -> GeneratorOutput:
        """Answers of the rows; options as of the generator's ``sample``."""
        distribution, kinds = self.distribution(question)
        head = short_generator(question.network, question.column)
        parts = [head.answer(distribution[rows], margin, generator, **options) for rows, margin in kinds]
        if len(parts) == 1:
            return parts[0]
        back = torch.cat([rows for rows, _ in kinds]).argsort()
        whole: dict[str, Any] = {}
        for field in dataclasses.fields(GeneratorOutput):
            found = [getattr(part, field.name) for part in parts]
            whole[field.name] = None if found[0] is None else torch.cat(found)[back]
        return GeneratorOutput(**whole)

    def loss(self, question: AskedRows, target: Tensor) -> Tensor:
        """Loss of each row [n]; the target's tokens as of the generator."""
        distribution, kinds = self.distribution(question)
        if self.classes:
            distribution = distribution.clone()
            for rows, margin in kinds:
                distribution[rows] = distribution[rows] / margin[0]
        return short_generator(question.network, question.column).loss_of(distribution, target)

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Description as JSON, and arrays by name."""
        arrays: dict[str, np.ndarray] = {
            "prior": self.prior,
            "visible": self.bank.visible,
            "answers": self.bank.answers,
        }
        if len(self.plain_bank.answers):
            arrays |= {"plain_visible": self.plain_bank.visible, "plain_answers": self.plain_bank.answers}
            if self.plain_bank.truth is not None:
                arrays["plain_truth"] = self.plain_bank.truth
        if self.bank.truth is not None:
            arrays["truth"] = self.bank.truth
        if self.bank.spread is not None:
            arrays["spread"] = self.bank.spread
        arrays["full_margin"] = self.full_margin.cpu().numpy()
        models = []
        for number, model in enumerate(self.models):
            described, own = model.state()
            models.append(described)
            arrays |= {f"member{number}.{name}": array for name, array in own.items()}
        described = {
            "views": [dataclasses.asdict(view) for view in self.views],
            "models": models,
            "columns": self.columns,
            "widths": self.widths,
            "missing": self.missing,
            "mean": self.mean,
            "std": self.std,
        }
        return described, arrays

    @classmethod
    def load(cls, described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Ensemble:
        """The inverse of ``state``."""
        models = []
        for number, entry in enumerate(described["models"]):
            own = {
                name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"member{number}.")
            }
            models.append(Bag.load(entry, own))
        views = [
            View(None if view["columns"] is None else tuple(view["columns"]), view["ignoring"], view["mean"])
            for view in described["views"]
        ]
        self = cls(
            views,
            models,
            described["columns"],
            described["widths"],
            described["missing"],
            arrays["prior"],
            described["mean"],
            described["std"],
        )
        self.bank = WeightBank(arrays["visible"], arrays["answers"], arrays.get("truth"), arrays.get("spread"))
        if "plain_visible" in arrays:
            self.plain_bank = WeightBank(arrays["plain_visible"], arrays["plain_answers"], arrays.get("plain_truth"))
        self.full_margin = torch.from_numpy(arrays["full_margin"])
        return self


def describe(columns: Sequence[str], all_columns: Sequence[str]) -> str:
    """Columns for people: all of them, or their names."""
    return "all columns" if len(columns) > 1 and len(columns) >= len(all_columns) else ", ".join(columns)
