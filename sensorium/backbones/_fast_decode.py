"""Fast decoding of one token at a time on a CPU, for decoders of the usual build (Llama, SmolLM2, Qwen 2 and 3,
Mistral).

There the overhead of transformers' modules costs as much as their matrix products, and these are bound by memory
bandwidth. Here a layer is four products and little between them, on copies of the weights in the layout and precision
that are read fastest: queries, keys and values are one product, as are gate and up; norms' weights are multiplied in;
low-rank updates are merged; dimensions that are rotated together are side by side. Before it is used it is compared
with the decoder itself, and a decoder of another build runs through its own modules.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.nn.quantized import QuantizedLinear, as_they_are, eighths, in_full, times, weights_in

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from transformers import PreTrainedModel
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

MAX_WEIGHTS = 400_000_000
"""Weights of a decoder that are copied, at most; of larger ones the copy costs too much memory."""
GROWTH = 64
"""Tokens by which a cache grows."""
PARTS = {
    "": {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
    "self_attn": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
}
NORMS = {"q_norm", "k_norm"}
TURNS = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings that depend on nothing but a token's position."""


@dataclasses.dataclass
class DecoderCache:
    """Key-value cache of all layers, each [n, heads, room, d].

    Attributes:
        steps: the decoder that continues from here.
        newest: number of tokens written into this memory, by any cache that shares it.
        used: number of tokens. full: none of them is padding.
    """

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
        """Cache with one more place. It shares the memory, unless another has continued from here, or it is full."""
        if self.newest[0] > self.used or self.used == self.keys[0].shape[2]:
            grown = [
                [F.pad(part[:, :, : self.used], (0, 0, 0, GROWTH)) for part in parts]
                for parts in (self.keys, self.values)
            ]
            return DecoderCache(self.steps, *grown, [self.used + 1], self.used + 1, self.full)
        self.newest[0] += 1
        return dataclasses.replace(self, used=self.used + 1)


@dataclasses.dataclass
class Weights:
    """Weights of one product: [out, in], or where it is faster [in, out] (``turned``).

    In eight bits they have ``scales`` [out], and inputs are multiplied by ``norm`` first.
    """

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
    """Weights of a layer: queries, keys and values; attention's output; gate and up; down.

    ``scales`` [heads, d] multiply queries and keys after their norm.
    """

    into: Weights
    out: Weights
    wide: Weights
    down: Weights
    scales: torch.Tensor | None


