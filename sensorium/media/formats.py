"""File format detection, by a file's first bytes or the ending of its name, and the packages that read each format.

All that asks for a format asks here, so that what is claimed, read, listed in folders and shown agree. Sources: the
formats' own specifications.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
import zlib
from collections.abc import Callable, Iterator

from PIL import Image as Pillow

from sensorium.core.types import Profile

ENDINGS = {
    "image": ("png", "apng", "jpg", "jpeg", "jpe", "jfif", "gif", "webp", "bmp", "dib", "tif", "tiff", "ppm", "pgm",
              "pbm", "avif", "heic", "heif",
              "hif", "jp2", "j2k", "jpx", "jpf", "jxl", "pdf"),
    "audio": ("wav", "wave", "flac", "ogg", "oga", "opus", "mp3", "mp2", "aif", "aiff", "aifc", "au", "snd", "caf",
              "w64", "rf64", "m4a", "m4b", "aac",
              "amr", "wma", "mka", "weba", "ac3", "ape", "wv", "tta", "mpc", "dsf"),
    "video": ("mp4", "m4v", "mov", "webm", "mkv", "avi", "mpg", "mpeg", "3gp", "3g2", "ogv", "flv", "wmv", "asf",
              "m2ts", "vob"),
}  # fmt: skip
"""Endings of file names by kind: those that something here reads, if need be with an extra."""
KIND_OF_ENDING = {ending: kind for kind, endings in ENDINGS.items() for ending in endings}

FRAME_ENDINGS = tuple(f".{ending}" for ending in ENDINGS["image"] if ending != "pdf")
"""Endings of the files that, in a folder or an archive, are the frames of a clip."""

HEAD_BYTES = 1024
"""Bytes of a file that suffice to detect its format."""

MAGIC_NUMBERS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\xff\x0a", "image/jxl"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
    (b"%PDF-", "application/pdf"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b".snd", "audio/basic"),
    (b"caff\0\x01", "audio/x-caf"),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0", "audio/x-w64"),
    (b"#!AMR", "audio/amr"),
    (b"MAC \x96\x0f", "audio/x-ape"),
    (b"wvpk", "audio/x-wavpack"),
    (b"TTA1", "audio/x-tta"),
    (b"MPCK", "audio/x-musepack"),
    (b"MP+", "audio/x-musepack"),
    (b"DSD \x1c\0\0\0\0\0\0\0", "audio/x-dsf"),
    (b"\0\0\x01\xba", "video/mpeg"),
    (b"\0\0\x01\xb3", "video/mpeg"),
)
MEDIA_BRANDS = {
    **dict.fromkeys(("avif", "avis"), "image/avif"),
    **dict.fromkeys(
        ("heic", "heix", "hevc", "hevx", "heim", "heis", "hevm", "hevs", "mif1", "msf1", "mif2"), "image/heic"
    ),
    **dict.fromkeys(("M4A ", "M4B ", "M4P ", "F4A ", "F4B "), "audio/mp4"),
    "qt  ": "video/quicktime",
    "crx ": "image/x-raw",
}
BITMAP_HEADER_SIZES = {size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)}
WINDOWS_MEDIA = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c"
STREAM_IDENTIFIER = b"\x5b\xcf\x11\xa8\xfd\0\x80\x5f\x5c\x44\x2b"
"""Common part of the two identifiers of streams in Windows Media; before it stands a film's or a sound's own part."""
TRACK_CODEC = re.compile(rb"\x86[\x83-\xbf][VA]_")
"""A track's codec in Matroska, a film's or a sound's."""

PICTURE_TYPES = {
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "video/webp-animated",
    "image/bmp",
    "image/tiff",
    "image/avif",
    "image/x-portable",
}
"""Pictures that are read whatever is installed."""
EXTRA_PACKAGES = {"image/heic": ("pillow_heif", "heic", "HEIC"), "application/pdf": ("pypdfium2", "pdf", "PDF")}
"""Pictures that take a package: its name, the extra that installs it, and the format's name."""
PILLOW_PLUGINS = {"image/jp2": ("JPEG2000",), "image/jxl": ("JXL", "JPEGXL"), "image/avif": ("AVIF",)}
"""Pictures that Pillow reads where it was built with their library, by its names for them."""

DEMUXERS = {
    "video/mp4": "mov", "video/quicktime": "mov", "video/3gpp": "mov", "audio/mp4": "mov", "video/webm": "matroska",
    "video/matroska": "matroska",
    "audio/webm": "matroska", "audio/matroska": "matroska", "video/avi": "avi", "video/ogg": "ogg",
    "audio/ogg": "ogg", "video/x-flv": "flv",
    "audio/x-flv": "flv", "video/mpeg": "mpeg", "video/mp2t": "mpegts", "video/x-ms-asf": "asf",
    "audio/x-ms-wma": "asf", "audio/aac": "aac",
    "audio/amr": "amr", "audio/ac3": "ac3", "audio/x-ape": "ape", "audio/x-wavpack": "wv", "audio/x-tta": "tta",
    "audio/x-dsf": "dsf",
    "audio/wav": "wav", "audio/aiff": "aiff", "audio/basic": "au", "audio/x-caf": "caf", "audio/x-w64": "w64",
    "audio/mpeg": "mp3", "audio/flac": "flac",
}  # fmt: skip
"""FFmpeg's demuxer of each format. It is always named: left to guess, FFmpeg takes bytes for lists of other files, too,
and opens those."""


