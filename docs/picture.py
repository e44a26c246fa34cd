"""Draws ``picture.svg``: a row of which some columns are seen and others asked, one model, and its answers.

    python docs/picture.py

The pets are those of ``docs/pets.py``; nothing in the picture is anybody else's.
"""

from __future__ import annotations

import math
from pathlib import Path

from pets import shapes

HERE = Path(__file__).parent

WIDE, HIGH = 1000, 500
CELL, GAP, LEFT = 124, 14, 24
INK, SOFT, LINE = "#1f2533", "#667085", "#d5dae3"
MODEL = "#232c44"
COLOURS = {
    "photo": "#3f7ae0",
    "call": "#8a5bd6",
    "born": "#a3abb8",
    "notes": "#e0703f",
    "species": "#d64f86",
    "weight_kg": "#2f9d72",
    "gist": "#c79a1b",
}
COLUMNS = list(COLOURS)
SEEN, ASKED = ("photo", "call"), ("notes", "species", "weight_kg", "gist")
TOKENS = {"photo": 5, "call": 4, "notes": 5, "species": 1, "weight_kg": 1, "gist": 1}
FONT = "font-family=\"Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif\""
ROW, BAR, ANSWER = 66, 218, 356
"""Where the row, the model and the answers begin, from the top."""


def middle(column: str) -> float:
    """The middle of a column of the picture."""
    return LEFT + COLUMNS.index(column) * (CELL + GAP) + CELL / 2


def text(
    x: float, y: float, words: str, size: float = 15, fill: str = INK, weight: int = 400, anchor: str = "middle"
) -> str:
    """A line of text."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{fill}" font-weight="{weight}" text-anchor="{anchor}">'
        f"{words}</text>"
    )


def box(
    x: float,
    y: float,
    wide: float,
    high: float,
    fill: str = "#ffffff",
    line: str = LINE,
    more: str = "",
    round_: float = 10,
) -> str:
    """A rectangle with round corners."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" rx="{round_:g}" fill="{fill}" '
        f'stroke="{line}" {more}/>'
    )


def pet(x: float, y: float, side: float, key: str, *kind: str, size: float = 1.0) -> str:
    """A pet in a square."""
    parts = []
    for shape, n, fill in shapes(*kind, size=size):
        if shape == "ellipse":
            a, b, c, d = n
            parts.append(
                f'<ellipse cx="{(a + c) / 2:.4g}" cy="{(b + d) / 2:.4g}" rx="{(c - a) / 2:.4g}" '
                f'ry="{(d - b) / 2:.4g}" fill="{fill}"/>'
            )
        else:
            parts.append(f'<polygon points="{" ".join(f"{v:.4g}" for v in n)}" fill="{fill}"/>')
    return (
        f'<clipPath id="{key}"><rect width="100" height="100" rx="9"/></clipPath>'
        f'<g transform="translate({x:g} {y:g}) scale({side / 100:g})" clip-path="url(#{key})">{"".join(parts)}</g>'
    )


def wave(x: float, y: float, wide: float, high: float, fill: str) -> str:
    """A sound as bars."""
    bars, count = [], 21
    for i in range(count):
        loud = abs(math.sin(i * 1.9)) * math.sin(math.pi * (i + 0.5) / count) ** 0.7
        tall = max(3, high * loud)
        bars.append(
            f'<rect x="{x + i * wide / count:.1f}" y="{y - tall / 2:.1f}" width="{wide / count * 0.6:.1f}" '
            f'height="{tall:.1f}" '
            f'rx="1.5" fill="{fill}"/>'
        )
    return "".join(bars)


def place(column: str, number: int) -> float:
    """The middle of a token of a column."""
    return middle(column) + (number - (TOKENS[column] - 1) / 2) * 19


def row() -> list[str]:
    """The cells of the row."""
    parts = []
    for column in COLUMNS:
        x = middle(column) - CELL / 2
        dashed = column not in SEEN
        parts.append(
            box(
                x,
                ROW,
                CELL,
                96,
                "#ffffff" if not dashed else "#fafbfc",
                COLOURS[column] if column != "born" else LINE,
                'stroke-width="1.8"' + (' stroke-dasharray="5 4"' if dashed else ""),
            )
        )
        name = "+ gist" if column == "gist" else column
        parts.append(text(middle(column), ROW - 9, name, 14, COLOURS[column] if column != "born" else SOFT, 600))
        if column in ASKED:
            parts.append(text(middle(column), ROW + 62, "?", 38, COLOURS[column], 600))
    parts.append(pet(middle("photo") - 40, ROW + 8, 80, "seen", "cat", "ginger", "sofa"))
    parts.append(wave(middle("call") - 46, ROW + 48, 92, 56, COLOURS["call"]))
    parts.append(text(middle("born"), ROW + 46, "missing:", 13, SOFT))
    parts.append(text(middle("born"), ROW + 63, "simply not there", 13, SOFT))
    for words, first, last in (("seen", "photo", "call"), ("asked", "notes", "gist")):
        a, b, y = middle(first) - CELL / 2, middle(last) + CELL / 2, 34
        half = (a + b) / 2
        parts.append(
            f'<path d="M{a:g} {y} v-7 H{half - 34:g} M{half + 34:g} {y - 7} H{b:g} v7" fill="none" stroke="{SOFT}" '
            f'stroke-width="1.4"/>'
        )
        parts.append(text(half, y - 2, words, 16, INK, 700))
    return parts


