"""SQL queries over a table's plain columns, in DuckDB: read-only, one at a time, without access to files and settings.

It knows Arrow tables and SQL, no model.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from sensorium.core.errors import UserError
from sensorium.data.table import Table

MAX_ROWS = 1000
"""Rows of an answer."""
MAX_SECONDS, MAX_MEMORY = 30.0, "2GB"
"""Time and memory that a query may take."""


def plain(table: Table) -> pa.Table:
    """Plain table: a table's columns of texts, numbers, dates and truths, and its rows' numbers as ``row``."""
    fit = [field.name for field in table.schema if simple(field.type)]
    cells = table.take(np.arange(table.rows), fit) if fit else pa.table({})
    columns, taken = {"row": pa.array(np.arange(table.rows))}, {"row"}
    for name in fit:
        own = name
        while own.casefold() in taken:  # to SQL "Age" and "age" are one
            own += "_"
        taken.add(own.casefold())
        columns[own] = cells.column(name)
    return pa.table(columns)


def simple(kind: pa.DataType) -> bool:
    """True for types whose cells SQL compares as people would."""
    if pt.is_dictionary(kind):
        return simple(kind.value_type)
    return any(
        is_one(kind)
        for is_one in (
            pt.is_string,
            pt.is_large_string,
            pt.is_string_view,
            pt.is_boolean,
            pt.is_integer,
            pt.is_floating,
            pt.is_decimal,
            pt.is_date,
            pt.is_timestamp,
            pt.is_time,
        )
    )


def run(rows: pa.Table, sql: str) -> pa.Table:
    """Result of a query over ``rows``, at most ``MAX_ROWS`` rows of it.

    Raises:
        UserError: DuckDB isn't installed, it is no single SELECT, it can't be understood, or it takes too long.
    """
    duckdb = library()
    connection = duckdb.connect(
        config={
            "enable_external_access": "false",
            "python_enable_replacements": "false",
            "memory_limit": MAX_MEMORY,
            "lock_configuration": "true",
        }
    )
    try:
        connection.register("rows", rows)
        try:
            statements = connection.extract_statements(sql)
        except duckdb.Error as error:
            raise UserError(f"The query can't be read: {first(error)}") from error
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise UserError(f"Asked was: {sql[:200]}. One SELECT over the table 'rows' is possible, which only reads.")
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            connection.interrupt()

        timer = threading.Timer(MAX_SECONDS, stop)
        timer.start()
        try:
            return connection.sql(statements[0].query).limit(MAX_ROWS).to_arrow_table()
        except duckdb.Error as error:
            if stopped.is_set():
                raise UserError(f"The query took longer than {MAX_SECONDS:g} s: {sql[:200]}") from error
            raise UserError(
                f"The query can't be answered: {first(error)}. Columns of 'rows': {', '.join(rows.column_names)}."
            ) from error
        finally:
            timer.cancel()
    finally:
        connection.close()


def first(error: Exception) -> str:
    """First line of DuckDB's message."""
    return str(error).strip().splitlines()[0]


def library() -> Any:
    """DuckDB's module.

    Raises:
        UserError: it isn't installed.
    """
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise UserError(
            "Questions about many rows need the package 'duckdb'. Install it with: pip install 'sensorium[query]'"
        ) from error
    return duckdb
