"""Muon optimizer: orthogonalised momentum for matrices (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

It computes what torch.optim.Muon does, with matrices of one shape orthogonalised together: a small network has dozens
of them, and on a CPU most of the time went into starting products, not into products.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from sensorium.nn.precision import choose

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration that drives singular values to about one."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, as large as AdamW's updates (Liu et al. 2025, arXiv 2502.16982, eq. 4).

    Args:
        parameters: matrices.
        lr: learning rate, on AdamW's scale; weight_decay: decoupled, times the learning rate.
        momentum: of the running mean. steps: of the Newton–Schulz iteration.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        steps: int = 5,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "steps": steps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # ty: ignore[incompatible-method-override]  # no closure is needed
        """Update all matrices that have a gradient."""
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(tuple(sorted(parameter.shape)), []).append(parameter)
            for parameters in shapes.values():
                self.update(parameters, **{key: group[key] for key in self.defaults})

    def update(
        self, parameters: list[nn.Parameter], lr: float, weight_decay: float, momentum: float, steps: int
    ) -> None:
        """Update matrices of one shape, some of them transposed."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in parameters]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, means, momentum)
        wide = torch.stack([x if x.shape[0] <= x.shape[1] else x.T for x in ahead])
        changes = orthogonal(wide, steps).to(parameters[0].dtype)
        size = lr * 0.2 * max(parameters[0].shape) ** 0.5
        weights: list[torch.Tensor] = list(parameters)
        torch._foreach_mul_(weights, 1 - lr * weight_decay)
        torch._foreach_add_(
            weights,
            [c if p.shape == c.shape else c.T for p, c in zip(parameters, changes, strict=True)],
            alpha=-size,
        )


def orthogonal(x: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Orthogonalised matrices [n, a, b] with a ≤ b, nearly the nearest ones of orthonormal rows (Newton–Schulz).

    In bfloat16 where a machine multiplies by it: emulated, it takes four fifths of a training step.
    """
    a, b, c = COEFFICIENTS
    x = x.bfloat16() if choose("auto", x.device) == "bf16" else x.float()
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        change = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        change.diagonal(dim1=1, dim2=2).add_(a)  # a x + (b g + c g²) x as one product
        x = change @ x
    return x
