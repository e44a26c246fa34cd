"""Pictures of every kind are read; hostile ones are turned away cheaply; augmentation and stems keep their promises."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from sensorium.core.errors import BadCell
from sensorium.core.settings import build
from sensorium.core.types import Profile
from sensorium.media.images import opened, square
from sensorium.modalities._augmentation import ImageAugmentation
from sensorium.modalities.image import Image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def saved(image: Pillow.Image, format: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def picture(width: int = 60, height: int = 60, seed: int = 0) -> Pillow.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Pillow.fromarray(small).resize((width, height), Pillow.Resampling.BICUBIC)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int = 8, colour: int = 2, body: bytes = b"", extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(body, 9)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def readable() -> dict[str, bytes]:
    rgb = picture()
    alpha = rgb.copy()
    alpha.putalpha(128)
    frames = [picture(seed=seed) for seed in range(3)]
    deep = Pillow.fromarray(np.full((20, 20), 40000, np.uint16))
    cases = {
        "rgb": saved(rgb),
        "rgba": saved(alpha),
        "la": saved(alpha.convert("LA")),
        "grey": saved(rgb.convert("L")),
        "bilevel": saved(rgb.convert("1")),
        "palette": saved(rgb.convert("P")),
        "palette with a transparent entry": saved(rgb.quantize(8), transparency=3),
        "palette with alphas": saved(rgb.quantize(8), transparency=bytes(range(0, 256, 32))),
        "rgb with a transparent colour": saved(rgb, transparency=(1, 2, 3)),
        "interlaced": saved(rgb, interlace=1),
        "16 bits grey": saved(deep),
        "16 bits rgb": png(2, 2, 16, 2, (b"\0" + b"\xff\xff" * 6) * 2),
        "16 bits grey tiff": saved(deep, "TIFF"),
        "32 bits tiff": saved(Pillow.fromarray(np.arange(400, dtype=np.int32).reshape(20, 20) * 100_000), "TIFF"),
        "float tiff": saved(Pillow.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)), "TIFF"),
        "jpeg": saved(rgb, "JPEG"),
        "progressive jpeg": saved(rgb, "JPEG", progressive=True),
        "grey jpeg": saved(rgb.convert("L"), "JPEG"),
        "cmyk jpeg": saved(rgb.convert("CMYK"), "JPEG"),
        "cmyk tiff": saved(rgb.convert("CMYK"), "TIFF"),
        "lab tiff": saved(Pillow.new("LAB", (9, 9), (128, 128, 128)), "TIFF"),
        "gif": saved(rgb, "GIF"),
        "animated gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated png": saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "animated webp": saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "webp": saved(rgb, "WEBP"),
        "webp with alpha": saved(alpha, "WEBP", lossless=True),
        "bmp": saved(rgb, "BMP"),
        "one pixel": saved(Pillow.new("RGB", (1, 1), RED)),
        "one line": saved(Pillow.new("RGB", (3000, 1), RED)),
        "one column": saved(Pillow.new("RGBA", (1, 3000), (*RED, 255))),
        "large": saved(picture(2500, 1500), compress_level=1),
        "large palette": saved(picture(2500, 1500).convert("P"), compress_level=1),
        "large 16 bits": saved(Pillow.fromarray(np.full((2000, 1500), 9999, np.uint16)), compress_level=1),
    }
    return cases


READABLE = readable()


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("size", [16, 48])
def test_every_kind_is_read(name, size):
    pixels = Image(size=size).read(READABLE[name])
    assert pixels.shape == (size, size, 3) and pixels.dtype == np.uint8
    assert name in ("16 bits rgb",) or pixels.min() < 255


@pytest.mark.parametrize(
    "name", ["jpeg", "webp", "gif", "bmp", "interlaced", "animated gif", "animated png", "animated webp"]
)
def test_kinds_agree_on_the_same_picture_and_the_first_frame(name):
    ours, plain = (Image().read(READABLE[key]).astype(int) for key in (name, "rgb"))
    assert np.abs(ours - plain).mean() < 8


def test_transparency_becomes_white():
    clear = Pillow.new("RGBA", (48, 48), (*RED, 0))
    assert (Image().read(saved(clear)) == 255).all()
    half = Image().read(saved(Pillow.new("RGBA", (48, 48), (*RED, 128))))
    assert np.abs(half.reshape(-1, 3) - np.array([255, 127, 127])).max() <= 1


def test_hidden_colours_of_transparent_pixels_do_not_bleed():
    image = Pillow.new("RGBA", (96, 96), (0, 255, 0, 0))
    image.paste((*RED, 255), (0, 0, 49, 96))
    pixels = Image().read(saved(image)).astype(int)
    assert (pixels[..., 1] <= pixels[..., 0]).all() and (pixels[..., 1] - pixels[..., 2] == 0).all()


def test_sixteen_bits_are_scaled_not_cut():
    pixels = Image().read(saved(Pillow.fromarray(np.full((20, 20), 32768, np.uint16))))
    assert np.abs(pixels.astype(int) - 128).max() <= 1


def test_cmyk_and_jpeg_keep_their_colours():
    red = Image().read(saved(Pillow.new("RGB", (64, 64), RED).convert("CMYK"), "JPEG")).astype(int)
    assert np.abs(red - np.array(RED)).max() < 30


@pytest.mark.parametrize(
    ("sides", "trim", "decoded"),
    [((500, 375), False, (250, 188)), ((375, 500), False, (188, 250)), ((500, 375), True, (500, 375)),
    ((447, 300), False, (447, 300)),
     ((1800, 900), False, (225, 113)), ((100, 50), False, (100, 50))],
)  # fmt: skip
def test_a_jpeg_is_decoded_no_larger_and_no_smaller_than_it_is_shown(sides, trim, decoded):
    smooth = picture(7, 5).resize(sides, Pillow.Resampling.BICUBIC)
    data = saved(smooth, "JPEG", quality=95)
    with opened(data, 224, 10**8, trim) as image:
        image.load()
        assert image.size == decoded
    shown = square(data, 224, 10**8, trim).astype(int)
    assert np.abs(shown - square(saved(smooth), 224, 10**8, trim)).mean() < 3


@pytest.mark.parametrize(
    "how",
    [
        {"quality": 90},
        {"quality": 40, "subsampling": 2},
        {"quality": 95, "subsampling": 0},
        {"quality": 85, "subsampling": 1},
        {"quality": 90, "progressive": True},
        {"quality": 90, "keep_rgb": True},
        {"quality": 90, "restart_marker_rows": 1},
    ],
)
@pytest.mark.parametrize("sides", [(500, 375), (97, 301), (1801, 905), (8, 3), (7, 5), (1, 1)])
def test_both_decoders_of_jpeg_make_the_same_pixels(how, sides, monkeypatch):
    assert sys.modules["sensorium.media.images"].simplejpeg is not None, "pip install 'sensorium[jpeg]'"
    noise = np.random.default_rng(0).integers(-60, 60, (sides[1], sides[0], 3))
    data = saved(
        Pillow.fromarray((np.asarray(picture(*sides)).astype(int) + noise).clip(0, 255).astype(np.uint8)), "JPEG", **how
    )
    damaged = data[: len(data) * 2 // 3]

    def read(cell: bytes) -> np.ndarray | str:
        try:
            return square(cell, 64, 10**8)
        except BadCell as error:
            return str(error)

    fast = [read(data), read(damaged), read(saved(Pillow.new("CMYK", sides, (0, 90, 180, 10)), "JPEG"))]
    monkeypatch.setattr("sensorium.media.images.simplejpeg", None)
    slow = [read(data), read(damaged), read(saved(Pillow.new("CMYK", sides, (0, 90, 180, 10)), "JPEG"))]
    assert all(np.array_equal(a, b) for a, b in zip(fast, slow, strict=True))


def test_aspect_ratio_is_kept_in_a_white_square():
    pixels = Image().read(saved(Pillow.new("RGB", (96, 48), RED)))
    assert (pixels[12:36] == RED).all() and (pixels[:12] == WHITE).all() and (pixels[36:] == WHITE).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_undone(orientation, format):
    upright = picture(64, 32)
    there = {
        1: None, 2: Pillow.Transpose.FLIP_LEFT_RIGHT, 3: Pillow.Transpose.ROTATE_180,
        4: Pillow.Transpose.FLIP_TOP_BOTTOM, 5: Pillow.Transpose.TRANSPOSE, 6: Pillow.Transpose.ROTATE_90,
        7: Pillow.Transpose.TRANSVERSE, 8: Pillow.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    turned = saved(upright if there is None else upright.transpose(there), format, exif=exif)
    difference = Image().read(turned).astype(int) - Image().read(saved(upright)).astype(int)
    assert np.abs(difference).mean() < 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_lose_the_picture():
    data = saved(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff")
    assert np.abs(Image().read(data).astype(int) - Image().read(READABLE["jpeg"]).astype(int)).max() == 0


def test_bands_of_a_large_picture_give_what_the_whole_does():
    large = picture(2500, 1500)
    direct = large.resize((48, 29), Pillow.Resampling.BICUBIC, reducing_gap=2.0)
    for mode in ("RGB", "RGBA", "CMYK"):
        format = "TIFF" if mode == "CMYK" else "PNG"
        pixels = Image().read(saved(large.convert(mode), format))
        rows = np.flatnonzero((pixels != 255).any((1, 2)))
        assert 28 <= len(rows) <= 30
        assert np.abs(pixels[9:38].astype(int) - np.asarray(direct).astype(int)).mean() < 3


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_file_cut_short_is_a_bad_cell(format):
    data = saved(picture(200, 200), format)
    for share in (0.05, 0.3, 0.6):
        with pytest.raises(BadCell):
            Image().read(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    "cell", [b"", None, "cat.png", 3, b"no picture at all", b"\x89PNG\r\n\x1a\n", b"RIFF", b"<svg/>"]
)
def test_what_is_no_picture_is_a_bad_cell(cell):
    with pytest.raises(BadCell):
        Image().read(cell)


def test_random_damage_never_raises_anything_else():
    rng, image = np.random.default_rng(0), Image()
    for name in (
        "rgb",
        "palette with alphas",
        "jpeg",
        "progressive jpeg",
        "webp",
        "animated gif",
        "16 bits grey tiff",
        "bmp",
    ):
        for _ in range(25):
            data = bytearray(READABLE[name])
            for place in rng.integers(0, len(data), 6):
                data[place] = rng.integers(0, 256)
            try:
                assert image.read(bytes(data)).shape == (48, 48, 3)
            except BadCell as error:
                assert str(error)


def bombs() -> dict[str, bytes]:
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000), 9))
    profile = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(50_000_000), 9))
    blank = saved(Pillow.new("L", (4000, 4000)), "JPEG", progressive=True)
    scan = blank[blank.rindex(b"\xff\xda") : -2]
    bmp = saved(Pillow.new("1", (16, 16)), "BMP")
    return {
        "a header of 10 gigapixels": png(100_000, 100_000, 1, 0, bytes(1000)),
        "a header of 65 megapixels": png(8100, 8100, 8, 0, bytes(1000)),
        "nothing, 60 megapixels of it": png(7800, 7700, 8, 6, bytes(7700 * (7800 * 4 + 1))),
        "many texts": png(2, 2, body=bytes(14), extra=text * 100),
        "one long text": png(
            2, 2, body=bytes(14), extra=png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000), 9))
        ),
        "a huge colour profile": png(2, 2, body=bytes(14), extra=profile),
        "a thousand scans": blank[:-2] + scan * 1000 + b"\xff\xd9",
        "a webp of 62 megapixels": saved(Pillow.new("L", (16000, 3900)), "WEBP", lossless=True, quality=0, method=0),
        "a gif of 62 megapixels": saved(Pillow.new("P", (8000, 7800)), "GIF"),
        "a bmp header": bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:],
    }


def test_a_bomb_costs_little(tmp_path):
    """Less than 256 MiB and half a second of one core each, measured in a process of its own."""
    for name, data in bombs().items():
        (tmp_path / name.replace(" ", "_")).write_bytes(data)
    code = """
