"""Linear probes as a distilled memory of rows: its additions, fitted as a few matrices that hold no row.

For an asked column, a linear probe (Alain & Bengio 2016, arXiv 1610.01644), a multinomial logistic regression on the
gists of the others, gives what remembered rows would. A number's or a date's classes are ranges of its values, each
answered by the mean of the rows in it. For gists that are compared, a ridge regression predicts what rows like these
hold in their other columns. No class and no range is of fewer than a few rows. This file knows gists, sketches and
tokens by column, as ``row_memory`` does.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.nn.row_memory import MemoryAnswer, RowMemory

MIN_ROWS = 5
"""Rows that a class, or a range of values, must have to be answered."""
MAX_RANGES = 16
"""Ranges into which a number's or a date's values are cut, at most."""
LOGISTIC_PENALTY = 0.01
"""L2 penalty of the logistic regression, for each row's share of the loss."""
RIDGE_PENALTY = 0.001
"""L2 penalty of the ridge regression, for each row."""
LBFGS_STEPS = 60
"""Iterations of L-BFGS."""


class LinearProbes(nn.Module):
    """Linear probes that stand in for a ``RowMemory`` and have its methods.

    Args:
        maps, sketches: for columns whose gists are compared, matrices from their gists [gist, gist] and sketches
            [sketch, gist] to what rows like them hold elsewhere.
        strength, trust: weights of these beside a gist.
        weights: for each column that is asked matrices [gist, m] by the column that is seen.
        biases: [m].
        tokens: the answer of each of the m classes or ranges, [m, ...].
        shares, margins: see ``RowMemory``.
    """

    def __init__(
        self,
        maps: Mapping[str, Tensor],
        sketches: Mapping[str, Tensor],
        strength: float,
        trust: float,
        weights: Mapping[str, Mapping[str, Tensor]],
        biases: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        shares: Mapping[str, float],
        margins: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        super().__init__()
        self.strength, self.trust, self.sketched = float(strength), float(trust), list(sketches)
        self.asked_columns, self.by = list(weights), {column: list(by) for column, by in weights.items()}
        self.shares, self.margins = dict(shares), {column: list(margin) for column, margin in (margins or {}).items()}
        self.named: dict[str, str] = {}
        for name, value in {
            **{f"map.{c}": v for c, v in maps.items()},
            **{f"sketch.{c}": v for c, v in sketches.items()},
            **{f"weight.{c}.{by}": v for c, each in weights.items() for by, v in each.items()},
            **{f"bias.{c}": v for c, v in biases.items()},
            **{f"tokens.{c}": v for c, v in tokens.items()},
        }.items():
            self.named[name] = f"tensor_{len(self.named)}"
            self.register_buffer(self.named[name], value, persistent=False)

    def tensors(self) -> dict[str, Tensor]:
        """Fitted tensors by name."""
        return {name: getattr(self, own) for name, own in self.named.items()}

    def described(self) -> dict[str, Any]:
        """All else, as JSON."""
        return {
            "strength": self.strength,
            "trust": self.trust,
            "by": self.by,
            "shares": self.shares,
            "margins": self.margins,
            "sketched": self.sketched,
            "mapped": [name.removeprefix("map.") for name in self.named if name.startswith("map.")],
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> LinearProbes:
        """Probes of ``tensors`` and ``described``: the inverse of these methods."""
        by = described["by"]
        return cls(
            {c: tensors[f"map.{c}"] for c in described["mapped"]},
            {c: tensors[f"sketch.{c}"] for c in described["sketched"]},
            described["strength"],
            described["trust"],
            {c: {name: tensors[f"weight.{c}.{name}"] for name in names} for c, names in by.items()},
            {c: tensors[f"bias.{c}"] for c in by},
            {c: tensors[f"tokens.{c}"] for c in by},
            described["shares"],
            described["margins"],
        )

    def forward(
        self, column: str, gist: Float[Tensor, "n gist"], sketch: Float[Tensor, "n sketch"] | None = None
    ) -> Float[Tensor, "n gist"]:
        """Refined unit vectors [n, gist] of a column; see ``RowMemory``."""
        looked, known, result = (
            [(self.strength, gist, f"map.{column}"), (self.trust, sketch, f"sketch.{column}")],
            self.tensors(),
            gist,
        )
        for strength, query, name in looked:
            if strength and query is not None and name in known:
                found = F.normalize(query.float() @ known[name], dim=1)
                result = result.float() + strength * (query.abs().sum(1, keepdim=True) > 0) * found
        return result if result is gist else F.normalize(result, dim=1)

    def answer(
        self, column: str, seen: Mapping[str, tuple[Tensor, Tensor]], share: float | None = None
    ) -> MemoryAnswer | None:
        """Answer to an asked column; see ``RowMemory``."""
        share = self.shares.get(column, 0.0) if share is None else share
        looked = {c: part for c, part in seen.items() if c in self.by.get(column, ())}
        if not share or not looked:
            return None
        known, logits, n_seen = self.tensors(), 0.0, 0
        for name, (gist, here) in looked.items():
            logits = logits + (gist.float() * here.unsqueeze(1)) @ known[f"weight.{column}.{name}"]
            n_seen = n_seen + here.unsqueeze(1)
        tokens, margin = known[f"tokens.{column}"], self.margins.get(column)
        return MemoryAnswer(
            tokens,
            (logits + known[f"bias.{column}"]).softmax(1) * (n_seen > 0),
            share,
            None if margin is None else tokens.new_tensor(margin, dtype=torch.float32),
        )

    def without(self, column: str, ids: Tensor) -> LinearProbes:
        """Probes for a category whose ids [old] have become others, 0 where they are gone."""
        tensors = self.tensors()
        if column not in self.by:
            return self
        new = ids.to(tensors[f"tokens.{column}"].device)[tensors[f"tokens.{column}"]]
        left = new.flatten() > 0
        changed = {
            f"tokens.{column}": new[left],
            f"bias.{column}": tensors[f"bias.{column}"][left],
            **{f"weight.{column}.{name}": tensors[f"weight.{column}.{name}"][:, left] for name in self.by[column]},
        }
        described = self.described()
        if not left.any():
            described["by"] = {c: by for c, by in self.by.items() if c != column}
        return LinearProbes.of({**tensors, **changed}, described)


@torch.inference_mode(False)
def probes(memory: RowMemory, fewest: int = MIN_ROWS) -> LinearProbes | None:
    """Linear probes fitted to a memory's rows; None where it adds nothing. The same memory gives the same probes.

    Args:
        memory: the remembered rows.
        fewest: rows that each class or range must have, and all that is fitted to.
    """
    gists = {c: known.detach().float().cpu().clone() for c, known in zip(memory.columns, memory.known, strict=True)}
    total, maps, sketches = sum(gists.values()), {}, {}
    for column, own in gists.items():
        others = total - own
        for strength, query, into in (
            (memory.strength, own, maps),
            (memory.trust, memory.sketches().get(column), sketches),
        ):
            if strength and query is not None:
                query = query.detach().float().cpu().clone()
                able = (query.abs().sum(1) > 0) & (others.abs().sum(1) > 1e-3)
                if able.sum() >= max(fewest, 2):
                    into[column] = ridge(query[able], F.normalize(others[able], dim=1))
    weights, biases, tokens = {}, {}, {}
    for column, (stored, have) in memory.targets().items():
        seen = {c: gists[c] for c in memory.by.get(column, ())}
        if not memory.shares.get(column) or not seen:
            continue
        labels, answers = classes(
            stored.detach().cpu().clone(),
            have.detach().cpu().clone() & torch.stack([x.abs().sum(1) > 0 for x in seen.values()]).any(0),
            fewest,
        )
        if len(answers) > 1:
            weights[column], biases[column] = logistic(seen, labels, len(answers))
            tokens[column] = answers
    if not maps and not sketches and not weights:
        return None
    margins = {column: memory.margins[column] for column in weights if column in memory.margins}
    return LinearProbes(
        maps,
        sketches,
        memory.strength,
        memory.trust,
        weights,
        biases,
        tokens,
        {c: memory.shares[c] for c in weights},
        margins,
    ).to(memory.known.device)


def classes(tokens: Tensor, have: Tensor, fewest: int) -> tuple[Tensor, Tensor]:
    """Class labels of tokens [rows, ...]: the class of each row, -1 for none [rows], and the answer of each class [m,
    ...].

    None is of fewer than ``fewest`` rows.
    """
    labels = torch.full((len(tokens),), -1)
    if not tokens.is_floating_point():
        ids = tokens.flatten()
        frequent = [i for i, count in enumerate(torch.bincount(ids[have]).tolist()) if i and count >= fewest]
        for number, i in enumerate(frequent):
            labels[have & (ids == i)] = number
        return labels, torch.tensor(frequent, dtype=tokens.dtype).view(-1, *([1] * (tokens.ndim - 1)))
    values, rows = tokens.flatten(1)[:, 0], have.nonzero().squeeze(1)
    distinct, counts = values[rows].unique(return_counts=True)
    least, ends, count = max(fewest, -(-len(rows) // MAX_RANGES)), [], 0
    for number, more in enumerate(counts.tolist()):  # equal values stay together
        count += more
        if count >= least:
            ends.append(number)
            count = 0
    if not ends:
        return labels, tokens[:0]
    ends[-1] = len(distinct) - 1  # what is left is too little for a range of its own
    labels[rows] = torch.bucketize(values[rows], distinct[ends])
    return labels, torch.stack([tokens[labels == number].float().mean(0) for number in range(len(ends))]).to(
        tokens.dtype
    )


def ridge(x: Tensor, y: Tensor) -> Tensor:
    """Ridge regression: the matrix that takes x [n, a] to y [n, b] with the least squared error and penalty."""
    x, y = x.double(), y.double()
    return torch.linalg.solve(
        x.T @ x + RIDGE_PENALTY * len(x) * torch.eye(x.shape[1], dtype=torch.float64), x.T @ y
    ).float()


@torch.enable_grad()
def logistic(seen: Mapping[str, Tensor], labels: Tensor, count: int) -> tuple[dict[str, Tensor], Tensor]:
    """Multinomial logistic regression on several columns: weights by column, and biases.

    Labels [rows] of -1 are left out. The loss is taken from all columns together and from each by itself, as there will
    be rows that lack the others.
    """
    rows = (labels >= 0).nonzero().squeeze(1)
    truth, given = labels[rows], {column: gists[rows] for column, gists in seen.items()}
    weights = {column: torch.zeros(gists.shape[1], count, requires_grad=True) for column, gists in given.items()}
    bias = torch.zeros(count, requires_grad=True)
    views = [list(given), *([[column] for column in given] if len(given) > 1 else [])]
    there = [torch.stack([given[column].abs().sum(1) > 0 for column in view]).any(0) for view in views]
    search = torch.optim.LBFGS(
        [*weights.values(), bias], max_iter=LBFGS_STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        outputs = {column: gists @ weights[column] for column, gists in given.items()}
        each = [
            F.cross_entropy(added(outputs[column] for column in view)[here] + bias, truth[here])
            for view, here in zip(views, there, strict=True)
            if here.any()
        ]
        penalty = LOGISTIC_PENALTY / len(rows) * added((part**2).sum() for part in weights.values())
        total = added(each) / len(each) + penalty
        total.backward()
        return total

    search.step(loss)
    return {column: part.detach() for column, part in weights.items()}, bias.detach()


def added(tensors: Iterable[Tensor]) -> Tensor:
    """Sum of tensors, of which there is at least one."""
    return functools.reduce(torch.add, tensors)
