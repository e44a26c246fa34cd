"""The command ``sensorium``: a verb a command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.core.errors import UserError

app = typer.Typer(
    name="sensorium", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="One multimodal model for a table: any column finds, predicts or generates any other.",
)
build = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Build a table from packages.")
app.add_typer(build, name="table")

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that fit or save wrote.")]
Source = Annotated[str, typer.Argument(metavar="TABLE", help="Parquet, CSV, TSV, JSON lines, Arrow, tar shards, a folder, or a glob.")]
Seen = Annotated[str | None, typer.Option("--seen", help="Columns that may be seen, joined by commas. Default: all others.")]
Inside = Annotated[str, typer.Option(help="How it is looked inside seen cells: occlusion (again without each part), gradients (integrated) or attention (rolled out).")]
MaxBad = Annotated[str | None, typer.Option("--max-bad", help="How many rows may hold a bad cell: 10% or a number.")]


@app.callback(invoke_without_command=True)
def options(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from sensorium import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def columns(table: Source, check: Annotated[bool, typer.Option(help="Read every cell and count those that can't be.")] = True) -> None:
    """What each column of a table is, and why; bad cells counted."""
    from sensorium.cli.show import print_columns

    print_columns(table, check)


@app.command()
def fit(
    table: Source,
    settings: Annotated[list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings, as train.batch=64.")] = None,
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/model"),
    target: Annotated[list[str] | None, typer.Option(help="A column to predict first of all; may be given several times.")] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to train (5 by default).")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over the table.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    settings_file: Annotated[Path | None, typer.Option("--settings", help="A YAML, TOML or JSON file of settings.")] = None,
    generate: Annotated[str | None, typer.Option(help="Pictures, videos, sounds, series and points to learn to generate, joined by commas; none. Default: all "
                                                      "where there is time (30 minutes on a CPU, 5 on a GPU).")] = None,
    generator: Annotated[str | None, typer.Option(help="How: flow (default), vae, gan or codes; several joined by commas are learned beside one "
                                                       "another.")] = None,
    tune: Annotated[str | None, typer.Option(help="What of pretrained models is learned further: frozen, lora, dora, rslora, bias, last:N or full.")] = None,
    max_bad: MaxBad = None,
    tracker: Annotated[list[str] | None, typer.Option(help="tensorboard (default), wandb, mlflow or none.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")] = None,
) -> None:
    """Train one model on a table."""
    from sensorium.core.settings import merge, parse, read_file
    from sensorium.model import Model

    given = merge(read_file(settings_file) if settings_file else {}, parse(settings or []))
    if max_bad is not None:
        given = merge(given, {"data": {"max_bad": max_bad}})
    if generate is not None:
        given = merge(given, {"sample": {"generate": "" if generate == "none" else generate}})
    if generator is not None:
        given = merge(given, {"sample": {"generator": generator}})
    if tune is not None:
        from sensorium.backbones._tuned import everywhere

        given = everywhere(given, tune)
    if tracker:
        given = merge(given, {"trackers": {"": ",".join(tracker)}})
    model = Model.fit(table, out=out, target=target or [], minutes=minutes, epochs=epochs, seed=seed, resume=resume, settings=given,
                      device=device, quiet=False)
    facts = model.facts
    typer.echo(f"{facts['steps']:,} steps, {facts['rows_per_second']:,} rows/s, {facts['parameters']:,} parameters, "
               f"{facts['bad_rows']:,} rows in quarantine. Model: {out}")


@app.command()
def evaluate(
    run: Run, table: Source,
    split: Annotated[str | None, typer.Option(help="Only the rows whose split column says so.")] = None,
    seen: Seen = None,
    same: Annotated[str | None, typer.Option(help="Key column: rows that share its value are one thing when searching.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the results as JSON.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask it questions about the rows, and mark its answers; nothing else is measured.")] = False,
    about: Annotated[str | None, typer.Option(help="With --chat: the column that says what a row is. Default: one of names or classes.")] = None,
) -> None:
    """Every column and direction, beside chance and plain models; or how well it talks."""
    from sensorium.cli.files import check_folder, write_json
    from sensorium.cli.show import note, print_results
    from sensorium.core.errors import unknown
    from sensorium.model import Model, open_table

    if json:
        check_folder(json, "--json")
    model, opened = Model.load(run), open_table(table)
    if same is not None and same not in opened.columns:
        raise unknown("column for --same:", same, opened.columns)
    if chat:
        results = {"chat": model.examine(opened, split=split, about=about, note=note)}
        typer.echo("  ".join(f"of {value:,} rows" if key == "n" else f"{key} –" if value is None else f"{key} {value:.3f}" for key, value in results["chat"].items()))
    else:
        results = model.evaluation(opened, split=split, seen=names(seen), same=same, note=note).results
        print_results(results)
    if json:
        write_json(json, results)


@app.command()
def predict(
    run: Run, table: Source,
    column: Annotated[str, typer.Option(help="The column to predict.")],
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file.")],
    seen: Seen = None,
    coverage: Annotated[float | None, typer.Option(help="Share of the truth that intervals (0.9 by default) and sets of classes should hold.")] = None,
) -> None:
    """Predict a column of every row; works with any columns missing."""
    from sensorium.cli.files import as_json, check_ending, write_table
    from sensorium.cli.show import note
    from sensorium.model import Model

    check_ending(out)
    model = Model.load(run)
    model.check([column, *(names(seen) or ())])
    if coverage is not None and not 0 < coverage < 1:
        raise UserError(f"--coverage {coverage}: a share between 0 and 1 is needed, for instance 0.9.")
    said = model.predict(table, column, names(seen), note=note, **({} if coverage is None else {"coverage": coverage}))
    if out.suffix == ".csv" and "set" in said.column_names:
        said = as_json(said, "set")
    write_table(said, out)
    typer.echo(f"Wrote {out}")


@app.command()
def choose(
    run: Run, table: Source,
    question: Annotated[str, typer.Option(help="Asked about each row, as: What is this?")],
    among: Annotated[str, typer.Option(help="Answers to choose among, joined by commas; none of them need ever have been learned.")],
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file.")],
    of: Annotated[str | None, typer.Option(help="Columns that are shown, joined by commas. Default: those that its conversations were about.")] = None,
) -> None:
    """The likeliest of some answers to a question about each row, by a model that talks."""
    from sensorium.cli.files import check_ending, write_table
    from sensorium.cli.show import note
    from sensorium.model import Model

    check_ending(out)
    write_table(Model.load(run).choose(table, question, [option.strip() for option in among.split(",") if option.strip()], names(of), note), out)
    typer.echo(f"Wrote {out}")


@app.command()
def embed(
    run: Run, table: Source,
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
    run: Annotated[Path, typer.Argument(metavar="RUN|INDEX", help="A folder that fit or save wrote, or one that index wrote.")],
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="With RUN: the table to search.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="What to look for: name=\"a crying cat\", photo=@cat.png; may be given several times.")] = None,
    without: Annotated[list[str] | None, typer.Option("--not", help="What not to look for, written in the same way.")] = None,
    where: Annotated[str | None, typer.Option(help="Only rows that meet a condition: 'year > 2015 and group = \"food\"'.")] = None,
    weight: Annotated[list[str] | None, typer.Option(help="How much a column of the query counts, as photo=2; may be given several times.")] = None,
    among: Annotated[str | None, typer.Option(help="The column to search. Default: all that a row has.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many rows.")] = 10,
    model: Annotated[Path | None, typer.Option("--run", help="With INDEX: the run it was made with, if that was moved.")] = None,
) -> None:
    """The rows of a table or an index nearest to a query of any columns."""
    from sensorium.cli.search import search_index, search_table

    if (run / "index.json").is_file():
        if table is not None:
            raise UserError(f"'{run}' is an index, which is searched without a table. Leave '{table}' out.")
        search_index(run, model, by or [], without or [], where, weight or [], among, k)
        return
    if table is None:
        raise UserError(f"'{run}' is no index: give the table to search, or make an index with: sensorium index {run} TABLE --out INDEX")
    if without or where or weight or model:
        raise UserError("--not, --where, --weight and --run are for an index. Make one with: sensorium index RUN TABLE --out INDEX")
    search_table(run, table, by or [], among, k)


@app.command()
def query(
    table: Source,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="As \"Which group has the oldest ones?\", or one SELECT over the table 'rows'.")],
    out: Annotated[Path | None, typer.Option(help="A .parquet, .csv or .jsonl file for the answer.")] = None,
) -> None:
    """The answer to a question about many rows, in words or as SQL, with the query that was asked."""
    from sensorium.cli.search import answer_query

    answer_query(table, question, out)


@app.command()
def index(
    run: Run, table: Source,
    out: Annotated[Path, typer.Option(help="The index's folder.")],
    columns: Annotated[str | None, typer.Option(help="Columns that are looked at, joined by commas. Default: all.")] = None,
    key: Annotated[str | None, typer.Option(help="A column whose cells differ, by which rows are replaced and removed.")] = None,
    size: Annotated[int | None, typer.Option(help="Dimensions kept of each vector, its leading principal components. Default: all.")] = None,
    finder: Annotated[str | None, typer.Option(help="What proposes the rows that are looked at, for millions of rows: hnsw or lance. Default: all are looked at.")] = None,
    plan: Annotated[str, typer.Option("--map", help="How rows lie on the page's map: pca (the two directions in which they differ most) or umap (near their nearest).")] = "pca",
    add: Annotated[bool, typer.Option("--add", help="Add the rows to the index that is there, in place of those with the same key.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the rows with these keys from the index that is there.")] = False,
) -> None:
    """Write an index of a table, that search looks through without the table."""
    from sensorium.cli.search import change_index, write_index

    if add and remove:
        raise UserError("--add and --remove can't be given together. Remove first, then add.")
    if not (add or remove):
        write_index(run, table, out, names(columns), key, size, finder, plan)
        return
    if columns or key or size or finder or plan != "pca":
        raise UserError("--columns, --key, --size, --finder and --map were chosen when the index was made. Leave them out.")
    change_index(run, table, out, remove)


@app.command()
def duplicates(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="A folder that index wrote.")],
    among: Annotated[str | None, typer.Option(help="The column that is compared. Default: all that a row has.")] = None,
    above: Annotated[float, typer.Option(help="The cosine from which on two rows are nearly alike.")] = 0.98,
    out: Annotated[Path | None, typer.Option(help="A .parquet, .csv or .jsonl file for all of them.")] = None,
) -> None:
    """Rows of an index that are nearly alike, in groups."""
    from sensorium.cli.search import write_duplicates

    write_duplicates(index, among, above, out)


@app.command()
def generate(
    run: Run, table: Source,
    column: Annotated[str, typer.Option(help="The column to say, or several joined by commas.")],
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file; for pictures and sounds a .parquet file or a folder.")],
    seen: Seen = None,
    jointly: Annotated[bool, typer.Option("--jointly", help="Of several columns each sees those said before it.")] = False,
    explain: Annotated[Path | None, typer.Option(help="Also write why each cell is as it is, to this .html or .json file.")] = None,
    among: Annotated[str | None, typer.Option(help="With --explain: the table the run was trained on, to look for near copies in.")] = None,
    horizon: Annotated[int, typer.Option(help="Of a series: so many steps that follow on what the row has of it.")] = 0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    samples: Annotated[int, typer.Option(help="Pictures, videos, sounds, series or points to draw for each row.")] = 1,
    steps: Annotated[int, typer.Option(help="Steps from noise to a picture, a video, a sound or a series.")] = 20,
    guidance: Annotated[float, typer.Option(help="How far what is seen pulls them; 1: as in training.")] = 2.0,
    solver: Annotated[str, typer.Option(help="euler, or heun: more exact, and takes twice as long.")] = "euler",
    generator: Annotated[str | None, typer.Option(help="One of those that fit learned; the first of them by default.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 says the most likely; default: 0 for text, 1 where vae, gan or codes draw.")] = None,
    top_p: Annotated[float, typer.Option(help="Draw among the most likely tokens of this share.")] = 1.0,
    beam: Annotated[int, typer.Option(help="Sequences kept while searching for the most likely one.")] = 1,
    candidates: Annotated[int, typer.Option(help="Texts to choose from by what they say of what is seen; 0: up to 32, 1 with other options.")] = 0,
) -> None:
    """Say or draw a column of every row from its other columns."""
    from sensorium.cli.files import check_ending, write_table
    from sensorium.cli.show import note
    from sensorium.model import Model

    model = Model.load(run)
    if explain is not None:
        check_ending(explain, ".html", ".json", only=True, option="--explain")
        if horizon or jointly or len(names(column) or []) != 1:
            raise UserError("--explain is for one column that is said from others. Leave --horizon and --jointly out.")
    elif among is not None:
        raise UserError(f"--among {among} says where to look for near copies: give --explain FILE as well.")
    media = {key: value for key, value, plain in (("steps", steps, 20), ("guidance", guidance, 2.0), ("solver", solver, "euler")) if value != plain}
    several = names(column) or []
    if len(several) != 1:
        from sensorium.cli.draw import write_together

        if media or horizon or generator or samples != 1 or temperature or top_p != 1 or beam != 1 or candidates:
            raise UserError(f"--column {column}: where several columns are asked, --seen, --jointly and --seed are the options. Ask one at a time for more.")
        write_together(model, table, several, out, names(seen), jointly, seed)
        return
    column = several[0]
    model.check_asked(column, names(seen))
    if jointly:
        raise UserError(f"--jointly with one column, '{column}'. Give several: --column {column},another.")
    if column in model.network.drawn_columns:
        from sensorium.cli.draw import write_drawn, write_forecast, write_why

        if top_p != 1 or beam != 1 or candidates:
            raise UserError(f"--top-p, --beam and --candidates are for text; '{column}' is drawn. Possible: --samples, --generator, and --steps, "
                            "--guidance, --solver for flow, --temperature for the others.")
        if temperature is not None:
            media["temperature"] = temperature
        if horizon:
            if generator:
                raise UserError(f"--horizon with --generator {generator}: a series is continued by flow. Leave one of them out.")
            write_forecast(model, table, column, horizon, out, names(seen), seed, samples, media)
        else:
            drawn = write_drawn(model, table, column, out, names(seen), seed, samples, media, generator)
            if explain is not None:
                if samples > 1:
                    note("Explained is the first sample of each row.")
                write_why(model, table, column, [cells[0] if cells else None for cells in drawn], explain, names(seen), among, seed, generator)
        return
    check_ending(out)
    if media or samples != 1 or generator is not None or horizon:
        raise UserError(f"--samples, --generator, --horizon, --steps, --guidance and --solver are for pictures, videos, sounds, series and points; '{column}' is a "
                        f"{model.schema.columns[column].kind}. Leave them out.")
    options = {key: value for key, value, plain in (("temperature", temperature or 0.0, 0.0), ("top_p", top_p, 1.0), ("beam", beam, 1))
               if value != plain}
    if (options or candidates > 1) and column in model.network.asked_columns and not model.network.generator(column).causal:
        raise UserError(f"--temperature, --top-p, --beam and --candidates are for text; '{column}' is a {model.schema.columns[column].kind}. "
                        "Leave them out: its likeliest value is said.")
    said = model.predict(table, column, names(seen), seed, note, candidates, **options)
    write_table(said, out)
    typer.echo(f"Wrote {out}")
    if explain is not None:
        from sensorium.cli.draw import write_why

        write_why(model, table, column, said.column("value").to_pylist(), explain, names(seen), among, seed)


@app.command()
def explain(
    run: Run, table: Source,
    column: Annotated[str, typer.Option(help="The column whose answers are explained.")],
    out: Annotated[Path, typer.Option(help="A .html or .json file.")],
    row: Annotated[list[int] | None, typer.Option(help="The number of a row; may be given several times.")] = None,
    rows: Annotated[int, typer.Option(help="Or how many rows, evenly spread over the table.")] = 24,
    seen: Seen = None,
    among: Annotated[str | None, typer.Option(help="The table the run was trained on: the nearest rows of the same class and of others, and what would turn the answer.")] = None,
    inside: Inside = "occlusion",
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Why the model says what it says of a column: each seen column's exact share, what in it counted, and over many rows what matters."""
    from sensorium.cli.draw import explain_rows
    from sensorium.cli.files import check_ending
    from sensorium.model import Model

    check_ending(out, ".html", ".json", only=True)
    explain_rows(Model.load(run), table, column, out, row or [], rows, names(seen), among, seed, inside)


