"""How good are drawn pictures? Emoji drawn from their names, and a judge that never met the model that drew them.

    python examples/drawing.py --minutes 30
    python examples/drawing.py --minutes 30 --generator vae
    python examples/drawing.py --minutes 30 --generator onestep

The judge is a second model, of other sizes and another seed, trained on the same training rows to match names and
pictures alone. Asked are drawings of known concepts in a style not seen for them, and of new concepts; beside the drawn
ones stand the real ones, which are the ceiling. A run in --out is used again. The student of the flow (onestep) is
taught for half as long as its teacher learned, the judge learns for 0.3 of that.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
from _compare import arguments, build, fit, known, run, show
from PIL import Image

from sensorium import Model, Table
from sensorium.inference.trained import keep_split

GALLERY, SAMPLES, SHEET = 100, 2, 12
"""Names among which the judge seeks the right one, pictures drawn for each, and rows of the sheet that shows some."""
OTHERS = ("spoken", "name_de", "name_fr", "name_es", "name_ja", "year", "spoken_language", "tags", "group", "concept")
PICTURES = (
    "column.image.size=32",
    "column.image.trim=true",
    *(f"column.{column}.kind=out" for column in OTHERS),
    "baselines.share=0",
)
DRAWING = (
    "questions.generate=image",
    "questions.generate_share=1",
    "questions.trunk_share=0.1",
    "questions.detach_generation=false",
    "questions.plans=1",
    "train.batch=128",
    "train.ema_decay=0.998",
    "train.weight_decay=0.1",
    "data.entity_key=id",
)
JUDGING = (
    "objectives=match",
    "network.width=240",
    "network.gist=240",
    "column.image.norm=weight",
    "column.image.grey=0.2",
    "column.image.stroke=0.6",
    "column.style.kind=out",
)


def main() -> None:
    given = arguments(
        __doc__,
        minutes=30.0,
        choices={
            "generator": ("flow", "vae", "gan", "codes", "onestep"),
            "solver": ("euler", "heun"),
            "steps": ("20", "10", "50"),
        },
    )
    table = (
        Table.open(given.out / "emoji.parquet")
        if given.out and (given.out / "emoji.parquet").is_file()
        else build("emoji", given)
    )
    learned = "flow" if given.generator == "onestep" else given.generator
    drawer = known(given.out / "run") or fit(
        table, "", given, "run", [*PICTURES, *DRAWING, f"questions.generator={learned}"]
    )
    if given.generator == "onestep":
        length = {"epochs": given.epochs} if given.epochs else {"minutes": given.minutes / 2}
        drawer = known(given.out / "student") or drawer.distill(
            table, "image", out=given.out / "student", seed=given.seed, quiet=False, **length
        )
    other = argparse.Namespace(**vars(given) | {"seed": given.seed + 1, "minutes": 0.3 * given.minutes})
    judge = known(given.out / "judge") or fit(table, "", other, "judge", [*PICTURES, *JUDGING, "train.batch=256"])
    how = {"steps": int(given.steps), "solver": given.solver} if given.generator == "flow" else {}
    for split, words in (
        ("test_new_style", "Known concepts, a style not seen for them"),
        ("test_new_concept", "New concepts"),
    ):
        part = keep_split(table, split, "split")
        rows = distinct(part)[:GALLERY]
        results = judged(drawer, judge, part, rows, given.out / f"{split}.png", given.generator, how)
        show(
            f"{words}: {len(rows)} names",
            drawer,
            results | {"apart, both real styles": styles_apart(judge, table, part, rows)},
        )


def distinct(part: Table) -> np.ndarray:
    """Rows of different names, in the table's order."""
    names = part.take(np.arange(part.rows), ["name"]).column("name").to_pylist()
    return np.array([row for row, name in enumerate(names) if names.index(name) == row])


