"""One id of a vocabulary, said at a learned token: cross-entropy. Id 0 ("unseen") is never said nor learned from."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.core.types import Tokens
from sensorium.generators import Generator, Said, Trunk
from sensorium.layers.memory import Recalled


class Categorical(Generator):
    """p(id | hidden) as a softmax over a linear layer, each token by itself.

    Args:
        smoothing: label smoothing (Szegedy et al. 2016, arXiv 1512.00567, §7).
    """

    def __init__(self, tokens: Tokens, width: int, *, smoothing: float = 0.0) -> None:
        super().__init__(tokens, width)
        self.smoothing, self.leans = smoothing, tokens.length == 1
        self.query = nn.Parameter(torch.randn(tokens.length, width) * 0.5)
        self.head = nn.Linear(width, max(1, tokens.vocabulary - 1))
        nn.init.normal_(self.head.weight, std=0.5 * width**-0.5)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def fits(cls, tokens: Tokens) -> bool:
        return tokens.vocabulary > 0 and not tokens.ordered

    def ask(self, target: torch.Tensor) -> torch.Tensor:
        return self.query.expand(len(target), -1, -1)

    def loss(self, hidden: torch.Tensor, target: torch.Tensor, recalled: Recalled | None = None) -> torch.Tensor:
        logits = self.mixed(self.head(hidden).float(), recalled).flatten(0, 1)
        each = F.cross_entropy(logits, target.flatten() - 1, ignore_index=-1, reduction="none",
                               label_smoothing=self.smoothing)
        return each.view(target.shape).mean(1)

    @staticmethod
    def mixed(logits: torch.Tensor, recalled: Recalled | None) -> torch.Tensor:
        """Logits [n, 1, vocabulary - 1] of the network's answer and what remembered rows say, by its share."""
        if recalled is None:
            return logits
        found = logits.new_zeros(logits.shape[-1] + 1, len(logits)).index_add_(0, recalled.targets.flatten(), recalled.weights.T)[1:].T
        known = found.sum(1, keepdim=True)
        share = recalled.share * (known > 0)
        mixture = (1 - share) * logits[:, 0].softmax(-1) + share * found / known.clamp(min=1e-9)
        return mixture.clamp(min=1e-9).log().unsqueeze(1)

    @torch.no_grad()
    def sample(
        self, trunk: Trunk, rows: int, device: torch.device, generator: torch.Generator | None = None,
        recalled: Recalled | None = None, *, sample: bool = False, temperature: float = 1.0,
    ) -> Said:
        """The likeliest id, or one drawn at ``temperature`` with ``sample``; probabilities are those of the model."""
        hidden = trunk(self.query.expand(rows, -1, -1).to(device), 0)
        logits = self.mixed(self.head(hidden).float(), recalled)
        log = logits.log_softmax(-1)
        if sample and temperature > 0:
            weights = (logits / temperature).softmax(-1).flatten(0, 1).cpu()
            chosen = torch.multinomial(weights, 1, generator=generator).view(rows, -1).to(device)
        else:
            chosen = logits.argmax(-1)
        score = log.gather(-1, chosen.unsqueeze(-1)).squeeze(-1).sum(1)
        whole = F.pad(log.exp(), (1, 0))
        return Said(tokens=chosen + 1, score=score, probabilities=whole[:, 0] if self.said.length == 1 else None)
