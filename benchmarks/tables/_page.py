"""The page of results: losses first, then every question with its spread over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "tables.jsonl"
MARGINS = {"class": 0.01, "value": 0.02}
"""By how much ours may be below the best one: of the share of right classes, of R²."""
ROOM = 0.99
"""Where the best one is above, there is no room to be better."""

Result = dict[str, Any]


def read_results(path: Path) -> list[Result]:
    """Results, as they were appended."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def best(entry: Mapping[str, Any]) -> float:
    """Best of the plain models, and of ours from any column alone."""
    return max([*entry["peers"].values(), *entry["alone"].values()])


def verdict(entry: Mapping[str, Any]) -> str:
    """Whether ours is ahead of the best one, behind, or neither."""
    if entry["ours"] < best(entry) - MARGINS[entry["kind"]]:
        return "behind"
    return "ahead" if entry["ours"] > best(entry) else "equal"


def write_page(path: Path, results: Sequence[Result]) -> None:
    """Write the page (Markdown) from the last result of each table and seed."""
    newest = {(one["table"], one["seed"]): one for one in results}
    questions: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for (table, _), result in sorted(newest.items()):
        for name, entry in result["questions"].items():
            questions.setdefault((table, name), []).append(entry)
    lines = []
    for (table, name), entries in questions.items():
        ours, plain = [e["ours"] for e in entries], [max(e["peers"].values()) for e in entries]
        alone = [max(e["alone"].values()) for e in entries if e["alone"]]
        middle = {"ours": statistics.median(ours), "kind": entries[0]["kind"]}
        top = {"p": statistics.median(plain)}
        single = {"a": statistics.median(alone)} if alone else {}
        word = verdict({**middle, "peers": top, "alone": single})
        apart = middle["ours"] - max([*top.values(), *single.values()])
        kinds = sorted({max(e["peers"], key=lambda c, e=e: e["peers"][c]) for e in entries})
        measure = "right" if middle["kind"] == "class" else "R²"
        cells = [
            table, name, measure, entries[0]["n"], said(ours), f"{said(plain)} ({kinds[0]})", said(alone),
            said([e["network"] for e in entries]), said([e["covered"] for e in entries]), word,
        ]  # fmt: skip
        lines.append((apart, "| " + " | ".join(str(cell) for cell in cells) + " |", word, max(top.values())))
    lines.sort(key=lambda line: line[0])
    words = [line[2] for line in lines]
    room = [line[2] for line in lines if line[3] < ROOM]
    seeds = sorted({seed for _, seed in newest})
    minutes = sorted({one["minutes"] for one in newest.values()})
    text = HEAD.format(
        questions=len(lines), tables=len({table for table, _ in questions}), behind=words.count("behind"),
        ahead=room.count("ahead"), room=len(room), seeds=", ".join(map(str, seeds)),
        minutes=" or ".join(f"{m:g}" for m in minutes),
    )  # fmt: skip
    text += "\n".join(line[1] for line in lines) + "\n" + times(list(newest.values()))
    path.write_text(text, encoding="utf-8")


def said(values: Sequence[float]) -> str:
    """Median with its range."""
    if not values:
        return ""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.3f}" + (f" ({low:.3f}–{high:.3f})" if high - low >= 0.0005 else "")


def times(results: Sequence[Result]) -> str:
    """Time and memory of the fits."""
    lines = [
        "",
        "## Time and memory",
        "",
        "| table | rows to learn from | minutes | seconds | peak MiB |",
        "|---|---|---|---|---|",
    ]
    for name in sorted({one["table"] for one in results}):
        mine = [one for one in results if one["table"] == name]
        seconds = said([one["seconds"] for one in mine]).replace(".000", "")
        lines.append(
            f"| {name} | {mine[0]['rows']['train']:,} | {mine[0]['minutes']:g} | {seconds} | "
            f"{max(one['peak_mib'] for one in mine):,} |"
        )
    return "\n".join(lines) + "\n"


HEAD = """# Accuracy: ours beside plain models, losses first

    python -m benchmarks tables --folder FOLDER
    python -m benchmarks tables --page

{questions} questions to {tables} tables; fits of {minutes} minutes, seeds {seeds}. Ours is behind the best of the
others in {behind}, and ahead in {ahead} of the {room} that have room (the best plain model is below 0.99).

The others are boosted trees (LightGBM), a linear model and nearest neighbours on the same plain features, each tuned on
the same validation rows; trees on the best single column; and ours from the best single column. The best of them is
chosen on the test rows, which flatters it: of five models that are equally good one always looks best. "Behind" is more
than 0.01 of the share that is right, or 0.02 of R².

| table | question | measure | rows | ours | best plain model | ours, one column | our network alone | 90 % holds | |
|---|---|---|---|---|---|---|---|---|---|
"""
