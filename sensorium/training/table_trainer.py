"""Training loop on a prepared table: rows in batches, the questions that are asked of them, and the objectives' losses.

It knows a network, objectives and plans, no modality. How steps follow one another is ``Trainer``.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensorium.core.attachments import MAX_ROWS
from sensorium.core.seeds import MASK, mix
from sensorium.core.settings import at_least
from sensorium.data.order import Order
from sensorium.data.store import CellStore
from sensorium.modalities._capabilities import Spatial
from sensorium.network.batch import Batch, collate
from sensorium.network.network import Network
from sensorium.network.types import Plan
from sensorium.nn.geometry import Geometry
from sensorium.nn.precision import autocast
from sensorium.objectives import Objective
from sensorium.objectives.tell import loss_name
from sensorium.training.optimizer import clip
from sensorium.training.questions import QuestionSampler
from sensorium.training.settings import EveryTrainerSetting, TrainerSettings
from sensorium.training.trainer import Trainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableTrainerSettings:
    """Settings of the training on a prepared table (section ``train``).

    Args:
        batch: rows a step; 0 chooses by memory and table.
    """

    batch: int = 128
    trainer: EveryTrainerSetting = TrainerSettings()


class TableTrainer(Trainer):
    """Training loop of a network on a prepared table.

    Args:
        store: prepared cells; rows: those of them that are learned from.
        entities: for each row of the store the number of the entity it is of (``data.entity_key``), int64; None where
            nothing says so.
        source: the table's row of each row of the store, ascending; by default the store has all of them.
    """

    network: Network

    def __init__(
        self,
        network: Network,
        objectives: Mapping[str, Objective],
        store: CellStore,
        rows: Any,
        sampler: QuestionSampler,
        folder: Path,
        seed: int,
        minutes: float | None,
        epochs: float | None,
        settings: TableTrainerSettings,
        entities: np.ndarray | None = None,
        source: np.ndarray | None = None,
    ) -> None:
        super().__init__(network, objectives, folder, seed, minutes, settings.trainer)
        batch = settings.batch
        at_least("train", 0, batch=batch)
        self.modalities, self.store, self.sampler, self.source = network.modalities, store, sampler, source
        self.detached_parameters = generative_parameters(network) if sampler.detach_generation else {}
        own = {id(parameter) for part in self.detached_parameters.values() for parameter in part}
        parts = (
            [p for p in self.optimizer.parameters.values() if (id(p) in own) is generative]
            for generative in (False, True)
        )
        self.clip_groups = [part for part in parts if part]
        self.rows, self.epochs, self.entities, self.automatic = rows, epochs, entities, batch == 0
        self.arrange(batch or automatic_batch(self, rows))

    def arrange(self, batch: int) -> None:
        """Deal the rows out in batches of this size."""
        self.batch, self.order = batch, Order(self.rows, batch, self.seed, self.entities)
        self.steps = math.ceil(self.epochs * self.order.steps) if self.epochs is not None else None

    # --- one step -----------------------------------------------------------------------------------------------------

    def make(self, step: int) -> tuple[int, Batch, list[Plan]]:
        """Batch and plans of a step, from (seed, step) only; on a CPU the batch is augmented already."""
        rows, seed = self.order.at(step), (self.seed & MASK, step)
        columns = [c for c in self.sampler.columns_read(seed) if c in self.store.columns]
        cells = {c: list(self.store.cells(c, rows)) for c in columns}
        more, beside = self.referred_rows(rows, cells)
        batch = collate(self.modalities, cells, len(rows) + len(more))
        batch.own, batch.beside = len(rows), beside
        if self.entities is not None:
            batch.entities = torch.from_numpy(self.entities[np.concatenate([rows, more])])
        if self.device.type == "cpu":
            self.augment(step, batch)
        return step, batch, self.sampler.draw(len(rows), seed)

    def augment(self, step: int, batch: Batch) -> None:
        """Augment each column's cells of a batch; random numbers are a function of (seed, step) on every device."""
        for number, column in enumerate(self.network.columns):
            if column in batch.cells:
                modality, cells = self.modalities[column], batch.cells[column]
                generator = torch.Generator().manual_seed(mix(self.seed, step, number))
                if isinstance(modality, Spatial) and modality.follows in batch.cells:
                    lead = self.leading_geometry(step, batch, modality.follows, column)
                    batch.cells[column] = modality.augment(cells, generator, lead)
                else:
                    batch.cells[column] = modality.augment(cells, generator)

    def leading_geometry(self, step: int, batch: Batch, leader: str, follower: str) -> Callable[[Geometry], Geometry]:
        """Function that gives a follower's images the geometry of the leader's in the same rows.

        It is drawn again from the leader's seed, so that neither depends on the order of columns.
        """
        modality, number = self.modalities[leader], self.network.columns.index(leader)
        assert isinstance(modality, Spatial)
        generator = torch.Generator().manual_seed(mix(self.seed, step, number))
        device = next(iter(batch.cells[leader].values())).device
        theirs = batch.index[leader]
        geometry, _ = modality.draw_geometry(len(theirs), generator, device)
        place = torch.full((batch.rows,), -1, dtype=torch.int64, device=theirs.device)
        place[theirs] = torch.arange(len(theirs), device=theirs.device)
        at = place[batch.index[follower]]
        mine = (at >= 0).nonzero().squeeze(1)
        return lambda own: own.replaced(geometry, mine, at[mine])

    def referred_rows(
        self, rows: np.ndarray, cells: dict[str, list[np.ndarray | None]]
    ) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
        """Rows of the store, in none of ``rows``, that conversations among their ``cells`` refer to.

        Their cells are put behind these. A conversation that refers to what isn't there or isn't learned from is left
        out.

        Returns:
            these rows; and where in the batch each row stands that is referred to, by the conversation's place and how
            many rows after it.
        """
        place, beside, used, more = {int(row): at for at, row in enumerate(rows)}, {}, set(), []
        dialogue, known = self.network.dialogue, {}
        if dialogue is not None and any(
            self.network.dialogue_modality(c).beside for c in self.network.dialogue_columns
        ):
            known = dialogue.references(MAX_ROWS)
        for column in [c for c in self.network.dialogue_columns if c in cells] if known else ():
            for at, cell in enumerate(cells[column]):
                later = (
                    {known[i] for i in np.unique(cell[cell < 0]).tolist() if known.get(i, ("", 0))[1]}
                    if cell is not None
                    else set()
                )
                found = {
                    (name, after): self.row_after(int(rows[at]), after, name) for name, after in later if name in cells
                }
                if min(found.values(), default=0) < 0:
                    cells[column][at] = None
                    continue
                for (name, after), row in found.items():
                    if row not in place:
                        place[row] = len(rows) + len(more)
                        more.append(row)
                    beside[at, after] = place[row]
                    used.add(name)
        for column in cells if more else ():
            cells[column] += list(self.store.cells(column, more)) if column in used else [None] * len(more)
        return np.array(more, np.int64), beside

    def row_after(self, row: int, count: int, column: str) -> int:
        """Row of the store that is so many rows of the table after another; -1 where there is none that is learned from
        and has the column.
        """
        wanted = (row if self.source is None else int(self.source[row])) + count
        found = wanted if self.source is None else int(np.searchsorted(self.source, wanted))
        if self.source is not None and (found == len(self.source) or self.source[found] != wanted):
            return -1
        at = int(np.searchsorted(self.rows, found))
        if at == len(self.rows) or self.rows[at] != found:
            return -1
        cell = self.store.cells(column, [found])[0]
        return found if cell is not None and len(cell) else -1

    def losses(self, batch: Batch, plans: Sequence[Plan]) -> dict[str, torch.Tensor]:
        """Losses of every objective on one batch."""
        with autocast(self.precision, self.device):
            step = self.network(batch, plans)
            result: dict[str, torch.Tensor] = {}
            for objective in self.objectives.values():
                result |= objective(step)
        return result

    def backward(self, losses: Mapping[str, torch.Tensor]) -> None:
        for name, loss in losses.items():
            if name in self.detached_parameters:
                (loss / self.accumulate).backward(inputs=self.detached_parameters[name])
        rest = {name: loss for name, loss in losses.items() if name not in self.detached_parameters}
        if any(loss.requires_grad for loss in rest.values()):
            super().backward(rest)

    def clip_gradients(self) -> float:
        norms = [clip(part, self.clip) for part in self.clip_groups]
        return next((norm for norm in norms if not math.isfinite(norm)), norms[0])

    def to_device(self, step: int, batch: Batch, plans: Sequence[Plan]) -> tuple[Batch, Sequence[Plan]]:
        batch = batch.to(self.device)
        if (
            self.device.type != "cpu"
        ):  # a processor does it ahead of the step; elsewhere it would be slower there than all that follows
            self.augment(step, batch)
        return batch, [plan.to(self.device) for plan in plans]

    def row_count(self, step: int, batch: Batch, plans: Sequence[Plan]) -> int:
        return batch.own

    def release(self) -> None:
        self.store.release()

    def identity(self) -> dict[str, Any]:
        return {"seed": self.seed, "batch": self.batch}

    def prepare(self, state: Mapping[str, Any]) -> None:
        if self.automatic and state["batch"] != self.batch:  # memory was freer or scarcer then
            self.arrange(state["batch"])

    def generation_share(self) -> float:
        """Share of a step's time that questions of generated columns take: one step is measured with them and one
        without."""
        batch, plans = self.to_device(*self.make(self.at.step))
        others = [plan for plan in plans if not set(plan.asked) & set(self.network.generative_columns)]
        seconds = []
        for some in (plans, plans, others):  # the first is not counted: its kernels are still to be made
            started = time.perf_counter()
            losses = self.losses(batch, some)
            if any(loss.requires_grad for loss in losses.values()):  # of drawing alone nothing may be left
                self.backward(losses)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds.append(time.perf_counter() - started)
            self.optimizer.zero()
        return max(0.0, 1 - seconds[2] / seconds[1])


