"""Conversion of Whisper (Radford et al. 2022, arXiv 2212.04356, MIT) from CTranslate2 to transformers' layout."""

from __future__ import annotations

import json
import mmap
import struct
from pathlib import Path

import numpy as np

from sensorium.backbones import converted
from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
HEAD = 64
"""Width of an attention head, in all sizes of Whisper."""
END = 50_257
"""Id of the end of a text, in all multilingual models."""
PARTS = {"self_attention": "self_attn", "attention": "encoder_attn"}


def read_ct2(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a ``model.bin``, by name, in the memory of the file.

    Raises:
        UserError: it is no such file, or cut short.
    """
    with path.open("rb") as file:
        data = (
            memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if path.stat().st_size else memoryview(b"")
        )
    at, result = 0, {}

    def number(kind: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(kind, data, at)
        at += struct.calcsize(kind)
        return value

    def name() -> str:
        nonlocal at
        length = number("<H")
        at += length
        return bytes(data[at - length : at]).rstrip(b"\0").decode()

    try:
        version = number("<I")
        made = name() if version <= 6 else ""
        if not made.startswith("Whisper"):
            raise UserError(f"'{path}' is no Whisper model of CTranslate2.")
        number("<I")
        for _ in range(number("<I")):
            called, shape = name(), [number("<I") for _ in range(number("<B"))]
            dtype, size = np.dtype(DTYPES[number("<B")]), number("<I")
            result[called] = np.frombuffer(data, dtype, size // dtype.itemsize, at).reshape(shape)
            at += size
    except (struct.error, ValueError, KeyError) as error:
        raise UserError(f"'{path}' is cut short or no model of CTranslate2: {error}.") from error
    return result


def as_transformers(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by the names of ``WhisperModel``."""
    result = {
        "encoder.embed_positions.weight": found["encoder/position_encodings/encodings"],
        "decoder.embed_positions.weight": found["decoder/position_encodings/encodings"],
        "decoder.embed_tokens.weight": found["decoder/embeddings/weight"],
    }

    def put(name: str, given: str) -> None:
        for key, own in (("weight", "gamma"), ("bias", "beta"), ("weight", "weight"), ("bias", "bias")):
            if f"{given}/{own}" in found:
                result[f"{name}.{key}"] = found[f"{given}/{own}"]

    def split(names: list[str], given: str) -> None:
        for kind in ("weight", "bias"):
            for name, part in zip(names, np.split(found[f"{given}/{kind}"], len(names)), strict=True):
                if not (kind == "bias" and name.endswith("k_proj")):  # keys have none
                    result[f"{name}.{kind}"] = part

    for conv in ("conv1", "conv2"):
        put(f"encoder.{conv}", f"encoder/{conv}")
    for side in ("encoder", "decoder"):
        put(f"{side}.layer_norm", f"{side}/layer_norm")
        for layer in range(
            sum(name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/weight") for name in found)
        ):
            own, given = f"{side}.layers.{layer}", f"{side}/layer_{layer}"
            put(f"{own}.fc1", f"{given}/ffn/linear_0")
            put(f"{own}.fc2", f"{given}/ffn/linear_1")
            put(f"{own}.final_layer_norm", f"{given}/ffn/layer_norm")
            for part, called in PARTS.items():
                if f"{given}/{part}/linear_0/weight" not in found:
                    continue
                among = [f"{own}.{called}.{key}_proj" for key in "qkv"]
                if part == "self_attention":
                    split(among, f"{given}/{part}/linear_0")
                else:
                    split(among[:1], f"{given}/{part}/linear_0")
                    split(among[1:], f"{given}/{part}/linear_1")
                put(f"{own}.{called}.out_proj", f"{given}/{part}/linear_{1 if part == 'self_attention' else 2}")
                put(f"{own}.{called}_layer_norm", f"{given}/{part}/layer_norm")
    return result


def from_ct2(given: Path, out: Path) -> Path:
    """Folder of a ``model.bin`` with a configuration, a feature extractor and safetensors in half precision; converted
    once.

    Raises:
        UserError: it is no such file, or its weights are quantised.
    """
    if converted(out):
        return out
    import transformers
    from safetensors.numpy import save_file

    try:
        found = as_transformers(read_ct2(given))
    except KeyError as error:
        raise UserError(f"'{given}' has no {error.args[0]}, so it is no Whisper model.") from error
    if any(value.dtype not in (np.float16, np.float32) for value in found.values()):
        raise UserError(f"'{given}' is quantised. Give one in float16 or float32.")
    tokens, width = found["decoder.embed_tokens.weight"].shape
    layers = [
        sum(name.startswith(f"{side}.layers") and name.endswith("fc1.weight") for name in found)
        for side in ("encoder", "decoder")
    ]
    wide, mels = found["encoder.layers.0.fc1.weight"].shape[0], found["encoder.conv1.weight"].shape[1]
    config = transformers.WhisperConfig(
        vocab_size=tokens,
        d_model=width,
        num_mel_bins=mels,
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        encoder_attention_heads=width // HEAD,
        decoder_attention_heads=width // HEAD,
        encoder_ffn_dim=wide,
        decoder_ffn_dim=wide,
        max_source_positions=len(found["encoder.embed_positions.weight"]),
        max_target_positions=len(found["decoder.embed_positions.weight"]),
        pad_token_id=min(END, tokens - 1),
        bos_token_id=min(END, tokens - 1),
        eos_token_id=min(END, tokens - 1),
        decoder_start_token_id=min(END + 1, tokens - 1),
    )
    out.mkdir(parents=True, exist_ok=True)
    transformers.WhisperFeatureExtractor(feature_size=mels).save_pretrained(out)
    with atomic_write(out / "model.safetensors") as part:
        save_file({name: np.ascontiguousarray(value) for name, value in found.items()}, part, metadata={"format": "pt"})
    with atomic_write(out / "config.json") as part:
        part.write_text(
            json.dumps(
                {
                    **{key: value for key, value in config.to_dict().items() if key != "_name_or_path"},
                    "architectures": ["WhisperModel"],
                }
            ),
            encoding="utf-8",
        )
    return out
