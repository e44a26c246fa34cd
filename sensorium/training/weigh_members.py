"""Weighing of an ensemble's members on validation rows: from all columns, from each alone and from random ones; and on
training rows by out-of-fold answers, where validation rows are few."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from sensorium.core.deadline import Deadline
from sensorium.ensemble.ensemble import Ensemble, View
from sensorium.ensemble.question import AskedRows, short_generator
from sensorium.ensemble.weights import WeightBank
from sensorium.network.batch import Batch
from sensorium.network.types import Encoded, IgnoredColumns
from sensorium.training.fit_members import ColumnFit

MIN_ROWS = 8
"""Validation rows, at least."""
MAX_TRUNK_ROWS, MIN_FULL_ROWS = 12_000, 192
"""Validation rows through the trunk for a column's views, about; and those that show all columns, however short the
time is."""
RANDOM_VIEWS, SINGLE_VIEWS = 2, 2
"""Random sets of columns that rows show; columns from which alone the network is a member."""
FOLDS = 2
"""Parts of validation rows: answers of each are calibrated with weights that the others chose."""


class Weighing:
    """Weighing of an ensemble's members on validation rows."""

    def __init__(self, fit: ColumnFit, ensemble: Ensemble, parts: Sequence[tuple[Batch, dict[str, Encoded]]]) -> None:
        self.fit, self.ensemble, self.network, self.column = fit, ensemble, fit.network, fit.column
        self.parts: list[tuple[dict[str, Encoded], torch.Tensor, np.ndarray, torch.Tensor]] = []
        self.plain_owner = np.zeros(0, np.int64)
        self.ready: list[dict[tuple[tuple[str, ...], bool], tuple[torch.Tensor, torch.Tensor]]] = []
        start = 0
        for batch, encoded in parts:
            if self.column in encoded:
                index = encoded[self.column].index
                numbers = fit.valid_row[start + index.cpu().numpy()]
                others = {c: e for c, e in encoded.items() if c != self.column and c in fit.columns}
                target = self.network.asked_modality(self.column).target(batch.cells[self.column])
                self.parts.append((others, index, numbers, target))
            start += batch.rows

    @torch.inference_mode()
    def weigh(self, deadline: Deadline) -> None:
        """Set the ensemble's views, bank and margin; on fewer rows where more wouldn't fit into the time."""
        fit, ensemble = self.fit, self.ensemble
        several = len(fit.columns) > 1
        many = 1 + (RANDOM_VIEWS + len(fit.columns) + len(fit.left_out)) * several
        fitting = deadline.rows(MAX_TRUNK_ROWS, self.time, MIN_ROWS)
        reached = np.cumsum([len(part[2]) for part in self.parts])
        self.parts = self.parts[: 1 + int(np.searchsorted(reached, max(fitting // 2, MIN_FULL_ROWS)))]
        few = 1 + int(np.searchsorted(reached, max(fitting // many, MIN_ROWS)))
        self.ready = [{} for _ in self.parts]
        singles = {}
        for column in fit.columns if several else []:
            questions = [self.question(number, [column]) for number in range(len(self.parts[:few]))]
            singles[column] = self.score(questions)
        best = sorted(singles, key=lambda c: -singles[c])[:SINGLE_VIEWS]
        means = [False, True] if not fit.classes else [False]
        ensemble.views = [View(mean=mean) for mean in means]
        ignored = self.network.calibration.ignored.get(self.column, IgnoredColumns()).columns
        if several and set(ignored) & set(fit.columns):
            ensemble.views.append(View(ignoring=True))
        ensemble.views += [View(columns=(c,)) for c in best]
        rng, found = np.random.default_rng(fit.seed), []
        for number, part in enumerate(self.parts):
            views: list[Sequence[str] | np.ndarray] = [fit.columns]
            if number < few and several:
                views += [[column] for column in fit.columns]
                views += [[c for c in fit.columns if c not in left] for left in fit.left_out]
                rates = rng.random((RANDOM_VIEWS, len(part[2]), 1))
                views += [mask for mask in rng.random((RANDOM_VIEWS, len(part[2]), len(fit.columns))) > rates]
            for place, view in enumerate(views):
                question = self.question(number, view)
                answers = ensemble.member_answers(question, fold=self.fold)
                found.append((place == 0, question, answers, part[2], part[3]))
        self.set_bank(found)
        ensemble.plain_bank, self.plain_owner = self.plain_bank(rng)
        self.set_margin(found)

    def time(self, rows: int) -> None:
        """Ask the network of so many rows, from all columns, to see how long it takes."""
        encoded, index, numbers, _ = self.parts[0]
        blocks, terms = self.fit.rows[1].blocks, self.fit.rows[1].terms
        question = AskedRows(
            self.network, self.column, encoded, index[:rows], lambda c: blocks[c][numbers], lambda c: terms[c][numbers]
        )
        self.ensemble.network_answer(question, View())

    def question(self, number: int, visible: Sequence[str] | np.ndarray) -> AskedRows:
        """Question about the rows of a part that show some columns: their names, or which each row shows.

        Answers of the network from the same columns of a part are computed once. From one column they are the same in
        rows that show it, whatever else these show.
        """
        encoded, index, numbers, _ = self.parts[number]
        ready = self.ready[number]
        if isinstance(visible, np.ndarray):
            ready = {key: answer for key, answer in ready.items() if len(key[0]) == 1}
            columns = {}
            for place, column in enumerate(self.fit.columns):
                if column in encoded:
                    there = encoded[column].place.clone()
                    there[index[torch.from_numpy(~visible[:, place]).to(index.device)]] = -1
                    columns[column] = dataclasses.replace(encoded[column], place=there)
        else:
            columns = {c: encoded[c] for c in visible if c in encoded}
        valid = self.fit.rows[1]
        return AskedRows(
            self.network,
            self.column,
            columns,
            index,
            lambda c: valid.blocks[c][numbers],
            lambda c: valid.terms[c][numbers],
            ready,
        )

    def score(self, questions: Sequence[AskedRows]) -> float:
        """Mean log-likelihood, or minus the squared error, of the network's answers."""
        scores = []
        for question, part in zip(questions, self.parts, strict=False):
            answers, truth = self.ensemble.network_answer(question, View()), self.fit.truths[1][part[2]]
            scores.append(self.likelihoods(answers[None], truth)[:, 0])
            if not self.fit.classes:
                scores[-1] = -((scores[-1] - truth) ** 2)
        whole = np.concatenate(scores)
        return float(np.log(whole.clip(1e-6)).mean() if self.fit.classes else whole.mean())

    def likelihoods(self, answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Likelihood of the truth, or the values, by each member [n, members]."""
        if not self.fit.classes:
            return answers[:, :, 0].T
        return answers[:, np.arange(len(truth)), truth.clip(0).astype(np.int64)].T

    @property
    def fold(self) -> int | None:
        """Fold of the validation rows; None where nothing was cross-fitted."""
        return int(self.fit.folds.max()) + 1 if len(self.fit.folds) else None

    def plain_bank(self, rng: np.random.Generator) -> tuple[WeightBank, np.ndarray]:
        """Bank of answers by the members that aren't the network: to validation rows, and out-of-fold ones to training
        rows; and the number of each answer's validation row, -1 of training rows. They cost less than the network's, so
        there are more of them."""
        fit, ensemble = self.fit, self.ensemble
        patterns, answers, truths, owners = [], [], [], []
        known = np.flatnonzero(fit.known(1))
        parts = [(fit.rows[1].rows(known), fit.truths[1][known], self.fold)]
        for fold in range(self.fold or 0):
            out = np.flatnonzero(fit.folds == fold)
            parts.append((fit.rows[0].rows(out), fit.truths[0][out], fold))
        for given, truth, fold in parts:
            rows, some = given.columns(fit.columns), len(truth)
            views = [np.ones((some, len(fit.columns)), dtype=bool)]
            if len(fit.columns) > 1:
                views += [np.tile(one, (some, 1)) for one in np.eye(len(fit.columns), dtype=bool)]
                rest = [np.array([c not in left for c in fit.columns]) for left in fit.left_out]
                views += [np.tile(one, (some, 1)) for one in rest]
                rates = rng.random((RANDOM_VIEWS, some, 1))
                views += list(rng.random((RANDOM_VIEWS, some, len(fit.columns))) > rates)
            for view in views:
                visible = rows.hidden(dict(zip(fit.columns, view.T, strict=True)))
                found = np.full((len(ensemble.names), some, fit.classes or 1), np.nan)
                ensemble.ask_models(visible, found, [True] * len(found), fold)
                patterns.append(np.stack([visible.shows(c) for c in fit.columns], 1))
                answers.append(self.likelihoods(found, truth)[:, len(ensemble.views) :])
                truths.append(truth)
                owners.append(known if given is parts[0][0] else np.full(some, -1))
        values = () if fit.classes else (np.concatenate(truths),)
        return WeightBank(np.concatenate(patterns), np.concatenate(answers), *values), np.concatenate(owners)

    def set_bank(self, found: Sequence[tuple[bool, AskedRows, np.ndarray, np.ndarray, torch.Tensor]]) -> None:
        """Set the bank from all answers to rows whose truth is known."""
        patterns, answers, truths, spreads = [], [], [], []
        for _, question, members, numbers, _ in found:
            truth = self.fit.truths[1][numbers]
            known = truth >= 0 if self.fit.classes else np.isfinite(truth)
            patterns.append(np.stack([question.shows(c) for c in self.ensemble.columns], 1)[known])
            answers.append(self.likelihoods(members, truth)[known])
            truths.append(truth[known])
            if not self.fit.classes:
                spreads.append(self.spread(question)[known])
        values = () if self.fit.classes else (np.concatenate(truths), np.concatenate(spreads))
        self.ensemble.bank = WeightBank(np.concatenate(patterns), np.concatenate(answers), *values)

    def spread(self, question: AskedRows) -> np.ndarray:
        """Ends of the network's intervals, as distances from its median [n, coverages, 2]."""
        head, (quantiles, _) = short_generator(self.network, self.column), question.by_network()
        middle = quantiles[..., quantiles.shape[-1] // 2]
        ends = [head.bounds(quantiles, cover)[..., 0] - middle for cover in head.covers]
        return torch.stack(ends, 1).float().cpu().numpy()

    def set_margin(self, found: Sequence[tuple[bool, AskedRows, np.ndarray, np.ndarray, torch.Tensor]]) -> None:
        """Calibrate answers from all columns, each part of the rows with weights that the others chose."""
        ensemble, head = self.ensemble, short_generator(self.network, self.column)
        whole = ensemble.bank
        owner = np.concatenate([self.known(numbers) for _, _, _, numbers, _ in found])
        banks, residuals = [whole.part(owner % FOLDS != fold) for fold in range(FOLDS)], []
        plain, plain_owner = ensemble.plain_bank, self.plain_owner
        plain_banks = [plain.part((plain_owner < 0) | (plain_owner % FOLDS != fold)) for fold in range(FOLDS)]
        for is_full, question, members, numbers, target in found:
            if is_full:
                weights = np.zeros((len(numbers), len(ensemble.names)))
                for fold, bank in enumerate(banks):
                    ensemble.bank, ensemble.plain_bank, mine = bank, plain_banks[fold], numbers % FOLDS == fold
                    weights[mine] = ensemble.weights(question)[mine]
                residuals.append(head.residual_of(ensemble.combine(question, members, weights), target))
        ensemble.bank, ensemble.plain_bank = whole, plain
        ensemble.full_margin = head.margin(torch.cat(residuals)).cpu()

    def known(self, numbers: np.ndarray) -> np.ndarray:
        """Those rows whose truth is known."""
        truth = self.fit.truths[1][numbers]
        return numbers[truth >= 0 if self.fit.classes else np.isfinite(truth)]