def generative_parameters(network: Network) -> dict[str, list[torch.nn.Parameter]]:
    """Parameters that only generate, for each loss of a generated column."""
    shared = [
        *network.trunk.generative_parameters(),
        *(
            ()
            if network.conditioning.text_to_condition is None
            else network.conditioning.text_to_condition.parameters()
        ),
    ]
    return {
        loss_name(column, name if len(network.generator_keys[column]) > 1 else None): [
            parameter
            for parameter in (*network.generator(column, name).parameters(), *shared)
            if parameter.requires_grad
        ]
        for column in network.generative_columns
        for name in network.generator_keys[column]
    }


def automatic_batch(loop: TableTrainer, rows: Any) -> int:
    """Batch size that memory and table allow: 128, halved while one step would take over half of what is free.

    The need of a step is measured on 16 and 32 rows and grows in proportion.
    """
    wanted = min(128, max(8, 2 ** int(math.log2(max(len(rows) // 4, 8)))))
    if loop.device.type != "cpu":
        free = torch.cuda.mem_get_info(loop.device)[0]
    else:
        free = available_memory()
    loop.order = Order(rows, min(32, len(rows)), loop.seed)
    batch, plans = loop.to_device(*loop.make(0))
    with (activations := Activations()):
        loop.losses(batch, plans)
    each = 2 * activations.bytes / batch.rows
    while wanted > 8 and each * wanted > free / 2:
        wanted //= 2
    return wanted


class Activations(torch.autograd.graph.saved_tensors_hooks):
    """Counter of the bytes that a forward keeps for its backward."""

    def __init__(self) -> None:
        self.bytes = 0
        super().__init__(self.count, lambda tensor: tensor)

    def count(self, tensor: torch.Tensor) -> torch.Tensor:
        self.bytes += tensor.numel() * tensor.element_size()
        return tensor


def available_memory() -> int:
    """Bytes available without swapping; 4 GiB where the system doesn't say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 << 30
