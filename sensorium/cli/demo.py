"""Demo on the emoji table: one model for all of it, measured on drawings and concepts it never saw."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table as Grid

from sensorium.cli.output import console, note
from sensorium.cli.tables import build_table

SETTINGS = (
    "column.concept.kind=out",  # the name without man, woman or person: it would give the name away
    *(
        f"column.image.{key}" for key in ("trim=true", "grey=0.2", "stroke=0.6")
    ),  # studios differ in margins, colours and outlines
    "data.validation=0.03",
    "data.entity_key=id",
    "questions.weights=name:12,tags:2,image:3",
    "questions.single_column=0.8",
    "questions.all_columns=0.1",
)
TOKEN_DROPOUT = 0.02, 0.3
"""Token dropout of pictures and sounds: the share hidden for each minute of training, and at most.

What is seen more often is sooner known by heart."""
MATCH_WEIGHT = 0.1, 5.0, 1.0
"""Weight of matching drawings and voices of one emoji: for each minute, beyond so many, and at most.

In a short run all else is learned from fewer rows for it."""
LONG_RUN_MINUTES, LONG_RUN_SETTINGS = 10.0, ("column.image.size=64", "train.ema_decay=0.998")
"""Settings of long runs: from so many minutes on there is time for finer pictures, and a mean of weights is better than
the last ones."""
SPLITS = {
    "test_new_style": "known concepts, by a studio in a style not seen for them",
    "test_new_concept": "new concepts",
}


def by_length(minutes: float) -> list[str]:
    """Settings that depend on how long a run is."""
    drop, same = (
        min(TOKEN_DROPOUT[0] * minutes, TOKEN_DROPOUT[1]),
        min(max(MATCH_WEIGHT[0] * (minutes - MATCH_WEIGHT[1]), 0.0), MATCH_WEIGHT[2]),
    )
    return [
        f"network.drop={drop:g}",
        f"match.same_thing={same:g}",
        *(LONG_RUN_SETTINGS if minutes >= LONG_RUN_MINUTES else ()),
    ]


def run_demo(minutes: float, out: Path, seed: int, settings: Sequence[str] = (), pretrained: bool = False) -> None:
    """Train on the emoji table, measure the model, and print what to try next."""
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
    Model.fit(
        path, out=out, minutes=minutes, seed=seed, settings=[*SETTINGS, *by_length(minutes), *settings], quiet=False
    )
    model = Model.load(out)
    table = Table.open(path)
    results = {split: measure(model, table, split) for split in SPLITS}
    (out / "demo.json").write_text(
        json.dumps({"minutes": minutes, "seed": seed, "facts": model.facts, "results": results}, indent=1)
    )
    grid = Grid(
        title=f"One model, {minutes:g} minutes of training, {model.facts['parameters']:,} parameters",
        title_justify="left",
    )
    grid.add_column("measured on rows that were not trained on")
    for words in SPLITS.values():
        grid.add_column(words)
    for key in results["test_new_style"]:
        grid.add_row(key, *(f"{results[split][key]:.2f}" for split in SPLITS))
    console().print(grid)
    note(f"{time.monotonic() - started:.0f} s in all. See {out / 'report.html'} in a browser, or try:")
    note(f'  sensorium search {out} {path} --by name="a crying cat" --among image')
    note(f"  sensorium predict {out} {path} --column group --seen image --out {out / 'group.csv'}")
    note(f"  sensorium generate {out} {path} --column name --seen image --out {out / 'captions.csv'}")


CHAT_SETTINGS = (
    "trunk=causal_lm",
    "questions.plans=0",
    "questions.dialogue_rows=12",
    "data.entity_key=id",
    "data.validation=0.03",
    "match.same_thing=1",
    "network.drop=0.2",
    "column.image.trim=true",
    "column.image.dropout=0.3",
    "column.group.kind=out",
    "column.conversation.recall=name",
    "column.conversation.recalled=10",
    "column.conversation.tokens=2",
)
"""Settings of the chat demo.

