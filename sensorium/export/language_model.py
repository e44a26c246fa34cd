"""Export of a run's language model: merged with its tuned weights, and these by themselves in PEFT's layout.

FOLDER/ config.json model.safetensors tokenizer… projector.safetensors adapter/adapter_config.json
        adapter/adapter_model.safetensors llava/config.json …
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sensorium.core.errors import UserError, unknown
from sensorium.core.files import atomic_write
from sensorium.dialogue.parts import language_trunk
from sensorium.export.llava import export_llava, llava_columns, llava_refusal
from sensorium.network.network import Network
from sensorium.nn.external import ExternalModel
from sensorium.nn.quantized import in_full

if TYPE_CHECKING:
    from sensorium.trunks.causal_lm import CausalLM

ADAPTER, WEIGHTS, BASE, OWN = "adapter", "adapter_model.safetensors", "base_sha256", "own"
"""Folder of an adapter, its file of weights, the key of its base's hash, and the name of the run's own adapter."""
PREFIX = "base_model.model."
"""Beginning of the names of PEFT's tensors."""


def export_trunk(network: Network, folder: Path) -> dict[str, Any]:
    """Write the language model of a network's trunk, as ``transformers`` reads it.

    It is merged and comes with its tokenizer, the projector that brings our tokens into its width, of ``lora`` the
    adapter, and of a column of pictures with ``llava`` the whole in LLaVA's layout. All of it are weights, settings and
    a tokenizer: no memory of rows, and no name that conversations look up.

    Returns:
        what was written, in numbers, and ``llava``: the folders, or why there are none.

    Raises:
        UserError: the trunk is no language model, or the disk is full or can't be written.
    """
    if not network.trunk.is_language_model:
        raise UserError("This run's trunk is no language model (trunk=causal_lm), so there is none to export.")
    trunk = language_trunk(network)
    model, found = merged(trunk.wrapped[0]), llava_columns(network)
    refusal = llava_refusal(network) if found else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        trunk.language.tokenizer.save_pretrained(folder)
        with atomic_write(folder / "projector.safetensors") as part:
            save_file(
                {
                    "weight": trunk.into.weight.detach().cpu().contiguous(),
                    "bias": trunk.into.bias.detach().cpu().contiguous(),
                    "loud": trunk.loud.detach().cpu().reshape(1),
                },
                part,
            )
        adapter = (
            write_adapter(trunk, folder / ADAPTER)
            if trunk.adapted
            else write_prompt(trunk, folder / ADAPTER)
            if trunk.prompted
            else 0
        )
        for column, name in found.items() if refusal is None else ():
            stem = network.stems[network.stem_key[column]]
            encoder = network.modalities[column].encoder
            assert encoder is not None
            tower = merged(stem.wrapped[0]) if isinstance(stem, ExternalModel) else encoder.model
            export_llava(network, column, model, tower, folder / name)
    except OSError as error:
        raise UserError(f"Can't write the language model to '{folder}': {error.strerror or error}.") from error
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "adapter_parameters": adapter,
        "llava": refusal or [str(folder / name) for name in found.values()],
    }


def merged(model: Any) -> Any:
    """Merge low-rank updates into the weights of a copy of a ``transformers`` model, of which nothing of PEFT is left.

    Quantized weights become full ones.
    """
    result: Any = in_full(copy.deepcopy(model))
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


def write_adapter(trunk: CausalLM, folder: Path) -> int:
    """Write the low-rank updates of a trunk as PEFT's own files; return their number of parameters."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    config = next(iter(trunk.wrapped[0].peft_config.values()))
    # PEFT would ask the hub whether a base of that name has other embeddings
    tensors = {
        f"{PREFIX}{name}": value.detach().cpu().contiguous()
        for name, value in get_peft_model_state_dict(trunk.wrapped[0], save_embedding_layers=False).items()
    }
    with atomic_write(folder / WEIGHTS) as part:
        save_file(tensors, part, metadata={"format": "pt", BASE: trunk.language.sha256})
    config.base_model_name_or_path = trunk.language.name
    config.save_pretrained(folder)
    return sum(value.numel() for value in tensors.values())


def write_prompt(trunk: CausalLM, folder: Path) -> int:
    """Write a learned prompt (prompt tuning) as PEFT's own files; return its number of parameters."""
    from peft import PromptTuningConfig

    folder.mkdir(parents=True, exist_ok=True)
    tokens, config = trunk.learned["prompt"].detach().cpu().contiguous(), trunk.wrapped[0].config
    with atomic_write(folder / WEIGHTS) as part:
        save_file({"prompt_embeddings": tokens}, part, metadata={"format": "pt", BASE: trunk.language.sha256})
    PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=len(tokens),
        token_dim=tokens.shape[1],
        num_transformer_submodules=1,
        num_attention_heads=config.num_attention_heads,
        num_layers=config.num_hidden_layers,
        base_model_name_or_path=trunk.language.name,
        inference_mode=True,
    ).save_pretrained(folder)
    return tokens.numel()


