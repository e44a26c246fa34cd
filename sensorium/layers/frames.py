"""Frames: the bytes of a moving picture to evenly spaced small squares of RGB on white, and back.

Animated GIF, WebP and PNG are read by Pillow, and so are frames in files of their own, as a ZIP archive holds them; MP4, WebM and what else FFmpeg
knows by PyAV, which is an extra. As with pictures, a hostile
file is turned away before its frames are decoded, and as soon as they turn out to be too many.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image as Pillow

from sensorium.core.errors import BadCell, UserError
from sensorium.layers.pixels import ENDINGS, centred, on_white, opened, resized

MOST = 4_000
"""Frames of a clip; and pixels of all of them together:"""
PIXELS = 2_000_000_000
STILL = 0.1
"""Seconds that a frame lasts whose file doesn't say."""
LARGEST, HEAD = 64 << 20, 1024
"""Bytes of a frame that is a file of its own; and those that tell what a file is."""


def animated(head: bytes) -> bool:
    """Whether a file's first bytes are those of a film or of a picture that moves."""
    return (
        (head.startswith(b"RIFF") and head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 2))
        or (head.startswith(b"GIF89a") and b"NETSCAPE2.0" in head)
        or (head.startswith(b"\x89PNG\r\n\x1a\n") and b"acTL" in head[:1024])
        or film(head)
        or archive(head)
    )


def archive(head: bytes) -> bool:
    """Whether a file's first bytes are those of a ZIP archive whose first file is a picture: frames in files of their own."""
    at = 0
    while head[at : at + 4] == b"PK\x03\x04":
        long, more, stored = (int.from_bytes(head[at + a : at + b], "little") for a, b in ((26, 28), (28, 30), (18, 22)))
        name = head[at + 30 : at + 30 + long].decode("utf-8", "replace")
        if not name.endswith("/"):
            return frame_name(name)
        at += 30 + long + more + stored
    return False


def frame_name(name: str) -> bool:
    """Whether an entry of an archive is a frame, and no folder or what an archiver put beside."""
    return name.lower().endswith(ENDINGS) and "__MACOSX/" not in name and not name.rpartition("/")[2].startswith(".")


