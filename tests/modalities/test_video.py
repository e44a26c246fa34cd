"""Moving pictures: what is read of a clip, what comes back, and what is turned away."""

from __future__ import annotations

import gc
import io
import os
import sys
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import clip, drawing
from PIL import Image

from sensorium.core.errors import BadCell, UserError
from sensorium.data.media import media_bytes
from sensorium.data.schema import infer
from sensorium.data.table import Table
from sensorium.media.video import animated, film, frames_of, written
from sensorium.modalities.video import Video

WAYS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}


def middle(frame: np.ndarray) -> np.ndarray:
    """Where the ink of a frame is, (x, y)."""
    ink = 255.0 - frame.mean(-1)
    at = np.arange(len(frame))
    return np.array([(ink * at).sum(), (ink * at[:, None]).sum()]) / ink.sum()


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG"])
@pytest.mark.parametrize("way", WAYS)
def test_frames_move_as_the_clip_does(kind: str, way: str) -> None:
    frames = Video(size=32, frames=6).read(clip("red", WAYS[way], kind=kind))
    assert frames.shape == (6, 32, 32, 3) and frames.dtype == np.uint8
    moved = middle(frames[-1]) - middle(frames[0])
    assert np.sign(np.round(moved / 4)).tolist() == list(WAYS[way])


def test_frames_are_evenly_spaced_in_time_whatever_their_number_and_length() -> None:
    shown = [Image.new("RGB", (16, 16), (level, 0, 0)) for level in (0, 100, 200)]
    out = io.BytesIO()
    shown[0].save(out, "WEBP", save_all=True, append_images=shown[1:], duration=[100, 100, 600], loop=0, lossless=True)
    levels = Video(size=16, frames=8).read(out.getvalue())[:, 8, 8, 0]
    assert levels.tolist() == [0, 100, *[200] * 6]
    assert Video(size=16, frames=8, seconds=0.2).read(out.getvalue())[:, 8, 8, 0].tolist() == [0] * 4 + [100] * 4
    still = Video(size=16, frames=4).read(drawing("blue", "circle", 2))
    assert (still == still[0]).all(), "a picture is a clip that stands still"


def test_a_wide_transparent_clip_stands_in_the_middle_of_white() -> None:
    shown = [Image.new("RGBA", (64, 32), (0, 0, 0, 0)) for _ in range(2)]
    shown[1].paste((255, 0, 0, 255), (0, 0, 64, 32))
    out = io.BytesIO()
    shown[0].save(out, "WEBP", save_all=True, append_images=shown[1:], duration=100, lossless=True)
    first, second = Video(size=32, frames=2).read(out.getvalue())
    assert (
        (first == 255).all()
        and (second[:8] == 255).all()
        and (second[9:23, :, 0] > 250).all()
        and (second[9:23, :, 1] < 5).all()
    )


@pytest.mark.parametrize("format", ["webp", "gif"])
def test_what_is_written_is_read_again(format: str) -> None:
    video, read = Video(size=32, frames=6, format=format), Video(size=32, frames=6).read(clip("blue", (1, 0)))
    video.learn([read])
    target = video.target(video.collate([read]))
    assert abs(float(target.mean())) < 0.1 and 0.8 < float(target.std()) < 1.2
    cell = video.decode(target[0].numpy())
    assert animated(cell[:1024]) and video.score([clip("blue", (1, 0))], [cell])["psnr"] > 28
    with Image.open(io.BytesIO(cell)) as image:
        assert image.n_frames >= 5 and image.size == (32, 32)
    other = Video(size=32, frames=6)
    other.load_state(video.state())
    assert torch.equal(other.target(other.collate([read])), target)
    assert video.tokens().length == target.shape[1] == 48 and video.tokens().width == target.shape[2] == 384


def test_films_go_in_and_out() -> None:
    pytest.importorskip("av")
    frames = frames_of(clip("red", (1, 0), 8), 8, 64, 10**6, 10.0)
    cell = written(frames, 10.0, ".mp4")
    assert film(cell[:64]) and animated(cell[:64])
    again = Video(size=64, frames=8).read(cell)
    assert np.abs(again.astype(float) - frames).mean() < 6 and middle(again[-1])[0] - middle(again[0])[0] > 10
    with pytest.raises(BadCell, match="max_pixels"):
        Video(max_pixels=100).read(cell)
    with pytest.raises(BadCell):
        Video().read(cell[:60])


