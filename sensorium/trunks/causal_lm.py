"""A pretrained causal language model as the trunk: every segment is brought into its width, after its column's name in its own words.

Its weights stay in their own file; what is learned stands beside them: nothing (``frozen``), low-rank updates, biases, its last layers, or all of it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sensorium.backbones._fast_decode import DecoderCache, FastDecoder, as_stands, remembers, steps_of
from sensorium.backbones._language_model import LanguageModel
from sensorium.backbones._open import open_language
from sensorium.backbones._tuning import Tuning, layers_of
from sensorium.core.errors import UserError
from sensorium.nn.external import ExternalModel
from sensorium.nn.modality_expert import ModalityExpert
from sensorium.nn.packing import NO_GROUP, PackedSequences, pack_lines
from sensorium.nn.quantized import round_linears
from sensorium.trunks import Seen, Trunk

FEW = 2
"""Rows whose next words are told faster from a copy of the head."""
BEGUN = "Look at what is shown and answer what is asked about it, in few words."
"""What learned tokens before all begin as."""


@dataclasses.dataclass
class PrefixCache:
    """Keys and values of all before; which of these tokens are there, [n, s]; how many are, [n]."""

    cache: Any
    mask: torch.Tensor
    count: torch.Tensor


class CausalLM(ExternalModel, Trunk):
    """Early fusion in a language model. Words see those before them; a picture's, a sound's or a series' tokens see one another.

    Args:
        path: a folder, a GGUF file, package:NAME, or OWNER/NAME@REVISION on the hub.
        tune: frozen, lora, dora, rslora, bias, last:N (layers), full, or prompt:N (so many learned tokens before all that it hears, 16 where no number is said).
        rank, alpha: of LoRA (Hu et al. 2021, arXiv 2106.09685); alpha 0: twice the rank. dora: split each update in direction and size (arXiv 2402.09353).
            rslora: scale by the root of the rank (arXiv 2312.03732). targets: which linear layers, as ``q_proj,v_proj``; empty: all but the head.
        rate: learning rate of what is tuned, relative to ``train.lr``; 0: as suits ``tune``.
        bits: of each weight of its linear layers: all that they have (0), 8, or 4 (NF4 of QLoRA, arXiv 2305.14314), which are turned back for each product: a quarter or an eighth of the memory, where they are frozen.
        both: what is seen sees all of itself, both ways, not only what stands before.
        always: what ``lora`` has tuned is heard in conversations that refer to no cell, too, even where none such was learned; else these are answered by the language model as it was.
        expert: pictures, sounds, clips and series that are drawn have layers of their own, which begin as copies of the language model's; its own stay as they are, so that with ``tune=frozen`` it says of words what it said
            (LMFusion, arXiv 2412.15188). expert_rate: their learning rate, relative to ``train.lr``.
        checkpointing: compute each layer again in the backward pass, which takes a third longer and much less memory.
        compile: let torch.compile make one program of each layer for training, which takes about a minute before the first steps and wants a C++ compiler.
    """

    early: ClassVar[bool] = True
    is_language_model: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        columns: list[str],
        *,
        path: str = "",
        tune: str = "lora",
        rank: int = 16,
        alpha: int = 0,
        dora: bool = False,
        rslora: bool = False,
        targets: str = "",
        rate: float = 0.0,
        bits: Literal[0, 4, 8] = 0,
        both: bool = True,
        always: bool = False,
        expert: bool = False,
        expert_rate: float = 0.05,
        checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if not path:
            raise UserError(
                "trunk=causal_lm needs a language model: trunk.path=FOLDER, a GGUF file, package:NAME, or OWNER/NAME@REVISION on the hub."
            )
        how = Tuning(tune, rank, alpha, dora, rslora, targets, rate)
        if bits and how.kind in ("last", "full"):
            raise UserError(
                f"trunk.bits={bits} rounds the language model's weights, so trunk.tune={tune} can't learn them. Choose lora, dora, rslora, bias, prompt or frozen, or leave trunk.bits out."
            )
        self.language: LanguageModel = open_language(path)
        model = self.language.model(as_kept=bits > 0)
        if bits:
            round_linears(model, bits, model.get_output_embeddings())
            model.float()
        self.both, self.always, self.tune, self.bits, self.compiled = both, always, tune, bits, compile
        model = how.of(model, model.get_output_embeddings())
        if checkpointing:
            again = {"use_reentrant": False, **({"context_fn": self.as_taken} if expert else {})}
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)(again)
        if compile:
            compiled(model, expert)
        self.wrap(model, how.relative)
        self.prompted = how.tokens
        self.decoder, self.head = [model.get_decoder()], [model.get_output_embeddings()]
        self.table = [self.decoder[0].get_input_embeddings()]
        self.expert, self.expert_rate, self.taken = (
            ModalityExpert(self.decoder[0]) if expert else None,
            expert_rate,
            None,
        )
        config = model.config
        self.cap = float(
            getattr(config, "final_logit_softcapping", None) or 0.0
        )  # Gemma's; the scales are Granite's and Cohere's
        self.scale = float(getattr(config, "logit_scale", None) or 1.0) / float(
            getattr(config, "logits_scaling", None) or 1.0
        )
        self.remembers = remembers(self.decoder[0])
        self.quick: dict[Any, FastDecoder | None] = {}
        self.vocabulary, own = map(int, self.table[0].weight.shape)
        self.embedding_size = own
        if self.prompted:  # words to begin with
            words = self.language.ids(BEGUN)
            self.learned["prompt"] = nn.Parameter(
                self.table[0].weight[[words[at % len(words)] for at in range(self.prompted)]].detach().clone()
            )
        self.into, self.out = nn.Linear(width, own), nn.Linear(own, width)
        with torch.no_grad():
            loud = self.table[0].weight.float().square().mean().sqrt()
        self.loud = nn.Parameter(loud.clone())  # a token from elsewhere is as loud as a word
        self.names = {column: self.language.ids(f"\n{column}:") for column in columns}

    def _apply(self, fn: Any, recurse: bool = True) -> CausalLM:
        self.quick.clear()
        return super()._apply(fn, recurse)

    def facts(self) -> dict[str, Any]:
        """What of it is learned, in numbers."""
        own = {} if self.expert is None else {"expert_parameters": sum(p.numel() for p in self.expert.parameters())}
        return {
            "language_model": self.language.name,
            "tune": self.tune,
            **({"bits": self.bits} if self.bits else {}),
            **self.share(),
            **own,
        }

    def generative_parameters(self) -> Iterable[nn.Parameter]:
        return () if self.expert is None else self.expert.parameters()

    def tuned_parameters(self) -> Iterable[tuple[nn.Parameter, float]]:
        own = [(parameter, self.expert_rate) for parameter in self.generative_parameters()]
        return [*super().tuned_parameters(), *own]

    # --- words ----------------------------------------------------------------------------------------------------------

    def words(self, ids: torch.Tensor) -> torch.Tensor:
        """Ids of its vocabulary to tokens [..., width]."""
        return self.table[0](ids)

    def enter(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens from stems and generators [..., width] in its own width, as loud as words are."""
        tokens = self.into(tokens)
        return F.rms_norm(tokens.float(), tokens.shape[-1:]) * self.loud

    def logits(self, hidden: torch.Tensor, state: PrefixCache | None = None) -> torch.Tensor:
        """Hidden [..., width] to float logits of its vocabulary; ``state``: as it goes on from there, one token at a time."""
        step_by_step = (
            state is not None and isinstance(state.cache, DecoderCache) and hidden.ndim == 2 and len(hidden) <= FEW
        )
        logits = state.cache.steps.logits(hidden) if step_by_step else self.head[0](hidden).float()
        logits = logits if self.scale == 1 else logits * self.scale
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits

    # --- lines ----------------------------------------------------------------------------------------------------------

    def run(
        self, pool: torch.Tensor, index: np.ndarray, lines: PackedSequences, drawn: np.ndarray | None = None
    ) -> torch.Tensor:
        """Tokens ``pool[index]`` [n, width] in their lines, packed, to hidden [n, width]; ``drawn``: which of them are the expert's, [n]."""
        count = len(lines)
        if self.prompted:
            rows = np.unique(lines.row)
            new, every = np.tile(np.arange(self.prompted), len(rows)), rows.repeat(self.prompted)
            index, pool = (
                np.concatenate([index, len(pool) + new]),
                torch.cat([pool, self.learned["prompt"].to(pool.dtype)]),
            )
            lines = PackedSequences(
                *map(
                    np.concatenate,
                    (
                        (lines.row, every),
                        (lines.place + self.prompted, new),
                        (lines.segment, np.zeros_like(new)),
                        (lines.group, np.full_like(new, NO_GROUP)),
                    ),
                )
            )
        packed = pack_lines(lines, pool.device)
        tokens = packed.fill(pool.index_select(0, torch.from_numpy(index).to(pool.device)))
        with self.taking(None if drawn is None else packed.marked(np.flatnonzero(drawn))):
            hidden = self.decoder[0](
                inputs_embeds=tokens,
                attention_mask=added(packed.allowed, tokens.dtype),
                position_ids=packed.positions,
                use_cache=False,
            )
        return packed.back(hidden.last_hidden_state)[:count]

    @contextlib.contextmanager
    def taking(self, drawn: torch.Tensor | None) -> Iterator[None]:
        """Meanwhile the expert takes the tokens that are drawn, bool [n, s], where there is one."""
        if self.expert is None or drawn is None:
            yield
            return
        self.taken = drawn
        try:
            with self.expert.taking(drawn):
                yield
        finally:
            self.taken = None

    def as_written(self) -> Any:
        """A context in which nothing is compiled: what is said is of another length each time."""
        return torch.compiler.set_stance("force_eager") if self.compiled else contextlib.nullcontext()

    def as_taken(self) -> tuple[Any, Any]:
        """What a layer is computed in, and what it is computed in again in the backward pass, when nothing is taken any more."""
        return contextlib.nullcontext(), self.taking(self.taken)

    @contextlib.contextmanager
    def as_it_was(self) -> Iterator[None]:
        prompted, self.prompted = self.prompted, 0
        try:
            with super().as_it_was():
                yield
        finally:
            self.prompted = prompted

    def seen(self, seen: Seen) -> tuple[torch.Tensor, torch.Tensor]:
        """All that is seen, each column after its name: tokens [n, s, width] and mask [n, s]."""
        tokens, masks = [], []
        for column in ["", *self.names]:  # always in this order, as places count here
            if column not in seen:
                continue
            part, mask = seen[column]
            if column:
                name = self.words(torch.tensor(self.names[column], device=mask.device))
                tokens.append(name.expand(len(mask), -1, -1))
                masks.append(mask.any(1, keepdim=True).expand(-1, len(name)))
            tokens.append(self.enter(part))
            masks.append(mask)
        return torch.cat(tokens, 1), torch.cat(masks, 1)

    def forward(
        self, seen: Seen, asked: list[torch.Tensor], causal: list[bool], drawn: Sequence[bool] = ()
    ) -> list[torch.Tensor]:
        tokens, mask = self.seen(seen)
        n, s = mask.shape
        lengths = [part.shape[1] for part in asked]
        there = torch.cat([mask, mask.new_ones(n, sum(lengths))], 1)
        known, counts = there.cpu().numpy(), mask.sum(1).cpu().numpy()
        place = known[:, :s].cumsum(1) - 1
        group = np.zeros((n, s), np.int64) if self.both else np.full((n, s), NO_GROUP)
        places, segments, groups = [place], [np.zeros((n, s), np.int64)], [group]
        for number, (length, one_way) in enumerate(zip(lengths, causal, strict=True), 1):
            places.append(counts[:, None] + np.arange(length))
            segments.append(np.full((n, length), number))
            groups.append(np.full((n, length), NO_GROUP if one_way else number))
        rows = np.broadcast_to(np.arange(n)[:, None], known.shape)
        lines = PackedSequences(
            *(
                np.ascontiguousarray(x[known])
                for x in (rows, *(np.concatenate(x, 1) for x in (places, segments, groups)))
            )
        )
        pool = torch.cat([tokens, *map(self.enter, asked)], 1).flatten(0, 1)
        apart = None
        if any(drawn):
            apart = np.concatenate(
                [np.zeros(s, bool), *(np.full(length, own) for length, own in zip(lengths, drawn, strict=True))]
            )
            apart = np.broadcast_to(apart, known.shape)[known]
        hidden = self.run(pool, np.flatnonzero(known), lines, apart)
        hidden = self.out(hidden)
        whole = hidden.new_zeros(known.size, hidden.shape[1]).index_copy(
            0, torch.from_numpy(np.flatnonzero(known)).to(hidden.device), hidden
        )
        return list(whole.view(n, -1, whole.shape[1])[:, s:].split(lengths, 1))

    def prefill(self, seen: Seen) -> PrefixCache:
        tokens, mask = self.seen(seen)
        groups = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device) if self.both else None
        return self.hear(tokens, mask, groups)[1]

    def hear(
        self, tokens: torch.Tensor, mask: torch.Tensor, groups: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, PrefixCache]:
        """Tokens [n, s, width] of which some are there, [n, s], from the beginning: hidden [n, s, width], and what is remembered of them.

        ``groups`` [n, s]: tokens of one number from 0 on see one another; None: each sees those before it.
        """
        from transformers import DynamicCache

        before = self.prompted
        if before:
            tokens = torch.cat([self.learned["prompt"].to(tokens.dtype).expand(len(tokens), -1, -1), tokens], 1)
            mask = torch.cat([mask.new_ones(len(mask), before), mask], 1)
            groups = None if groups is None else torch.cat([groups.new_full((len(groups), before), NO_GROUP), groups], 1)
        place = (mask.cumsum(1) - 1).clamp(min=0)
        allowed = mask.unsqueeze(1) & (place.unsqueeze(1) <= place.unsqueeze(2))
        if groups is not None:
            allowed |= mask.unsqueeze(1) & (groups.unsqueeze(1) == groups.unsqueeze(2)) & (groups.unsqueeze(1) >= 0)
        allowed = allowed | torch.eye(
            mask.shape[1], dtype=torch.bool, device=mask.device
        )  # what isn't there sees itself, for something must be seen
        cache = DynamicCache()
        with self.as_written():
            found = self.decoder[0](
                inputs_embeds=tokens,
                attention_mask=added(allowed, tokens.dtype),
                position_ids=place,
                use_cache=True,
                **{self.remembers: cache},
            )
        return found.last_hidden_state[:, before:], PrefixCache(cache, mask, mask.sum(1))

    def decode(self, state: PrefixCache, tokens: torch.Tensor, drawn: bool = False) -> tuple[torch.Tensor, PrefixCache]:
        hidden, state = self.continued(state, self.enter(tokens), drawn)
        return self.out(hidden), state

    def continued(
        self, state: PrefixCache, tokens: torch.Tensor, drawn: bool = False
    ) -> tuple[torch.Tensor, PrefixCache]:
        """As ``go_on``, with tokens that are words already."""
        n, k, _ = tokens.shape
        mask = torch.cat([state.mask, state.mask.new_ones(n, k)], 1)
        kept = state.cache if isinstance(state.cache, DecoderCache) else None
        apart = drawn and self.expert is not None
        steps = None if apart else kept.steps if kept else self.steps(tokens) if k == 1 else None
        if steps is not None and k == 1 and mask.shape[1] <= steps.most:
            hidden, kept = steps(tokens[:, 0], kept or steps.keep(state.cache, state.mask), mask, state.count)
            return hidden.unsqueeze(1), PrefixCache(kept, mask, state.count + 1)
        cache = copied(state.cache) if kept is None else kept.steps.give_back(kept)
        with (
            self.as_written(),
            self.taking(torch.ones(n, k, dtype=torch.bool, device=tokens.device) if apart else None),
        ):
            found = self.decoder[0](
                inputs_embeds=tokens,
                attention_mask=added(mask.unsqueeze(1).expand(-1, k, -1), tokens.dtype),
                position_ids=state.count.unsqueeze(1) + torch.arange(k, device=tokens.device),
                use_cache=True,
                **{self.remembers: cache},
            )
        return found.last_hidden_state, PrefixCache(cache, mask, state.count + k)

    def steps(self, tokens: torch.Tensor) -> FastDecoder | None:
        """Its weights as they are read fastest, where it goes on one token at a time; made again when they have changed."""
        if torch.is_grad_enabled() or tokens.device.type != "cpu" or self.decoder[0].training:
            return None
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        key = dtype, as_stands(self.decoder[0])
        if key not in self.quick:
            self.quick = {
                **dict(list(self.quick.items())[-1:]),
                key: steps_of(self.decoder[0], self.head[0], dtype),
            }  # as it is tuned and as it was: two at most
        return self.quick[key]

    def reorder(self, state: PrefixCache, rows: torch.Tensor) -> PrefixCache:
        if isinstance(state.cache, DecoderCache):
            return PrefixCache(state.cache.reordered(rows), state.mask[rows], state.count[rows])
        cache = copied(state.cache)
        cache.batch_select_indices(rows)
        return PrefixCache(cache, state.mask[rows], state.count[rows])


