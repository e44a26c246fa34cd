"""The demo: the emoji table, one model for all of it, and what it can do on drawings and concepts it never saw."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress
from rich.table import Table as Grid

from sensorium.cli.show import console, note
from sensorium.core.parts import find
from sensorium.core.settings import build

SETTINGS = (
    "column.concept.kind=out",  # the name without man, woman or person: it would give the name away
    *(f"column.image.{key}" for key in ("trim=true", "grey=0.2", "stroke=0.6")),  # studios differ in margins, colours and outlines
    "data.validation=0.03",
    "data.same=id",
    "sample.weights=name:12,tags:2,image:3",
    "sample.alone=0.8",
    "sample.everything=0.1",
)
DROP = 0.02, 0.3
"""Share of a picture's or a sound's tokens that training hides: for each minute, and at most. What is seen more often is sooner
known by heart."""
SAME = 0.1, 5.0, 1.0
"""Weight of matching drawings and voices of one emoji: for each minute, beyond so many, and at most. In a short run all else is
learned from fewer rows for it."""
LONG, FINE = 10.0, ("column.image.size=64", "train.ema=0.998")
"""From so many minutes on there is time for finer pictures, and for a mean of weights to be better than the last ones."""
SPLITS = {"test_new_style": "known concepts, drawn by a studio in a style not seen for them", "test_new_concept": "new concepts"}


def build_table(name: str, out: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Build one of Sensorium's tables and say what it is made of."""
    from sensorium.core.errors import UserError
    from sensorium.tables import Builder

    given = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"'{setting}' is no setting. Write KEY=VALUE, as rows=200.")
        given[key] = value
    builder = build(find(Builder, name), given, f"table {name}")
    with Progress(transient=True) as progress:
        task = progress.add_task(f"Building {name}", total=None)
        built = builder.build(out, progress=lambda done, total: progress.update(task, completed=done, total=total))
    note(f"{out}: {built['rows']:,} rows, SHA-256 {built['sha256'][:16]}…")
    for line in built["credits"]:
        note(f"  {line}")
    return built


def by_length(minutes: float) -> list[str]:
    """The settings that hang on how long a run is."""
    drop, same = min(DROP[0] * minutes, DROP[1]), min(max(SAME[0] * (minutes - SAME[1]), 0.0), SAME[2])
    return [f"network.drop={drop:g}", f"match.same_thing={same:g}", *(FINE if minutes >= LONG else ())]


def run_demo(minutes: float, out: Path, seed: int, settings: Sequence[str] = (), pretrained: bool = False) -> None:
    """The command ``demo``."""
    if pretrained:
        from sensorium.backbones._packages import from_packages

        folders = from_packages()
        settings = [f"column.image.backbone={folders['image']}", f"column.name.backbone={folders['text']}", *settings]
    from sensorium.data.table import Table
    from sensorium.model import Model

    started = time.monotonic()
    path = out / "emoji.parquet"
    if not path.exists():
        build_table("emoji", path, [])
    Model.fit(path, out=out, minutes=minutes, seed=seed, settings=[*SETTINGS, *by_length(minutes), *settings], quiet=False)
    model = Model.load(out)
    table = Table.open(path)
    results = {split: measure(model, table, split) for split in SPLITS}
    (out / "demo.json").write_text(json.dumps({"minutes": minutes, "seed": seed, "facts": model.facts, "results": results}, indent=1))
    grid = Grid(title=f"One model, {minutes:g} minutes of training, {model.facts['parameters']:,} parameters", title_justify="left")
    grid.add_column("measured on rows that were not trained on")
    for words in SPLITS.values():
        grid.add_column(words)
    for key in results["test_new_style"]:
        grid.add_row(key, *(f"{results[split][key]:.2f}" for split in SPLITS))
    console().print(grid)
    note(f"{time.monotonic() - started:.0f} s in all. See {out / 'report.html'} in a browser, or try:")
    note(f"  sensorium search {out} {path} --by name=\"a crying cat\" --among image")
    note(f"  sensorium predict {out} {path} --column group --seen image --out {out / 'group.csv'}")
    note(f"  sensorium generate {out} {path} --column name --seen image --out {out / 'captions.csv'}")


def measure(model: Any, table: Any, split: str) -> dict[str, float]:
    """The demo's own numbers on one split (gallery: all its drawings)."""
    from sensorium.model import keep_split
    from sensorium.train.evaluate import search_all

    part = keep_split(table, split, "split")
    cells = part.take(np.arange(part.rows), ["group", "name", "spoken_language"])
    group, name, language = (cells.column(c).to_pylist() for c in ("group", "name", "spoken_language"))
    rows = model.rows(part)
    found = search_all(rows, part, "id")
    english = np.array([language[i] == "en" for i in found["spoken>image"].query_rows])
    known = np.array([i for i, value in enumerate(group) if value is not None])
    truth = [group[i] for i in known]

    def right(column: str, cells: list[Any], seen: list[str] | None, asked: np.ndarray) -> float:
        said = rows.say(column, seen, asked)
        return float(np.mean([a == b for a, b in zip(said.cells, cells, strict=True)]))

    return {
        "name > image, recall@10": float(found["name>image"].hit.any(1).mean()),
        "image > name, recall@10": float(found["image>name"].hit.any(1).mean()),
        "spoken (English) > image, recall@10": float(found["spoken>image"].hit[english].any(1).mean()),
        "group from image, accuracy": right("group", truth, ["image"], known),
        "group from name, accuracy": right("group", truth, ["name"], known),
        "group from all, accuracy": right("group", truth, None, known),
        "name from image, exact": right("name", name, ["image"], np.arange(part.rows)),
    }
