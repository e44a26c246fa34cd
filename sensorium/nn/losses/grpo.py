"""GRPO loss of answers sampled in groups, each weighted by its advantage over its group (Shao et al. 2024, arXiv
2402.03300).

It knows numbers only: the log-probability of each sampled token.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Mean = Literal["grpo", "bnpo", "dr_grpo"]


def advantages(rewards: Float[Tensor, "n group"], scaled: bool = True) -> Float[Tensor, "n group"]:
    """Advantage of each answer over its group, [n, group] as ``rewards``.

    Args:
        rewards: [n, group].
        scaled: in the group's deviations, else as it is (Liu et al. 2025, arXiv 2503.20783).
    """
    above = rewards - rewards.mean(1, keepdim=True)
    return above / (rewards.std(1, keepdim=True) + 1e-4) if scaled else above


def policy(
    now: Float[Tensor, " tokens"],
    before: Float[Tensor, " tokens"] | None,
    row: Int[Tensor, " tokens"],
    advantage: Float[Tensor, " n"],
    *,
    beta: float = 0.0,
    mean: Mean = "grpo",
    longest: int = 1,
) -> Float[Tensor, ""]:
    """Policy loss of answers that the model itself has just sampled.

    Args:
        now: log-probabilities of the sampled tokens [tokens].
        before: the same by the reference model, where ``beta`` isn't 0.
        row: the answer that each token is of [tokens].
        advantage: of each answer, [n].
        beta: weight of the divergence from the reference model (Schulman's k3).
        mean: grpo: over tokens of an answer, and then over answers; bnpo: over all tokens; dr_grpo: over answers, each
            by ``longest`` tokens, so that long wrong ones aren't spared.
        longest: tokens of the longest answer.
    """
    each = -(now - now.detach()).exp() * advantage[row]
    if beta and before is not None:
        log_ratio = before - now
        each = each + beta * (log_ratio.exp() - log_ratio - 1)
    if mean == "bnpo":
        return each.sum() / max(len(each), 1)
    sums = each.new_zeros(len(advantage)).index_add(0, row, each)
    if mean == "dr_grpo":
        return sums.sum() / (len(advantage) * longest)
    tokens = each.new_zeros(len(advantage)).index_add(0, row, torch.ones_like(each))
    return (sums / tokens.clamp_min(1)).mean()
