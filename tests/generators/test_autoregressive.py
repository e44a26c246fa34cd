"""The autoregressive generator against a small recurrent trunk: it overfits, and every option of sampling holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sensorium.core.errors import UserError
from sensorium.core.types import Tokens
from sensorium.generators import autoregressive
from sensorium.generators.autoregressive import Autoregressive, draw, filter_logits, largest

CPU, WIDTH, VOCABULARY, LENGTH, ROWS, END = torch.device("cpu"), 32, 20, 9, 8, 1


class Recurrent(nn.Module):
    """A trunk that remembers: a GRU whose first state is a row's context."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.randn(1, rows, WIDTH))
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.gru(tokens, self.context)[0]

    def start(self) -> Remembering:
        return Remembering(self)


class Remembering:
    """What a generator is given: the trunk's state, run on and reordered."""

    def __init__(self, trunk: Recurrent) -> None:
        self.trunk, self.state, self.at, self.work = trunk, trunk.context, 0, 0

    def __call__(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        assert start == self.at and len(tokens) == self.state.shape[1]
        self.at, self.work = self.at + tokens.shape[1], self.work + len(tokens)
        hidden, self.state = self.trunk.gru(tokens, self.state.contiguous())
        return hidden

    def reorder(self, rows: torch.Tensor) -> None:
        self.state = self.state[:, rows]


def targets(rows: int = ROWS, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(rows, LENGTH, dtype=torch.long)
    for row in range(rows):
        length = int(torch.randint(1, LENGTH, (1,), generator=generator))
        ids[row, :length] = torch.randint(3, VOCABULARY, (length,), generator=generator)
        ids[row, length] = END
    return ids


def made(**options: float) -> tuple[Autoregressive, Recurrent]:
    torch.manual_seed(0)
    tokens = Tokens(length=LENGTH, vocabulary=VOCABULARY, ordered=True, end=END)
    return Autoregressive(tokens, WIDTH, **options), Recurrent(ROWS)


def learn(said: Autoregressive, trunk: Recurrent, target: torch.Tensor, steps: int) -> float:
    optimizer = torch.optim.Adam([*said.parameters(), *trunk.parameters()], lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = said.loss(trunk(said.asked_tokens(target)), target).mean()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.fixture(scope="module")
def knowing() -> tuple[Autoregressive, Recurrent]:
    said, trunk = made()
    assert learn(said, trunk, targets(), 80) < 0.1
    return said.eval(), trunk


@pytest.fixture(scope="module")
def unsure() -> tuple[Autoregressive, Recurrent]:
    """Half trained, so that many continuations are likely."""
    said, trunk = made()
    learn(said, trunk, targets(), 8)
    return said.eval(), trunk


def sure_of(said: Autoregressive, trunk: Recurrent, ids: torch.Tensor) -> torch.Tensor:
    """Log-probability of ids [n, k], computed in one pass."""
    log = said.logits(trunk(said.asked_tokens(ids))).log_softmax(-1)
    return (log.gather(2, ids.unsqueeze(2)).squeeze(2) * (ids != 0)).nan_to_num(0.0).sum(1)


def test_it_says_what_it_learned(knowing: tuple[Autoregressive, Recurrent]) -> None:
    said, trunk = knowing
    for options in ({}, {"beam": 3}, {"temperature": 0.05}, {"temperature": 1.0, "top_k": 1}):
        found = said.sample(trunk.start(), ROWS, CPU, torch.Generator().manual_seed(0), **options).tokens
        assert torch.equal(found, targets()[:, : found.shape[1]]), options


def test_a_step_at_a_time_equals_one_pass(unsure: tuple[Autoregressive, Recurrent]) -> None:
    said, trunk = unsure
    for options in (
        {},
        {"beam": 4},
        {"temperature": 2.0},
        {"temperature": 1.5, "top_p": 0.8},
        {"beam": 3, "length_penalty": 1.0},
    ):
        found = said.sample(trunk.start(), ROWS, CPU, torch.Generator().manual_seed(0), **options)
        assert torch.allclose(found.score, sure_of(said, trunk, found.tokens), atol=1e-4), options
        ends = (found.tokens == END).sum(1)
        assert (ends <= 1).all() and not found.tokens[ends == 0].eq(0).any()
        after = (found.tokens == END).cumsum(1) - (found.tokens == END).long()
        assert not found.tokens[after > 0].any()


def test_beams_are_never_worse_than_greedy(unsure: tuple[Autoregressive, Recurrent]) -> None:
    said, trunk = unsure
    greedy = said.sample(trunk.start(), ROWS, CPU).score
    scores = [said.sample(trunk.start(), ROWS, CPU, beam=beam).score for beam in (2, 4, 12)]
    assert all((score >= greedy - 1e-5).all() for score in scores)
    assert scores[-1].sum() > greedy.sum() + 0.1  # and here beams do find better ones


def test_one_beam_is_greedy(unsure: tuple[Autoregressive, Recurrent]) -> None:
    said, trunk = unsure
    greedy = said.sample(trunk.start(), ROWS, CPU)
    beam = said._beams(trunk.start(), ROWS, CPU, LENGTH, 1, 0.0)
    assert torch.equal(beam.tokens[:, : greedy.tokens.shape[1]], greedy.tokens)
    assert torch.allclose(beam.score, greedy.score, atol=1e-5)


def test_wide_beams_find_the_best_of_all() -> None:
    torch.manual_seed(3)
    said = Autoregressive(Tokens(length=3, vocabulary=6, ordered=True, end=END), WIDTH)
    trunk = Recurrent(2)
    with torch.no_grad():
        said.table.mul_(3)
    found = said.sample(trunk.start(), 2, CPU, beam=200)
    every = torch.cartesian_prod(*[torch.arange(1, 6)] * 3)
    ended = (every == END).cumsum(1) - (every == END).long()
    every = every.masked_fill(ended > 0, 0).unique(dim=0)
    scores = torch.stack([sure_of(said, trunk, ids.expand(2, -1)) for ids in every], 1)
    assert torch.allclose(found.score, scores.amax(1), atol=1e-4)
    assert torch.equal(found.tokens, every[scores.argmax(1)])


def test_length_penalty_prefers_longer(unsure: tuple[Autoregressive, Recurrent]) -> None:
    said, trunk = unsure

    def length(penalty: float) -> int:
        return int((said.sample(trunk.start(), ROWS, CPU, beam=6, length_penalty=penalty).tokens != 0).sum())

    assert length(-1.0) <= length(0.0) < length(2.0)


def test_cold_draws_are_greedy_and_seeds_reproduce(unsure: tuple[Autoregressive, Recurrent]) -> None:
    said, trunk = unsure

    def drawn(seed: int, **options: float) -> list[list[int]]:
        found = said.sample(trunk.start(), ROWS, CPU, torch.Generator().manual_seed(seed), **options)
        return [[i for i in row if i] for row in found.tokens.tolist()]

    greedy = drawn(0)
    assert (
        drawn(1, temperature=1e-4)
        == drawn(1, temperature=5.0, top_k=1)
        == drawn(1, temperature=5.0, top_p=1e-6)
        == greedy
    )
    assert drawn(1, temperature=1.0) == drawn(1, temperature=1.0) != drawn(2, temperature=1.0)


def test_top_k_and_top_p_leave_out_the_unlikely() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(2000, -1)
    generator = torch.Generator().manual_seed(0)
    assert set(draw(logits, 2, 1.0, generator).tolist()) == {0, 1}
    assert set(draw(logits, 0, 0.6, generator).tolist()) == {0, 1}
    assert set(draw(logits, 0, 0.5, generator).tolist()) == {0}
    assert set(draw(logits, 0, 1.0, generator).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])  # all ids are needed, some hundreds, a few
@pytest.mark.parametrize("ids", [5, 64, 500])
def test_top_p_is_that_of_a_whole_sort(spread: float, ids: int) -> None:
    logits = torch.randn(40, ids, generator=torch.Generator().manual_seed(3)) * spread
    logits[20:] *= 0.1
    found = filter_logits(logits, 0, 0.9)
    for row, said in zip(logits.double(), found, strict=True):
        ranked, order = row.softmax(0).sort(descending=True)
        least = int((ranked.cumsum(0) - ranked < 0.9).sum())
        assert abs(int(said.isfinite().sum()) - least) <= (1 if least > 100 else 0), (
            "rounding may add or take one of many"
        )
        assert (
            said[order[: least - 1]].equal(row[order[: least - 1]].float())
            and not said[order[least + 1 :]].isfinite().any()
        )


@pytest.mark.parametrize("top_k", [0, 7])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.2])
def test_the_largest_with_noise_is_that_of_what_is_kept(top_k: int, top_p: float) -> None:
    random = torch.Generator().manual_seed(5)
    logits = torch.randn(500, 40, generator=random) * 2
    noise = torch.empty(500, 40).exponential_(generator=random).log_().neg_()
    found = largest(logits, noise, top_k, top_p)
    assert found.equal((filter_logits(logits, top_k, top_p) + noise).argmax(1))
    assert (top_k, top_p) == (0, 1.0) or not found.equal((logits + noise).argmax(1)), "something is left out"