def read_adapter(trunk: Any, folder: Path) -> int:
    """Replace a trunk's low-rank updates by others, in PEFT's layout; return their number of parameters.

    Raises:
        UserError: the trunk has none, there are none in the folder, or they are of another language model, of another
            rank or for other layers.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    if not getattr(trunk, "adapted", False):
        raise UserError(
            "This run's trunk has no low-rank updates (trunk=causal_lm trunk.tune=lora) that others could take the "
            "place of."
        )
    path = folder / WEIGHTS
    try:
        with safe_open(path, "pt") as opened:
            base, given = (
                (opened.metadata() or {}).get(BASE),
                {key.removeprefix(PREFIX): opened.get_tensor(key) for key in list(opened.keys())},
            )
    except (OSError, SafetensorError) as error:
        raise UserError(f"'{folder}' holds no adapter in PEFT's layout ({WEIGHTS}): {error}") from error
    if base is not None and base != trunk.language.sha256:
        raise UserError(
            f"The adapter in '{folder}' was learned on another language model than '{trunk.language.name}': its "
            "SHA-256 differs. Give one that was learned on this one."
        )
    own = get_peft_model_state_dict(trunk.wrapped[0], save_embedding_layers=False)
    wrong = next(
        (key for key in [*own, *given] if key not in own or key not in given or own[key].shape != given[key].shape),
        None,
    )
    if wrong:
        shapes = " and ".join(
            f"{list(some[wrong].shape)} {where}" if wrong in some else f"nothing {where}"
            for some, where in ((own, "in this run"), (given, "in the adapter"))
        )
        raise UserError(
            f"The adapter in '{folder}' doesn't fit: '{wrong}' is {shapes}. Rank and layers must be those that this "
            "run was tuned with."
        )
    set_peft_model_state_dict(trunk.wrapped[0], given)
    return sum(value.numel() for value in given.values())


class Adapters:
    """Adapters: low-rank updates of one trunk, of which one is active.

    ``own`` are those that it was tuned with; others are loaded.

    Attributes:
        saved: the tensors of each, by name; of the active one none, as the trunk has them. active: its name.
    """

    def __init__(self, trunk: Any) -> None:
        self.trunk = trunk
        self.saved: dict[str, dict[str, torch.Tensor]] = {OWN: {}}
        self.active = OWN

    @property
    def names(self) -> list[str]:
        """Names of all."""
        return list(self.saved)

    def load(self, folder: Path, name: str | None = None) -> int:
        """Read an adapter in PEFT's layout, under its folder's name or another, and activate it; return its size.

        Raises:
            UserError: see ``read_adapter``, or a name that is taken.
        """
        name = name or (folder.name if folder.name != ADAPTER else folder.resolve().parent.name)
        if name in self.saved:
            raise UserError(
                f"There is an adapter '{name}' already. Give this one another name. Known: {', '.join(self.names)}."
            )
        before = self.current()
        count = read_adapter(self.trunk, folder)
        self.saved[self.active], self.saved[name], self.active = before, {}, name
        self.trunk.foreign = True
        return count

    def use(self, name: str) -> None:
        """Activate an adapter.

        Raises:
            UserError: there is none of that name.
        """
        if name not in self.saved:
            raise unknown("adapter", name, self.names)
        if name != self.active:
            self.saved[self.active] = self.current()
            with torch.no_grad():
                for key, value in self.saved[name].items():
                    self.trunk.learned[key].copy_(value)
            self.saved[name], self.active = {}, name
            self.trunk.foreign = name != OWN

    def current(self) -> dict[str, torch.Tensor]:
        """Tensors of the active adapter, copied."""
        return {key: value.detach().clone() for key, value in getattr(self.trunk, "learned", {}).items()}
