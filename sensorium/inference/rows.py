"""Inference on the rows of a table, in batches: gists, predictions, generated cells.

It knows tables, batches and the network, no file format of answers. A column that the table lacks is simply not seen.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sensorium.core.errors import BadCell
from sensorium.core.settings import schema
from sensorium.data.media import File
from sensorium.data.prepare import read_rows
from sensorium.data.table import Table
from sensorium.ensemble.features import count_terms
from sensorium.ensemble.question import AskedRows
from sensorium.inference.answers import Answers, to_numpy
from sensorium.inference.rerank import rerank
from sensorium.modalities._capabilities import Continuable
from sensorium.network.batch import collate
from sensorium.network.encoding import concat_encoded
from sensorium.network.network import Network
from sensorium.network.types import Encoded, IgnoredColumns
from sensorium.nn.precision import Precision, autocast

if TYPE_CHECKING:
    from scipy import sparse

ROWS_PER_BATCH = 256

MAX_CANDIDATES, MAX_CANDIDATE_TOKENS, MAX_ENCODED_CANDIDATES = 32, 128, 4
"""Texts that are drawn for a row to choose from: at most so many, and of so many tokens together; at most, where a
pretrained encoder must read each."""


class Rows:
    """Rows of a table, read and prepared for a network once, and asked as often as wanted.

    Args:
        network: with modalities that have learned.
        cells: for each column the prepared cells, None where missing or unreadable.
        read: for each column the cells as read, for what needs the content.

    Attributes:
        bad: the rows of the table that can't be read, which have no cells, and why.
    """

    def __init__(
        self,
        network: Network,
        cells: dict[str, list[np.ndarray | None]],
        read: dict[str, list[np.ndarray | None]],
        count: int,
    ) -> None:
        self.network, self.cells, self.read, self.count = network, cells, read, count
        self.device = next(network.parameters()).device
        self.precision: Precision = "fp32"
        self.bad: dict[int, str] = {}
        self.encoded_cache: dict[str, Encoded] = {}
        self.remembered: dict[str, Encoded] = {}
        self.features_cache: dict[str, np.ndarray] = {}
        self.terms_cache: dict[str, sparse.csr_matrix] = {}

    @classmethod
    def of(
        cls,
        network: Network,
        table: Table,
        columns: Sequence[str] | None = None,
        bad: Callable[[int, str, str], None] | None = None,
    ) -> Rows:
        """Rows of a table. ``bad(row, column, reason)`` is called for cells that can't be read (they count as
        missing)."""
        names = [c for c in network.columns if c in table.columns and (columns is None or c in columns)]
        modalities = {c: network.modalities[c] for c in names}
        cells: dict[str, list[np.ndarray | None]] = {c: [] for c in names}
        read: dict[str, list[np.ndarray | None]] = {c: [] for c in names}
        everything = np.ones(table.rows, dtype=bool)
        for _, found in read_rows(table, modalities, everything, None, bad=bad):
            for column in names:
                read[column].append(found.get(column))
        for column in names:
            cells[column] = list(read[column])
            present = {row: cell for row, cell in enumerate(read[column]) if cell is not None and len(cell)}
            for row, cell in zip(present, modalities[column].prepare_all(list(present.values())), strict=True):
                cells[column][row] = None if isinstance(cell, BadCell) else cell
                if isinstance(cell, BadCell) and bad:
                    bad(row, column, str(cell))
        result = cls(network, cells, read, table.rows)
        result.bad = {row: str(why) for row, why in table.bad_rows.items()}
        return result

    def cell(self, column: str, row: int) -> np.ndarray:
        """Prepared cell of a row that has the column."""
        cell = self.cells[column][row]
        assert cell is not None, f"row {row} has no '{column}'"
        return cell

    def read_cell(self, column: str, row: int) -> np.ndarray:
        """Read cell of a row that has the column."""
        cell = self.read[column][row]
        assert cell is not None, f"row {row} has no '{column}'"
        return cell

    def with_cells(self, column: str, rows: np.ndarray, cells: Sequence[Any]) -> Rows:
        """Copy of these rows in which some have other cells of a column, or None. What can't be read counts as
        missing."""
        modality = self.network.modalities[column]
        other = Rows(self.network, dict(self.cells), dict(self.read), self.count)
        other.precision, other.bad = self.precision, self.bad
        for cache in ("encoded_cache", "remembered", "features_cache", "terms_cache"):
            setattr(other, cache, {name: part for name, part in getattr(self, cache).items() if name != column})
        other.read[column] = list(self.read.get(column, [None] * self.count))
        other.cells[column] = list(self.cells.get(column, [None] * self.count))
        for row, cell in zip(np.asarray(rows).tolist(), cells, strict=True):
            try:
                read = None if cell is None else modality.read(cell)
                ready = None if read is None or not len(read) else modality.prepare_all([read], keep=False)[0]
                other.read[column][row], other.cells[column][row] = (
                    (None, None) if isinstance(ready, BadCell) else (read, ready)
                )
            except BadCell:
                other.read[column][row] = other.cells[column][row] = None
        return other

    def question(self, column: str, encoded: Mapping[str, Encoded], rows: torch.Tensor) -> AskedRows:
        """Question to a column's ensemble: some rows, from what they have of ``encoded``."""
        at = rows.cpu().numpy()
        return AskedRows(
            self.network, column, encoded, rows, lambda c: self.features(c)[at], lambda c: self.terms(c)[at]
        )

    def terms(self, column: str) -> sparse.csr_matrix:
        """Counts of the terms of a column of texts [n, any]: computed once."""
        if column not in self.terms_cache:
            self.terms_cache[column] = count_terms([*map(self.network.modalities[column].terms, self.read[column])])
        return self.terms_cache[column]

    def features(self, column: str) -> np.ndarray:
        """Plain features of a column [n, d], NaN where a cell is missing: computed once."""
        if column not in self.features_cache:
            modality = self.network.modalities[column]
            self.features_cache[column] = np.stack([modality.features(cell) for cell in self.read[column]])
        return self.features_cache[column]

    def has(self, column: str) -> np.ndarray:
        """Rows that have a column, bool [n]."""
        if column not in self.cells:
            return np.zeros(self.count, dtype=bool)
        return np.array([cell is not None and len(cell) > 0 for cell in self.cells[column]], dtype=bool)

    @torch.inference_mode()
    def encoded(self, column: str) -> Encoded:
        """Encoded column of all rows: computed once, however often the rows are asked."""
        if column not in self.encoded_cache:
            parts = []
            for start in range(0, self.count, ROWS_PER_BATCH):
                cells = self.cells[column][start : start + ROWS_PER_BATCH]
                batch = collate(self.network.modalities, {column: cells}, len(cells)).to(self.device)
                if batch.cells:
                    with autocast(self.precision, self.device):
                        part = self.network.encode(column, batch)
                    parts.append(dataclasses.replace(part, index=part.index + start))
            self.encoded_cache[column] = concat_encoded(parts, self.count)
        return self.encoded_cache[column]

    def encoded_columns(self, columns: Sequence[str]) -> dict[str, Encoded]:
        """Encoded columns of ``columns`` that any row has."""
        return {c: self.encoded(c) for c in columns if self.has(c).any()}

    @torch.inference_mode()
    def with_memory(self, column: str) -> Encoded:
        """Encoded column with gists that the network's row memory has refined."""
        if column not in self.remembered:
            part = self.encoded(column)
            self.remembered[column] = self.network.refine_gists(
                column, part, [self.cells[column][i] for i in part.index.tolist()]
            )
        return self.remembered[column]

    @torch.inference_mode()
    def gists(self, columns: Sequence[str] | None = None) -> np.ndarray:
        """Unit vectors [n, gist] of what each row has of ``columns`` (all by default)."""
        columns = list(columns or self.network.columns)
        encoded, parts = {c: self.with_memory(c) for c in self.encoded_columns(columns)}, []
        for rows in torch.arange(self.count, device=self.device).split(ROWS_PER_BATCH):
            with autocast(self.precision, self.device):
                parts.append(self.network.gists(encoded, columns, rows).float().cpu().numpy())
        return np.concatenate(parts) if self.count else np.zeros((0, self.network.gist_size), np.float32)

    def column_gists(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows that have a matched column, and its gists [those, gist]."""
        if not self.has(column).any():
            return np.zeros(0, np.int64), np.zeros((0, self.network.gist_size), np.float32)
        part = self.with_memory(column)
        if part.gist is None:
            raise ValueError(f"column '{column}' has no gist of its own")
        return part.index.cpu().numpy(), part.gist.float().cpu().numpy()

    @torch.inference_mode()
    def generate(
        self,
        column: str,
        seen: Sequence[str] | None = None,
        samples: int = 1,
        seed: int = 0,
        generator_name: str | None = None,
        rows: np.ndarray | None = None,
        **options: Any,
    ) -> Iterator[list[Any]]:
        """Generated cells of a column (a picture, a sound, a series), ``samples`` for each of ``rows`` (all by
        default).

        By the generator ``generator_name``, row after row as they are finished; None where one failed, as its numbers
        aren't finite.
        """
        seen = [c for c in (self.network.columns if seen is None else seen) if c != column]
        modality, encoded, generator = (
            self.network.asked_modality(column),
            self.encoded_columns(seen),
            torch.Generator().manual_seed(seed),
        )
        asked = torch.arange(self.count) if rows is None else torch.from_numpy(np.asarray(rows, np.int64))
        for part in asked.to(self.device).split(max(1, ROWS_PER_BATCH // samples)):
            again = torch.arange(len(part), device=self.device).repeat_interleave(samples)
            with autocast(self.precision, self.device):
                output = self.network.sample(
                    encoded, column, seen, part, generator, again if samples > 1 else None, generator_name, **options
                )
            made = File if modality.media else lambda cell: cell
            cells = [
                made(modality.decode(tokens)) if np.isfinite(tokens).all() else None
                for tokens in to_numpy(output.tokens)
            ]
            yield from (cells[row * samples : (row + 1) * samples] for row in range(len(part)))

    @torch.inference_mode()
    def steps(self, column: str, seen: Sequence[str] | None = None, seed: int = 0, **options: Any) -> list[list[Any]]:
        """Trajectory of each row's cell of a column: the estimate at each step of generating it, the generated cell
        last."""
        seen = [c for c in (self.network.columns if seen is None else seen) if c != column]
        modality, thought, generator = self.network.asked_modality(column), [], torch.Generator().manual_seed(seed)
        rows = torch.arange(self.count, device=self.device)
        with autocast(self.precision, self.device):
            output = self.network.sample(
                self.encoded_columns(seen),
                column,
                seen,
                rows,
                generator,
                watch=lambda x: thought.append(to_numpy(x)),
                **options,
            )
        return [
            [modality.decode(x[row]) for x in (*thought, to_numpy(output.tokens)) if np.isfinite(x[row]).all()]
            for row in range(self.count)
        ]

    @torch.inference_mode()
    def continue_(
        self,
        column: str,
        horizon: int,
        seen: Sequence[str] | None = None,
        samples: int = 1,
        seed: int = 0,
        generator_name: str | None = None,
        **options: Any,
    ) -> list[list[Any]]:
        """Forecast: the next ``horizon`` steps of each row's own cell of a column, ``samples`` times; none where a row
        has none."""
        seen = [c for c in (self.network.columns if seen is None else seen) if c != column]
        modality, encoded, generator = (
            self.network.asked_modality(column),
            self.encoded_columns(seen),
            torch.Generator().manual_seed(seed),
        )
        assert isinstance(modality, Continuable), f"column '{column}' can't be continued"
        result: list[list[Any]] = [[] for _ in range(self.count)]
        for part in np.array_split(
            have := np.flatnonzero(self.has(column)), max(1, math.ceil(len(have) * samples / ROWS_PER_BATCH))
        ):
            if not len(part):
                continue
            cells = [self.read[column][row] for row in part]
            given = [x.to(self.device).repeat_interleave(samples, 0) for x in modality.prefix_tokens(cells, horizon)]
            again = torch.arange(len(part), device=self.device).repeat_interleave(samples)
            with autocast(self.precision, self.device):
                output = self.network.sample(
                    encoded,
                    column,
                    seen,
                    torch.from_numpy(part).to(self.device),
                    generator,
                    again,
                    generator_name,
                    given=tuple(given),
                    **options,
                )
            for number, tokens in enumerate(to_numpy(output.tokens)):
                row = number // samples
                result[part[row]].append(
                    modality.continuation(tokens, cells[row], horizon) if np.isfinite(tokens).all() else None
                )
        return result

    @torch.inference_mode()
    def predict(
        self,
        column: str,
        seen: Sequence[str] | None = None,
        rows: np.ndarray | None = None,
        seed: int = 0,
        hide: Callable[[str], np.ndarray] | None = None,
        candidates: int = 0,
        **options: Any,
    ) -> Answers:
        """Predict a column of some rows, from what they have of ``seen``.

        By default they show all other columns but those that the network ignores. What remembered rows hold of a short
        column is mixed in, by all that is shown. ``hide(column)`` may say which of all rows must not show a column
        (bool [n]).

        Of a text that has a gist several are sampled, and the one that recognises best what is seen is chosen, as an
        image is chosen by CLIP in arXiv 2102.12092: ``candidates`` with the likeliest one; 1: only that; 0: as many as
        are cheap, 1 where other options are given.
        """
        unheeded = self.network.calibration.ignored.get(column, IgnoredColumns()) if seen is None else IgnoredColumns()
        seen = [c for c in (self.network.columns if seen is None else seen) if c != column]
        modality, generator = self.network.asked_modality(column), torch.Generator().manual_seed(seed)
        encoded = self.encoded_columns(seen)
        if hide is not None:
            encoded = {
                c: dataclasses.replace(e, place=e.place.masked_fill(torch.from_numpy(hide(c)).to(self.device), -1))
                for c, e in encoded.items()
            }
        whole, encoded = encoded, unheeded.left_out(encoded)
        asked = torch.arange(self.count) if rows is None else torch.from_numpy(np.asarray(rows, np.int64))
        cells: list[Any] = []
        scores, probabilities, interval, sets = [], [], [], []
        can_rerank = (
            modality.matched and self.network.matches and "lots" in schema(self.network.generator(column).sample)
        )
        reranks = can_rerank and candidates != 1 and not (options and not candidates)
        for part in asked.to(self.device).split(ROWS_PER_BATCH // 4 if reranks else ROWS_PER_BATCH):
            if not len(part):
                continue
            ensemble = self.network.calibration.ensembles.get(column)
            recalled = None if ensemble is not None else self.network.memory_answer(whole, column, part)
            memory_cache: dict[str, Any] = {} if recalled is None else {"recalled": recalled}
            with autocast(self.precision, self.device):
                output = (
                    self.network.sample(encoded, column, seen, part, generator, **memory_cache, **options)
                    if ensemble is None
                    else ensemble.answer(self.question(column, whole, part), generator, **options)
                )
            found, score = [modality.decode(tokens) for tokens in to_numpy(output.tokens)], to_numpy(output.score)
            if reranks:
                length = to_numpy((output.tokens > 0).sum(1)).clip(1)
                count = (
                    np.full(len(part), candidates)
                    if candidates
                    else (MAX_CANDIDATE_TOKENS // length).clip(
                        1, MAX_CANDIDATES if modality.encoder is None else MAX_ENCODED_CANDIDATES
                    )
                )
                visible = (
                    torch.stack([e.place[part] >= 0 for e in encoded.values()]).any(0)
                    if encoded
                    else torch.zeros(len(part))
                )
                count[to_numpy(visible) == 0] = 1  # there is nothing to recognise
                found, score = rerank(
                    self.network, self.precision, column, encoded, seen, part, found, score, count, options
                )
            cells += found
            scores.append(score)
            if output.probabilities is not None:
                probabilities.append(to_numpy(output.probabilities))
            if output.sets is not None:
                assert output.probabilities is not None
                order = (output.probabilities * output.sets).argsort(dim=1, descending=True, stable=True)
                sets += [
                    [modality.decode(number[None]) for number in to_numpy(row[:count])]
                    for row, count in zip(order, output.sets.sum(1).tolist(), strict=True)
                ]
            if output.interval is not None:
                interval += [
                    (modality.decode(low[None]), modality.decode(high[None])) for low, high in to_numpy(output.interval)
                ]
        score = np.concatenate(scores) if scores else np.zeros(0, np.float32)
        chances = np.concatenate(probabilities) if probabilities else None
        confidence = chances.max(1) if chances is not None else np.exp(np.minimum(score, 0))
        return Answers(cells, score, confidence, chances, interval or None, sets or None)
