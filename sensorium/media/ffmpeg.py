"""Film and audio decoding of any container, by FFmpeg through PyAV, which is an extra. Each frame comes with its time
and upright."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.media.formats import DEMUXERS, HEAD_BYTES, media_type

MAX_FILM_PIXELS = 2_000_000_000
"""Pixels of all frames of a film together."""
DEFAULT_FRAME_SECONDS = 0.1
"""Duration of a frame whose file doesn't say."""
MAX_FRAME_SECONDS = 3600.0
"""Duration of one frame at most."""
COVER_DISPOSITIONS = 0x400 | 0x800
"""FFmpeg's dispositions of a stream that is no film: a sound's cover, and thumbnails."""


def container(data: bytes, what: str) -> Any:
    """Opened container of a film or a sound. FFmpeg gets the format by name, for left to guess it might take the bytes
    for a list of other files.

    Raises:
        BadCell: a format that isn't read, or a file that can't be opened.
        UserError: PyAV isn't installed.
    """
    reader = DEMUXERS.get(media_type(data[:HEAD_BYTES]) or "")
    if reader is None:
        raise BadCell(f"the {what} is in no format that is known")
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"A {what} of this format needs the package PyAV. Install it with: pip install 'sensorium[video]'"
        ) from error
    try:
        return av.open(io.BytesIO(data), format=reader)
    except (av.FFmpegError, ValueError, OSError):
        raise BadCell(f"the {what} can't be decoded: it is cut short or damaged") from None


def frames(data: bytes, max_pixels: int) -> Iterator[tuple[np.ndarray, float, float | None, float]]:
    """Frames of a film.

    Yields:
        RGB or RGBa, uint8 [h, w, 3 or 4], upright; the pixel aspect ratio, width to height; the start in seconds, None
            where the file doesn't say; and the duration.
    """
    with container(data, "video") as file:
        from av.video.reformatter import VideoReformatter

        streams = [stream for stream in file.streams.video if not int(stream.disposition) & COVER_DISPOSITIONS]
        if not streams:
            sound = " but a sound, which column.NAME.kind=audio reads" if file.streams.audio else ""
            raise BadCell(f"the file holds no film{sound}")
        stream, total, start = streams[0], 0, None
        stream.thread_type = "NONE"
        fits(stream.codec_context.width, stream.codec_context.height, max_pixels)
        reformatter = VideoReformatter()
        lasts = float(1 / stream.average_rate) if stream.average_rate else DEFAULT_FRAME_SECONDS
        for frame in file.decode(stream):
            fits(frame.width, frame.height, max_pixels)  # which it may have changed
            total += frame.width * frame.height
            if total > MAX_FILM_PIXELS:
                raise BadCell(f"the video has more than {MAX_FILM_PIXELS:,} pixels")
            time = frame.time
            start = time if start is None else start
            begins = None if time is None or start is None else max(0.0, float(time - start))
            long = (
                float(frame.duration * frame.time_base) if getattr(frame, "duration", 0) and frame.time_base else lasts
            )
            quarters, wide = turns(frame), aspect(stream.sample_aspect_ratio)
            pixels = np.ascontiguousarray(np.rot90(colours(frame, reformatter), quarters))
            yield (
                pixels,
                1 / wide if quarters % 2 else wide,
                begins,
                min(long if long > 0 else lasts, MAX_FRAME_SECONDS),
            )


def aspect(ratio: Any) -> float:
    """Pixel aspect ratio, width to height, as old films want it; 1 where that isn't known or can't be."""
    return float(ratio) if ratio and 1 / 8 <= ratio <= 8 else 1.0


def fits(w: int, h: int, max_pixels: int) -> None:
    """Refuse frames of more than ``max_pixels``.

    Raises:
        BadCell: they have more.
    """
    if w * h > max_pixels:
        raise BadCell(f"the video has {w} × {h} pixels, more than max_pixels={max_pixels}")


def colours(frame: Any, reformatter: Any) -> np.ndarray:
    """Pixels of a decoded frame as RGB, or with premultiplied colours as RGBa.

    One reformatter serves all frames and computes in one thread: each frame's own would start some, and keep them.
    """
    if not any(part.is_alpha for part in frame.format.components):
        return reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    pixels = reformatter.reformat(frame, format="rgba", threads=1).to_ndarray()
    alpha = pixels[..., 3:].astype(np.uint16)
    return np.concatenate([((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8), pixels[..., 3:]], -1)


def turns(frame: Any) -> int:
    """Quarter turns to the left by the frame's display matrix."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def samples(data: bytes, seconds: float, channels: int, slowest: int, fastest: int) -> tuple[np.ndarray, int, float]:
    """Decoded first ``seconds`` of the first sound in a file as float32 [t], mixed to one channel; its rate; and the
    duration in seconds that the file claims (0: none).

    Raises:
        BadCell: no sound, or nothing of it can be decoded.
        UserError: PyAV isn't installed.
    """
    with container(data, "sound") as file:
        import av

        if not file.streams.audio:
            raise BadCell("the file holds no sound" + (", only a film" if file.streams.video else ""))
        stream = file.streams.audio[0]
        stream.thread_type = "NONE"
        rate, parts, wanted = 0, [], math.inf
        claimed_seconds = (
            float(stream.duration * stream.time_base)
            if stream.duration and stream.time_base
            else (file.duration or 0) / 1e6
        )
        resampler = None
        try:
            for frame in file.decode(stream):
                if not rate:
                    rate = frame.sample_rate
                    if not slowest <= rate <= fastest or not 1 <= len(frame.layout.channels) <= channels:
                        raise BadCell(
                            f"the sound claims {len(frame.layout.channels)} channels at {rate} samples a second"
                        )
                    wanted = math.ceil(seconds * rate)
                    resampler = av.AudioResampler(
                        format="flt", rate=rate
                    )  # interleaved: PyAV reads no more than eight planes
                assert resampler is not None
                for even in resampler.resample(frame):
                    with np.errstate(invalid="ignore", over="ignore"):
                        parts.append(even.to_ndarray().reshape(-1, len(even.layout.channels)).mean(1, dtype=np.float32))
                    wanted -= len(parts[-1])
                if wanted <= 0:
                    break
        except (av.FFmpegError, ValueError, OSError):
            if not parts:
                raise BadCell("the sound is damaged: no samples could be decoded") from None
    wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return wave[: math.ceil(seconds * rate)], rate, claimed_seconds
