"""Model card: training data, measured results, limits, files and pretrained encoders of a model that is given away."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensorium.report.assets import asset, environment

MAIN = {
    "category": ("accuracy", "right"),
    "text": ("exact", "exact match"),
    "number": ("r2", "R²"),
    "date": ("r2", "R²"),
}
"""Metric of a predicted column and its label, by kind of column."""
FILE_CONTENTS = {
    "model.safetensors": "the weights. They tell of training rows what they know by heart: a row's own loss is often "
    "lower than that of a row like it",
    "model.json": "columns, settings, what was learned of each column (classes, word pieces, quantiles) and how it was "
    "trained",
    "probes.safetensors": "linear regressions that stand for a memory of training rows: no row, no class and no range "
    "of values of fewer than 5 rows",
    "ensembles.json": "which models answer beside the network",
    "ensembles.safetensors": "trees and linear models fitted on training rows, **a rare value of which can stand at a "
    "branch**, and how likely validation rows' answers were to each of them",
    "memory.safetensors": "**gists, hashed words and answers of single training rows**: whether somebody was in the "
    "table can be read from it",
    "domain.safetensors": "**gists of single training rows**, by which it is told how far other rows lie from them",
    "rows.npy": "**a hash of each training row**: whoever has a row can look it up",
    "quarantine.jsonl": "**cells that couldn't be read, as they stood in the table**",
    "baselines": "plain models, **with the features and answers of training rows**",
    "report.html": "results **with cells of single rows**",
    "reward.safetensors": "a judge of answers: weights",
    "metrics.jsonl": "the losses of each step",
    "settings.json": "what was asked, with the name of the table and paths",
    "environment.json": "the machine and its packages",
    "backbones": "the encoders named below",
}
"""Contents of the files that a model may have beside its results; what tells of single rows is bold."""
MAX_SEARCHES = 24
"""Pairs of columns whose retrieval results are shown, at most."""


def write_card(
    folder: Path,
    columns: Mapping[str, str],
    facts: Mapping[str, Any],
    backbones: Mapping[str, Mapping[str, Any]],
    left_out: Mapping[str, str],
) -> str:
    """Render the card as Markdown with the front matter that hubs read.

    Args:
        folder: of the run, whose ``results-*.json`` are shown. columns: their kinds.
        backbones: for each column ``name``, ``licence`` and ``sha256``.
    """
    files = {name: words for name, words in FILE_CONTENTS.items() if (folder / name).exists()}
    results = {
        path.stem.removeprefix("results-"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("results*.json"))
    }
    page = environment()
    page.autoescape = False  # Markdown; what tables say is put into cells that hold neither lines nor bars
    page.filters["cell"] = plain
    return page.from_string(asset("card.md.jinja")).render(
        columns=columns,
        facts=facts,
        backbones=backbones,
        left_out=left_out,
        files=files,
        single=any("**" in words for words in files.values()),
        results=[(split, found.get("rows"), measured(found)) for split, found in results.items()],
    )


def measured(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Table rows of the measured predictions and retrievals, beside chance and the plain models."""
    lines = []
    for column, found in results.get("columns", {}).items():
        key, words = MAIN.get(found.get("kind", ""), ("", ""))
        if key in found:
            base = found.get("baseline") or {}
            lines.append(
                {
                    "what": f"{column}: {words}",
                    "ours": found[key],
                    "chance": found.get("chance"),
                    "one": base.get("one_column"),
                    "trees": base.get("trees"),
                }
            )
    for pair, found in list(results.get("retrieval", {}).items())[:MAX_SEARCHES]:
        lines.append(
            {
                "what": f"{pair.replace('>', ' finds ')}: recall@10 of {found['gallery']:,}",
                "ours": found["recall@10"],
                "chance": min(1.0, 10 / max(1, found["gallery"])),
                "one": None,
                "trees": None,
            }
        )
    return lines


def plain(words: Any) -> str:
    """Text escaped as a cell of a Markdown table: one line that opens no other cell, link or HTML."""
    return re.sub(r"([|\\`*_\[\]<>#])", r"\\\1", re.sub(r"\s+", " ", str(words))).strip()


def licence(folder: Path) -> str:
    """Licence that a backbone's own card names; empty where it names none."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    head = path.read_text(encoding="utf-8", errors="replace")[:4000]
    found = re.search(r"^license:\s*(\S[^\n]*)$", head, re.MULTILINE) if head.startswith("---") else None
    return found[1].strip() if found else ""
