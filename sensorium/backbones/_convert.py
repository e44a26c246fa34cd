"""Conversion of language models from GGUF to safetensors, so that they open fast and without a reader of such files."""

from __future__ import annotations

import json
from pathlib import Path

from sensorium.backbones import converted
from sensorium.backbones._language_model import LanguageModel


def as_safetensors(gguf: Path, out: Path) -> Path:
    """Folder of a GGUF file's model, converted once to safetensors."""
    from safetensors.torch import save_file

    from sensorium.core.files import atomic_write

    if converted(out):
        return out
    language = LanguageModel(gguf)
    model = language.model()
    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    with atomic_write(out / "model.safetensors") as part:
        save_file(tensors, part, metadata={"format": "pt"})
    language.tokenizer.save_pretrained(out)
    config = {
        key: value
        for key, value in model.config.to_dict().items()
        if key not in ("quantization_config", "_name_or_path")
    }
    with atomic_write(out / "config.json") as part:
        part.write_text(json.dumps({**config, "architectures": [type(model).__name__]}), encoding="utf-8")
    return out
