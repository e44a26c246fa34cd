"""The training loop: batches in order, one step after another, until time or epochs are over.

It knows a network, objectives and plans, no modality. Everything random is a function of (seed, step), so a run that
was stopped anywhere goes on to the same numbers.
"""

from __future__ import annotations

import dataclasses
import json
import math
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from sensorium.core.errors import UserError
from sensorium.core.settings import at_least
from sensorium.data.batch import Batch, collate
from sensorium.data.order import Order
from sensorium.data.sample import Plan, Sampler
from sensorium.data.store import Store
from sensorium.layers.precision import Precision, autocast, choose
from sensorium.modalities import Modality
from sensorium.network import Network
from sensorium.objectives import Objective
from sensorium.train import checkpoint
from sensorium.train.optimizer import Name, Optimizer, clip

MASK = 2**63 - 1
WARM = 0.1
"""Share of a run by which the learning rate is at its peak, however few its steps are."""


@dataclasses.dataclass
class Progress:
    """Where a run stands. ``share`` is the part of its time or steps that is over."""

    step: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    skipped: int = 0
    rows: int = 0
    share: float = 0.0
    stopped: bool = False


class Loop:
    """Trains a network on a prepared table.

    Args:
        things: for each row of the store the number of what it is of (``data.same``), int64; None where nothing says so.
        batch: rows a step; 0 chooses by memory and table. accumulate: steps whose gradients are added to one update.
        optimizer, lr, decay, beta1, beta2: see ``Optimizer``.
        warmup: steps until the learning rate is at its peak, at most a tenth of the run; fall: it falls as (1 - share of the run)^fall.
        clip: the largest norm of a gradient. ema: decay of the running mean of weights that is kept as the result; 0: off.
        precision: auto, fp32 or bf16. checkpoint_minutes: minutes between checkpoints; checkpoint_steps: or steps, if not 0.
    """

    def __init__(
        self,
        network: Network,
        objectives: Mapping[str, Objective],
        modalities: Mapping[str, Modality],
        store: Store,
        rows: Any,
        sampler: Sampler,
        folder: Path,
        seed: int,
        minutes: float | None,
        epochs: float | None,
        things: np.ndarray | None = None,
        *,
        batch: int = 128,
        accumulate: int = 1,
        optimizer: Name = "muon",
        lr: float = 5e-3,
        decay: float = 0.5,
        beta1: float = 0.9,
        beta2: float = 0.98,
        warmup: int = 40,
        fall: float = 0.8,
        clip: float = 2.0,
        ema: float = 0.0,
        precision: Precision = "auto",
        checkpoint_minutes: float = 2.0,
        checkpoint_steps: int = 0,
    ) -> None:
        at_least("train", 1, accumulate=accumulate)
        at_least("train", 0, batch=batch, lr=lr, decay=decay, beta1=beta1, beta2=beta2, warmup=warmup, fall=fall, clip=clip, ema=ema,
                 checkpoint_minutes=checkpoint_minutes, checkpoint_steps=checkpoint_steps)
        for key, value in (("ema", ema), ("beta1", beta1), ("beta2", beta2)):
            if not value < 1:
                raise UserError(f"train.{key}={value} never forgets. Give a number below 1, for instance 0.99.")
        self.network, self.objectives = network, nn.ModuleDict(objectives)
        self.modalities, self.store, self.sampler = modalities, store, sampler
        self.folder, self.seed, self.minutes = folder, seed, minutes
        self.device = next(network.parameters()).device
        self.precision = choose(precision, self.device)
        self.rows, self.epochs, self.things, self.automatic = rows, epochs, things, batch == 0
        self.arrange(batch or automatic_batch(self, rows))
        self.optimizer = Optimizer([network, self.objectives], name=optimizer, lr=lr, decay=decay, beta1=beta1, beta2=beta2)
        self.accumulate, self.warmup, self.fall, self.clip = accumulate, warmup, fall, clip
        self.ema_decay = ema
        self.ema = {k: v.detach().clone().float() for k, v in network.named_parameters()} if ema else {}
        self.checkpoint_minutes, self.checkpoint_steps = checkpoint_minutes, checkpoint_steps
        self.at = Progress()

    def arrange(self, batch: int) -> None:
        """Deal the rows out in batches of this size."""
        self.batch, self.order = batch, Order(self.rows, batch, self.seed, self.things)
        self.steps = math.ceil(self.epochs * self.order.steps) if self.epochs is not None else None

    # --- one step -----------------------------------------------------------------------------------------------------

    def make(self, step: int) -> tuple[Batch, list[Plan]]:
        """The augmented batch and the plans of a step, from (seed, step) alone."""
        rows, seed = self.order.at(step), (self.seed & MASK, step)
        columns = [c for c in self.sampler.looked_at(seed) if c in self.store.columns]
        batch = collate(self.modalities, {c: self.store.cells(c, rows) for c in columns}, len(rows))
        for number, column in enumerate(self.network.columns):
            if column in batch.cells:
                generator = torch.Generator().manual_seed(mix(self.seed, step, number))
                batch.cells[column] = self.modalities[column].augment(batch.cells[column], generator)
        if self.things is not None:
            batch.things = torch.from_numpy(self.things[rows])
        return batch, self.sampler.draw(len(rows), seed)

    def losses(self, batch: Batch, plans: Sequence[Plan]) -> dict[str, torch.Tensor]:
        """Every objective's losses on one batch."""
        with autocast(self.precision, self.device):
            step = self.network(batch, plans)
            result: dict[str, torch.Tensor] = {}
            for objective in self.objectives.values():
                result |= objective(step)
        return result

    def learn(self, step: int, batch: Batch, plans: Sequence[Plan]) -> dict[str, float] | None:
        """Gradients of one step, and an update where enough are gathered; None where the step was skipped."""
        torch.manual_seed(mix(self.seed, step, -1))
        losses = self.losses(batch.to(self.device), plans)
        total = sum(losses.values())
        if not torch.is_tensor(total) or not total.requires_grad:
            return None
        if math.isfinite(float(total.detach())):
            (total / self.accumulate).backward()
        else:
            self.optimizer.zero()
            return None
        values = {"loss": float(total.detach()), **{name: float(loss.detach()) for name, loss in losses.items()}}
        if (step + 1) % self.accumulate == 0:
            norm = clip(self.optimizer.parameters.values(), self.clip)
            if not math.isfinite(norm):
                self.optimizer.zero()
                return None
            warm = max((step + 1) / max(self.warmup, 1), self.at.share / WARM)
            share = min(warm, 1.0) * max(1 - self.at.share, 0.0) ** self.fall
            self.optimizer.step(share)
            self.optimizer.zero()
            values |= {"gradient": norm, "lr": self.optimizer.peak * share}
            if self.ema:
                with torch.no_grad():
                    for key, parameter in self.network.named_parameters():
                        self.ema[key].lerp_(parameter.float(), 1 - self.ema_decay)
        return values

    def share_of_generating(self) -> float:
        """The share of a step's time that questions take whose answers are drawn: one step measured with them and one without."""
        batch, plans = self.make(self.at.step)
        others = [plan for plan in plans if not set(plan.asked) & set(self.network.drawn_columns)]
        batch, spent = batch.to(self.device), []
        for some in (plans, plans, others):  # the first is not counted: its kernels are still to be made
            started = time.perf_counter()
            total = sum(self.losses(batch, some).values())
            if torch.is_tensor(total) and total.requires_grad:  # of drawing alone nothing may be left
                total.backward()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            spent.append(time.perf_counter() - started)
            self.optimizer.zero()
        return max(0.0, 1 - spent[2] / spent[1])

    # --- the whole run ------------------------------------------------------------------------------------------------

    def run(self, log: Callable[[Progress, dict[str, float]], None] = lambda at, values: None) -> Progress:
        """Train to the end, or until Ctrl-C or SIGTERM, which save first."""
        stop = threading.Event()
        before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, lambda *_: stop.set())
        ahead = Ahead(self.make, self.at.step)
        saved, started = time.monotonic(), time.monotonic() - self.at.seconds
        self.network.train()
        try:
            while not stop.is_set() and not self.over():
                wait = time.perf_counter()
                batch, plans = ahead.next()
                self.at.waited += time.perf_counter() - wait
                values = self.learn(self.at.step, batch, plans)
                self.at.step += 1
                self.at.rows += batch.rows
                self.at.seconds = time.monotonic() - started
                self.at.share = self.at.step / self.steps if self.steps else self.at.seconds / (60 * self.minutes)
                if values is None:
                    self.at.skipped += 1
                    if self.at.skipped > 100 and self.at.skipped > self.at.step / 2:
                        raise UserError(
                            f"{self.at.skipped} of {self.at.step} steps had a loss or gradient that isn't finite. "
                            "Lower train.lr, or set train.precision=fp32."
                        )
                log(self.at, values or {})
                if self.at.step % 64 == 0:
                    self.store.release()
                due = time.monotonic() - saved > 60 * self.checkpoint_minutes
                if self.at.step % self.checkpoint_steps == 0 if self.checkpoint_steps else due:
                    self.save()
                    saved = time.monotonic()
            self.at.stopped = not self.over()
            self.save()
        finally:
            ahead.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        self.network.eval()
        if self.ema:
            self.network.load_state_dict({k: v.to(self.device) for k, v in self.ema.items()}, strict=False)
        return self.at

    def over(self) -> bool:
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
        checkpoint.write(self.folder, self.at.step, {**tensors, "gradients": gradients}, {
            "progress": dataclasses.asdict(self.at), "batch": self.batch, "precision": self.precision, "seed": self.seed,
        })

    def resume(self) -> list[str]:
        """Go back to the newest usable checkpoint; what was wrong with newer ones."""
        groups, state, wrong = checkpoint.read(self.folder)
        if self.automatic and state["batch"] != self.batch:  # memory was freer or scarcer then
            self.arrange(state["batch"])
        if state["seed"] != self.seed or state["batch"] != self.batch:
            raise UserError(
                f"The checkpoint was written with seed {state['seed']} and batch {state['batch']}; this run has seed "
                f"{self.seed} and batch {self.batch}. Resume with the same settings."
            )
        self.network.load_state_dict(groups["network"])
        self.objectives.load_state_dict(groups["objectives"])
        self.optimizer.load_tensors(groups["optimizer"])
        for key, value in groups["gradients"].items():
            self.optimizer.parameters[key].grad = value
        self.ema = {k: v.to(self.device) for k, v in groups["ema"].items()}
        self.precision = state["precision"]
        self.at = Progress(**{**state["progress"], "stopped": False})
        return wrong


