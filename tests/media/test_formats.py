"""What a file is: one table of endings and one reading of first bytes, for all that ask."""

from __future__ import annotations

import gzip
import io
import pickle
import sys
import zipfile

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow

from sensorium.core.errors import BadCell
from sensorium.core.types import Profile
from sensorium.data import media
from sensorium.data.media import media_type, named, sniff, unread_format
from sensorium.media import formats, images
from sensorium.media.formats import is_film, is_image, is_sound
from sensorium.media.video import animated
from sensorium.modalities import audio, video
from sensorium.modalities.audio import Audio
from sensorium.modalities.image import Image
from sensorium.modalities.video import Video


def picture(kind: str, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Pillow.new(mode, (9, 7)).save(out, kind)
    return out.getvalue()


def sound(kind: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.sin(np.arange(8000) / 10).astype(np.float32), 16000, format=kind)
    return out.getvalue()


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as files:
        for name in names:
            files.writestr(name, b"application/vnd.oasis.opendocument.text" if name == "mimetype" else b"x")
    return out.getvalue()


def box(name: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return (8 + len(data)).to_bytes(4, "big") + name + data


def movie(*handlers: bytes, brand: bytes = b"isom", late: bool = False, room: int = 0) -> bytes:
    """An MP4 without samples: its index of tracks at its beginning or end, each track ``room`` bytes longer."""
    tracks = [
        box(
            b"trak",
            box(b"tkhd", bytes(84)),
            box(b"mdia", box(b"hdlr", bytes(8), kind, bytes(13)), box(b"minf", bytes(room))),
        )
        for kind in handlers
    ]
    index = box(b"moov", box(b"mvhd", bytes(96), (len(handlers) + 1).to_bytes(4, "big")), *tracks)
    samples = box(b"mdat", bytes(3000))
    return box(b"ftyp", brand, bytes(4), b"isommp42") + (samples + index if late else index + samples)


def profile(cells: list, heads: list[bytes] | None = None) -> Profile:
    heads = [cell[:1024] for cell in cells] if heads is None else heads
    return Profile(
        name="x", type="binary", sample=cells, present=len(cells), rows=len(cells), distinct=len(cells), heads=heads
    )


def test_one_table_of_endings_serves_all() -> None:
    for kind, used in (("image", images.ENDINGS), ("audio", audio.ENDINGS), ("video", video.ENDINGS)):
        assert used == tuple(f".{ending}" for ending in formats.ENDINGS[kind])
        assert {media.named(f"a/b{ending.upper()}") for ending in used} == {kind}
    assert media.ENDINGS is formats.ENDINGS
    for ending in ("jfif", "apng", "jpe", "avif", "heic", "caf", "au", "snd", "w64", "rf64", "m4a", "3gp", "ogv"):
        assert named(f"x.{ending}") is not None, ending
    assert named("table.csv") is None and named("none") is None


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("AU", "audio/basic"),
        ("CAF", "audio/x-caf"),
        ("W64", "audio/x-w64"),
        ("RF64", "audio/wav"),
        ("FLAC", "audio/flac"),
    ],
)
def test_sounds_that_are_read_are_known_by_their_first_bytes(kind: str, wanted: str) -> None:
    head = sound(kind)[:64]
    assert sniff(head) == wanted and is_sound(head) and not is_image(head) and not is_film(head)
    assert Audio.claim(profile([sound(kind)] * 3)).sure > 0.9


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"])
def test_pictures_that_are_read_are_known_by_their_first_bytes(kind: str) -> None:
    data = picture(kind)
    assert (
        is_image(data[:64])
        and Image.claim(profile([data] * 3)).sure > 0.9
        and Image(size=16).read(data).shape == (16, 16, 3)
    )
    assert unread_format(data[:1024]) is None