@app.command()
def surprise(
    run: Run, table: Source,
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file: a line a row.")],
    k: Annotated[int, typer.Option("-k", help="How many of the most surprising rows are printed.")] = 10,
) -> None:
    """How little the cells of each row go together: wrong labels, swapped files and odd rows."""
    import pyarrow as pa

    from sensorium.cli.files import check_ending, check_folder, write_table
    from sensorium.cli.show import note, print_rows
    from sensorium.model import Model, open_table

    check_ending(out)
    check_folder(out, "--out")
    model, opened = Model.load(run), open_table(table)
    found = model.surprise(opened, note)
    write_table(found, out)
    first = [row for row in found.column("surprise").to_numpy().argsort()[::-1].tolist() if found.column("column")[row].as_py() is not None][: max(0, k)]
    shown = found.take(first).select(["surprise", "column"]).add_column(0, "row", pa.array(first, pa.int64()))
    cells = opened.take(first)
    for name in opened.columns:
        shown = shown.append_column(name if name not in shown.column_names else f"{name} ", cells.column(name))
    print_rows(shown)
    typer.echo(f"Wrote {out}")


@app.command()
def distill(
    run: Run, table: Source,
    column: Annotated[str, typer.Option(help="The column of pictures, sounds, clips or series that the run draws by flow.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings, as distill.pairs=8192.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to save to. Default: RUN.")] = None,
    minutes: Annotated[float | None, typer.Option(help="How long the student learns (10 by default), after the flow has drawn what it learns from.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over that.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a lesson that was stopped.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")] = None,
) -> None:
    """Teach a run to draw a column in one step instead of many: generate --generator onestep."""
    from sensorium.cli.show import note
    from sensorium.model import Model

    model = Model.load(run, device).distill(table, column, out=out or run, minutes=minutes, epochs=epochs, seed=seed, resume=resume, settings=settings or [],
                                            quiet=False, note=note)
    facts = model.facts["distilled"][column]
    if facts["stopped"]:
        typer.echo(f"Stopped after {facts['steps']:,} steps; the student is saved as it is. Go on with --resume.")
    typer.echo(f"{facts['steps']:,} steps on {facts['pairs']:,} drawn cells. From those not learned from the student is {facts['away']} away, the "
               f"flow's own first guess {facts['teacher_away']}. Model: {out or run}; draw with --generator onestep.")


