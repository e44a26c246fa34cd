"""SQL databases: SQLite and DuckDB files, and ``sql:URL#QUERY`` for servers. They are only ever read.

Of a file its only table is taken, or what ``FILE#TABLE`` or ``FILE#SELECT ...`` asks for. SQLite is opened read-only,
and a query that does anything but read is refused while it is prepared; so it is with DuckDB, which may open no other
file.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sensorium.core.errors import UserError, did_you_mean
from sensorium.data.blocks import check_distinct_names
from sensorium.data.contents import ending_by_content
from sensorium.data.objects import spool_objects
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, converted
from sensorium.data.sources._inside import error_summary, optional_import, split_part, spool_batches
from sensorium.data.sources._server import open_server
from sensorium.data.spool import PIECE_ROWS, spooling

PREFIX = "sql:"
FETCH_ROWS = 256
"""Rows of SQLite that are fetched at once."""
SIDE_FILE_SUFFIXES = ("-wal", "-journal")
"""Suffixes of a SQLite database's side files, which exist while it is written, or after an interrupted write."""

_QUERY = re.compile(
    r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|\()*(select|with|values|from|table)\b", re.IGNORECASE | re.DOTALL
)
_FILE_URL = re.compile(r"(sqlite|duckdb)(\+\w+)?:///(?P<path>.+)", re.DOTALL)


class SQL(Source):
    """One database file, a part of it, or a server's table or query."""

    suffixes = (".sqlite", ".sqlite3", ".db", ".duckdb")

    @classmethod
    def accepts(cls, given: Any) -> bool:
        """True for ``sql:URL#QUERY`` or ``FILE#TABLE``."""
        return (isinstance(given, str) and given.startswith(PREFIX)) or split_part(given, _fits) is not None

    @classmethod
    def open(cls, given: str | Path | Sequence[Path], options: ReadOptions) -> Opened:
        """Convert to Parquet as the rows stream by."""
        if isinstance(given, str) and given.startswith(PREFIX):
            url, _, query = given.removeprefix(PREFIX).partition("#")
            if (found := _FILE_URL.fullmatch(url)) is None:
                return open_server(url, query.strip(), options)
            path = Path(found["path"].partition("?")[0]).expanduser()
            if not path.is_file():
                raise UserError(f"No database '{path}' from {Path.cwd()}.")
            return _file(path, query.strip(), options)
        if isinstance(given, (str, Path)):
            part = split_part(given, _fits)
            assert part is not None  # or it wasn't accepted
            return _file(*part, options)
        if len(given) > 1:
            raise UserError(f"{len(given)} databases are no table: {', '.join(map(str, given[:3]))}. Name one.")
        return _file(given[0], "", options)


def _fits(path: Path) -> bool:
    return path.suffix.lower() in SQL.suffixes or ending_by_content(path) in (".sqlite", ".duckdb")


def _file(path: Path, asked: str, options: ReadOptions) -> Opened:
    try:
        kind = ending_by_content(path)
        if kind == ".duckdb":
            return _duckdb(path, asked, options)
        if kind == ".sqlite" or not path.stat().st_size:
            return _sqlite(path, asked, options)
    except OSError as error:
        raise UserError(f"'{path}' can't be read: {error.strerror or error}") from error
    raise UserError(f"'{path}' is neither a SQLite nor a DuckDB database by its first bytes.")


def is_query(asked: str) -> bool:
    """True for a query that reads, by its first word, and no table's name."""
    return _QUERY.match(asked) is not None and len(asked.split()) > 1


def asked_for(path: Path, asked: str, tables: Sequence[str], views: Sequence[str]) -> str:
    """Table that was asked for, or the only one.

    Raises:
        UserError: there are several or none, or no such table.
    """
    every = [*tables, *views]
    if asked:
        if asked in every:
            return asked
        raise UserError(
            f"'{path}' has no table '{asked[:100]}', and that is no query either (SELECT ... or WITH ...; others are "
            "never run)." + did_you_mean(asked, every)
        )
    if len(tables or views) == 1:
        return (tables or views)[0]
    if not every:
        raise UserError(f"The database '{path}' has no table.")
    raise UserError(
        f"The database '{path}' has several tables. Name one, as '{path.name}#{every[0]}'. "
        f"Possible: {', '.join(every)}."
    )


def _opened(path: Path, asked: str, table: str) -> Opened:
    name = f"{path.name.split('.')[0]}.{table}" if table and asked else path.name.split(".")[0]
    return Opened.empty(name, path.parent.resolve())