@pytest.mark.parametrize(
    "start", [b"", b"II*\0\x08\0\0\0", b"MM\0*", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF0000WAVE"]
)
def test_dicom_is_no_picture_whatever_its_free_bytes_are(start: bytes) -> None:
    data = start.ljust(128, b"\0") + b"DICM\x02\0\0\0UL\x04\0" + bytes(300)
    assert not is_image(data) and not is_sound(data) and sniff(data) == "application/dicom"
    assert Image.claim(profile([data] * 4)) is None and unread_format(data)[0] == "DICOM"
    with pytest.raises(BadCell, match="DICOM"):
        Image().read(data)


def nifti(magic: bytes = b"n+1\0") -> bytes:
    return b"\x5c\x01\0\0".ljust(344, b"\0") + magic + bytes(40)


def saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


UNREAD = {
    "NIfTI": [
        nifti(),
        gzip.compress(nifti(), mtime=0),
        gzip.compress(nifti() + np.random.default_rng(0).bytes(9000), mtime=0)[:1024],
    ],
    "EDF": [
        (b"0       " + b"X X X X".ljust(80) + b"Startdate".ljust(80) + b"01.01.20" + b"01.01.01" + b"512     ").ljust(
            256
        )
        + b"EEG"
    ],
    "BDF": [b"\xffBIOSEMI" + b" " * 248],
    "PCD": [b"# .PCD v0.7 - Point Cloud Data\nVERSION 0.7\nFIELDS x y z\n", b"VERSION .7\nFIELDS x y z\nSIZE 4 4 4\n"],
    "LAS": [b"LASF".ljust(104, b"\0") + b"\x03" + bytes(30)],
    "LAZ": [b"LASF".ljust(104, b"\0") + b"\x83" + bytes(30)],
    "PLY": [b"ply\nformat ascii 1.0\n"],
    "HDF5": [b"\x89HDF\r\n\x1a\n" + bytes(90)],
    "PSD": [b"8BPS\0\x01" + bytes(90)],
    "SVG": [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?>\n<!-- x -->\n<svg/>",
        b"\xef\xbb\xbf <SVG>",
    ],
    "EPS": [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6" + bytes(30)],
    "camera raw": [
        b"II*\0\x10\0\0\0CR\x02\0" + bytes(90),
        b"IIRO\x08\0\0\0",
        b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom",
        b"II*\0\x08\0\0\0\x01\0" + (50706).to_bytes(2, "little") + b"\x01\0\x04\0\0\0\x01\x04\0\0" + bytes(4),
        b"MM\0*\0\0\0\x08\0\x02"
        + b"\0\xfe\0\x04\0\0\0\x01\0\0\0\x01"
        + b"\x01\x4a\0\x04\0\0\0\x01\0\0\x01\0"
        + bytes(4),
    ],
    "DjVu": [b"AT&TFORM\0\0\0\x20DJVU"],
    "MIDI": [b"MThd\0\0\0\x06\0\x01"],
    "NumPy": [array(), zipped("arr_0.npy")],
    "pickled Python objects": [pickle.dumps({"a": 1}), pickle.dumps([1, 2], protocol=2), saved({"w": torch.zeros(2)})],
    "ZIP": [zipped("notes.txt", "0.png")],
    "7z": [b"7z\xbc\xaf\x27\x1c" + bytes(30)],
    "RAR": [b"Rar!\x1a\x07\x01\0"],
    "gzip": [gzip.compress(b"some text", mtime=0)],
    "an Office document": [
        zipped("[Content_Types].xml"),
        zipped("mimetype"),
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(90),
    ],
    "an ELF program": [b"\x7fELF\x02\x01\x01"],
    "a Windows program": [b"MZ".ljust(60, b"\0") + b"\x40\0\0\0" + b"PE\0\0" + bytes(20)],
}


@pytest.mark.parametrize("name", UNREAD)
def test_formats_that_are_not_read_are_named_with_what_reads_them(name: str) -> None:
    for data in UNREAD[name]:
        found = unread_format(data[:1024], "x.png")
        assert found is not None and found[0] == name and len(found[1]) > 10, data[:20]
        assert not is_image(data) and not is_sound(data) and not animated(data[:1024])


def test_what_is_read_and_what_is_not_known_has_no_name() -> None:
    for data in (
        picture("PNG"),
        picture("TIFF"),
        sound("WAV"),
        sound("OGG"),
        movie(b"vide"),
        zipped("0.png", "1.png"),
        b"plain text",
        b"\x80",
        b"\x80\x04",
        b"MZ",
        b"1,2,3\n",
    ):
        assert unread_format(data[:1024], "scan.dcm") is None, data[:12]


@pytest.mark.parametrize(("path", "name"), [
    ("a/b.DCM", "DICOM"), ("x.nii.gz", "NIfTI"), ("x.nii", "NIfTI"), ("x.edf", "EDF"), ("x.laz", "LAZ"),
    ("x.ckpt", "pickled Python objects"), ("x.tar.gz", "gzip"),
    ("x.docx", "an Office document"), ("x.NEF", "camera raw"), ("x.png", None), ("x.wav", None),
    ("x.heic", None), ("x", None), ("", None), (None, None), ("x.csv", None),
])  # fmt: skip
def test_without_bytes_the_ending_tells(path: str | None, name: str | None) -> None:
    found = unread_format(b"", path)
    assert (found and found[0]) == name


def test_what_takes_an_extra_is_read_with_it_and_named_without(monkeypatch: pytest.MonkeyPatch) -> None:
    heic, pdf = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"%PDF-1.4\n"
    for package, data, extra, ending in (("pillow_heif", heic, "heic", "x.heic"), ("pypdfium2", pdf, "pdf", "x.pdf")):
        pytest.importorskip(package)
        assert is_image(data) and unread_format(data) is None and unread_format(b"", ending) is None
        monkeypatch.setitem(sys.modules, package, None)
        assert (
            not is_image(data)
            and f"sensorium[{extra}]" in unread_format(data)[1]
            and f"sensorium[{extra}]" in unread_format(b"", ending)[1]
        )
        with pytest.raises(BadCell, match=rf"sensorium\[{extra}\]"):
            Image().read(data)


def test_what_takes_another_pillow_is_named_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data, ending in (
        ("JPEG XL", b"\xff\x0a" + bytes(30), "x.jxl"),
        ("JPEG 2000", picture("JPEG2000"), "x.jp2"),
        ("AVIF", picture("AVIF"), None),
    ):
        monkeypatch.setattr(
            Pillow,
            "OPEN",
            {kind: how for kind, how in Pillow.OPEN.items() if kind not in ("JXL", "JPEGXL", "JPEG2000", "AVIF")},
        )
        assert (
            not is_image(data)
            and unread_format(data[:64])[0] == name
            and (ending is None or unread_format(b"", ending)[0] == name)
        )
        with pytest.raises(BadCell, match=name):
            Image().read(data)


def test_films_and_sounds_in_one_container_are_told_apart_by_their_tracks() -> None:
    for brand in (b"isom", b"mp42", b"qt  ", b"3gp4", b"M4V ", b"M4A "):
        assert is_film(movie(b"vide", b"soun", brand=brand)[:1024]) and is_film(
            movie(b"soun", b"vide", brand=brand)[:1024]
        )
        assert is_sound(movie(b"soun", brand=brand)[:1024]) and not animated(movie(b"soun", brand=brand)[:1024])
    assert is_sound(movie(b"soun", brand=b"M4A ", late=True)[:1024]) and is_sound(movie(b"soun", room=3000)[:1024]), (
        "an index that is longer, of one track"
    )
    assert is_film(movie(b"soun", b"vide", room=3000)[:1024]), "where more tracks may follow it is taken for a film"
    assert is_film(movie(b"soun", late=True)[:1024]), "the beginning doesn't tell"


def test_of_what_the_beginning_does_not_tell_the_whole_cell_or_the_name_does() -> None:
    songs, films = [movie(b"soun", late=True)] * 4, [movie(b"vide", late=True)] * 4
    assert Audio.claim(profile(songs)).sure > 0.9 and Video.claim(profile(songs)) is None
    assert Audio.claim(profile(films)) is None and Video.claim(profile(films)).sure > 0.9
    heads = [cell[:1024] for cell in songs]
    for ending, kind, other in (("m4a", Audio, Video), ("mp4", Video, Audio)):
        names = [f"{number}.{ending}" for number in range(4)]
        assert kind.claim(profile(names, heads)).sure > 0.9 and other.claim(profile(names, heads)) is None
    assert Video.claim(profile([f"{number}.m4a" for number in range(4)], [movie(b"vide")[:1024]] * 4)).sure > 0.9


def test_any_bytes_have_a_type_or_none() -> None:
    rng = np.random.default_rng(0)
    starts = [
        b"",
        b"II*\0",
        b"MM\0*",
        b"\0\0\0\x20ftypisom",
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        b"\x1aE\xdf\xa3",
        b"LASF",
        b"MZ",
        b"OggS",
        b"FLV",
        b"\x0b\x77",
    ]
    for number in range(600):
        data = starts[number % len(starts)] + rng.bytes(int(rng.integers(0, 1100)))
        kind, found = media_type(data), unread_format(data)
        assert (kind is None or "/" in kind) and (found is None or all(found))
