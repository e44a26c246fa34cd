"""Draws ``architecture.svg`` from the imports, and sets the line numbers of the links in ``architecture.md``.

python docs/architecture.py
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE, PICTURE = ROOT / "docs" / "architecture.md", ROOT / "docs" / "architecture.svg"
NAMES = ("Faces", "Verbs", "Learning and asking", "Network and data", "Parts", "Building blocks", "Foundation")
"""The seven layers, from the top; their folders stand in pyproject.toml."""
WIDTH, HEIGHT, GAP, LEFT = 1000, 52, 26, 150
LINK = re.compile(r"\[`([\w.]+)`\]\(\.\./(sensorium/[\w/]+\.py)#L(\d+)\)")


def layers() -> list[list[str]]:
    """Folders of each layer, from the top, as the contract of imports has them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contract = tomllib.load(file)["tool"]["importlinter"]["contracts"][0]
    return [[name.strip().removeprefix("sensorium.") for name in line.split(":")] for line in contract["layers"]]


def folder_imports() -> Counter[tuple[str, str]]:
    """How often the files of one folder import another folder: (who, whom) to a count."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in (ROOT / "sensorium").rglob("*.py"):
        own = path.relative_to(ROOT / "sensorium").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sensorium."):
                other = node.module.split(".")[1]
                if other != own:
                    counts[own, other] += 1
    return counts


def picture() -> str:
    """The picture as SVG: a row for each layer, a box for each folder, a line for what imports what most."""
    rows, counts, centre, boxes, lines = layers(), folder_imports(), {}, [], []
    for number, (name, folders) in enumerate(zip(NAMES, rows, strict=True)):
        top, wide = 10 + number * (HEIGHT + GAP), (WIDTH - LEFT) / len(folders)
        boxes.append(f'<text class="layer" x="8" y="{top + 31}">{number + 1}. {name}</text>')
        for place, folder in enumerate(folders):
            left = LEFT + place * wide + 4
            centre[folder] = (left + wide / 2 - 4, top)
            boxes.append(
                f'<rect x="{left:.0f}" y="{top}" width="{wide - 8:.0f}" height="{HEIGHT}" rx="6"/>'
                f'<text x="{centre[folder][0]:.0f}" y="{top + 31}">{folder}</text>'
            )
    for (who, whom), count in sorted(counts.items()):
        if who in centre and whom in centre and count >= 4 and centre[who][1] < centre[whom][1]:
            (x1, y1), (x2, y2) = centre[who], centre[whom]
            lines.append(
                f'<line x1="{x1:.0f}" y1="{y1 + HEIGHT}" x2="{x2:.0f}" y2="{y2}" '
                f'stroke-width="{3 if count >= 20 else 1}"/>'
            )
    style = (
        "text{font:14px sans-serif;text-anchor:middle;fill:#1a1a1a}"
        ".layer{text-anchor:start;font-weight:600;font-size:13px}"
        "rect{fill:#eef3fb;stroke:#6b8cc4}line{stroke:#6b8cc4;opacity:.35}"
    )
    height = 20 + len(rows) * (HEIGHT + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Folders of Sensorium in seven layers, and what imports what">\n<style>{style}</style>\n'
        + "\n".join([*lines, *boxes])
        + "\n</svg>\n"
    )


def line_of(path: str, name: str) -> int:
    """The line at which a file defines a function, a class, or a method (``Class.method``).

    Raises:
        KeyError: it defines no such thing.
    """
    nodes: list[ast.AST] = [ast.parse((ROOT / path).read_text(encoding="utf-8"))]
    for part in name.split("."):
        nodes = [
            child
            for node in nodes
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and child.name == part
        ]
    if not nodes:
        raise KeyError(f"{path} defines no {name}")
    return nodes[0].lineno


def with_lines(text: str) -> str:
    """The page with the line numbers that its links have now."""
    return LINK.sub(lambda m: f"[`{m[1]}`](../{m[2]}#L{line_of(m[2], m[1])})", text)


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    PAGE.write_text(with_lines(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
