"""Ensembles of a trained network's predictable columns: plain models are fitted on training rows, and all members are
weighed on validation rows, from all columns, from each alone and from random ones."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from sensorium.core.deadline import Deadline
from sensorium.core.errors import UserError, unknown, warn
from sensorium.core.registry import find, name_of, names
from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared
from sensorium.ensemble.ensemble import Ensemble, View
from sensorium.ensemble.features import Blocks, relevance
from sensorium.ensemble.members import FitData, Member
from sensorium.ensemble.question import AskedRows, short_generator
from sensorium.ensemble.weights import WeightBank
from sensorium.network.batch import Batch
from sensorium.network.network import Network
from sensorium.network.types import Encoded, IgnoredColumns
from sensorium.training.calibrate import MAX_ROWS, MIN_ROWS, encode, judged_columns

MAX_TRAIN_ROWS = 10_000
"""Training rows of plain models, at most."""
MAX_TRUNK_ROWS, MIN_FULL_ROWS = 12_000, 192
"""Validation rows through the trunk for a column's views, about; and those that show all columns, however short the
time is."""
RANDOM_VIEWS, SINGLE_VIEWS, SINGLE_MODELS = 2, 2, 2
"""Random sets of columns that validation rows show; columns from which alone the network, and trees, are members."""
FOLDS = 2
"""Parts of validation rows: answers of each are calibrated with weights that the others chose."""


class AnswerSettings:
    """Settings of answers (section ``answer``).

    Args:
        members: kinds of models that predictions combine, joined by commas: ``network`` and those of
            ``ensemble/members``; or ``all``, or ``network`` alone.
        share: part of the training time in which the plain models are fitted.
    """

    def __init__(self, *, members: str = "all", share: float = 0.15) -> None:
        known = ["network", *names(Member)]
        given = known if members == "all" else [name.strip() for name in members.split(",") if name.strip()]
        for name in given:
            if name not in known:
                raise unknown("answer.members:", name, ["all", *known])
        if not share >= 0:
            raise UserError(f"answer.share={share}: give a share of the training time, for instance 0.15.")
        self.kinds, self.share = [name for name in given if name != "network"], share


def fit_ensembles(
    network: Network,
    prepared: Prepared,
    settings: AnswerSettings,
    seconds: float,
    seed: int,
    note: Callable[[str], None] = lambda words: None,
) -> None:
    """Set ``network.calibration.ensembles`` of columns whose answers are judged on validation rows."""
    network.calibration.ensembles = {}
    rows = prepared.rows.get("validation", np.zeros(0, np.int64))
    columns = [c for c in judged_columns(network) if c in prepared.ready.columns]
    if len(rows) < MIN_ROWS or not settings.kinds or not columns:
        return
    rows, train = evenly_spaced(rows, MAX_ROWS), evenly_spaced(prepared.rows["train"], MAX_TRAIN_ROWS)
    deadline = Deadline(seconds)
    data = {part: plain_features(network, prepared, some) for part, some in (("train", train), ("valid", rows))}
    with torch.inference_mode():
        parts = encode(network, prepared, rows)
    for number, column in enumerate(columns):
        note(column)
        mine = deadline.part(1 / (len(columns) - number))
        fit = ColumnFit(network, prepared, column, (train, rows), (data["train"], data["valid"]), seed)
        if ensemble := fit.ensemble(parts, settings.kinds, mine):
            network.calibration.ensembles[column] = ensemble


def plain_features(network: Network, prepared: Prepared, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Plain features of some rows by column [n, d], NaN where a cell is missing."""
    found = {
        c: np.stack([modality.features(cell) for cell in prepared.read.cells(c, rows)])
        for c, modality in network.modalities.items()
        if c in prepared.read.columns and c not in network.dialogue_columns
    }
    prepared.read.release()
    return {c: block for c, block in found.items() if block.shape[1]}


