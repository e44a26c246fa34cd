"""Projection of a pretrained encoder's features to tokens, with statistics fitted before training: whitened principal
directions, and a linear discriminant of which cells are of one thing.

It knows tensors only: ``features`` [n, tokens, features] and ``there`` [n, tokens].
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.nn.conv import working_dtype

Cells = Mapping[str, Tensor]

BASIS_SIZE, MIN_CELLS, SHRINKAGE = 384, 64, 0.1
"""Size of the whitened basis of all features of a cell; cells that fitting it takes at least; and shrinkage: what is
added to each direction's variance, as a share of the mean one."""
MAX_PAIR_DIRECTIONS, PAIRS_PER_DIRECTION, PAIR_CONFIDENCE, MAX_CORRELATION = 256, 5, 0.9, 0.97
"""Directions by which pairs of one thing are compared, at most; pairs that each of them takes; the factor on their
estimated correlations; and the largest correlation in one direction."""


class FeatureProjection(nn.Module):
    """Linear projection of normalised features to the trunk's width, with position embeddings and a residual MLP that
    starts as the identity.

    ``n_placed``: so many first tokens lie alike in each cell (all of a picture, then its parts), so that what a feature
    means depends on its place. All of these features together are projected to ``BASIS_SIZE`` numbers that are fitted
    before training, from the cells alone: principal directions, whitened. Where it is known which cells are of one
    thing they are whitened by how those differ from one another (linear discriminants, Fisher 1936). So little is then
    left to train that few rows suffice. Each token gets them.

    The score of two cells being of one thing is the likelihood ratio of two Gaussians, in which they belong together
    and in which they don't (probabilistic linear discriminants, Ioffe 2006). What two of one thing have in common may
    also be a difference: where each thing was drawn once by each of two hands, two drawings of one hand are of two
    things.
    """

    middle: Tensor
    basis: Tensor
    pair: Tensor
    common: Tensor

    def __init__(self, width: int, features: int, places: int, dropout: float = 0.0, n_placed: int = 0) -> None:
        super().__init__()
        self.norm, self.enter = nn.LayerNorm(features), nn.Linear(features, width)
        self.places = nn.Parameter(torch.randn(places, width) * 0.02)
        self.again, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.n_placed, self.dropout, self.similarity_size = n_placed, dropout, MAX_PAIR_DIRECTIONS if n_placed else 0
        if n_placed:
            self.register_buffer("middle", torch.zeros(n_placed * features))
            self.register_buffer("basis", torch.zeros(n_placed * features, BASIS_SIZE))
            self.register_buffer("pair", torch.zeros(BASIS_SIZE, MAX_PAIR_DIRECTIONS))
            self.register_buffer("common", torch.zeros(MAX_PAIR_DIRECTIONS))
            self.all = nn.Linear(BASIS_SIZE, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "n tokens width"], Bool[Tensor, "n tokens"]]:
        """Tokens [n, tokens, width] of ``features`` [n, tokens, features] and ``there`` [n, tokens], and the same
        mask."""
        most = (
            self.n_placed if cells["features"].shape[1] > len(self.places) else len(self.places)
        )  # patches after what is laid are others'
        given = cells["features"][:, :most].to(working_dtype(self.places))
        x = self.enter(F.dropout(self.norm(given), self.dropout, self.training)) + self.places[: given.shape[1]].to(
            given.dtype
        )
        if self.n_placed:
            known = F.normalize(self.spread(cells), dim=-1) * BASIS_SIZE**0.5
            x = x + self.all(F.dropout(known.to(given.dtype), self.dropout, self.training)).unsqueeze(1)
        return x + self.down(F.gelu(self.up(self.again(x)))), cells["there"][:, :most]

    def flat(self, given: Tensor) -> Tensor:
        """Placed features of each cell side by side, [n, placed · features]; zeros where a cell has fewer."""
        flat = given[:, : self.n_placed].float().flatten(1)
        return F.pad(flat, (0, len(self.middle) - flat.shape[1]))

    @torch.no_grad()
    def spread(self, cells: Cells) -> Tensor:
        """Whitened features of each cell, [n, ``BASIS_SIZE``]."""
        return (self.flat(cells["features"]) - self.middle) @ self.basis

    @torch.no_grad()
    def similarity_features(self, cells: Cells) -> Tensor | None:
        """Vectors [n, kindred] of a mean square of 1, so that no cell is like all others; None where nothing is
        placed."""
        return F.rms_norm(self.spread(cells) @ self.pair, (MAX_PAIR_DIRECTIONS,)) if self.n_placed else None

    def compare(self, mine: Float[Tensor, "n kindred"], known: Float[Tensor, "m kindred"]) -> Float[Tensor, "n m"]:
        """Log-likelihood ratios [n, m], up to a constant, of the cells of such vectors [n, kindred] being of one thing
        with others' [m, kindred]."""
        rest = 1 - self.common.square()
        difference = 0.5 * self.common.square() / rest
        return (
            (mine * (self.common / rest)) @ known.T
            - known.square() @ difference
            - (mine.square() @ difference).unsqueeze(1)
        )

    @torch.no_grad()
    def initialise(self, cells: Cells, things: Tensor | None = None) -> None:
        """Fit the whitened basis and the pair directions to some cells, and to the ``things`` [n] that they are of."""
        if not self.n_placed or len(cells["features"]) < MIN_CELLS:
            return
        flat = self.flat(cells["features"])
        self.middle.copy_(flat.mean(0))
        flat = flat - self.middle
        size = min(BASIS_SIZE, len(flat) // 2, flat.shape[1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, deviations, directions = torch.svd_lowrank(flat, q=size, niter=2)
        even = torch.diag(1 / deviations.clamp(min=1e-6))  # all directions equally wide
        known, turn = flat @ directions, even
        pairs, weights = (
            pairs_of(things) if things is not None else (torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0))
        )
        pairs, weights = pairs.to(flat.device), weights.to(flat.device)
        few, common = (
            min(size, MAX_PAIR_DIRECTIONS),
            torch.full((min(size, MAX_PAIR_DIRECTIONS),), 0.5, device=flat.device),
        )
        if len(pairs) >= MIN_CELLS:
            difference = (known[pairs[:, 0]] - known[pairs[:, 1]]) / 2**0.5
            within = (difference * weights.unsqueeze(1)).T @ difference / weights.sum()
            within += SHRINKAGE * within.diagonal().mean() * torch.eye(size, device=flat.device)
            turn = torch.linalg.cholesky(torch.linalg.inv(within))
            few = min(size, MAX_PAIR_DIRECTIONS, len(pairs) // PAIRS_PER_DIRECTION)
            wide = known[:, :few] @ even[:few, :few] * len(flat) ** 0.5
            both = (wide[pairs[:, 0]] * weights.unsqueeze(1)).T @ wide[pairs[:, 1]] / weights.sum()
            common, axes = torch.linalg.eigh((both + both.T) / 2)
            common, even = (PAIR_CONFIDENCE * common).clamp(-MAX_CORRELATION, MAX_CORRELATION), even[:few, :few] @ axes
        self.basis.zero_()[:, :size] = directions @ turn
        self.pair.zero_()[:size, :few] = torch.linalg.inv(turn)[:, :few] @ even[:few, :few] * len(flat) ** 0.5
        self.common.zero_()[:few] = common[:few]


class PatchProjector(nn.Module):
    """Two-layer projector of a vision tower's patches to a language model's tokens (LLaVA 1.5, Liu et al. 2023, arXiv
    2310.03744, section 3.3).

    Args:
        features, width: of a patch and of a token.
        n_placed: tokens of a cell's features that come before its patches.
        count: number of patches.
    """

    def __init__(self, features: int, width: int, n_placed: int, count: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2, self.n_placed, self.count = (
            nn.Linear(features, width),
            nn.Linear(width, width),
            n_placed,
            count,
        )

    def forward(self, patches: Float[Tensor, "n k features"]) -> Float[Tensor, "n k width"]:
        """Patches [n, k, features] to tokens [n, k, width]."""
        return self.linear_2(F.gelu(self.linear_1(patches.to(working_dtype(self.linear_1.weight)))))

    def patches(self, cells: Cells) -> Tensor:
        """Patches of a batch's cells, [n, k, features]."""
        return cells["features"][:, self.n_placed : self.n_placed + self.count]

    @torch.no_grad()
    def initialise(self, patches: Tensor, loud: float) -> None:
        """Initialise by the patches of some cells: inputs of mean 0 and deviation 1, and tokens of root mean square
        ``loud``."""
        flat = patches.float().flatten(0, 1)
        middle, spread = flat.mean(0), flat.std(0).clamp(min=1e-4 * flat.std())
        self.linear_1.weight.div_(spread)
        self.linear_1.bias.sub_(self.linear_1.weight @ middle)
        self.linear_2.bias.zero_()
        self.linear_2.weight.mul_(loud / self(patches).float().square().mean().sqrt())


def pairs_of(things: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs [pairs, 2] of neighbouring cells of each thing, all in a ring; and a weight for each, so that each thing
    counts by its cells."""
    order = things.argsort(stable=True)
    _, counts = things[order].unique_consecutive(return_counts=True)
    pairs, weights, start = [], [], 0
    for count in counts.tolist():
        own = order[start : start + count]
        start += count
        if count > 1:
            pairs.append(torch.stack([own, own.roll(-1)], 1)[: count if count > 2 else 1])
            weights.append(torch.full((len(pairs[-1]),), count / len(pairs[-1])))
    return (torch.cat(pairs), torch.cat(weights)) if pairs else (torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0))
