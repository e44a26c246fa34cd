"""An index of a table's rows: their vectors, and their plain cells to choose by; what is asked of it are cells of any columns.

It knows a network to embed with, and by its hash refuses another's vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import find
from sensorium.data.cells import qualified_names
from sensorium.data.table import Table
from sensorium.inference.rows import Rows
from sensorium.search import projection
from sensorium.search.exact import nearest
from sensorium.search.finders import Finder
from sensorium.search.store import WHOLE, StorePart, VectorStore, VectorStoreWriter, keep, locked, save, turned, unused
from sensorium.search.where import where

ROW = "sensorium.row"
LEAST = 8
"""Dimensions that are kept at least."""
JUDGED, FOUND, JUDGES = 256, 10, 100_000
"""Queries of each kind, rows found by each, and rows they are sought among at most, by which it is told what fewer dimensions find."""
AWAY = 0.5
"""How far a query is moved from what shall not be found."""
PROPOSED, OPEN = (4, 32), 0.5
"""Rows that a finder proposes, so many times those that are wanted and so many more; and the share of the rows that may be found below which all are looked at."""
ALIKE, MOST_ALIKE, AT_ONCE, ROUNDED = 8, 4096, 512, 1e-6
"""Rows that one row is compared with at first where near duplicates are sought, beside itself, and at most, where all of these are alike; rows that are compared at
once; and what rounding may take of a cosine."""

Windows = Callable[[Any, Sequence[str] | None], Iterator[Rows]]


class Index:
    """Rows to be searched.

    Args:
        store: what is kept of them. windows: reads rows of a table for the network, some at a time.
    """

    def __init__(self, store: VectorStore, windows: Windows) -> None:
        self.store, self.windows = store, windows

    @classmethod
    def build(
        cls,
        folder: Path,
        table: Table,
        windows: Windows,
        model: Mapping[str, Any],
        *,
        columns: Sequence[str] | None = None,
        key: str | None = None,
        size: int | None = None,
        finder: str | None = None,
        plan: str = "pca",
        done: Callable[[int], None] | None = None,
    ) -> Index:
        """Index a table; what the folder held is replaced when all is written.

        Args:
            model: ``columns``, ``matched`` (those that can be searched alone), ``gist``, ``sha256`` and ``run``.
            columns: those that are looked at. key: the column by which rows are replaced and removed, whose cells differ.
            size: dimensions that are kept of each vector; all by default. finder: what proposes rows (``search.finders``); by default all are looked at.
            plan: how rows lie on the map, ``pca`` or ``umap``.
        """
        projection.check(plan)
        if finder is not None:
            find(Finder, finder)
        gist = int(model["gist"])
        known = [c for c in model["columns"] if c in table.columns and (columns is None or c in columns)]
        if not table.rows or not known:
            raise UserError(
                f"'{table.name}' has {table.rows} rows and of the model's columns {', '.join(known) or 'none'}: nothing can be indexed."
            )
        if size is not None and not LEAST <= size <= gist:
            raise UserError(f"Of a vector {LEAST} to {gist} dimensions can be kept, not {size}.")
        if key is not None and key not in table.columns:
            raise unknown("column for the key:", key, table.columns)
        kinds = [WHOLE, *(c for c in known if c in model["matched"])]
        with locked(folder):
            writer = VectorStoreWriter(folder, unused(folder), kinds, table.rows, gist)
            try:
                moment = fed(writer, table, windows, known, done)
                unique(writer.cells, key, table.name)
                turn = np.ascontiguousarray(np.linalg.eigh(moment)[1][:, ::-1].astype(np.float32))
                recall = {
                    str(few): found
                    for few in (64, 128, 256)
                    if few < gist and (found := recalled(writer, turn, few)) is not None
                }
                turn = turn[:, : size or gist]
                name = f"turn-{unused(folder):06}.npy"
                save(folder / name, np.ascontiguousarray(turn))
                entry = writer.done(turn, finder, projection.umap if plan == "umap" else None)
            except BaseException:
                writer.undone()
                raise
            about = {
                "kinds": kinds,
                "gist": gist,
                "size": turn.shape[1],
                "turn": name,
                "parts": [entry],
                "columns": known,
                "key": key,
                "table": table.name,
                "recall": recall,
                "sha256": model["sha256"],
                "run": model["run"],
                "finder": finder,
                "map": plan if plan == "umap" else None,
            }
            index = cls(keep(folder, about, np.zeros(table.rows, bool)), windows)
            if finder:
                index.store = keep(folder, {**about, "found": index.found()}, np.zeros(table.rows, bool))
        return index

    @classmethod
    def open(cls, folder: Path, windows: Windows, sha256: str) -> Index:
        """The index in a folder, for the model of that hash.

        Raises:
            UserError: there is none, it can't be read, or its vectors are another model's.
        """
        store = VectorStore.open(folder)
        if store.about["sha256"] != sha256:
            raise UserError(
                f"'{folder}' holds the vectors of another model ({store.about['sha256'][:12]}…, in '{store.about['run']}') than this one ({sha256[:12]}…). "
                "Search it with that one, or make it again."
            )
        return cls(store, windows)

    def __len__(self) -> int:
        return int((~self.store.gone).sum())

    @property
    def cells(self) -> pa.Table:
        """The plain cells of all rows, also of those that are gone."""
        return pa.concat_tables([part.cells for part in self.store.parts], promote_options="permissive").drop_columns(
            [ROW]
        )

    # --- ask ----------------------------------------------------------------------------------------------------------

    def search(
        self,
        query: Mapping[str, Any],
        *,
        among: str | None = None,
        k: int = 10,
        condition: str | None = None,
        without: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> pa.Table:
        """The rows nearest to a query of any columns.

        Args:
            query: cells by column. among: the column that is compared; all that a row has by default.
            condition: which rows may be found (``search.where``); they are chosen before the nearest are. without: cells of what shall not be found.
            weights: how much each of the query's columns counts, relative to the others; by default they are looked at together, as a row's are.

        Returns:
            ``row`` (its number in the index: that of the table, then of what was added), ``score`` (cosine) and the rows' plain cells, best first; columns
            of the table that are called so themselves are ``table.row`` and ``table.score``.

        Raises:
            UserError: a column or condition that can't be searched by, or a query that says nothing.
        """
        barred = self.read(without) if without else None
        return self.search_rows(
            self.read(query), among=among, k=k, condition=condition, without=barred, weights=weights
        )[0]

    def search_rows(
        self,
        rows: Rows,
        *,
        among: str | None = None,
        k: int = 10,
        condition: str | None = None,
        without: Rows | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> list[pa.Table]:
        """As ``search``, for each of some rows that were read; those of ``without`` that are empty keep nothing out."""
        if k < 1:
            raise UserError(f"k={k}: a search finds at least one row.")
        k = min(k, max(self.store.rows, 1))
        asked = self.vectors(rows, weights)
        if without is not None:
            asked = (
                asked
                - AWAY
                * without.gists(self.store.about["columns"])
                * there(without, self.store.about["columns"])[:, None]
            )
        return self.nearest(turned(asked, self.store.turn), among, k, condition)

    def nearest(
        self, vectors: np.ndarray, among: str | None = None, k: int = 10, condition: str | None = None
    ) -> list[pa.Table]:
        """As ``search``, for each of some vectors [n, size] of length 1."""
        scores, rows = self.best(vectors, self.kind(among), k, self.allowed(condition))
        cells, result = self.cells, []
        for score, row in zip(scores, rows, strict=True):
            some = row >= 0
            found = {"row": pa.array(row[some], pa.int64()), "score": pa.array(score[some], pa.float32())}
            taken = cells.take(pa.array(row[some]))
            result.append(pa.table({**found, **qualified_names(found, taken)}))
        return result

    def best(self, vectors: np.ndarray, kind: str, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows [n, k] of the nearest allowed rows; -inf and -1 where there are fewer."""
        scores, rows, start = [], [], 0
        for part in self.store.parts:
            here = allowed[start : start + len(part.cells)] & part.has[kind]
            score, row = near(part, kind, vectors, k, here)
            scores.append(score)
            rows.append(np.where(row >= 0, row + start, -1))
            start += len(part.cells)
        score, row = np.concatenate(scores, 1), np.concatenate(rows, 1)
        order = np.argsort(-score, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(score, order, 1), np.take_along_axis(row, order, 1)

    def found(self) -> float | None:
        """The share of the ten nearest rows that the finder finds as well, by cells of single columns; None where there is none to ask by."""
        shares, part = [], self.store.parts[0]
        for kind in self.store.about["kinds"][1:]:
            rows = np.flatnonzero(part.has[kind])
            asked = np.array(part.vectors[kind][rows[:: max(1, len(rows) // JUDGED)][:JUDGED]])
            here = part.has[WHOLE]
            if len(asked):
                all_rows, proposed = (
                    each[1]
                    for each in (
                        nearest(asked, part.vectors[WHOLE], FOUND, here, part.rough[WHOLE]),
                        near(part, WHOLE, asked, FOUND, here),
                    )
                )
                shares += overlap(all_rows, proposed)
        return round(float(np.mean(shares)), 4) if shares else None

    def duplicates(
        self, above: float = 0.98, among: str | None = None, done: Callable[[int], None] | None = None
    ) -> list[list[int]]:
        """Groups of rows that are nearly alike, directly or by way of others: those whose vectors have a cosine above a bound; the largest first.

        Raises:
            UserError: a bound that isn't one.
        """
        import scipy.sparse
        from scipy.sparse.csgraph import connected_components

        if not 0 < above <= 1:
            raise UserError(
                f"above={above}: a cosine of 0 to 1 is the bound of what is nearly alike, for instance 0.98."
            )
        kind, allowed, one, other, start = self.kind(among), ~self.store.gone, [], [], 0
        for part in self.store.parts:
            rows = np.flatnonzero(allowed[start : start + len(part.cells)] & part.has[kind])
            for at in range(0, len(rows), AT_ONCE):
                some = rows[at : at + AT_ONCE]
                asked, many = some, ALIKE + 1
                while len(asked):  # who has more neighbours that are alike than were looked at is asked for more
                    score, row = self.best(np.array(part.vectors[kind][asked]), kind, many, allowed)
                    near = (score > above - ROUNDED) & (row != (asked + start)[:, None]) & (row >= 0)
                    more = (score[:, -1] > above - ROUNDED) & (many < min(len(allowed), MOST_ALIKE))
                    one.append(np.repeat(asked[~more] + start, near[~more].sum(1)))
                    other.append(row[~more][near[~more]])
                    asked, many = asked[more], min(8 * many, len(allowed), MOST_ALIKE)
                if done:
                    done(len(some))
            start += len(part.cells)
        pairs = np.concatenate([np.zeros(0, np.int64), *one]), np.concatenate([np.zeros(0, np.int64), *other])
        _, label = connected_components(
            scipy.sparse.coo_array((np.ones(len(pairs[0]), bool), pairs), (self.store.rows, self.store.rows)),
            directed=False,
        )
        alike = np.unique(np.concatenate(pairs))
        groups = [alike[label[alike] == number].tolist() for number in np.unique(label[alike])]
        return sorted(groups, key=lambda group: (-len(group), group[0]))

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows that are on the map, and where, [n, 2] of about 0 to 1."""
        parts, some = (
            self.store.parts,
            np.flatnonzero(~self.store.gone & np.concatenate([part.has[WHOLE] for part in self.store.parts])),
        )
        if self.store.about.get("map"):
            return some, projection.framed(np.concatenate([part.places for part in parts])[some])
        return some, projection.framed(
            projection.flat(
                np.concatenate([np.array(part.vectors[WHOLE][:, : projection.LEADING]) for part in parts])[some]
            )
        )

    def among_known(self, vectors: np.ndarray, has: np.ndarray) -> np.ndarray:
        """New rows among those that are on the map."""
        result, parts = np.zeros((len(vectors), 2), np.float32), self.store.parts
        known = np.concatenate([part.has[WHOLE] for part in parts])
        result[has] = projection.between(
            np.array(vectors[has]),
            np.concatenate([part.vectors[WHOLE] for part in parts])[known],
            np.concatenate([part.places for part in parts])[known],
        )
        return result

    def read(self, query: Mapping[str, Any]) -> Rows:
        """Cells of any columns as a row.

        Raises:
            UserError: a column that isn't this index's, or nothing that can be read.
        """
        for column in query:
            if column not in self.store.about["columns"]:
                raise unknown("column of this index:", column, self.store.about["columns"])
        rows = next(self.windows([dict(query)], list(query))) if query else None
        if rows is None or not there(rows, query).all():
            raise UserError(
                f"The query says nothing that could be looked for: {', '.join(query) or 'it'} is empty or can't be read."
            )
        return rows

    def vectors(self, rows: Rows, weights: Mapping[str, float] | None = None) -> np.ndarray:
        """Rows as vectors [n, gist] of length 1, as they are before they are turned.

        Raises:
            UserError: weights of columns that aren't there, or that leave nothing of a row.
        """
        columns = self.store.about["columns"]
        if not weights:
            return rows.gists(columns)
        for column in weights:
            if column not in columns:
                raise unknown("column of this index:", column, columns)
        if not all(math.isfinite(float(weight)) for weight in weights.values()):
            raise UserError(f"The weights {dict(weights)} are no numbers that a column could count.")
        total = sum(
            float(weights.get(c, 1.0)) * rows.gists([c]) * rows.has(c)[:, None] for c in columns if rows.has(c).any()
        )
        length = np.linalg.norm(total, axis=1, keepdims=True)
        if (length < 1e-6).any():
            raise UserError(
                f"The weights {dict(weights)} leave nothing of the query. Give at least one column a weight above 0."
            )
        return total / length

    def kind(self, among: str | None) -> str:
        """The vectors that are compared."""
        kind = WHOLE if among is None else among
        if kind not in self.store.about["kinds"]:
            raise unknown("column to search among:", kind, self.store.about["kinds"][1:])
        return kind

    def allowed(self, condition: str | None) -> np.ndarray:
        """The rows that may be found, bool [rows]."""
        if condition is None:
            return ~self.store.gone
        return where(condition, self.cells).to_numpy() & ~self.store.gone

    def rows_in(self, table: Table) -> np.ndarray:
        """For each row of the index, also those that are gone, its number in a table, int64; -1 where the table doesn't have it.

        Rows are told by the index's key where it has one and the table that column; else a row is that of its own number, if all plain cells that both know are the same.
        """
        cells, key = self.cells, self.store.about["key"]
        numbers = np.arange(cells.num_rows)
        if key is not None and key in table.columns:
            own, other = of_one_type(cells.column(key), table.take(np.arange(table.rows), [key]).column(key))
            return (
                pc.fill_null(pc.index_in(own, value_set=other.combine_chunks(), skip_nulls=True), -1)
                .to_numpy()
                .astype(np.int64)
            )
        common = [name for name in cells.column_names if name in table.columns]
        count = min(len(numbers), table.rows)
        theirs, same = table.take(np.arange(count), common), np.ones(count, bool)
        for name in common:
            own, other = of_one_type(cells.column(name).slice(0, count), theirs.column(name))
            equal = pc.fill_null(pc.equal(own, other), False).to_numpy()
            same &= equal | (own.is_null().to_numpy() & other.is_null().to_numpy()) | (neither(own) & neither(other))
        return np.where(np.pad(same, (0, len(numbers) - count)), numbers, -1)

    # --- change -------------------------------------------------------------------------------------------------------

    def add(self, table: Any, done: Callable[[int], None] | None = None) -> int:
        """Add a table's rows; those whose key is already there take the place of the rows that have it. How many were replaced.

        Raises:
            UserError: the table lacks the key, or its cells are of another type.
        """
        table = table if isinstance(table, Table) else Table.open(table)
        if not table.rows:
            return 0
        with locked(self.store.folder):
            self.reread()
            about, key = self.store.about, self.store.about["key"]
            if key is not None and key not in table.columns:
                raise UserError(
                    f"'{table.name}' has no column '{key}', which is the key of '{self.store.folder}'. Columns: {', '.join(table.columns)}."
                )
            writer = VectorStoreWriter(
                self.store.folder, unused(self.store.folder), about["kinds"], table.rows, about["gist"]
            )
            try:
                fed(writer, table, self.windows, about["columns"], done)
                unique(writer.cells, key, table.name)
                gone = self.store.gone.copy()
                if key is not None:
                    gone |= self.having(key, pa.concat_tables(writer.cells, promote_options="permissive").column(key))
                pa.unify_schemas(
                    [self.cells.schema, *(part.drop_columns([ROW]).schema for part in writer.cells)],
                    promote_options="permissive",
                )
                entry = writer.done(
                    self.store.turn, about.get("finder"), self.among_known if about.get("map") else None
                )
            except pa.ArrowException as error:
                writer.undone()
                raise UserError(
                    f"The cells of '{table.name}' are of other types than those of '{self.store.folder}': {error}"
                ) from error
            except BaseException:
                writer.undone()
                raise
            replaced = int(gone.sum() - self.store.gone.sum())
            self.store = keep(
                self.store.folder,
                {**about, "parts": [*about["parts"], entry]},
                np.concatenate([gone, np.zeros(table.rows, bool)]),
            )
        return replaced

    def remove(self, keys: Iterable[Any]) -> int:
        """Remove the rows that have these keys, or where the index has no key these numbers. How many there were."""
        wanted = list(keys)
        with locked(self.store.folder):
            before = self.store.about
            self.reread()
            key = self.store.about["key"]
            if key is not None:
                found = self.having(key, pa.chunked_array([pa.array(wanted)]))
            else:
                if before["turn"] != self.store.about["turn"]:
                    raise UserError(
                        f"'{self.store.folder}' was made anew since it was opened, so its rows may have other numbers. Open it again."
                    )
                found = np.zeros(self.store.rows, bool)
                if not all(
                    isinstance(number, int | np.integer)
                    and not isinstance(number, bool)
                    and 0 <= number < self.store.rows
                    for number in wanted
                ):
                    raise UserError(
                        f"'{self.store.folder}' has rows 0 to {self.store.rows - 1}; {wanted[:8]} were to be removed."
                    )
                found[np.array(wanted, np.int64)] = True
            count = int((found & ~self.store.gone).sum())
            self.store = keep(self.store.folder, self.store.about, self.store.gone | found)
        return count

    def reread(self) -> None:
        """Take what the folder holds by now, as somebody else may have written to it since it was opened.

        Raises:
            UserError: it can't be read any more, or is another model's by now.
        """
        store = VectorStore.open(self.store.folder)
        if store.about["sha256"] != self.store.about["sha256"]:
            raise UserError(
                f"'{self.store.folder}' was made anew with another model since it was opened. Open it again."
            )
        self.store = store

    def having(self, key: str, values: pa.ChunkedArray) -> np.ndarray:
        """Which rows have one of these keys, as text where the types differ."""
        column, values = of_one_type(self.cells.column(key), values)
        return pc.is_in(column, value_set=values.combine_chunks()).to_numpy() & ~self.store.gone


def of_one_type(one: pa.ChunkedArray, other: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Two columns of one type: as text where theirs differ."""
    return (one, other) if one.type == other.type else (one.cast(pa.string()), other.cast(pa.string()))


def neither(cells: pa.ChunkedArray) -> np.ndarray:
    """Which numbers aren't any, which equal not even themselves."""
    return (
        pc.fill_null(pc.is_nan(cells), False).to_numpy()
        if pa.types.is_floating(cells.type)
        else np.zeros(len(cells), bool)
    )


def near(part: StorePart, kind: str, vectors: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and rows [n, k] of a part's allowed rows nearest to some vectors: of those that its finder proposes where it has one and most rows may be found, and
    that are enough; else of all."""
    open_to_all, finder = bool(allowed.all()), part.finders.get(kind)
    if finder is None or allowed.sum() < OPEN * part.has[kind].sum():
        return nearest(vectors, part.vectors[kind], k, None if open_to_all else allowed, part.rough[kind])
    row = finder.propose(vectors, min(len(allowed), PROPOSED[0] * k + PROPOSED[1]))
    at = row.clip(0)
    score = np.where(
        (row >= 0) & allowed[at], np.einsum("qkd,qd->qk", part.vectors[kind][at], vectors), -np.inf
    ).astype(np.float32)
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    score, row = np.take_along_axis(score, order, 1), np.take_along_axis(row, order, 1)
    row = np.where(np.isfinite(score), row, -1)
    few = (row >= 0).sum(1) < min(k, int(allowed.sum()))
    score, row = (
        np.pad(each, ((0, 0), (0, k - each.shape[1])), constant_values=fill)
        for each, fill in ((score, -np.inf), (row, -1))
    )
    if few.any():
        score[few], row[few] = nearest(
            vectors[few], part.vectors[kind], k, None if open_to_all else allowed, part.rough[kind]
        )
    return score, row


def there(rows: Rows, columns: Iterable[str]) -> np.ndarray:
    """Which rows have any of some columns, bool [n]."""
    return np.any([rows.has(c) for c in columns], 0)


def fed(
    writer: VectorStoreWriter,
    table: Table,
    windows: Windows,
    columns: Sequence[str],
    done: Callable[[int], None] | None,
) -> np.ndarray:
    """Embed a table's rows into a part; the sum of the outer products of its vectors, [gist, gist]."""
    simple, start, total = [field.name for field in table.schema if is_plain(field.type) and field.name != ROW], 0, 0.0
    for rows in windows(table, columns):
        cells = table.take(np.arange(start, start + rows.count), simple).append_column(
            ROW, pa.array(np.arange(start, start + rows.count))
        )
        vectors = {}
        for kind in writer.kinds:
            if kind == WHOLE:
                some = np.flatnonzero(there(rows, columns))
                vectors[kind] = some, rows.gists(columns)[some]
            elif kind in rows.cells:
                vectors[kind] = rows.column_gists(kind)
        writer.add(cells, vectors)
        total = total + sum(part.T @ part for _, part in vectors.values())
        start += rows.count
        if done:
            done(rows.count)
    return np.asarray(total, np.float64)


def recalled(writer: VectorStoreWriter, turn: np.ndarray, few: int) -> float | None:
    """The share of the ten rows found by all dimensions that the leading ``few`` find too, by cells of single columns; None where none is there."""
    shares, several = [], {kind: np.flatnonzero(have) for kind, have in zip(writer.kinds, writer.has, strict=True)}
    whole = np.array(writer.whole[WHOLE][:: -(-writer.rows // JUDGES)])
    sides = [turned(whole, turn[:, :some]) for some in (turn.shape[1], few)]
    for kind in writer.kinds[1:]:
        rows = several[kind][:: max(1, len(several[kind]) // JUDGED)][:JUDGED]
        if len(rows):
            asked = np.array(writer.whole[kind][rows])
            full, cut = (
                nearest(turned(asked, turn[:, : side.shape[1]]), side, min(FOUND, len(whole)))[1] for side in sides
            )
            shares += overlap(full, cut)
    return round(float(np.mean(shares)), 4) if shares else None


def overlap(wanted: np.ndarray, found: np.ndarray) -> list[float]:
    """For each line of rows [n, k] the share of the wanted ones that were found."""
    return [len(set(a) & set(b)) / len(set(a)) for a, b in zip(wanted.tolist(), found.tolist(), strict=True)]


def unique(cells: Sequence[pa.Table], key: str | None, name: str) -> None:
    """Refuse a key that is missing somewhere or not a row's own."""
    if key is None:
        return
    if any(key not in part.column_names for part in cells):
        raise UserError(f"The column '{key}' of '{name}' holds no plain cells. A key is a text, a number or a date.")
    column = pa.chunked_array([chunk for part in cells for chunk in part.column(key).chunks])
    if column.null_count or pc.count_distinct(column).as_py() < len(column):
        raise UserError(
            f"The key '{key}' of '{name}' is missing in {column.null_count} rows and has {pc.count_distinct(column).as_py():,} values in {len(column):,} rows; "
            "each row needs its own."
        )


def is_plain(kind: pa.DataType) -> bool:
    """Whether cells of this type can be shown and compared as they are."""
    return (
        pt.is_string(kind)
        or pt.is_large_string(kind)
        or pt.is_integer(kind)
        or pt.is_floating(kind)
        or pt.is_boolean(kind)
        or pt.is_temporal(kind)
        or pt.is_decimal(kind)
        or pt.is_dictionary(kind)
    )