class ColumnFit:
    """Fit of one column's ensemble.

    Args:
        rows: training and validation rows of the store. blocks: their features.
    """

    def __init__(
        self,
        network: Network,
        prepared: Prepared,
        column: str,
        rows: tuple[np.ndarray, np.ndarray],
        blocks: tuple[Blocks, Blocks],
        seed: int,
    ) -> None:
        self.network, self.column, self.seed = network, column, seed
        self.modality = network.asked_modality(column)
        self.classes = len(self.modality.state()["classes"]) if self.modality.is_categorical else 0
        truths = [self.truth(prepared, some) for some in rows]
        self.have = [np.isfinite(truth) for truth in truths]
        self.mean = self.std = 0.0
        if not self.classes:
            known = truths[0][self.have[0]]
            self.mean, self.std = (float(known.mean()), float(known.std()) or 1.0) if len(known) else (0.0, 1.0)
            truths = [(truth - self.mean) / self.std for truth in truths]
        self.truths = [truth[have] for truth, have in zip(truths, self.have, strict=True)]
        self.valid_row = np.cumsum(self.have[1]) - 1
        self.blocks = [
            {c: block[have] for c, block in some.items() if c != column}
            for some, have in zip(blocks, self.have, strict=True)
        ]
        self.columns = [c for c, block in self.blocks[0].items() if np.isfinite(block).any()]

    def truth(self, prepared: Prepared, rows: np.ndarray) -> np.ndarray:
        """Codes (-1: an unseen class) or values of some rows [n], NaN where missing."""
        found = np.full(len(rows), np.nan)
        for number, cell in enumerate(prepared.read.cells(self.column, rows)):
            if cell is not None and len(cell):
                found[number] = float(self.modality.prepare(cell)[0]) - 1 if self.classes else float(cell[0])
        return found

    def ensemble(
        self, parts: Sequence[tuple[Batch, dict[str, Encoded]]], kinds: Sequence[str], deadline: Deadline
    ) -> Ensemble | None:
        """Ensemble whose members are fitted within a time, and weighed; None where there is nothing to choose by."""
        known = self.truths[1] >= 0 if self.classes else np.isfinite(self.truths[1])
        if known.sum() < MIN_ROWS or len(self.truths[0]) < MIN_ROWS or not self.columns:
            return None
        models = self.models(kinds, 0.5 * deadline.left)
        prior = np.bincount(self.truths[0][self.truths[0] >= 0].astype(np.int64), minlength=self.classes)
        result = Ensemble(
            [View()],
            models,
            self.columns,
            {c: self.blocks[0][c].shape[1] for c in self.columns},
            {c: float((~np.isfinite(self.blocks[0][c]).any(1)).mean()) for c in self.columns},
            (prior + 1.0) / (prior.sum() + self.classes) if self.classes else np.zeros(0),
            self.mean,
            self.std,
        )
        Weighing(self, result, parts).weigh(deadline)
        return result

    def models(self, kinds: Sequence[str], seconds: float) -> list[Member]:
        """Plain models of all columns, and of the most relevant ones alone."""
        blocks = {c: self.blocks[0][c] for c in self.columns}
        tells = {c: float(relevance(b, self.truths[0], bool(self.classes)).max(initial=0.0)) for c, b in blocks.items()}
        best = sorted(tells, key=lambda c: -tells[c])[:SINGLE_MODELS] if len(self.columns) > 1 else []
        plans = [(find(Member, kind), self.columns) for kind in kinds]
        plans += [(part, [c]) for c in best for part, _ in plans[: len(kinds)] if part.whole]
        models, started, missing = [], time.monotonic(), {}
        for number, (part, columns) in enumerate(plans):
            left = (seconds - (time.monotonic() - started)) / (len(plans) - number)
            valid = {c: self.blocks[1][c] for c in self.columns}
            data = FitData(blocks, self.truths[0], valid, self.truths[1], self.classes, max(left, 0.2), self.seed)
            try:
                model = part.fit(data, columns)
            except UserError as error:
                missing.setdefault(str(error), []).append(name_of(part).replace("_", " "))
                continue
            if model is not None:
                models.append(model)
        for reason, parts in missing.items():
            warn(f"'{self.column}' is answered without {', '.join(dict.fromkeys(parts))}: {reason}")
        return models


class Weighing:
    """Weighing of an ensemble's members on validation rows."""

    def __init__(self, fit: ColumnFit, ensemble: Ensemble, parts: Sequence[tuple[Batch, dict[str, Encoded]]]) -> None:
        self.fit, self.ensemble, self.network, self.column = fit, ensemble, fit.network, fit.column
        self.parts: list[tuple[dict[str, Encoded], torch.Tensor, np.ndarray, torch.Tensor]] = []
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
        many = 1 + RANDOM_VIEWS + len(fit.columns) * several
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
                rates = rng.random((RANDOM_VIEWS, len(part[2]), 1))
                views += [mask for mask in rng.random((RANDOM_VIEWS, len(part[2]), len(fit.columns))) > rates]
            for place, view in enumerate(views):
                question = self.question(number, view)
                found.append((place == 0, question, ensemble.member_answers(question), part[2], part[3]))
        self.set_bank(found)
        self.set_margin(found)

    def time(self, rows: int) -> None:
        """Ask the network of so many rows, from all columns, to see how long it takes."""
        encoded, index, numbers, _ = self.parts[0]
        question = AskedRows(self.network, self.column, encoded, index[:rows], lambda c: self.fit.blocks[1][c][numbers])
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
        return AskedRows(self.network, self.column, columns, index, lambda c: self.fit.blocks[1][c][numbers], ready)

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
        for is_full, question, members, numbers, target in found:
            if is_full:
                weights = np.zeros((len(numbers), len(ensemble.names)))
                for fold, bank in enumerate(banks):
                    ensemble.bank, mine = bank, numbers % FOLDS == fold
                    weights[mine] = ensemble.weights(question)[mine]
                residuals.append(head.residual_of(ensemble.combine(question, members, weights), target))
        ensemble.bank, ensemble.full_margin = whole, head.margin(torch.cat(residuals)).cpu()

    def known(self, numbers: np.ndarray) -> np.ndarray:
        """Those rows whose truth is known."""
        truth = self.fit.truths[1][numbers]
        return numbers[truth >= 0 if self.fit.classes else np.isfinite(truth)]
