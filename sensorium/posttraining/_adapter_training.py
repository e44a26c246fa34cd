"""Adapter training: what the recipes of a dialogue model share. Only what is tuned of its language model learns, about
rows whose cells are encoded once."""

from __future__ import annotations

import abc
import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from sensorium.core.errors import BadCell, UserError
from sensorium.core.files import write_json
from sensorium.core.progress import ProgressReporter
from sensorium.core.tensors import write_tensors
from sensorium.data.table import Table
from sensorium.dialogue.decoding import uses_tuned
from sensorium.dialogue.parts import language_trunk
from sensorium.inference.rows import Rows
from sensorium.network.adapters import adapter_weights, train_adapters_only, use_adapter_weights
from sensorium.network.network import Network
from sensorium.posttraining import RunOptions
from sensorium.training.settings import TrainerSettings
from sensorium.training.trainer import Progress, Trainer


def trainable_copies(encoded: Mapping[str, Any]) -> dict[str, Any]:
    """Encoded columns as copies: what was computed in inference mode can't be learned through."""
    return {
        c: dataclasses.replace(
            part, **{name: value.clone() for name, value in vars(part).items() if torch.is_tensor(value)}
        )
        for c, part in encoded.items()
    }


def encode_rows(network: Network, rows: Rows) -> dict[str, Any]:
    """Cells of rows behind their stems, for conversations that refer to them."""
    columns = [c for c in network.columns if c in rows.cells and c not in network.dialogue_columns]
    return trainable_copies(rows.encoded_columns(columns))


def initial_weights(network: Network, folder: Path, resume: bool) -> dict[str, torch.Tensor]:
    """Tuned weights of the language model before a recipe: the reference policy.

    They are saved in the recipe's folder, for one that was stopped has changed them.
    """
    path = folder / "initial.safetensors"
    if resume and path.is_file():
        return load_file(path)
    now = adapter_weights(network)
    write_tensors(path, now)
    return now


def forget_calibration(network: Network) -> None:
    """Drop the calibration of answers: of the model as it is now nobody knows how often they are right."""
    for column in network.dialogue_columns:
        network.dialogue_modality(column).sureness = None


def report_left_out(wrong: Mapping[str, Sequence[int]], note: Callable[[str], None]) -> None:
    """Report which rows aren't learned from, and why."""
    for reason, rows in wrong.items():
        note(f"{len(rows)} row(s) left out, the first is row {rows[0]}: {reason}")


def check_answered_by_tuned(network: Network, messages: Sequence[Any]) -> None:
    """Refuse a conversation that the language model answers with its original weights, so that nothing learned counts.

    Raises:
        BadCell: it refers to no cell, and such aren't answered by the tuned weights.
    """
    trunk, refers = language_trunk(network), any(isinstance(part, dict) for _, parts in messages for part in parts)
    if not uses_tuned(network, refers) and (trunk.adapted or trunk.prompted):
        raise BadCell(
            "it refers to no cell, and this model answers such as its language model did before it was tuned "
            "(trunk.always=true would change that)"
        )


VALIDATION_EVERY = 10
"""One example of so many is not learned from, but tells what was learned."""


def split_validation(count: int, every: int) -> tuple[list[int], list[int]]:
    """Numbers of validation examples, one of ``every`` where there are so many, and of training examples."""
    validation = list(range(0, count, every)) if count >= every else []
    return validation, [number for number in range(count) if number not in set(validation)]