import pathlib, resource, sys, time
from sensorium.core.errors import BadCell
from sensorium.modalities.image import Image
image = Image()
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        image.read(data)
        print(path.name, "was read")
    except BadCell:
        cost = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time() - start
        print(path.name, *cost)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == len(bombs())
    for name, *cost in lines:
        assert cost[0] != "was", f"{name} was read"
        assert float(cost[0]) < 256 * 1024 and float(cost[1]) < 0.5, (name, cost)


def test_the_limit_is_a_setting():
    data = saved(Pillow.new("RGB", (100, 100)))
    assert Image(max_pixels=10_000).read(data).shape == (48, 48, 3)
    with pytest.raises(BadCell, match="max_pixels=9999"):
        Image(max_pixels=9_999).read(data)


def test_threads_read_what_one_reads():
    image = Image()
    cells = [READABLE[name] for name in READABLE] * 3
    with ThreadPoolExecutor(8) as pool:
        for ours, alone in zip(pool.map(image.read, cells), map(image.read, cells), strict=True):
            np.testing.assert_array_equal(ours, alone)


# Batches


def batch(image: Image, count: int = 8) -> dict[str, torch.Tensor]:
    return image.collate([image.read(saved(picture(seed=seed))) for seed in range(count)])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_collate_keeps_the_pixels_channels_last():
    image = Image()
    cells = [image.read(saved(picture(seed=seed))) for seed in range(3)]
    pixels = image.collate(cells)["pixels"]
    assert pixels.dtype == torch.uint8 and pixels.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(pixels.permute(0, 2, 3, 1).numpy(), np.stack(cells))