def model() -> list[str]:
    """The model: tokens, and who hears whom."""
    parts = [box(LEFT - 8, BAR, WIDE - 2 * LEFT + 16, 92, MODEL, MODEL, round_=16)]
    high = BAR + 62
    for asked in ASKED:
        for seen in SEEN:
            for number in range(TOKENS[seen]):
                a, b = place(seen, number), middle(asked)
                parts.append(
                    f'<path d="M{a:.1f} {high - 8} C{a + 60:.1f} {BAR + 2} {b - 60:.1f} {BAR + 2} {b:.1f} {high - 8}" '
                    f'fill="none" '
                    f'stroke="{COLOURS[asked]}" stroke-opacity="0.42" stroke-width="1.1"/>'
                )
    for column, count in TOKENS.items():
        for number in range(count):
            solid = column in SEEN
            parts.append(
                box(
                    place(column, number) - 7,
                    high - 7,
                    14,
                    14,
                    COLOURS[column] if solid else MODEL,
                    COLOURS[column],
                    'stroke-width="2"',
                    3.5,
                )
            )
    parts.append(text(middle("born"), high + 6, "one model", 16, "#ffffff", 700))
    for column in (*SEEN, *ASKED):
        parts.append(arrow(middle(column), ROW + 100, BAR - 4))
    parts += [arrow(middle(column), BAR + 96, ANSWER - 5) for column in ASKED]
    return parts


def arrow(x: float, top: float, end: float) -> str:
    """An arrow downwards."""
    return (
        f'<path d="M{x:g} {top:g} V{end - 5:g}" stroke="{SOFT}" stroke-width="1.6"/>'
        f'<path d="M{x - 5:g} {end - 7:g} L{x + 5:g} {end - 7:g} L{x:g} {end:g} Z" fill="{SOFT}"/>'
    )


def answers() -> list[str]:
    """What the model says of each asked column."""
    parts = []
    for column in ASKED:
        parts.append(
            box(middle(column) - CELL / 2, ANSWER, CELL, 104, "#ffffff", COLOURS[column], 'stroke-width="1.8"')
        )
    for i, words in enumerate(("a big ginger", "cat on the", "sofa")):
        parts.append(text(middle("notes"), ANSWER + 38 + 21 * i, words, 15.5))
    left = middle("species") - 50
    for i, (name, share) in enumerate((("cat", 0.96), ("rabbit", 0.09), ("dog", 0.05), ("bird", 0.03))):
        y = ANSWER + 24 + 21 * i
        parts.append(text(left, y + 4.5, name, 13, INK if not i else SOFT, 700 if not i else 400, "start"))
        parts.append(
            box(left + 44, y - 5, max(4, 56 * share), 10, COLOURS["species"] if not i else "#eac6d5", "none", round_=3)
        )
    x = middle("weight_kg")
    parts.append(text(x, ANSWER + 46, "5.4 kg", 21, INK, 700))
    parts.append(
        f'<path d="M{x - 44:g} {ANSWER + 68} H{x + 44:g} M{x - 44:g} {ANSWER + 62} v12 M{x + 44:g} {ANSWER + 62} v12" '
        f'stroke="{COLOURS["weight_kg"]}" stroke-width="2" fill="none"/><circle cx="{x - 4:g}" cy="{ANSWER + 68}" '
        f'r="5" '
        f'fill="{COLOURS["weight_kg"]}"/>'
    )
    parts.append(text(x - 42, ANSWER + 92, "4.7", 12, SOFT))
    parts.append(text(x + 42, ANSWER + 92, "6.2", 12, SOFT))
    x = middle("gist")
    parts.append(text(x, ANSWER + 22, "nearest rows", 13, SOFT))
    near = (("cat", "ginger", "window"), ("cat", "brown", "sofa"), ("cat", "ginger", "garden"))
    for i, kind in enumerate(near):
        parts.append(pet(x - 58 + 39.5 * i, ANSWER + 36, 37, f"near{i}", *kind))
    words = ("embed, search, predict, generate:", "each is a choice of what is seen", "and what is asked.")
    parts += [
        text(LEFT + 2, ANSWER + 46 + 22 * i, line, 16, INK, 600 if not i else 400, "start")
        for i, line in enumerate(words)
    ]
    parts += [
        text(x, ANSWER + 124, words, 13, SOFT)
        for x, words in (
            (middle("notes"), "a caption"),
            (middle("species"), "a class"),
            (middle("weight_kg"), "a value, an interval"),
            (middle("gist"), "a vector"),
        )
    ]
    return parts


def svg() -> str:
    """The whole picture."""
    inside = [box(0.5, 0.5, WIDE - 1, HIGH - 1, "#ffffff", "#e6e9ef", round_=14), *row(), *model(), *answers()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" role="img" {FONT}>'
        "<title>Some columns of a row are seen, others are asked; one model answers them all.</title>\n"
        + "\n".join(inside)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    (HERE / "picture.svg").write_text(svg(), encoding="utf-8")
