"""The loss of answers that were drawn in groups, each weighed by how much better than its group it is (GRPO, Shao et al. 2024, arXiv 2402.03300).

It knows numbers only: of each token that was said its log-probability.
"""

from __future__ import annotations

from typing import Literal

import torch

Mean = Literal["grpo", "bnpo", "dr_grpo"]


def advantages(rewards: torch.Tensor, scaled: bool = True) -> torch.Tensor:
    """How much better each answer is than its group, [n, group] as ``rewards``; ``scaled``: in the group's deviations, else as it is (Liu et al. 2025, arXiv 2503.20783)."""
    above = rewards - rewards.mean(1, keepdim=True)
    return above / (rewards.std(1, keepdim=True) + 1e-4) if scaled else above


def policy(
    now: torch.Tensor,
    before: torch.Tensor | None,
    row: torch.Tensor,
    advantage: torch.Tensor,
    *,
    beta: float = 0.0,
    mean: Mean = "grpo",
    longest: int = 1,
) -> torch.Tensor:
    """The loss of answers that the model itself has just drawn.

    Args:
        now: log-probabilities of what was said [tokens]; before: by the model that was begun with, where ``beta`` keeps to it. row: the answer that each token is of [tokens].
        advantage: of each answer, [n]. beta: weight of the divergence from what was begun with (Schulman's k3).
        mean: grpo: over tokens of an answer, and then over answers; bnpo: over all tokens; dr_grpo: over answers, each by ``longest`` tokens, so that long wrong ones aren't spared.
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
