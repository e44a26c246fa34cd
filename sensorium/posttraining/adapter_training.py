"""What lessons of a model that talks have in common: what is tuned of its language model alone learns, about rows whose cells are encoded once."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from sensorium.core.errors import BadCell, UserError
from sensorium.core.files import write_json
from sensorium.core.tensors import write_tensors
from sensorium.dialogue.decoding import uses_tuned
from sensorium.inference.rows import Rows
from sensorium.network.adapters import tuned
from sensorium.network.network import Network
from sensorium.training.trainer import Progress, Trainer


def shown(network: Network, rows: Rows) -> dict[str, Any]:
    """The cells of rows behind their stems. What was computed in inference mode can't be learned through, so all is copied."""
    return {
        c: dataclasses.replace(
            part, **{name: value.clone() for name, value in vars(part).items() if torch.is_tensor(value)}
        )
        for c, part in rows.encoded_columns(
            [c for c in network.columns if c in rows.cells and c not in network.dialogue_columns]
        ).items()
    }


def begun(network: Network, folder: Path, resume: bool) -> dict[str, torch.Tensor]:
    """What was tuned of the language model when a lesson began: kept in its folder, for a lesson that was stopped has changed it."""
    path = folder / "begun.safetensors"
    if resume and path.is_file():
        return load_file(path)
    now = tuned(network)
    write_tensors(path, now)
    return now


def tell_left_out(wrong: Mapping[str, Sequence[int]], note: Callable[[str], None]) -> None:
    """Which rows aren't learned from, and why."""
    for why, rows in wrong.items():
        note(f"{len(rows)} row(s) left out, the first is row {rows[0]}: {why}")


def spoken_to(network: Network, messages: Sequence[Any]) -> None:
    """Refuse a conversation that would be answered by the language model as it was, so that nothing taught by it would be heard.

    Raises:
        BadCell: it refers to no cell, and such aren't answered by the tuned one.
    """
    trunk, refers = network.trunk, any(isinstance(part, dict) for _, parts in messages for part in parts)
    if not uses_tuned(network, refers) and (trunk.adapted or trunk.prompted):
        raise BadCell(
            "it refers to no cell, and this model answers such as its language model did before it was tuned (trunk.always=true would change that)"
        )


def drawn(seed: int, numbers: list[int], batch: int, step: int) -> list[int]:
    """Some of the numbers for a step, all of them in each pass but for a rest, each pass in another order."""
    passed, at = divmod(step, max(1, len(numbers) // batch))
    return np.random.default_rng([seed, passed]).permutation(numbers)[at * batch : (at + 1) * batch].tolist()


def run(lesson: Trainer, words: str, resume: bool, shown: Any, note: Callable[[dict[str, float]], str]) -> Progress:
    """Learn, from where a stopped lesson was where that is asked, and show how far it is and what a step's numbers say."""
    if resume and any(lesson.folder.glob("step-*")):
        for wrong in lesson.resume():
            shown.log(f"Warning: {wrong}")
    told = [lesson.at.share]
    with shown.bar(words, 1.0) as learning:

        def log(at: Progress, values: dict[str, float]) -> None:
            learning(min(at.share, 1.0) - told[0], note(values) if values else "skipped")
            told[0] = min(at.share, 1.0)

        return lesson.run(log)


def begin(folder: Path, described: Mapping[str, Any], resume: bool) -> None:
    """Make the lesson's folder, or see that it is the one to go on with.

    Raises:
        UserError: there is nothing to go on with, it was begun otherwise, or it can't be written.
    """
    path, described = folder / "lesson.json", json.loads(json.dumps(described))
    try:
        if resume:
            if not path.is_file():
                raise UserError(f"There is no lesson in '{folder}' to go on with. Begin it without --resume.")
            before = json.loads(path.read_text(encoding="utf-8"))
            if before != described:
                changed = [key for key in described if before.get(key) != described[key]]
                raise UserError(
                    f"'{folder}' was begun with other {', '.join(changed)}: {[before.get(k) for k in changed]}, now "
                    f"{[described[k] for k in changed]}. Resume with the same, or begin anew without --resume."
                )
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(path, described)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The lesson can't be kept in '{folder}': {getattr(error, 'strerror', None) or error}."
        ) from error