def test_without_pyav_films_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"sensorium\[video\]"):
        Video().read(b"\0\0\0\x20ftypisom" + bytes(100))
    with pytest.raises(UserError, match=r"sensorium\[video\]"):
        written(np.zeros((2, 16, 16, 3), np.uint8), 8.0, ".mp4")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (b"", "empty"),
        (b"nothing at all", "not a picture"),
        (7, "bytes of a video"),
        (clip("red", (1, 0))[:40], "decoded"),
    ],
)
def test_what_is_no_clip_is_a_bad_cell(cell: Any, words: str) -> None:
    with pytest.raises(BadCell, match=words):
        Video().read(cell)


def test_a_clip_that_is_cut_short_keeps_its_beginning() -> None:
    cell = clip("red", (1, 0), 8, kind="GIF")
    frames = Video(size=32, frames=4).read(cell[: len(cell) * 2 // 3])
    assert frames.shape == (4, 32, 32, 3) and (frames < 128).any()


def test_too_many_frames_and_pixels_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadCell, match="max_pixels"):
        Video(max_pixels=100).read(clip("red", (1, 0)))
    monkeypatch.setattr("sensorium.media.video.MAX_FRAMES", 5)
    with pytest.raises(BadCell, match="more than 5 frames"):
        Video().read(clip("red", (1, 0), 9))
    monkeypatch.setattr("sensorium.media.video.MAX_CLIP_PIXELS", 2000)
    with pytest.raises(BadCell, match="2,000 pixels"):
        Video().read(clip("red", (1, 0), 4))


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ({"size": 20}, "size=16"),
        ({"patch": 7}, "patch=8"),
        ({"frames": 3}, "frames=4"),
        ({"frames": 999}, "frames=256"),
    ],
)
def test_sizes_out_of_range_are_clamped_and_it_is_said(settings: dict[str, Any], used: str) -> None:
    video, (name, value) = Video(**settings), used.split("=")
    assert getattr(video, name) == int(value) and len(video.clamped) == 1 and f"{used} is used" in video.clamped[0]


@pytest.mark.parametrize("settings", [{"seconds": 0.0}, {"rate": -1.0}])
def test_settings_that_can_not_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Video(**settings)


def test_columns_of_clips_are_told_from_columns_of_pictures() -> None:
    rows = 12
    table = Table.open(
        pa.table(
            {
                "moves": [clip("red", (1, 0), 4 + i % 3, kind=["GIF", "WEBP"][i % 2]) for i in range(rows)],
                "stands": [drawing("red", "bar", i % 4) for i in range(rows)],
                "n": list(range(rows)),
            }
        )
    )
    kinds = {c.name: c.kind for c in infer(table).columns.values()}
    assert kinds["moves"] == "video" and kinds["stands"] == "image"


def test_all_frames_of_a_clip_are_varied_alike() -> None:
    video = Video(size=32, frames=6, colour=0.0)
    cells = video.collate([video.read(drawing("red", "square", 2)), video.read(clip("red", (1, 0)))])
    varied = video.augment(cells, torch.Generator().manual_seed(0))["pixels"]
    assert (varied[0] == varied[0, 0]).all() and not torch.equal(varied[0], cells["pixels"][0])
    still = Video(size=32, frames=6, colour=0.0, turn=0.0, zoom=0.0, move=0.0)
    assert (
        still.augment(cells, torch.Generator().manual_seed(0))["pixels"].int() - cells["pixels"].int()
    ).abs().max() <= 1


def test_a_model_tells_which_way_a_clip_goes_and_draws_clips(quick_fit: Callable[..., Any]) -> None:
    """The first frames are the same for all ways but turned: only movement tells."""
    ways = [list(WAYS)[i % 4] for i in range(64)]
    table = pa.table(
        {"film": [clip(["red", "green", "blue"][i % 3], WAYS[way], 6) for i, way in enumerate(ways)], "way": ways}
    )
    model = quick_fit(
        table,
        "column.film.size=16",
        "column.film.frames=4",
        "column.film.patch=8",
        "questions.generate=film",
        "generator.flow.depth=1",
        "column.film.turn=0",
        "train.lr=0.01",
        "network.width=32",
        target=["way"],
        epochs=25,
    )
    said = model.predict(table, "way", seen=["film"]).column("value").to_pylist()
    assert np.mean([a == b for a, b in zip(said, ways, strict=True)]) > 0.8
    cell = model.generate([{"way": "left"}], "film", steps=3)[0]
    assert animated(cell[:1024]) and Video(size=16, frames=4).read(cell).shape == (4, 16, 16, 3)


