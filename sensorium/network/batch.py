"""Batches: the cells of some rows, column by column. A column holds only the rows that have it.

This is the one collator. A missing cell takes no place in any tensor, so it can change nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sensorium.modalities import Modality
from sensorium.nn.stem import Cells


@dataclasses.dataclass
class Batch:
    """Collated cells of some rows.

    Attributes:
        rows: number of rows.
        cells: for each column that any row has, its collated cells (first dimension: the rows that have it).
        index: for each such column which rows those are, ascending [n].
        keys: for each matched column a hash of each cell's content [n]: equal cells are of one entity.
        entities: int64 [rows], equal for rows of one entity, however it looks or sounds in each; None where nothing
            says so.
        own: number of rows that the batch is about, the first ones. Rows after these are only referred to.
        beside: by a conversation's row and a number of rows after it, where in the batch that later row stands.
    """

    rows: int
    cells: dict[str, Cells]
    index: dict[str, torch.Tensor]
    keys: dict[str, torch.Tensor]
    entities: torch.Tensor | None = None
    own: int = -1
    beside: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.own = self.rows if self.own < 0 else self.own

    def to(self, device: torch.device | str) -> Batch:
        """Copy on another device; itself on a CPU."""
        if torch.device(device).type == "cpu":
            return self
        return dataclasses.replace(
            self,
            cells={
                column: {k: v.to(device, non_blocking=True) for k, v in cells.items()}
                for column, cells in self.cells.items()
            },
            index={column: v.to(device, non_blocking=True) for column, v in self.index.items()},
            keys={column: v.to(device, non_blocking=True) for column, v in self.keys.items()},
            entities=None if self.entities is None else self.entities.to(device, non_blocking=True),
        )

    def only(self, columns: Sequence[str]) -> Batch:
        """Batch of the same rows with no other columns than these."""
        keep = [column for column in self.cells if column in set(columns)]
        return dataclasses.replace(
            self,
            cells={column: self.cells[column] for column in keep},
            index={column: self.index[column] for column in keep},
            keys={column: self.keys[column] for column in keep if column in self.keys},
        )


def collate(modalities: Mapping[str, Modality], cells: Mapping[str, Sequence[np.ndarray | None]], rows: int) -> Batch:
    """Batch from prepared cells, which are None or of length 0 where missing.

    Args:
        modalities: the columns' modalities.
        cells: for each column ``rows`` prepared cells; a column may be left out.
    """
    result = Batch(rows, {}, {}, {})
    for column, values in cells.items():
        present = {row: value for row, value in enumerate(values) if value is not None and len(value)}
        if not present:
            continue
        result.cells[column] = modalities[column].collate(list(present.values()))
        result.index[column] = torch.tensor(list(present), dtype=torch.int64)
        if modalities[column].matched:
            result.keys[column] = torch.tensor([hash_of(value) for value in present.values()], dtype=torch.int64)
    return result


def hash_of(cell: np.ndarray) -> int:
    """Content hash of one cell, 63 bits, the same in every process."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(cell).data, digest_size=8).digest(), "little") >> 1
