"""Vector index of a table's rows: their vectors, and their plain cells for conditions. A query is cells of any columns.

It knows a network to embed with, and by its hash refuses another's vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import find
from sensorium.data.cells import qualified_names
from sensorium.data.table import Table
from sensorium.inference.rows import Rows
from sensorium.search import projection
from sensorium.search.duplicates import near_duplicates
from sensorium.search.embedding import (
    ROW,
    Windows,
    check_key,
    embed,
    finder_recall,
    has_any,
    truncated_recalls,
    weighted_gists,
)
from sensorium.search.finders import Finder
from sensorium.search.part_search import near
from sensorium.search.row_matching import common_type, mask_of, matching_rows
from sensorium.search.store import WHOLE, VectorStore, VectorStoreWriter, keep, locked, save, turned, unused
from sensorium.search.where import where

MIN_DIMENSIONS = 8
"""Dimensions that are stored at least."""
NEGATIVE_WEIGHT = 0.5
"""Share of the vector of what shall not be found that is subtracted from a query's."""


class Index:
    """Vector index of a table's rows.

    Args:
        store: its folder. windows: reads rows of a table for the network, a window at a time.
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
        """Index a table; the folder's contents are replaced when all is written.

        Args:
            model: ``columns``, ``matched`` (those that can be searched alone), ``gist``, ``sha256`` and ``run``.
            columns: those that are embedded.
            key: the column by which rows are replaced and removed, whose cells differ.
            size: dimensions that are stored of each vector; all by default.
            finder: name of the approximate index (``search.finders``); by default all rows are compared.
            plan: projection of the map, ``pca`` or ``umap``.
        """
        projection.check(plan)
        if finder is not None:
            find(Finder, finder)
        gist = int(model["gist"])
        known = [c for c in model["columns"] if c in table.columns and (columns is None or c in columns)]
        if not table.rows or not known:
            raise UserError(
                f"'{table.name}' has {table.rows} rows and of the model's columns {', '.join(known) or 'none'}: "
                "nothing can be indexed."
            )
        if size is not None and not MIN_DIMENSIONS <= size <= gist:
            raise UserError(f"Of a vector {MIN_DIMENSIONS} to {gist} dimensions are possible, not {size}.")
        if key is not None and key not in table.columns:
            raise unknown("column for the key:", key, table.columns)
        kinds = [WHOLE, *(c for c in known if c in model["matched"])]
        with locked(folder):
            writer = VectorStoreWriter(folder, unused(folder), kinds, table.rows, gist)
            try:
                moment = embed(writer, table, windows, known, done)
                check_key(writer.cells, key, table.name)
                turn = np.ascontiguousarray(np.linalg.eigh(moment)[1][:, ::-1].astype(np.float32))
                recall = truncated_recalls(writer, turn)
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
                index.store = keep(
                    folder, {**about, "found": finder_recall(index.store.parts[0], kinds)}, np.zeros(table.rows, bool)
                )
        return index

    @classmethod
    def open(cls, folder: Path, windows: Windows, sha256: str) -> Index:
        """Open the index in a folder, for the model of that hash.

        Raises:
            UserError: there is none, it can't be read, or its vectors are another model's.
        """
        store = VectorStore.open(folder)
        if store.about["sha256"] != sha256:
            raise UserError(
                f"'{folder}' holds the vectors of another model ({store.about['sha256'][:12]}…, in "
                f"'{store.about['run']}') than this one ({sha256[:12]}…). Search it with that one, or make it again."
            )
        return cls(store, windows)

    def __len__(self) -> int:
        return int((~self.store.gone).sum())

    @property
    def cells(self) -> pa.Table:
        """Plain cells of all rows, also of those that are gone."""
        cells = pa.concat_tables([part.cells for part in self.store.parts], promote_options="permissive")
        return cells.drop_columns([ROW])

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
        """Search for the rows nearest to a query of any columns.

        Args:
            query: cells by column. among: the column that is compared; all that a row has by default.
            condition: which rows may be found (``search.where``); they are chosen before the nearest are.
            without: cells of what shall not be found.
            weights: weight of each of the query's columns, relative to the others; by default they are embedded
                together, as a row's are.

        Returns:
            ``row`` (its number in the index: that of the table, then of what was added), ``score`` (cosine) and the
            rows' plain cells, best first; columns of the table that are called so themselves are ``table.row`` and
            ``table.score``.

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
        """Search as ``search`` does, for each of some rows; empty rows of ``without`` exclude nothing."""
        if k < 1:
            raise UserError(f"k={k}: a search finds at least one row.")
        k = min(k, max(self.store.rows, 1))
        asked = self.vectors(rows, weights)
        if without is not None:
            columns = self.store.about["columns"]
            asked = asked - NEGATIVE_WEIGHT * without.gists(columns) * has_any(without, columns)[:, None]
        return self.nearest(turned(asked, self.store.turn), among, k, condition)

    def nearest(
        self, vectors: np.ndarray, among: str | None = None, k: int = 10, condition: str | None = None
    ) -> list[pa.Table]:
        """Search as ``search`` does, for each of some vectors [n, size] of length 1."""
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

    def duplicates(
        self, above: float = 0.98, among: str | None = None, done: Callable[[int], None] | None = None
    ) -> list[list[int]]:
        """Groups of near duplicates, the largest first.

        Rows of a group are nearly alike, directly or through others: their vectors have a cosine above a bound.

        Raises:
            UserError: a bound that isn't one.
        """
        return near_duplicates(self.store, self.best, self.kind(among), above, done)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows that are on the map, and their places, [n, 2] of about 0 to 1."""
        parts = self.store.parts
        some = np.flatnonzero(~self.store.gone & np.concatenate([part.has[WHOLE] for part in parts]))
        if self.store.about.get("map"):
            return some, projection.framed(np.concatenate([part.places for part in parts])[some])
        leading = np.concatenate([np.array(part.vectors[WHOLE][:, : projection.LEADING]) for part in parts])
        return some, projection.framed(projection.flat(leading[some]))

    def among_known(self, vectors: np.ndarray, has: np.ndarray) -> np.ndarray:
        """Places of new rows, interpolated between those that are on the map."""
        parts = self.store.parts
        known = np.concatenate([part.has[WHOLE] for part in parts])
        placed = np.concatenate([part.vectors[WHOLE] for part in parts])[known]
        result = np.zeros((len(vectors), 2), np.float32)
        places = np.concatenate([part.places for part in parts])[known]
        result[has] = projection.between(np.array(vectors[has]), placed, places)
        return result

    def read(self, query: Mapping[str, Any]) -> Rows:
        """Read cells of any columns as a row.

        Raises:
            UserError: a column that isn't this index's, or nothing that can be read.
        """
        for column in query:
            if column not in self.store.about["columns"]:
                raise unknown("column of this index:", column, self.store.about["columns"])
        rows = next(self.windows([dict(query)], list(query))) if query else None
        if rows is None or not has_any(rows, query).all():
            raise UserError(f"The query is empty: {', '.join(query) or 'it'} is empty or can't be read.")
        return rows

    def vectors(self, rows: Rows, weights: Mapping[str, float] | None = None) -> np.ndarray:
        """Vectors of rows [n, gist] of length 1, before the rotation.

        Raises:
            UserError: weights of columns that aren't there, or that leave nothing of a row.
        """
        columns = self.store.about["columns"]
        return weighted_gists(rows, columns, weights) if weights else rows.gists(columns)

    def kind(self, among: str | None) -> str:
        """Kind of the vectors that are compared."""
        kind = WHOLE if among is None else among
        if kind not in self.store.about["kinds"]:
            raise unknown("column to search among:", kind, self.store.about["kinds"][1:])
        return kind

    def allowed(self, condition: str | None) -> np.ndarray:
        """Mask of the rows that may be found, bool [rows]."""
        if condition is None:
            return ~self.store.gone
        return where(condition, self.cells).to_numpy() & ~self.store.gone

    def rows_in(self, table: Table) -> np.ndarray:
        """Row number in a table of each row of the index, also of those that are gone, int64.

        It is -1 where the table doesn't have the row. Rows are matched by the index's key where it has one and the
        table that column; else a row is that of its own number, if all plain cells that both know are the same.
        """
        return matching_rows(self.cells, self.store.about["key"], table)

    # --- change -------------------------------------------------------------------------------------------------------

    def add(self, table: Any, done: Callable[[int], None] | None = None) -> int:
        """Add a table's rows; those whose key is already there replace the rows that have it. Return how many.

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
                    f"'{table.name}' has no column '{key}', which is the key of '{self.store.folder}'. "
                    f"Columns: {', '.join(table.columns)}."
                )
            writer = VectorStoreWriter(
                self.store.folder, unused(self.store.folder), about["kinds"], table.rows, about["gist"]
            )
            try:
                embed(writer, table, self.windows, about["columns"], done)
                check_key(writer.cells, key, table.name)
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
        """Remove the rows that have these keys, or where the index has no key these numbers. Return how many."""
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
                        f"'{self.store.folder}' was made anew since it was opened, so its rows may have other numbers. "
                        "Open it again."
                    )
                found = mask_of(wanted, self.store)
            count = int((found & ~self.store.gone).sum())
            self.store = keep(self.store.folder, self.store.about, self.store.gone | found)
        return count

    def reread(self) -> None:
        """Read the folder again, as another process may have written to it since it was opened.

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
        """Mask of the rows that have one of these keys, as text where the types differ."""
        column, values = common_type(self.cells.column(key), values)
        return pc.is_in(column, value_set=values.combine_chunks()).to_numpy() & ~self.store.gone
