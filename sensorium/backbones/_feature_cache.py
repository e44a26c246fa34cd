"""Feature cache: features of encoders in a file that all runs share, by hashes of the cell and of the encoder.

SQLite, so that writers don't collide and a crash leaves it intact. It is bounded: the oldest entries are evicted first.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sensorium.core.errors import UserError

LIMIT, GIB = "SENSORIUM_CACHE_GIB", 10.0
"""Environment variable of the largest size of the file, and its default; 0 caches nothing."""
FREED = 0.25
"""Share of the entries that is evicted when it is full."""
ASKED = 500
"""Keys that are looked up at once."""


def folder() -> Path:
    """Folder of the cache: SENSORIUM_CACHE, else the user's folder for such files."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SENSORIUM_CACHE") or Path(base) / "sensorium")


class FeatureCache:
    """Cache file. Where it can't be written, nothing is cached and all is computed; a corrupt one is replaced."""

    def __init__(self, path: Path | None = None, gib: float | None = None) -> None:
        self.path = path or folder() / "features.sqlite"
        try:
            self.most = (gib if gib is not None else float(os.environ.get(LIMIT, GIB))) * 2**30
        except ValueError as error:
            raise UserError(
                f"{LIMIT}={os.environ[LIMIT]} is no number of GiB. Give for instance 5, or 0 to keep nothing."
            ) from error
        self.lock, self.file = threading.Lock(), None
        with contextlib.suppress(OSError, sqlite3.OperationalError):
            if not self.most:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                self.file = self.opened()
            except sqlite3.OperationalError:  # locked, full, not to be written: another's file is left alone
                raise
            except sqlite3.DatabaseError:
                for ending in ("", "-wal", "-shm"):
                    self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
                self.file = self.opened()

    def opened(self) -> sqlite3.Connection:
        """Connection that bears other writers."""
        self.path.touch(mode=0o600)  # features tell of the cells
        file = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
        file.execute("PRAGMA auto_vacuum = INCREMENTAL")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute(
            "CREATE TABLE IF NOT EXISTS features (number INTEGER PRIMARY KEY, key BLOB UNIQUE, tokens INTEGER, data "
            "BLOB)"
        )
        file.commit()
        return file

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Features float16 [tokens, width] of those keys that are cached."""
        found: dict[bytes, np.ndarray] = {}
        if self.file is not None:
            with self.lock, contextlib.suppress(sqlite3.DatabaseError):
                for start in range(0, len(keys), ASKED):
                    some = list(keys[start : start + ASKED])
                    for key, tokens, data in self.file.execute(
                        f"SELECT key, tokens, data FROM features WHERE key IN ({','.join('?' * len(some))})", some
                    ):
                        found[bytes(key)] = np.frombuffer(data, np.float16).reshape(tokens, -1)
        return found

    def put(self, features: Mapping[bytes, np.ndarray]) -> None:
        """Store features, and evict old ones where the file is full."""
        if self.file is None or not features:
            return
        with self.lock, contextlib.suppress(sqlite3.DatabaseError):  # a full disk keeps nothing
            with self.file:
                self.file.executemany(
                    "INSERT OR IGNORE INTO features (key, tokens, data) VALUES (?, ?, ?)",
                    [
                        (key, len(value), np.ascontiguousarray(value, np.float16).tobytes())
                        for key, value in features.items()
                    ],
                )
            (used,) = self.file.execute(
                "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, "
                "pragma_page_size"
            ).fetchone()
            if used > self.most:
                with self.file:
                    self.file.execute(
                        "DELETE FROM features WHERE number <= (SELECT MIN(number) + (MAX(number) - MIN(number)) * ? "
                        "FROM features)",
                        (FREED,),
                    )
                self.file.execute("PRAGMA incremental_vacuum").fetchall()
