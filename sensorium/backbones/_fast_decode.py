"""One token after another through a decoder of the usual build (Llama, SmolLM2, Qwen 2 and 3, Mistral), on a CPU.

There a token's way through transformers' modules costs as much as its products do, and these are bound by how fast weights come from memory. Here a layer is four products and
little between them, on copies of the weights in the layout and precision that are read fastest: queries, keys and values are one product, as are gate and up; norms' weights are
multiplied in; low-rank updates are merged; pairs that are turned together stand side by side. Before it is used it is held against the decoder itself, and a decoder of another build
goes on through its own modules.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.nn.quantized import QuantizedLinear, as_they_are, eighths, in_full, times, weights_in

MOST = 400_000_000
"""Weights of a decoder that are copied; of larger ones the copy costs too much memory."""
ROOM = 64
"""Tokens that a memory is made longer by."""
PARTS = {
    "": {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
    "self_attn": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
}
NORMS = {"q_norm", "k_norm"}
TURNS = ("default", "linear", "llama3", "yarn")
"""Ways of turning queries and keys that depend on nothing but a token's place."""


@dataclasses.dataclass
class DecoderCache:
    """Keys and values of all layers, each [n, heads, room, d]; ``used``: how many tokens are there; ``full``: none of them is padding; ``newest``: how many are written into this memory, by whoever
    goes on in it. ``steps``: who goes on from here."""

    steps: FastDecoder
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    newest: list[int]
    used: int
    full: bool

    def reordered(self, rows: torch.Tensor) -> DecoderCache:
        return DecoderCache(
            self.steps, [k[rows] for k in self.keys], [v[rows] for v in self.values], [self.used], self.used, self.full
        )

    def longer(self) -> DecoderCache:
        """With one more place. It writes into the same memory, unless another has gone on from here already, or there is no room."""
        if self.newest[0] > self.used or self.used == self.keys[0].shape[2]:
            grown = [
                [F.pad(part[:, :, : self.used], (0, 0, 0, ROOM)) for part in parts]
                for parts in (self.keys, self.values)
            ]
            return DecoderCache(self.steps, *grown, [self.used + 1], self.used + 1, self.full)
        self.newest[0] += 1
        return dataclasses.replace(self, used=self.used + 1)