def film(head: bytes) -> bool:
    """Whether a file's first bytes are those of a format that takes PyAV: MP4 and MOV, Matroska and WebM, AVI."""
    return ((head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis", b"heic", b"heix", b"mif1")) or head.startswith(b"\x1a\x45\xdf\xa3")
            or (head.startswith(b"RIFF") and head[8:12] == b"AVI "))


def frames_of(data: Any, count: int, size: int, max_pixels: int, seconds: float) -> np.ndarray:
    """``count`` frames of a clip, evenly spaced in its first ``seconds``, as RGB on white, uint8 [count, size, size, 3]. A still picture
    gives the same one each time.

    Raises:
        BadCell: no clip, cut short before its first frame, or larger than allowed.
        UserError: a film, and PyAV isn't installed.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise BadCell(f"expected the bytes of a video, found {type(data).__name__}")
    if not len(data):
        raise BadCell("the video file is empty")
    data, shown, starts, at = bytes(data), [], [], 0.0
    try:
        way = by_av if film(data[:64]) else by_file if archive(data[:HEAD]) else by_pillow
        for pixels, lasts in way(data, size, max_pixels):
            shown.append(pixels)
            starts.append(at)
            at += lasts
            if at >= seconds:
                break
            if len(shown) >= MOST:
                raise BadCell(f"the video has more than {MOST} frames in its first {seconds:g} seconds")
    except (BadCell, UserError):
        raise
    except MemoryError as error:
        raise BadCell("the video needs more memory than there is") from error
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        if not shown:
            raise BadCell(f"the video can't be decoded: {error or type(error).__name__}") from error
    if not shown:
        raise BadCell("the video has no frames")
    wanted = (np.arange(count) + 0.5) / count * min(at, seconds)
    chosen = (np.searchsorted(np.array(starts), wanted, side="right") - 1).clip(0)
    return np.stack([shown[number] for number in chosen.tolist()])


def by_pillow(data: bytes, size: int, max_pixels: int) -> Iterator[tuple[np.ndarray, float]]:
    """The frames of a moving picture as squares, and how long each lasts in seconds."""
    with opened(data, size, max_pixels) as image:
        w, h = image.size
        for number in itertools.count():  # how many there are would be known only once all of the file was read
            if number * w * h > PIXELS:
                raise BadCell(f"the video has more than {PIXELS:,} pixels")
            try:
                image.seek(number)
            except EOFError:
                return
            yield fitted(np.array(image.convert("RGBA").convert("RGBa")), size), (image.info.get("duration") or 1000 * STILL) / 1000


def by_file(data: bytes, size: int, max_pixels: int) -> Iterator[tuple[np.ndarray, float]]:
    """The same of pictures in an archive, in its order."""
    total = 0
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        for entry in files.infolist():
            if not frame_name(entry.filename):
                continue
            if entry.file_size > LARGEST:
                raise BadCell(f"'{entry.filename}' in the archive has {entry.file_size:,} bytes, more than the limit of {LARGEST:,}")
            with files.open(entry) as file:
                picture = file.read(LARGEST + 1)  # what a header says of a size is only said
            with opened(picture, size, max_pixels) as image:
                total += image.size[0] * image.size[1]
                if total > PIXELS or len(picture) > LARGEST:
                    raise BadCell(f"the frames in the archive are too large: more than {PIXELS:,} pixels or {LARGEST:,} bytes")
                yield fitted(np.array(image.convert("RGBA").convert("RGBa")), size), STILL


def by_av(data: bytes, size: int, max_pixels: int) -> Iterator[tuple[np.ndarray, float]]:
    """The same of a film."""
    try:
        import av
    except ImportError as error:
        raise UserError("Films (MP4, WebM, AVI) need the package PyAV. Install it with: pip install 'sensorium[video]'") from error
    with av.open(io.BytesIO(data)) as container:
        if not container.streams.video:
            raise BadCell("the file holds no video")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        w, h = stream.codec_context.width, stream.codec_context.height
        if w * h > max_pixels:
            raise BadCell(f"the video has {w} × {h} pixels, more than max_pixels={max_pixels}")
        lasts = float(1 / stream.average_rate) if stream.average_rate else STILL
        for number, frame in enumerate(container.decode(stream)):
            if number * w * h > PIXELS:
                raise BadCell(f"the video has more than {PIXELS:,} pixels")
            yield fitted(frame.to_ndarray(format="rgb24"), size), lasts


def fitted(pixels: np.ndarray, size: int) -> np.ndarray:
    """RGB or RGBa, uint8 [h, w, 3 or 4], shrunk or enlarged into a white square."""
    scale = size / max(pixels.shape[:2])
    h, w = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return centred(on_white(resized(pixels, h, w)), size)


CODECS = "libx264", "libopenh264", "mpeg4"
"""What MP4 is written with, the first that this FFmpeg has: browsers play H.264, and not the last one."""


def written(frames: np.ndarray, rate: float, ending: str, exact: bool = True) -> bytes:
    """Frames uint8 [n, h, w, 3] as a clip of ``rate`` frames a second: ".webp" or ".gif" in a loop, or ".mp4". ``exact``: a WebP holds the
    pixels as they are.

    Raises:
        UserError: ".mp4", and PyAV isn't installed.
    """
    out = io.BytesIO()
    if ending != ".mp4":
        first, *others = (Pillow.fromarray(frame) for frame in frames)
        how = {"quality": 80, "lossless": exact} if ending == ".webp" else {}
        first.save(out, ending[1:].upper(), save_all=True, append_images=others, duration=round(1000 / rate), loop=0, **how)
        return out.getvalue()
    try:
        import av
    except ImportError as error:
        raise UserError("MP4 needs the package PyAV. Install it with: pip install 'sensorium[video]', or choose format=webp.") from error
    with av.open(out, "w", format="mp4") as container:
        codec = next(name for name in CODECS if name in av.codec.codecs_available)
        stream = container.add_stream(codec, rate=max(1, round(rate)), options={"threads": "1"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()
