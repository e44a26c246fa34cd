"""Distil: what a run draws in many steps, taught to a student that draws it in one.

The teacher draws pictures (sounds, clips, series) from what rows show; the student learns to say each at once from the noise that it was made of
(arXiv 2101.02388), and so that a judge can't tell the two apart (arXiv 2405.05967). The rest of the network stays as it is.

    FOLDER/ lesson.json pairs/ checkpoints/
"""

from __future__ import annotations

import dataclasses
import hashlib
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
from sensorium.core.settings import at_least, check, grouped_arguments
from sensorium.generators.flow import Flow
from sensorium.generators.onestep import Onestep
from sensorium.inference.rows import Rows
from sensorium.network.build import plain
from sensorium.network.network import Network
from sensorium.nn.discriminator import NOISE_DEVIATION, Discriminator, adversarial_losses
from sensorium.nn.precision import autocast
from sensorium.posttraining.adapter_training import begin
from sensorium.training.build import make_sampler
from sensorium.training.questions import QuestionSampler
from sensorium.training.settings import PostTrainingSettings, TrainerSettings
from sensorium.training.trainer import Trainer, asked_length

SELDOM = slice(None, None, 4)
"""Rows at which the judge's slope is felt, which takes two more looks."""
MINUTES = 10.0
MOST = 20_000
"""Rows that the teacher is asked about, evenly spread where there are more; all are held in memory."""

