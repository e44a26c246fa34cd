"""Audio decoding: the bytes of a file to the samples of its beginning, by libsndfile, and by FFmpeg where that
fails."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import soundfile

from sensorium.core.errors import BadCell, UserError
from sensorium.media import ffmpeg
from sensorium.media.formats import DEMUXERS, HEAD_BYTES, media_type
from sensorium.media.unsupported import by_content

MAX_CHANNELS, MIN_RATE, MAX_RATE = 32, 1_000, 400_000
"""Channels, and bounds of the sample rate, beyond which a header is not believed."""
BLOCK_SAMPLES, SMALL_BLOCK = 1 << 15, 1 << 8
"""Samples that are read together; and those of a second attempt at a damaged sound, of which what is before the damage
is used."""
LIBSNDFILE_FORMATS = {
    "audio/wav": "WAV",
    "audio/flac": "FLAC",
    "audio/ogg": "OGG",
    "audio/mpeg": "MP3",
    "audio/aiff": "AIFF",
    "audio/basic": "AU",
    "audio/x-caf": "CAF",
    "audio/x-w64": "W64",
}
"""Formats that libsndfile reads, and their names."""
UNKNOWN_ERRORS = {1, 4, 18}
"""Error codes of libsndfile for an unknown format or encoding."""
CONTAINER_FORMATS = {"audio/wav", "audio/aiff", "audio/basic", "audio/x-caf", "audio/x-w64"}
"""Formats that hold any encoding; of those that it doesn't know libsndfile reports all kinds of errors."""
MIN_BYTES_PER_SECOND, MP3_BYTES_PER_SECOND = 10, 900
"""Bytes that a second of sound takes at least, of silence in FLAC or Opus, and of an MP3: so a header that claims more
than the file can hold isn't believed."""


class Bytes(io.BytesIO):
    """Seekable bytes. libsndfile seeks where a damaged header sends it: what is before the start is the start."""

    def seek(self, offset: int, whence: int = 0) -> int:
        return super().seek(
            max(offset, -self.tell() if whence == 1 else -len(self.getbuffer()) if whence == 2 else 0), whence
        )


