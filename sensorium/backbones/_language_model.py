"""Pretrained language models: any causal one that transformers opens from safetensors or GGUF, with its tokenizer and
chat template."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer

from sensorium.backbones import called
from sensorium.core.errors import UserError
from sensorium.core.files import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONTENT = re.compile("\ue000(\\d+)\ue001")
"""Placeholder of a message's content while the template is filled in, so that no content is parsed as part of it."""
TEMPLATE = (
    "{% for message in messages %}{{ message['role'].capitalize() + ': ' + message['content'] + eos_token + '\n' }}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
"""Chat template of a model that has none."""


class LanguageModel:
    """Tokenizer of a causal language model, and the location of its weights.

    Attributes:
        folder: its folder. sha256: hash of all its files.
        words, plain: its tokenizer, with control tokens and without. end: id of the end of an answer.
    """

    def __init__(self, folder: Path) -> None:
        import transformers

        self.folder, self.name = folder.resolve(), called(folder.resolve())
        self.gguf = folder.name if folder.is_file() else None
        files = (
            [folder]
            if self.gguf
            else [
                path
                for path in sorted(folder.iterdir())
                if path.suffix in (".json", ".jinja", ".safetensors", ".txt", ".model")
            ]
        )
        self.sha256 = hashlib.sha256(" ".join(f"{path.name} {digest(path)}" for path in files).encode()).hexdigest()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(
            self.place, local_files_only=True, trust_remote_code=False, **self.part
        )
        if not self.tokenizer.is_fast or self.tokenizer.eos_token_id is None:
            raise UserError(
                f"The language model '{folder}' has no fast tokenizer with an end of text, which is needed."
            )
        self.words: Tokenizer = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        self.plain: Tokenizer = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        self.plain.encode_special_tokens = True  # what a user writes is never a control token
        for tokenizer in (self.words, self.plain):
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self.end = int(self.tokenizer.eos_token_id)
        self.special = frozenset(int(i) for i in self.tokenizer.all_special_ids)
        if getattr(self.tokenizer, "chat_template", None) is None:
            self.tokenizer.chat_template = TEMPLATE
        self.has_system = self._takes_system()

    @property
    def place(self) -> Path:
        """Folder for transformers."""
        return self.folder.parent if self.gguf else self.folder

    @property
    def part(self) -> dict[str, str]:
        """File in that folder, where the model is one file."""
        return {"gguf_file": self.gguf} if self.gguf else {}

    def model(self, as_stored: bool = False) -> PreTrainedModel:
        """Fresh ``PreTrainedModel`` from its files, in float32 and without gradients.

        Args:
            as_stored: in the precision of the files.

        Raises:
            UserError: it can't be opened, or its tokenizer knows more words than it does.
        """
        import transformers

        from sensorium.backbones._common import quiet

        how = {} if self.gguf else {"use_safetensors": True}
        try:
            with quiet():
                model = transformers.AutoModelForCausalLM.from_pretrained(
                    self.place,
                    local_files_only=True,
                    trust_remote_code=False,
                    dtype="auto" if as_stored else torch.float32,
                    **self.part,
                    **how,
                )
        except Exception as error:  # that library raises whatever a file makes it stumble over
            raise UserError(
                f"The language model '{self.folder}' can't be opened: "
                f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
            ) from error
        known = model.get_input_embeddings().num_embeddings
        if len(self.tokenizer) > known:
            raise UserError(
                f"The tokenizer in '{self.folder}' has {len(self.tokenizer)} tokens, the model {known}: they don't "
                "belong together. Fetch both anew."
            )
        return model.eval().requires_grad_(False)

    def ids(self, text: str) -> list[int]:
        """Ids of a text in which nothing is a control token."""
        return self.plain.encode(text, add_special_tokens=False).ids

    def text(self, ids: Sequence[int]) -> str:
        """Text of ids, without control tokens."""
        return self.plain.decode([i for i in ids if i not in self.special], skip_special_tokens=False)

    def written(self, messages: Sequence[Mapping[str, Any]], answer: bool = False) -> list[tuple[str | int, bool]]:
        """Pieces of a conversation by the model's own template, in their order.

        They are (control text, False), or (number of the message whose content stands here, True).

        Args:
            messages: with ``role``; their content doesn't matter here. answer: end where the assistant is to begin.
        """
        given = [
            {"role": message["role"], "content": f"\ue000{number}\ue001"} for number, message in enumerate(messages)
        ]
        try:
            whole = self.tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=answer)
        except Exception as error:  # templates raise errors of their own
            raise UserError(
                f"The template of '{self.name}' doesn't take messages in this order "
                f"({', '.join(str(m['role']) for m in messages)}): "
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from error
        pieces = CONTENT.split(whole)  # text, number, text, number, …
        return [(int(piece), True) if at % 2 else (piece, False) for at, piece in enumerate(pieces) if piece]

    def _takes_system(self) -> bool:
        try:
            return "\ue0000\ue001" in self.tokenizer.apply_chat_template(
                [{"role": "system", "content": "\ue0000\ue001"}, {"role": "user", "content": "a"}], tokenize=False
            )
        except Exception:  # a template that knows no such role says so in many ways
            return False
