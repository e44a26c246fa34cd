"""Tiny random twins of pretrained encoders, built by their own libraries and saved to disk: what is opened is what they
would open.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import timm
import torch
import transformers as hf
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from sensorium.backbones.ge2e import MELS, SpeakerEncoder

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "red",
    "blue",
    "big",
    "small",
    "bar",
    "dot",
    "cat",
    "dog",
    "##s",
    "the",
    "b",
    "c",
    "d",
    "e",
    "f",
    "##a",
    "##b",
    "##e",
]
BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SIZE = 32


def tokenizer(folder: Path, length: int = 24, more: Sequence[str] = ()) -> None:
    """A word-piece tokenizer of a few words."""
    made = Tokenizer(models.WordPiece({word: number for number, word in enumerate([*WORDS, *more])}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    hf.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=length,
    ).save_pretrained(folder)


def pictures(folder: Path, kind: str) -> None:
    """A picture processor."""
    cut = (
        {"size": {"height": SIZE, "width": SIZE}}
        if "Siglip" in kind or kind == "ViTImageProcessor"
        else {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    )
    getattr(hf, kind)(**cut, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]).save_pretrained(folder)


def bert(folder: Path) -> None:
    hf.BertModel(hf.BertConfig(vocab_size=len(WORDS), max_position_embeddings=24, **BODY)).save_pretrained(folder)
    tokenizer(folder)


def clip(folder: Path) -> None:
    hf.CLIPModel(
        hf.CLIPConfig(
            text_config={
                "vocab_size": len(WORDS),
                "max_position_embeddings": 24,
                "eos_token_id": 3,
                "pad_token_id": 0,
                "bos_token_id": 2,
                **BODY,
            },
            vision_config={"image_size": SIZE, "patch_size": 8, **BODY},
            projection_dim=16,
        )
    ).save_pretrained(folder)
    tokenizer(folder)
    pictures(folder, "CLIPImageProcessor")


def siglip(folder: Path) -> None:
    hf.SiglipModel(
        hf.SiglipConfig(
            text_config={"vocab_size": len(WORDS), "max_position_embeddings": 24, **BODY},
            vision_config={"image_size": SIZE, "patch_size": 8, **BODY},
        )
    ).save_pretrained(folder)
    tokenizer(folder)
    pictures(folder, "SiglipImageProcessor")


def vit(folder: Path) -> None:
    hf.ViTModel(hf.ViTConfig(image_size=SIZE, patch_size=8, **BODY)).save_pretrained(folder)
    pictures(folder, "ViTImageProcessor")


def dinov2(folder: Path) -> None:
    hf.Dinov2Model(
        hf.Dinov2Config(image_size=SIZE, patch_size=8, **{k: v for k, v in BODY.items() if k != "intermediate_size"})
    ).save_pretrained(folder)
    pictures(folder, "BitImageProcessor")


def resnet(folder: Path) -> None:
    hf.ResNetModel(
        hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic")
    ).save_pretrained(folder)
    pictures(folder, "CLIPImageProcessor")


def whisper(folder: Path) -> None:
    hf.WhisperModel(
        hf.WhisperConfig(
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            vocab_size=60,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    ).save_pretrained(folder)
    hf.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)


def wav2vec2(folder: Path, part: str = "Wav2Vec2") -> None:
    config = getattr(hf, f"{part}Config")(
        conv_dim=[16, 16],
        conv_kernel=[10, 8],
        conv_stride=[10, 8],
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        **BODY,
    )
    getattr(hf, f"{part}Model")(config).save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(folder)


def timm_of(folder: Path, name: str) -> None:
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.contiguous() for key, value in timm.create_model(name, pretrained=False).state_dict().items()},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text(
        json.dumps(
            {"architecture": name, "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.3], "crop_pct": 0.9}}
        ),
        encoding="utf-8",
    )


CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if "
    "add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% "
    "endif %}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' + "
    "message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def speaker(
    folder: Path,
    kind: str,
    template: str | None = CHATML,
    marks: tuple[str, str] = ("<|im_start|>", "<|im_end|>"),
    **more: object,
) -> None:
    """A causal language model with a tokenizer of bytes and a template."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=marks[0], eos_token=marks[1], pad_token=marks[1]
    )
    if template:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "intermediate_size": 40,
        "max_position_embeddings": 512,
    }
    config = getattr(hf, f"{kind}Config")(
        vocab_size=len(tokenizer) + 6,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        **{**sizes, **more},
    )
    getattr(hf, f"{kind}ForCausalLM")(config).save_pretrained(folder)


def voices(folder: Path) -> None:
    made = {
        name: 8 * value for name, value in SpeakerEncoder(MELS, 24, 16, 2).state_dict().items()
    }  # else all sounds are one to it
    save_file(made, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "voices", "hidden": 24, "width": 16, "layers": 2}))


SPEAKERS: dict[str, Callable[[Path], None]] = {
    "llama": functools.partial(speaker, kind="Llama", tie_word_embeddings=True),
    "qwen3": functools.partial(speaker, kind="Qwen3"),
    "mistral": functools.partial(speaker, kind="Mistral", template=None),
    "gemma2": functools.partial(
        speaker,
        kind="Gemma2",
        template=GEMMA,
        marks=("<start_of_turn>", "<end_of_turn>"),
        query_pre_attn_scalar=12,
        sliding_window=256,
    ),
}
"""Tiny language models, and how each is made in a folder."""

TWINS: dict[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "bert": (("text",), bert),
    "clip": (("image", "text"), clip),
    "siglip": (("image", "text"), siglip),
    "vit": (("image",), vit),
    "dinov2": (("image",), dinov2),
    "resnet": (("image",), resnet),
    "whisper": (("audio",), whisper),
    "wav2vec2": (("audio",), wav2vec2),
    "hubert": (("audio",), functools.partial(wav2vec2, part="Hubert")),
    "voices": (("audio",), voices),
    "timm-cnn": (("image",), functools.partial(timm_of, name="test_efficientnet")),
    "timm-vit": (("image",), functools.partial(timm_of, name="test_vit")),
}
"""Each twin's kinds, and how it is made in a folder."""


def twin(name: str, folder: Path) -> Path:
    """A twin on disk, the same every time."""
    if not (folder / name).is_dir():
        (folder / name).mkdir(parents=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            (SPEAKERS.get(name) or TWINS[name][1])(folder / name)
    return folder / name