def named(path: str) -> str | None:
    """Kind of a file by the ending of its name: "image", "audio", "video" or None."""
    return KIND_OF_ENDING.get(path.rpartition(".")[2].lower()) if "." in path else None


def dotted(kind: str) -> tuple[str, ...]:
    """Endings of names of a kind of files, each with its dot."""
    return tuple(f".{ending}" for ending in ENDINGS[kind])


def installed(package: str) -> bool:
    """True where a package can be imported."""
    try:
        return sys.modules.get(package, package) is not None and importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def is_image(head: bytes) -> bool:
    """True where a file's first bytes are those of a picture that can be read here."""
    kind = media_type(head)
    if kind in EXTRA_PACKAGES:
        return installed(EXTRA_PACKAGES[kind][0])
    if kind in PILLOW_PLUGINS:
        return any(name in Pillow.OPEN for name in PILLOW_PLUGINS[kind])
    return kind in PICTURE_TYPES


def is_film(head: bytes) -> bool:
    """True where a file's first bytes are those of a film: MP4 and MOV, Matroska and WebM, AVI, MPEG and what else
    FFmpeg reads."""
    kind = media_type(head) or ""
    return kind.startswith("video/") and kind != "video/webp-animated"


def is_sound(head: bytes) -> bool:
    """True where a file's first bytes are those of a sound."""
    return (media_type(head) or "").startswith("audio/")


def media_type(head: bytes) -> str | None:
    """Media type of a file by its first bytes, such as "image/png"; None if it is none that is known.

    An animated WebP is "video/webp-animated". Most formats need 64 bytes, DICOM 132, and films and sounds in one
    container are distinguished by up to 1,024.
    """
    if head[128:132] == b"DICM":  # before it 128 bytes are free, and may be those of a TIFF
        return "application/dicom"
    for start, kind in MAGIC_NUMBERS:
        if head.startswith(start):
            return kind
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "image/x-raw" if camera(head) else "image/tiff"
    if head[:4] in (b"RIFF", b"RF64", b"RIFX"):
        if head[8:12] == b"WEBP":
            return "video/webp-animated" if head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2 else "image/webp"
        return {b"WAVE": "audio/wav", b"AVI ": "video/avi"}.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "audio/aiff"
    if head[:4] == b"OggS":
        return "video/ogg" if b"\x80theora" in head else "audio/ogg"
    if head[:4] == b"\x1aE\xdf\xa3":
        kind = "webm" if b"webm" in head[:64] else "matroska"
        tracks = {found[-2:] for found in TRACK_CODEC.findall(head)}
        return f"audio/{kind}" if tracks == {b"A_"} else f"video/{kind}"
    if head[4:8] == b"ftyp":
        return iso_type(head)
    if head[:3] == b"FLV" and len(head) > 4:
        return "audio/x-flv" if head[4] & 5 == 4 else "video/x-flv"
    if head[:16] == WINDOWS_MEDIA:
        return (
            "audio/x-ms-wma"
            if b"\x40\x9e\x69\xf8\x4d" + STREAM_IDENTIFIER in head
            and b"\xc0\xef\x19\xbc\x4d" + STREAM_IDENTIFIER not in head
            else "video/x-ms-asf"
        )
    if head[:2] == b"BM" and len(head) >= 18 and head[6:10] == b"\0\0\0\0" and head[14:18] in BITMAP_HEADER_SIZES:
        return "image/bmp"
    if (
        head[:2] in (b"P4", b"P5", b"P6")
        and head[2:3] in (b"\n", b" ", b"\t", b"\r")
        and head[3:4] in b"#0123456789"
        and len(head) > 8
    ):
        return "image/x-portable"
    if len(head) > 400 and any(
        head[at] == head[at + step] == head[at + 2 * step] == 0x47 for at, step in ((0, 188), (4, 192))
    ):
        return "video/mp2t"
    return bare_frame(head)


def camera(head: bytes) -> bool:
    """True where a TIFF is a camera's raw picture, whose first pixels are only a thumbnail: Canon's mark, a DNG's
    version, or a first picture that is marked as a smaller version of another."""
    if head[8:10] == b"CR":
        return True
    order = "little" if head[:2] == b"II" else "big"
    at, tags = int.from_bytes(head[4:8], order), {}
    if head[2:4] not in (b"*\0", b"\0*") or not 8 <= at < len(head) - 2:
        return False
    for number in range(min(int.from_bytes(head[at : at + 2], order), 100)):
        entry = head[at + 2 + 12 * number : at + 14 + 12 * number]
        tags[int.from_bytes(entry[:2], order)] = int.from_bytes(entry[8:12], order)
    return 50706 in tags or (330 in tags and tags.get(254) == 1)


