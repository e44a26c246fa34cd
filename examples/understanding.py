"""What does learning to draw cost? The emoji demo with and without its pictures being learned to be drawn, at equal
steps of understanding.

    python examples/understanding.py --epochs 6 --seed 0

All runs read the same rows in the same order and ask the same questions of them; two have a further question in each
step, to draw the picture, which teaches only what draws it in the one and everything in the other. What the demo
measures stands beside each other, on known concepts in a style not seen for them and on new concepts. A run in --out is
used again.
"""

from __future__ import annotations

from _compare import arguments, build, fit, known, run, show

from sensorium import Table
from sensorium.cli.demo import SETTINGS, SPLITS, measure

WAYS = {
    "no picture is drawn": ("without", ""),
    "pictures are drawn": ("with", "image"),
    "pictures are drawn and teach everything": ("shared", "image"),
}


def main() -> None:
    given = arguments(__doc__, minutes=5.0)
    given.epochs = given.epochs or 6.0  # minutes would give them different numbers of steps
    table = (
        Table.open(given.out / "emoji.parquet")
        if given.out and (given.out / "emoji.parquet").is_file()
        else build("emoji", given)
    )
    for words, (name, drawn) in WAYS.items():
        folder, apart = f"{name}-{given.seed}", ["questions.detach_generation=false"] * (name == "shared")
        model = known(given.out / folder) or fit(
            table, "", given, folder, [*SETTINGS, "baselines.share=0", f"questions.generate={drawn}", *apart]
        )
        for split, what in SPLITS.items():
            show(f"{words}; {what}", model, measure(model, table, split))


if __name__ == "__main__":
    run(main)
