"""Encoders of pictures, texts and sounds of transformers' ``AutoModel``: CLIP, SigLIP, DINO, ViT, BERT and others,
Whisper, wav2vec 2, HuBERT."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from sensorium.backbones import WORDS, Backbone, Kind, as_maps, device, side_by_side, whole_and_grid, whole_and_moments
from sensorium.backbones._common import quiet
from sensorium.core.errors import UserError

MIN_SILENCE = 1.0
"""Least seconds of silence after a sound for an encoder of thirty seconds: with so many the spoken names of two voices
find one another as well as with all thirty, fifteen times as fast."""
TOWERS = ("clip_vision_model", "siglip_vision_model")
PATCH_LAYER = -2
"""Vision towers of LLaVA, and the layer whose patches it takes (Liu et al. 2023, arXiv 2310.03744)."""
MAX_TOKENS = 512
"""Tokens of a text that are read at most, where the encoder has no limit of its own."""


class Transformers(Backbone):
    """One tower of a model of two (CLIP, SigLIP), the encoder of an encoder-decoder (Whisper), or an encoder."""

    def __init__(self, folder: Path, kind: Kind, patches: bool = False) -> None:
        super().__init__(folder, kind, patches)
        own = {"local_files_only": True, "trust_remote_code": False}
        with quiet():
            model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **own)
        side = {"image": "vision_model", "text": "text_model", "audio": "encoder"}[kind]
        self.both = kind != "audio" and (hasattr(model, "vision_model") or hasattr(model, "text_model"))
        if self.both and not hasattr(model, side):
            raise UserError(f"'{folder}' ({model.config.model_type}) has no encoder of {kind}.")
        takes = getattr(model, "main_input_name", "")
        reads = (
            "image"
            if self.both and kind == "image"
            else "text"
            if self.both
            else {"pixel_values": "image", "input_ids": "text"}.get(takes, "audio")
        )
        if reads != kind:
            raise UserError(
                f"'{folder}' ({model.config.model_type}) is an encoder of {reads}; the column holds {kind}. Give "
                "another backbone."
            )
        paired = not self.both and bool(getattr(model.config, "is_encoder_decoder", False))
        self.written, self.short = kind == "audio" and paired, False
        self.model = (
            (getattr(model, side) if self.both else model.get_encoder() if paired else model)
            .eval()
            .requires_grad_(False)
            .to(device())
        )
        self.width = int(
            self.model.config.hidden_sizes[-1]
            if getattr(self.model.config, "hidden_sizes", None)
            else getattr(self.model.config, "hidden_size", 0) or self.model.config.d_model
        )
        if patches and self.model.config.model_type not in TOWERS:
            raise UserError(
                f"The layout of LLaVA takes a CLIP or SigLIP, whose patches it hears; '{folder}' is a "
                f"{model.config.model_type}. Give another backbone, or leave column.NAME.llava out."
            )
        self.patches = (self.model.config.image_size // self.model.config.patch_size) ** 2 if patches else 0
        if kind == "text":
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **own)
            if self.tokenizer.pad_token is None:
                self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
            known = self.model.get_input_embeddings().num_embeddings
            if len(self.tokenizer) > known:
                raise UserError(
                    f"The tokenizer in '{folder}' has {len(self.tokenizer)} tokens, the model {known}: they don't "
                    "belong together. Fetch both anew."
                )
            self.full = self.model.config.model_type.startswith(
                "siglip"
            )  # says what a text is at its last place, after padding that it sees
            self.longest = min(
                MAX_TOKENS,
                self.tokenizer.model_max_length,
                int(getattr(self.model.config, "max_position_embeddings", MAX_TOKENS)),
            )
        elif kind == "image":
            self.processor = transformers.AutoImageProcessor.from_pretrained(folder, **own)
            self.mean, self.std = (
                torch.tensor(getattr(self.processor, key)).view(3, 1, 1) for key in ("image_mean", "image_std")
            )
            self.size = self.picture(np.zeros((64, 64, 3), np.uint8)).shape[0]
        else:
            self.processor = transformers.AutoFeatureExtractor.from_pretrained(folder, **own)
            self.rate = int(self.processor.sampling_rate)
            self.hears = self.processor.model_input_names[0]
            self.short = self.model.config.model_type == "whisper"
            if self.short:
                self.sha256 = hashlib.sha256(f"{self.sha256} {MIN_SILENCE}".encode()).hexdigest()

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        cut = self.processor(
            images=[pixels],
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
            input_data_format="channels_last",
        )["pixel_values"][0]
        return cut.permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()

    def batch(self, cells: Sequence[Any]) -> dict[str, torch.Tensor]:
        if self.kind == "image":
            return {"pixels": torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2)}
        if self.kind == "text":
            given = self.tokenizer(
                list(cells),
                padding="max_length" if self.full else True,
                truncation=True,
                max_length=self.longest,
                return_tensors="pt",
                return_attention_mask=True,
            )
            return {key: given[key] for key in ("input_ids", "token_type_ids", "attention_mask") if key in given}
        waves = [
            torch.from_numpy(
                np.asarray(self.processor(wave, sampling_rate=self.rate, return_tensors="np")[self.hears][0])
            )
            for wave in cells
        ]
        return {
            "heard": nn.utils.rnn.pad_sequence(waves, batch_first=True),
            "heard_length": torch.tensor([len(one) for one in waves]),
            "samples": torch.tensor([len(wave) for wave in cells]),
        }

    def tokens(self, batch: Mapping[str, torch.Tensor], model: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        return getattr(self, f"{self.kind}_tokens")(batch, model)

    def image_tokens(self, batch: Mapping[str, torch.Tensor], model: Any) -> tuple[torch.Tensor, None]:
        x = batch["pixels"].float() * getattr(self.processor, "rescale_factor", 1 / 255)
        x = (x - self.mean.to(x.device)) / self.std.to(x.device) if self.processor.do_normalize else x
        found = model(pixel_values=x, **({"output_hidden_states": True} if self.patches else {}))
        hidden = found.last_hidden_state
        if hidden.ndim == 4:
            return whole_and_grid(hidden.mean((2, 3)), hidden), None
        prefix = hidden.shape[1] - int(hidden.shape[1] ** 0.5) ** 2
        pooled = found.pooler_output if self.both else hidden[:, 0] if prefix else hidden.mean(1)
        tokens = whole_and_grid(pooled, as_maps(hidden, prefix))
        return (
            torch.cat([tokens, found.hidden_states[PATCH_LAYER][:, prefix:].float()], 1) if self.patches else tokens
        ), None

    def text_tokens(self, batch: Mapping[str, torch.Tensor], model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        found = model(
            **{
                key: value
                for key, value in batch.items()
                if key in ("input_ids", "token_type_ids") or (key == "attention_mask" and not self.full)
            }
        )
        hidden, there = found.last_hidden_state.float(), batch["attention_mask"] > 0
        pooled = (
            found.pooler_output.float()
            if self.both
            else (hidden * there.unsqueeze(-1)).sum(1) / there.sum(1, keepdim=True)
        )
        order = (~there).to(torch.int8).argsort(dim=1, stable=True)[:, :WORDS]  # those that are there first
        hidden = hidden.gather(1, order.unsqueeze(-1).expand(-1, -1, hidden.shape[2]))
        return torch.cat([pooled.unsqueeze(1), hidden], 1), torch.cat(
            [there.new_ones(len(there), 1), there.gather(1, order)], 1
        )

    def audio_tokens(self, batch: Mapping[str, torch.Tensor], model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        result = []
        for wave, length, samples in zip(
            batch["heard"], batch["heard_length"].tolist(), batch["samples"].tolist(), strict=True
        ):  # one by one: some of these encoders hear padding
            seconds = samples / self.rate
            if self.short:
                hidden, whole = self.began(wave, seconds, model)[0].float(), math.ceil(seconds + MIN_SILENCE)
            else:
                hidden, whole = (
                    model(wave[:length].unsqueeze(0)).last_hidden_state[0].float(),
                    self.processor.chunk_length if self.written else seconds,
                )
            if self.written:  # of its seconds those that are sound
                hidden = hidden[
                    : max(1, round(len(hidden) * min(1.0, seconds / min(whole, self.processor.chunk_length))))
                ]
            result.append(whole_and_moments(hidden.mean(0, keepdim=True), hidden))
        return side_by_side(result)

    def began(self, wave: torch.Tensor, seconds: float, model: Any) -> torch.Tensor:
        """Hidden states [1, tokens, width] of Whisper's encoder for the beginning of its thirty seconds [bands,
        frames].

        It has the sound, and at least ``MIN_SILENCE`` of silence.
        """
        frames = math.ceil(seconds + MIN_SILENCE) * self.rate // self.processor.hop_length
        x = F.gelu(model.conv2(F.gelu(model.conv1(wave[:, : min(frames, wave.shape[1])].unsqueeze(0))))).transpose(1, 2)
        x = x + model.embed_positions.weight[: x.shape[1]]
        for layer in model.layers:
            x = layer(x, None)
        return model.layer_norm(x)
