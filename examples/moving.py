"""Do drawn clips show what was asked? Clips drawn from sentences, and a judge that never met the model that drew them.

    python examples/moving.py --minutes 30

The clips are of `sensorium table motions`: what is in each is known exactly. The judge is a second model, of other
sizes and another seed, trained on the same training rows to match sentences and clips alone. Asked are known things in
known motions whose pair is new, and things that are new; beside the drawn clips stand the real ones, which are the
ceiling. Where the ink of a clip is, and how much of it there is, says with no judge whether it moves as asked. A run in
--out is used again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _compare import arguments, build, fit, known, run, show
from PIL import Image

from sensorium import Model, Table
from sensorium.datasets.motions import DIRECTIONS
from sensorium.inference.trained import keep_split

GALLERY, SAMPLES, SHEET = 100, 2, 8
"""Sentences among which the judge seeks the right one, clips drawn for each, and rows of the sheet that shows some."""
OTHERS = ("sound", "thing", "motion", "other_thing", "other_motion")
CLIPS = ("column.clip.size=32", *(f"column.{column}.kind=out" for column in OTHERS), "baselines.share=0")
DRAWING = (
    "questions.generate=clip",
    "questions.generate_share=1",
    "questions.trunk_share=0.1",
    "questions.detach_generation=false",
    "questions.plans=1",
    "train.batch=48",
    "generator.flow.prefix_share=0",
    "train.ema_decay=0.998",
    "train.weight_decay=0.1",
)
JUDGING = ("objectives=match", "network.width=144", "network.gist=144", "column.clip.move=0.1", "train.batch=96")
MORE = {"grows": 1, "appears": 1, "shrinks": -1, "fades out": -1}
"""Motions after which there is more ink, or less."""


def main() -> None:
    given = arguments(
        __doc__, minutes=30.0, choices={"generator": ("flow", "vae", "gan", "codes"), "steps": ("20", "10", "50")}
    )
    given.rows = given.rows or 3000
    table = (
        Table.open(given.out / "motions.parquet")
        if given.out and (given.out / "motions.parquet").is_file()
        else build("motions", given)
    )
    drawer = known(given.out / "run") or fit(
        table, "", given, "run", [*CLIPS, *DRAWING, f"questions.generator={given.generator}"]
    )
    other = argparse.Namespace(**vars(given) | {"seed": given.seed + 1, "minutes": given.minutes / 3})
    judge = known(given.out / "judge") or fit(table, "", other, "judge", [*CLIPS, *JUDGING])
    how = {"steps": int(given.steps)} if given.generator == "flow" else {}
    for split, words in (
        ("test_new_pair", "New pairs of a known thing and a known motion"),
        ("test_new_thing", "New things"),
    ):
        part = keep_split(table, split, "split")
        everything = part.take(np.arange(part.rows), ["sentence", "thing", "motion", "other_thing"]).to_pylist()
        sentences = [row["sentence"] for row in everything]
        alone = [
            n
            for n, row in enumerate(everything)
            if row["other_thing"] is None and sentences.index(row["sentence"]) == n
        ][:GALLERY]
        show(
            f"{words}: {len(alone)} sentences",
            drawer,
            judged(drawer, judge, part.select(np.array(alone)), given.out / f"{split}.png", how),
        )


def judged(drawer: Model, judge: Model, part: Table, sheet: Path, how: dict[str, int]) -> dict[str, float]:
    """What the judge and the ink say of clips drawn from sentences, and of the real ones."""
    asked = part.take(np.arange(part.rows), ["sentence", "motion"])
    drawn = drawer.generate(asked, "clip", seen=["sentence"], samples=SAMPLES, **how)
    real = list(part.cells(part.take(np.arange(part.rows), ["clip"]), "clip", True))
    sentences = judge.embed([{"sentence": sentence} for sentence in asked.column("sentence").to_pylist()], ["sentence"])
    motions, right, read = (
        asked.column("motion").to_pylist(),
        np.arange(part.rows),
        drawer.network.modalities["clip"].read,
    )
    each = [[cells[number] for cells in drawn] for number in range(SAMPLES)]
    contact(sheet, [read(cell) for pair in zip(real[:SHEET], each[0][:SHEET], strict=True) for cell in pair])

    def found(cells: list[bytes]) -> np.ndarray:
        return (judge.embed([{"clip": cell} for cell in cells], ["clip"]) @ sentences.T).argmax(1)

    def as_asked(cells: list[bytes]) -> list[bool]:
        return [
            moves(read(cell), motion)
            for cell, motion in zip(cells, motions, strict=True)
            if motion in DIRECTIONS or motion in MORE
        ]

    return {
        "ours": float(np.mean([found(cells) == right for cells in each])),
        "real clips": float((found(real) == right).mean()),
        "chance": 1 / part.rows,
        "right motion": float(
            np.mean([[motions[n] == motion for n, motion in zip(found(cells), motions, strict=True)] for cells in each])
        ),
        "real clips, right motion": float(
            np.mean([motions[n] == motion for n, motion in zip(found(real), motions, strict=True)])
        ),
        "ink goes as asked": float(np.mean([as_asked(cells) for cells in each])),
        "real clips, ink": float(np.mean(as_asked(real))),
    }


def moves(frames: np.ndarray, motion: str) -> bool:
    """Whether the ink of a clip, uint8 [frames, h, w, 3], goes the asked way more than any other, or becomes more or
    less by a fifth.
    """
    first, last = (255.0 - np.median(part.mean(-1), axis=0) for part in (frames[:2], frames[-2:]))
    if motion in MORE:
        return bool(last.sum() > 1.2 * first.sum() if MORE[motion] > 0 else first.sum() > 1.2 * last.sum())
    gone, way = middle(last) - middle(first), np.array(DIRECTIONS[motion])
    axis = int(np.abs(way).argmax())
    return bool(np.abs(gone).argmax() == axis and np.sign(gone[axis]) == way[axis] and np.abs(gone[axis]) > 1)


def middle(ink: np.ndarray) -> np.ndarray:
    """Where the ink [h, w] is in the mean, x and y in pixels."""
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    return np.array([(ink * x).sum(), (ink * y).sum()]) / max(ink.sum(), 1e-6)


def contact(path: Path, clips: list[np.ndarray]) -> None:
    """A sheet of clips, their frames side by side: a real one, and below it the drawn one."""
    side = clips[0].shape[1]
    sheet = Image.new("RGB", ((side + 2) * len(clips[0]), (side + 2) * len(clips)), "white")
    for line, frames in enumerate(clips):
        for at, frame in enumerate(frames):
            sheet.paste(Image.fromarray(frame), (at * (side + 2), line * (side + 2)))
    sheet.save(path)


if __name__ == "__main__":
    run(main)
