"""Pets: a small table with a drawing, a note, a call, a category, a number and a date in each row, all made here.

    python docs/pets.py pets.parquet [ROWS]

What a row's cells have in common is the pet: its species shows in its drawing, its note, its call and its weight; its
coat, its size and where it is in the drawing and the note; its age in the eyes of the drawing and in ``born``. About
one cell in twelve is missing. The same number of rows gives the same table on every machine.
"""

from __future__ import annotations

import datetime
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from PIL import Image, ImageDraw

SPECIES = {"cat": (4.5, 700.0), "dog": (14.0, 320.0), "rabbit": (2.2, 1300.0), "bird": (0.09, 2600.0)}
"""For each its usual weight in kg and the pitch of its call in Hz."""
COATS = {"ginger": "#e8893a", "grey": "#8d939e", "brown": "#96643c", "black": "#3b3942", "white": "#f4efe6"}
PLACES = {"sofa": "#c8d6ef", "garden": "#cfe8c4", "basket": "#f0dcba", "window": "#d9eef4"}
SIZES = {"small": 0.8, "big": 1.1}
RATE = 8000
MISSING = 1 / 12

Shape = tuple[str, list[float], str]
"""("ellipse", [left, top, right, bottom], fill) or ("polygon", [x, y, x, y ...], fill), in a square from 0 to 100."""


def shapes(species: str, coat: str, place: str, size: float = 1.0, young: bool = False, dx: float = 0.0) -> list[Shape]:
    """A pet's face as a list of plain shapes, from the back to the front."""
    fur, dark, pink = COATS[coat], "#25232b", "#e9a6a6"
    inner = "#5d5a66" if coat == "black" else pink
    found: list[Shape] = []

    def put(kind: str, *numbers: float, fill: str = fur) -> None:
        """Scale around the middle of the face and move sideways."""
        middle = (50 + dx, 56)
        found.append((kind, [middle[i % 2] + size * (n - (50, 56)[i % 2]) for i, n in enumerate(numbers)], fill))

    found.append(("polygon", [0, 0, 100, 0, 100, 100, 0, 100], PLACES[place]))
    found += scene(place)
    eye = 6.5 if young else 4.5
    match species:
        case "cat":
            put("polygon", 22, 50, 24, 14, 50, 34)
            put("polygon", 78, 50, 76, 14, 50, 34)
            put("polygon", 28, 40, 28, 22, 42, 34, fill=inner)
            put("polygon", 72, 40, 72, 22, 58, 34, fill=inner)
            put("ellipse", 20, 28, 80, 86)
            put("polygon", 45, 64, 55, 64, 50, 70, fill=pink)
        case "dog":
            put("ellipse", 22, 24, 78, 88)
            ear = "#5f4029" if coat in ("brown", "ginger") else "#55525e"
            put("ellipse", 10, 26, 32, 74, fill=ear)
            put("ellipse", 68, 26, 90, 74, fill=ear)
            put("ellipse", 34, 56, 66, 86, fill="#fbf6ee")
            put("ellipse", 43, 60, 57, 70, fill=dark)
        case "rabbit":
            put("ellipse", 28, 2, 46, 52)
            put("ellipse", 54, 2, 72, 52)
            put("ellipse", 32, 8, 42, 46, fill=inner)
            put("ellipse", 58, 8, 68, 46, fill=inner)
            put("ellipse", 24, 36, 76, 88)
            put("ellipse", 46, 64, 54, 70, fill=pink)
            put("polygon", 45, 76, 55, 76, 54, 84, 46, 84, fill="#ffffff")
        case "bird":
            put("polygon", 42, 32, 50, 12, 58, 32)
            put("ellipse", 24, 28, 76, 88)
            put("ellipse", 34, 56, 66, 88, fill="#fbf1d8")
            put("polygon", 40, 58, 60, 58, 50, 74, fill="#f2b233")
    for x in (38, 62):
        put("ellipse", x - eye - 1, 50 - eye - 1, x + eye + 1, 50 + eye + 1, fill="#ffffff")
        put("ellipse", x - eye, 50 - eye, x + eye, 50 + eye, fill=dark)
        put("ellipse", x - eye / 2, 50 - eye * 0.7, x, 50 - eye * 0.2, fill="#ffffff")
    return found


