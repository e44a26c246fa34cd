"""Pictures of more than 8 bits: as bright as their files say, whatever they are stored in."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sensorium.core.errors import BadCell
from sensorium.media.images import colours, square

RAMP = np.tile(np.arange(0, 4096, 128, dtype=np.uint16), (32, 1)) + 37
"""Twelve bits."""


def tiff(values: np.ndarray, **tags: int) -> bytes:
    out, info = io.BytesIO(), ImageFileDirectory_v2()
    for name, value in tags.items():
        info[{"most": 281, "photometric": 262, "orientation": 274}[name]] = value
    Pillow.fromarray(values).save(out, "TIFF", tiffinfo=info)
    return out.getvalue()


def png(values: np.ndarray, significant: int | None = None) -> bytes:
    """Sixteen bits a channel, grey [h, w] or in colours [h, w, 3 or 4]."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    h, w, *more = values.shape
    kind = {(): 0, (3,): 2, (4,): 6}[tuple(more)]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    bits = b"" if significant is None else chunk(b"sBIT", bytes([significant] * (more[0] if more else 1)))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, kind, 0, 0, 0))
        + bits
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def plain(values: np.ndarray, white: int) -> np.ndarray:
    out = io.BytesIO()
    Pillow.fromarray((values.astype(float) * 255 / white).round().astype(np.uint8)).save(out, "PNG")
    return square(out.getvalue(), 32, 10**6).astype(int)


def apart(data: bytes, wanted: np.ndarray) -> int:
    return int(np.abs(square(data, 32, 10**6).astype(int) - wanted).max())


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("many", [False, True])
def test_fewer_bits_than_are_stored_are_all_there_is(bits: int, many: bool) -> None:
    values = ((RAMP >> 2 << bits - 10) + np.random.default_rng(0).integers(0, 4, RAMP.shape)).astype(np.uint16)
    values = np.stack([values, values[::-1], values[:, ::-1]], -1) if many else values
    wanted = plain(values, (1 << bits) - 1)
    assert apart(png(values, bits), wanted) <= 2
    scaled = (values << (16 - bits) | values >> (2 * bits - 16)).astype(np.uint16)
    assert apart(png(scaled, bits), wanted) <= 2, "scaled up to 16 bits, as PNG wants it"
    assert apart(png(scaled), wanted) <= 2 and square(png(values), 32, 10**6).max() < 80, "where it isn't said"
    dark = (values[:] >> 4 << (16 - bits)).astype(np.uint16)
    assert apart(png(dark, bits), plain(dark, 65535)) <= 2, "a dark picture that was scaled up stays dark"
    if not many:
        assert apart(tiff(values, most=(1 << bits) - 1), wanted) <= 1
        assert apart(tiff(values, most=int(values.max())), wanted) <= 1, "some write the largest value that there is"


def test_a_wrong_claim_is_not_believed() -> None:
    values = np.linspace(0, 65535, 1024).reshape(32, 32).astype(np.uint16)
    assert apart(tiff(values, most=4095), plain(values, 65535)) <= 1
    assert apart(png(values, 12), plain(values, 65535)) <= 1


@pytest.mark.parametrize("values", [RAMP.astype(np.uint16), (RAMP / 4096).astype(np.float32)])
def test_zero_may_be_white(values: np.ndarray) -> None:
    white = 65535 if values.dtype == np.uint16 else 1
    data = tiff(values)
    place = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    turned = data[:place] + b"\0\0" + data[place + 2 :]
    assert apart(turned, 255 - plain(values, white)) <= 1 and apart(data, plain(values, white)) <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (17, 5), (31, 31)])
def test_pixels_that_are_not_finite_are_bad_wherever_they_are(bad: float, place: tuple[int, int]) -> None:
    values = np.full((32, 32), 0.5, np.float32)
    values[place] = bad
    with pytest.raises(BadCell, match="not finite"):
        square(tiff(values), 32, 10**6)


def test_a_value_that_stands_for_transparency_is_white_in_16_bits_too() -> None:
    values = np.full((32, 32), 9000, np.uint16)
    values[:16] = 500
    out = io.BytesIO()
    Pillow.fromarray(values).save(out, "PNG", transparency=500)
    shown = square(out.getvalue(), 32, 10**6)
    assert (shown[:15] == 255).all() and (shown[17:] < 40).all()


@pytest.mark.parametrize("way", range(1, 9))
@pytest.mark.parametrize(
    "values",
    [RAMP * 16, np.stack([RAMP >> 4, RAMP >> 5, RAMP >> 6], -1).astype(np.uint8), (RAMP / 4096).astype(np.float32)],
)
@pytest.mark.parametrize("packing", ["raw", "tiff_lzw"])
def test_a_tiff_is_turned_once(way: int, values: np.ndarray, packing: str) -> None:
    """Its decoder turns it while it loads."""
    values = values[:12]
    there = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",
        7: "TRANSVERSE",
        8: "ROTATE_270",
    }
    upright = Pillow.fromarray(values)
    turned = upright.transpose(Pillow.Transpose[there[way]]) if way in there else upright
    data = []
    for image, orientation in ((upright, 1), (turned, way)):
        out, info = io.BytesIO(), ImageFileDirectory_v2()
        info[274] = orientation
        image.save(out, "TIFF", tiffinfo=info, compression=packing)
        data.append(out.getvalue())
    assert np.array_equal(*(square(cell, 32, 10**6) for cell in data)) and np.array_equal(
        *(colours(cell, 32, 10**6) for cell in data)
    )


def test_sixteen_bits_of_a_tiff_in_colours_say_what_is_white() -> None:
    values = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1)
    wanted = plain(values, 4095)
    for order, code in (("<", b"II*\0"), (">", b"MM\0*")):
        entries = [(256, 4, 1, 32), (257, 4, 1, 32), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 200),
                   (277, 3, 1, 3), (278, 4, 1, 32), (279, 4, 1, values.size * 2),
                   (281, 3, 1, 4095)]  # fmt: skip
        body = struct.pack(f"{order}3H", 16, 16, 16) + b"\0\0" + struct.pack(f"{order}H", len(entries))
        for tag, kind, count, value in entries:
            body += struct.pack(f"{order}HHI", tag, kind, count) + (
                struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value)
            )
        data = (code + struct.pack(f"{order}I", 16) + body + bytes(4)).ljust(200, b"\0") + values.astype(
            f"{order}u2"
        ).tobytes()
        assert apart(data, wanted) <= 2