def compiled(model: nn.Module, expert: bool) -> None:
    """Let each layer of a model be compiled when it is first called; those that are alike share what is made.

    Raises:
        UserError: there is no compiler, or an expert would go past what was compiled.
    """
    if expert:
        raise UserError(
            "trunk.compile=true makes one program of each layer, past which trunk.expert=true could not go. Leave one of them out."
        )
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "g++", "clang++", "c++")):
        raise UserError(
            "trunk.compile=true wants a C++ compiler, and there is none here. Install one (Debian, Ubuntu: apt-get install g++), or leave it out."
        )
    warnings.filterwarnings(
        "ignore", message="The .grad attribute of a Tensor that is not a leaf"
    )  # torch.compile looks for one in what layers are given
    for layer in layers_of(model)[1]:
        layer.compile(dynamic=True)


def added(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What may be looked at, bool [n, q, k], as numbers that are added to scores, [n, 1, q, k]."""
    return (
        torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        .masked_fill(~allowed, torch.finfo(dtype).min)
        .unsqueeze(1)
    )


def copied(cache: Any) -> Any:
    """A cache that goes on from another, which stays as it is: layers put new tensors in place of theirs."""
    result = copy.copy(cache)
    result.layers = [copy.copy(layer) for layer in cache.layers]
    return result
