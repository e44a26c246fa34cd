"""Pretrained causal language model as the trunk: each segment is projected to its width, after its column's name.

Its weights stay in their own file. Saved beside them is what is trained: nothing (``frozen``), low-rank updates,
biases, its last layers, or all of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.backbones._compile import compile_layers
from sensorium.backbones._fast_decode import DecoderCache, FastDecoder, as_stands, remembers, steps_of
from sensorium.backbones._language_model import LanguageModel
from sensorium.backbones._open import open_language
from sensorium.backbones._prefix_cache import PrefixCache, branched
from sensorium.backbones._tuning import Tuning
from sensorium.core.errors import UserError
from sensorium.nn.attention import additive_mask
from sensorium.nn.external import ExternalModel
from sensorium.nn.modality_expert import ModalityExpert
from sensorium.nn.packing import NO_GROUP, PackedSequences, pack_lines
from sensorium.nn.quantized import round_linears
from sensorium.trunks import Seen, Trunk

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_FAST_ROWS = 2
"""Number of rows up to which a copy of the head computes the next words faster."""
PROMPT_TEXT = "Look at what is shown and answer what is asked about it, in few words."
"""Text as which the learned tokens of prompt tuning are initialised."""


class CausalLM(ExternalModel, Trunk):
    """Early fusion in a language model. Words see those before them; a media cell's tokens see one another.

    Args:
        path: a folder, a GGUF file, package:NAME, or OWNER/NAME@REVISION on the hub.
        tune: frozen, lora, dora, rslora, bias, last:N (layers), full, or prompt:N (prompt tuning with N learned tokens
            before all others; 16 by default).
        rank, alpha: of LoRA (Hu et al. 2021, arXiv 2106.09685); alpha 0: twice the rank. dora: split each update in
            direction and size (arXiv 2402.09353). rslora: scale by the root of the rank (arXiv 2312.03732). targets:
            names of linear layers, as ``q_proj,v_proj``; empty: all but the head.
        rate: learning rate of the tuned parameters, relative to ``train.lr``; 0: as suits ``tune``.
        bits: of each weight of its linear layers: as they are (0), 8, or 4 (NF4 of QLoRA, arXiv 2305.14314). Frozen
            ones are dequantised for each product and take a quarter or an eighth of the memory.
        both: bidirectional attention among seen tokens, not only to those before.
        always: what ``lora`` has tuned is active in conversations that refer to no cell, too, even where none such was
            learned; else these are answered by the pretrained language model.
        expert: generated pictures, sounds, clips and series have layers of their own, which begin as copies of the
            language model's. Its own stay as they are, so that with ``tune=frozen`` its words don't change (LMFusion,
            arXiv 2412.15188). expert_rate: their learning rate, relative to ``train.lr``.
        checkpointing: compute each layer again in the backward pass (gradient checkpointing), which takes a third
            longer and much less memory.
        compile: compile each layer by torch.compile for training, which takes about a minute before the first steps and
            needs a C++ compiler.
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
                "trunk=causal_lm needs a language model: trunk.path=FOLDER, a GGUF file, package:NAME, or "
                "OWNER/NAME@REVISION on the hub."
            )
        tuning = Tuning(tune, rank, alpha, dora, rslora, targets, rate)
        if bits and tuning.kind in ("last", "full"):
            raise UserError(
                f"trunk.bits={bits} rounds the language model's weights, so trunk.tune={tune} can't learn them. Choose "
                "lora, dora, rslora, bias, prompt or frozen, or leave trunk.bits out."
            )
        self.language: LanguageModel = open_language(path)
        model: PreTrainedModel = self.language.model(as_stored=bits > 0)
        if bits:
            round_linears(model, bits, model.get_output_embeddings())
            model.float()
        self.both, self.always, self.tune, self.bits, self.compiled = both, always, tune, bits, compile
        tuned: PreTrainedModel = tuning.of(model, model.get_output_embeddings())
        if checkpointing:
            again = {"use_reentrant": False, **({"context_fn": self.checkpoint_contexts} if expert else {})}
            getattr(tuned, "activation_checkpointing_enable", tuned.gradient_checkpointing_enable)(again)
        if compile:
            compile_layers(tuned, expert)
        self.wrap(tuned, tuning.relative)
        self.prompted = tuning.tokens
        self.decoder, self.head = [tuned.get_decoder()], [tuned.get_output_embeddings()]
        self.table = [self.decoder[0].get_input_embeddings()]
        self.expert, self.expert_rate = ModalityExpert(self.decoder[0]) if expert else None, expert_rate
        self.expert_mask: Tensor | None = None
        numbers = ("final_logit_softcapping", "logit_scale", "logits_scaling")  # Gemma's, Cohere's, Granite's
        cap, factor, divisor = (float(getattr(tuned.config, name, None) or 0.0) for name in numbers)
        self.cap, self.scale = cap, (factor or 1.0) / (divisor or 1.0)
        self.remembers = remembers(self.decoder[0])
        self.fast_decoders: dict[Any, FastDecoder | None] = {}
        self.vocabulary, own = map(int, self.table[0].weight.shape)
        self.embedding_size = own
        if self.prompted:
            words = self.language.ids(PROMPT_TEXT)
            self.learned["prompt"] = nn.Parameter(
                self.table[0].weight[[words[at % len(words)] for at in range(self.prompted)]].detach().clone()
            )
        self.into, self.out = nn.Linear(width, own), nn.Linear(own, width)
        with torch.no_grad():
            loud = self.table[0].weight.float().square().mean().sqrt()
        self.loud = nn.Parameter(loud.clone())  # tokens from stems have the norm of words
        self.names = {column: self.language.ids(f"\n{column}:") for column in columns}

    def _apply(self, fn: Any, recurse: bool = True) -> CausalLM:
        self.fast_decoders.clear()
        return super()._apply(fn, recurse)

    def facts(self) -> dict[str, Any]:
        """Name of the language model, and numbers of its trained parameters."""
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

    # --- words

    def words(self, ids: Int[Tensor, "*n"]) -> Float[Tensor, "*n embedding"]:
        """Word embeddings [..., embedding] of ids [...] of its vocabulary."""
        return self.table[0](ids)

    def enter(self, tokens: Float[Tensor, "*n width"]) -> Float[Tensor, "*n embedding"]:
        """Tokens from stems and generators [..., width], projected to its own width, with the norm of words."""
        tokens = self.into(tokens)
        return F.rms_norm(tokens.float(), tokens.shape[-1:]) * self.loud

    def logits(
        self, hidden: Float[Tensor, "*n embedding"], state: PrefixCache | None = None
    ) -> Float[Tensor, "*n vocabulary"]:
        """Float logits [..., vocabulary] of hidden states [..., embedding].

        Args:
            state: of the decoding, where it goes on one token at a time.
        """
        step_by_step = (
            state is not None
            and isinstance(state.cache, DecoderCache)
            and hidden.ndim == 2
            and len(hidden) <= MAX_FAST_ROWS
        )
        logits = state.cache.steps.logits(hidden) if step_by_step else self.head[0](hidden).float()
        logits = logits if self.scale == 1 else logits * self.scale
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits

    # --- sequences

    def run(
        self,
        pool: Float[Tensor, "pool embedding"],
        index: np.ndarray,
        lines: PackedSequences,
        generative: np.ndarray | None = None,
    ) -> Float[Tensor, "n embedding"]:
        """Hidden states [n, embedding] of tokens ``pool[index]`` in packed sequences.

        Args:
            lines: layout of the tokens. generative: which of them go through the expert, [n].
        """
        count = len(lines)
        if self.prompted:
            rows = np.unique(lines.row)
            new, every = np.tile(np.arange(self.prompted), len(rows)), rows.repeat(self.prompted)
            index = np.concatenate([index, len(pool) + new])
            pool = torch.cat([pool, self.learned["prompt"].to(pool.dtype)])
            lines = PackedSequences(
                np.concatenate([lines.row, every]),
                np.concatenate([lines.place + self.prompted, new]),
                np.concatenate([lines.segment, np.zeros_like(new)]),
                np.concatenate([lines.group, np.full_like(new, NO_GROUP)]),
            )
        packed = pack_lines(lines, pool.device)
        tokens = packed.fill(pool.index_select(0, torch.from_numpy(index).to(pool.device)))
        with self.with_expert(None if generative is None else packed.marked(np.flatnonzero(generative))):
            hidden = self.decoder[0](
                inputs_embeds=tokens,
                attention_mask=additive_mask(packed.allowed, tokens.dtype),
                position_ids=packed.positions,
                use_cache=False,
            )
        return packed.back(hidden.last_hidden_state)[:count]

    @contextlib.contextmanager
    def with_expert(self, mask: Bool[Tensor, "n s"] | None) -> Generator[None]:
        """Context manager in which marked tokens go through the expert, where there is one."""
        if self.expert is None or mask is None:
            yield
            return
        self.expert_mask = mask
        try:
            with self.expert.taking(mask):
                yield
        finally:
            self.expert_mask = None

    def eager(self) -> Any:
        """Context manager in which nothing is compiled: decoded sequences are of another length each time."""
        return torch.compiler.set_stance("force_eager") if self.compiled else contextlib.nullcontext()

    def checkpoint_contexts(self) -> tuple[Any, Any]:
        """Contexts of a layer's forward pass and of its recomputation, when ``with_expert`` has ended."""
        return contextlib.nullcontext(), self.with_expert(self.expert_mask)

    @contextlib.contextmanager
    def as_it_was(self) -> Generator[None]:
        prompted, self.prompted = self.prompted, 0
        try:
            with super().as_it_was():
                yield
        finally:
            self.prompted = prompted

    def seen(self, seen: Seen) -> tuple[Float[Tensor, "n s embedding"], Bool[Tensor, "n s"]]:
        """All seen tokens [n, s, embedding], each column's after its name, and their mask [n, s]."""
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
        self,
        seen: Seen,
        asked: list[Float[Tensor, "n _ width"]],
        causal: list[bool],
        generative: Sequence[bool] = (),
    ) -> list[Float[Tensor, "n _ width"]]:
        tokens, mask = self.seen(seen)
        n, s = mask.shape
        lengths = [part.shape[1] for part in asked]
        there = torch.cat([mask, mask.new_ones(n, sum(lengths))], 1)
        known, counts = there.cpu().numpy(), mask.sum(1).cpu().numpy()
        place = known[:, :s].cumsum(1) - 1
        group = np.zeros((n, s), np.int64) if self.both else np.full((n, s), NO_GROUP)
        places, segments, groups = [place], [np.zeros((n, s), np.int64)], [group]
        for number, (length, is_causal) in enumerate(zip(lengths, causal, strict=True), 1):
            places.append(counts[:, None] + np.arange(length))
            segments.append(np.full((n, length), number))
            groups.append(np.full((n, length), NO_GROUP if is_causal else number))
        rows = np.broadcast_to(np.arange(n)[:, None], known.shape)
        lines = PackedSequences(
            *(
                np.ascontiguousarray(x[known])
                for x in (rows, *(np.concatenate(x, 1) for x in (places, segments, groups)))
            )
        )
        pool = torch.cat([tokens, *map(self.enter, asked)], 1).flatten(0, 1)
        of_expert = None
        if any(generative):
            of_expert = np.concatenate(
                [np.zeros(s, bool), *(np.full(length, own) for length, own in zip(lengths, generative, strict=True))]
            )
            of_expert = np.broadcast_to(of_expert, known.shape)[known]
        hidden = self.run(pool, np.flatnonzero(known), lines, of_expert)
        hidden = self.out(hidden)
        whole = hidden.new_zeros(known.size, hidden.shape[1]).index_copy(
            0, torch.from_numpy(np.flatnonzero(known)).to(hidden.device), hidden
        )
        return list(whole.view(n, -1, whole.shape[1])[:, s:].split(lengths, 1))

    def prefill(self, seen: Seen) -> PrefixCache:
        tokens, mask = self.seen(seen)
        groups = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device) if self.both else None
        return self.prefill_tokens(tokens, mask, groups)[1]

    def prefill_tokens(
        self,
        tokens: Float[Tensor, "n s embedding"],
        mask: Bool[Tensor, "n s"],
        groups: Int[Tensor, "n s"] | None = None,
    ) -> tuple[Float[Tensor, "n s embedding"], PrefixCache]:
        """Hidden states [n, s, embedding] of the first tokens [n, s, embedding], and their key-value cache.

        Args:
            mask: which tokens are present, [n, s].
            groups: group of each token, [n, s]: tokens of a group see one another both ways. ``NO_GROUP``, or None for
                all: a token sees those before it.
        """
        from transformers import DynamicCache

        before = self.prompted
        if before:
            tokens = torch.cat([self.learned["prompt"].to(tokens.dtype).expand(len(tokens), -1, -1), tokens], 1)
            mask = torch.cat([mask.new_ones(len(mask), before), mask], 1)
            groups = (
                None if groups is None else torch.cat([groups.new_full((len(groups), before), NO_GROUP), groups], 1)
            )
        place = (mask.cumsum(1) - 1).clamp(min=0)
        allowed = mask.unsqueeze(1) & (place.unsqueeze(1) <= place.unsqueeze(2))
        if groups is not None:
            allowed |= mask.unsqueeze(1) & (groups.unsqueeze(1) == groups.unsqueeze(2)) & (groups.unsqueeze(1) >= 0)
        # A missing token sees itself, as softmax needs a key.
        allowed = allowed | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        cache = DynamicCache()
        with self.eager():
            found = self.decoder[0](
                inputs_embeds=tokens,
                attention_mask=additive_mask(allowed, tokens.dtype),
                position_ids=place,
                use_cache=True,
                **{self.remembers: cache},
            )
        return found.last_hidden_state[:, before:], PrefixCache(cache, mask, mask.sum(1))

    def decode(
        self, state: PrefixCache, tokens: Float[Tensor, "n k width"], generative: bool = False
    ) -> tuple[Float[Tensor, "n k width"], PrefixCache]:
        hidden, state = self.decode_entered(state, self.enter(tokens), generative)
        return self.out(hidden), state

    def decode_entered(
        self, state: PrefixCache, tokens: Float[Tensor, "n k embedding"], generative: bool = False
    ) -> tuple[Float[Tensor, "n k embedding"], PrefixCache]:
        """``decode`` of tokens that are word embeddings, or have gone through ``enter``."""
        n, k, _ = tokens.shape
        mask = torch.cat([state.mask, state.mask.new_ones(n, k)], 1)
        cached = state.cache if isinstance(state.cache, DecoderCache) else None
        by_expert = generative and self.expert is not None
        steps = None if by_expert else cached.steps if cached else self.steps(tokens) if k == 1 else None
        if steps is not None and k == 1 and mask.shape[1] <= steps.most:
            hidden, cached = steps(tokens[:, 0], cached or steps.keep(state.cache, state.mask), mask, state.count)
            return hidden.unsqueeze(1), PrefixCache(cached, mask, state.count + 1)
        cache = branched(state.cache) if cached is None else cached.steps.give_back(cached)
        with (
            self.eager(),
            self.with_expert(torch.ones(n, k, dtype=torch.bool, device=tokens.device) if by_expert else None),
        ):
            found = self.decoder[0](
                inputs_embeds=tokens,
                attention_mask=additive_mask(mask.unsqueeze(1).expand(-1, k, -1), tokens.dtype),
                position_ids=state.count.unsqueeze(1) + torch.arange(k, device=tokens.device),
                use_cache=True,
                **{self.remembers: cache},
            )
        return found.last_hidden_state, PrefixCache(cache, mask, state.count + k)

    def steps(self, tokens: Tensor) -> FastDecoder | None:
        """Fast decoder for one token at a time, where it can be used; made again when the weights have changed."""
        if torch.is_grad_enabled() or tokens.device.type != "cpu" or self.decoder[0].training:
            return None
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        key = dtype, as_stands(self.decoder[0])
        if key not in self.fast_decoders:
            latest = dict(list(self.fast_decoders.items())[-1:])  # two at most: as it is tuned, and as it was
            self.fast_decoders = {**latest, key: steps_of(self.decoder[0], self.head[0], dtype)}
        return self.fast_decoders[key]

    def reorder(self, state: PrefixCache, rows: Int[Tensor, " m"]) -> PrefixCache:
        return state.reordered(rows)
