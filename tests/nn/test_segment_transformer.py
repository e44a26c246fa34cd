"""The seen/asked mask: who hears whom, and that what isn't there, or stands elsewhere, changes nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sensorium.core.errors import UserError
from sensorium.nn import attention
from sensorium.nn.attention import Attention, attend, forbid
from sensorium.nn.segment_transformer import SegmentTransformer, pack, seen_asked
from sensorium.nn.shape_buckets import recurring
from sensorium.nn.transformer import TransformerBlock

WIDTH, ROWS = 16, 3
CAUSAL = [False, True, False]
LENGTHS = [1, 4, 2]


def body(depth: int = 2, seed: int = 0) -> SegmentTransformer:
    """Segments with noise on every weight: new ones are the identity, which hears nothing at all."""
    torch.manual_seed(seed)
    made = SegmentTransformer(WIDTH, depth, 2, hidden=24).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return made


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    mask = torch.ones(ROWS, 6, dtype=torch.bool)
    mask[1, 3:] = False
    mask[2, [0, 2, 5]] = False
    return drawn(ROWS, 6, WIDTH, seed=1), mask, [drawn(ROWS, k, WIDTH, seed=2 + k) for k in LENGTHS]


def far(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a - b).abs().flatten(1).amax(1) > 1e-3).all())


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("changed", range(3))
def test_changing_an_asked_segment_changes_no_other(changed: int) -> None:
    made, (seen, mask, asked) = body(), inputs()
    before = made(seen, mask, asked, CAUSAL)
    after = made(seen, mask, [a if i != changed else drawn(*a.shape, seed=50) for i, a in enumerate(asked)], CAUSAL)
    for i in range(3):
        assert far(before[i], after[i]) if i == changed else torch.equal(before[i], after[i])


def test_changing_what_is_seen_changes_every_asked_segment() -> None:
    made, (seen, mask, asked) = body(), inputs()
    before = made(seen, mask, asked, CAUSAL)
    for token in (1,):  # one that every row has
        other = seen.clone()
        other[:, token] = drawn(ROWS, WIDTH, seed=60)
        assert mask[:, token].all()
        assert all(far(a, b) for a, b in zip(before, made(other, mask, asked, CAUSAL), strict=True))


def test_what_is_asked_never_changes_what_is_seen() -> None:
    """With two layers a seen token that attends to an asked one would carry it to the others; and it would itself
    differ."""
    made, (seen, mask, asked) = body(depth=3), inputs()
    alone = made.prefill(seen, mask)
    _, past = made.decode(alone, asked[1])
    for before, after in zip(alone.layers, past.layers, strict=True):
        assert torch.equal(before[0][0], after[0][0]) and after[1][0].shape[2] == asked[1].shape[1]
    allowed = seen_asked(mask, LENGTHS, CAUSAL)
    assert not allowed[:, :6, 6:].any()


@pytest.mark.parametrize("value", [0.0, 1e3, -1e3])
def test_tokens_that_are_not_there_change_nothing(value: float) -> None:
    made, (seen, mask, asked) = body(), inputs()
    before = made(seen, mask, asked, CAUSAL)
    other = torch.where(mask.unsqueeze(-1), seen, torch.full_like(seen, value))
    assert all(near(a, b) for a, b in zip(before, made(other, mask, asked, CAUSAL), strict=True))
    longer = torch.cat([other, torch.full((ROWS, 2, WIDTH), value)], 1)
    assert all(near(a, b) for a, b in zip(before, made(longer, F.pad(mask, (0, 2)), asked, CAUSAL), strict=True))


def test_a_token_of_a_causal_segment_hears_only_those_before_it() -> None:
    made, (seen, mask, asked) = body(), inputs()
    before = made(seen, mask, asked, CAUSAL)[1]
    other = asked[1].clone()
    other[:, 2] = drawn(ROWS, WIDTH, seed=70)
    after = made(seen, mask, [asked[0], other, asked[2]], CAUSAL)[1]
    assert (
        torch.equal(before[:, :2], after[:, :2]) and far(before[:, 2], after[:, 2]) and far(before[:, 3], after[:, 3])
    )
    both = [made(seen, mask, [tokens], [False])[0] for tokens in (asked[1], other)]
    assert far(both[0][:, 0], both[1][:, 0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 2**20))
def test_packing_keeps_the_present_tokens_in_their_order(lengths: list[int], rows: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randn(rows, k, 5, generator=generator) for k in lengths]
    masks = [torch.rand(rows, k, generator=generator) < 0.6 for k in lengths]
    x, mask = pack(tokens, masks, beside=3)
    longest = max(int(sum(m[row].sum() for m in masks)) for row in range(rows))
    assert x.shape[:2] == mask.shape and mask.shape[1] + 3 == recurring(longest + 3)
    for row in range(rows):
        wanted = torch.cat([t[row][m[row]] for t, m in zip(tokens, masks, strict=True)])
        assert torch.equal(x[row][mask[row]], wanted)
        assert mask[row].long().diff().le(0).all() or mask.shape[1] >= sum(lengths)


def test_packed_is_as_unpacked() -> None:
    made, (seen, mask, asked) = body(), inputs()
    tokens, masks = [seen[:, :2], seen[:, 2:5], seen[:, 5:]], [mask[:, :2], mask[:, 2:5], mask[:, 5:]]
    packed = pack(tokens, masks)
    assert packed[0].shape[1] == recurring(6)  # row 0 has all
    fewer = torch.tensor([1, 2])
    short = pack([t[fewer] for t in tokens], [m[fewer] for m in masks])
    assert short[0].shape[1] == recurring(3) < 6
    whole = made(seen, mask, asked, CAUSAL)
    for got, want in zip(made(*short, [a[fewer] for a in asked], CAUSAL), whole, strict=True):
        assert near(got, want[fewer])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=4), st.integers(0, 2**20))
def test_the_mask_says_the_one_idea(seen: int, segments: list[tuple[int, bool]], seed: int) -> None:
    mask = torch.rand(2, seen, generator=torch.Generator().manual_seed(seed)) < 0.7
    allowed = seen_asked(mask, [k for k, _ in segments], [c for _, c in segments])
    owner = [-1] * seen + [i for i, (k, _) in enumerate(segments) for _ in range(k)]
    assert allowed.shape == (2, len(owner), len(owner))
    for row in range(2):
        for a, asking in enumerate(owner):
            for b, heard in enumerate(owner):
                if heard == -1:
                    wanted = bool(mask[row, b])
                else:
                    wanted = asking == heard and (b <= a or not segments[heard][1])
                assert bool(allowed[row, a, b]) == wanted


@pytest.mark.parametrize("past", [False, True])
def test_plain_products_are_the_fused_kernel(past: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = drawn(2, 3, 4, 8), drawn(2, 3, 7, 8, seed=1), drawn(2, 3, 7, 8, seed=2)
    allowed = torch.rand(2, 4, 7, generator=torch.Generator().manual_seed(3)) < 0.6
    allowed[:, :, 0] = True
    plain = attend(q, [(k, v)], forbid(allowed) if past else None)
    parts = [(k[:, :, :2], v[:, :, :2]), (k[:, :, 2:], v[:, :, 2:])]
    assert torch.allclose(attend(q, parts, forbid(allowed) if past else None), plain, atol=1e-6)
    monkeypatch.setattr(attention, "MAX_PLAIN_KEYS", 0)
    for split in ([(k, v)], parts):
        assert torch.allclose(attend(q, split, forbid(allowed) if past else None), plain, atol=1e-6)
    strict = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed.unsqueeze(1) if past else None)
    assert torch.allclose(plain, strict, atol=1e-6)


def test_a_row_that_may_look_at_nothing_stays_finite() -> None:
    made = body()
    mask = torch.zeros(ROWS, 2, dtype=torch.bool)
    asked = [drawn(ROWS, 2, WIDTH)]
    said = made(drawn(ROWS, 2, WIDTH, seed=1), mask, asked, [True])[0]
    assert torch.isfinite(said).all() and near(said, made(drawn(ROWS, 0, WIDTH), mask[:, :0], asked, [True])[0])


def test_no_rows_are_borne() -> None:
    made = body()
    said = made(drawn(0, 3, WIDTH), torch.zeros(0, 3, dtype=torch.bool), [drawn(0, 2, WIDTH)], [False])
    assert said[0].shape == (0, 2, WIDTH)


def test_a_new_block_is_no_change_and_a_bad_width_is_told() -> None:
    x = drawn(2, 5, WIDTH)
    assert torch.equal(TransformerBlock(WIDTH, 2)(x)[0], x)
    with pytest.raises(UserError, match="multiple"):
        Attention(10, 3)
