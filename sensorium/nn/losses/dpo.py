"""Preference losses of a chosen answer beside a rejected one, from log-probabilities of whole answers or from reward
scores."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["dpo", "ipo"]


def preferred(
    chosen: Float[Tensor, " n"],
    rejected: Float[Tensor, " n"],
    before_chosen: Float[Tensor, " n"],
    before_rejected: Float[Tensor, " n"],
    *,
    beta: float = 0.1,
    smoothing: float = 0.0,
    loss: Loss = "dpo",
) -> Float[Tensor, " n"]:
    """Preference loss of each pair, [n].

    Args:
        chosen, rejected: log-probabilities [n] of the answers.
        before_chosen, before_rejected: the same by the reference model. Of ``ipo`` these are means over an answer's
            tokens.
        beta: weight of the divergence from the reference model.
        smoothing: the share of pairs that are taken to be the wrong way round.
        loss: dpo (Rafailov et al. 2023, arXiv 2305.18290, equation 7; conservative where smoothed), or ipo (Azar et al.
            2023, arXiv 2310.12036, equation 17).
    """
    margin = (chosen - rejected) - (before_chosen - before_rejected)
    if loss == "ipo":
        return (margin - 1 / (2 * beta)).square()
    return -F.logsigmoid(beta * margin) * (1 - smoothing) - F.logsigmoid(-beta * margin) * smoothing


def rewarded(chosen: Float[Tensor, " n"], rejected: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Reward model loss of each pair of scores, [n]: the chosen one is to be higher (Bradley & Terry 1952)."""
    return -F.logsigmoid(chosen - rejected)