class Ahead:
    """Makes the next batches in a thread of its own while the network learns, so that training doesn't wait for data.

    That thread computes with one core: OpenMP gives each thread a team of its own, and two teams that spin on the same
    cores cost a training step a fifth of its speed.
    """

    def __init__(self, make: Callable[[int], Any], step: int, depth: int = 3) -> None:
        self.queue: queue.Queue[Any] = queue.Queue(depth)
        self.closed = threading.Event()
        self.threads = torch.get_num_threads()
        self.thread = threading.Thread(target=self.work, args=(make, step), daemon=True, name="batches")
        self.thread.start()

    def work(self, make: Callable[[int], Any], step: int) -> None:
        torch.set_num_threads(1)
        while not self.closed.is_set():
            try:
                item = make(step)
            except BaseException as error:  # handed to the thread that waits
                item = error
            while not self.closed.is_set():
                try:
                    self.queue.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return
            step += 1

    def next(self) -> Any:
        """The next step's batch and plans; an error met while making them is raised here."""
        item = self.queue.get()
        if self.threads:  # one of torch's two kinds of number is the whole process's, and the other thread has set it
            torch.set_num_threads(self.threads)
            self.threads = 0
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stop making batches."""
        self.closed.set()
        self.thread.join(timeout=10)


class Journal:
    """``metrics.jsonl``: one line a step; cut back to the checkpoint's step when a run goes on."""

    def __init__(self, path: Path, step: int) -> None:
        kept = []
        if path.exists() and step:
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line)
                except (ValueError, KeyError):
                    continue  # a line that a kill cut in two
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.file: IO[str] = path.open("a", encoding="utf-8", buffering=1)

    def write(self, at: Progress, values: dict[str, float]) -> None:
        """One step's numbers."""
        self.file.write(json.dumps({"step": at.step, "seconds": round(at.seconds, 3), "rows": at.rows, **values}) + "\n")

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def mix(*numbers: int) -> int:
    """Several numbers to one 63-bit seed (splitmix64, Steele et al. 2014)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ (number & (2**64 - 1))) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
        state ^= state >> 27
        state = state * 0x94D049BB133111EB & (2**64 - 1)
        state ^= state >> 31
    return state & MASK


def automatic_batch(loop: Loop, rows: Any) -> int:
    """A batch that memory and table allow: 128, halved while one step would take over half of what is free.

    The need of a step is measured on 16 and 32 rows and grows in proportion.
    """
    wanted = min(128, max(8, 2 ** int(math.log2(max(len(rows) // 4, 8)))))
    if loop.device.type != "cpu":
        free = torch.cuda.mem_get_info(loop.device)[0]
    else:
        free = available_memory()
    loop.order = Order(rows, min(32, len(rows)), loop.seed)
    batch, plans = loop.make(0)
    with (kept := Activations()):
        loop.losses(batch.to(loop.device), plans)
    each = 2 * kept.bytes / batch.rows
    while wanted > 8 and each * wanted > free / 2:
        wanted //= 2
    return wanted


class Activations(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that a forward keeps for its backward."""

    def __init__(self) -> None:
        self.bytes = 0
        super().__init__(self.count, lambda tensor: tensor)

    def count(self, tensor: torch.Tensor) -> torch.Tensor:
        self.bytes += tensor.numel() * tensor.element_size()
        return tensor


def available_memory() -> int:
    """Bytes that can be had without swapping; 4 GiB where the system doesn't say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 << 30