def batch_of(seed: int, numbers: list[int], batch: int, step: int) -> list[int]:
    """Numbers for a step: all but a rest of them in each epoch, in a random order."""
    epoch, at = divmod(step, max(1, len(numbers) // batch))
    return np.random.default_rng([seed, epoch]).permutation(numbers)[at * batch : (at + 1) * batch].tolist()


def resume_from_checkpoint(trainer: Trainer, resume: bool, note: Callable[[str], None]) -> None:
    """Go back to the newest checkpoint, if that is asked and there is one."""
    if resume and any(trainer.folder.glob("step-*")):
        for wrong in trainer.resume():
            note(f"Warning: {wrong}")


def run_with_bar(
    trainer: Trainer, advance: Callable[[float, str], Any], words: Callable[[dict[str, float]], str]
) -> Progress:
    """Train to the end, with a progress bar.

    Args:
        advance: of the bar, by a share of the run. words: of a step's numbers.
    """
    last = trainer.at.share

    def log(at: Progress, values: dict[str, float]) -> None:
        nonlocal last
        advance(min(at.share, 1.0) - last, words(values) if values else "skipped")
        last = min(at.share, 1.0)

    return trainer.run(log)


class AdapterTrainer(Trainer):
    """Trainer of what is tuned of a language model, on examples in a table's rows.

    Args:
        heads: other modules that learn. rows: those that conversations refer to. count: of examples.
        batch: examples a step.
    """

    title: ClassVar[str]
    """What the progress bar says."""
    unit: ClassVar[str]
    """What the facts call examples."""

    def __init__(
        self,
        network: Network,
        heads: Mapping[str, nn.Module],
        rows: Rows,
        count: int,
        batch: int,
        folder: Path,
        options: RunOptions,
        settings: TrainerSettings,
    ) -> None:
        self.model, self.rows, self.batch = network, rows, min(batch, count)
        self.validation, self.learned = split_validation(count, VALIDATION_EVERY)
        trunk = language_trunk(network)
        super().__init__(trunk.learned, heads, folder / "checkpoints", options.seed, options.minutes, settings)
        self.steps = None if options.epochs is None else math.ceil(options.epochs * len(self.learned) / self.batch)
        self.encoded = encode_rows(network, rows)

    def score_reference(self, progress: ProgressReporter) -> None:
        """Compute what is needed of the reference policy, which the model is now. Default: nothing."""

    @abc.abstractmethod
    def validation_score(self) -> float:
        """Score of the model on the validation examples; NaN where there are none."""

    @abc.abstractmethod
    def words(self, values: Mapping[str, float]) -> str:
        """Text of the progress bar, from a step's numbers."""


def train_adapters(
    trainer: AdapterTrainer,
    initial: Mapping[str, torch.Tensor],
    options: RunOptions,
    progress: ProgressReporter,
) -> dict[str, Any]:
    """Train what is tuned of a language model, from where a stopped run was where that is asked.

    Args:
        initial: tuned weights of the reference policy.

    Returns:
        facts: length, examples, and the validation score before and after.
    """
    with train_adapters_only(trainer.model):
        with use_adapter_weights(trainer.model, initial):
            trainer.score_reference(progress)
            before = trainer.validation_score()
        resume_from_checkpoint(trainer, options.resume, progress.log)
        with progress.bar(trainer.title, 1.0) as advance:
            at = run_with_bar(trainer, advance, trainer.words)
        return {
            "seconds": round(at.seconds, 2),
            "steps": at.step,
            "stopped": at.stopped,
            trainer.unit: len(trainer.learned),
            "held_out": len(trainer.validation),
            "before": round(before, 4),
            "after": round(trainer.validation_score(), 4),
        }


def begin_adapters(
    network: Network, table: Table, folder: Path, settings: Mapping[str, Any], options: RunOptions
) -> dict[str, torch.Tensor]:
    """Tuned weights of the reference policy; the recipe's folder is made, or is the one to go on with.

    Raises:
        UserError: as of ``begin``.
    """
    described = {"table": table.name, "rows": table.rows, "seed": options.seed, "settings": dict(settings)}
    begin(folder, described, options.resume)
    return initial_weights(network, folder, options.resume)


def begin(folder: Path, described: Mapping[str, Any], resume: bool) -> None:
    """Make the recipe's folder, or see that it is the one to go on with.

    Raises:
        UserError: there is nothing to go on with, it was begun otherwise, or it can't be written.
    """
    path, described = folder / "run.json", json.loads(json.dumps(described))
    try:
        if resume:
            if not path.is_file():
                raise UserError(f"There is no stopped run in '{folder}' to resume. Start one without --resume.")
            before = json.loads(path.read_text(encoding="utf-8"))
            if before != described:
                changed = [key for key in described if before.get(key) != described[key]]
                raise UserError(
                    f"'{folder}' was started with other {', '.join(changed)}: {[before.get(k) for k in changed]}, now "
                    f"{[described[k] for k in changed]}. Resume with the same, or start anew without --resume."
                )
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(path, described)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The run can't be saved in '{folder}': {getattr(error, 'strerror', None) or error}."
        ) from error
