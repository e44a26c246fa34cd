"""Distillation of a column's flow: a student learns to generate in one step what the flow, its teacher, takes many for.

The teacher generates pictures (sounds, clips, series) from what rows show; the student learns to make each at once from
the noise that it was made of (arXiv 2101.02388), and so that a discriminator can't tell the two apart (arXiv
2405.05967). The rest of the network stays as it is.

    FOLDER/ run.json pairs/ checkpoints/
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write
from sensorium.core.progress import ProgressReporter
from sensorium.core.seeds import mix
from sensorium.core.settings import at_least, grouped_arguments, plain
from sensorium.data.hashes import row_hashes
from sensorium.data.order import evenly_spaced
from sensorium.data.table import Table
from sensorium.generators.flow import Flow
from sensorium.generators.onestep import Onestep
from sensorium.inference.rows import Rows
from sensorium.inference.trained import Trained
from sensorium.network.network import Network
from sensorium.network.types import slug
from sensorium.nn.discriminator import NOISE_DEVIATION, Discriminator, adversarial_losses
from sensorium.nn.precision import autocast
from sensorium.posttraining import Recipe, RunOptions
from sensorium.posttraining._adapter_training import begin, resume_from_checkpoint, run_with_bar, trainable_copies
from sensorium.posttraining._student import digest_of, student_of
from sensorium.training.build import make_sampler
from sensorium.training.questions import QuestionSampler
from sensorium.training.run_folder import trained_on
from sensorium.training.settings import PostTrainingSettings, TrainerSettings
from sensorium.training.trainer import Trainer

SLOPE_ROWS = slice(None, None, 4)
"""Rows at which the discriminator's slope is penalised, which takes two more passes."""
MAX_TEACHER_ROWS = 20_000
"""Rows that the teacher is asked about, evenly spread where there are more; all are in memory."""