def _sqlite(path: Path, asked: str, options: ReadOptions) -> Opened:
    try:
        connection = _connected(path, options)
        try:
            return _sqlite_rows(connection, path, asked, options)
        finally:
            connection.close()
    except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeDecodeError) as error:
        reason = error_summary(error)
        if "too big" in reason:
            raise options.too_long(f"A cell of '{path}'") from error
        if "not authorized" in reason or "prohibited" in reason:
            reason += "; a query may only read the tables of its own file"
        raise UserError(f"'{path}' can't be read{' by that query' if is_query(asked) else ''}: {reason}") from error


def _connected(path: Path, options: ReadOptions) -> sqlite3.Connection:
    """Read-only connection, which writes neither into the file nor beside it."""
    with open(path, "rb") as file:
        ahead = file.read(19)[18:] == b"\x02"
    # A database in WAL mode gets a file beside it even when it is only read, but for one that nobody writes to.
    still = ahead and not any(os.path.exists(f"{path}{side}") for side in SIDE_FILE_SUFFIXES)
    uri = f"file:{quote(str(path.resolve()))}?mode=ro" + ("&immutable=1" if still else "")
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(options.max_cell_size, 10**9))
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_authorizer(_allowed)
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    except BaseException:
        connection.close()
        raise
    return connection


def _allowed(action: int, one: str | None, two: str | None, *_: Any) -> int:
    """Authorizer callback of SQLite: allows reads, and the pragma of full-text tables."""
    reads = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
    if action in reads:
        return sqlite3.SQLITE_DENY if (two or "").lower() == "load_extension" else sqlite3.SQLITE_OK
    return (
        sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_PRAGMA and (one, two) == ("data_version", None)
        else sqlite3.SQLITE_DENY
    )


def _sqlite_rows(connection: sqlite3.Connection, path: Path, asked: str, options: ReadOptions) -> Opened:
    query, table = asked, ""
    kinds = connection.execute(
        "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') "
        "AND name NOT LIKE 'sqlite^_%' ESCAPE '^' ORDER BY rowid"
    ).fetchall()
    if asked in dict(kinds) or not is_query(asked):
        table = asked_for(
            path, asked, *([name for name, kind in kinds if kind == wanted] for wanted in ("table", "view"))
        )
        query = 'SELECT * FROM "{}"'.format(table.replace('"', '""'))
    opened = _opened(path, asked, table)
    with spooling(f"'{path}'") as spool:
        cursor = connection.execute(query)
        names = [about[0] for about in cursor.description]
        options.check_columns(len(names), spool.where)
        check_distinct_names(names, f"What was asked of '{path}'")
        spool_objects(_objects(cursor, names), spool, opened, options)
        opened.blocks = converted(spool, empty=names)
    return opened


def _objects(cursor: sqlite3.Cursor, names: list[str]) -> Iterator[tuple[dict[str, Any], int]]:
    while rows := cursor.fetchmany(FETCH_ROWS):
        for row in rows:
            yield (
                dict(zip(names, row, strict=True)),
                sum(len(cell) if isinstance(cell, (str, bytes)) else 8 for cell in row),
            )


def _duckdb(path: Path, asked: str, options: ReadOptions) -> Opened:
    duckdb = optional_import("duckdb", "query", "DuckDB databases")
    closed = {
        "enable_external_access": "false", "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false", "python_enable_replacements": "false", "lock_configuration": "true",
    }  # fmt: skip
    try:
        with duckdb.connect(str(path), read_only=True, config=closed) as connection:
            query, table = asked, ""
            found = connection.execute(
                "SELECT table_schema, table_name, table_type FROM information_schema.tables "
                "WHERE table_catalog = current_database() ORDER BY ALL"
            ).fetchall()
            ids = {
                name if schema == "main" else f"{schema}.{name}": (schema, name, kind) for schema, name, kind in found
            }
            if asked in ids or not is_query(asked):
                tables = [key for key, (_, _, kind) in ids.items() if kind != "VIEW"]
                table = asked_for(path, asked, tables, [key for key in ids if key not in tables])
                query = "SELECT * FROM " + ".".join('"{}"'.format(part.replace('"', '""')) for part in ids[table][:2])
            else:
                statements = connection.extract_statements(asked)
                if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                    raise UserError(
                        f"'{asked[:100]}' is not one query that reads. Only SELECT and WITH ... SELECT are run."
                    )
            opened = _opened(path, asked, table)
            with spooling(f"'{path}'") as spool:
                rows = connection.sql(query)
                reader = (getattr(rows, "to_arrow_reader", None) or rows.fetch_arrow_reader)(
                    PIECE_ROWS
                )  # its older name
                opened.blocks = spool_batches(reader, reader.schema, spool, options, opened)
            return opened
    except duckdb.Error as error:
        raise UserError(
            f"'{path}' can't be read{' by that query' if is_query(asked) else ''}: {error_summary(error)}"
        ) from error
