"""Hugging Face Datasets: a Dataset or DatasetDict in memory, a stream, or ``hf:NAME`` from the hub when asked.

Pictures and sounds are never decoded here: their cells are ``{bytes, path}``. Class labels become their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.arrow import as_normal
from sensorium.data.blocks import Blocks, ConcatenatedBlocks
from sensorium.data.objects import spool_objects
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, converted
from sensorium.data.spool import spooling

PREFIX = "hf:"
BLOCK_ROWS = 1024
_KINDS = ("Dataset", "DatasetDict", "IterableDataset", "IterableDatasetDict")


class Hub(Source):
    """Objects of the library ``datasets``, and names on the hub: ``hf:OWNER/NAME`` or ``hf:OWNER/NAME:CONFIG``."""

    @classmethod
    def accepts(cls, given: Any) -> bool:
        """True for such an object or such a name."""
        if isinstance(given, str):
            return given.startswith(PREFIX)
        return type(given).__module__.partition(".")[0] == "datasets" and type(given).__name__ in _KINDS

    @classmethod
    def open(cls, given: Any, options: ReadOptions) -> Opened:
        """Open a dataset; a dictionary of splits becomes one table with a column ``split``."""
        name = given.removeprefix(PREFIX) if isinstance(given, str) else "dataset"
        opened = Opened.empty(name.rpartition("/")[2].partition(":")[0], None)
        dataset = _load(name) if isinstance(given, str) else given
        if isinstance(dataset, dict):
            parts = [_blocks(part, opened, options) for part in dataset.values()]
            opened.blocks = ConcatenatedBlocks(parts, f"The dataset {name}", ("split", list(map(str, dataset))))
        else:
            opened.blocks = _blocks(dataset, opened, options)
        return opened


def _load(name: str) -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise UserError("'hf:' names need the package datasets. Install it with: pip install sensorium[hub]") from error
    path, _, config = name.partition(":")
    try:
        return datasets.load_dataset(path, config or None)
    except Exception as error:  # the library raises its own, requests', and plain errors
        raise UserError(f"The dataset '{name}' can't be loaded: {type(error).__name__}: {error}") from error


def _blocks(dataset: Any, opened: Opened, options: ReadOptions) -> Blocks:
    if not type(dataset).__name__.startswith("Iterable"):
        return HubBlocks(dataset)
    features = dataset.features or {}
    for name, feature in features.items():
        if type(feature).__name__ in ("Image", "Audio", "Video"):
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    with spooling("The dataset") as spool:
        rows = ((_named(row, features), 200 + _weight(row)) for row in dataset)
        spool_objects(rows, spool, opened, options)
        return converted(spool, empty=list(features))


def _named(row: dict[str, Any], features: Any) -> dict[str, Any]:
    """Row with class labels by their names."""
    labels = {
        name: (feature.int2str(row[name]) if row[name] is not None and row[name] >= 0 else None)
        for name, feature in features.items()
        if type(feature).__name__ == "ClassLabel" and name in row
    }
    return {**row, **labels}


def _weight(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_weight, value.values()))
    return len(value) if isinstance(value, (str, bytes, list)) else 8


class HubBlocks(Blocks):
    """Blocks of a Dataset's Arrow data, in its order and selection."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset.with_format("arrow")
        self.labels = {
            name: feature.names for name, feature in dataset.features.items() if type(feature).__name__ == "ClassLabel"
        }
        schema = pa.schema(
            [
                (name, pa.string() if name in self.labels else kind)
                for name, kind in zip(
                    dataset.features.arrow_schema.names, dataset.features.arrow_schema.types, strict=True
                )
            ]
        )
        rows = len(dataset)
        super().__init__(schema, [min(BLOCK_ROWS, rows - at) for at in range(0, rows, BLOCK_ROWS)], "The dataset")
        self.declared |= set(self.labels)

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Rows as they are stored, media undecoded."""
        dataset = self.dataset.select_columns(columns)
        for at in range(int(self.starts[block]), int(self.starts[block + 1]), size):
            table = dataset[at : min(at + size, int(self.starts[block + 1]))]
            table = table if isinstance(table, pa.Table) else table.table
            for batch in table.combine_chunks().to_batches():
                arrays = [
                    self._label(array, name) if name in self.labels else array
                    for name, array in zip(batch.schema.names, batch.columns, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)

    def _label(self, array: pa.Array, name: str) -> pa.Array:
        ids = as_normal(array, pa.int64()).to_numpy(zero_copy_only=False)
        known = np.nan_to_num(ids.astype(np.float64), nan=-1).astype(np.int64)
        words = self.labels[name]
        return pa.array([words[i] if 0 <= i < len(words) else None for i in known], pa.string())
