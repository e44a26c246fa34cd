"""Video decoding: the bytes of a moving picture to evenly spaced small squares of RGB on white, and back.

Animated GIF, WebP and PNG are read by Pillow, and so are frames in files of their own, as a ZIP archive holds them,
each as a still picture is; MP4, WebM and what else FFmpeg knows by PyAV, which is an extra. As with pictures, a hostile
file is turned away before its frames are decoded, and as soon as they turn out to be too many.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image as Pillow

from sensorium.core.errors import BadCell, UserError
from sensorium.media import ffmpeg
from sensorium.media.formats import HEAD_BYTES, archive, frame_name, is_film, is_sound
from sensorium.media.image_files import BrokenImage, opened, picture, why
from sensorium.media.images import centred, fitted, on_white, resized

MAX_FRAMES = 4_000
"""Frames of a clip; and pixels of all of them together:"""
MAX_CLIP_PIXELS = 2_000_000_000
DEFAULT_FRAME_SECONDS = 0.1
"""Duration of a frame whose file doesn't say."""
MAX_FRAME_BYTES, MAX_LIST_BYTES = 64 << 20, 4 << 20
"""Bytes of a frame that is a file of its own; and of an archive's list of its files."""

film = is_film


def animated(head: bytes) -> bool:
    """True where a file's first bytes are those of a film or of a picture that moves."""
    return (
        (head.startswith(b"RIFF") and head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 2))
        or (head.startswith(b"GIF89a") and b"NETSCAPE2.0" in head)
        or (head.startswith(b"\x89PNG\r\n\x1a\n") and b"acTL" in head[:HEAD_BYTES])
        or film(head)
        or archive(head, frame_name)
    )


def frames_of(data: Any, count: int, size: int, max_pixels: int, seconds: float) -> np.ndarray:
    """Evenly spaced frames, ``count`` of them, of a clip's first ``seconds``, as RGB on white, uint8 [count, size,
    size, 3]. A still picture gives the same one each time; a clip that is cut short, or damaged after its first frame,
    gives what could be read.

    Raises:
        BadCell: no clip, cut short before its first frame, or larger than allowed.
        UserError: a film, and PyAV isn't installed.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise BadCell(f"expected the bytes of a video, found {type(data).__name__}")
    if not len(data):
        raise BadCell("the video file is empty")
    data, frames, starts, at = bytes(data), [], [], 0.0
    try:
        for pixels, begins, lasts in frame_reader(data)(data, size, max_pixels):
            begins = at if begins is None else max(begins, starts[-1] if starts else 0.0)
            if begins >= seconds and frames:
                at = seconds
                break
            if len(frames) >= MAX_FRAMES:
                raise BadCell(f"the video has more than {MAX_FRAMES} frames in its first {seconds:g} seconds")
            frames.append(pixels)
            starts.append(begins)
            at = begins + lasts
    except BrokenImage:
        if not frames:
            raise
    except (BadCell, UserError):
        raise
    except MemoryError as error:
        raise BadCell("the video needs more memory than there is") from error
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        if not frames:
            raise BadCell(f"the video can't be decoded: {why(error)}") from error
    if not frames:
        raise BadCell("the video has no frames")
    wanted = (np.arange(count) + 0.5) / count * min(at, seconds)
    chosen = (np.searchsorted(np.array(starts), wanted, side="right") - 1).clip(0)
    return np.stack([frames[number] for number in chosen.tolist()])


Moments = Iterator[tuple[np.ndarray, float | None, float]]
"""Frames as squares; the start of each in seconds, None: where the one before ends; and its duration."""


def frame_reader(data: bytes) -> Callable[[bytes, int, int], Moments]:
    """Reader of a clip's format."""
    head = data[:HEAD_BYTES]
    if is_sound(head):
        raise BadCell("the file holds a sound and no film: column.NAME.kind=audio reads it")
    return by_av if film(head) else by_file if archive(head, frame_name) else by_pillow


