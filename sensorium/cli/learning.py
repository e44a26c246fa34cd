"""Commands that make a run or teach it more: fit, distill, prefer, reinforce; and what it takes and gives: columns, ask-data, export-trunk, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import MaxBad, Run, Source, app, names


@app.command()
def columns(
    table: Source,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SECTION.KEY=VALUE", help="Settings, as data.encoding=cp1252 or column.born.format=%d/%m/%Y."
        ),
    ] = None,
    check: Annotated[bool, typer.Option(help="Read every cell and count those that can't be.")] = True,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write all that was found as JSON, to this file or to - (stdout).")
    ] = None,
) -> None:
    """What each column of a table is, and why; how the table was read; bad rows and cells counted."""
    from sensorium.cli.columns import print_columns

    print_columns(table, settings or [], check, json)


@app.command()
def fit(
    table: Source,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings, as train.batch=64.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/model"),
    target: Annotated[
        list[str] | None, typer.Option(help="A column to predict first of all; may be given several times.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to train (5 by default).")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over the table.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="A YAML, TOML or JSON file of settings.")
    ] = None,
    generate: Annotated[
        str | None,
        typer.Option(
            help="Pictures, videos, sounds, series and points to learn to generate, joined by commas; none. Default: all "
            "where there is time (30 minutes on a CPU, 5 on a GPU)."
        ),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            help="How: flow (default), vae, gan or codes; several joined by commas are learned beside one another."
        ),
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(
            help="What of pretrained models is learned further: frozen, lora, dora, rslora, bias, last:N or full."
        ),
    ] = None,
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
        from sensorium.backbones._tuning import everywhere

        given = everywhere(given, tune)
    if tracker:
        given = merge(given, {"trackers": {"": ",".join(tracker)}})
    model = Model.fit(
        table,
        out=out,
        target=target or [],
        minutes=minutes,
        epochs=epochs,
        seed=seed,
        resume=resume,
        settings=given,
        device=device,
        quiet=False,
    )
    facts = model.facts
    typer.echo(
        f"{facts['steps']:,} steps, {facts['rows_per_second']:,} rows/s, {facts['parameters']:,} parameters, "
        f"{facts['bad_rows']:,} rows in quarantine. Model: {out}"
    )


@app.command()
def distill(
    run: Run,
    table: Source,
    column: Annotated[
        str, typer.Option(help="The column of pictures, sounds, clips or series that the run draws by flow.")
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings, as distill.pairs=8192.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to save to. Default: RUN.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="How long the student learns (10 by default), after the flow has drawn what it learns from."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over that.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a lesson that was stopped.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")] = None,
) -> None:
    """Teach a run to draw a column in one step instead of many: generate --generator onestep."""
    from sensorium.cli.show import note
    from sensorium.model import Model

    model = Model.load(run, device).distill(
        table,
        column,
        out=out or run,
        minutes=minutes,
        epochs=epochs,
        seed=seed,
        resume=resume,
        settings=settings or [],
        quiet=False,
        note=note,
    )
    facts = model.facts["distilled"][column]
    if facts["stopped"]:
        typer.echo(f"Stopped after {facts['steps']:,} steps; the student is saved as it is. Go on with --resume.")
    typer.echo(
        f"{facts['steps']:,} steps on {facts['pairs']:,} drawn cells. From those not learned from the student is {facts['away']} away, the "
        f"flow's own first guess {facts['teacher_away']}. Model: {out or run}; draw with --generator onestep."
    )


@app.command("ask-data")
def ask_data(
    table: Source,
    out: Annotated[Path, typer.Option(help="A .parquet file.")],
    about: Annotated[
        str | None, typer.Option(help="The column that says what a row is. Default: one of names or classes.")
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(
            help="Columns whose cells are shown, joined by commas. Default: pictures, videos, sounds and series, or else all others."
        ),
    ] = None,
    each: Annotated[int, typer.Option(help="Conversations about each row.")] = 4,
    kinds: Annotated[
        str | None,
        typer.Option(
            help="Kinds of questions and how often each is asked. Default: name:4,choice:2,yes_no:2,absent:1.5,field:1,describe:0.5,unknown:0.25,next:1,compare:1,how_many:0.5."
        ),
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Columns that come along and may be asked for, joined by commas. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Questions, each with a right and a wrong answer, for the command prefer.")
    ] = False,
    words: Annotated[
        Path | None,
        typer.Option(
            help='Wordings of questions beside ours, in any language, as JSON: {"name": ["What animal is it?"]}. With --reword it may not be there yet: it is written.'
        ),
    ] = None,
    reword: Annotated[
        str | None, typer.Option(help="A language model, as trunk.path, that says the questions in other words.")
    ] = None,
    rewordings: Annotated[int, typer.Option(help="How many other wordings of each question it may add.")] = 4,
) -> None:
    """Build conversations about a table's training rows, from its columns' names and values."""
    from sensorium.cli.talk import write_conversations

    write_conversations(
        table, out, about, names(of) or [], each, kinds, names(keep), seed, pairs, words, reword, rewordings
    )


@app.command()
def prefer(
    run: Run,
    table: Annotated[
        str,
        typer.Argument(metavar="PAIRS", help="A table with conversation, chosen and rejected: see ask-data --pairs."),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="prefer.KEY=VALUE", help="Settings, as prefer.beta=0.3.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the model is then kept. Default: RUN itself.")] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to learn (10 by default).")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over the pairs.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a lesson that was stopped.")] = False,
) -> None:
    """Teach a run that talks which of two answers is better (DPO), or, with prefer.loss=reward, a judge that scores answers."""
    from sensorium.model import Model

    model = Model.load(run).prefer(
        table,
        out=out or run,
        minutes=minutes,
        epochs=epochs,
        seed=seed,
        resume=resume,
        settings=settings or [],
        quiet=False,
    )
    judge = "prefer.loss=reward" in (settings or [])
    facts = model.facts["judge" if judge else "preferred"]
    typer.echo(
        f"{facts['steps']:,} steps over {facts['pairs']:,} pairs; of {facts['held_out']} held out the chosen answer {'has the higher score' if judge else 'is likelier'} in {facts['after']:.2f}, "
        f"before in {facts['before']:.2f}. Model: {out or run}"
    )


@app.command()
def reinforce(
    run: Run,
    table: Annotated[
        str,
        typer.Argument(
            metavar="QUESTIONS",
            help="A table with conversation, which ends with the user, and answer (or chosen): see ask-data --pairs.",
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="reinforce.KEY=VALUE", help="Settings, as reinforce.score=judge.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the model is then kept. Default: RUN itself.")] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to practise (10 by default).")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over the questions.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a lesson that was stopped.")] = False,
) -> None:
    """Let a run that talks draw answers and learn from which were good (GRPO), by a scoring function or a judge."""
    from sensorium.model import Model

    facts = (
        Model.load(run)
        .reinforce(
            table,
            out=out or run,
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            resume=resume,
            settings=settings or [],
            quiet=False,
        )
        .facts["reinforced"]
    )
    typer.echo(
        f"{facts['steps']:,} steps over {facts['questions']:,} questions; answers to {facts['held_out']} held out score {facts['after']:.3f}, before {facts['before']:.3f}. Model: {out or run}"
    )


@app.command("export-trunk")
def export_trunk(run: Run, out: Annotated[Path, typer.Option(help="A folder.")]) -> None:
    """The language model of a run for transformers alone: merged with what was tuned, and that as PEFT's adapter; of pictures with column.NAME.llava=true the whole as LLaVA."""
    from sensorium.model import Model

    told = Model.load(run).export_trunk(out)
    for folder in told["llava"] if isinstance(told["llava"], list) else ():
        typer.echo(f"Wrote {folder}: all of it in the layout of LLaVA")
    if isinstance(told["llava"], str):
        typer.echo(f"Nothing in the layout of LLaVA: {told['llava']}.")
    typer.echo(
        f"Wrote {out}: {told['parameters']:,} parameters"
        + (f", and {out / 'adapter'}: {told['adapter_parameters']:,}" if told["adapter_parameters"] else "")
    )


@app.command()
def demo(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings, as train.batch=64.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="How long to train. Default: 5; 40 with --chat.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder. Default: runs/demo, runs/pretrained or runs/chat.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained", help="Let pictures and names stand on pretrained encoders, which come in packages."
        ),
    ] = False,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat",
            help="Build conversations about the table and tune a language model, which comes in a package, to talk about pictures.",
        ),
    ] = False,
) -> None:
    """Build the emoji table, train on it, print and report results."""
    from sensorium.cli.demo import run_chat_demo, run_demo

    if chat:
        run_chat_demo(minutes or 40.0, out or Path("runs/chat"), seed, settings or [])
    else:
        run_demo(
            minutes or 5.0,
            out or Path("runs/pretrained" if pretrained else "runs/demo"),
            seed,
            settings or [],
            pretrained,
        )
