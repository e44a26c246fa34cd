"""Database servers through SQLAlchemy: a query that reads, in a read-only transaction where there is one, streamed.

The password of a URL is in no message and no name.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from sensorium.core.errors import UserError, did_you_mean
from sensorium.data.blocks import check_distinct_names
from sensorium.data.objects import spool_objects
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, converted
from sensorium.data.sources._inside import error_summary, optional_import
from sensorium.data.spool import spooling

FETCH_ROWS = 1024
"""Rows that a server sends at once."""
MAX_SCHEMAS = 20
"""Most schemas that are searched for tables."""
READ_ONLY_STATEMENTS = {
    **dict.fromkeys(("postgresql", "cockroachdb", "redshift", "oracle"), "SET TRANSACTION READ ONLY"),
    **dict.fromkeys(("mysql", "mariadb"), "SET SESSION TRANSACTION READ ONLY"),
    "sqlite": "PRAGMA query_only = ON",
}
"""Statements that make a transaction read-only, by dialect; on other servers it is rolled back."""
WRITE_KEYWORDS = frozenset(
    [
        "insert",
        "update",
        "delete",
        "merge",
        "drop",
        "alter",
        "create",
        "truncate",
        "grant",
        "revoke",
        "deny",
        "call",
        "exec",
        "execute",
        "copy",
        "attach",
        "backup",
        "restore",
        "into",
    ]
)
"""Keywords that a read-only query doesn't have outside of quotes; statements may follow without a sign between."""

_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|$)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]\[]*\]"""
    r"""|\$(\w*)\$.*?\$\1\$|[A-Za-z_]\w*|;|\S""",
    re.DOTALL,
)


def refusal_reason(query: str) -> str:
    """Reason to refuse a query; empty: it only reads, by its words."""
    tokens = [found[0].lower() for found in _TOKEN.finditer(query)]
    if any(token.startswith("/*!") for token in tokens):
        return "it has a comment that MySQL runs"
    tokens = [token for token in tokens if not token.startswith(("--", "/*"))]
    while tokens and tokens[-1] == ";":
        tokens.pop()
    first = next((token for token in tokens if token != "("), "")
    if first not in ("select", "with", "values", "table"):
        return f"it begins with {first[:40].upper() or 'nothing'}"
    if ";" in tokens:
        return "it is several statements"
    for before, token in itertools.pairwise(tokens):
        if token in WRITE_KEYWORDS and before != ".":
            return f"it holds the word {token.upper()}"
    return ""


def open_server(address: str, asked: str, options: ReadOptions) -> Opened:
    """Open a server's table or query.

    Raises:
        UserError: nothing was asked for, it can't be reached, or the query does more than read.
    """
    alchemy = optional_import("sqlalchemy", "sql", "'sql:' URLs")
    try:
        url = alchemy.engine.make_url(address)
    except (alchemy.exc.ArgumentError, ValueError):
        raise UserError(
            "What follows 'sql:' is no database URL. It is DIALECT://USER:PASSWORD@HOST/DATABASE#QUERY, with #, @ and "
            "/ in a password written as %23, %40 and %2F."
        ) from None
    where = f"the database '{url.database or url.host or url.drivername}'"
    try:
        engine = alchemy.create_engine(url, poolclass=alchemy.pool.NullPool)
        return _rows(alchemy, engine, where, asked, options)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{where.capitalize()} needs the driver '{error.name}', which isn't installed. Install it with: "
            f"pip install {error.name}"
        ) from None
    except (alchemy.exc.SQLAlchemyError, OSError) as error:
        raise UserError(
            f"{where.capitalize()} can't be read: {_hidden(error_summary(getattr(error, 'orig', None) or error), url)}"
        ) from None


def _hidden(message: str, url: Any) -> str:
    """A message without the password."""
    password = url.password or ""
    for secret in {
        str(password),
        quote(str(password)),
        quote_plus(str(password)),
        str(url.query.get("password", "")),
    } - {""}:
        message = message.replace(secret, "***")
    return re.sub(r"://([^:/@\s]*):[^@\s]*@", r"://\1:***@", message)


def _rows(alchemy: Any, engine: Any, where: str, asked: str, options: ReadOptions) -> Opened:
    if not asked:
        raise UserError(
            f"Say what to read from {where}: sql:URL#TABLE or sql:URL#SELECT ..."
            f"{did_you_mean('', _tables(alchemy, engine))}"
        )
    name = "query"
    with engine.connect() as connection:
        if begin := READ_ONLY_STATEMENTS.get(engine.dialect.name):
            connection.exec_driver_sql(begin)
            if "SESSION" in begin:  # it holds for the transactions that follow
                connection.rollback()
        try:
            if asked in (tables := _tables(alchemy, connection)):
                name = asked
                asked = "SELECT * FROM " + ".".join(
                    map(engine.dialect.identifier_preparer.quote_identifier, tables[asked])
                )
            elif reason := refusal_reason(asked):
                one_word = len(asked.split()) == 1
                hint = did_you_mean(asked, tables) if one_word else " Only SELECT and WITH ... SELECT are run."
                raise UserError(f"'{asked[:100]}' is no table of {where} and no query that only reads: {reason}.{hint}")
            base = (engine.url.database or "database").rpartition("/")[2]
            opened = Opened.empty(f"{base}.{name}")
            with spooling(where) as spool:
                found = connection.execution_options(stream_results=True, max_row_buffer=FETCH_ROWS).exec_driver_sql(
                    asked
                )
                names = list(found.keys())
                options.check_columns(len(names), where)
                check_distinct_names(names, f"What was asked of {where}")
                spool_objects(_objects(found, names), spool, opened, options)
                opened.blocks = converted(spool, empty=names)
        finally:
            with contextlib.suppress(alchemy.exc.SQLAlchemyError):
                connection.rollback()
    return opened


def _tables(alchemy: Any, bind: Any) -> dict[str, tuple[str, ...]]:
    """The tables and views of the default schema and those of others, ``schema.table``, with the parts of the name."""
    inspector = alchemy.inspect(bind)
    found: dict[str, tuple[str, ...]] = {
        name: (name,) for name in (*inspector.get_table_names(), *inspector.get_view_names())
    }
    with contextlib.suppress(alchemy.exc.SQLAlchemyError, NotImplementedError):
        for schema in inspector.get_schema_names()[:MAX_SCHEMAS]:
            if schema not in (inspector.default_schema_name, "information_schema"):
                found |= {f"{schema}.{name}": (schema, name) for name in inspector.get_table_names(schema)}
    return found


def _objects(found: Any, names: list[str]) -> Iterator[tuple[dict[str, Any], int]]:
    for rows in found.partitions(FETCH_ROWS):
        for row in rows:
            cells = [bytes(cell) if isinstance(cell, memoryview) else cell for cell in row]
            yield (
                dict(zip(names, cells, strict=True)),
                sum(len(cell) if isinstance(cell, (str, bytes)) else 8 for cell in cells),
            )