def by_pillow(data: bytes, size: int, max_pixels: int) -> Moments:
    """Frames of an animated picture."""
    with opened(data, size, max_pixels) as image:
        w, h = image.size
        for number in itertools.count():  # how many there are would be known only once all of the file was read
            if number * w * h > MAX_CLIP_PIXELS:
                raise BadCell(f"the video has more than {MAX_CLIP_PIXELS:,} pixels")
            if number:
                try:
                    image.seek(number)
                except EOFError:
                    return
            yield fitted(image, data, size), None, (image.info.get("duration") or 1000 * DEFAULT_FRAME_SECONDS) / 1000


def by_file(data: bytes, size: int, max_pixels: int) -> Moments:
    """Frames that are pictures in an archive, in its order, each read as a still one is."""
    total = 0
    with unzipped(data) as files:
        for entry in files.infolist():
            if not frame_name(entry.filename):
                continue
            if entry.file_size > MAX_FRAME_BYTES:
                raise BadCell(
                    f"'{entry.filename}' in the archive has {entry.file_size:,} bytes, "
                    f"more than the limit of {MAX_FRAME_BYTES:,}"
                )
            if entry.flag_bits & 1:
                raise BrokenImage(f"'{entry.filename}' in the archive takes a password")
            with files.open(entry) as file:
                found = file.read(MAX_FRAME_BYTES + 1)  # a size in a header is only a claim
            with picture(found) as raw, opened(raw, size, max_pixels) as image:
                total += image.size[0] * image.size[1]
                if total > MAX_CLIP_PIXELS or len(found) > MAX_FRAME_BYTES:
                    raise BadCell(
                        f"the frames in the archive are too large: more than {MAX_CLIP_PIXELS:,} pixels "
                        f"or {MAX_FRAME_BYTES:,} bytes"
                    )
                yield fitted(image, raw, size), None, DEFAULT_FRAME_SECONDS


def unzipped(data: bytes) -> zipfile.ZipFile:
    """Opened archive, its list of files read, unless that is too long."""
    end = data.rfind(b"PK\x05\x06")
    if end < 0:
        raise BadCell("the archive can't be decoded: it is cut short, for its list of files, at its end, isn't there")
    if int.from_bytes(data[end + 12 : end + 16], "little") > MAX_LIST_BYTES:
        raise BadCell(f"the archive's list of files has more than {MAX_LIST_BYTES:,} bytes")
    return zipfile.ZipFile(io.BytesIO(data))


def by_av(data: bytes, size: int, max_pixels: int) -> Moments:
    """Frames of a film."""
    for pixels, wide, begins, lasts in ffmpeg.frames(data, max_pixels):
        sides = pixels.shape[0], pixels.shape[1] * wide
        h, w = (max(1, round(side * size / max(sides))) for side in sides)
        yield centred(on_white(resized(pixels, h, w)), size), begins, lasts


MP4_CODECS = "libx264", "libopenh264", "mpeg4"
"""Codecs of a written MP4, of which the first that this FFmpeg has is taken: browsers play H.264, and not the last
one."""


def written(frames: np.ndarray, rate: float, ending: str, exact: bool = True) -> bytes:
    """Clip file of frames uint8 [n, h, w, 3] at ``rate`` frames a second: ".webp" or ".gif" in a loop, or ".mp4".
    ``exact``: a WebP holds the pixels as they are.

    Raises:
        UserError: ".mp4", and PyAV isn't installed.
    """
    out = io.BytesIO()
    if ending != ".mp4":
        first, *others = (Pillow.fromarray(frame) for frame in frames)
        how = {"quality": 80, "lossless": exact} if ending == ".webp" else {}
        first.save(
            out, ending[1:].upper(), save_all=True, append_images=others, duration=round(1000 / rate), loop=0, **how
        )
        return out.getvalue()
    try:
        import av
    except ImportError as error:
        raise UserError(
            "MP4 needs the package PyAV. Install it with: pip install 'sensorium[video]', or choose format=webp."
        ) from error
    with av.open(out, "w", format="mp4") as container:
        codec = next(name for name in MP4_CODECS if name in av.codec.codecs_available)
        stream = container.add_stream(codec, rate=max(1, round(rate)), options={"threads": "1"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()