def boxes(data: bytes, start: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Boxes of an MP4 or MOV, as far as ``data`` goes: each one's name, and the start and end of its content."""
    for _ in range(1000):
        size, name, begins = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], start + 8
        if size == 1:
            size, begins = int.from_bytes(data[start + 8 : start + 16], "big"), start + 16
        if len(name) < 4 or (size and size < begins - start):
            return
        yield name, begins, (start + size if size else len(data))
        start += size
        if not size or start >= len(data):
            return


def iso_type(head: bytes) -> str:
    """Media type of a file of MP4's family: by its brands, and by the kinds of its tracks where they can be seen.

    A film whose index is at its end shows nothing of its tracks at its beginning, and is taken for a film.
    """
    size = int.from_bytes(head[:4], "big")
    major, others = head[8:12].decode("latin-1"), head[16 : max(16, min(size, 256))].decode("latin-1")
    if major in ("mif1", "msf1", "mif2") and any(
        others[at : at + 4] in ("avif", "avis") for at in range(0, len(others), 4)
    ):
        return "image/avif"
    kind = MEDIA_BRANDS.get(major, "video/3gpp" if major[:2] == "3g" else "video/mp4")
    if kind.startswith("image/"):
        return kind
    tracks = handlers(head)
    if tracks is None:
        return kind
    film = b"vide" in tracks
    return (
        (kind if kind.startswith("video/") else "video/mp4") if film else ("audio/mp4" if b"soun" in tracks else kind)
    )


def handlers(head: bytes) -> set[bytes] | None:
    """Kinds of the tracks of an MP4 or MOV, such as ``vide`` and ``soun``; None where ``head`` doesn't show them
    all."""
    for name, begins, ends in boxes(head):
        if name != b"moov":
            continue
        found, at = set(), head.find(b"hdlr", begins, ends)
        while at >= 0:
            found.add(head[at + 12 : at + 16])
            at = head.find(b"hdlr", at + 4, ends)
        track = head.find(b"mvhd", begins, ends)
        only = track >= 0 and head[track + 4 : track + 5] == b"\0" and head[track + 100 : track + 104] == b"\0\0\0\x02"
        return found if ends <= len(head) or b"vide" in found or (b"soun" in found and only) else None
    return None


def undecided(head: bytes) -> bool:
    """True where a file is an MP4 or MOV whose beginning doesn't show whether it is a film or a sound."""
    return head[4:8] == b"ftyp" and iso_type(head).startswith("video/") and handlers(head) is None


def fuller(profile: Profile) -> Profile:
    """Profile whose first bytes of MP4s go as far as its sample does, where that holds the files themselves: their
    indices may be at their ends."""
    cells = [
        cell["bytes"] if isinstance(cell, dict) and "bytes" in cell else cell
        for cell in profile.sample[: len(profile.heads)]
    ]
    pairs = zip(profile.heads, cells)
    return dataclasses.replace(
        profile,
        heads=[
            cell if isinstance(cell, bytes) and head[4:8] == b"ftyp" and cell.startswith(head) else head
            for head, cell in pairs
        ],
    )


def sounds_by_name(profile: Profile) -> bool:
    """True where most files that may be films or sounds have names of sounds."""
    cells = [cell.get("path") if isinstance(cell, dict) else cell for cell in profile.sample]
    names = [cell for cell in cells if isinstance(cell, str)]
    return any(map(undecided, profile.heads)) and sum(named(name) == "audio" for name in names) > len(names) / 2


def bare_frame(head: bytes) -> str | None:
    """Media type of a bare frame of MPEG audio (11 bits of sync, then a version, layer, bit rate and sample rate that
    exist), of AAC or of AC-3; else None."""
    if head[:2] == b"\x0b\x77" and len(head) > 6:
        return "audio/ac3" if head[4] >> 6 != 3 and head[4] & 63 < 38 and head[5] >> 3 <= 10 else None
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    if layer == 0:
        return "audio/aac" if head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 < 13 else None
    ok = version != 1 and layer != 3 and head[2] >> 4 not in (0, 15) and head[2] >> 2 & 3 != 3
    return "audio/mpeg" if ok else None


def archive(head: bytes, wanted: Callable[[str], bool]) -> bool:
    """True where a file's first bytes are those of a ZIP archive whose first file has a name that is ``wanted``."""
    at = 0
    while head[at : at + 4] == b"PK\x03\x04":
        long, more, stored = (
            int.from_bytes(head[at + a : at + b], "little") for a, b in ((26, 28), (28, 30), (18, 22))
        )
        name = head[at + 30 : at + 30 + long].decode("utf-8", "replace")
        if not name.endswith("/"):
            return wanted(name)
        at += 30 + long + more + stored
    return False


def frame_name(name: str) -> bool:
    """True where a file of an archive or a folder is a frame, and not a by-product of an archiver."""
    return (
        name.lower().endswith(FRAME_ENDINGS) and "__MACOSX/" not in name and not name.rpartition("/")[2].startswith(".")
    )


def unpacked(head: bytes, most: int = 4096) -> bytes:
    """Beginning of a gzip file's content, as far as its first bytes go."""
    try:
        return zlib.decompressobj(31).decompress(head, most)
    except zlib.error:
        return b""
