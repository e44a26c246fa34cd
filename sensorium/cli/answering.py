"""Commands that ask a run about rows: evaluate, predict, choose, generate, explain, surprise, fill, report, chat, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Inside, Run, Seen, Source, app, names
from sensorium.core.errors import UserError


@app.command()
def evaluate(
    run: Run,
    table: Source,
    split: Annotated[str | None, typer.Option(help="Only the rows whose split column says so.")] = None,
    seen: Seen = None,
    same: Annotated[
        str | None, typer.Option(help="Key column: rows that share its value are one thing when searching.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the results as JSON.")] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Ask it questions about the rows, and mark its answers; nothing else is measured."),
    ] = False,
    about: Annotated[
        str | None,
        typer.Option(help="With --chat: the column that says what a row is. Default: one of names or classes."),
    ] = None,
) -> None:
    """Every column and direction, beside chance and plain models; or how well it talks."""
    from sensorium.cli.files import check_folder, write_json
    from sensorium.cli.show import note, print_results
    from sensorium.core.errors import unknown
    from sensorium.model import Model

    if json:
        check_folder(json, "--json")
    model = Model.load(run)
    opened = model.open(table)
    if same is not None and same not in opened.columns:
        raise unknown("column for --same:", same, opened.columns)
    if chat:
        results = {"chat": model.examine(opened, split=split, about=about, note=note)}
        typer.echo(
            "  ".join(
                f"of {value:,} rows" if key == "n" else f"{key} –" if value is None else f"{key} {value:.3f}"
                for key, value in results["chat"].items()
            )
        )
    else:
        results = model.evaluation(opened, split=split, seen=names(seen), same=same, note=note).results
        print_results(results)
    if json:
        write_json(json, results)


@app.command()
def predict(
    run: Run,
    table: Source,
    column: Annotated[str, typer.Option(help="The column to predict.")],
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file.")],
    seen: Seen = None,
    coverage: Annotated[
        float | None,
        typer.Option(help="Share of the truth that intervals (0.9 by default) and sets of classes should hold."),
    ] = None,
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
    run: Run,
    table: Source,
    question: Annotated[str, typer.Option(help="Asked about each row, as: What is this?")],
    among: Annotated[
        str, typer.Option(help="Answers to choose among, joined by commas; none of them need ever have been learned.")
    ],
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file.")],
    of: Annotated[
        str | None,
        typer.Option(
            help="Columns that are shown, joined by commas. Default: those that its conversations were about."
        ),
    ] = None,
) -> None:
    """The likeliest of some answers to a question about each row, by a model that talks."""
    from sensorium.cli.files import check_ending, write_table
    from sensorium.cli.show import note
    from sensorium.model import Model

    check_ending(out)
    write_table(
        Model.load(run).choose(
            table, question, [option.strip() for option in among.split(",") if option.strip()], names(of), note
        ),
        out,
    )
    typer.echo(f"Wrote {out}")


@app.command()
def generate(
    run: Run,
    table: Source,
    column: Annotated[str, typer.Option(help="The column to say, or several joined by commas.")],
    out: Annotated[
        Path, typer.Option(help="A .parquet, .csv or .jsonl file; for pictures and sounds a .parquet file or a folder.")
    ],
    seen: Seen = None,
    jointly: Annotated[
        bool, typer.Option("--jointly", help="Of several columns each sees those said before it.")
    ] = False,
    explain: Annotated[
        Path | None, typer.Option(help="Also write why each cell is as it is, to this .html or .json file.")
    ] = None,
    among: Annotated[
        str | None, typer.Option(help="With --explain: the table the run was trained on, to look for near copies in.")
    ] = None,
    horizon: Annotated[int, typer.Option(help="Of a series: so many steps that follow on what the row has of it.")] = 0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    samples: Annotated[int, typer.Option(help="Pictures, videos, sounds, series or points to draw for each row.")] = 1,
    steps: Annotated[int, typer.Option(help="Steps from noise to a picture, a video, a sound or a series.")] = 20,
    guidance: Annotated[float, typer.Option(help="How far what is seen pulls them; 1: as in training.")] = 2.0,
    solver: Annotated[str, typer.Option(help="euler, or heun: more exact, and takes twice as long.")] = "euler",
    generator: Annotated[
        str | None, typer.Option(help="One of those that fit learned; the first of them by default.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 says the most likely; default: 0 for text, 1 where vae, gan or codes draw.")
    ] = None,
    top_p: Annotated[float, typer.Option(help="Draw among the most likely tokens of this share.")] = 1.0,
    beam: Annotated[int, typer.Option(help="Sequences kept while searching for the most likely one.")] = 1,
    candidates: Annotated[
        int,
        typer.Option(help="Texts to choose from by what they say of what is seen; 0: up to 32, 1 with other options."),
    ] = 0,
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
    if among is not None:
        model.open(among)  # what can't be read is told before anything is drawn
    media = {
        key: value
        for key, value, plain in (("steps", steps, 20), ("guidance", guidance, 2.0), ("solver", solver, "euler"))
        if value != plain
    }
    several = names(column) or []
    if len(several) != 1:
        from sensorium.cli.draw import write_together

        if media or horizon or generator or samples != 1 or temperature or top_p != 1 or beam != 1 or candidates:
            raise UserError(
                f"--column {column}: where several columns are asked, --seen, --jointly and --seed are the options. Ask one at a time for more."
            )
        write_together(model, table, several, out, names(seen), jointly, seed)
        return
    column = several[0]
    model.check_asked(column, names(seen))
    if jointly:
        raise UserError(f"--jointly with one column, '{column}'. Give several: --column {column},another.")
    if column in model.network.generative_columns:
        from sensorium.cli.draw import write_drawn, write_forecast, write_why

        if top_p != 1 or beam != 1 or candidates:
            raise UserError(
                f"--top-p, --beam and --candidates are for text; '{column}' is drawn. Possible: --samples, --generator, and --steps, "
                "--guidance, --solver for flow, --temperature for the others."
            )
        if temperature is not None:
            media["temperature"] = temperature
        if horizon:
            if generator not in (None, model.continues(column)):
                raise UserError(
                    f"--horizon with --generator {generator}: a series is continued by {model.continues(column) or 'flow'}. Leave one of them out."
                )
            write_forecast(model, table, column, horizon, out, names(seen), seed, samples, media)
        else:
            drawn = write_drawn(model, table, column, out, names(seen), seed, samples, media, generator)
            if explain is not None:
                if samples > 1:
                    note("Explained is the first sample of each row.")
                write_why(
                    model,
                    table,
                    column,
                    [cells[0] if cells else None for cells in drawn],
                    explain,
                    names(seen),
                    among,
                    seed,
                    generator,
                )
        return
    check_ending(out)
    if media or samples != 1 or generator is not None or horizon:
        raise UserError(
            f"--samples, --generator, --horizon, --steps, --guidance and --solver are for pictures, videos, sounds, series and points; '{column}' is a "
            f"{model.schema.columns[column].kind}. Leave them out."
        )
    options = {
        key: value
        for key, value, plain in (("temperature", temperature or 0.0, 0.0), ("top_p", top_p, 1.0), ("beam", beam, 1))
        if value != plain
    }
    if (
        (options or candidates > 1)
        and column in model.network.asked_columns
        and not model.network.generator(column).causal
    ):
        raise UserError(
            f"--temperature, --top-p, --beam and --candidates are for text; '{column}' is a {model.schema.columns[column].kind}. "
            "Leave them out: its likeliest value is said."
        )
    said = model.predict(table, column, names(seen), seed, note, candidates, **options)
    write_table(said, out)
    typer.echo(f"Wrote {out}")
    if explain is not None:
        from sensorium.cli.draw import write_why

        write_why(model, table, column, said.column("value").to_pylist(), explain, names(seen), among, seed)


@app.command()
def explain(
    run: Run,
    table: Source,
    column: Annotated[str, typer.Option(help="The column whose answers are explained.")],
    out: Annotated[Path, typer.Option(help="A .html or .json file.")],
    row: Annotated[list[int] | None, typer.Option(help="The number of a row; may be given several times.")] = None,
    rows: Annotated[int, typer.Option(help="Or how many rows, evenly spread over the table.")] = 24,
    seen: Seen = None,
    among: Annotated[
        str | None,
        typer.Option(
            help="The table the run was trained on: the nearest rows of the same class and of others, and what would turn the answer."
        ),
    ] = None,
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
    run: Run,
    table: Source,
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file: a line a row.")],
    k: Annotated[int, typer.Option("-k", help="How many of the most surprising rows are printed.")] = 10,
) -> None:
    """How little the cells of each row go together: wrong labels, swapped files and odd rows."""
    import pyarrow as pa

    from sensorium.cli.files import check_ending, check_folder, write_table
    from sensorium.cli.show import note, print_rows
    from sensorium.data.cells import beside
    from sensorium.model import Model

    check_ending(out)
    check_folder(out, "--out")
    model = Model.load(run)
    opened = model.open(table)
    found = model.surprise(opened, note)
    write_table(found, out)
    first = [
        row
        for row in found.column("surprise").to_numpy().argsort()[::-1].tolist()
        if found.column("column")[row].as_py() is not None
    ][: max(0, k)]
    shown = found.take(first).select(["surprise", "column"]).add_column(0, "row", pa.array(first, pa.int64()))
    for name, cells in beside(shown.column_names, opened.take(first)).items():
        shown = shown.append_column(name, cells)
    print_rows(shown)
    typer.echo(f"Wrote {out}")


@app.command()
def fill(
    run: Run,
    table: Source,
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file.")],
    columns: Annotated[
        str | None,
        typer.Option(help="Columns to fill, joined by commas; added where lacking. Default: all that can be."),
    ] = None,
    jointly: Annotated[
        bool, typer.Option("--jointly", help="What was filled is seen where the row's next column is filled.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Fill the empty cells of a table from the present ones, and say which were filled and how sure."""
    from sensorium.cli.draw import write_filled
    from sensorium.model import Model

    write_filled(Model.load(run), table, out, names(columns), jointly, seed)