class FastDecoder:
    """Decoder with its head, for one token of each row at a time.

    Args:
        dtype: of weights and caches; all else is float.

    Attributes:
        most: context length in which each layer sees all tokens.
    """

    def __init__(self, decoder: PreTrainedModel, head: nn.Module, dtype: torch.dtype) -> None:
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
        self.head = put_together([plain(head)], None, dtype)
        self.turns = torch.zeros(0, self.d // 2, dtype=torch.complex64)

    def layer(self, layer: LlamaDecoderLayer, made: Callable[..., Weights]) -> Layer:
        attention, norms = (
            layer.self_attn,
            [weight_of(layer.input_layernorm), weight_of(layer.post_attention_layernorm)],
        )
        parts = [plain(getattr(attention, part)) for part in ("q_proj", "k_proj", "v_proj")]

        def paired(x: torch.Tensor) -> torch.Tensor:
            """Dimensions that are rotated together, side by side."""
            return x.view(-1, self.d, *x.shape[1:])[:, self.pairs].reshape(x.shape)

        parts[:2] = [(paired(weight), None if bias is None else paired(bias)) for weight, bias in parts[:2]]
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
        """Cache made of transformers' cache and its mask [n, s]."""
        keys = [F.pad(layer.keys[..., self.pairs].to(self.dtype), (0, 0, 0, GROWTH)) for layer in cache.layers]
        values = [F.pad(layer.values.to(self.dtype), (0, 0, 0, GROWTH)) for layer in cache.layers]
        return DecoderCache(self, keys, values, [mask.shape[1]], mask.shape[1], bool(mask.all()))

    def give_back(self, cached: DecoderCache) -> Any:
        """The inverse of ``keep``."""
        from transformers import DynamicCache

        cache, back = DynamicCache(), self.pairs.argsort()
        for number, (key, value) in enumerate(zip(cached.keys, cached.values, strict=True)):
            cache.update(key[:, :, : cached.used, back], value[:, :, : cached.used], number)
        return cache

    def __call__(
        self, x: torch.Tensor, cache: DecoderCache, mask: torch.Tensor, count: torch.Tensor
    ) -> tuple[torch.Tensor, DecoderCache]:
        """Hidden states [n, width] of tokens [n, width], and the longer cache.

        Args:
            mask: of the tokens before and these, [n, s + 1]. count: number of tokens before, [n].
        """
        n, at, cache = len(x), cache.used, cache.longer()
        looked = None if cache.full else mask[:, None, None]
        turn = self.turned(cache.keys[0].shape[2])[count].unsqueeze(1)
        with torch.autocast("cpu", enabled=False):
            x = x.float()
            for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
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
            return self.evened(x) * self.norm, cache

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float logits of hidden states [n, width]."""
        with torch.autocast("cpu", enabled=False):
            return self.head(hidden.float())

    def evened(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors divided by their length. RMS norms divide by the root of the mean square, which is the length by the
        root of the width; weights make up for that."""
        return x / torch.hypot(
            torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.least if x.ndim == 2 else self.least_of_heads
        )

    def turned(self, places: int) -> torch.Tensor:
        """Rotation of each position, complex [positions, d / 2]."""
        if len(self.turns) < places:
            cos, sin = (
                part[0, :, : self.d // 2].float()
                for part in self.rotary(torch.zeros(1), torch.arange(places + GROWTH).unsqueeze(0))
            )
            self.turns = torch.complex(cos, sin)
        return self.turns


def put_together(
    parts: list[tuple[torch.Tensor, torch.Tensor | None]],
    norm: torch.Tensor | None,
    dtype: torch.dtype,
    rounded: bool = False,
) -> Weights:
    """Weights of several layers with the same input as one product.

    In float a matrix that is wider than its input comes faster from memory when transposed (1.5 to 2 times for one or
    two tokens).

    Args:
        norm: factors of the inputs. rounded: in eight bits, for which norms' weights are too uneven to be multiplied
            in.
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


def plain(layer: nn.Linear | LoraLayer) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of a linear layer, with the low-rank updates that are active."""
    base = getattr(layer, "base_layer", None)
    if base is None:
        return layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    if not (layer.disable_adapters or layer.merged):
        merged: LoraLayer = in_full(copy.deepcopy(layer))
        merged.merge()
        base = merged.get_base_layer()
    return plain(base)


def weight_of(norm: LlamaRMSNorm) -> torch.Tensor:
    """Factors by which an RMS norm multiplies a vector of unit length, in any parametrisation."""
    size = norm.weight.shape[0]
    return norm(torch.ones(1, size))[0].detach().float() * (1 + eps_of(norm)) ** 0.5 * size**0.5


def eps_of(norm: LlamaRMSNorm) -> float:
    """Epsilon of an RMS norm."""
    return float(getattr(norm, "variance_epsilon", None) or norm.eps)


def usual(decoder: PreTrainedModel) -> bool:
    """True for a decoder of the build that is known here."""
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
    if weights_in(decoder) > MAX_WEIGHTS or (
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


def rounded(decoder: PreTrainedModel) -> bool:
    """True where a decoder's layers are quantised, and can be multiplied so."""
    found = [part for part in decoder.modules() if isinstance(part, QuantizedLinear)]
    return bool(found) and all(as_they_are(part.in_features) for part in found)


def steps_of(decoder: PreTrainedModel, head: nn.Module, dtype: torch.dtype) -> FastDecoder | None:
    """Fast decoder of a decoder; None where its build is another, or results differ."""
    if not usual(decoder) or type(head) is not nn.Linear:
        return None
    from transformers import DynamicCache

    words = decoder.get_input_embeddings().weight
    tokens = words[torch.arange(5) * (len(words) // 5)].detach().unsqueeze(0)
    with torch.autocast("cpu", enabled=False):
        steps = FastDecoder(decoder, head, dtype)
        whole, cache = decoder(inputs_embeds=tokens, use_cache=False).last_hidden_state[0], DynamicCache()
        decoder(inputs_embeds=tokens[:, :2], use_cache=True, **{remembers(decoder): cache})
    cached = steps.keep(cache, torch.ones(1, 2, dtype=torch.bool))
    for at in range(2, 5):
        hidden, cached = steps(tokens[:, at], cached, torch.ones(1, at + 1, dtype=torch.bool), torch.tensor([at]))
        if (
            not (hidden - whole[at]).norm()
            < (1e-3 if dtype == torch.float32 and not rounded(decoder) else 0.1) * whole[at].norm()
        ):
            return None
    return steps


def remembers(decoder: PreTrainedModel) -> str:
    """Name of a decoder's cache argument, which was renamed in transformers 5."""
    import inspect

    return "cache" if "cache" in inspect.signature(decoder.forward).parameters else "past_key_values"


def as_stands(decoder: PreTrainedModel) -> tuple[Any, ...]:
    """Version of a decoder's weights: it changes with them, and with the low-rank updates that are active.

    It is torch's count of changes in place, which its fused optimizers don't change: see ``train.optimizer``.
    """
    weights = tuple((id(p), 0 if p.is_inference() else p._version) for p in decoder.parameters())
    return weights, tuple(
        (part.disable_adapters, part.merged, tuple(part.active_adapters))
        for part in decoder.modules()
        if hasattr(part, "lora_A")
    )