def decoded(data: Any, seconds: float, max_minutes: float) -> tuple[np.ndarray, int]:
    """Decoded first ``seconds`` of a sound as float32 [t], mixed to one channel, and its rate.

    Raises:
        BadCell: not a sound, no samples, longer than ``max_minutes``, samples that are not finite, or one that takes
            PyAV, which isn't installed.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise BadCell(f"expected the bytes of a sound, found {type(data).__name__}")
    if not len(data):
        raise BadCell("the sound file is empty")
    data = bytes(data)
    kind = media_type(data[:HEAD_BYTES]) or ""
    try:
        wave, rate = (
            by_ffmpeg(data, seconds, max_minutes)
            if kind in DEMUXERS and kind not in LIBSNDFILE_FORMATS
            else by_libsndfile(data, kind, seconds, max_minutes)
        )
    except MemoryError as error:
        raise BadCell("the sound needs more memory than there is") from error
    if not len(wave):
        raise BadCell("the sound file holds no samples")
    if not np.isfinite(wave).all():
        raise BadCell("the sound holds samples that are not finite numbers")
    return wave, rate


def by_libsndfile(
    data: bytes, kind: str, seconds: float, max_minutes: float, block: int = BLOCK_SAMPLES
) -> tuple[np.ndarray, int]:
    """Decoding by libsndfile of WAV, FLAC, OGG, MP3, AIFF, AU, CAF and W64, or of their rarer encodings by FFmpeg."""
    parts, rate, opened = [np.zeros(0, np.float32)], MIN_RATE, False
    try:
        with soundfile.SoundFile(Bytes(data)) as file:
            rate, channels, frames, opened = file.samplerate, file.channels, file.frames, True
            if not MIN_RATE <= rate <= MAX_RATE or not 1 <= channels <= MAX_CHANNELS:
                raise BadCell(f"the sound claims {channels} channels at {rate} samples a second")
            wanted = math.ceil(seconds * rate)
            if plausible_duration(data, kind, frames / rate):
                too_long(frames / rate, max_minutes)
                wanted = min(frames, wanted)
            while wanted > 0 and len(some := file.read(min(wanted, block), dtype="float32", always_2d=True)):
                with np.errstate(invalid="ignore", over="ignore"):  # of what isn't finite, which is reported below
                    parts.append(some.mean(1))
                wanted -= len(some)
    except soundfile.LibsndfileError as error:
        if opened and block > SMALL_BLOCK:
            return by_libsndfile(data, kind, seconds, max_minutes, SMALL_BLOCK)
        if len(parts) == 1:
            return unread(
                data,
                kind,
                not opened and (error.code in UNKNOWN_ERRORS or kind in CONTAINER_FORMATS),
                seconds,
                max_minutes,
            )
    except (soundfile.SoundFileError, ValueError, TypeError, OSError, OverflowError):
        if len(parts) == 1:
            raise BadCell(damage(kind)) from None
    return np.concatenate(parts), rate


def unread(data: bytes, kind: str, strange: bool, seconds: float, max_minutes: float) -> tuple[np.ndarray, int]:
    """Fallback where libsndfile fails: FFmpeg, if the encoding is one that is ``strange`` to libsndfile.

    Raises:
        BadCell: FFmpeg can't either, or the file is damaged.
    """
    if kind not in LIBSNDFILE_FORMATS:
        found = by_content(data[:HEAD_BYTES]) or (
            f"a picture ({kind.partition('/')[2]})" if kind.startswith("image/") else "",
            "",
        )
        reason = (
            f"the file is {found[0]}, which isn't read as a sound" if found[0] else "it is in no format that is read"
        )
        raise BadCell(
            f"the sound can't be decoded: {reason} ({', '.join(LIBSNDFILE_FORMATS.values())}; "
            "with the extra video M4A, AAC, AMR, WMA and the sound of films)"
        )
    if not strange or len(data) < 64:
        raise BadCell(damage(kind))
    return by_ffmpeg(data, seconds, max_minutes, damage(kind))


def damage(kind: str) -> str:
    """Message of a damaged file."""
    name = LIBSNDFILE_FORMATS.get(kind, "sound")
    return f"the {name} can't be decoded: it is cut short or damaged, and gives no samples"


def by_ffmpeg(data: bytes, seconds: float, max_minutes: float, otherwise: str = "") -> tuple[np.ndarray, int]:
    """Decoding by FFmpeg of anything it reads, films too; ``otherwise`` is the error message in place of its own."""
    try:
        wave, rate, claimed_seconds = ffmpeg.samples(data, seconds, MAX_CHANNELS, MIN_RATE, MAX_RATE)
    except UserError:
        raise BadCell(
            f"{otherwise}; if its encoding is a rare one, pip install 'sensorium[video]' reads it"
            if otherwise
            else "a sound of this format (M4A, AAC, AMR, WMA, or a film's) takes FFmpeg: pip install 'sensorium[video]'"
        ) from None
    except BadCell:
        if otherwise:
            raise BadCell(otherwise) from None
        raise
    if plausible_duration(data, "", claimed_seconds):
        too_long(claimed_seconds, max_minutes)
    return wave, rate


def plausible_duration(data: bytes, kind: str, claimed_seconds: float) -> bool:
    """True where a file can hold as many seconds as its header claims. Where it can't, its duration isn't known before
    it is decoded."""
    return (
        0 <= claimed_seconds <= len(data) / (MP3_BYTES_PER_SECOND if kind == "audio/mpeg" else MIN_BYTES_PER_SECOND) + 1
    )


def too_long(seconds: float, max_minutes: float) -> None:
    if seconds > max_minutes * 60:
        raise BadCell(f"the sound lasts {seconds / 60:.1f} minutes, more than max_minutes={max_minutes:g}")
