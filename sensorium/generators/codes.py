"""Autoregressive generator of discrete codes: a finite scalar quantiser on an autoencoder, and a causal model of its
codes.

It knows vectors and a trunk with a cache, nothing of pictures or sounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import UserError
from sensorium.core.settings import at_least
from sensorium.core.types import Tokens
from sensorium.generators import Generator, GeneratorOutput, Trunk
from sensorium.nn.attention import heads_of
from sensorium.nn.patch_smoother import PatchSmoother
from sensorium.nn.transformer import TransformerBlock


class Codes(Generator):
    """Finite scalar quantisation (arXiv 2309.15505): each token's vector is a code of a few digits. A token's digits
    are generated one after the other from the trunk's output there, and the tokens one after the other. The autoencoder
    and the model of its codes are trained in the same step.

    Args:
        depth: blocks of the autoencoder's encoder and of its decoder.
        expand: hidden size of their feed-forward layers, relative to the width.
        digits: of a code.
        levels: values that each can have.
        tells: weight of the codes' cross-entropy beside the autoencoder's error.
    """

    is_generative = causal = True

    def __init__(
        self,
        tokens: Tokens,
        width: int,
        *,
        depth: int = 2,
        expand: float = 4.0,
        digits: int = 6,
        levels: int = 8,
        tells: float = 0.1,
    ) -> None:
        super().__init__(tokens, width)
        at_least("generator.codes", 1, depth=depth, digits=digits)
        at_least("generator.codes", 2, levels=levels)
        at_least("generator.codes", 0, tells=tells)
        self.digits, self.levels, self.tells = digits, levels, tells
        hidden = round(expand * width)

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(TransformerBlock(width, heads_of(width, 48), hidden) for _ in range(depth))

        self.positions = nn.Parameter(torch.randn(tokens.length, width) * 0.02)
        self.enter, self.leave = nn.Linear(tokens.width, width), nn.Linear(width, tokens.width)
        self.encoder, self.decoder = blocks(), blocks()
        self.squeeze, self.widen = nn.Linear(width, digits), nn.Linear(digits, width)
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width, bias=False) for name in ("encoder", "decoder", "digits")})
        self.refine = PatchSmoother(tokens)
        self.first = nn.Parameter(torch.randn(width) * 0.02)
        self.before = nn.Linear(digits, width)
        self.table = nn.Parameter(torch.randn(digits, levels, width) * 0.02)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.say = nn.Parameter(torch.randn(digits, levels, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(digits, levels))

    @classmethod
    def fits(cls, tokens: Tokens) -> bool:
        return tokens.width > 0 and not tokens.ordered

    def output_parameters(self) -> Iterable[nn.Parameter]:
        return [
            self.positions,
            self.first,
            self.table,
            self.say,
            self.bias,
            *self.refine.parameters(),
            *(
                p
                for layer in (self.enter, self.leave, self.squeeze, self.widen, self.before)
                for p in layer.parameters()
            ),
        ]

    # --- the autoencoder ----------------------------------------------------------------------------------------------

    def encode(self, x: Float[Tensor, "n k size"]) -> Float[Tensor, "n k digits"]:
        """Digits [n, k, digits] in -1..1, rounded to levels, of vectors [n, k, …]; straight-through gradient."""
        code = self.enter(x) + self.positions
        for block in self.encoder:
            code = block(code)[0]
        code = torch.tanh(self.squeeze(self.norms["encoder"](code)).float())
        return code + (self.values(self.levels_of(code)) - code).detach()

    def decode(self, code: Float[Tensor, "n k digits"]) -> Float[Tensor, "n k size"]:
        """Vectors [n, k, …], fp32, of digits [n, k, digits] in -1..1."""
        x = self.widen(code) + self.positions
        for block in self.decoder:
            x = block(x)[0]
        return self.refine(self.leave(self.norms["decoder"](x)).float()).float()

    def levels_of(self, code: Tensor) -> Tensor:
        """Levels 0, 1, … of digits in -1..1."""
        return ((code + 1) / 2 * (self.levels - 1)).round().long().clamp(0, self.levels - 1)

    def values(self, level: Tensor) -> Tensor:
        """Digits in -1..1 of levels."""
        return level.float() * (2 / (self.levels - 1)) - 1

    # --- training -----------------------------------------------------------------------------------------------------

    def asked_tokens(self, target: Float[Tensor, "n k size"]) -> Float[Tensor, "n k width"]:
        with torch.no_grad():
            known = self.encode(target)[:, :-1]
        first = self.first.expand(len(target), 1, -1)
        return torch.cat([first.to(known.dtype), self.before(known)], 1) + self.positions

    def loss(self, hidden: Float[Tensor, "n k width"], target: Float[Tensor, "n k size"]) -> Float[Tensor, " n"]:
        x = target.float()
        code = self.encode(x)
        error = (self.decode(code) - x).abs().mean((1, 2))
        return error + self.tells * self.entropy(hidden, self.levels_of(code.detach())).mean(1)

    def token_nll(self, hidden: Float[Tensor, "n k width"], target: Float[Tensor, "n k size"]) -> Float[Tensor, "n k"]:
        return self.entropy(hidden, self.levels_of(self.encode(target.float()).detach()))

    def entropy(self, hidden: Float[Tensor, "n k width"], level: Int[Tensor, "n k digits"]) -> Float[Tensor, "n k"]:
        """Mean negative log-probability of a digit of each token [n, k], for levels [n, k, digits]."""
        logits = self.logits(hidden, level[..., :-1])
        return F.cross_entropy(logits.flatten(0, 2), level.flatten(), reduction="none").view(level.shape).mean(2)

    def logits(
        self, hidden: Float[Tensor, "n k width"], known: Int[Tensor, "n k d"]
    ) -> Float[Tensor, "n k places levels"]:
        """Float logits [n, k, d + 1, levels] of the trunk's output [n, k, width] and a token's first digits as levels
        [n, k, d]."""
        d = known.shape[-1]
        embedded = (
            torch.stack([self.table[i][known[..., i]] for i in range(d)], 2).cumsum(2)
            if d
            else hidden.new_zeros(*hidden.shape[:2], 0, self.width)
        )
        x = torch.cat([hidden.unsqueeze(2), hidden.unsqueeze(2) + embedded.to(hidden.dtype)], 2)
        x = x + self.down(F.gelu(self.up(self.norms["digits"](x))))
        return torch.einsum("nkdw,dlw->nkdl", x.float(), self.say[: d + 1].float()) + self.bias[: d + 1]

    # --- asking -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        trunk: Trunk,
        rows: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        unconditional: Trunk | None = None,
    ) -> GeneratorOutput:
        """Generate the vectors of each row, token by token.

        Args:
            temperature: digits are sampled from logits divided by it; 0 takes the likeliest.
            unconditional: the trunk where nothing is seen, which isn't used.

        Returns:
            vectors; score: the mean log-probability of a digit.

        Raises:
            UserError: a temperature below 0.
        """
        if not 0 <= temperature < math.inf:
            raise UserError(f"temperature={temperature}: give 0 for the likeliest code, or more.")
        score = torch.zeros(rows, device=device)
        if rows == 0:
            return GeneratorOutput(
                torch.zeros(0, self.output_tokens.length, self.output_tokens.width, device=device), score
            )
        codes: list[Tensor] = []
        for place in range(self.output_tokens.length):
            token = self.before(self.values(codes[-1])) if codes else self.first.expand(rows, 1, -1)
            hidden = trunk(token + self.positions[place], place)
            level = torch.zeros(rows, 1, 0, dtype=torch.long, device=device)
            for _ in range(self.digits):
                chance = self.logits(hidden, level)[:, 0, -1].log_softmax(-1)
                if temperature:
                    lot = torch.rand(rows, 1, generator=generator).to(device)
                    cumulated = (chance / temperature).softmax(-1).cumsum(-1)
                    chosen = (cumulated < lot).sum(-1, keepdim=True).clamp(max=self.levels - 1)
                else:
                    chosen = chance.argmax(-1, keepdim=True)
                score = score + chance.gather(1, chosen)[:, 0] / (self.output_tokens.length * self.digits)
                level = torch.cat([level, chosen.unsqueeze(1)], -1)
            codes.append(level)
        return GeneratorOutput(
            self.decode(self.values(torch.cat(codes, 1))) + 0 * score[:, None, None], score
        )  # a row that failed is not finite
