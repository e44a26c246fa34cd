"""Trainer: one step after another until its time or its steps are over, stopped and resumed anywhere.

It knows no table and no modality. Everything random is a function of (seed, step), so a run that was stopped goes on to
the same numbers.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sensorium.core.errors import UserError
from sensorium.core.seeds import mix
from sensorium.nn.precision import choose
from sensorium.training import checkpoint
from sensorium.training.optimizer import Optimizer, clip
from sensorium.training.prefetch import Prefetcher
from sensorium.training.settings import TrainerSettings

WARMUP_SHARE = 0.1
"""Share of a run by which the learning rate is at its peak, however few its steps are."""


@dataclasses.dataclass
class Progress:
    """Progress of a run. ``share`` is the part of its time or steps that is over."""

    step: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    skipped: int = 0
    rows: int = 0
    share: float = 0.0
    stopped: bool = False


class Trainer(abc.ABC):
    """Trainer of a network on what ``make`` gives for each step.

    Args:
        network: what is learned and kept; objectives: modules that learn beside it.
        folder: of the checkpoints; minutes: how long, where ``steps`` isn't given.
        settings: of the optimizer, its schedule, precision and checkpoints.
    """

    steps: int | None = None
    section: str = "train"
    """Of its settings."""

    def __init__(
        self,
        network: nn.Module,
        objectives: Mapping[str, nn.Module],
        folder: Path,
        seed: int,
        minutes: float | None,
        settings: TrainerSettings,
    ) -> None:
        settings.validate(self.section)
        self.network, self.objectives = network, nn.ModuleDict(objectives)
        self.folder, self.seed, self.minutes = folder, seed, minutes
        self.device = next(network.parameters()).device
        self.precision = choose(settings.precision, self.device)
        self.optimizer = Optimizer(
            [network, self.objectives],
            name=settings.optimizer,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            beta1=settings.beta1,
            beta2=settings.beta2,
        )
        self.accumulate, self.clip = settings.accumulate, settings.max_grad_norm
        self.warmup, self.fall = settings.warmup_steps, settings.lr_power
        self.ema_decay = settings.ema_decay
        self.ema = {k: v.detach().clone().float() for k, v in network.named_parameters()} if self.ema_decay else {}
        self.checkpoint_minutes, self.checkpoint_steps = settings.checkpoint_minutes, settings.checkpoint_steps
        self.at = Progress()

    @abc.abstractmethod
    def make(self, step: int) -> tuple[Any, ...]:
        """Batch of a step, from (seed, step) only; made ahead in another thread."""

    @abc.abstractmethod
    def losses(self, *work: Any, **_: Any) -> dict[str, torch.Tensor]:
        """Losses of a step, which are added, from what ``make`` gave, on the device."""

    def to_device(self, *work: Any, **_: Any) -> tuple[Any, ...]:
        """Output of ``make``, on the device. Default: as it is."""
        return work

    @abc.abstractmethod
    def row_count(self, *work: Any, **_: Any) -> int:
        """Number of rows of a step."""

    def release(self) -> None:
        """Release memory, now and then. Default: there is none."""

    # --- one step -----------------------------------------------------------------------------------------------------

    def training_step(self, step: int, *work: Any) -> dict[str, float] | None:
        """Gradients of one step, and an update where enough are accumulated; None where the step was skipped."""
        torch.manual_seed(mix(self.seed, step, -1))
        losses = self.losses(*self.to_device(*work))
        total = sum(losses.values())
        if not torch.is_tensor(total) or not total.requires_grad:
            return None
        if math.isfinite(float(total.detach())):
            self.backward(losses)
        else:
            self.optimizer.zero()
            return None
        values = {"loss": float(total.detach()), **{name: float(loss.detach()) for name, loss in losses.items()}}
        if (step + 1) % self.accumulate == 0:
            norm = self.clip_gradients()
            if not math.isfinite(norm):
                self.optimizer.zero()
                return None
            warm = max((step + 1) / max(self.warmup, 1), self.at.share / WARMUP_SHARE)
            share = min(warm, 1.0) * max(1 - self.at.share, 0.0) ** self.fall
            self.optimizer.step(share)
            self.optimizer.zero()
            values |= {"gradient": norm, "lr": self.optimizer.peak * share}
            if self.ema:
                done = (
                    step + 1
                ) // self.accumulate  # a mean over more steps than there were would hold on to the first weights
                decay = min(self.ema_decay, (1 + done) / (10 + done))
                with torch.no_grad():
                    for key, parameter in self.network.named_parameters():
                        self.ema[key].lerp_(parameter.float(), 1 - decay)
        return values

    def backward(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Backward pass of a step's losses. Default: of their sum."""
        torch.as_tensor(sum(losses.values()) / self.accumulate).backward()

    def clip_gradients(self) -> float:
        """Scale the gradients so that their norm is at most ``clip``; the norm before (may be infinite or NaN)."""
        return clip(self.optimizer.parameters.values(), self.clip)

    # --- the whole run ------------------------------------------------------------------------------------------------

    def run(self, log: Callable[[Progress, dict[str, float]], None] = lambda at, values: None) -> Progress:
        """Train to the end, or until Ctrl-C or SIGTERM, which save first."""
        stop = threading.Event()
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, lambda *_: stop.set())
        ahead = Prefetcher(self.make, self.at.step)
        saved, started = time.monotonic(), time.monotonic() - self.at.seconds
        self.network.train()
        try:
            while not stop.is_set() and not self.finished():
                wait = time.perf_counter()
                work = ahead.next()
                self.at.waited += time.perf_counter() - wait
                values = self.training_step(self.at.step, *work)
                self.at.step += 1
                self.at.rows += self.row_count(*work)
                self.at.seconds = time.monotonic() - started
                self.at.share = (
                    self.at.step / self.steps if self.steps else self.at.seconds / (60 * (self.minutes or 0))
                )
                if values is None:
                    self.at.skipped += 1
                    if self.at.skipped > 100 and self.at.skipped > self.at.step / 2:
                        raise UserError(
                            f"{self.at.skipped} of {self.at.step} steps had a loss or gradient that isn't finite. "
                            f"Lower {self.section}.lr, or set "
                            f"{'train' if self.section == 'finish' else self.section}.precision=fp32."
                        )
                log(self.at, values or {})
                if self.at.step % 64 == 0:
                    self.release()
                due = time.monotonic() - saved > 60 * self.checkpoint_minutes
                if self.at.step % self.checkpoint_steps == 0 if self.checkpoint_steps else due:
                    self.save()
                    saved = time.monotonic()
            self.at.stopped = not self.finished()
            self.save()
        finally:
            ahead.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        self.network.eval()
        if self.ema:
            self.network.load_state_dict({k: v.to(self.device) for k, v in self.ema.items()}, strict=False)
        return self.at

    def finished(self) -> bool:
        """True where the time or the steps are used up."""
        return self.at.step >= self.steps if self.steps is not None else self.at.seconds >= 60 * (self.minutes or 0)

    # --- stop and go on -----------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint."""
        tensors = {
            "network": dict(self.network.state_dict()),
            "objectives": dict(self.objectives.state_dict()),
            "optimizer": self.optimizer.tensors(),
            "ema": self.ema,
        }
        gradients = {k: p.grad for k, p in self.optimizer.parameters.items() if p.grad is not None}
        checkpoint.write(
            self.folder,
            self.at.step,
            {**tensors, "gradients": gradients},
            {
                "progress": dataclasses.asdict(self.at),
                "precision": self.precision,
                **self.identity(),
            },
        )

    def identity(self) -> dict[str, Any]:
        """Settings that a run must have in common with the checkpoint that it goes on from."""
        return {"seed": self.seed}

    def resume(self) -> list[str]:
        """Restore the newest usable checkpoint; what was wrong with newer ones."""
        groups, state, wrong = checkpoint.read(self.folder)
        self.prepare(state)
        mine = self.identity()
        if any(state.get(key) != value for key, value in mine.items()):
            then, now = (" and ".join(f"{key} {found.get(key)}" for key in mine) for found in (state, mine))
            raise UserError(
                f"The checkpoint was written with {then}; this run has {now}. Resume with the same settings."
            )
        self.network.load_state_dict(groups["network"])
        self.objectives.load_state_dict(groups["objectives"])
        self.optimizer.load_tensors(groups["optimizer"])
        for key, value in groups["gradients"].items():
            self.optimizer.parameters[key].grad = value.to(self.device)
        self.ema = {k: v.to(self.device) for k, v in groups["ema"].items()}
        self.precision = state["precision"]
        self.at = Progress(**{**state["progress"], "stopped": False})
        return wrong

    def prepare(self, state: Mapping[str, Any]) -> None:
        """Restore from a checkpoint's state what this run may. Default: nothing."""


def asked_length(
    seed: int, minutes: float | None, epochs: float | None, usual: float
) -> tuple[float | None, float | None]:
    """Length of a run in minutes, or else epochs: ``usual`` minutes if neither is given.

    Raises:
        UserError: a seed or a length that is out of range.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed} is out of range. Give a whole number from 0 on, below 2^63.")
    for name, value in (("minutes", minutes), ("epochs", epochs)):
        if value is not None and not value > 0:
            raise UserError(f"--{name} {value} leaves no time to learn. Give a number above 0.")
    if minutes is None and epochs is None:
        minutes = usual
    return minutes, None if minutes else epochs