def test_ended_rows_leave_the_batch(knowing: tuple[Autoregressive, Recurrent]) -> None:
    said, trunk = knowing
    state = trunk.start()
    found = said.sample(state, ROWS, CPU)
    assert state.work < ROWS * found.tokens.shape[1]


def test_max_length_ends_early(knowing: tuple[Autoregressive, Recurrent]) -> None:
    said, trunk = knowing
    for options in ({}, {"beam": 2}):
        assert said.sample(trunk.start(), ROWS, CPU, max_length=2, **options).tokens.shape == (ROWS, 2)
    assert said.sample(trunk.start(), ROWS, CPU, max_length=10_000).tokens.shape[1] <= LENGTH
    assert len(said.sample(trunk.start(), 0, CPU).tokens) == 0


def test_a_later_id_changes_no_earlier_loss_and_padding_counts_nothing() -> None:
    said, trunk = made()
    target = targets()
    wide = torch.nn.functional.pad(target, (0, 0))
    short = target[:1, : int((target[0] != 0).sum())]
    hidden = trunk(said.asked_tokens(wide))
    alone = said.loss(hidden[:1, : short.shape[1]], short)
    assert torch.allclose(said.loss(hidden, wide)[0], alone[0], atol=1e-6)
    assert said.loss(hidden, torch.zeros_like(wide)).tolist() == [0.0] * ROWS


