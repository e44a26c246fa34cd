"""A model that talks about pictures in the layout of LLaVA, which transformers and others that know it open with nothing of ours.

FOLDER/ config.json model.safetensors tokenizer… processor…
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from torch import nn

from sensorium.network.network import Network

PICTURE = "<image>"
"""The control token that stands for a patch."""
FLAT = (
    "{%- set flat = namespace(messages=[], text='') -%}{%- for message in messages -%}{%- if message['content'] is string -%}{%- set flat.messages = flat.messages + [message] -%}"
    "{%- else -%}{%- set flat.text = '' -%}{%- for part in message['content'] -%}{%- set flat.text = flat.text + ('"
    + PICTURE
    + "' if part['type'] == 'image' else part['text']) -%}{%- endfor -%}"
    "{%- set flat.messages = flat.messages + [{'role': message['role'], 'content': flat.text}] -%}{%- endif -%}{%- endfor -%}{%- set messages = flat.messages -%}"
)
"""Before the language model's own template: messages in parts, as it takes none."""
BEGIN = "{%- if messages[0]['role'] != 'system' -%}{%- set messages = [{'role': 'system', 'content': SYSTEM}] + messages -%}{%- endif -%}"
"""And what the system said in training, where the template would say something of its own."""


def unlike(network: Network) -> str | None:
    """Why a network's conversations can't be said by such a model; None where they can."""
    trunk = network.trunk
    if trunk.prompted:
        return "learned tokens come before all (trunk.tune=prompt), for which there is no place in it"
    if trunk.scale != 1 or trunk.cap or getattr(trunk.head[0], "bias", None) is not None:
        return f"'{trunk.language.name}' changes its logits after its head, which it doesn't"
    return None


def export_llava(network: Network, column: str, language: nn.Module, tower: nn.Module, folder: Path) -> None:
    """Write a network's language model, the projector of a column of pictures and the column's encoder as one model.

    Args:
        language, tower: merged with what was tuned. folder: is made.
    """
    import transformers
    from safetensors.torch import save_file

    from sensorium.backbones.transformers import HEARD
    from sensorium.core.files import atomic_write

    encoder, trunk = network.modalities[column].encoder, network.trunk
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = copy.deepcopy(trunk.language.tokenizer)
    tokenizer.add_tokens([PICTURE], special_tokens=True)
    mark = int(tokenizer.convert_tokens_to_ids(PICTURE))
    first = "siglip" not in tower.config.model_type  # one token of all of it comes before its patches
    size = max(trunk.vocabulary, mark + 1)
    text = copy.deepcopy(language.config)
    text.vocab_size = size
    config = transformers.LlavaConfig(
        vision_config=tower.config,
        text_config=text,
        image_token_index=mark,
        image_seq_length=encoder.patches,
        projector_hidden_act="gelu",
        vision_feature_layer=HEARD,
        vision_feature_select_strategy="default" if first else "full",
        tie_word_embeddings=bool(text.tie_word_embeddings),
    )
    with torch.device("meta"):
        names = set(transformers.LlavaForConditionalGeneration(config).state_dict())
    projector = network.dialogue.projectors[network.stem_key[column]]
    parts = {
        "model.language_model.": language.get_decoder(),
        "model.vision_tower.": tower,
        "model.multi_modal_projector.": projector,
        "lm_head.": language.get_output_embeddings(),
    }
    tensors = {
        prefix + name: value.detach().cpu()
        for prefix, part in parts.items()
        for name, value in part.state_dict().items()
    }
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat(
            [tensors[name], tensors[name].new_zeros(size - len(tensors[name]), tensors[name].shape[1])]
        )
    if text.tie_word_embeddings:
        tensors.pop("lm_head.weight")
    tensors = {name: value.contiguous().clone() for name, value in tensors.items() if name in names}
    with atomic_write(folder / "model.safetensors") as part:
        save_file(tensors, part, metadata={"format": "pt"})
    config.architectures = ["LlavaForConditionalGeneration"]
    config.save_pretrained(folder)
    said = copy.deepcopy(language.generation_config)
    said.suppress_tokens = [mark]
    said.save_pretrained(folder)
    begin = (
        BEGIN.replace("SYSTEM", json.dumps(network.dialogue_modality(network.dialogue_columns[0]).system))
        if trunk.language.has_system
        else ""
    )
    processor = transformers.LlavaProcessor(
        encoder.processor,
        tokenizer,
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=int(first),
        image_token=PICTURE,
        chat_template=FLAT + begin + tokenizer.chat_template,
    )
    processor.save_pretrained(folder)


def pictured(network: Network) -> dict[str, str]:
    """The columns whose pictures stand in conversations as such a model has it, and the folder that each is written to."""
    projectors = network.dialogue.projectors if network.dialogue is not None else {}
    columns = [c for c in network.columns if network.stem_key[c] in projectors]
    return {column: "llava" if len(columns) == 1 else f"llava-{number}" for number, column in enumerate(columns, 1)}