def judged(
    drawer: Model, judge: Model, part: Table, rows: np.ndarray, sheet: Path, generator: str, how: dict[str, object]
) -> dict[str, float]:
    """What the judge says of pictures drawn from name and style, and of the real ones."""
    asked = part.take(rows, ["name", "style"])
    started = time.monotonic()
    drawn = drawer.generate(asked, "image", seen=["name", "style"], samples=SAMPLES, generator=generator, **how)
    seconds = (time.monotonic() - started) / (len(rows) * SAMPLES)
    real = list(part.cells(part.take(rows, ["image"]), "image", True))
    names = judge.embed([{"name": name} for name in asked.column("name").to_pylist()], ["name"])
    one, two = (judge.embed([{"image": cells[number]} for cells in drawn], ["image"]) for number in range(2))
    truth = judge.embed([{"image": cell} for cell in real], ["image"])
    other = np.setdiff1d(np.arange(part.rows), rows)[: len(rows)]
    second = (
        judge.embed([{"image": cell} for cell in part.cells(part.take(other, ["image"]), "image", True)], ["image"])
        if len(other) > 1
        else truth
    )
    contact(sheet, real[:SHEET], drawn[:SHEET])
    right = np.arange(len(rows))
    return {
        "ours": float(np.mean([(found @ names.T).argmax(1) == right for found in (one, two)])),
        "real drawings": float(((truth @ names.T).argmax(1) == right).mean()),
        "chance": 1 / len(rows),
        "Fréchet distance": frechet(np.concatenate([one, two]), truth),
        "of other real drawings": frechet(second, truth),
        "apart, samples of one": float(1 - (one * two).sum(1).mean()),
        "apart, real drawings": float(1 - (truth @ truth.T)[~np.eye(len(rows), dtype=bool)].mean()),
        "seconds a picture": seconds,
    }


def styles_apart(judge: Model, table: Table, part: Table, rows: np.ndarray) -> float:
    """How far apart the judge finds the drawings that two studios made of one thing."""
    ids = part.take(rows, ["id"]).column("id").to_pylist()
    everything = table.take(np.arange(table.rows), ["id", "style"])
    places: dict[str, list[int]] = {}
    for row, id in enumerate(everything.column("id").to_pylist()):
        places.setdefault(id, []).append(row)
    pairs = np.array([places[id][:2] for id in ids if len(places[id]) > 1])
    if not len(pairs):
        return float("nan")
    one, other = (
        judge.embed([{"image": cell} for cell in table.cells(table.take(side, ["image"]), "image", True)], ["image"])
        for side in pairs.T
    )
    return float(1 - (one * other).sum(1).mean())


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """The Fréchet distance of two Gaussians (Heusel et al. 2017, arXiv 1706.08500, equation 6) on the judge's unit
    vectors.
    """
    (a, b), (s, t) = (
        [x.mean(0) for x in (one, other)],
        [np.cov(x.astype(np.float64), rowvar=False) for x in (one, other)],
    )
    values, vectors = np.linalg.eigh(s)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    both = np.sqrt(np.linalg.eigvalsh(root @ t @ root).clip(0)).sum()
    return float(np.square(a - b).sum() + np.trace(s) + np.trace(t) - 2 * both)


def contact(path: Path, real: list[bytes], drawn: list[list[bytes]]) -> None:
    """A sheet of real pictures (above) and what was drawn for them (below)."""
    side, rows = 64, 1 + SAMPLES
    sheet = Image.new("RGB", (side * len(real), side * rows), "white")
    for at, (truth, samples) in enumerate(zip(real, drawn, strict=True)):
        for line, cell in enumerate([truth, *samples]):
            if cell is not None:
                with Image.open(io.BytesIO(cell)) as image:
                    sheet.paste(
                        image.convert("RGB").resize((side - 4, side - 4), Image.Resampling.BICUBIC),
                        (at * side + 2, line * side + 2),
                    )
    sheet.save(path)


if __name__ == "__main__":
    run(main)
