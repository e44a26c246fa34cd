"""Fuzzing: damaged files of every kind are read, or turned away in words; nothing else may happen.

Small files are made, bits of them changed, and each is opened as a table, or as a cell of one, and read to its end.
That happens in child processes which have little memory more than they begin with, and ten seconds a file. What ends in
any other way than by cells, ``UserError`` or ``BadCell`` is kept in a folder, and the exit status is 1.

    python tests/fuzz.py --minutes 10 --seed 7 --only png,csv
    python tests/fuzz.py KEPT/png-7-1234.png     reads kept files again
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import dataclasses
import faulthandler
import gzip
import io
import json
import lzma
import os
import random
import re
import secrets
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 10.0
"""Wall time of one file."""
MEMORY = 1 << 30
"""Bytes that a child may take over what it has once it has read a whole file of each kind."""
LIVES = 3000
"""Files after which a child is replaced, so that what leaks can't add up."""
SAME = 3
"""Inputs that are kept of findings that look the same."""
LARGEST = 1 << 20
"""Bytes of an input; splices don't grow beyond."""

Made = list[tuple[str, bytes]]
"""Whole files of a kind: the ending of each, and its bytes."""


# --- whole files ------------------------------------------------------------------------------------------------------


def rows_() -> list[dict[str, Any]]:
    return [
        {
            "text": f'row {i}, says "é" and ü',
            "whole": i * 7 - 3,
            "real": i / 8,
            "truth": i % 2 == 0,
            "day": f"2024-0{1 + i % 9}-11",
            "money": f"€{i},{100 + i}.50",
            "kind": "ab"[i % 2],
            "series": [i / 2, 1.0, -2.5],
            "none": None,
        }
        for i in range(12)
    ]


def arrow() -> Any:
    import datetime

    import pyarrow as pa

    rows = rows_()
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["kind"] = pa.array(columns["kind"]).dictionary_encode()
    columns["inside"] = [{"a": i, "b": [{"c": str(i)}]} for i in range(12)]
    columns["map"] = pa.array([[("a", i)] for i in range(12)], pa.map_(pa.string(), pa.int64()))
    columns["lasts"] = pa.array([i * 1000 for i in range(12)], pa.duration("ms"))
    columns["when"] = pa.array(
        [datetime.datetime(2024, 1, 1, i) for i in range(12)], pa.timestamp("ns", "Europe/Berlin")
    )
    columns["cost"] = pa.array([i for i in range(12)], pa.int64()).cast(pa.decimal128(20))
    columns["view"] = pa.array([f"long enough to lie outside {i}" for i in range(12)], pa.string_view())
    columns["many"] = pa.array([[[1.0, 2.0]] * i for i in range(12)])
    columns["raw"] = [bytes([i]) * i for i in range(12)]
    return pa.table(columns)


def image(kind: str, size: int = 12, mode: str = "RGB", **how: Any) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    picture = Image.effect_mandelbrot((size, size), (-2, -1, 1, 1), 20).convert(mode)
    picture.save(out, kind, **how)
    return out.getvalue()


def moving(kind: str) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    frames = [Image.linear_gradient("L").resize((16, 16)).rotate(40 * i).convert("RGB") for i in range(5)]
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=80, loop=0)
    return out.getvalue()


def sound(kind: str, part: str | None = None) -> bytes:
    import numpy as np
    import soundfile

    out = io.BytesIO()
    wave = 0.4 * np.sin(np.arange(2400)[:, None] * [0.2, 0.31])
    soundfile.write(out, wave, 8000, format=kind, subtype=part)
    return out.getvalue()


def film(kind: str, codec: str) -> bytes:
    import av
    import numpy as np

    out = io.BytesIO()
    with av.open(out, "w", format=kind) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(5):
            pixels = np.full((16, 32, 3), 40 * number, np.uint8)
            pixels[:8, :8] = 0
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return out.getvalue()


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, how)
    return out.getvalue()


def csv_(sign: str = ",", end: str = "\n") -> str:
    rows = rows_()
    quoted = [
        [
            json.dumps(cell) if isinstance(cell, list | bool) else "" if cell is None else str(cell)
            for cell in row.values()
        ]
        for row in rows
    ]
    lines = [list(rows[0]), *quoted]
    return "".join(
        sign.join('"' + cell.replace('"', '""') + '"' if re.search(r'[",;\t]', cell) else cell for cell in line) + end
        for line in lines
    )


