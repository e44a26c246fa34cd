"""The language model of a run as others know it: merged with what was tuned, and that alone in PEFT's layout.

    FOLDER/ config.json model.safetensors tokenizer… projector.safetensors adapter/adapter_config.json adapter/adapter_model.safetensors
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sensorium.core.errors import UserError
from sensorium.core.files import whole
from sensorium.network import Network

ADAPTER, WEIGHTS, BASE = "adapter", "adapter_model.safetensors", "base_sha256"
PREFIX = "base_model.model."


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
        adapter = write_adapter(trunk, folder / ADAPTER) if trunk.adapted else 0
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
    kept = {f"{PREFIX}{name}": value.detach().cpu().contiguous() for name, value in get_peft_model_state_dict(trunk.held[0]).items()}
    with whole(folder / WEIGHTS) as part:
        save_file(kept, part, metadata={"format": "pt", BASE: trunk.language.sha256})
    config.base_model_name_or_path = trunk.language.name
    config.save_pretrained(folder)
    return sum(value.numel() for value in kept.values())


def read_adapter(trunk: Any, folder: Path) -> int:
    """Put low-rank updates in PEFT's layout in place of those that a trunk has; how many parameters that is.

    Raises:
        UserError: the trunk has none, there are none in the folder, or they are of another language model, of another rank or for other layers.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    if not getattr(trunk, "adapted", False):
        raise UserError("This run's trunk has no low-rank updates (trunk=causal_lm trunk.tune=lora) that others could take the place of.")
    path = folder / WEIGHTS
    try:
        with safe_open(path, "pt") as opened:
            base, given = (opened.metadata() or {}).get(BASE), {key.removeprefix(PREFIX): opened.get_tensor(key) for key in list(opened.keys())}
    except (OSError, SafetensorError) as error:
        raise UserError(f"'{folder}' holds no adapter in PEFT's layout ({WEIGHTS}): {error}") from error
    if base is not None and base != trunk.language.sha256:
        raise UserError(f"The adapter in '{folder}' was learned on another language model than '{trunk.language.name}': its SHA-256 differs. Give one that was learned on this one.")
    own = get_peft_model_state_dict(trunk.held[0])
    wrong = next((key for key in [*own, *given] if key not in own or key not in given or own[key].shape != given[key].shape), None)
    if wrong:
        shapes = " and ".join(f"{list(some[wrong].shape)} {where}" if wrong in some else f"nothing {where}" for some, where in ((own, "in this run"), (given, "in the adapter")))
        raise UserError(f"The adapter in '{folder}' doesn't fit: '{wrong}' is {shapes}. Rank and layers must be those that this run was tuned with.")
    set_peft_model_state_dict(trunk.held[0], given)
    return sum(value.numel() for value in given.values())
