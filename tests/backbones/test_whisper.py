"""Whisper from CTranslate2's file is the model that was put into it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf

from sensorium.backbones import _packages
from sensorium.backbones._open import located, open_backbone
from sensorium.backbones._whisper import from_ct2
from sensorium.core.errors import UserError


def small() -> hf.WhisperModel:
    torch.manual_seed(0)
    return hf.WhisperModel(
        hf.WhisperConfig(
            d_model=128,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=96,
            decoder_ffn_dim=96,
            vocab_size=60,
            max_source_positions=1500,
            max_target_positions=20,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    ).eval()


def arrays(model: hf.WhisperModel) -> dict[str, np.ndarray]:
    """As CTranslate2 calls them: queries, keys and values in one."""
    state, result = {key: value.detach().numpy() for key, value in model.state_dict().items()}, {}

    def norm(name: str, key: str) -> None:
        result[f"{name}/gamma"], result[f"{name}/beta"] = state[f"{key}.weight"], state[f"{key}.bias"]

    def linear(name: str, *keys: str) -> None:
        result[f"{name}/weight"] = np.concatenate([state[f"{key}.weight"] for key in keys])
        result[f"{name}/bias"] = np.concatenate(
            [state.get(f"{key}.bias", np.zeros(len(state[f"{key}.weight"]), np.float32)) for key in keys]
        )

    for side in ("encoder", "decoder"):
        result[f"{side}/position_encodings/encodings"] = state[f"{side}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"{side}.layer_norm")
        for at in range(2 if side == "encoder" else 1):
            own, key = f"{side}/layer_{at}", f"{side}.layers.{at}"
            linear(f"{own}/self_attention/linear_0", *(f"{key}.self_attn.{part}_proj" for part in "qkv"))
            linear(f"{own}/self_attention/linear_1", f"{key}.self_attn.out_proj")
            norm(f"{own}/self_attention/layer_norm", f"{key}.self_attn_layer_norm")
            if side == "decoder":
                linear(f"{own}/attention/linear_0", f"{key}.encoder_attn.q_proj")
                linear(f"{own}/attention/linear_1", f"{key}.encoder_attn.k_proj", f"{key}.encoder_attn.v_proj")
                linear(f"{own}/attention/linear_2", f"{key}.encoder_attn.out_proj")
                norm(f"{own}/attention/layer_norm", f"{key}.encoder_attn_layer_norm")
            linear(f"{own}/ffn/linear_0", f"{key}.fc1")
            linear(f"{own}/ffn/linear_1", f"{key}.fc2")
            norm(f"{own}/ffn/layer_norm", f"{key}.final_layer_norm")
    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", f"encoder.{conv}")
    return {
        **result,
        "decoder/embeddings/weight": state["decoder.embed_tokens.weight"],
        "encoder/num_heads": np.array(2, np.int8),
    }


def written(path: Path, given: dict[str, np.ndarray], spec: str = "WhisperSpec") -> Path:
    def text(words: str) -> bytes:
        return struct.pack("<H", len(words) + 1) + words.encode() + b"\0"

    kinds = {"float32": 0, "int8": 1, "float16": 4}
    parts = [struct.pack("<I", 6), text(spec), struct.pack("<II", 3, len(given))]
    for name, value in given.items():
        parts += [
            text(name),
            struct.pack("<B", value.ndim),
            *(struct.pack("<I", size) for size in value.shape),
            struct.pack("<BI", kinds[str(value.dtype)], value.nbytes),
            value.tobytes(),
        ]
    path.write_bytes(b"".join(parts))
    return path


def test_the_model_is_the_one_that_was_put_in(tmp_path: Path) -> None:
    model = small()
    out = from_ct2(written(tmp_path / "model.bin", arrays(model)), tmp_path / "out")
    found, told = hf.WhisperModel.from_pretrained(out, output_loading_info=True)
    assert not any(told.values()) and set(found.state_dict()) == set(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in found.state_dict().items())
    backbone = open_backbone(str(out), "audio")
    assert (
        backbone.width == 128
        and backbone.rate == 16_000
        and backbone.encode([np.zeros(8000, np.float32)])[0].shape == (17, 128)
    )
    assert from_ct2(tmp_path / "gone.bin", out) == out  # written once


def test_a_file_of_another_kind_is_told(tmp_path: Path) -> None:
    given = arrays(small())
    whole = written(tmp_path / "model.bin", given)
    cut = tmp_path / "cut.bin"
    cut.write_bytes(whole.read_bytes()[:-100])
    less = written(
        tmp_path / "less.bin", {key: value for key, value in given.items() if key != "decoder/embeddings/weight"}
    )
    quantised = written(
        tmp_path / "int8.bin",
        {key: value.astype(np.int8) if key.endswith("ffn/linear_0/weight") else value for key, value in given.items()},
    )
    other, empty = written(tmp_path / "other.bin", given, "TransformerSpec"), tmp_path / "empty.bin"
    empty.touch()
    for path, why in (
        (cut, "cut short"),
        (less, "has no decoder/embeddings"),
        (quantised, "quantised"),
        (other, "no Whisper"),
        (empty, "cut short"),
    ):
        with pytest.raises(UserError, match=why):
            from_ct2(path, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_halves_of_a_model_in_two_packages_become_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = written(tmp_path / "model.bin", arrays(small())).read_bytes()
    for number, (package, half) in enumerate(zip(_packages.SOUNDS, (whole[:5000], whole[5000:]), strict=True), 1):
        (tmp_path / package / "data").mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "data" / f"model.bin.part{number}").write_bytes(half)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    path = located("package:whisper-base")
    assert sorted(file.name for file in path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert open_backbone("package:whisper-base", "audio").width == 128 and located("package:whisper-base") == path
    (tmp_path / _packages.SOUNDS[1] / "data" / "model.bin.part2").unlink()
    with pytest.raises(UserError, match="holds no half of a model"):
        located("package:whisper-base")
