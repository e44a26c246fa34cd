"""Asking a trained network about the rows of a table, in batches: gists, predictions, generated cells.

It knows tables, batches and the network, no file format of answers. A column that the table lacks is simply not seen.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from sensorium.core.errors import BadCell
from sensorium.core.settings import schema
from sensorium.data.media import File
from sensorium.data.prepare import read_rows
from sensorium.data.table import Table
from sensorium.modalities._capabilities import Continuable
from sensorium.network.batch import collate
from sensorium.network.network import Network
from sensorium.network.types import Encoded, IgnoredColumns
from sensorium.nn.precision import autocast

ROWS = 256

MOST, DRAWN, READ = 32, 128, 4
"""Texts that are drawn for a row to choose from: at most so many, and of so many tokens together; at most, where a pretrained encoder must read each."""
SURENESS = 0.01
"""What a nat of log-probability counts beside a cosine when a text is chosen."""


@dataclasses.dataclass
class Answers:
    """What was said of one column.

    Attributes:
        cells: the said cells, in the kind of the column; scores: log-probabilities [n].
        confidence: how sure, 0 to 1: the class's probability, for text exp(score), for numbers 1 minus the relative
            width of the interval. probabilities: [n, classes] for categories. interval: lower and upper cell values.
        sets: for categories, where a coverage was asked, the cells that each row's set holds, the likeliest first.
        bad: the rows that can't be read, which have no answer, and why.
    """

    cells: list[Any]
    scores: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray | None = None
    interval: list[tuple[Any, Any]] | None = None
    sets: list[list[Any]] | None = None
    bad: dict[int, str] = dataclasses.field(default_factory=dict)

    def without(self, bad: dict[int, str]) -> Answers:
        """These answers, none for rows that can't be read."""
        self.bad = bad
        for row in bad:
            self.cells[row] = None
            self.scores[row] = self.confidence[row] = np.nan
            if self.probabilities is not None:
                self.probabilities[row] = np.nan
            if self.interval is not None:
                self.interval[row] = None, None
            if self.sets is not None:
                self.sets[row] = []
        return self

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """The answers of several windows of rows, one after the other."""
        if len(parts) == 1:
            return parts[0]
        chances = [part.probabilities for part in parts if part.probabilities is not None]
        starts = np.cumsum([0, *(len(part.cells) for part in parts)]).tolist()
        return cls(
            [cell for part in parts for cell in part.cells],
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.confidence for part in parts]),
            np.concatenate(chances) if chances else None,
            [ends for part in parts for ends in part.interval or ()] or None,
            [some for part in parts for some in part.sets or ()] or None,
            {start + row: why for start, part in zip(starts, parts, strict=False) for row, why in part.bad.items()},
        )


