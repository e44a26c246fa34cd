"""Commands that look for rows: embed, search, query, index, duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run, Source, app, names
from sensorium.core.errors import UserError


@app.command()
def embed(
    run: Run,
    table: Source,
    out: Annotated[Path, typer.Option(help="A .npy, .parquet, .csv or .jsonl file.")],
    columns: Annotated[str | None, typer.Option(help="Columns to embed, joined by commas. Default: all.")] = None,
) -> None:
    """One unit vector a row, from whichever columns are given."""
    from sensorium.cli.files import check_ending, write_vectors
    from sensorium.cli.show import note
    from sensorium.model import Model

    check_ending(out, ".npy")
    model = Model.load(run)
    chosen = names(columns)
    model.check(chosen or ())
    write_vectors(model.embed(table, chosen, note), out)
    typer.echo(f"Wrote {out}")


@app.command()
def search(
    run: Annotated[
        Path, typer.Argument(metavar="RUN|INDEX", help="A folder that fit or save wrote, or one that index wrote.")
    ],
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="With RUN: the table to search.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help='What to look for: name="a crying cat", photo=@cat.png; may be given several times.'),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--not", help="What not to look for, written in the same way.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Only rows that meet a condition: 'year > 2015 and group = \"food\"'.")
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="How much a column of the query counts, as photo=2; may be given several times."),
    ] = None,
    among: Annotated[str | None, typer.Option(help="The column to search. Default: all that a row has.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many rows.")] = 10,
    model: Annotated[
        Path | None, typer.Option("--run", help="With INDEX: the run it was made with, if that was moved.")
    ] = None,
) -> None:
    """The rows of a table or an index nearest to a query of any columns."""
    from sensorium.cli.search import search_index, search_table

    if (run / "index.json").is_file():
        if table is not None:
            raise UserError(f"'{run}' is an index, which is searched without a table. Leave '{table}' out.")
        search_index(run, model, by or [], without or [], where, weight or [], among, k)
        return
    if table is None:
        raise UserError(
            f"'{run}' is no index: give the table to search, or make an index with: sensorium index {run} TABLE --out INDEX"
        )
    if without or where or weight or model:
        raise UserError(
            "--not, --where, --weight and --run are for an index. Make one with: sensorium index RUN TABLE --out INDEX"
        )
    search_table(run, table, by or [], among, k)


@app.command()
def query(
    table: Source,
    question: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION", help="As \"Which group has the oldest ones?\", or one SELECT over the table 'rows'."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="A .parquet, .csv or .jsonl file for the answer.")] = None,
) -> None:
    """The answer to a question about many rows, in words or as SQL, with the query that was asked."""
    from sensorium.cli.search import answer_query

    answer_query(table, question, out)


@app.command()
def index(
    run: Run,
    table: Source,
    out: Annotated[Path, typer.Option(help="The index's folder.")],
    columns: Annotated[
        str | None, typer.Option(help="Columns that are looked at, joined by commas. Default: all.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="A column whose cells differ, by which rows are replaced and removed.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Dimensions kept of each vector, its leading principal components. Default: all.")
    ] = None,
    finder: Annotated[
        str | None,
        typer.Option(
            help="What proposes the rows that are looked at, for millions of rows: hnsw or lance. Default: all are looked at."
        ),
    ] = None,
    plan: Annotated[
        str,
        typer.Option(
            "--map",
            help="How rows lie on the page's map: pca (the two directions in which they differ most) or umap (near their nearest).",
        ),
    ] = "pca",
    add: Annotated[
        bool,
        typer.Option("--add", help="Add the rows to the index that is there, in place of those with the same key."),
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the rows with these keys from the index that is there.")
    ] = False,
) -> None:
    """Write an index of a table, that search looks through without the table."""
    from sensorium.cli.search import change_index, write_index

    if add and remove:
        raise UserError("--add and --remove can't be given together. Remove first, then add.")
    if not (add or remove):
        write_index(run, table, out, names(columns), key, size, finder, plan)
        return
    if columns or key or size or finder or plan != "pca":
        raise UserError(
            "--columns, --key, --size, --finder and --map were chosen when the index was made. Leave them out."
        )
    change_index(run, table, out, remove)


@app.command()
def duplicates(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="A folder that index wrote.")],
    among: Annotated[str | None, typer.Option(help="The column that is compared. Default: all that a row has.")] = None,
    above: Annotated[float, typer.Option(help="The cosine from which on two rows are nearly alike.")] = 0.98,
    out: Annotated[Path | None, typer.Option(help="A .parquet, .csv or .jsonl file for all of them.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="The run that the index was made with, where that was moved.")
    ] = None,
) -> None:
    """Rows of an index that are nearly alike, in groups."""
    from sensorium.cli.search import write_duplicates

    write_duplicates(index, among, above, out, run)
