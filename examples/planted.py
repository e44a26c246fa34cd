"""Do explanations find the cause? A table whose causes are planted, and the shares and parts that the model gives as
reasons.

    python examples/planted.py --minutes 4

Each row has a picture of discs, a note of six words, a curve and a number. One of the first three, drawn by lot, holds
the cue of the class: a mark somewhere in the picture, a word somewhere in the note, or a bump somewhere in the curve;
the others hold none. Asked is whether the column that caused an answer has the largest share, and whether the patch,
word or tenth with the cue counts most in it: left out, by integrated gradients and by attention, with the mean rank
correlation of the latter two with the first. Beside stand chance, a model whose weights were never trained (Adebayo et
al. 2018, arXiv 1810.03292), and the curves of deletion and insertion: how likely the answer is when columns are taken
away, or shown, the most important first.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from _compare import arguments, fit, known, run, show
from PIL import Image, ImageDraw
from scipy.stats import spearmanr

from sensorium import Model, Table
from sensorium.explain.columns import Explanation

CAUSES = ("picture", "note", "curve")
SEEN = [*CAUSES, "number"]
WORDS = (
    "river",
    "table",
    "cloud",
    "paper",
    "stone",
    "garden",
    "window",
    "music",
    "bread",
    "winter",
    "light",
    "road",
    "silver",
    "quiet",
    "morning",
    "boat",
)
CUES = {"yes": "amber", "no": "violet"}
SIDE, STEPS, GRID = 48, 60, 6
EXPLAINED = 200
SETTINGS = (
    "column.cause.kind=out",
    "column.where.kind=out",
    "column.picture.size=48",
    "column.picture.turn=0",
    "column.picture.zoom=0",
    "column.picture.move=0",
    "column.picture.colour=0",
    "column.picture.bend=0",
    "baselines.share=0",
)


def main() -> None:
    given = arguments(__doc__, minutes=4.0)
    given.out = given.out or Path(tempfile.mkdtemp(prefix="sensorium-planted-"))
    table = Table.open(planted(given.rows or 3000, given.seed))
    model = known(given.out / "run") or fit(table, "class", given, "run", SETTINGS)
    parts = np.array(table.take(np.arange(table.rows), ["split"]).column("split").to_pylist())
    test = table.select(np.flatnonzero(parts == "test")[:EXPLAINED])
    truth = test.take(np.arange(test.rows), ["class", "cause", "where"]).to_pylist()
    said = model.predict(test, "class").column("value").to_pylist()
    ways = {
        how: model.explain(test, "class", said, SEEN, inside=how) for how in ("occlusion", "gradients", "attention")
    }
    whys = ways["occlusion"]
    right = [n for n, row in enumerate(truth) if said[n] == row["class"]]
    found = {"ours": share(whys, truth, right), "chance": 1 / 4, "answers right": len(right) / len(truth)}
    for cause in CAUSES:
        here = [n for n in right if truth[n]["cause"] == cause]
        found[f"by {cause}: column"] = share(whys, truth, here)
        for how, each in ways.items():
            found[f"by {cause}: {how}"] = (
                float(np.mean([part(each[n], truth[n]) for n in here])) if here else float("nan")
            )
        for how in ("gradients", "attention"):
            alike = [
                float(spearmanr(whys[n].parts[cause][1].mean(1), ways[how][n].parts[cause][1].mean(1)).statistic)
                for n in here
            ]
            found[f"by {cause}: rank corr., {how}"] = float(np.nanmean(alike)) if here else float("nan")
    raw = untrained(model).explain(test, "class", said, SEEN)
    found["untrained weights"] = share(raw, truth, right)
    found["its shares, rank corr."] = float(
        spearmanr(
            [why.shares[c] for why in whys for c in why.shares], [why.shares[c] for why in raw for c in why.shares]
        ).statistic
    )
    found |= curves(model, test, said, whys)
    show("Planted causes", model, found)


def planted(rows: int, seed: int) -> pa.Table:
    """The table."""
    cells: dict[str, list[Any]] = {
        name: [] for name in ("picture", "note", "curve", "number", "class", "cause", "where", "split")
    }
    for number in range(rows):
        rng = np.random.default_rng([seed, number])
        answer, cause = ("yes", "no")[int(rng.integers(2))], CAUSES[int(rng.integers(3))]
        place = {
            "picture": int(rng.integers(GRID * GRID)),
            "note": int(rng.integers(6)),
            "curve": int(rng.integers(10)),
        }[cause]
        words = [str(word) for word in rng.choice(WORDS, 6, replace=False)]
        if cause == "note":
            words[place] = CUES[answer]
        curve = 0.3 * rng.standard_normal(STEPS)
        if cause == "curve":
            edge = STEPS // 10
            curve[place * edge : (place + 1) * edge] += 3.0 if answer == "yes" else -3.0
        cells["picture"].append(drawing(rng, place if cause == "picture" else None, answer))
        for name, value in (
            ("note", " ".join(words)),
            ("curve", curve.tolist()),
            ("number", float(rng.normal())),
            ("class", answer),
            ("cause", cause),
            ("where", place),
            ("split", "test" if rng.random() < 0.15 else "train"),
        ):
            cells[name].append(value)
    return pa.table(cells)


def drawing(rng: np.random.Generator, place: int | None, answer: str) -> bytes:
    """Grey discs, and the mark in one square of a grid: red or blue."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen, square = ImageDraw.Draw(image), SIDE // GRID
    for _ in range(5):
        x, y, reach, grey = *rng.integers(4, SIDE - 4, 2).tolist(), int(rng.integers(2, 6)), int(rng.integers(120, 220))
        pen.ellipse([x - reach, y - reach, x + reach, y + reach], fill=(grey,) * 3)
    if place is not None:
        top, left = (place // GRID) * square, (place % GRID) * square
        pen.rectangle(
            [left, top, left + square - 1, top + square - 1], fill=(220, 20, 20) if answer == "yes" else (20, 40, 220)
        )
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def share(whys: list[Explanation | None], truth: list[dict[str, Any]], rows: list[int]) -> float:
    """How often the column that caused the class has the largest share."""
    return (
        float(np.mean([max(whys[n].shares, key=whys[n].shares.get) == truth[n]["cause"] for n in rows]))
        if rows
        else float("nan")
    )


def part(why: Explanation, row: dict[str, Any]) -> bool:
    """Whether the part with the cue counts most in the column that holds it."""
    names, worse = why.parts[row["cause"]]
    most = names[int(worse.mean(1).argmax())]
    if row["cause"] == "picture":
        return most == f"{row['where'] // GRID + 1},{row['where'] % GRID + 1}"
    return most == (CUES[row["class"]] if row["cause"] == "note" else f"step {row['where'] * (STEPS // 10)}")


def untrained(model: Model) -> Model:
    """The same network with weights as they are drawn."""
    from sensorium.network.build import make_network

    torch.manual_seed(1)
    return Model(make_network(model.network.modalities, model.settings, 0), model.schema, model.settings, model.facts)


def curves(model: Model, test: Table, said: list[Any], whys: list[Explanation | None]) -> dict[str, float]:
    """The mean probability of the said class over the numbers of columns taken away (deletion) or shown (insertion),
    the most important first, and at random.
    """
    orders = {
        "by shares": [sorted(why.shares, key=lambda c, why=why: -why.shares[c]) for why in whys],
        "at random": [np.random.default_rng(n).permutation(list(why.shares)).tolist() for n, why in enumerate(whys)],
    }
    rows, classes = model.rows(test), model.network.modalities["class"].classes
    result = {}
    for name, order in orders.items():
        for what in ("deletion", "insertion"):
            likely = []
            for count in range(len(order[0]) + 1):
                shown = [set(o[count:] if what == "deletion" else o[:count]) for o in order]
                told = rows.predict(
                    "class", SEEN, hide=lambda c, shown=shown: np.array([c not in some for some in shown])
                ).probabilities
                likely.append(np.mean([told[n, 1 + classes.index(cell)] for n, cell in enumerate(said)]))
            result[f"{what} {name}"] = float(np.mean(likely))
    return result


if __name__ == "__main__":
    run(main)