def frames_in_files(folder: Path, ending: str = "png") -> None:
    """Twelve frames whose red rises by ten, in files whose numbers have no leading zeros."""
    folder.mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (16, 16), (10 * number, 0, 0)).save(folder / f"frame-{number}.{ending}")


def test_a_folder_of_frames_is_a_clip_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for row in range(3):
        frames_in_files(tmp_path / "clips" / str(row))
        (tmp_path / "clips" / str(row) / "notes.txt").write_text("no frame")
    (tmp_path / "t.csv").write_text(
        "clip,word\n" + "".join(f"clips/{row},word{row}\n" for row in range(3)), encoding="utf-8"
    )
    table = Table.open(tmp_path / "t.csv")
    assert infer(table).columns["clip"].kind == "video"
    cells = list(table.cells(table.take([0, 1, 2], ["clip"]), "clip", True))
    assert len(cells) == 3 and all(animated(cell[:1024]) for cell in cells)
    assert Video(size=16, frames=12).read(cells[1])[:, 8, 8, 0].tolist() == [10 * number for number in range(12)]
    assert Video(size=16, frames=6, seconds=0.6).read(cells[1])[:, 8, 8, 0].tolist() == [
        10 * number for number in range(6)
    ], "ten a second"


def test_frames_that_can_not_be_had_are_bad_cells(tmp_path: Path) -> None:
    table = tmp_path / "table"
    frames_in_files(table / "a")
    (table / "empty").mkdir()
    frames_in_files(tmp_path / "far")
    (table / "linked").mkdir()
    (table / "linked" / "frame-1.png").symlink_to(tmp_path / "far" / "frame-1.png")
    for cell, why in (("linked", "leaves the table's folder"), ("empty", "holds no picture"), ("x" * 5000, "x")):
        with pytest.raises(BadCell, match=why):
            media_bytes(cell, table, False)
    assert media_bytes("linked", table, True)
    with pytest.raises(BadCell, match="together"):
        media_bytes("a", table, False, max_bytes=400)