@app.command()
def serve(
    run: Run,
    index: Annotated[Path | None, typer.Argument(help="An index of rows for this run, to be searched.")] = None,
    table: Annotated[str | None, typer.Option(help="The table whose rows the page shows.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; others than this machine's own want a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    key_file: Annotated[Path | None, typer.Option(help="A file with a key a line, one of which each request must bring.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="A name under which the server is called; may be given several times.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that hold the model.")] = 1,
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch files at web addresses that requests name, from public hosts only.")] = False,
    deadline: Annotated[float, typer.Option(help="Seconds until a request must be answered.")] = 60.0,
    batch: Annotated[int, typer.Option(help="Rows that are asked together, of whatever requests wait.")] = 64,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")] = None,
) -> None:
    """Answer over HTTP: OpenAI's endpoints, Sensorium's own, and a page to look, ask and search."""
    try:
        from sensorium.serve.app import Settings, serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sensorium"):
            raise
        raise UserError(f"Serving takes more packages ('{error.name}' is not there). Install them: pip install 'sensorium[serve]'") from error

    serve(Settings(run, index, table, host, port, allow_host or [], key_file, workers, fetch, deadline, device, batch))


@app.command()
def fill(
    run: Run, table: Source,
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file.")],
    columns: Annotated[str | None, typer.Option(help="Columns to fill, joined by commas; added where lacking. Default: all that can be.")] = None,
    jointly: Annotated[bool, typer.Option("--jointly", help="What was filled is seen where the row's next column is filled.")] = False,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Fill the empty cells of a table from the present ones, and say which were filled and how sure."""
    from sensorium.cli.draw import write_filled
    from sensorium.model import Model

    write_filled(Model.load(run), table, out, names(columns), jointly, seed)


@app.command()
def report(
    run: Run, table: Source,
    out: Annotated[Path | None, typer.Option(help="The .html file. Default: report.html in the run's folder.")] = None,
    split: Annotated[str | None, typer.Option(help="Only the rows whose split column says so.")] = None,
    same: Annotated[str | None, typer.Option(help="Key column: rows that share its value are one thing when searching.")] = None,
) -> None:
    """Write the report page anew, measured on a table: results, searches, samples beside the truth and how they came from noise."""
    from sensorium.cli.files import check_ending, check_folder
    from sensorium.cli.show import note
    from sensorium.model import Model

    out = out or run / "report.html"
    check_ending(out, ".html", only=True)
    check_folder(out, "--out")
    Model.load(run).report(table, out, split=split, same=same, note=note)
    typer.echo(f"Wrote {out}")


@app.command("ask-data")
def ask_data(
    table: Source,
    out: Annotated[Path, typer.Option(help="A .parquet file.")],
    about: Annotated[str | None, typer.Option(help="The column that says what a row is. Default: one of names or classes.")] = None,
    of: Annotated[str | None, typer.Option(help="Columns whose cells are shown, joined by commas. Default: pictures, videos, sounds and series, or else all others.")] = None,
    each: Annotated[int, typer.Option(help="Conversations about each row.")] = 4,
    kinds: Annotated[str | None, typer.Option(help="Kinds of questions and how often each is asked. Default: name:4,choice:2,yes_no:2,absent:1.5,field:1,describe:0.5,unknown:0.25.")] = None,
    keep: Annotated[str | None, typer.Option(help="Columns that come along and may be asked for, joined by commas. Default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    pairs: Annotated[bool, typer.Option("--pairs", help="Questions, each with a right and a wrong answer, for the command prefer.")] = False,
) -> None:
    """Build conversations about a table's training rows, from its columns' names and values."""
    from sensorium.cli.talk import write_conversations

    write_conversations(table, out, about, names(of) or [], each, kinds, names(keep), seed, pairs)


@app.command()
def prefer(
    run: Run, table: Annotated[str, typer.Argument(metavar="PAIRS", help="A table with conversation, chosen and rejected: see ask-data --pairs.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="prefer.KEY=VALUE", help="Settings, as prefer.beta=0.3.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the model is then kept. Default: RUN itself.")] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to learn (10 by default).")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over the pairs.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a lesson that was stopped.")] = False,
) -> None:
    """Teach a run that talks which of two answers is better (DPO), or, with prefer.loss=reward, a judge that scores answers."""
    from sensorium.model import Model

    model = Model.load(run).prefer(table, out=out or run, minutes=minutes, epochs=epochs, seed=seed, resume=resume, settings=settings or [], quiet=False)
    judge = "prefer.loss=reward" in (settings or [])
    facts = model.facts["judge" if judge else "preferred"]
    typer.echo(f"{facts['steps']:,} steps over {facts['pairs']:,} pairs; of {facts['held_out']} held out the chosen answer {'has the higher score' if judge else 'is likelier'} in {facts['after']:.2f}, "
               f"before in {facts['before']:.2f}. Model: {out or run}")


@app.command()
def reinforce(
    run: Run, table: Annotated[str, typer.Argument(metavar="QUESTIONS", help="A table with conversation, which ends with the user, and answer (or chosen): see ask-data --pairs.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="reinforce.KEY=VALUE", help="Settings, as reinforce.score=judge.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the model is then kept. Default: RUN itself.")] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to practise (10 by default).")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over the questions.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a lesson that was stopped.")] = False,
) -> None:
    """Let a run that talks draw answers and learn from which were good (GRPO), by a scoring function or a judge."""
    from sensorium.model import Model

    facts = Model.load(run).reinforce(table, out=out or run, minutes=minutes, epochs=epochs, seed=seed, resume=resume, settings=settings or [], quiet=False).facts["reinforced"]
    typer.echo(f"{facts['steps']:,} steps over {facts['questions']:,} questions; answers to {facts['held_out']} held out score {facts['after']:.3f}, before {facts['before']:.3f}. Model: {out or run}")


@app.command("export-trunk")
def export_trunk(run: Run, out: Annotated[Path, typer.Option(help="A folder.")]) -> None:
    """The language model of a run for transformers alone: merged with what was tuned, and that as PEFT's adapter."""
    from sensorium.model import Model

    told = Model.load(run).export_trunk(out)
    typer.echo(f"Wrote {out}: {told['parameters']:,} parameters" + (f", and {out / 'adapter'}: {told['adapter_parameters']:,}" if told["adapter_parameters"] else ""))


@app.command()
def chat(
    run: Run,
    index: Annotated[Path | None, typer.Argument(metavar="[INDEX]", help="An index whose rows can be looked up.")] = None,
    table: Annotated[str | None, typer.Option(help="A table whose rows can be talked about (/row N).")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest word each time.")] = 0.0,
    sure: Annotated[float, typer.Option(min=0, max=1, help="Say that it doesn't know where answers as sure as this one were right less often, on conversations held out.")] = 0.0,
    adapter: Annotated[Path | None, typer.Option(help="Talk with other low-rank updates, in PEFT's files, than the run's own.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Talk with a model that was fitted on conversations; /help says how to show it things."""
    from sensorium.cli.talk import run_chat

    run_chat(run, index, table, max_tokens, temperature, sure, adapter, seed)


@app.command()
def demo(
    settings: Annotated[list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings, as train.batch=64.")] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to train. Default: 5; 40 with --chat.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. Default: runs/demo, runs/pretrained or runs/chat.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Let pictures and names stand on pretrained encoders, which come in packages.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Build conversations about the table and tune a language model, which comes in a package, to talk about pictures.")] = False,
) -> None:
    """Build the emoji table, train on it, print and report results."""
    from sensorium.cli.demo import run_chat_demo, run_demo

    if chat:
        run_chat_demo(minutes or 40.0, out or Path("runs/chat"), seed, settings or [])
    else:
        run_demo(minutes or 5.0, out or Path("runs/pretrained" if pretrained else "runs/demo"), seed, settings or [], pretrained)


def add_tables() -> None:
    """One command for each builder in ``sensorium/tables``: its options are the builder's settings."""
    from sensorium.core.parts import names as parts
    from sensorium.tables import Builder

    for name in parts(Builder):
        build.command(name, help=f"Build the table '{name}'.")(table_command(name))


def table_command(name: str) -> Any:
    """The command that builds one table."""

    def command(
        out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
        settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="The builder's settings, as rows=200.")] = None,
    ) -> None:
        from sensorium.cli.demo import build_table

        build_table(name, out, settings or [])

    return command


def names(joined: str | None) -> list[str] | None:
    """``a,b`` as a list; None stays."""
    return None if joined is None else [name.strip() for name in joined.split(",") if name.strip()]


def main() -> None:
    """Run the command: status 2 for what the user can mend, 1 for our own faults, 130 when interrupted."""
    try:
        add_tables()
        app(standalone_mode=True)
    except UserError as error:
        fail(str(error), 2)
    except KeyboardInterrupt:
        fail("Interrupted.", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except MemoryError:
        fail("Out of memory. Use a smaller train.batch, or fewer columns.", 2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM) or os.environ.get("SENSORIUM_DEBUG"):
            unexpected(error)
        fail(f"The system refused: {error}. Free some space, or write elsewhere.", 2)
    except Exception as error:
        unexpected(error)


def unexpected(error: Exception) -> None:
    """Own up to a fault of ours."""
    if os.environ.get("SENSORIUM_DEBUG"):
        raise error
    fail(f"This is a fault of Sensorium, not yours: {type(error).__name__}: {error}\n"
         "Set SENSORIUM_DEBUG=1 to see where, and please report it.", 1)


def fail(words: str, status: int) -> None:
    """Say why on stderr and leave."""
    print(words, file=sys.stderr)
    sys.exit(status)