def test_augmenting_is_a_function_of_the_generator_and_leaves_its_input():
    image = Image()
    cells = batch(image)
    before = cells["pixels"].clone()
    a, b, c = (image.augment(cells, seeded(seed))["pixels"] for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and torch.equal(cells["pixels"], before)
    assert a.shape == before.shape and a.dtype == torch.uint8
    assert a.is_contiguous(memory_format=torch.channels_last)


def with_augmentation(**settings):
    return Image(augmentation=ImageAugmentation(**settings))


def test_augmenting_by_nothing_changes_nothing():
    image = with_augmentation(turn=0, zoom=0, move=0, colour=0)
    cells = batch(image)
    difference = image.augment(cells, seeded())["pixels"].int() - cells["pixels"].int()
    assert difference.abs().max() <= 1


def test_white_stays_white():
    white = {"pixels": torch.full((16, 3, 48, 48), 255, dtype=torch.uint8)}
    assert (Image().augment(white, seeded())["pixels"] == 255).all()


@pytest.mark.parametrize("flip", [False, True])
def test_pictures_are_mirrored_only_when_asked(flip):
    image = with_augmentation(turn=0, zoom=0, move=0, colour=0, flip=flip)
    cells = batch(image, 32)
    after, before = image.augment(cells, seeded())["pixels"].int(), cells["pixels"].int()
    same = (after - before).abs().amax((1, 2, 3)) <= 1
    mirrored = (after - before.flip(3)).abs().amax((1, 2, 3)) <= 1
    assert (same | mirrored).all() and bool(mirrored.any()) == flip and same.any()


def test_a_shift_is_as_large_as_said():
    image = with_augmentation(turn=0, zoom=0, move=0.25, colour=0)
    pixels = torch.full((64, 3, 48, 48), 255, dtype=torch.uint8)
    pixels[:, :, 23:25, 23:25] = 0
    ink = 255 - image.augment({"pixels": pixels}, seeded())["pixels"][:, 0].double()
    where = (ink.sum(1) @ torch.arange(48.0).double()) / ink.sum((1, 2)) - 23.5
    assert 9 < where.abs().max() <= 12.01 and where.min() < -6 < 6 < where.max()


def test_colours_change_and_shapes_stay():
    image = with_augmentation(turn=0, zoom=0, move=0, colour=0.3)
    cells = batch(image, 16)
    after, before = image.augment(cells, seeded())["pixels"].float(), cells["pixels"].float()
    assert (after - before).abs().mean() > 3
    grey_a, grey_b = (255 - after.mean(1)).flatten(1), (255 - before.mean(1)).flatten(1)
    alike = torch.nn.functional.cosine_similarity(grey_a, grey_b)
    assert alike.min() > 0.98


@pytest.mark.parametrize("norm", ["layer", "weight", "batch", "none"])
@pytest.mark.parametrize("size", [16, 48, 64])
def test_the_stem_gives_a_token_for_each_sixteen_pixels(size, norm):
    image = Image(size=size, norm=norm)
    tokens, mask = image.stem(40)(batch(image, 3))
    assert tokens.shape == (3, (size // 16) ** 2, 40) and mask is None


@pytest.mark.parametrize("settings", [{"norm": "layer"}, {"norm": "weight"}, {"stem": "patches"}])
def test_a_rows_tokens_do_not_depend_on_its_neighbours(settings):
    image = Image(**settings)
    stem, cells = image.stem(32), batch(image, 4)
    alone = stem({"pixels": cells["pixels"][1:2]})[0]
    torch.testing.assert_close(stem(cells)[0][1:2], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [{"norm": "layer"}, {"norm": "weight"}, {"stem": "patches"}])
def test_the_stem_learns_in_low_precision_of_both_kinds(settings):
    image = Image(**settings)
    cells = batch(image, 4)
    autocast, pure = image.stem(32), image.stem(32).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = autocast(cells)[0]
    (tokens.float().square().mean() + pure(cells)[0].float().square().mean()).backward()
    for stem in (autocast, pure):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in stem.parameters())


@pytest.mark.parametrize("settings", [{}, {"norm": "weight"}])
def test_the_stem_tells_pictures_apart_after_a_few_steps(settings):
    torch.manual_seed(0)
    image = Image(**settings)
    stem, cells = image.stem(32), batch(image, 16)
    head = torch.nn.Linear(32, 16)
    optimizer = torch.optim.AdamW([*stem.parameters(), *head.parameters()], lr=2e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(head(stem(cells)[0].mean(1)), torch.arange(16))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3


# Everything else of the contract


def test_settings_are_checked():
    for given, size in ((50, 48), (0, 16), (100_000, 1024)):
        image = Image(size=given)
        assert image.size == size and f"size={size} is used" in image.clamped[0]
    image = Image(stem="patches", size=50, patch=7)
    assert image.patch == 8 and len(image.clamped) == 2 and "size=48: patch=8 is used" in image.clamped[1]
    assert not Image(size=64, patch=16).clamped
    assert build(Image, {"size": "64", "stem": "patches", "flip": "yes"}, "column.photo").size == 64


def test_features_have_one_length_and_say_what_is_missing():
    image = Image()
    red, blue = (image.features(image.read(saved(Pillow.new("RGB", (50, 50), c)))) for c in (RED, (0, 0, 255)))
    missing = image.features(None)
    assert red.shape == blue.shape == missing.shape and np.isnan(missing).all()
    assert np.isfinite(red).all() and np.abs(red - blue).max() > 0.5
    assert Image(size=80).features(Image(size=80).read(READABLE["rgb"])).shape == missing.shape


def test_features_know_the_direction_of_lines():
    lines = np.zeros((48, 48, 3), np.uint8)
    lines[:, ::4] = 255
    turns = [Image().features(x)[-32:] for x in (lines, lines.transpose(1, 0, 2).copy())]
    assert np.abs(turns[0] - turns[1]).max() > 0.1


def test_show_is_a_fresh_picture_or_an_escaped_reason():
    image = Image()
    shown = image.show(saved(picture(), pnginfo=(lambda i: (i.add_text("x", "<script>"), i)[1])(PngInfo())))
    prefix = '<img width="96" height="96" alt="" src="data:image/png;base64,'
    assert shown.startswith(prefix)
    data = base64.b64decode(shown[len(prefix) :].split('"')[0])
    assert Pillow.open(io.BytesIO(data)).size == (96, 96) and b"script" not in data
    assert image.show({"bytes": READABLE["jpeg"], "path": "x"}).startswith(prefix)
    assert image.show(None) == "" and "<script>" not in image.show("<script>")
    assert image.show(b"junk").startswith("<em>")


def profile(sample: list, heads: list[bytes], type: str = "binary") -> Profile:
    return Profile(name="x", type=type, sample=sample, present=len(sample), rows=len(sample), distinct=0, heads=heads)


@pytest.mark.parametrize("name", READABLE)
def test_files_are_claimed_by_their_first_bytes(name):
    claim = Image.claim(profile([READABLE[name]], [READABLE[name][:32]]))
    assert claim is not None and claim.sure > 0.9 and claim.why


def test_claims_by_name_are_weaker_and_nothing_else_is_claimed():
    named = Image.claim(profile(["a/b.PNG", "c.jpeg"], [], "string"))
    assert named is not None and named.sure < 0.9
    assert Image.claim(profile(["a cat", "a dog"], [], "string")) is None
    assert Image.claim(profile([b"RIFF....WAVE"], [b"RIFF....WAVE"])) is None
    assert Image.claim(profile([b"BM is no bitmap"], [b"BM is no bitmap"])) is None
    assert Image.claim(profile([], [])) is None
    mostly = Image.claim(profile([b""] * 10, [READABLE["rgb"][:32]] * 9 + [b"broken"]))
    assert mostly is not None and mostly.sure < 0.99


def test_state_is_empty_and_loads():
    image = Image()
    image.load_state(image.state())
    assert image.state() == {} and image.shared() is None and image.tokens().length == (image.size // image.patch) ** 2


def test_trimmed_pictures_lose_their_margins_whatever_these_are():
    def drawn(mode, background):
        image = Pillow.new(mode, (60, 80), background)
        image.paste((200, 0, 0, 255)[: len(mode)], (20, 30, 30, 40))
        out = io.BytesIO()
        image.save(out, "PNG")
        return out.getvalue()

    for cell in (drawn("RGB", (255, 255, 255)), drawn("RGBA", (0, 0, 0, 0))):
        assert (Image(size=16, trim=True).read(cell) == (200, 0, 0)).all()
        assert (Image(size=16).read(cell) == 255).mean() > 0.5
    blank = drawn("RGB", (200, 0, 0))  # nothing but one colour, and nothing but white
    assert (Image(size=16, trim=True).read(blank) == (200, 0, 0)).any()


@pytest.mark.parametrize(
    ("setting", "holds"),
    [
        ("grey", lambda before, after: (after.max(1).values == after.min(1).values).all() and (before != after).any()),
        ("stroke", lambda before, after: (after != before).flatten(1).any(1).all()),
        ("bend", lambda before, after: (after != before).flatten(1).any(1).all()),
        (
            "outline",
            lambda before, after: (
                (after <= before).all() and ((after == 0) & (before == 255)).any(1).flatten(1).any(1).all()
            ),
        ),
        (
            "reverse",
            lambda before, after: (
                (after[..., 10:18, 13].float().mean((1, 2)) > after[..., 0, 0].float().mean(1)).all()
                and (after[..., 0, 0] == after[..., 31, 31]).all()
                and len(after[..., 0, 0].unique(dim=0)) > 1
            ),
        ),
    ],
)
def test_each_variation_does_what_it_says(setting, holds):
    still = {"turn": 0.0, "zoom": 0.0, "move": 0.0, "colour": 0.0}
    pixels = torch.full((6, 3, 32, 32), 255, dtype=torch.uint8)
    pixels[:, 0, 8:20, 12:14] = 40
    pixels[:, 2, 20:26, 4:24] = 90
    cells = {"pixels": pixels.contiguous(memory_format=torch.channels_last)}
    plain = Image(size=32, augmentation=ImageAugmentation(**still))
    before = plain.augment(cells, torch.Generator().manual_seed(0))["pixels"].int()
    assert (before - pixels.int()).abs().max() <= 1
    changed = ImageAugmentation(**still, **{setting: 1.0 if setting != "bend" else 0.2})
    after = Image(size=32, augmentation=changed).augment(cells, torch.Generator().manual_seed(0))
    assert holds(before, after["pixels"].int())


def test_pictures_that_are_all_small_are_not_enlarged() -> None:
    import pyarrow as pa

    from sensorium.data.schema import infer
    from sensorium.data.table import Table

    def picture(side: int, kind: str) -> bytes:
        out = io.BytesIO()
        Pillow.fromarray(np.random.default_rng(side).integers(0, 255, (side, side - 2, 3), np.uint8)).save(out, kind)
        return out.getvalue()

    table = Table.open(
        pa.table(
            {
                "small": [picture(20 + i % 9, ["PNG", "JPEG", "WEBP"][i % 3]) for i in range(12)],
                "mixed": [picture(20 if i else 200, "PNG") for i in range(12)],
                "n": list(range(12)),
            }
        )
    )
    columns = infer(table).columns
    assert columns["small"].settings == {"size": 32} and columns["mixed"].settings == {}
    assert infer(table, overrides={"small": {"size": 64}}).columns["small"].settings == {"size": 64}
    assert infer(table, overrides={"small": {"flip": True}}).columns["small"].settings == {"flip": True}


# Formats that take an extra, and what is none or too much


def heic(image: Pillow.Image, orientation: int = 1) -> bytes:
    out, exif = io.BytesIO(), Pillow.Exif()
    exif[0x0112] = orientation
    file = pytest.importorskip("pillow_heif").from_bytes("RGB", image.size, image.tobytes())
    file.info["exif"] = file[0].info["exif"] = exif.tobytes()
    file.save(out, quality=95)
    return out.getvalue()


def test_heic_is_read_and_turned_once():
    plain = Image().read(saved(picture(64, 32)))
    assert np.abs(Image().read(heic(picture(64, 32))).astype(int) - plain).mean() < 6
    side = picture(64, 32).transpose(Pillow.Transpose.ROTATE_90)
    assert np.abs(Image().read(heic(side, 6)).astype(int) - plain).mean() < 6
    assert np.abs(Image().read(heic(picture(64, 32).rotate(180), 3)).astype(int) - plain).mean() < 6
    with pytest.raises(BadCell):
        Image().read(heic(picture(64, 32))[:300])
    with pytest.raises(BadCell, match="max_pixels=100"):
        Image(max_pixels=100).read(heic(picture(64, 32)))


def test_jpeg_2000_is_read_with_any_depth():
    plain = Image().read(saved(picture(64, 32)))
    for how in ({}, {"no_jp2": True}):
        assert np.abs(Image().read(saved(picture(64, 32), "JPEG2000", **how)).astype(int) - plain).max() <= 1
    deep = Pillow.fromarray(np.tile(np.arange(0, 65536, 1024, dtype=np.uint16), (64, 1)))
    assert np.abs(Image().read(saved(deep, "JPEG2000")).astype(int) - Image().read(saved(deep)).astype(int)).max() <= 1
    data = bytearray(saved(Pillow.new("RGB", (40, 40)), "JPEG2000", no_jp2=True))
    data[8:16] = struct.pack(">II", 7000, 8000)
    with pytest.raises(BadCell, match="decompression bomb|decoded"):
        Image().read(bytes(data))


def document(text: str = "0 0 0 rg 0 0 150 100 re f", width: int = 300, height: int = 100, pages: int = 2) -> bytes:
    """A PDF by hand, whose first page is black in its left half, or whatever is drawn, and whose others are empty."""
    kids = " ".join(f"{3 + number} 0 R" for number in range(pages))
    objects = ["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count {pages}>>"]
    for number in range(pages):
        content = f"/Contents {3 + pages} 0 R" if not number else ""
        objects.append(f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {width} {height}]{content}>>")
    objects.append(f"<</Length {len(text)}>>stream\n{text}\nendstream")
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj{body}endobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    return (
        out
        + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer<</Size {len(objects) + 1}/Root 1 0 "
        f"R>>\nstartxref\n{len(out)}\n%%EOF".encode()
    )


def test_the_first_page_of_a_pdf_is_a_picture():
    pytest.importorskip("pypdfium2")
    pixels = Image().read(document())
    assert (pixels[18:30, :22] == 0).all() and (pixels[18:30, 26:] == 255).all() and (pixels[:15] == 255).all()
    assert Image(trim=True).read(document()).mean() < 90 and Image(size=1024).read(document()).shape == (1024, 1024, 3)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(pixels, other) for other in pool.map(Image().read, [document()] * 16))
    for data, words in (
        (document(pages=0), "no pages|damaged"),
        (document()[:90], "damaged|no pages"),
        (b"%PDF-1.7\n" + bytes(90), "damaged"),
    ):
        with pytest.raises(BadCell, match=words):
            Image().read(data)
    for sides in ((14_400, 14_400), (1, 14_400), (900_000, 2)):
        assert Image().read(document(width=sides[0], height=sides[1])).shape == (48, 48, 3)


@pytest.mark.parametrize(
    "data",
    [
        png(0, 10),
        png(10, 0),
        png(0, 0),
        saved(Pillow.new("1", (16, 16)), "BMP")[:18] + bytes(8) + bytes(40),
        b"GIF89a" + bytes(40),
        b"P6 0 9 255\n" + bytes(20),
    ],
)
def test_a_picture_without_pixels_is_a_bad_cell(data):
    with pytest.raises(BadCell):
        Image().read(data)


def test_of_an_animation_whose_later_frame_is_broken_the_first_is_read():
    frames = [picture(seed=seed) for seed in range(3)]
    for format in ("GIF", "PNG"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
        assert np.array_equal(Image().read(data[: len(data) * 2 // 3]), Image().read(data))


def test_a_portable_map_is_read_and_one_of_odd_levels_costs_little():
    assert np.array_equal(Image().read(saved(picture(64, 32), "PPM")), Image().read(saved(picture(64, 32))))
    assert np.abs(Image().read(b"P5 4 4 1000\n" + struct.pack(">H", 500) * 16).astype(int) - 128).max() <= 1
    with pytest.raises(BadCell, match="odd levels"):
        Image().read(b"P5 2000 2000 7\n" + bytes(4_000_000))


def test_reasons_are_the_same_each_time_and_name_no_object():
    rng = np.random.default_rng(0)
    for name in ("rgb", "jpeg", "webp", "gif", "16 bits grey tiff", "bmp"):
        for _ in range(20):
            data = bytearray(READABLE[name])
            for place in rng.integers(0, min(len(data), 200), 8):
                data[place] = rng.integers(0, 256)
            said = []
            for _ in range(2):
                try:
                    said.append(Image().read(bytes(data)).tobytes())
                except BadCell as error:
                    said.append(str(error))
            assert said[0] == said[1] and (isinstance(said[0], bytes) or " 0x" not in said[0])


@pytest.mark.parametrize(
    "error",
    [
        KeyError(270),
        IndexError("list index out of range"),
        OSError("decoder error -2"),
        ValueError("<_io.BytesIO object at 0x7f00>"),
        OSError(),
    ],
)
def test_what_a_decoder_stumbles_over_is_no_reason(error, monkeypatch):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("sensorium.media.images.opened", fail)
    with pytest.raises(BadCell) as found:
        Image().read(READABLE["rgb"])
    assert str(found.value) == "the picture can't be decoded: it is damaged"