class Rows:
    """Rows of a table, read and prepared for a network once, and asked as often as wanted.

    Args:
        network: with modalities that have learned.
        cells: for each column the prepared cells, None where missing or unreadable.
        read: for each column the cells as read, for what needs the content.

    Attributes:
        bad: the rows of the table that can't be read at all, which have no cells, and why.
    """

    def __init__(
        self,
        network: Network,
        cells: dict[str, list[np.ndarray | None]],
        read: dict[str, list[np.ndarray | None]],
        count: int,
    ) -> None:
        self.network, self.cells, self.read, self.count = network, cells, read, count
        self.device, self.precision = next(network.parameters()).device, "fp32"
        self.bad: dict[int, str] = {}
        self.encoded_cache: dict[str, Encoded] = {}
        self.remembered: dict[str, Encoded] = {}

    @classmethod
    def of(
        cls,
        network: Network,
        table: Table,
        columns: Sequence[str] | None = None,
        bad: Callable[[int, str, str], None] | None = None,
    ) -> Rows:
        """Read the rows of a table; ``bad(row, column, reason)`` hears of cells that can't be read (they count as missing)."""
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
            rows = [row for row, cell in enumerate(read[column]) if cell is not None and len(cell)]
            for row, cell in zip(
                rows, modalities[column].prepare_all([read[column][row] for row in rows]), strict=True
            ):
                cells[column][row] = None if isinstance(cell, BadCell) else cell
                if isinstance(cell, BadCell) and bad:
                    bad(row, column, str(cell))
        result = cls(network, cells, read, table.rows)
        result.bad = {row: str(why) for row, why in table.bad_rows.items()}
        return result

    def with_cells(self, column: str, rows: np.ndarray, cells: Sequence[Any]) -> Rows:
        """These rows where some of them have other cells of a column: what was said there, or None. What can't be read counts as missing."""
        modality = self.network.modalities[column]
        other = Rows(self.network, dict(self.cells), dict(self.read), self.count)
        other.precision, other.bad = self.precision, self.bad
        for kept, mine in ((other.encoded_cache, self.encoded_cache), (other.remembered, self.remembered)):
            kept.update({name: part for name, part in mine.items() if name != column})
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

    def has(self, column: str) -> np.ndarray:
        """Which rows have a column, bool [n]."""
        if column not in self.cells:
            return np.zeros(self.count, dtype=bool)
        return np.array([cell is not None and len(cell) > 0 for cell in self.cells[column]], dtype=bool)

    @torch.inference_mode()
    def encoded(self, column: str) -> Encoded:
        """A column of all rows behind its stem: computed once, however often the rows are asked."""
        if column not in self.encoded_cache:
            parts = []
            for start in range(0, self.count, ROWS):
                cells = self.cells[column][start : start + ROWS]
                batch = collate(self.network.modalities, {column: cells}, len(cells)).to(self.device)
                if batch.cells:
                    with autocast(self.precision, self.device):
                        part = self.network.encode(column, batch)
                    parts.append(dataclasses.replace(part, index=part.index + start))
            self.encoded_cache[column] = join(parts, self.count)
        return self.encoded_cache[column]

    def encoded_columns(self, columns: Sequence[str]) -> dict[str, Encoded]:
        """Those of ``columns`` that any row has."""
        return {c: self.encoded(c) for c in columns if self.has(c).any()}

    @torch.inference_mode()
    def with_memory(self, column: str) -> Encoded:
        """What ``encoded`` gives, its gists refined by what the network remembers."""
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
        for rows in torch.arange(self.count, device=self.device).split(ROWS):
            with autocast(self.precision, self.device):
                parts.append(self.network.gists(encoded, columns, rows).float().cpu().numpy())
        return np.concatenate(parts) if self.count else np.zeros((0, self.network.gist_size), np.float32)

    def column_gists(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """The rows that have a matched column, and its gists [those, gist]."""
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
        way: str | None = None,
        rows: np.ndarray | None = None,
        **options: Any,
    ) -> Iterator[list[Any]]:
        """Cells of a column whose cells are drawn (a picture, a sound, a series), ``samples`` for each of ``rows`` (all by default), by its
        generator ``way``, row after row as they are finished; None where one failed, as its numbers aren't finite."""
        seen = [c for c in (self.network.columns if seen is None else seen) if c != column]
        modality, encoded, generator = (
            self.network.asked_modality(column),
            self.encoded_columns(seen),
            torch.Generator().manual_seed(seed),
        )
        asked = torch.arange(self.count) if rows is None else torch.from_numpy(np.asarray(rows, np.int64))
        for part in asked.to(self.device).split(max(1, ROWS // samples)):
            again = torch.arange(len(part), device=self.device).repeat_interleave(samples)
            with autocast(self.precision, self.device):
                said = self.network.sample(
                    encoded, column, seen, part, generator, again if samples > 1 else None, way, **options
                )
            made = File if modality.media else lambda cell: cell
            cells = [
                made(modality.decode(tokens)) if np.isfinite(tokens).all() else None for tokens in plain(said.tokens)
            ]
            yield from (cells[row * samples : (row + 1) * samples] for row in range(len(part)))

    @torch.inference_mode()
    def steps(self, column: str, seen: Sequence[str] | None = None, seed: int = 0, **options: Any) -> list[list[Any]]:
        """For each row what its cell of a column was thought to be at each step of drawing it, the drawn cell last."""
        seen = [c for c in (self.network.columns if seen is None else seen) if c != column]
        modality, thought, generator = self.network.asked_modality(column), [], torch.Generator().manual_seed(seed)
        rows = torch.arange(self.count, device=self.device)
        with autocast(self.precision, self.device):
            said = self.network.sample(
                self.encoded_columns(seen),
                column,
                seen,
                rows,
                generator,
                watch=lambda x: thought.append(plain(x)),
                **options,
            )
        return [
            [modality.decode(x[row]) for x in (*thought, plain(said.tokens)) if np.isfinite(x[row]).all()]
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
        way: str | None = None,
        **options: Any,
    ) -> list[list[Any]]:
        """The next ``horizon`` steps of each row's own cell of a column, ``samples`` times; none where a row has no such cell."""
        seen = [c for c in (self.network.columns if seen is None else seen) if c != column]
        modality, encoded, generator = (
            self.network.asked_modality(column),
            self.encoded_columns(seen),
            torch.Generator().manual_seed(seed),
        )
        assert isinstance(modality, Continuable), f"column '{column}' can't be continued"
        result: list[list[Any]] = [[] for _ in range(self.count)]
        for part in np.array_split(
            have := np.flatnonzero(self.has(column)), max(1, math.ceil(len(have) * samples / ROWS))
        ):
            if not len(part):
                continue
            cells = [self.read[column][row] for row in part]
            given = [x.to(self.device).repeat_interleave(samples, 0) for x in modality.prefix_tokens(cells, horizon)]
            again = torch.arange(len(part), device=self.device).repeat_interleave(samples)
            with autocast(self.precision, self.device):
                said = self.network.sample(
                    encoded,
                    column,
                    seen,
                    torch.from_numpy(part).to(self.device),
                    generator,
                    again,
                    way,
                    given=tuple(given),
                    **options,
                )
            for number, tokens in enumerate(plain(said.tokens)):
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
        """Ask a column of some rows, from what they have of ``seen``.

        By default they show all others but those that the network leaves unheeded. What remembered rows say of a short column is
        mixed in, by all that is shown.
        ``hide(column)`` may say which of all rows must not show a column (bool [n]).

        Of a text that has a gist several are drawn, and the one that recognises best what is seen is said, as an image is
        chosen by CLIP in arXiv 2102.12092: ``candidates`` with the likeliest one; 1: only that; 0: as many as are cheap, 1 where
        other options are given.
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
        able = modality.matched and self.network.matches and "lots" in schema(self.network.generator(column).sample)
        choice = able and candidates != 1 and not (options and not candidates)
        for part in asked.to(self.device).split(ROWS // 4 if choice else ROWS):
            if not len(part):
                continue
            recalled = self.network.memory_answer(whole, column, part)
            memory_cache = {} if recalled is None else {"recalled": recalled}
            with autocast(self.precision, self.device):
                said = self.network.sample(encoded, column, seen, part, generator, **memory_cache, **options)
            found, score = [modality.decode(tokens) for tokens in plain(said.tokens)], plain(said.score)
            if choice:
                length = plain((said.tokens > 0).sum(1)).clip(1)
                count = (
                    np.full(len(part), candidates)
                    if candidates
                    else (DRAWN // length).clip(1, MOST if modality.encoder is None else READ)
                )
                shown = (
                    torch.stack([e.place[part] >= 0 for e in encoded.values()]).any(0)
                    if encoded
                    else torch.zeros(len(part))
                )
                count[plain(shown) == 0] = 1  # there is nothing to recognise
                found, score = self.rerank(column, encoded, seen, part, found, score, count, options)
            cells += found
            scores.append(score)
            if said.probabilities is not None:
                probabilities.append(plain(said.probabilities))
            if said.sets is not None:
                order = (said.probabilities * said.sets).argsort(dim=1, descending=True, stable=True)
                sets += [
                    [modality.decode(number[None]) for number in plain(row[:count])]
                    for row, count in zip(order, said.sets.sum(1).tolist(), strict=True)
                ]
            if said.interval is not None:
                interval += [
                    (modality.decode(low[None]), modality.decode(high[None])) for low, high in plain(said.interval)
                ]
        score = np.concatenate(scores) if scores else np.zeros(0, np.float32)
        chances = np.concatenate(probabilities) if probabilities else None
        confidence = chances.max(1) if chances is not None else np.exp(np.minimum(score, 0))
        return Answers(cells, score, confidence, chances, interval or None, sets or None)

    def rerank(
        self,
        column: str,
        encoded: dict[str, Encoded],
        seen: Sequence[str],
        rows: torch.Tensor,
        cells: list[Any],
        score: np.ndarray,
        count: np.ndarray,
        options: dict[str, Any],
    ) -> tuple[list[Any], np.ndarray]:
        """Of the text of each row and ``count`` - 1 drawn ones that whose gist is nearest to the gist of what is seen; its score.

        All rows draw the same lots, so that what a row says doesn't hang on its neighbours.
        """
        lot = np.concatenate([np.full((count > k).sum(), k) for k in range(1, count.max())] or [np.zeros(0, np.int64)])
        if not len(lot):
            return cells, score
        network, modality = self.network, self.network.asked_modality(column)
        how = {"temperature": 1.0, "top_p": 0.95} | {k: v for k, v in options.items() if k != "beam" and v != 0}
        owner = np.concatenate([np.arange(len(count)), *(np.flatnonzero(count > k) for k in range(1, count.max()))])
        again = torch.from_numpy(owner[len(count) :]).to(self.device)
        with autocast(self.precision, self.device):
            wanted = network.gists(encoded, seen, rows).float()
            said = network.sample(encoded, column, seen, rows, again=again, lots=torch.from_numpy(lot), **how)
        cells = cells + [modality.decode(tokens) for tokens in plain(said.tokens)]
        score = np.concatenate([score, plain(said.score)])
        read = [modality.read(cell) for cell in cells]
        there = [place for place, cell in enumerate(read) if len(cell)]
        ready: list[np.ndarray | None] = [None] * len(read)
        for place, cell in zip(there, modality.prepare_all([read[place] for place in there], keep=False), strict=True):
            ready[place] = cell
        batch = collate(network.modalities, {column: ready}, len(cells))
        value = np.full((count.max(), len(count)), -np.inf)
        lot = np.concatenate([np.zeros(len(count), np.int64), lot])
        value[lot, owner] = SURENESS * score - 1
        if batch.cells:
            with autocast(self.precision, self.device):
                part = network.encode(column, batch.to(self.device))
            at = plain(part.index)
            value[lot[at], owner[at]] += 1 + plain(
                (part.gist.float() * wanted[torch.from_numpy(owner[at]).to(self.device)]).sum(1)
            )
        place = np.zeros(value.shape, np.int64)
        place[lot, owner] = np.arange(len(lot))
        best = place[value.argmax(0), np.arange(len(count))]
        return [cells[i] for i in best], score[best]


def plain(x: torch.Tensor) -> np.ndarray:
    """A tensor as NumPy, bf16 as float32."""
    return (x.float() if x.is_floating_point() else x).cpu().numpy()


def join(parts: Sequence[Encoded], rows: int) -> Encoded:
    """Encoded parts of one column, one after the other, padded to the longest."""
    longest = max(part.tokens.shape[1] for part in parts)
    index = torch.cat([part.index for part in parts])
    place = torch.full((rows,), -1, dtype=torch.int64, device=index.device)
    place[index] = torch.arange(len(index), device=index.device)
    return Encoded(
        index,
        place,
        torch.cat([F.pad(part.tokens, (0, 0, 0, longest - part.tokens.shape[1])) for part in parts]),
        torch.cat([F.pad(part.mask, (0, longest - part.mask.shape[1])) for part in parts]),
        None if parts[0].gist is None else torch.cat([part.gist for part in parts]),
        None if parts[0].similarity is None else torch.cat([part.similarity for part in parts]),
        None if parts[0].patches is None else torch.cat([part.patches for part in parts]),
    )
