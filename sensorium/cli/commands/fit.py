"""The command ``fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import MaxBad, Source

GROUP = "Train"
RANK = 110


def fit(
    table: Source,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings, as train.batch=64.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/model"),
    target: Annotated[list[str] | None, typer.Option(help="Columns to predict first of all, joined by commas.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes for all of it, 5 by default.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or how many passes over the table.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="A YAML, TOML or JSON file of settings.")
    ] = None,
    generate: Annotated[
        str | None,
        typer.Option(
            help="Pictures, videos, sounds, series and points to learn to generate, joined by commas; none. "
            "Default: all "
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
        given = merge(given, {"questions": {"generate": "" if generate == "none" else generate}})
    if generator is not None:
        given = merge(given, {"questions": {"generator": generator}})
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