Each step matches 128 pictures and names, and goes through 12 conversations; what is like a picture is told beside it.
"""
CONVERSATIONS_PER_ROW, QUESTION_KINDS = 8, "name:4,choice:2.5,yes_no:2,absent:1.5,field:0.3,unknown:0.1"
"""Conversations of a row, and of what kinds."""


def run_chat_demo(minutes: float, out: Path, seed: int, settings: Sequence[str] = ()) -> None:
    """Tune a language model on conversations about the emoji table, measure it, and print examples."""
    from sensorium.backbones._packages import from_packages, smollm2
    from sensorium.cli.conversations import write_conversations
    from sensorium.data.schema import infer
    from sensorium.data.table import Table
    from sensorium.dialogue.evaluate import examples
    from sensorium.inference.trained import keep_split
    from sensorium.model import Model

    started, folders, language = time.monotonic(), from_packages(), smollm2()
    path, talks = out / "emoji.parquet", out / "conversations.parquet"
    if not path.exists():
        build_table("emoji", path, [])
    write_conversations(
        str(path),
        talks,
        "name",
        ["image"],
        CONVERSATIONS_PER_ROW,
        QUESTION_KINDS,
        ["id", "name", "image", "group", "split"],
        seed,
    )
    given = [
        *CHAT_SETTINGS,
        f"trunk.path={language}",
        f"column.image.backbone={folders['image']}",
        f"column.name.backbone={folders['text']}",
        *settings,
    ]
    Model.fit(talks, out=out, minutes=minutes, seed=seed, settings=given, quiet=False)
    model, table = Model.load(out), Table.open(path)
    results: dict[str, dict[str, Any]] = {}
    for split in SPLITS:  # minutes each: what is measured is kept
        results[split] = model.examine(table, split=split, about="name", of=["image"], note=note)
        (out / "demo.json").write_text(
            json.dumps({"minutes": minutes, "seed": seed, "facts": model.facts, "results": results}, indent=1)
        )
    grid = Grid(title=f"A model that talks, {minutes:g} minutes of training", title_justify="left")
    grid.add_column("asked about drawings that were not trained on")
    for words in SPLITS.values():
        grid.add_column(words)
    for key, words in CHAT_METRICS.items():
        grid.add_row(words, *(f"{results[split][key]:.2f}" for split in SPLITS))
    out_of = console()
    out_of.print(grid)
    part = keep_split(table, "test_new_style", "split")
    for _, question, answer in examples(model.network, part, infer(part), 8, seed):
        out_of.print(f"  {question.text}  [right: {question.answer}]  {answer}", markup=False)
    note(f"{time.monotonic() - started:.0f} s in all. Talk with it:")
    note(f"  sensorium chat {out} --table {path}        then: /row 7   What is this?   /why")
    note(f"  sensorium serve {out}                      then any program that knows OpenAI's API")


CHAT_METRICS = {
    "exact": "What is this? (the exact name, of 1,595)",
    "choice": "Which of these four is it?",
    "yes_no": "Is this …? (mean over yes and no)",
    "absent": "Is there … in it? (it isn't)",
}


def measure(model: Any, table: Any, split: str) -> dict[str, float]:
    """Metrics of the demo on one split (gallery: all its drawings)."""
    from sensorium.evaluation.search_scores import search_all
    from sensorium.inference.trained import keep_split

    part = keep_split(table, split, "split")
    cells = part.take(np.arange(part.rows), ["group", "name", "spoken_language"])
    group, name, language = (cells.column(c).to_pylist() for c in ("group", "name", "spoken_language"))
    rows = model.rows(part)
    found = search_all(rows, part, "id")
    english = np.array([language[i] == "en" for i in found["spoken>image"].query_rows])
    known = np.array([i for i, value in enumerate(group) if value is not None])
    truth = [group[i] for i in known]

    def right(column: str, cells: list[Any], seen: list[str] | None, asked: np.ndarray) -> float:
        answers = rows.predict(column, seen, asked)
        return float(np.mean([a == b for a, b in zip(answers.cells, cells, strict=True)]))

    return {
        "name > image, recall@10": float(found["name>image"].hit.any(1).mean()),
        "image > name, recall@10": float(found["image>name"].hit.any(1).mean()),
        "spoken (English) > image, recall@10": float(found["spoken>image"].hit[english].any(1).mean()),
        "group from image, accuracy": right("group", truth, ["image"], known),
        "group from name, accuracy": right("group", truth, ["name"], known),
        "group from all, accuracy": right("group", truth, None, known),
        "name from image, exact": right("name", name, ["image"], np.arange(part.rows)),
    }