@dataclasses.dataclass
class Weights:
    """Of one product: [out, in], or where it is faster so [in, out]; in eight bits with their scales [out], and what is read is multiplied by ``norm`` first."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    turned: bool = False
    scales: torch.Tensor | None = None
    norm: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.scales is not None:
            found = times(x if self.norm is None else x * self.norm, self.weight, self.scales)
            return found if self.bias is None else found + self.bias
        x = x.to(self.weight.dtype)
        if not self.turned:
            return F.linear(x, self.weight, self.bias).float()
        return (x @ self.weight).float() if self.bias is None else torch.addmm(self.bias, x, self.weight).float()


@dataclasses.dataclass
class Layer:
    """Queries, keys and values; what attention gives back; gate and up; down; and what queries and keys are multiplied with after their norm, [heads, d]."""

    into: Weights
    out: Weights
    wide: Weights
    down: Weights
    scales: torch.Tensor | None


class FastDecoder:
    """A decoder and its head, for one token of each row at a time.

    Args:
        dtype: of weights and what is remembered; all else is float.

    Attributes:
        most: tokens that each layer sees all of.
    """

    def __init__(self, decoder: nn.Module, head: nn.Module, dtype: torch.dtype) -> None:
        first = decoder.layers[0]
        made = functools.partial(put_together, dtype=dtype, rounded=rounded(decoder))
        self.d = first.self_attn.head_dim
        self.heads, self.own = (getattr(first.self_attn, part).out_features // self.d for part in ("q_proj", "k_proj"))
        self.scale, self.act, self.dtype = first.self_attn.scaling, first.mlp.act_fn, dtype
        self.most = int(getattr(decoder.config, "sliding_window", None) or 1 << 30) - 1
        self.pairs = torch.arange(self.d).view(2, -1).t().flatten()
        self.layers = [self.layer(layer, made) for layer in decoder.layers]
        self.norm, self.rotary = weight_of(decoder.norm), decoder.rotary_emb
        norms = first.input_layernorm, getattr(first.self_attn, "q_norm", first.input_layernorm)
        self.least, self.least_of_heads = (torch.tensor((eps_of(norm) * norm.weight.shape[0]) ** 0.5) for norm in norms)
        self.said = put_together([plain(head)], None, dtype)
        self.turns = torch.zeros(0, self.d // 2, dtype=torch.complex64)

    def layer(self, layer: nn.Module, made: Callable[..., Weights]) -> Layer:
        attention, norms = (
            layer.self_attn,
            [weight_of(layer.input_layernorm), weight_of(layer.post_attention_layernorm)],
        )
        parts = [plain(getattr(attention, part)) for part in ("q_proj", "k_proj", "v_proj")]
        parts[:2] = [
            tuple(None if x is None else x.view(-1, self.d, *x.shape[1:])[:, self.pairs].reshape(x.shape) for x in part)
            for part in parts[:2]
        ]
        scales = None
        if hasattr(attention, "q_norm"):
            scales = torch.cat(
                [
                    weight_of(norm)[self.pairs].expand(count, -1)
                    for norm, count in ((attention.q_norm, self.heads), (attention.k_norm, self.own))
                ]
            )
        return Layer(
            made(parts, norms[0]),
            made([plain(attention.o_proj)], None),
            made([plain(layer.mlp.gate_proj), plain(layer.mlp.up_proj)], norms[1]),
            made([plain(layer.mlp.down_proj)], None),
            scales,
        )

    def keep(self, cache: Any, mask: torch.Tensor) -> DecoderCache:
        """What transformers remembers of tokens of which some are there, [n, s]."""
        keys = [F.pad(layer.keys[..., self.pairs].to(self.dtype), (0, 0, 0, ROOM)) for layer in cache.layers]
        values = [F.pad(layer.values.to(self.dtype), (0, 0, 0, ROOM)) for layer in cache.layers]
        return DecoderCache(self, keys, values, [mask.shape[1]], mask.shape[1], bool(mask.all()))

    def give_back(self, kept: DecoderCache) -> Any:
        """The inverse of ``keep``."""
        from transformers import DynamicCache

        cache, back = DynamicCache(), self.pairs.argsort()
        for number, (key, value) in enumerate(zip(kept.keys, kept.values, strict=True)):
            cache.update(key[:, :, : kept.used, back], value[:, :, : kept.used], number)
        return cache

    def __call__(
        self, x: torch.Tensor, kept: DecoderCache, mask: torch.Tensor, count: torch.Tensor
    ) -> tuple[torch.Tensor, DecoderCache]:
        """Tokens [n, width] after so many others, [n], and which of these and themselves are there, [n, s + 1]: hidden [n, width]."""
        n, at, kept = len(x), kept.used, kept.longer()
        looked = None if kept.full else mask[:, None, None]
        turn = self.turned(kept.keys[0].shape[2])[count].unsqueeze(1)
        with torch.autocast("cpu", enabled=False):
            x = x.float()
            for layer, keys, values in zip(self.layers, kept.keys, kept.values, strict=True):
                made = layer.into(self.evened(x)).view(n, -1, self.d)
                both = made[:, : self.heads + self.own]
                if layer.scales is not None:
                    both = self.evened(both) * layer.scales
                both = torch.view_as_real(torch.view_as_complex(both.view(n, -1, self.d // 2, 2)) * turn).flatten(2)
                keys[:, :, at], values[:, :, at] = both[:, self.heads :], made[:, self.heads + self.own :]
                query = (
                    both[:, : self.heads].reshape(n, self.own, -1, self.d).to(self.dtype)
                )  # those of one key together
                found = F.scaled_dot_product_attention(
                    query, keys[:, :, : at + 1], values[:, :, : at + 1], looked, scale=self.scale
                )
                x = x + layer.out(found.reshape(n, -1))
                gate, up = layer.wide(self.evened(x)).chunk(2, -1)
                x = x + layer.down(self.act(gate) * up)
            return self.evened(x) * self.norm, kept

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden [n, width] to what the head says, float."""
        with torch.autocast("cpu", enabled=False):
            return self.said(hidden.float())

    def evened(self, x: torch.Tensor) -> torch.Tensor:
        """By its length, where norms go by the root of the mean square, which is the length by the root of the width; weights make up for that."""
        return x / torch.hypot(
            torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.least if x.ndim == 2 else self.least_of_heads
        )

    def turned(self, places: int) -> torch.Tensor:
        """How far each place turns, complex [places, d / 2]."""
        if len(self.turns) < places:
            cos, sin = (
                part[0, :, : self.d // 2].float()
                for part in self.rotary(torch.zeros(1), torch.arange(places + ROOM).unsqueeze(0))
            )
            self.turns = torch.complex(cos, sin)
        return self.turns


def put_together(
    parts: list[tuple[torch.Tensor, torch.Tensor | None]],
    norm: torch.Tensor | None,
    dtype: torch.dtype,
    rounded: bool = False,
) -> Weights:
    """Several layers that read the same as one product; ``norm``: what they read is multiplied with before. ``rounded``: in eight bits, for which norms' weights are too unlike to be multiplied in.

    In float a matrix that is wider than what it reads comes faster from memory when turned (1.5 to 2 times for one or two tokens).
    """
    weight = torch.cat([w for w, _ in parts]).float()
    biases = [b for _, b in parts]
    bias = (
        None
        if all(b is None for b in biases)
        else torch.cat([torch.zeros(len(w)) if b is None else b.float() for w, b in parts])
    )
    if rounded:
        found = eighths(weight)
        return Weights(found["numbers"], bias, scales=found["scales"], norm=norm)
    weight, bias = weight if norm is None else weight * norm, None if bias is None else bias.to(dtype)
    turned = dtype == torch.float32 and weight.shape[0] > weight.shape[1]
    return Weights((weight.t() if turned else weight).to(dtype).contiguous(), bias, turned)


def plain(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of a linear layer, with the low-rank updates that are heard at the moment."""
    base = getattr(layer, "base_layer", None)
    if base is None:
        return layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    if not (layer.disable_adapters or layer.merged):
        layer = in_full(copy.deepcopy(layer))
        layer.merge()
        base = layer.get_base_layer()
    return plain(base)


def weight_of(norm: nn.Module) -> torch.Tensor:
    """What a root-mean-square norm multiplies a vector of unit length with, however it is kept."""
    size = norm.weight.shape[0]
    return norm(torch.ones(1, size))[0].detach().float() * (1 + eps_of(norm)) ** 0.5 * size**0.5


def eps_of(norm: nn.Module) -> float:
    return float(getattr(norm, "variance_epsilon", None) or norm.eps)


def usual(decoder: nn.Module) -> bool:
    """Whether a decoder is of the build that is known here."""
    if not set(getattr(decoder.config, "layer_types", None) or ()) <= {
        "full_attention",
        "sliding_attention",
    } or getattr(decoder.config, "attn_logit_softcapping", None):
        return False
    if {name for name, _ in decoder.named_children()} != {
        "embed_tokens",
        "layers",
        "norm",
        "rotary_emb",
    } or decoder.rotary_emb.rope_type not in TURNS:
        return False
    if weights_in(decoder) > MOST or (
        any(isinstance(part, QuantizedLinear) for part in decoder.modules()) and not rounded(decoder)
    ):
        return False
    for layer in decoder.layers:
        for place, wanted in PARTS.items():
            part = layer.get_submodule(place)
            found = {name for name, _ in part.named_children()}
            if (
                part._parameters
                or found - (NORMS if place == "self_attn" else set()) != wanted
                or len(found & NORMS) == 1
            ):
                return False
        linear = [part for name, part in layer.named_modules() if name.endswith("_proj")]
        if not all(
            isinstance(base := getattr(part, "base_layer", part), nn.Linear)
            and (isinstance(base, QuantizedLinear) or type(base.weight.data) is torch.Tensor)
            for part in linear
        ):
            return False
    return True


def rounded(decoder: nn.Module) -> bool:
    """Whether a decoder's layers are rounded, and can be multiplied with so."""
    found = [part for part in decoder.modules() if isinstance(part, QuantizedLinear)]
    return bool(found) and all(as_they_are(part.in_features) for part in found)


def steps_of(decoder: nn.Module, head: nn.Module, dtype: torch.dtype) -> FastDecoder | None:
    """A decoder step by step; None where it isn't of the usual build, or says something else step by step."""
    if not usual(decoder) or type(head) is not nn.Linear:
        return None
    from transformers import DynamicCache

    words = decoder.get_input_embeddings().weight
    tokens = words[torch.arange(5) * (len(words) // 5)].detach().unsqueeze(0)
    with torch.autocast("cpu", enabled=False):
        steps = FastDecoder(decoder, head, dtype)
        whole, cache = decoder(inputs_embeds=tokens, use_cache=False).last_hidden_state[0], DynamicCache()
        decoder(inputs_embeds=tokens[:, :2], use_cache=True, **{remembers(decoder): cache})
    kept = steps.keep(cache, torch.ones(1, 2, dtype=torch.bool))
    for at in range(2, 5):
        hidden, kept = steps(tokens[:, at], kept, torch.ones(1, at + 1, dtype=torch.bool), torch.tensor([at]))
        if (
            not (hidden - whole[at]).norm()
            < (1e-3 if dtype == torch.float32 and not rounded(decoder) else 0.1) * whole[at].norm()
        ):
            return None
    return steps


def remembers(decoder: nn.Module) -> str:
    """What a decoder calls what it remembers: it was renamed in transformers 5."""
    import inspect

    return "cache" if "cache" in inspect.signature(decoder.forward).parameters else "past_key_values"


def as_stands(decoder: nn.Module) -> tuple[Any, ...]:
    """What changes whenever a decoder's weights do, or which low-rank updates are heard.

    By torch's count of changes in place, which its fused optimizers leave as it is: see ``train.optimizer``.
    """
    weights = tuple((id(p), 0 if p.is_inference() else p._version) for p in decoder.parameters())
    return weights, tuple(
        (part.disable_adapters, part.merged, tuple(part.active_adapters))
        for part in decoder.modules()
        if hasattr(part, "lora_A")
    )