VALIDATION_EVERY = 16
"""One batch of pairs of so many is not learned from, but tells how near the student comes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """Settings of distillation: a student learns what a column's flow generates (section ``distill``).

    Args:
        pairs: cells that the teacher generates to learn from; steps, guidance: its options, as in `generate`.
        batch: pairs a step. adversary: weight of the adversarial loss beside the distance to the teacher's output;
            judge: blocks of the discriminator; steep: weight of its gradient penalty.
    """

    pairs: int = 4096
    steps: int = 20
    guidance: float = 2.0
    batch: int = 64
    adversary: float = 0.2
    judge: int = 2
    steep: float = 10.0
    trainer: PostTrainingSettings = TrainerSettings(lr=2e-3, weight_decay=0.05, ema_decay=0.99)


class DistillationTrainer(Trainer):
    """Distillation of a column's flow into a student that draws in one step (section ``distill``)."""

    section = "distill"

    def __init__(
        self,
        network: Network,
        rows: Rows,
        column: str,
        sampler: QuestionSampler,
        folder: Path,
        seed: int,
        minutes: float | None,
        epochs: float | None,
        settings: DistillationSettings,
    ) -> None:
        at_least("distill", 1, pairs=settings.pairs, steps=settings.steps, batch=settings.batch)
        at_least(
            "distill",
            0,
            guidance=settings.guidance,
            adversary=settings.adversary,
            judge=settings.judge,
            steep=settings.steep,
        )
        teacher = network.generator(column, "flow")
        assert isinstance(teacher, Flow)
        self.model, self.column, self.rows, self.sampler = network, column, rows, sampler
        self.teacher_options: dict[str, Any] = {"steps": settings.steps, "guidance": settings.guidance}
        self.pairs_folder, self.batch = folder / "pairs", settings.batch
        self.adversary, self.steep = settings.adversary, settings.steep
        count = max(2, math.ceil(settings.pairs / self.batch))
        self.validation = list(range(0, count, VALIDATION_EVERY))
        self.learned = [number for number in range(count) if number % VALIDATION_EVERY]
        device = next(network.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, 0))
            student = student_of(teacher).to(device)
            width = round(teacher.expand * teacher.width)
            against = Discriminator(teacher.output_tokens, teacher.width, settings.judge, width).to(device)
        judges = {"judge": against} if self.adversary else {}
        self.noise_width = student.latent_tokens.width
        super().__init__(student, judges, folder / "checkpoints", seed, minutes, settings.trainer)
        self.student = student
        self.steps = None if epochs is None else math.ceil(epochs * len(self.learned))
        self.encoded = trainable_copies(rows.encoded_columns([c for c in network.columns if c != column]))

    # --- pairs of noise and what the teacher makes of it --------------------------------------------------------------

    def question(self, number: int) -> tuple[tuple[str, ...], torch.Tensor]:
        """Seen columns of a batch of pairs, and its rows [batch]; the same for the same number."""
        rng = np.random.default_rng([self.seed, number])
        seen = self.sampler.seen_for_generation(rng, self.model.columns, self.column)
        return seen, torch.from_numpy(rng.integers(self.rows.count, size=self.batch)).to(self.device)

    def generate_pairs(self, done: Callable[[int], Any]) -> None:
        """Let the teacher generate all batches of pairs that are not on the disk yet.

        Raises:
            UserError: the disk is full or can't be written; what was generated stays.
        """
        self.pairs_folder.mkdir(parents=True, exist_ok=True)
        for number in (*self.validation, *self.learned):
            path = self.pairs_folder / f"{number:06}.safetensors"
            if not path.is_file():
                seen, rows = self.question(number)
                lots = torch.Generator().manual_seed(mix(self.seed, number))
                with torch.no_grad(), autocast(self.precision, self.device):
                    samples = self.model.sample(
                        self.encoded, self.column, seen, rows, lots, name="flow", **self.teacher_options
                    )
                try:
                    with atomic_write(path) as part:
                        save_file({"drawn": samples.tokens.float().contiguous().cpu()}, part)
                except (OSError, SafetensorError) as error:
                    raise UserError(
                        f"Can't write '{path}': {getattr(error, 'strerror', None) or error}. Free some space and go "
                        "on with --resume."
                    ) from error
            done(self.batch)

    def pair(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise and what the teacher made of it, [batch, k, width of a vector] each.

        Raises:
            UserError: what was generated can't be read.
        """
        path = self.pairs_folder / f"{number:06}.safetensors"
        try:
            target = load_file(path)["drawn"]
        except (OSError, KeyError, SafetensorError) as error:
            raise UserError(f"'{path}' can't be read: {error}. Distil again without --resume.") from error
        # The first that a flow draws is the noise.
        noise = torch.randn(
            (*target.shape[:2], self.noise_width),
            generator=torch.Generator().manual_seed(mix(self.seed, number)),
        )
        return noise, target

    # --- training -----------------------------------------------------------------------------------------------------

    def make(self, step: int) -> tuple[int, torch.Tensor, torch.Tensor]:
        epoch, at = divmod(step, len(self.learned))
        number = self.learned[np.random.default_rng([self.seed, 1, epoch]).permutation(len(self.learned))[at]]
        return number, *self.pair(number)

    def row_count(self, *work: Any) -> int:
        return len(work[1])

    def to_device(self, *work: Any) -> tuple[Any, ...]:
        number, noise, target = work
        return number, noise.to(self.device), target.to(self.device)

    def losses(self, *work: Any) -> dict[str, torch.Tensor]:
        number, noise, target = work
        finite = target.isfinite().all(-1).all(-1)
        with autocast(self.precision, self.device):
            hidden, made = self.output(self.student, number, noise)
            made, target, hidden = made[finite], target[finite], hidden[finite]
            result = {"near": (made - target).abs().mean()}
            if self.adversary and len(made):
                noisy = NOISE_DEVIATION * torch.randn_like(target)
                fooling, judging, slope = adversarial_losses(
                    self.objectives["judge"], target, made, noisy, hidden, some=SLOPE_ROWS
                )
                result |= {
                    "fooling": self.adversary * fooling.mean(),
                    "judging": self.adversary * judging.mean() + self.steep * slope.mean(),
                }
        return result

    def output(self, student: Onestep, number: int, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The trunk's hidden for a student [batch, k, width], and the student's output, [batch, k, width of a
        vector]."""
        seen, rows = self.question(number)
        with torch.no_grad():
            trunk = self.model.conditioned_trunk(self.encoded, self.column, seen, rows, "flow")
        hidden = trunk(student.noise_tokens(noise))
        return hidden, student.made(hidden, noise)

    @torch.no_grad()
    def distance(self, student: Onestep) -> float:
        """Mean absolute distance between the outputs of a student and of the teacher, on validation pairs.

        Raises:
            UserError: of nothing that the teacher generated the numbers are finite.
        """
        found = []
        for number in self.validation:
            noise, target = (part.to(self.device) for part in self.pair(number))
            with autocast(self.precision, self.device):
                made = self.output(student, number, noise)[1]
            found.append((made - target)[target.isfinite().all(-1).all(-1)].abs().flatten())
        whole = torch.cat(found)
        if not len(whole):
            raise UserError(
                f"There is nothing to learn from: of {len(self.validation) * self.batch:,} cells of '{self.column}' "
                f"that flow generated with {self.teacher_options} none has finite numbers. Generate with less "
                "distill.guidance or more distill.steps."
            )
        return float(whole.mean())


def train_student(
    trainer: DistillationTrainer,
    resume: bool,
    advance: Callable[[float, str], Any],
    note: Callable[[str], None],
) -> tuple[Onestep, dict[str, Any]]:
    """Train on the pairs that were generated; where that was stopped, the student is as it was then.

    Args:
        advance: of a progress bar, by a share of the run, with the loss.

    Returns:
        the student, and facts: ``seconds``, ``steps``, ``stopped``; ``away``: its mean distance from the teacher's
        output on validation pairs, and ``teacher_away``: the distance of the teacher's own first guess.
    """
    weights = [p for p in trainer.model.parameters() if p.requires_grad]
    for parameter in weights:
        parameter.requires_grad_(False)
    try:
        before = trainer.distance(trainer.student)
        resume_from_checkpoint(trainer, resume, note)
        at = run_with_bar(trainer, advance, lambda values: f"loss {values['loss']:.3f}")
        return trainer.student, {
            "seconds": round(at.seconds, 2),
            "steps": at.step,
            "stopped": at.stopped,
            "pairs": trainer.batch * len(trainer.learned),
            "away": round(trainer.distance(trainer.student), 4),
            "teacher_away": round(before, 4),
        }
    finally:
        for parameter in weights:
            parameter.requires_grad_(True)


class Distillation(Recipe):
    """Distillation of a column's flow: a generator ``onestep`` more; all else of the network stays as it is.

    Args:
        column: of pictures, sounds, clips or series.
    """

    section = "distill"
    settings_class = DistillationSettings

    def __init__(self, column: str) -> None:
        self.column = column

    def check(self, trained: Trained) -> None:
        network = trained.network
        trained.check_asked(self.column, None)
        if "flow" not in network.generator_keys[self.column]:
            able = [c for c in network.generative_columns if "flow" in network.generator_keys[c]]
            raise UserError(
                f"'{self.column}' is not generated by flow, which alone can be distilled. Possible: "
                f"{', '.join(able) or 'none'}."
            )

    def folder_name(self, trained: Trained) -> str:
        return f"distill-{slug(self.column, trained.columns.index(self.column))}"

    def run(
        self,
        trained: Trained,
        table: Table,
        folder: Path,
        settings: Mapping[str, Any],
        options: RunOptions,
    ) -> dict[str, Any]:
        if not table.rows:
            raise UserError(f"'{table.name}' has no rows to generate from.")
        network, column = trained.network, self.column
        known = trained_on(trained.folder, table, trained.columns)
        every = np.arange(table.rows) if known is None or not known.any() else np.flatnonzero(known)
        chosen = table.select(evenly_spaced(every, MAX_TEACHER_ROWS))
        seen = [c for c in trained.columns if c != column]
        rows = trained.rows(chosen, seen, options.note)
        content = int(row_hashes(chosen, [c for c in seen if c in chosen.columns]).sum(dtype=np.uint64))
        trainer = DistillationTrainer(
            network,
            rows,
            column,
            make_sampler(network, (), {"questions": plain(trained.settings, "questions")}),
            folder,
            options.seed,
            options.minutes,
            options.epochs,
            DistillationSettings(**grouped_arguments(DistillationSettings, settings)),
        )
        described = {
            "table": table.name,
            "rows": rows.count,
            "content": content,
            "column": column,
            "seed": options.seed,
            "settings": dict(settings),
            "teacher": digest_of(network),
        }
        begin(folder, described, options.resume)
        student, facts = distill(trainer, options.resume, options.quiet)
        if not facts["stopped"]:
            shutil.rmtree(folder, ignore_errors=True)
        network.add_generator(column, student.eval())
        own = trained.settings
        own["taught"] = {**own.get("taught", {}), column: ["onestep"]}
        own["generator"] = {**own.get("generator", {}), "onestep": student.sizes}
        return {"distilled": {**trained.facts.get("distilled", {}), column: facts}}


def distill(trainer: DistillationTrainer, resume: bool, quiet: bool) -> tuple[Onestep, dict[str, Any]]:
    """Let the teacher generate the pairs, and train the student; see ``train_student``."""
    with ProgressReporter(quiet) as progress:
        count = trainer.batch * (len(trainer.validation) + len(trainer.learned))
        with progress.bar(f"Generating {trainer.column} to learn from", count) as advance:
            try:
                trainer.generate_pairs(advance)
            except KeyboardInterrupt:
                progress.log("What was generated is saved: go on with --resume.")
                raise
        with progress.bar("Learning to generate it in one step", 1.0) as advance:
            return train_student(trainer, resume, advance, progress.log)