def test_odd_names_of_frames_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for level, name in enumerate((b"10.png", b"2.PNG", b"fr\xff3.png", "²1.jfif".encode(), b".hidden.png")):
        out = io.BytesIO()
        Image.new("RGB", (16, 16), (10 * level, 0, 0)).save(out, "PNG")
        (Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/" + name))).write_bytes(out.getvalue())
    frames = Video(size=16, frames=4).read(media_bytes("a", tmp_path, False))
    assert sorted(frames[:, 8, 8, 0].tolist()) == [0, 10, 20, 30] and frames[:, 8, 8, 0].tolist().index(10) < frames[
        :, 8, 8, 0
    ].tolist().index(0)


def test_names_of_classes_that_are_folders_too_stay_classes(tmp_path: Path) -> None:
    lines = []
    for label in ("cats", "dogs"):
        frames_in_files(tmp_path / label)
        lines += [f"{label}/frame-{number}.png,{label}" for number in range(12)]
    (tmp_path / "t.csv").write_text("image,label\n" + "\n".join(lines), encoding="utf-8")
    found = infer(Table.open(tmp_path / "t.csv")).columns
    assert found["image"].kind == "image" and found["label"].kind == "category"


def test_an_archive_may_have_folders_and_what_an_archiver_put_beside() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("frames/", b"")
        for number in range(4):
            picture = io.BytesIO()
            Image.new("RGB", (16, 16), (50 * number, 0, 0)).save(picture, "PNG")
            archive.writestr(f"frames/{number}.png", picture.getvalue())
            archive.writestr(f"__MACOSX/frames/._{number}.png", b"no picture")
    assert animated(out.getvalue()[:1024])
    assert Video(size=16, frames=4).read(out.getvalue())[:, 8, 8, 0].tolist() == [0, 50, 100, 150]


def test_an_archive_that_unpacks_to_too_much_is_turned_away() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", drawing("blue", "circle", 2))
        archive.writestr("1.png", bytes(80 << 20))
    with pytest.raises(BadCell, match="more than the limit"):
        Video(size=16, frames=4).read(out.getvalue())
    with pytest.raises(BadCell, match="can't be decoded|not a picture"):
        Video(size=16, frames=4).read(out.getvalue()[:200])


def archived(*files: bytes, ending: str = "png") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, data in enumerate(files):
            archive.writestr(f"{number}.{ending}", data)
    return out.getvalue()


def stored(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def scene(number: int) -> np.ndarray:
    """A ramp to the right with a dark corner, of 16 × 24 levels."""
    grey = np.tile(np.linspace(40, 240, 24).astype(np.uint8), (16, 1))
    grey[:8, : 6 + number] = 20
    return grey


def test_frames_in_files_are_read_as_stills_are() -> None:
    plain = Video(size=24, frames=3).read(archived(*(stored(Image.fromarray(scene(n))) for n in range(3))))
    deep = archived(*(stored(Image.fromarray(scene(n).astype(np.uint16) * 257)) for n in range(3)))
    floats = archived(
        *(stored(Image.fromarray(scene(n).astype(np.float32) / 255), "TIFF") for n in range(3)), ending="tif"
    )
    exif, turned = Image.Exif(), [Image.fromarray(scene(n)).transpose(Image.Transpose.ROTATE_90) for n in range(3)]
    exif[0x0112] = 6
    for cell in (deep, floats, archived(*(stored(image, exif=exif) for image in turned))):
        assert np.abs(Video(size=24, frames=3).read(cell).astype(int) - plain).max() <= 1
    jpeg = archived(*(stored(image.convert("RGB"), "JPEG", exif=exif, quality=98) for image in turned), ending="jpg")
    assert np.abs(Video(size=24, frames=3).read(jpeg).astype(int) - plain).mean() < 4
    clear = archived(*[stored(Image.new("RGBA", (16, 16), (255, 0, 0, 0)))] * 2)
    assert (Video(size=16, frames=2).read(clear) == 255).all()


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_an_animation_that_lies_on_its_side_is_turned(kind: str) -> None:
    exif, frames = Image.Exif(), [Image.fromarray(scene(n)).convert("RGB") for n in range(3)]
    exif[0x0112] = 6
    how = {"save_all": True, "duration": 100} | ({"lossless": True} if kind == "WEBP" else {})
    upright = stored(frames[0], kind, append_images=frames[1:], **how)
    turned = [frame.transpose(Image.Transpose.ROTATE_90) for frame in frames]
    there = stored(turned[0], kind, append_images=turned[1:], exif=exif, **how)
    assert np.abs(Video(size=24, frames=3).read(there).astype(int) - Video(size=24, frames=3).read(upright)).max() <= 1


def test_what_comes_after_a_broken_frame_is_left_out() -> None:
    good = [stored(Image.new("RGB", (16, 16), (60 * n, 0, 0))) for n in range(3)]
    for bad in (b"", b"no picture", good[0][:45]):
        assert Video(size=16, frames=2).read(archived(good[0], good[1], bad, good[2]))[:, 8, 8, 0].tolist() == [0, 60]
        with pytest.raises(BadCell):
            Video(size=16, frames=2).read(archived(bad, *good))
    with pytest.raises(BadCell, match="max_pixels"):
        Video(size=16, frames=2, max_pixels=400).read(archived(good[0], stored(Image.new("RGB", (30, 30)))))
    cell = bytearray(archived(*good))
    cell[cell.rindex(b"IDAT", 0, cell.index(b"PK\x01\x02")) + 6] ^= 0xFF
    assert Video(size=16, frames=2).read(bytes(cell))[:, 8, 8, 0].tolist() == [0, 60], "its check sum is wrong"
    with pytest.raises(BadCell, match="cut short"):
        Video(size=16, frames=2).read(archived(*good)[:-200])


def test_an_archive_that_lists_too_many_files_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.media.video.MAX_LIST_BYTES", 100)
    with pytest.raises(BadCell, match="list of files has more than 100 bytes"):
        Video(size=16, frames=2).read(archived(*[stored(Image.new("RGB", (9, 9)))] * 4))


def shot(levels: list[int], times: list[int] | None = None, turn: int = 0, kind: str = "mov", wide: int = 1) -> bytes:
    """A film of plain frames, dark in their upper left, each of them begun at its time in milliseconds."""
    av, out = pytest.importorskip("av"), io.BytesIO()
    with av.open(out, "w", format=kind) as film:
        stream = film.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuvj420p"
        stream.codec_context.sample_aspect_ratio = Fraction(wide, 1)
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        if turn:
            stream.set_display_rotation(turn)
        for number, level in enumerate(levels):
            pixels = np.full((16, 32, 3), level, np.uint8)
            pixels[:8, :8] = 0
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (times[number] if times else 100 * number), Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return out.getvalue()


@pytest.mark.parametrize("turn", [90, 180, 270, -90])
def test_a_film_is_turned_as_it_says_that_it_is_shown(turn: int) -> None:
    plain, there = (Video(size=32, frames=2).read(shot([160, 220], turn=way)) for way in (0, turn))
    wanted = np.rot90(plain, turn // 90, (1, 2))
    assert np.abs(there.astype(int) - wanted).mean() < 3 and np.abs(there.astype(int) - plain).mean() > 10


def test_a_film_of_uneven_frames_is_looked_at_when_it_shows_them() -> None:
    cell = shot([40, 120, 200], [0, 100, 200], kind="matroska")
    assert np.abs(Video(size=16, frames=6).read(cell)[:, 8, 12, 0] - np.repeat([40, 120, 200], 2)).max() < 8
    late = shot([40, 120, 200, 200], [0, 100, 800, 900], kind="matroska")
    seen = Video(size=16, frames=10).read(late)[:, 8, 12, 0].astype(int)
    assert (
        np.abs(seen - [40] + 0).tolist()[0] < 8
        and np.abs(seen[1:8] - 120).max() < 8
        and np.abs(seen[8:] - 200).max() < 8
    )
    first = shot([40, 120, 200], [5000, 5100, 5200], kind="matroska")
    assert np.abs(Video(size=16, frames=6).read(first).astype(int) - Video(size=16, frames=6).read(cell)).max() < 3, (
        "its time begins with its first frame"
    )
    assert (
        np.abs(Video(size=16, frames=4, seconds=0.5).read(late)[:, 8, 12, 0].astype(int) - [40, 120, 120, 120]).max()
        < 8
    )


def test_pixels_that_are_shown_wider_than_high_are() -> None:
    for turn in (0, 90):
        plain, wide = (
            Video(size=32, frames=2).read(shot([120, 120], turn=turn, kind="mov", wide=by))[0, :, :, 1] for by in (1, 2)
        )
        lines = [int((frame < 250).any(1 - bool(turn)).sum()) for frame in (plain, wide)]
        assert lines == [16, 8], "half as high as before, for the long side fills the square"


def test_many_films_leave_no_threads_and_no_frames_behind() -> None:
    gc.collect()
    gc.disable()
    try:
        cell, before = shot([40, 120]), len(os.listdir("/proc/self/task"))
        for _ in range(4):
            Video(size=16, frames=2).read(cell)
        assert len(os.listdir("/proc/self/task")) <= before
    finally:
        gc.enable()


def test_a_film_that_ends_early_keeps_what_could_be_read() -> None:
    for kind in ("matroska", "avi"):
        cell = shot([40, 120, 200, 250], kind=kind)
        frames = Video(size=16, frames=4).read(cell[: len(cell) * 3 // 5])
        assert abs(int(frames[0, 8, 12, 0]) - 40) < 8
        with pytest.raises(BadCell):
            Video(size=16, frames=4).read(cell[:200])


@pytest.mark.parametrize(
    "cell", [b"ffconcat version 1.0\nfile /etc/hostname\n", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"]
)
def test_lists_of_other_files_are_never_opened(cell: bytes) -> None:
    for start in (b"", b"RIFF\0\0\0\0AVI ", b"\0\0\0\x20ftypisom"):
        with pytest.raises(BadCell):
            Video().read(start + cell)
