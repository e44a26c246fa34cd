"""Vector store: vectors and plain cells of rows in a folder, which grows by parts and is always whole.

    INDEX/ index.json  turn-000002.npy  gone-000003.npy
           part-000001/ cells.arrow has.npy 0.npy 0.int8.npy 0.scale.npy 1.npy …

A part is written beside the others and never changed. ``index.json``, which is replaced at once, names the parts that
count and the rows that are gone: what a file names is there, or the file isn't.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write, sync, write_json
from sensorium.core.registry import find
from sensorium.search.exact import GROUP, CoarseVectors, as_rough
from sensorium.search.finders import Finder

FORMAT = 2
INDEX = "index.json"
WHOLE = ""
"""The name of the vectors of all that a row has; the others bear the names of columns."""
NAMED = ("kinds", "gist", "size", "turn", "gone", "parts", "columns", "key", "table", "recall", "sha256", "run")
"""Keys of every ``index.json``."""
MAGIC = b"\x93NUMPY"
"""First bytes of an array file."""
BLOCK = 65_536
"""Vectors that are turned and rounded at once, a multiple of those that are rounded alike."""


@dataclasses.dataclass
class StorePart:
    """Part of a store: rows that were written together.

    Attributes:
        cells: their plain cells.
        has: for each kind of vectors which rows have one, bool [n].
        vectors, rough: for each kind float32 [n, size], mapped from the file, and the same rounded.
        finders: for each kind what proposes rows; empty where all are looked at.
        places: of each row on the map, float32 [n, 2]; None where the vectors say it.
    """

    cells: pa.Table
    has: dict[str, np.ndarray]
    vectors: dict[str, np.ndarray]
    rough: dict[str, CoarseVectors]
    finders: dict[str, Finder]
    places: np.ndarray | None


class VectorStore:
    """Folder of one index.

    Attributes:
        about: contents of ``index.json``: ``kinds`` (of vectors), ``size``, ``parts`` (name and rows of each), ``turn``
            and ``gone`` (files), and what the index notes of itself.
        parts: in the order in which rows are numbered. gone: rows that no longer count, bool [rows].
        turn: rotation of the gists, float32 [gist, size].
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.parts = [self.part(entry) for entry in about["parts"]]
        self.rows = sum(entry["rows"] for entry in about["parts"])
        self.gone = (
            np.zeros(self.rows, bool)
            if about["gone"] is None
            else mapped(folder / plain(about["gone"]), np.uint8, (self.rows,)).astype(bool)
        )
        self.turn = mapped(folder / plain(about["turn"]), np.float32, (int(about["gist"]), int(about["size"])))

    @classmethod
    def open(cls, folder: Path) -> VectorStore:
        """Read what is there.

        Raises:
            UserError: no index, one of another format, or a file that is cut short or foreign.
        """
        path = folder / INDEX
        if not path.is_file():
            raise UserError(
                f"'{folder}' holds no index ({INDEX}). Make one with: sensorium index RUN TABLE --out {folder}"
            )
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise UserError(
                    f"'{folder}' is an index of format {about['format']}; this Sensorium reads {FORMAT}. Make it again."
                )
            if lacking := [name for name in NAMED if name not in about]:
                raise ValueError(f"'{path}' doesn't say its {', '.join(lacking)}")
            if not about["parts"]:
                raise ValueError(f"'{path}' names no parts")
            return cls(folder, about)
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError, pa.ArrowException) as error:
            raise UserError(f"'{folder}' can't be read as an index: {error}. Make it again.") from error

    def part(self, entry: dict[str, Any]) -> StorePart:
        """Map one part's files, after a look at their sizes.

        Raises:
            ValueError: one is not what was written.
        """
        folder, rows, size = self.folder / plain(entry["name"]), int(entry["rows"]), int(self.about["size"])
        with pa.memory_map(str(folder / "cells.arrow")) as file:
            cells = pa.ipc.open_file(file).read_all()
        if cells.num_rows != rows:
            raise ValueError(f"'{folder / 'cells.arrow'}' holds {cells.num_rows} rows, not {rows}")
        kinds, finder = list(self.about["kinds"]), self.about.get("finder")
        has = mapped(folder / "has.npy", np.uint8, (len(kinds), rows)).astype(bool)
        return StorePart(
            cells,
            dict(zip(kinds, has, strict=True)),
            {kind: mapped(folder / f"{number}.npy", np.float32, (rows, size)) for number, kind in enumerate(kinds)},
            {
                kind: CoarseVectors(
                    mapped(folder / f"{number}.int8.npy", np.int8, (rows, size)),
                    mapped(folder / f"{number}.scale.npy", np.float32, (-(-rows // GROUP),)),
                )
                for number, kind in enumerate(kinds)
            },
            {kind: find(Finder, finder)(folder / f"{number}.{finder}", rows, size) for number, kind in enumerate(kinds)}
            if finder
            else {},
            mapped(folder / "places.npy", np.float32, (rows, 2)) if self.about.get("map") else None,
        )


# --- writing ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Lock a folder against other writers; it is made where it isn't there.

    Raises:
        UserError: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "lock"
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        raise UserError(
            f"'{folder}' is being written to by another process. If there is none, remove '{lock}'."
        ) from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def keep(folder: Path, about: dict[str, Any], gone: np.ndarray) -> VectorStore:
    """Make ``about`` what a folder says, and remove what it no longer names."""
    name = None
    if gone.any():
        name = f"gone-{unused(folder):06}.npy"
        save(folder / name, gone.astype(np.uint8))
    write_json(folder / INDEX, {**about, "format": FORMAT, "gone": name})
    named = {name, about["turn"], *(entry["name"] for entry in about["parts"])}
    for left in folder.glob("*-[0-9]*"):
        if left.name not in named and left.name.split("-")[0] in ("part", "gone", "turn"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return VectorStore.open(folder)


def unused(folder: Path) -> int:
    """Unused number: none of the folder's files has it yet."""
    taken = (path.name.split(".")[0].rsplit("-", 1)[-1] for path in folder.glob("*-*"))
    return max((int(name) for name in taken if name.isdigit()), default=0) + 1


def save(path: Path, array: np.ndarray) -> None:
    """Write an array, whole or not at all."""
    with atomic_write(path) as part:
        np.save(part, array, allow_pickle=False)


class VectorStoreWriter:
    """Writer of a part; ``done`` finishes it, what isn't done is removed.

    Args:
        folder: of the index; number: see ``unused``. kinds, rows, size: of the vectors as they come.
    """

    def __init__(self, folder: Path, number: int, kinds: Sequence[str], rows: int, size: int) -> None:
        self.name, self.kinds, self.rows = f"part-{number:06}", list(kinds), rows
        self.folder = folder / self.name
        self.folder.mkdir(parents=True)
        self.has, self.cells, self.at = np.zeros((len(kinds), rows), np.uint8), [], 0
        self.whole = {
            kind: np.lib.format.open_memmap(self.folder / f"{number}.raw.npy", "w+", np.float32, (rows, size))
            for number, kind in enumerate(kinds)
        }

    def add(self, cells: pa.Table, vectors: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Add the next rows: their cells, and of each kind which of them have a vector and those vectors."""
        for number, kind in enumerate(self.kinds):
            if kind in vectors:
                rows, part = vectors[kind]
                self.has[number, self.at + rows] = 1
                self.whole[kind][self.at + rows] = part
        self.cells.append(cells)
        self.at += cells.num_rows

    def done(
        self,
        turn: np.ndarray,
        finder: str | None = None,
        placed: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> dict[str, Any]:
        """Write the part and return its entry in the index.

        Vectors are stored rotated by ``turn`` [size, n_dimensions], which keeps the leading dimensions, to
        length 1.

        Args:
            finder: name of the approximate index that is written as well.
            placed: from the vectors of whole rows and which have one to their places on the map.
        """
        n_dimensions = turn.shape[1]
        for number, kind in enumerate(self.kinds):
            full = np.lib.format.open_memmap(self.folder / f"{number}.npy", "w+", np.float32, (self.rows, n_dimensions))
            rough = np.lib.format.open_memmap(
                self.folder / f"{number}.int8.npy", "w+", np.int8, (self.rows, n_dimensions)
            )
            scales = np.zeros(-(-self.rows // GROUP), np.float32)
            for start in range(0, self.rows, BLOCK):
                some = slice(start, start + BLOCK)
                full[some] = turned(self.whole[kind][some], turn)
                rough[some], scales[start // GROUP : -(-(start + BLOCK) // GROUP)] = as_rough(full[some])
            full.flush()
            rough.flush()
            np.save(self.folder / f"{number}.scale.npy", scales, allow_pickle=False)
            if finder:
                find(Finder, finder).write(self.folder / f"{number}.{finder}", full, np.flatnonzero(self.has[number]))
            if placed and kind == WHOLE:
                np.save(self.folder / "places.npy", placed(full, self.has[number].astype(bool)), allow_pickle=False)
            del full, rough
            self.whole.pop(kind)
            (self.folder / f"{number}.raw.npy").unlink()
        np.save(self.folder / "has.npy", self.has, allow_pickle=False)
        table = pa.concat_tables(self.cells, promote_options="permissive")
        with pa.OSFile(str(self.folder / "cells.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        for path in self.folder.rglob("*"):
            sync(path)
        return {"name": self.name, "rows": self.rows}

    def undone(self) -> None:
        """Remove all that was written."""
        self.whole.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def turned(vectors: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Vectors [n, size] rotated and cut to [n, n_dimensions], of length 1, zeros where they were."""
    result = vectors @ turn
    return result / np.linalg.norm(result, axis=1, keepdims=True).clip(1e-12)


def mapped(path: Path, kind: type, shape: tuple[int, ...]) -> np.ndarray:
    """Memory-mapped array of a file; what is changed in memory stays there.

    Raises:
        ValueError: the file holds something else, or less.
    """
    if not np.prod(shape):  # nothing can be mapped of an empty file
        return np.zeros(shape, kind)
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"'{path}' is no array")
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"'{path}' is cut short ({error})") from error
    if array.dtype != kind or array.shape != shape:
        raise ValueError(f"'{path}' holds {array.dtype} {list(array.shape)}, not {np.dtype(kind)} {list(shape)}")
    return array


def plain(name: str) -> str:
    """Check that a name is one of a file, which leads nowhere out of the folder, and return it.

    Raises:
        ValueError: it isn't.
    """
    if not name or name != Path(name).name or name in (".", ".."):
        raise ValueError(f"'{name}' is no name of a file")
    return name