HELD = 16
"""One batch of pairs of so many is not learned from, but tells how near the student comes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """Teaches a student what a column's flow draws (section ``distill``).

    Args:
        pairs: cells that the teacher draws to learn from; steps, guidance: how it draws them, as in `generate`.
        batch: pairs a step. adversary: what a judge's word counts beside the distance to what the teacher drew;
            judge: its blocks; steep: weight of its slope.
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
        self.asked, self.column, self.rows, self.sampler = network, column, rows, sampler
        self.how = {"steps": settings.steps, "guidance": settings.guidance}
        self.drawn, self.batch = folder / "pairs", settings.batch
        self.adversary, self.steep = settings.adversary, settings.steep
        count = max(2, math.ceil(settings.pairs / self.batch))
        self.held = list(range(0, count, HELD))
        self.learned = [number for number in range(count) if number % HELD]
        device = next(network.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, 0))
            student = student_of(teacher).to(device)
            width = round(teacher.expand * teacher.width)
            against = Discriminator(teacher.output_tokens, teacher.width, settings.judge, width).to(device)
        judges = {"judge": against} if self.adversary else {}
        super().__init__(student, judges, folder / "checkpoints", seed, minutes, settings.trainer)
        self.steps = None if epochs is None else math.ceil(epochs * len(self.learned))
        # What was computed in inference mode can't be learned through.
        self.shown = {
            c: dataclasses.replace(
                part, **{name: value.clone() for name, value in vars(part).items() if torch.is_tensor(value)}
            )
            for c, part in rows.encoded_columns([c for c in network.columns if c != column]).items()
        }

    # --- what the teacher draws ---------------------------------------------------------------------------------------

    def question(self, number: int) -> tuple[tuple[str, ...], torch.Tensor]:
        """What the rows of a batch of pairs show, and which rows they are [batch]; the same for the same number."""
        rng = np.random.default_rng([self.seed, number])
        seen = self.sampler.seen_for_generation(rng, self.asked.columns, self.column)
        return seen, torch.from_numpy(rng.integers(self.rows.count, size=self.batch)).to(self.device)

    def draw(self, done: Callable[[int], None]) -> None:
        """Let the teacher draw all batches of pairs that are not on the disk yet.

        Raises:
            UserError: the disk is full or can't be written; what was drawn stays.
        """
        self.drawn.mkdir(parents=True, exist_ok=True)
        for number in (*self.held, *self.learned):
            path = self.drawn / f"{number:06}.safetensors"
            if not path.is_file():
                seen, rows = self.question(number)
                lots = torch.Generator().manual_seed(mix(self.seed, number))
                with torch.no_grad(), autocast(self.precision, self.device):
                    said = self.asked.sample(self.shown, self.column, seen, rows, lots, name="flow", **self.how)
                try:
                    with atomic_write(path) as part:
                        save_file({"drawn": said.tokens.float().contiguous().cpu()}, part)
                except (OSError, SafetensorError) as error:
                    raise UserError(
                        f"Can't write '{path}': {getattr(error, 'strerror', None) or error}. Free some space and go on with --resume."
                    ) from error
            done(self.batch)

    def pair(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise and what the teacher made of it, [batch, k, width of a vector] each.

        Raises:
            UserError: what was drawn can't be read.
        """
        path = self.drawn / f"{number:06}.safetensors"
        try:
            drawn = load_file(path)["drawn"]
        except (OSError, KeyError, SafetensorError) as error:
            raise UserError(f"'{path}' can't be read: {error}. Distil again without --resume.") from error
        # The first that a flow draws is the noise.
        return torch.randn(
            *drawn.shape[:2],
            self.network.latent_tokens.width,
            generator=torch.Generator().manual_seed(mix(self.seed, number)),
        ), drawn

    # --- the lesson ---------------------------------------------------------------------------------------------------

    def make(self, step: int) -> tuple[int, torch.Tensor, torch.Tensor]:
        passed, at = divmod(step, len(self.learned))
        number = self.learned[np.random.default_rng([self.seed, 1, passed]).permutation(len(self.learned))[at]]
        return number, *self.pair(number)

    def size(self, number: int, noise: torch.Tensor, drawn: torch.Tensor) -> int:
        return len(noise)

    def placed(self, number: int, noise: torch.Tensor, drawn: torch.Tensor) -> tuple[Any, ...]:
        return number, noise.to(self.device), drawn.to(self.device)

    def losses(self, number: int, noise: torch.Tensor, drawn: torch.Tensor) -> dict[str, torch.Tensor]:
        whole = drawn.isfinite().all(-1).all(-1)
        with autocast(self.precision, self.device):
            hidden, made = self.said(self.network, number, noise)
            made, drawn, hidden = made[whole], drawn[whole], hidden[whole]
            result = {"near": (made - drawn).abs().mean()}
            if self.adversary and len(made):
                fooling, judging, slope = adversarial_losses(
                    self.objectives["judge"],
                    drawn,
                    made,
                    NOISE_DEVIATION * torch.randn_like(drawn),
                    hidden,
                    some=SELDOM,
                )
                result |= {
                    "fooling": self.adversary * fooling.mean(),
                    "judging": self.adversary * judging.mean() + self.steep * slope.mean(),
                }
        return result

    def said(self, student: Onestep, number: int, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the trunk says to a student [batch, k, width], and what this makes of it, [batch, k, width of a vector]."""
        seen, rows = self.question(number)
        with torch.no_grad():
            listener = self.asked.conditioned_trunk(self.shown, self.column, seen, rows, "flow")
        hidden = listener(student.noise_tokens(noise))
        return hidden, student.made(hidden, noise)

    @torch.no_grad()
    def away(self, student: Onestep) -> float:
        """How far a student is from what the teacher drew, in the mean over the numbers of pairs that are held out.

        Raises:
            UserError: of nothing that the teacher drew the numbers are finite.
        """
        found = []
        for number in self.held:
            noise, drawn = (part.to(self.device) for part in self.pair(number))
            with autocast(self.precision, self.device):
                made = self.said(student, number, noise)[1]
            found.append((made - drawn)[drawn.isfinite().all(-1).all(-1)].abs().flatten())
        whole = torch.cat(found)
        if not len(whole):
            raise UserError(
                f"There is nothing to learn from: of {len(self.held) * self.batch:,} cells of '{self.column}' that flow drew with {self.how} none has finite numbers. "
                "Draw with less distill.guidance or more distill.steps."
            )
        return float(whole.mean())


def student_of(teacher: Flow) -> Onestep:
    """A student that knows what the teacher knows: asked at the first moment, it says what the teacher says there."""
    student = Onestep(
        teacher.output_tokens,
        teacher.width,
        depth=teacher.depth,
        expand=teacher.expand,
        latents=teacher.latent_tokens.width if teacher.coder else 0,
        coder=teacher.channels,
    )
    student.net.load_state_dict({name: value for name, value in teacher.net.state_dict().items() if name != "told"})
    if teacher.coder is not None:
        student.coder.load_state_dict(teacher.coder.state_dict())
    return student


def digest_of(network: Network) -> str:
    """A digest of all that a student learns from: the network without students."""
    students = tuple(
        f"generators.{key}."
        for ways in network.generator_keys.values()
        for key in ways.values()
        if network.generators[key].teacher
    )
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        if not name.startswith(students):
            found.update(
                value.detach().cpu().contiguous().view(torch.uint8).numpy().data
                if value.ndim
                else str(value.item()).encode()
            )
    return found.hexdigest()


def teach(
    lesson: DistillationTrainer, resume: bool, learning: Callable[[float, str], None], note: Callable[[str], None]
) -> tuple[Onestep, dict[str, Any]]:
    """Learn what was drawn; where that was stopped, the student is as it was then.

    Args:
        learning: hears what share of the lesson more is over, and the loss.

    Returns:
        the student, and what is known of it: ``seconds``, ``steps``, ``stopped``; ``away``: how far it is from what the teacher drew, the mean over
        the numbers of pairs that it did not learn from, and ``teacher_away``: how far the teacher's own first guess is.
    """
    weights = [p for p in lesson.asked.parameters() if p.requires_grad]
    for parameter in weights:
        parameter.requires_grad_(False)
    try:
        before = lesson.away(lesson.network)
        if resume and any(lesson.folder.glob("step-*")):
            for wrong in lesson.resume():
                note(f"Warning: {wrong}")
        told = [lesson.at.share]

        def log(at: Any, values: dict[str, float]) -> None:
            learning(min(at.share, 1.0) - told[0], f"loss {values['loss']:.3f}" if values else "skipped")
            told[0] = min(at.share, 1.0)

        at = lesson.run(log)
        student = lesson.network
        return student, {
            "seconds": round(at.seconds, 2),
            "steps": at.step,
            "stopped": at.stopped,
            "pairs": lesson.batch * len(lesson.learned),
            "away": round(lesson.away(student), 4),
            "teacher_away": round(before, 4),
        }
    finally:
        for parameter in weights:
            parameter.requires_grad_(True)


def distill(
    network: Network,
    rows: Rows,
    column: str,
    folder: Path,
    *,
    minutes: float | None,
    epochs: float | None,
    seed: int,
    resume: bool,
    settings: Mapping[str, Any],
    described: Mapping[str, Any],
    quiet: bool,
) -> tuple[Onestep, dict[str, Any]]:
    """A student of a column's flow, and what is known of it: see ``teach``.

    Args:
        rows: what the teacher is asked about; folder: for what a lesson can be gone on with from, removed when it is over.
        settings: of sections ``distill`` and ``sample``; described: what else a lesson that goes on must have in common with its beginning.

    Raises:
        UserError: a setting that isn't there or is out of range, or a lesson that can't be gone on with.
    """
    minutes, epochs = asked_length(seed, minutes, epochs, MINUTES)
    chosen = check(DistillationSettings, plain(settings, "distill"), "distill")
    lesson = DistillationTrainer(
        network,
        rows,
        column,
        make_sampler(network, (), {"questions": plain(settings, "questions")}),
        folder,
        seed,
        minutes,
        epochs,
        DistillationSettings(**grouped_arguments(DistillationSettings, chosen)),
    )
    begin(
        folder, {**described, "column": column, "seed": seed, "settings": chosen, "teacher": digest_of(network)}, resume
    )
    with ProgressReporter(quiet) as shown:
        with shown.bar(
            f"Drawing {column} to learn from", lesson.batch * (len(lesson.held) + len(lesson.learned))
        ) as drawing:
            try:
                lesson.draw(drawing)
            except KeyboardInterrupt:
                shown.log("What was drawn to learn from is kept: go on with --resume.")
                raise
        with shown.bar("Learning to draw it in one step", 1.0) as learning:
            student, facts = teach(lesson, resume, learning, shown.log)
    if not facts["stopped"]:
        shutil.rmtree(folder, ignore_errors=True)
    return student, facts
