"""Encoders of pictures, texts and sounds that transformers' ``AutoModel`` opens: CLIP, SigLIP, DINO, ViT, BERT and its kin, Whisper, wav2vec 2, HuBERT."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import functional as F

from sensorium.backbones import MOMENTS, WORDS, Backbone, as_maps, device, whole_and_grid
from sensorium.core.errors import UserError

LONGEST = 512
"""Tokens of a text that are read at most, where the encoder says nothing."""


class Transformers(Backbone):
    """One side of a model of two (CLIP, SigLIP), the encoder of one that writes (Whisper), or a model that is an encoder."""

    def __init__(self, folder: Path, kind: str) -> None:
        super().__init__(folder, kind)
        own = {"local_files_only": True, "trust_remote_code": False}
        with quiet():
            model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **own)
        side = {"image": "vision_model", "text": "text_model", "audio": "encoder"}[kind]
        self.both = kind != "audio" and (hasattr(model, "vision_model") or hasattr(model, "text_model"))
        if self.both and not hasattr(model, side):
            raise UserError(f"'{folder}' ({model.config.model_type}) has no encoder of {kind}.")
        takes = getattr(model, "main_input_name", "")
        reads = "image" if self.both and kind == "image" else "text" if self.both else {"pixel_values": "image", "input_ids": "text"}.get(takes, "audio")
        if reads != kind:
            raise UserError(f"'{folder}' ({model.config.model_type}) is an encoder of {reads}; the column holds {kind}. Give another backbone.")
        paired = not self.both and bool(getattr(model.config, "is_encoder_decoder", False))
        self.written = kind == "audio" and paired
        self.model = (getattr(model, side) if self.both else model.get_encoder() if paired else model).eval().requires_grad_(False).to(device())
        self.width = int(self.model.config.hidden_sizes[-1] if getattr(self.model.config, "hidden_sizes", None) else getattr(self.model.config, "hidden_size", 0) or self.model.config.d_model)
        if kind == "text":
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **own)
            if self.tokenizer.pad_token is None:
                self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
            known = self.model.get_input_embeddings().num_embeddings
            if len(self.tokenizer) > known:
                raise UserError(f"The tokenizer in '{folder}' has {len(self.tokenizer)} tokens, the model {known}: they don't belong together. Fetch both anew.")
            self.longest = min(LONGEST, self.tokenizer.model_max_length, int(getattr(self.model.config, "max_position_embeddings", LONGEST)))
        elif kind == "image":
            self.processor = transformers.AutoImageProcessor.from_pretrained(folder, **own)
            self.mean, self.std = (torch.tensor(getattr(self.processor, key)).view(3, 1, 1) for key in ("image_mean", "image_std"))
            self.size = self.picture(np.zeros((64, 64, 3), np.uint8)).shape[0]
        else:
            self.processor = transformers.AutoFeatureExtractor.from_pretrained(folder, **own)
            self.rate = int(self.processor.sampling_rate)

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        cut = self.processor(images=[pixels], do_rescale=False, do_normalize=False, return_tensors="pt", input_data_format="channels_last")["pixel_values"][0]
        return cut.permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()

    @torch.inference_mode()
    def encode(self, cells: Sequence[Any]) -> list[np.ndarray]:
        return getattr(self, f"encode_{self.kind}")(cells, next(self.model.parameters()).device)

    def encode_image(self, cells: Sequence[np.ndarray], where: torch.device) -> list[np.ndarray]:
        x = torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2).float() * getattr(self.processor, "rescale_factor", 1 / 255)
        x = (x - self.mean) / self.std if self.processor.do_normalize else x
        found = self.model(pixel_values=x.to(where))
        hidden = found.last_hidden_state
        if hidden.ndim == 4:
            return whole_and_grid(hidden.mean((2, 3)), hidden)
        prefix = hidden.shape[1] - int(hidden.shape[1] ** 0.5) ** 2
        pooled = found.pooler_output if self.both else hidden[:, 0] if prefix else hidden.mean(1)
        return whole_and_grid(pooled, as_maps(hidden, prefix))

    def encode_text(self, cells: Sequence[str], where: torch.device) -> list[np.ndarray]:
        full = self.model.config.model_type.startswith("siglip")  # says what a text is at its last place, after padding that it sees
        given = self.tokenizer(list(cells), padding="max_length" if full else True, truncation=True, max_length=self.longest, return_tensors="pt", return_attention_mask=True).to(where)
        found = self.model(**{key: value for key, value in given.items() if key in ("input_ids", "token_type_ids") or (key == "attention_mask" and not full)})
        hidden, there = found.last_hidden_state.float(), given["attention_mask"].unsqueeze(-1)
        pooled = found.pooler_output.float() if self.both else (hidden * there).sum(1) / there.sum(1)
        lengths = there.sum((1, 2)).tolist()
        return [torch.cat([pooled[row : row + 1], hidden[row][there[row, :, 0] > 0][: min(WORDS, length)]]).cpu().numpy() for row, length in enumerate(lengths)]

    def encode_audio(self, cells: Sequence[np.ndarray], where: torch.device) -> list[np.ndarray]:
        result = []
        for wave in cells:  # one by one: some of these encoders hear padding
            given = self.processor(wave, sampling_rate=self.rate, return_tensors="pt")
            key = "input_features" if "input_features" in given else "input_values"
            hidden = self.model(given[key].to(where)).last_hidden_state[0].float()
            if self.written:  # of its thirty seconds those that are sound
                hidden = hidden[: max(1, round(hidden.shape[0] * min(1.0, len(wave) / self.rate / self.processor.chunk_length)))]
            moments = F.adaptive_avg_pool1d(hidden.T.unsqueeze(0), min(MOMENTS, len(hidden)))[0].T
            result.append(torch.cat([hidden.mean(0, keepdim=True), moments]).cpu().numpy())
        return result


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice meanwhile."""
    level, bars = transformers.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
