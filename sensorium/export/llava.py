"""Export in LLaVA's layout: a model of conversations about pictures, which ``transformers`` opens without our code.

FOLDER/ config.json model.safetensors tokenizer… processor…
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from sensorium.dialogue.parts import dialogue_modality, language_trunk
from sensorium.network.network import Network

if TYPE_CHECKING:
    from sensorium.backbones.transformers import Transformers

IMAGE_TOKEN = "<image>"
"""Control token that stands for a patch."""
FLATTEN_PARTS = (
    "{%- set flat = namespace(messages=[], text='') -%}{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{%- set flat.messages = flat.messages + [message] -%}"
    "{%- else -%}{%- set flat.text = '' -%}{%- for part in message['content'] -%}{%- set flat.text = flat.text + ('"
    + IMAGE_TOKEN
    + "' if part['type'] == 'image' else part['text']) -%}{%- endfor -%}"
    "{%- set flat.messages = flat.messages + [{'role': message['role'], 'content': flat.text}] -%}"
    "{%- endif -%}{%- endfor -%}{%- set messages = flat.messages -%}"
)
"""Template before the language model's own, which takes no messages in parts."""
ADD_SYSTEM = (
    "{%- if messages[0]['role'] != 'system' -%}"
    "{%- set messages = [{'role': 'system', 'content': SYSTEM}] + messages -%}{%- endif -%}"
)
"""And the system message of training, where the template would have one of its own."""


def llava_refusal(network: Network) -> str | None:
    """The reason why LLaVA's layout can't hold a network's language model; None where it can."""
    trunk = language_trunk(network)
    if trunk.prompted:
        return "learned tokens come before all (trunk.tune=prompt), for which there is no place in it"
    if trunk.scale != 1 or trunk.cap or getattr(trunk.head[0], "bias", None) is not None:
        return f"'{trunk.language.name}' changes its logits after its head, which it doesn't"
    return None


def export_llava(network: Network, column: str, language: Any, tower: Any, folder: Path) -> None:
    """Write a network's language model, the projector of a column of pictures and its encoder as one LLaVA model.

    Args:
        language, tower: ``transformers`` models, merged with their tuned weights. folder: is made.
    """
    import transformers
    from safetensors.torch import save_file

    from sensorium.backbones.transformers import PATCH_LAYER
    from sensorium.core.files import atomic_write

    encoder, trunk = cast("Transformers", network.modalities[column].encoder), language_trunk(network)
    assert network.dialogue is not None
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = copy.deepcopy(trunk.language.tokenizer)
    tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    mark = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
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
        vision_feature_layer=PATCH_LAYER,
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
    generation = copy.deepcopy(language.generation_config)
    generation.suppress_tokens = [mark]
    generation.save_pretrained(folder)
    message = json.dumps(dialogue_modality(network).system)
    system = ADD_SYSTEM.replace("SYSTEM", message) if trunk.language.has_system else ""
    processor = transformers.LlavaProcessor(
        encoder.processor,
        tokenizer,
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=int(first),
        image_token=IMAGE_TOKEN,
        chat_template=FLATTEN_PARTS + system + tokenizer.chat_template,
    )
    processor.save_pretrained(folder)


def llava_columns(network: Network) -> dict[str, str]:
    """Columns of pictures that conversations hold as LLaVA does, and the folder that each is written to."""
    projectors = network.dialogue.projectors if network.dialogue is not None else {}
    columns = [c for c in network.columns if network.stem_key[c] in projectors]
    return {column: "llava" if len(columns) == 1 else f"llava-{number}" for number, column in enumerate(columns, 1)}
