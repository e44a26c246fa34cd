"""The command ``generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run, Seen, Source, names
from sensorium.core.errors import UserError

GROUP = "Ask"
RANK = 240


def generate(
    run: Run,
    table: Source,
    column: Annotated[str, typer.Option(help="The column to say, or several joined by commas.")],
    out: Annotated[
        Path, typer.Option(help="A .parquet, .csv or .jsonl file; for pictures and sounds a .parquet file or a folder.")
    ],
    seen: Seen = None,
    jointly: Annotated[
        bool, typer.Option("--jointly", help="Of several columns each sees those generated before it.")
    ] = False,
    explain: Annotated[
        Path | None, typer.Option(help="Also write why each cell is as it is, to this .html or .json file.")
    ] = None,
    among: Annotated[
        str | None, typer.Option(help="With --explain: the table the run was trained on, to look for near copies in.")
    ] = None,
    horizon: Annotated[int, typer.Option(help="Of a series: so many steps that follow on what the row has of it.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    samples: Annotated[
        int, typer.Option(help="Pictures, videos, sounds, series or points to generate for each row.")
    ] = 1,
    steps: Annotated[int, typer.Option(help="Steps from noise to a picture, a video, a sound or a series.")] = 20,
    guidance: Annotated[float, typer.Option(help="How far what is seen pulls them; 1: as in training.")] = 2.0,
    solver: Annotated[str, typer.Option(help="euler, or heun: more exact, and takes twice as long.")] = "euler",
    generator: Annotated[
        str | None, typer.Option(help="One of those that fit learned; the first of them by default.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0: the most likely; default: 0 for text, 1 for vae, gan and codes.")
    ] = None,
    top_p: Annotated[float, typer.Option(help="Sample among the most likely tokens of this share.")] = 1.0,
    beam: Annotated[int, typer.Option(help="Sequences kept while searching for the most likely one.")] = 1,
    candidates: Annotated[
        int,
        typer.Option(help="Texts to choose from by what they say of what is seen; 0: up to 32, 1 with other options."),
    ] = 0,
) -> None:
    """Say or draw a column of every row from its other columns."""
    from sensorium.cli.files import check_ending, write_table
    from sensorium.cli.output import note
    from sensorium.model import Model

    model = Model.load(run)
    if explain is not None:
        check_ending(explain, ".html", ".json", only=True, option="--explain")
        if horizon or jointly or len(names(column) or []) != 1:
            raise UserError(
                "--explain is for one column that is generated from others. Leave --horizon and --jointly out."
            )
    elif among is not None:
        raise UserError(f"--among {among} is where near copies are searched for: give --explain FILE as well.")
    if among is not None:
        model.open(among)  # what can't be read is told before anything is drawn
    media = {
        key: value
        for key, value, plain in (("steps", steps, 20), ("guidance", guidance, 2.0), ("solver", solver, "euler"))
        if value != plain
    }
    several = names(column) or []
    if len(several) != 1:
        from sensorium.cli.generation import write_together

        if media or horizon or generator or samples != 1 or temperature or top_p != 1 or beam != 1 or candidates:
            raise UserError(
                f"--column {column}: where several columns are asked, --seen, --jointly and --seed are the "
                "options. Ask one at a time for more."
            )
        write_together(model, table, several, out, names(seen), jointly, seed)
        return
    column = several[0]
    model.check_asked(column, names(seen))
    if jointly:
        raise UserError(f"--jointly with one column, '{column}'. Give several: --column {column},another.")
    if column in model.network.generative_columns:
        from sensorium.cli.explanation import write_why
        from sensorium.cli.generation import write_forecast, write_samples

        if top_p != 1 or beam != 1 or candidates:
            raise UserError(
                f"--top-p, --beam and --candidates are for text; '{column}' is sampled. Possible: --samples, "
                "--generator, and --steps, "
                "--guidance, --solver for flow, --temperature for the others."
            )
        if temperature is not None:
            media["temperature"] = temperature
        if horizon:
            if generator not in (None, model.continuation_generator(column)):
                raise UserError(
                    f"--horizon with --generator {generator}: a series is continued by "
                    f"{model.continuation_generator(column) or 'flow'}. Leave one of them out."
                )
            write_forecast(model, table, column, horizon, out, names(seen), seed, samples, media)
        else:
            samples_by_row = write_samples(model, table, column, out, names(seen), seed, samples, media, generator)
            if explain is not None:
                if samples > 1:
                    note("Explained is the first sample of each row.")
                write_why(
                    model,
                    table,
                    column,
                    [cells[0] if cells else None for cells in samples_by_row],
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
            "--samples, --generator, --horizon, --steps, --guidance and --solver are for pictures, videos, "
            f"sounds, series and points; '{column}' is a "
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
            f"--temperature, --top-p, --beam and --candidates are for text; '{column}' is a "
            f"{model.schema.columns[column].kind}. "
            "Leave them out: its likeliest value is generated."
        )
    answers = model.predict(table, column, names(seen), seed, note, candidates, **options)
    write_table(answers, out)
    typer.echo(f"Wrote {out}")
    if explain is not None:
        from sensorium.cli.explanation import write_why

        write_why(model, table, column, answers.column("value").to_pylist(), explain, names(seen), among, seed)
