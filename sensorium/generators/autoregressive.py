"""Autoregressive generator of ids: cross-entropy in training; greedy, sampled or by beam search after.

It knows ids and a trunk with a cache, nothing of text.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import UserError
from sensorium.core.types import Tokens
from sensorium.generators import Generator, GeneratorOutput, Trunk
from sensorium.nn.losses.chunked_cross_entropy import MAX_LOGITS, in_pieces
from sensorium.nn.shape_buckets import places

PAD_ID = 0
NUCLEUS_CANDIDATES = 256
"""Number of likeliest ids among which those of ``top_p`` are sought first."""


class Autoregressive(Generator):
    """Language model head: p(ids | hidden) as a product over tokens. One table embeds ids and turns hidden to logits
    (Press & Wolf 2017, arXiv 1608.05859).

    Args:
        smoothing: label smoothing.
        blur: word dropout: share of the known tokens that training hides from those after them, so that they depend on
            what is seen and not only on one another (Bowman et al. 2016, arXiv 1511.06349).
    """

    causal = True

    def __init__(self, tokens: Tokens, width: int, *, smoothing: float = 0.0, blur: float = 0.0) -> None:
        super().__init__(tokens, width)
        self.smoothing, self.blur = smoothing, blur
        self.table = nn.Parameter(torch.randn(tokens.vocabulary, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(tokens.vocabulary))
        self.first = nn.Parameter(torch.randn(width))
        self.positions = nn.Parameter(torch.randn(tokens.length, width) * 0.1)

    @classmethod
    def fits(cls, tokens: Tokens) -> bool:
        return tokens.vocabulary > 0 and tokens.ordered and tokens.end > 0

    def embed(self, ids: Int[Tensor, "n k"], start: int) -> Float[Tensor, "n k width"]:
        """Tokens [n, k, width] of ids [n, k] at positions ``start``…"""
        x = F.embedding(ids, self.table) * self.width**0.5
        return x + self.positions[start : start + ids.shape[1]]

    def start_token(self, rows: int) -> Float[Tensor, "n 1 width"]:
        """The token that stands before the first id, [rows, 1, width]."""
        return (self.first + self.positions[0]).expand(rows, 1, -1)

    def asked_tokens(self, target: Int[Tensor, "n k"]) -> Float[Tensor, "n k width"]:
        known = self.embed(target[:, :-1], 1)
        if self.training and self.blur > 0:
            hidden = torch.rand(known.shape[:2], device=known.device) < self.blur
            known = torch.where(hidden.unsqueeze(-1), self.positions[1 : 1 + known.shape[1]], known)
        return torch.cat([self.start_token(len(target)).to(known.dtype), known], 1)

    def logits(self, hidden: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens vocabulary"]:
        """Float logits [..., vocabulary] of hidden [..., width]; that of padding is minus infinity."""
        logits = F.linear(hidden, self.table.to(hidden.dtype), self.bias.to(hidden.dtype)).float()
        return logits.index_fill(-1, torch.tensor([PAD_ID], device=logits.device), float("-inf"))

    def token_nll(self, hidden: Float[Tensor, "n k width"], target: Int[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        real = target != PAD_ID
        lost = (
            F.cross_entropy(self.logits(hidden).flatten(0, 1), target.flatten().clamp(min=1), reduction="none").view(
                target.shape
            )
            * real
        )
        return lost * (target.shape[1] / real.sum(1, keepdim=True).clamp_min(1))

    def loss(self, hidden: Float[Tensor, "n k width"], target: Int[Tensor, "n k"]) -> Float[Tensor, " n"]:
        real = target != PAD_ID
        at, count = places(real)
        chosen, wanted = hidden.flatten(0, 1)[at], target.flatten()[at].clamp(min=1)
        size = max(1, MAX_LOGITS // self.output_tokens.vocabulary)
        each = in_pieces(self._cross_entropy, chosen, wanted, size)
        row = at[:count] // target.shape[1]
        return each.new_zeros(len(target)).index_add(0, row, each[:count]) / real.sum(1).clamp_min(1)

    def _cross_entropy(self, hidden: Tensor, wanted: Tensor) -> Tensor:
        logits = F.linear(hidden, self.table[1:], self.bias[1:]).float()
        return F.cross_entropy(logits, wanted - 1, reduction="none", label_smoothing=self.smoothing)

    @torch.no_grad()
    def sample(
        self,
        trunk: Trunk,
        rows: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        beam: int = 1,
        length_penalty: float = 0.0,
        max_length: int = 0,
        lots: Int[Tensor, " n"] | None = None,
    ) -> GeneratorOutput:
        """Generate the segment of each row; rows that have ended leave the batch where ``trunk`` has a ``reorder``.

        Args:
            temperature: 0 takes the likeliest id; above, ids are sampled from logits divided by it.
            top_k: sample among so many likeliest ids only; 0: all.
            top_p: sample among the likeliest ids that together have this probability (arXiv 1904.09751).
            beam: width of the beam search; never worse than greedy decoding.
            length_penalty: beams are compared by log-probability / length^penalty (0: plain log-probability).
            max_length: ids at most, the end included; 0: as many as in training.
            lots: index of each row's random stream, [rows] from 0 on: rows of one stream draw the same numbers,
                whatever the generator, so that a row's output doesn't depend on which others there are.

        Returns:
            ids [rows, length] up to and with the end, then 0; score: log-probability under the model itself.

        Raises:
            UserError: options that are out of range or exclude one another.
        """
        if not 0 <= temperature < math.inf or not 0 < top_p <= 1 or top_k < 0 or beam < 1 or max_length < 0:
            raise UserError(
                f"temperature={temperature}, top_p={top_p}, top_k={top_k}, beam={beam}, max_length={max_length}: "
                "needed are temperature ≥ 0, 0 < top_p ≤ 1, top_k ≥ 0, beam ≥ 1, max_length ≥ 0."
            )
        if beam > 1 and temperature > 0:
            raise UserError(
                f"beam={beam} with temperature={temperature}: a beam search doesn't sample. Leave one of them out."
            )
        longest = min(max_length or self.output_tokens.length, self.output_tokens.length)
        if rows == 0:
            return GeneratorOutput(torch.zeros(0, 1, dtype=torch.long, device=device), torch.zeros(0, device=device))
        if beam > 1:
            return self._beams(trunk, rows, device, longest, beam, length_penalty)
        return self._one_by_one(trunk, rows, device, longest, generator, temperature, top_k, top_p, lots)

    def _one_by_one(
        self,
        trunk: Trunk,
        rows: int,
        device: torch.device,
        longest: int,
        generator: torch.Generator | None,
        temperature: float,
        top_k: int,
        top_p: float,
        lots: Tensor | None,
    ) -> GeneratorOutput:
        ids_so_far = torch.full((rows, longest), PAD_ID, device=device)
        score = torch.zeros(rows, device=device)
        live = torch.arange(rows, device=device)  # the rows that the trunk still runs
        tokens, ended = self.start_token(rows), torch.zeros(rows, dtype=torch.bool, device=device)
        reorder = getattr(trunk, "reorder", None)
        drawers = [torch.Generator().manual_seed(lot) for lot in range(int(lots.max()) + 1)] if lots is not None else []
        for step in range(longest):
            logits = self.logits(trunk(tokens, step)[:, -1])
            if temperature == 0:
                ids = logits.argmax(-1)
            elif lots is None:
                ids = draw(logits / temperature, top_k, top_p, generator)
            else:
                noise = torch.stack(
                    [torch.empty(logits.shape[1]).exponential_(generator=lot).log_().neg_() for lot in drawers]
                )
                ids = largest(logits / temperature, noise[lots[live.cpu()]].to(device), top_k, top_p)
            gained = logits.log_softmax(-1).gather(1, ids.unsqueeze(1)).squeeze(1)
            ids, gained = ids.masked_fill(ended, PAD_ID), gained.masked_fill(ended, 0.0)
            ids_so_far[live, step] = ids
            score[live] += gained
            ended = ended | (ids == self.output_tokens.end)
            if ended.all():
                break
            if reorder is not None and 2 * int(ended.sum()) >= len(ended):
                still = (~ended).nonzero().squeeze(1)
                reorder(still)
                live, ids, ended = live[still], ids[still], ended[still]
            if step + 1 < longest:
                tokens = self.embed(ids.unsqueeze(1), step + 1)
        return GeneratorOutput(ids_so_far[:, : step + 1], score)

    def _beams(
        self, trunk: Trunk, rows: int, device: torch.device, longest: int, beam: int, penalty: float
    ) -> GeneratorOutput:
        reorder, end = getattr(trunk, "reorder", None), self.output_tokens.end
        if reorder is None:
            raise UserError("This trunk can't reorder its rows, which beams need. Generate with beam=1.")
        first = torch.arange(rows, device=device)
        log = self.logits(trunk(self.start_token(rows), 0)[:, -1]).log_softmax(-1)
        beam = min(beam, log.shape[1] - 1)
        score, ids = log.topk(beam, 1)  # [rows, beam]
        reorder(first.repeat_interleave(beam))
        ids_so_far = ids.unsqueeze(2)
        best = torch.full((rows,), float("-inf"), device=device)  # of what has ended, by the penalised score
        best_score, best_ids = best.clone(), torch.full((rows, longest), PAD_ID, device=device)
        greedy = torch.zeros(rows, dtype=torch.long, device=device)  # the beam that holds the greedy beginning

        def close(which: Tensor, length: int) -> None:
            """Beams [rows, beam] that are whole compete for the best ending."""
            nonlocal best, best_score
            value, place = (score / length**penalty).masked_fill(~which, float("-inf")).max(1)
            better = value > best
            best, best_score = torch.where(better, value, best), torch.where(better, score[first, place], best_score)
            best_ids[better] = F.pad(ids_so_far[first, place], (0, longest - length))[better]

        for step in range(1, longest):
            done = ids == end
            close(done, step)
            score = score.masked_fill(done, float("-inf"))
            reachable = score.amax(1) / (step if penalty <= 0 else longest) ** penalty  # scores only fall
            if (best >= reachable).all():
                break
            hidden = trunk(self.embed(ids.reshape(-1, 1), step), step)[:, -1]
            log = self.logits(hidden).log_softmax(-1).view(rows, beam, -1)
            every = score.unsqueeze(2) + log
            score, flat = every.flatten(1).topk(beam, 1)
            own = every[first, greedy]
            own_score, own_id = own.max(1)  # the greedy beginning goes on, whatever the others are worth
            own_flat = greedy * log.shape[2] + own_id
            lost = own_score.isfinite() & (flat != own_flat.unsqueeze(1)).all(1)
            score[lost, -1], flat[lost, -1] = own_score[lost], own_flat[lost]
            greedy = (flat == own_flat.unsqueeze(1)).to(torch.int8).argmax(1)
            parent, ids = flat // log.shape[2], flat % log.shape[2]
            reorder((first.unsqueeze(1) * beam + parent).flatten())
            ids_so_far = torch.cat([ids_so_far[first.unsqueeze(1), parent], ids.unsqueeze(2)], 2)
        else:
            close(torch.ones_like(ids, dtype=torch.bool), longest)
        return GeneratorOutput(best_ids, best_score)


def draw(
    logits: Float[Tensor, "n vocabulary"], top_k: int, top_p: float, generator: torch.Generator | None
) -> Int[Tensor, " n"]:
    """Sampled id of each row [n] from logits [n, vocabulary], among the ``top_k`` likeliest and those that make up
    ``top_p``."""
    return (
        torch.multinomial(filter_logits(logits, top_k, top_p).softmax(1).cpu(), 1, generator=generator)
        .squeeze(1)
        .to(logits.device)
    )


def largest(
    logits: Float[Tensor, "n vocabulary"], noise: Float[Tensor, "n vocabulary"], top_k: int, top_p: float
) -> Int[Tensor, " n"]:
    """Argmax of each row's filtered logits with Gumbel noise [n, vocabulary], which is a sample (arXiv 1411.0030).

    Most often the largest of all is among those that the filter leaves, and then nothing need be ranked.
    """
    if top_k:
        return (filter_logits(logits, top_k, top_p) + noise).argmax(1)
    ids = (logits + noise).argmax(1)
    share = logits.softmax(1)
    likelier = (share * (share > share.gather(1, ids.unsqueeze(1)))).sum(1)
    if top_p < 1 and (out := likelier >= top_p).any():
        ids[out] = (filter_logits(logits[out], 0, top_p) + noise[out]).argmax(1)
    return ids


def filter_logits(logits: Float[Tensor, "n vocabulary"], top_k: int, top_p: float) -> Float[Tensor, "n vocabulary"]:
    """Logits [n, vocabulary], minus infinity but for the ``top_k`` likeliest and those that make up ``top_p``."""
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k, 1).values[:, -1:], float("-inf"))
    return nucleus(logits, top_p) if top_p < 1 else logits


def nucleus(
    logits: Float[Tensor, "n vocabulary"], top_p: float, few: int = NUCLEUS_CANDIDATES
) -> Float[Tensor, "n vocabulary"]:
    """Logits [n, vocabulary], minus infinity but for the likeliest ids that together have ``top_p``; sought among the
    ``few`` likeliest first, as sorting all takes several times as long."""
    few = min(few, logits.shape[1])
    share, order = logits.softmax(1).topk(few, 1)
    order = torch.where(share.cumsum(1) - share < top_p, order, order[:, :1])
    result = torch.full_like(logits, float("-inf")).scatter(1, order, logits.gather(1, order))
    if few < logits.shape[1] and (lacking := share.sum(1) < top_p).any():
        result[lacking] = nucleus(logits[lacking], top_p, logits.shape[1])
    return result