def scene(place: str) -> list[Shape]:
    """What is behind the pet."""
    match place:
        case "sofa":
            return [
                ("ellipse", [-20, 58, 40, 130], "#6f8fcb"),
                ("ellipse", [60, 58, 120, 130], "#6f8fcb"),
                ("polygon", [0, 78, 100, 78, 100, 100, 0, 100], "#5578b8"),
            ]
        case "garden":
            return [("ellipse", [72, 6, 92, 26], "#f7d154"), ("polygon", [0, 74, 100, 70, 100, 100, 0, 100], "#7dbb63")]
        case "basket":
            return [("ellipse", [4, 62, 96, 120], "#a9743f"), ("ellipse", [12, 68, 88, 104], "#c9935a")]
        case _:
            return [
                ("polygon", [6, 6, 46, 6, 46, 60, 6, 60], "#ffffff"),
                ("polygon", [54, 6, 94, 6, 94, 60, 54, 60], "#ffffff"),
                ("polygon", [0, 82, 100, 82, 100, 100, 0, 100], "#b8a48c"),
            ]


def drawing(found: list[Shape], side: int = 64) -> bytes:
    """Shapes as a PNG, drawn at four times its size and made smaller, so that edges are smooth."""
    scale = 4 * side / 100
    image = Image.new("RGB", (4 * side, 4 * side))
    pen = ImageDraw.Draw(image)
    for kind, numbers, fill in found:
        (pen.ellipse if kind == "ellipse" else pen.polygon)([n * scale for n in numbers], fill=fill)
    out = io.BytesIO()
    image.resize((side, side), Image.Resampling.LANCZOS).save(out, "PNG")
    return out.getvalue()


def call(species: str, size: float, rng: np.random.Generator) -> bytes:
    """A pet's call as a WAV: a cat's glides, a dog barks twice, a rabbit squeaks once, a bird chirps."""
    hertz = SPECIES[species][1] / size * float(rng.uniform(0.9, 1.1))
    bursts, seconds, glide = {
        "cat": (1, 0.6, -0.4),
        "dog": (2, 0.16, -0.5),
        "rabbit": (1, 0.12, 0.2),
        "bird": (4, 0.09, 0.5),
    }[species]
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * hertz * (time + glide * time**2 / (2 * seconds))
    burst = (np.sin(phase) + 0.4 * np.sin(2 * phase)) * np.sin(np.pi * time / seconds)
    wave = np.concatenate([np.concatenate([burst, np.zeros(RATE // 16)])] * bursts)
    out = io.BytesIO()
    soundfile.write(out, 0.5 * wave + 0.01 * rng.normal(size=len(wave)), RATE, format="WAV", subtype="PCM_16")
    return out.getvalue()


def pets(rows: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of the table."""
    rng = np.random.default_rng(seed)
    for number in range(rows):
        species, coat, place, size = (str(rng.choice(list(choices))) for choices in (SPECIES, COATS, PLACES, SIZES))
        born = datetime.date(2014, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 365 * 11)))
        young = born.year >= 2022
        weight = SPECIES[species][0] * SIZES[size] ** 2 * (0.7 if young else 1.0) * float(rng.lognormal(0, 0.08))
        where = {"sofa": "on the sofa", "garden": "in the garden", "basket": "in a basket", "window": "by the window"}[
            place
        ]
        row = {
            "photo": drawing(
                shapes(
                    species, coat, place, SIZES[size] * float(rng.uniform(0.95, 1.05)), young, float(rng.normal(0, 5))
                )
            ),
            "notes": f"a {'young ' if young else ''}{size} {coat} {species} {where}",
            "species": species,
            "weight_kg": round(weight, 3),
            "born": born,
            "call": call(species, SIZES[size], rng),
        }
        gone = rng.random(len(row)) < MISSING
        yield {
            "id": f"pet-{number:05}",
            **{key: None if lost else cell for (key, cell), lost in zip(row.items(), gone, strict=True)},
        }


def write(path: Path | str, rows: int = 1200) -> None:
    """Write the table as Parquet."""
    pq.write_table(pa.Table.from_pylist(list(pets(rows))), path)


if __name__ == "__main__":
    write(sys.argv[1] if len(sys.argv) > 1 else "pets.parquet", int(sys.argv[2]) if len(sys.argv) > 2 else 1200)
