"""Media cells: bytes come from the cell or from below the table's folder, and from nowhere else."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from table_helpers import columns

from sensorium.core.errors import BadCell
from sensorium.data.media import find_file, media_bytes, media_head, sniff
from sensorium.data.schema import infer
from sensorium.data.table import Table


def test_bytes_paths_and_both(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"file")
    for cell, data in (
        (b"x", b"x"),
        (bytearray(b"x"), b"x"),
        ("a.bin", b"file"),
        ("./a.bin", b"file"),
        (Path("a.bin"), b"file"),
        ({"bytes": b"x", "path": "a.bin"}, b"x"),
        ({"bytes": None, "path": "a.bin"}, b"file"),
        (str(tmp_path / "a.bin"), b"file"),
    ):
        assert media_bytes(cell, tmp_path, False) == data
        assert media_head(cell, tmp_path, False, 2) == data[:2]


@pytest.mark.parametrize(
    "cell, reason",
    [
        (b"", "empty"),
        ("", "empty"),
        ({"bytes": None, "path": None}, "neither"),
        (7, "neither"),
        ("gone.png", "can't be read"),
        ("folder", "holds no picture"),
        ("a\0b", "NUL"),
        ("x" * 5000, "can't be"),
        ("../secret", "leaves"),
        ("/etc/passwd", "leaves"),
        ("folder/../../secret", "leaves"),
        ("link", "leaves"),
        ("linked/secret", "leaves"),
        ("loop", "can't be"),
        ("pipe", "no file"),
        ("http://example.com/x.png", "web address"),
        ("HTTPS://example.com", "web address"),
        ("s3://b/x", "web address"),
        ("file:///etc/passwd", "web address"),
        ("data:image/png;base64,AAAA", "web address"),
        (b"x" * 101, "limit"),
        ("long", "limit"),
        ("empty", "empty"),
        ("\ud800", "can't be"),
    ],
)
def test_what_cannot_be_had_says_why(cell: object, reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "table"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    (folder / "empty").touch()
    (folder / "long").write_bytes(b"x" * 101)
    os.mkfifo(folder / "pipe")
    with pytest.raises(BadCell, match=reason):
        media_bytes(cell, folder, False, max_bytes=100)


def test_paths_may_leave_only_when_allowed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "table").mkdir()
    (tmp_path / "table/t.csv").write_text("image\n../secret\n")
    for allowed, wanted in ((True, b"secret"), (False, None)):
        (cell,) = columns(Table.open(tmp_path / "table/t.csv", allow_outside=allowed), ("image",))["image"]
        assert cell == wanted if wanted else isinstance(cell, BadCell)
    (cell,) = columns(Table.open([{"image": str(tmp_path / "secret")}]), ("image",))["image"]
    assert isinstance(cell, BadCell) and "no folder" in str(cell)
    (cell,) = columns(Table.open([{"image": str(tmp_path / "secret")}], allow_outside=True), ("image",))["image"]
    assert cell == b"secret"


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "/", "link", "~", "C:", "\\", "//"]), min_size=1, max_size=8))
def test_no_path_is_found_outside_the_folder(parts: list[str]) -> None:
    folder = Path("/tmp/sensorium-no-such-folder/inside")
    try:
        found = find_file("/".join(parts), folder, False)
    except BadCell:
        return
    assert found.is_relative_to(folder)


def image(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 3)).save(file, kind, **options)
    return file.getvalue()


def sound(kind: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16000, np.float32), 16000, format=kind, subtype=subtype)
    return file.getvalue()


def test_sniff_knows_what_libraries_write() -> None:
    for kind in ("png", "jpeg", "gif", "webp", "bmp", "tiff"):
        assert sniff(image(kind)[:64]) == f"image/{kind}"
    frames = [Image.new("RGB", (3, 3), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "webp", save_all=True, append_images=frames[1:])
    assert sniff(file.getvalue()[:64]) == "video/webp-animated"
    for kind, name in (
        ("WAV", "wav"),
        ("FLAC", "flac"),
        ("OGG", "ogg"),
        ("MP3", "mpeg"),
        ("AIFF", "aiff"),
        ("RF64", "wav"),
    ):
        assert sniff(sound(kind)[:64]) == f"audio/{name}"


@pytest.mark.parametrize(
    "head, kind",
    [
        (b"\0\0\0\x20ftypisom", "video/mp4"),
        (b"\0\0\0\x20ftypM4A ", "audio/mp4"),
        (b"\0\0\0\x1cftypavif", "image/avif"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm", "video/webm"),
        (b"ID3\x04", "audio/mpeg"),
        (b"", None),
        (b"BM is a company", None),
        ("\ufefftext".encode("utf-16"), None),
        (b"RIFF", None),
        (b"plain text", None),
        (b"\xff", None),
        (b"\xff\xfea\0b\0", None),
    ],
)
def test_sniff_by_head(head: bytes, kind: str | None) -> None:
    assert sniff(head) == kind


@given(st.binary(max_size=64))
def test_sniff_takes_any_bytes(head: bytes) -> None:
    assert sniff(head) is None or "/" in sniff(head)


def test_a_table_that_moved_with_its_folder_still_finds_its_files(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/x.png").write_bytes(b"data")
    (tmp_path / "one/t.jsonl").write_text('{"image": "x.png"}\n')
    shutil.move(tmp_path / "one", tmp_path / "two")
    assert columns(Table.open(tmp_path / "two/t.jsonl"), ("image",)) == {"image": [b"data"]}


@pytest.mark.parametrize("how", ["bytes", "paths", "both"])
def test_an_mp4_whose_index_lies_at_its_end_is_what_it_holds(how: str, tmp_path: Path) -> None:
    """The sound alone of an MP4 is a sound, however far behind its index lies."""
    av = pytest.importorskip("av")
    noise = np.random.default_rng(0).normal(0, 0.2, (1, 16_000 * 30)).astype(np.float32)
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        for start in range(0, noise.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(noise[:, start : start + 1024].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = (tmp_path / "a.mp4").read_bytes()
    assert len(data) > 70_000 and data.find(b"moov") > 65_536
    cells: list = {"bytes": [data] * 3, "paths": ["a.mp4"] * 3, "both": [{"bytes": data, "path": "a.mp4"}] * 3}[how]
    pq.write_table(pa.table({"a": cells, "n": [1.5, 2.5, 4.0]}), tmp_path / "t.parquet")
    schema = infer(Table.open(tmp_path / "t.parquet"), targets=["a"])
    assert schema.columns["a"].kind == "audio", schema.columns["a"].why