def test_loss_in_pieces_has_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for chunk in (1 << 24, VOCABULARY * 3):
        monkeypatch.setattr(autoregressive, "MAX_LOGITS", chunk)
        said, trunk = made(smoothing=0.1)
        loss = said.loss(trunk(said.asked_tokens(targets())), targets())
        loss.mean().backward()
        results.append([loss.detach(), *(p.grad for p in said.parameters()), *(p.grad for p in trunk.parameters())])
    for whole, pieces in zip(*results, strict=True):
        assert torch.allclose(whole, pieces, atol=1e-6)


def test_blur_hides_known_ids_in_training_only() -> None:
    said, _ = made(blur=1.0)
    one, other = targets(seed=0), targets(seed=1)
    assert torch.equal(said.asked_tokens(one), said.asked_tokens(other))
    said.eval()
    assert not torch.equal(said.asked_tokens(one), said.asked_tokens(other))


def test_options_out_of_range_say_what_is_possible() -> None:
    said, trunk = made()
    for options in ({"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"beam": 0}, {"beam": 2, "temperature": 1.0}):
        with pytest.raises(UserError, match="="):
            said.sample(trunk.start(), ROWS, CPU, **options)
    with pytest.raises(UserError, match="beam=1"):
        said.sample(lambda tokens, start: tokens, ROWS, CPU, beam=2)


def test_fits_ordered_ids_with_an_end() -> None:
    assert Autoregressive.fits(Tokens(length=9, vocabulary=3, ordered=True, end=1))
    assert not Autoregressive.fits(Tokens(length=9, vocabulary=3)) and not Autoregressive.fits(
        Tokens(length=1, width=1)
    )


def test_a_lot_draws_the_same_whatever_others_there_are() -> None:
    generator, _ = made()

    def drawn(lots: list[int]) -> list[list[int]]:
        said = generator.sample(
            lambda tokens, start=0: tokens, len(lots), torch.device("cpu"), temperature=1.0, lots=torch.tensor(lots)
        )
        return [[i for i in row if i] for row in said.tokens.tolist()]

    alone, beside = drawn([1]), drawn([7, 1, 3])
    assert alone[0] == beside[1] and beside[0] != beside[2]