def many_csv() -> Made:
    import pyarrow as pa

    text = csv_()
    return [
        (".csv", text.encode()),
        (".csv", csv_(";", "\r\n").encode("cp1252")),
        (".tsv", csv_("\t", "\r").encode("utf-16")),
        (".csv", ("sep=;\n" + csv_(";")).encode("utf-8-sig")),
        (".csv", text.encode("utf-32")),
        (".csv.gz", gzip.compress(text.encode(), mtime=0)),
        (".csv", bz2.compress(text.encode())),
        (".csv.xz", lzma.compress(text.encode())),
        (".csv", pa.compress(text.encode(), "zstd", asbytes=True)),
        (".csv", "名前,値\n赤い花,1\n青い空,2\n".encode("cp932")),
        (".csv", b"a,b\n1,2\n"),
    ]


def many_json() -> Made:
    rows = rows_()
    return [
        (".json", json.dumps(rows).encode()),
        (".json", json.dumps({"about": 1, "rows": rows}, indent=1).encode()),
        (".json", "\n".join(json.dumps(row, indent=2) for row in rows).encode()),
        (".json", json.dumps(rows, ensure_ascii=False).encode("utf-16")),
    ]


def many_lines() -> Made:
    rows = rows_()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return [
        (".jsonl", text.encode()),
        (".jsonl", text.replace("\n", "\r\n").encode("utf-8-sig")),
        (".jsonl.gz", gzip.compress(text.encode(), mtime=0)),
        (".jsonl", "".join(json.dumps({"a": {"b": {"c": i}}, f"k{i}": [[i], None]}) + "\n" for i in range(9)).encode()),
    ]


def many_parquet() -> Made:
    import pyarrow.parquet as pq

    made, table = [], arrow()
    for how in (
        {},
        {"compression": "zstd", "row_group_size": 5, "data_page_version": "2.0"},
        {"compression": "none", "use_dictionary": False},
        {"compression": "gzip", "write_page_checksum": True, "write_page_index": True},
        {"compression": "none", "column_encoding": "DELTA_BYTE_ARRAY", "use_dictionary": False},
    ):
        out = io.BytesIO()
        some = table.select(["text"]) if "column_encoding" in how else table
        pq.write_table(some, out, **how)
        made.append((".parquet", out.getvalue()))
    return made