@app.command()
def report(
    run: Run,
    table: Annotated[
        str | None, typer.Argument(help="A file or folder; without one it is said where the report of the fit is.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The .html file. Default: report.html in the run's folder.")] = None,
    split: Annotated[str | None, typer.Option(help="Only the rows whose split column says so.")] = None,
    same: Annotated[
        str | None, typer.Option(help="Key column: rows that share its value are one thing when searching.")
    ] = None,
) -> None:
    """Write the report page anew, measured on a table: results, searches, samples beside the truth and how they came from noise."""
    from sensorium.cli.files import check_ending, check_folder
    from sensorium.cli.show import note
    from sensorium.model import Model

    if table is None:
        if out is not None or split is not None or same is not None or not (run / "report.html").is_file():
            raise UserError(f"A report is measured on a table. Give one: sensorium report {run} TABLE")
        typer.echo(
            f"The report that fit wrote: {run / 'report.html'}. With a TABLE it is written anew, measured on that."
        )
        return
    out = out or run / "report.html"
    check_ending(out, ".html", only=True)
    check_folder(out, "--out")
    Model.load(run).report(table, out, split=split, same=same, note=note)
    typer.echo(f"Wrote {out}")


@app.command()
def chat(
    run: Run,
    index: Annotated[
        Path | None, typer.Argument(metavar="[INDEX]", help="An index whose rows can be looked up.")
    ] = None,
    table: Annotated[str | None, typer.Option(help="A table whose rows can be talked about (/row N).")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest word each time.")] = 0.0,
    sure: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Say that it doesn't know where answers as sure as this one were right less often, on conversations held out.",
        ),
    ] = 0.0,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(
            help="Talk with other low-rank updates, in PEFT's files, than the run's own; of several the last, /adapter changes."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Talk with a model that was fitted on conversations; /help says how to show it things."""
    from sensorium.cli.talk import run_chat

    run_chat(run, index, table, max_tokens, temperature, sure, adapter or [], seed)


@app.command()
def serve(
    run: Run,
    index: Annotated[Path | None, typer.Argument(help="An index of rows for this run, to be searched.")] = None,
    table: Annotated[str | None, typer.Option(help="The table whose rows the page shows.")] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; others than this machine's own want a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with a key a line, one of which each request must bring.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name under which the server is called; may be given several times.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that hold the model.")] = 1,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch files at web addresses that requests name, from public hosts only.")
    ] = False,
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
        raise UserError(
            f"Serving takes more packages ('{error.name}' is not there). Install them: pip install 'sensorium[serve]'"
        ) from error

    serve(Settings(run, index, table, host, port, allow_host or [], key_file, workers, fetch, deadline, device, batch))
