"""Attribution of an answer to the parts of a seen cell: by occlusion, integrated gradients or attention rollout.

The three answer different questions. Occlusion asks again without one part, and is exact for that part only. Integrated
gradients share out what all parts do together. Attention says where the trunk looked, which need not be what mattered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sensorium.core.errors import BadCell, UserError, unknown
from sensorium.inference.rows import Rows
from sensorium.modalities import Modality
from sensorium.modalities._capabilities import Attributable
from sensorium.network.batch import Batch
from sensorium.network.network import Network
from sensorium.network.types import Encoded
from sensorium.nn.attention import Attention

if TYPE_CHECKING:
    from sensorium.explain.scoring import CellScorer

MOMENTS, EARLY = 64, 3
"""Points of the path along which gradients are integrated, by the midpoint rule in the ``EARLY``-th root of its length:
a norm makes a faint cell look like a strong one, so that most happens right at the beginning."""

Parts = tuple[list[str], np.ndarray]
"""Names of a cell's parts, and the attribution of each token of the answer to them, [parts, tokens]; [parts, 1] of the
whole answer."""


def inside(witness: CellScorer, place: int, column: str, seen: Sequence[str], how: str = "occlusion") -> Parts | None:
    """Attribution of one answer to the parts of one row's ``column``; None where that has fewer than two.

    Args:
        place: which of the answers. seen: the columns that are seen. how: a name of ``METHODS``.
    """
    modality = witness.rows.network.modalities[column]
    if not isinstance(modality, Attributable):
        return None
    parts = modality.parts(witness.rows.read_cell(column, int(witness.index[place])))
    return None if len(parts) < 2 else ([name for name, _ in parts], METHODS[how](witness, place, column, seen, parts))


def check_method(how: str, network: Network) -> None:
    """Check that a method of attribution exists and fits the network.

    Raises:
        UserError: no such method, or a trunk without attention.
    """
    if how not in METHODS:
        raise unknown("way to look inside a cell:", how, list(METHODS))
    if how == "attention" and not attentions(network):
        raise UserError(
            "This run's trunk has no attention to show where it looked. Ask for inside=occlusion or inside=gradients."
        )


def occlusion(
    witness: CellScorer, place: int, column: str, seen: Sequence[str], parts: Sequence[tuple[str, np.ndarray]]
) -> np.ndarray:
    """Occlusion: how much worse each token of the answer is without each part, [parts, tokens]."""
    rows, row = witness.rows, int(witness.index[place])
    one = repeated(rows, row, seen, 1 + len(parts))
    one.cells[column] = [rows.cells[column][row], *without(rows.network.modalities[column], parts)]
    worth = witness.weigh(seen, one, np.full(one.count, place))
    return worth[:1] - worth[1:]


def gradients(
    witness: CellScorer, place: int, column: str, seen: Sequence[str], parts: Sequence[tuple[str, np.ndarray]]
) -> np.ndarray:
    """Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365, equation 1) over how much of each part is
    there, [parts, 1].

    The path leads from the cell without any part to the cell. The parts of a set that don't overlap add up to the
    difference between both. Parts that overlap, as the channels and the moments of a series, go along paths of their
    own.
    """
    rows, row = witness.rows, int(witness.index[place])
    network, modality = rows.network, rows.network.modalities[column]
    assert isinstance(modality, Attributable)
    cell, rest = rows.cell(column, row), without(modality, parts)
    result, root = np.zeros((len(parts), 1)), (torch.arange(MOMENTS, device=rows.device) + 0.5) / MOMENTS
    others = single(witness, row, [c for c in seen if c != column], MOMENTS)
    for group in parts_of_tokens(modality, cell, rest):
        keep = torch.ones(MOMENTS, len(parts), device=rows.device)
        keep[:, group] = root[:, None] ** EARLY
        keep.requires_grad_()
        cells = modality.interpolate_parts(cell, rest, keep)
        here = torch.arange(MOMENTS, device=rows.device)
        part = network.encode(column, Batch(MOMENTS, {column: cells}, {column: here}, {}))
        total = torch.zeros((), device=rows.device)
        for target in witness.targets:
            at = torch.full((MOMENTS,), place, device=rows.device)
            total = (
                total
                - network.nll({**others, column: part}, witness.column, seen, here, target[at], witness.generator_name)
                .mean(1)
                .sum()
                / witness.n_draws
            )
        (found,) = torch.autograd.grad(total, keep)
        result[group, 0] = (found[:, group] * EARLY * root[:, None] ** (EARLY - 1)).mean(0).cpu().numpy()
    return result


@torch.inference_mode()
def attention(
    witness: CellScorer, place: int, column: str, seen: Sequence[str], parts: Sequence[tuple[str, np.ndarray]]
) -> np.ndarray:
    """Attention rollout (Abnar & Zuidema 2020, arXiv 2005.00928) through the trunk from each token of the answer to the
    parts, [parts, tokens].

    Attention goes to tokens behind the stem; each belongs to the parts in the measure in which it changes as they fade.
    These are shares of a token's attention; its own, other columns' and the first token's are left out.
    """
    rows, row = witness.rows, int(witness.index[place])
    network, modality = rows.network, rows.network.modalities[column]
    assert isinstance(modality, Attributable)
    encoded = single(witness, row, seen, 1)
    target, first = witness.targets[0][place : place + 1], torch.zeros(1, dtype=torch.int64, device=rows.device)
    # Without holes, so that no token moves.
    seen_tokens = {
        c: (tokens[:, mask[0]], mask[:, mask[0]])
        for c, (tokens, mask) in network.seen_tokens(encoded, seen, first).items()
    }
    lengths = [tokens.shape[1] for tokens, _ in seen_tokens.values()]
    start = sum(lengths[: list(seen_tokens).index(column)])
    condition = network.condition(
        network.condition_vector(encoded, seen, first), encoded, seen, first, witness.column, witness.generator_name
    )
    asked = network.asked_tokens(witness.column, target, condition, witness.generator_name)
    generator = network.generator(witness.column, witness.generator_name)
    looked = rollout(network, seen_tokens, asked, generator.causal, generator.is_generative)
    keep = torch.cat([torch.ones(1, len(parts)), 1 - torch.eye(len(parts))]).to(rows.device)
    cells = modality.interpolate_parts(rows.cell(column, row), without(modality, parts), keep)
    part = network.encode(
        column, Batch(len(keep), {column: cells}, {column: torch.arange(len(keep), device=rows.device)}, {})
    )
    change = (
        (part.tokens[1:] - part.tokens[:1]).float().norm(dim=-1)[:, part.mask[0]]
    )  # [parts, tokens behind the stem]
    owned = change / change.sum(0, keepdim=True).clamp(min=1e-9)
    return (owned @ looked[:, start : start + owned.shape[1]].T).cpu().numpy()


METHODS = {"occlusion": occlusion, "gradients": gradients, "attention": attention}
"""How the inside of a cell is looked at."""


def rollout(
    network: Network,
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]],
    asked: torch.Tensor,
    causal: bool,
    generative: bool,
) -> torch.Tensor:
    """Attention rollout: the share of each seen token in what each asked token [1, k, width] of one row attends to,
    through all layers and past them, [k, seen tokens]."""
    found: list[torch.Tensor] = []

    def note(module: Attention, given: tuple[Any, ...], _: Any) -> None:
        x = given[0]
        n, s, w = x.shape
        q, k, _v = module.qkv(x).view(n, s, 3, module.heads, w // module.heads).permute(2, 0, 3, 1, 4).float()
        logits = q @ k.transpose(2, 3) / (w // module.heads) ** 0.5
        found.append((logits + (given[1] if len(given) > 1 and given[1] is not None else 0)).softmax(-1).mean(1)[0])

    hooks = [module.register_forward_hook(note) for module in attentions(network)]
    try:
        network.trunk(seen, [asked], [causal], [generative])
    finally:
        for hook in hooks:
            hook.remove()
    total = torch.eye(len(found[0]), device=asked.device)
    for weights in found:
        total = 0.5 * (weights @ total + total)
    count = sum(tokens.shape[1] for tokens, _ in seen.values())
    return total[-asked.shape[1] :, :count]


def attentions(network: Network) -> list[Attention]:
    """Attention layers of the trunk, in their order."""
    return [module for module in network.trunk.modules() if isinstance(module, Attention)]


def without(modality: Modality, parts: Sequence[tuple[str, np.ndarray]]) -> list[np.ndarray | None]:
    """Prepared cells that lack one part each; None where nothing is left."""
    there = [number for number, (_, rest) in enumerate(parts) if len(rest)]
    result: list[np.ndarray | None] = [None] * len(parts)
    for number, cell in zip(
        there, modality.prepare_all([parts[number][1] for number in there], keep=False), strict=True
    ):
        result[number] = None if isinstance(cell, BadCell) else cell
    return result


def parts_of_tokens(modality: Modality, cell: np.ndarray, rest: Sequence[np.ndarray | None]) -> list[list[int]]:
    """Sets of parts that don't overlap, so that fading all of a set takes nothing away twice."""
    groups: list[tuple[list[int], np.ndarray | None]] = []
    for number, other in enumerate(rest):
        changed = None if other is None or other.shape != cell.shape else other != cell
        for members, covered in groups:
            if changed is None or covered is None or not (changed & covered).any():
                members.append(number)
                if changed is not None and covered is not None:
                    covered |= changed
                break
        else:
            groups.append(([number], changed))
    return [members for members, _ in groups]


def single(witness: CellScorer, row: int, columns: Sequence[str], count: int) -> dict[str, Encoded]:
    """Encoded columns of one row, ``count`` times, as tensors that gradients may pass."""
    result = {}
    for column, part in witness.encoded(witness.rows).items():
        at = int(part.place[row])
        if column in columns and at >= 0:
            place = torch.zeros(count, dtype=torch.int64, device=part.place.device)
            result[column] = Encoded(
                place[:1].clone(),
                place,
                part.tokens[at : at + 1].clone(),
                part.mask[at : at + 1].clone(),
                None if part.gist is None else part.gist[at : at + 1].clone(),
            )
    return result


def repeated(rows: Rows, row: int, columns: Sequence[str], count: int) -> Rows:
    """One row's cells of some columns, ``count`` times, of which single ones may then be changed."""
    one = Rows(
        rows.network,
        {c: [rows.cells[c][row]] * count for c in columns},
        {c: [rows.read[c][row]] * count for c in columns},
        count,
    )
    one.precision = rows.precision
    return one