def many_arrow() -> Made:
    import pyarrow as pa

    made, table = [], arrow()
    for writer in (pa.ipc.new_file, pa.ipc.new_stream):
        for codec in (None, "zstd", "lz4"):
            out = io.BytesIO()
            with writer(out, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as file:
                file.write_table(table, max_chunksize=5)
            made.append((".arrow", out.getvalue()))
    return made


def many_tar() -> Made:
    import numpy as np

    out, array = io.BytesIO(), io.BytesIO()
    np.save(array, np.ones((2, 3), np.float32))
    members = [
        ("a/1.png", image("PNG")),
        ("a/1.json", b'{"year": 2001, "tags": ["x"]}'),
        ("a/1.cls", b"7\n"),
        ("a/2.txt", "né".encode()),
        ("a/2.npy", array.getvalue()),
        ("3.wav", sound("WAV")),
        ("3.cls", b"8"),
    ]
    with tarfile.open(fileobj=out, mode="w") as shard:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("4.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "a/2.txt"
        shard.addfile(link)
    return [
        (".tar", out.getvalue()),
        (".tar.gz", gzip.compress(out.getvalue(), mtime=0)),
        (".tar", lzma.compress(out.getvalue())),
    ]


def many_npy() -> Made:
    import numpy as np

    made = []
    both = np.array([(1, 2.5, b"ab"), (3, 4.5, b"cd")], [("a", "<i4"), ("b", ">f8"), ("c", "S2")])
    for array in (
        np.arange(12.0).reshape(4, 3),
        np.arange(5, dtype=">i2"),
        both,
        np.asfortranarray(np.ones((3, 4, 2), np.uint8)),
        np.array(["x", "yz"]),
    ):
        out = io.BytesIO()
        np.save(out, array)
        made.append((".npy", out.getvalue()))
    out = io.BytesIO()
    np.savez_compressed(out, a=np.arange(4), b=np.ones((4, 2)))
    return [*made, (".npz", out.getvalue())]


def many_xlsx() -> Made:
    import openpyxl

    out, book = io.BytesIO(), openpyxl.Workbook()
    rows = rows_()
    for row in [
        list(rows[0]),
        *([str(cell) if isinstance(cell, list) else cell for cell in row.values()] for row in rows),
    ]:
        book.active.append(row)
    book.save(out)
    return [(".xlsx", out.getvalue())]


def many_sqlite() -> Made:
    import sqlite3

    base = sqlite3.connect(":memory:")
    base.execute("pragma page_size=512")
    base.execute("create table things (id integer primary key, name text, real real, raw blob)")
    base.executemany(
        "insert into things values (?, ?, ?, ?)",
        [(i, f"name {i}" * (1 + i % 3 * 40), i / 4, bytes([i]) * i) for i in range(30)],
    )
    base.commit()
    return [(".sqlite", base.serialize())]


def many_avro() -> Made:
    import fastavro

    fields = [
        {"name": "text", "type": ["null", "string"]},
        {"name": "whole", "type": "long"},
        {"name": "list", "type": {"type": "array", "items": "double"}},
    ]
    made = []
    for codec in ("null", "deflate"):
        out = io.BytesIO()
        rows = [{"text": f"é {i}" if i % 3 else None, "whole": i, "list": [i / 2] * (i % 4)} for i in range(20)]
        fastavro.writer(out, {"type": "record", "name": "r", "fields": fields}, rows, codec=codec, sync_interval=100)
        made.append((".avro", out.getvalue()))
    return made


def many_orc() -> Made:
    from pyarrow import orc

    out = io.BytesIO()
    orc.write_table(arrow().select(["text", "whole", "real", "series", "raw"]), out, compression="zlib")
    return [(".orc", out.getvalue())]


def many_zip() -> Made:
    return [
        (".zip", zipped({f"{kind}/{i}.png": image("PNG", 8) for kind in "ab" for i in range(2)})),
        (".zip", zipped({"t.csv": csv_().encode()})),
        (
            ".zip",
            zipped(
                {"metadata.jsonl": b'{"file_name": "0.png", "words": "x"}\n', "0.png": image("PNG", 8)},
                zipfile.ZIP_STORED,
            ),
        ),
    ]


def many_frames() -> Made:
    return [
        (".zip", zipped({f"{i}.png": image("PNG", 8 + i) for i in range(4)}, how))
        for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    ]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: whole ones.
        cell: what reads them where they are cells: "image", "audio", "video"; empty: they are tables.
        words: bytes that mean something in them.
    """

    make: Callable[[], Made]
    cell: str = ""
    words: tuple[bytes, ...] = ()


CSV = (
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b"NaN",
    b"1e999",
    b"[",
    b"[1,",
    b"]",
    b"-0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xe9",
    b"true",
    b"1,234",
    b"\x85",
    b"\xe2\x80\xa8",
)
JSON = (
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 40,
    b"\\ud800",
    b"\xff",
    b"\0",
    b'{"a":' * 30,
    b"[" * 2000,
    b"\xef\xbb\xbf",
    b'"text":1,',
)
KINDS = {
    "parquet": Kind(many_parquet),
    "arrow": Kind(many_arrow),
    "csv": Kind(many_csv, words=CSV),
    "json": Kind(many_json, words=JSON),
    "jsonl": Kind(many_lines, words=JSON),
    "tar": Kind(many_tar, words=(b"ustar", b"\0", b"L", b"x", b"1", b"2", b"77777777777", b"../", b".npy")),
    "png": Kind(
        lambda: [(".png", image("PNG")), (".png", image("PNG", mode="P")), (".png", image("PNG", mode="LA"))],
        "image",
        (b"IDAT", b"IEND", b"PLTE", b"tRNS", b"iCCP", b"acTL", b"fcTL", b"eXIf"),
    ),
    "jpeg": Kind(
        lambda: [
            (".jpg", image("JPEG")),
            (".jpg", image("JPEG", progressive=True)),
            (".jpg", image("JPEG", mode="CMYK")),
        ],
        "image",
        (b"\xff\xd8", b"\xff\xd9", b"\xff\xc0", b"\xff\xda", b"\xff\xe1", b"\xff\xdd"),
    ),
    "gif": Kind(lambda: [(".gif", image("GIF"))], "image", (b"\x2c", b"\x21\xf9\x04", b"\x3b")),
    "webp": Kind(
        lambda: [
            (".webp", image("WEBP")),
            (".webp", image("WEBP", lossless=True)),
            (".webp", image("WEBP", mode="RGBA")),
        ],
        "image",
        (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM"),
    ),
    "tiff": Kind(
        lambda: [(".tif", image("TIFF", compression=how)) for how in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg")],
        "image",
        (b"II*\0", b"MM\0*"),
    ),
    "wav": Kind(
        lambda: [(".wav", sound("WAV")), (".wav", sound("WAV", "FLOAT")), (".wav", sound("WAV", "MS_ADPCM"))],
        "audio",
        (b"fmt ", b"data", b"LIST"),
    ),
    "flac": Kind(lambda: [(".flac", sound("FLAC"))], "audio", (b"fLaC", b"\xff\xf8")),
    "ogg": Kind(lambda: [(".ogg", sound("OGG", "VORBIS")), (".ogg", sound("OGG", "OPUS"))], "audio", (b"OggS",)),
    "mp3": Kind(lambda: [(".mp3", sound("MP3"))], "audio", (b"\xff\xfb", b"ID3", b"Xing")),
    "anim": Kind(
        lambda: [(".gif", moving("GIF")), (".webp", moving("WEBP"))], "video", (b"\x2c", b"\x21\xf9\x04", b"ANMF")
    ),
    "mp4": Kind(
        lambda: [(".mp4", film("mp4", "mpeg4")), (".mov", film("mov", "mjpeg"))],
        "video",
        (b"moov", b"mdat", b"trak", b"stsz", b"stco", b"stts", b"elst", b"free"),
    ),
    "frames": Kind(many_frames, "video"),
    "xlsx": Kind(
        many_xlsx,
        words=(
            b"<",
            b">",
            b"&amp;",
            b'<c r="XFD1048576"><v>1</v></c>',
            b'r="A1"',
            b't="s"',
            b't="e"',
            b"<v>99999999</v>",
            b"<!DOCTYPE x [<!ENTITY y 'z'>]>",
        ),
    ),
    "npy": Kind(
        many_npy,
        words=(
            b"'descr'",
            b"'<f8'",
            b"'|O'",
            b"'shape'",
            b"(4, 3)",
            b"(99999999999,)",
            b"(-1,)",
            b"True",
            b"'<M8[D]'",
            b"'<U9'",
            b"'|V0'",
        ),
    ),
    "sqlite": Kind(many_sqlite),
    "zip": Kind(many_zip, words=(b"PK\1\2", b"PK\3\4", b"PK\5\6", b"../")),
    "avro": Kind(many_avro, words=(b'"null"', b'"long"', b"avro.codec", b"snappy")),
    "orc": Kind(many_orc),
}


# --- damage -----------------------------------------------------------------------------------------------------------

EXTREMES = [
    number.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for number in (
        0,
        1,
        1 << (8 * size - 1),
        (1 << (8 * size - 1)) - 1,
        (1 << 8 * size) - 1,
        (1 << 8 * size) - 2,
        1 << (4 * size),
    )
    for order in ("little", "big")
]


def place(rng: random.Random, data: bytearray) -> int:
    """A place in the bytes: anywhere, or near the beginning or the end, where most that matters stands."""
    where = rng.random()
    if where < 0.4:
        return min(int(rng.expovariate(1 / 40)), len(data))
    return max(0, len(data) - int(rng.expovariate(1 / 60))) if where < 0.55 else rng.randrange(len(data) + 1)


def flip(rng: random.Random, data: bytearray, kind: Kind, other: bytes) -> None:
    for _ in range(1 << rng.randrange(5)):
        at = min(place(rng, data), len(data) - 1)
        data[at] ^= 1 << rng.randrange(8)


def extreme(rng: random.Random, data: bytearray, kind: Kind, other: bytes) -> None:
    number, at = rng.choice(EXTREMES), place(rng, data)
    data[at : at + len(number)] = number


def noise(rng: random.Random, data: bytearray, kind: Kind, other: bytes) -> None:
    at, size = place(rng, data), 1 << rng.randrange(7)
    data[at : at + size * rng.randrange(2)] = rng.randbytes(size)


def cut(rng: random.Random, data: bytearray, kind: Kind, other: bytes) -> None:
    at = place(rng, data)
    del data[at : at + (1 << rng.randrange(10)) if rng.random() < 0.6 else len(data)]


def again(rng: random.Random, data: bytearray, kind: Kind, other: bytes) -> None:
    at, size = place(rng, data), 1 << rng.randrange(10)
    to = rng.choice([at, at + size, place(rng, data)])
    data[to:to] = data[at : at + size] * (1 if rng.random() < 0.8 else rng.randrange(2, 200))


def splice(rng: random.Random, data: bytearray, kind: Kind, other: bytes) -> None:
    at, size, start = place(rng, data), 1 << rng.randrange(10), rng.randrange(len(other))
    data[at : at + (size if rng.random() < 0.7 else 0)] = other[start : start + size]


def word(rng: random.Random, data: bytearray, kind: Kind, other: bytes) -> None:
    if kind.words:
        new, at = rng.choice(kind.words), place(rng, data)
        if rng.random() < 0.3 and (found := data.find(rng.choice(kind.words), rng.randrange(len(data)))) >= 0:
            at = found
        data[at : at + (len(new) if rng.random() < 0.5 else 0)] = new


DAMAGE = (flip, flip, extreme, extreme, noise, cut, again, splice, word, word)


def changed(rng: random.Random, data: bytes, kind: Kind, other: bytes) -> bytes:
    """Bytes with some of them changed."""
    new = bytearray(data)
    for _ in range(1 + min(int(rng.expovariate(0.7)), 9)):
        if not new:
            break
        rng.choice(DAMAGE)(rng, new, kind, other)
        del new[LARGEST:]
    return bytes(new)


def damaged(rng: random.Random, kind: Kind, whole: Made) -> tuple[str, bytes]:
    """A file with some bytes changed: anywhere, or within the packed parts of a container, whose sums then fit."""
    ending, data = rng.choice(whole)
    _, other = rng.choice(whole)
    if rng.random() < 0.6:
        with contextlib.suppress(Exception):  # what unpacks what was made here; else the bytes as they are
            if data[:2] == b"PK":
                return ending, inside_zip(rng, data, kind)
            if data[:2] == b"\x1f\x8b":
                return ending, gzip.compress(changed(rng, gzip.decompress(data), kind, gzip.decompress(data)), mtime=0)
            if data[:6] == b"\xfd7zXZ\0":
                return ending, lzma.compress(changed(rng, lzma.decompress(data), kind, lzma.decompress(data)))
            if data[:3] == b"BZh":
                return ending, bz2.compress(changed(rng, bz2.decompress(data), kind, bz2.decompress(data)))
    data = changed(rng, data, kind, other)
    if rng.random() < 0.7:
        with contextlib.suppress(Exception):  # sums that can't be found
            data = mended(data)
    return ending, data


def inside_zip(rng: random.Random, data: bytes, kind: Kind) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        how = archive.infolist()[0].compress_type
    for _ in range(1 + rng.randrange(2)):
        name = rng.choice(list(members))
        members[name] = changed(rng, members[name], kind, rng.choice(list(members.values())) or b"x")
    if rng.random() < 0.1:
        members.pop(rng.choice(list(members)))
    return zipped(members, how)


def mended(data: bytes) -> bytes:
    """The same with the sums right that stand in PNG and tar, without which a reader looks no further."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        new, at = bytearray(data), 8
        while at + 12 <= len(new):
            end = at + 8 + struct.unpack(">I", new[at : at + 4])[0]
            new[end : end + 4] = struct.pack(">I", zlib.crc32(new[at + 4 : end]))
            at = end + 4
        return bytes(new[: len(data)])
    if data[257:262] == b"ustar":
        new, at = bytearray(data), 0
        while at + 512 <= len(new):
            if new[at + 257 : at + 262] == b"ustar":
                total = sum(new[at : at + 148]) + 8 * 32 + sum(new[at + 156 : at + 512])
                new[at + 148 : at + 156] = b"%06o\0 " % total
            at += 512
        return bytes(new)
    return data


def case(seed: int, number: int, kinds: list[str], whole: dict[str, Made]) -> tuple[str, str, bytes]:
    """The input of a number: its kind, ending and bytes; the same whenever it is asked for."""
    name = kinds[(number + number // len(kinds)) % len(kinds)]  # so that each of several children comes by all of them
    rng = random.Random(f"{seed} {name} {number}")
    return name, *damaged(rng, KINDS[name], whole[name])


# --- read -------------------------------------------------------------------------------------------------------------


def read(name: str, path: Path) -> None:
    """Open one input and read all of it.

    Raises:
        UserError, BadCell: it can't be read, as a user would be told.
    """
    from sensorium.core.registry import find
    from sensorium.data.table import Table
    from sensorium.modalities import Modality

    cell = KINDS[name].cell
    if not cell:
        everything(Table.open(path))
        return
    data = path.read_bytes()
    everything(Table.open({"file": [data, {"bytes": data, "path": path.name}]}))
    find(Modality, cell)().read(data)  # whatever it was taken for above


def everything(table: Any) -> None:
    """Read a table in all ways: what its columns are, each cell by its column's modality, rows in another order."""
    import numpy as np

    from sensorium.core.errors import UserError
    from sensorium.data.columns import make_modalities
    from sensorium.data.hashes import row_hashes
    from sensorium.data.prepare import read_rows
    from sensorium.data.schema import infer

    rows = 0
    for first, batch in table.batches(5):
        assert first == rows, f"a batch begins at row {first} after {rows} rows"
        rows += batch.num_rows
        for name in table.columns:
            count = sum(1 for _ in table.cells(batch, name, False))
            assert count == batch.num_rows, f"{count} cells of {batch.num_rows} rows"
    assert rows == table.rows, f"{rows} of {table.rows} rows came"
    order = np.arange(min(table.rows, 50))[::-1]
    assert table.take(order).num_rows == len(order)
    row_hashes(table, table.columns)
    schema = infer(table)
    try:
        modalities = make_modalities(schema, {})
    except UserError:  # such as conversations, which need a language model
        modalities = {}
    count = sum(1 for _ in read_rows(table, modalities, table.good))
    assert not modalities or count == table.good.sum(), f"{count} of {table.good.sum()} rows were read"
    str(table.notes), str(table.found), str(table.bad_rows)


def bounded() -> None:
    """Bound this process's memory to ``MEMORY`` more than it has."""
    with contextlib.suppress(ImportError, OSError):  # not Linux
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def attempt(name: str, path: Path) -> dict[str, str]:
    """Read one input: how that ended."""
    from sensorium.core.errors import BadCell, UserError

    try:
        read(name, path)
    except (UserError, BadCell) as error:
        return {"how": "refused", "why": str(error)[:200]}
    except Exception as error:  # what is looked for
        place_ = next(
            (
                f"{Path(frame.filename).name}:{frame.lineno}"
                for frame in reversed(traceback.extract_tb(error.__traceback__))
                if "/sensorium/" in frame.filename
            ),
            "",
        )
        return {
            "how": "finding",
            "why": f"{type(error).__name__} at {place_}: {str(error)[:200]}",
            "like": f"{type(error).__name__} {place_}",
            "trace": traceback.format_exc(),
        }
    return {"how": "read"}


def child(seed: int, first: int, step: int, kinds: list[str], folder: Path) -> None:
    """Read inputs one after another, and say on standard output what is begun and how it ended."""
    faulthandler.enable(open(folder / "fault", "w"), all_threads=True)  # noqa: SIM115 - it lives as long as the process
    warnings.simplefilter("ignore")
    whole = {name: KINDS[name].make() for name in kinds}
    for name in kinds:
        for ending, data in whole[name]:
            (path := folder / f"whole{ending}").write_bytes(data)
            ended = attempt(name, path)
            if ended["how"] != "read":
                raise SystemExit(f"A whole file of the kind {name} ({ending}) isn't read: {ended}")
    bounded()
    for number in range(first, first + LIVES * step, step):
        name, ending, data = case(seed, number, kinds, whole)
        (path := folder / f"input{ending}").write_bytes(data)
        print(json.dumps({"number": number, "name": name, "path": str(path)}), flush=True)
        print(json.dumps(attempt(name, path)), flush=True)
    print(json.dumps({"how": "over"}), flush=True)


# --- the parent -------------------------------------------------------------------------------------------------------


class Reader:
    """One child, its folder, and what it is reading."""

    def __init__(self, seed: int, first: int, step: int, kinds: list[str]) -> None:
        self.step, self.arguments = step, (seed, step, kinds)
        self.folder = Path(tempfile.mkdtemp(prefix="sensorium-fuzz-child-"))
        self.start(first)

    def start(self, first: int) -> None:
        seed, step, kinds = self.arguments
        self.next, self.doing, self.since = first, None, time.monotonic()
        told = {"seed": seed, "first": first, "step": step, "kinds": kinds, "folder": str(self.folder)}
        here = os.environ | {
            "OMP_NUM_THREADS": "1",
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "MALLOC_ARENA_MAX": "2",
            "SENSORIUM_CACHE": str(self.folder / "cache"),
        }
        here["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [here.get("PYTHONPATH")])])
        with open(self.folder / "errors", "w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--child", json.dumps(told)],
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                env=here,
                start_new_session=True,
            )
        os.set_blocking(self.process.stdout.fileno(), False)
        self.buffer = b""

    def lines(self) -> Iterator[dict[str, Any]]:
        """What the child said since it was last asked."""
        while chunk := self.process.stdout.read(1 << 16) or b"":
            self.buffer += chunk
        *whole, self.buffer = self.buffer.split(b"\n")
        for line in whole:
            with contextlib.suppress(ValueError):  # a library's own words
                yield json.loads(line)

    def kill(self) -> None:
        """End it, after it has said where it was."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def said(self) -> str:
        """The end of what it wrote to standard error, and where it was when it died."""
        return "".join(
            (self.folder / name).read_text(errors="replace")[-6000:]
            for name in ("errors", "fault")
            if (self.folder / name).exists()
        )


class Run:
    """All children, what was read so far, and what was found."""

    def __init__(self, seed: int, kinds: list[str], workers: int, keep: Path) -> None:
        self.seed, self.kinds, self.keep = seed, kinds, keep
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in kinds}
        self.found: Counter[str] = Counter()
        self.readers = [Reader(seed, first, workers, kinds) for first in range(workers)]

    def until(self, minutes: float) -> None:
        """Watch the children until the time is over."""
        end, said = time.monotonic() + 60 * minutes, time.monotonic()
        with selectors.DefaultSelector() as selector:
            for reader in self.readers:
                selector.register(reader.process.stdout, selectors.EVENT_READ)
            while time.monotonic() < end:
                selector.select(0.2)
                for reader in self.readers:
                    before = reader.process.stdout
                    self.look(reader)
                    if reader.process.stdout is not before:
                        selector.unregister(before)
                        selector.register(reader.process.stdout, selectors.EVENT_READ)
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    print(
                        f"{sum(c.total() for c in self.counts.values()):,} files, {self.found.total():,} findings of "
                        f"{len(self.found)} kinds, {end - said:.0f} s left",
                        flush=True,
                    )

    def look(self, reader: Reader) -> None:
        """Take what a child said; replace one that is through, that died or that takes too long."""
        for told in reader.lines():
            self.hear(reader, told)
        over = time.monotonic() - reader.since
        if reader.doing is not None and over > SECONDS:
            self.end(reader, "too long")
        elif reader.process.poll() is not None:
            for told in reader.lines():
                self.hear(reader, told)
            if reader.doing is None and reader.process.returncode and reader.next == reader.arguments[1]:
                raise SystemExit(reader.said())
            self.end(reader, f"died with {reader.process.returncode}" if reader.doing is not None else "")
        elif reader.doing is None and over > 120:
            raise SystemExit(f"A child doesn't begin. {reader.said()}")

    def hear(self, reader: Reader, told: dict[str, Any]) -> None:
        reader.since = time.monotonic()
        if "number" in told:
            reader.doing = told
        elif reader.doing is not None:
            name, how = reader.doing["name"], told["how"]
            self.counts[name][how] += 1
            if how == "finding":
                self.save(reader, f"{name}: {told['like']}", told["why"], told["trace"])
            reader.next, reader.doing = reader.doing["number"] + reader.step, None

    def end(self, reader: Reader, why: str) -> None:
        """Replace a child; ``why``: what it was doing is a finding."""
        reader.kill()
        if why and reader.doing is not None:
            name = reader.doing["name"]
            self.counts[name]["finding"] += 1
            said = reader.said()
            place_ = next(iter(re.findall(r'File "[^"]*/(sensorium/[^"]+)", line (\d+)', said)), ("", ""))
            self.save(reader, f"{name}: {why} {':'.join(place_)}", why, said)
            reader.next = reader.doing["number"] + reader.step
        reader.start(reader.next)

    def save(self, reader: Reader, like: str, why: str, trace: str) -> None:
        """Keep the input of a finding, and what is known of it."""
        self.found[like] += 1
        if self.found[like] == 1:
            print(f"FOUND {like}: {why}", flush=True)
        if self.found[like] <= SAME:
            self.keep.mkdir(parents=True, exist_ok=True)
            source = Path(reader.doing["path"])
            name = f"{reader.doing['name']}-{self.seed}-{reader.doing['number']}"
            shutil.copy(source, self.keep / (name + "".join(source.suffixes)))
            (self.keep / f"{name}.why").write_text(
                f"{like}\n{why}\nseed {self.seed}, number {reader.doing['number']}\n\n{trace}\n"
            )

    def close(self) -> None:
        for reader in self.readers:
            reader.process.kill()
            reader.process.wait()
            shutil.rmtree(reader.folder, ignore_errors=True)

    def summary(self) -> str:
        """What was read, a line a kind, and what was found."""
        lines = [
            f"{name:8} {count.total():7,} files: {count['read']:,} read, {count['refused']:,} refused, "
            f"{count['finding']:,} findings"
            for name, count in self.counts.items()
        ]
        lines += [f"{count:5,} x {like}" for like, count in self.found.most_common()]
        return "\n".join([*lines, f"Kept in {self.keep}" if self.found else "Nothing was found."])


def main() -> int:
    asked = argparse.ArgumentParser(description="Read damaged files of every kind.")
    asked.add_argument("files", nargs="*", type=Path, help="inputs that were kept, to be read again")
    asked.add_argument("--minutes", type=float, default=10)
    asked.add_argument("--seed", type=int, default=None, help="a number; by default another one each time")
    asked.add_argument("--only", default="", help=f"kinds, by commas: {','.join(KINDS)}")
    asked.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked.add_argument("--keep", type=Path, default=None, help="the folder where findings are kept")
    asked.add_argument("--child", default="", help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.child:
        told = json.loads(given.child)
        child(told["seed"], told["first"], told["step"], told["kinds"], Path(told["folder"]))
        return 0
    if given.files:
        return one_by_one(given.files)
    kinds = [name for name in given.only.split(",") if name] or list(KINDS)
    if strange := [name for name in kinds if name not in KINDS]:
        asked.error(f"no kind {', '.join(strange)}; possible: {', '.join(KINDS)}")
    seed = secrets.randbelow(1 << 32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    keep = given.keep or Path(tempfile.gettempdir()) / f"sensorium-fuzz-{seed}"
    run = Run(seed, kinds, given.workers, keep)
    try:
        run.until(given.minutes)
    except KeyboardInterrupt:
        print()
    finally:
        run.close()
    print(run.summary())
    return bool(run.found)


def one_by_one(files: list[Path]) -> int:
    """Read kept inputs in this process."""
    faulthandler.enable()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    failed = 0
    for path in files:
        name = path.name.partition("-")[0]
        if name not in KINDS:
            raise SystemExit(f"'{path.name}' doesn't begin with a kind and a hyphen: {', '.join(KINDS)}")
        began = time.monotonic()
        ended = attempt(name, path)
        failed += ended["how"] == "finding"
        print(
            f"{path}: {ended['how']} in {time.monotonic() - began:.1f} s. {ended.get('trace') or ended.get('why', '')}"
        )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
