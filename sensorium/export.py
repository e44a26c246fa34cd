"""The language model of a run as others know it: merged with what was tuned, and that alone in PEFT's layout.

    FOLDER/ config.json model.safetensors tokenizer… projector.safetensors adapter/adapter_config.json adapter/adapter_model.safetensors
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sensorium.core.errors import UserError
from sensorium.core.files import whole
from sensorium.network import Network

ADAPTER = "adapter"


def export_trunk(network: Network, folder: Path) -> dict[str, Any]:
    """Write the language model of a network's trunk, merged, with its tokenizer; what brings our tokens into its width; and, of ``lora``, the adapter. What was written, in numbers.

    Raises:
        UserError: the trunk is no language model, or the disk is full or can't be written.
    """
    trunk = network.trunk
    if not trunk.talks:
        raise UserError("This run's trunk is no language model (trunk=causal_lm), so there is none to export.")
    model = merged(trunk.held[0])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        trunk.language.tokenizer.save_pretrained(folder)
        with whole(folder / "projector.safetensors") as part:
            save_file({"weight": trunk.into.weight.detach().cpu().contiguous(), "bias": trunk.into.bias.detach().cpu().contiguous(), "loud": trunk.loud.detach().cpu().reshape(1)}, part)
        adapter = write_adapter(trunk, folder / ADAPTER) if trunk.tune == "lora" else 0
    except OSError as error:
        raise UserError(f"Can't write the language model to '{folder}': {error.strerror or error}.") from error
    return {"parameters": sum(p.numel() for p in model.parameters()), "adapter_parameters": adapter}


def merged(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of a language model whose low-rank updates are added to its weights, so that nothing of PEFT is left in it."""
    result = copy.deepcopy(model)
    for name, part in list(result.named_modules()):
        if hasattr(part, "lora_A"):
            part.merge()
            parent, _, own = name.rpartition(".")
            setattr(result.get_submodule(parent), own, part.get_base_layer())
    result.peft_config, result._hf_peft_config_loaded = {}, False
    for key in ("quantization_config",):
        if hasattr(result.config, key):
            delattr(result.config, key)
    return result


def write_adapter(trunk: Any, folder: Path) -> int:
    """What was tuned, as PEFT's own files; how many parameters that is."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    config = next(iter(trunk.held[0].peft_config.values()))
    kept = {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in get_peft_model_state_dict(trunk.held[0]).items()}
    with whole(folder / "adapter_model.safetensors") as part:
        save_file(kept, part)
    config.base_model_name_or_path = trunk.language.name
    config.save_pretrained(folder)
    return sum(value.numel() for value in kept.values())
