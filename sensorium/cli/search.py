"""Search, indexes, near duplicates and SQL: the commands ``search``, ``index``, ``duplicates`` and ``query``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import typer

from sensorium.cli.files import check_ending, check_folder, query_of, write_table
from sensorium.cli.output import note, print_found, print_rows, progress
from sensorium.core.errors import UserError, unknown
from sensorium.data.cells import qualified_names

if TYPE_CHECKING:
    from sensorium.model import Model
    from sensorium.search.index import Index

MAX_PRINTED_GROUPS = 20
"""Groups of near duplicates that are printed."""


def search_table(run: Path, source: str, by: Sequence[str], among: str | None, k: int) -> None:
    """Search a table row by row."""
    from sensorium.model import Model

    model = Model.load(run)
    opened = model.open(source)
    model.check([among] if among else [])
    print_found(opened, model.search(query_row(model, by), among=opened, column=among, k=k, note=note))


def search_index(
    folder: Path,
    run: Path | None,
    by: Sequence[str],
    without: Sequence[str],
    where: str | None,
    weight: Sequence[str],
    among: str | None,
    k: int,
) -> None:
    """Search an index."""
    index, model = open_index(folder, run)
    weights = {}
    for part in weight:
        column, equals, value = part.partition("=")
        try:
            weights[column] = float(value)
        except ValueError:
            raise UserError(f"--weight '{part}' is no weight. Write column=number, as photo=2.") from None
        if column not in query_of(by):
            raise unknown("column in --weight, which is not one of the query:", column, query_of(by))
    print_rows(
        index.search(
            query_row(model, by),
            among=among,
            k=k,
            condition=where,
            without=query_row(model, without) if without else None,
            weights=weights or None,
        )
    )


def query_row(model: Model, by: Sequence[str]) -> dict[str, Any]:
    """Query row of ``--by``, checked against the model's columns.

    Raises:
        UserError: nothing, a column that the model doesn't know, or words where a file is needed.
    """
    query = query_of(by)
    model.check(query)
    for name, value in query.items():
        if isinstance(value, str) and model.network.modalities[name].media:
            raise UserError(f"{name}={value}: column '{name}' holds files. To search by a file, write {name}=@FILE.")
    return query


def open_index(folder: Path, run: Path | None) -> tuple[Index, Model]:
    """Index of a folder, and the model that it was made with."""
    from sensorium.model import Model
    from sensorium.search.store import VectorStore

    made_with = Path(VectorStore.open(folder).about["run"])
    if run is None and not (made_with / "model.json").is_file():
        raise UserError(
            f"'{folder}' was made with the run '{made_with}', which is not there. If it was moved, say where "
            "to: --run RUN"
        )
    model = Model.load(run or made_with)
    return model.open_index(folder, note), model


def write_index(
    run: Path,
    source: str,
    out: Path,
    columns: Sequence[str] | None,
    key: str | None,
    size: int | None,
    finder: str | None,
    plan: str,
) -> None:
    """Write an index of a table."""
    from sensorium.model import Model

    check_folder(out / "index.json", "--out")
    model = Model.load(run)
    table = model.open(source)
    with progress("Embedding", table.rows) as done:
        index = model.index(
            table, out, columns=columns, key=key, size=size, finder=finder, plan=plan, note=note, done=done
        )
    about = index.store.about
    typer.echo(
        f"Wrote {len(index):,} rows of {about['size']} dimensions to {out}; to be searched: all columns, "
        f"{', '.join(about['kinds'][1:]) or 'none'} alone."
    )
    for few, found in about["recall"].items():
        note(f"  {few} dimensions find {found:.1%} of the ten nearest (--size {few})")
    if about.get("found") is not None:
        note(f"  {finder} finds {about['found']:.1%} of the ten nearest")


def change_index(run: Path, source: str, out: Path, remove: bool) -> None:
    """Add rows to an index, or remove some."""
    index, model = open_index(out, run)
    table = model.open(source)
    if remove:
        key = index.store.about["key"]
        if key is None or key not in table.columns:
            raise UserError(
                f"The key of '{out}' is {key!r}; '{table.name}' has the columns {', '.join(table.columns)}. "
                "Rows are removed by their key."
            )
        count = index.remove(table.take(range(table.rows), [key]).column(key).to_pylist())
        typer.echo(f"Removed {count:,} rows; {len(index):,} are left in {out}")
        return
    with progress("Embedding", table.rows) as done:
        replaced = index.add(table, done)
    typer.echo(f"Added {table.rows:,} rows, {replaced:,} in place of others; {len(index):,} are in {out}")


def write_duplicates(folder: Path, among: str | None, above: float, out: Path | None, run: Path | None = None) -> None:
    """Find near duplicates, print the largest groups, and write all of them."""
    if out is not None:
        check_ending(out)
        check_folder(out, "--out")
    index, _ = open_index(folder, run)
    with progress("Comparing", len(index)) as done:
        groups = index.duplicates(above, among, done)
    cells = index.cells
    numbers = pa.table(
        {
            "group": pa.array([n for n, group in enumerate(groups) for _ in group], pa.int64()),
            "row": pa.array([row for group in groups for row in group], pa.int64()),
        }
    )
    for name, taken in qualified_names(numbers.column_names, cells.take(numbers.column("row"))).items():
        numbers = numbers.append_column(name, taken)
    typer.echo(f"{len(groups):,} groups of {numbers.num_rows:,} rows that are nearly alike")
    few = sum(map(len, groups[:MAX_PRINTED_GROUPS]))
    if few:
        print_rows(numbers.slice(0, few))
    if out is not None:
        write_table(numbers, out)
        typer.echo(f"Wrote {out}")


def answer_query(source: str, question: str, out: Path | None) -> None:
    """Print or write the answer to a question about many rows."""
    from sensorium.cli.files import check_ending, write_table
    from sensorium.data.schema import infer
    from sensorium.model import open_table
    from sensorium.query import query

    if out is not None:
        check_ending(out)
    table = open_table(source)
    found = query(table, infer(table), question)
    note(found.sql)
    if out is not None:
        write_table(found.rows, out)
        note(f"Wrote {out}")
    else:
        print_rows(found.rows)
    for other in found.others:
        note(f"Or was this meant? {other}")
