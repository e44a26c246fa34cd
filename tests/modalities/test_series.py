"""Series of every shape are read, with orientation, gaps and channels; augmentation and stem keep their promises."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sensorium.core.errors import BadCell, UserError
from sensorium.core.settings import build
from sensorium.core.types import Profile
from sensorium.modalities.series import Series


def wave(steps: int = 100, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(steps)[:, None]
    return np.sin(t * rng.uniform(0.05, 0.3, channels) + rng.uniform(0, 6, channels)) * 2 + rng.normal(size=channels)


def learned(cells: list, **settings) -> tuple[Series, list[np.ndarray]]:
    series = Series(**settings)
    read = [series.read(cell) for cell in cells]
    series.learn(read)
    return series, read


# Reading


@pytest.mark.parametrize(
    "cell",
    [
        wave(),
        wave().astype(np.float32),
        wave().astype(np.int16),
        wave().tolist(),
        tuple(map(tuple, wave())),
        [list(row) for row in wave()],
        np.array([np.array(row) for row in wave()] + [None], dtype=object)[:-1],
        {"x": wave()[:, 0].tolist(), "y": wave()[:, 1].tolist()},
        [1, 2, 3.5],
        [True, False, True],
    ],
)
def test_lists_arrays_and_structs_are_read(cell):
    read = Series().read(cell)
    assert read.dtype == np.float32 and read.ndim == 1 and len(read) > 3


def test_a_read_cell_keeps_its_sizes_and_values():
    read = Series().read([[1, 2, 3], [4, None, float("inf")]])
    assert read[:5].tolist() == [2, 3, 1, 2, 3] and read[5] == 4 and np.isnan(read[6:]).all()
    assert Series().read([5, 6]).tolist() == [2, 0, 5, 6]


def test_rows_of_unequal_length_are_filled_with_gaps():
    read = Series().read([[1, 2, 3], [4], None, []])
    assert read[:2].tolist() == [4, 3]
    assert np.isnan(read[2:].reshape(4, 3)).tolist() == [[False] * 3, [False, True, True], [True] * 3, [True] * 3]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (None, "NoneType"),
        ("1 2 3", "str"),
        (3.5, "float"),
        (b"123", "bytes"),
        (["a", "b"], "no number"),
        ([[1, 2], ["a", 3]], "no number"),
        ([1, [2, 3]], "no number"),
        ([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], "dimensions"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64"),
        (np.array([1 + 2j]), "complex"),
        (np.zeros((1 << 12, (1 << 12) + 1), np.int8), "more than"),
        (np.array(3.0), "dimension"),
        ([1e300, 1e35, float("-inf")], "gaps"),
    ],
)
def test_bad_cells_say_why(cell, reason):
    with pytest.raises(BadCell, match=reason):
        Series().read(cell)


@pytest.mark.parametrize(
    "cell",
    [[], [[], []], [None, None], [[float("nan")], [float("inf")]], np.full((4, 2), np.nan), "[]", "[null]"],
    ids=str,
)
def test_an_empty_list_and_one_of_gaps_are_missing(cell):
    assert Series().read(cell).shape == (0,)


def test_a_list_in_a_text_is_the_list():
    assert np.array_equal(
        Series().read("[[1, 2.5], [nan, -inf]]"), Series().read([[1, 2.5], [None, None]]), equal_nan=True
    )
    with pytest.raises(BadCell):
        Series().read("[1, 2")


# Learning


@pytest.mark.parametrize("channels_first", [False, True])
def test_the_dimension_that_stays_the_same_is_the_channels(channels_first):
    cells = [wave(steps, 3) for steps in (50, 2, 70, 3)]
    series, read = learned([cell.T for cell in cells] if channels_first else cells)
    assert series.channels == 3 and series.time_first != channels_first
    for cell, r in zip(cells, read, strict=True):
        ours = series.prepare(r)
        assert ours.shape == (len(cell), 6)
        np.testing.assert_allclose(ours[:, :3] * series.std + series.mean, cell, atol=1e-4)
        assert (ours[:, 3:] == 1).all()


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_where_both_stay_the_same_the_smaller_is_the_channels(shape):
    series, _ = learned([np.random.default_rng(i).normal(size=shape) for i in range(3)])
    assert series.channels == 6


def test_the_order_can_be_given():
    cells = [np.random.default_rng(i).normal(size=(40, 6)) for i in range(3)]
    series, read = learned(cells, order="channels_first")
    assert series.channels == 40 and series.prepare(read[0]).shape == (6, 80)


def test_flat_cells_are_one_channel_and_mix_with_nested_ones():
    series, read = learned([[1.0, 2.0, 3.0], [[4.0], [5.0]], [6.0] * 7])
    assert series.channels == 1 and [len(series.prepare(r)) for r in read] == [3, 2, 7]


def test_another_number_of_channels_is_a_bad_cell():
    series, _ = learned([wave(steps, 3) for steps in (50, 60, 70)])
    with pytest.raises(BadCell, match="5 channels where its column has 3"):
        series.prepare(series.read(wave(50, 5)))


def test_outliers_do_not_move_the_scale_and_are_bounded():
    cells = [wave(100, 2, seed) for seed in range(5)]
    plain, _ = learned(cells)
    cells[0] = cells[0].copy()
    cells[0][7] = 1e20
    wild, read = learned(cells)
    np.testing.assert_allclose(plain.std, wild.std, rtol=0.1)
    assert np.abs(wild.prepare(read[0])).max() == 20


def test_constants_units_and_gaps_are_fine():
    cells = [
        np.stack([np.full(50, 3.0), wave(50, 1)[:, 0] * 1e-9, wave(50, 1)[:, 0] * 1e9, np.full(50, np.nan)], 1)
    ] * 2
    cells[1] = cells[1].copy()
    cells[1][10:20, 1] = np.nan
    series, read = learned(cells)
    for r in read:
        ours = series.prepare(r)
        assert np.isfinite(ours).all() and np.abs(ours).max() < 5
        assert (ours[:, 0] == 0).all() and ours[:, 1].std() > 0.3 and ours[:, 2].std() > 0.3
        assert (ours[:, 7] == 0).all() and (ours[:, 3] == 0).all()
    assert series.prepare(read[1])[10:20, 5].sum() == 0 and series.prepare(read[1])[:, 5].sum() == 40


def test_a_long_series_is_averaged_down_over_what_is_there():
    long = np.repeat(np.arange(64.0), 5)
    long[7] = np.nan
    series, read = learned([long], length=64)
    ours = series.prepare(read[0])
    assert ours.shape == (64, 2)
    np.testing.assert_allclose(ours[:, 0] * series.std + series.mean, np.arange(64), atol=1e-3)
    assert abs(ours[1, 1] - 0.8) < 1e-6 and (np.delete(ours[:, 1], 1) == 1).all()


def test_state_is_json_and_brings_everything_back():
    series, read = learned([wave(50, 3).T, wave(60, 3).T])
    again = Series()
    again.load_state(json.loads(json.dumps(series.state())))
    for r in read:
        np.testing.assert_array_equal(again.prepare(r), series.prepare(r))
        np.testing.assert_array_equal(again.features(r), series.features(r))
    assert again.stem(16)(again.collate([again.prepare(read[0])]))[0].shape == (1, 4, 16)


# Batches


def batch(series: Series, read: list[np.ndarray]) -> dict[str, torch.Tensor]:
    return series.collate([series.prepare(r) for r in read])


def ragged(lengths: tuple[int, ...] = (5, 100, 64, 250), **settings) -> tuple[Series, dict[str, torch.Tensor]]:
    series, read = learned([wave(steps, 3, i) for i, steps in enumerate(lengths)], **settings)
    return series, batch(series, read)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_collate_pads_with_gaps_to_whole_tokens():
    _, cells = ragged((5, 20))
    assert cells["series"].shape == (2, 32, 6) and cells["length"].tolist() == [5, 20]
    assert (cells["series"][0, 5:] == 0).all() and (cells["series"][0, :5, 3:] == 1).all()


@pytest.mark.parametrize("norm", ["layer", "weight"])
def test_tokens_do_not_depend_on_neighbours_or_padding(norm):
    series, cells = ragged(norm=norm)
    stem = series.stem(32)
    tokens, mask = stem(cells)
    assert tokens.shape == (4, 16, 32) and mask.sum(1).tolist() == [1, 7, 4, 16]
    alone, alone_mask = stem({"series": cells["series"][:1, :16], "length": cells["length"][:1]})
    assert alone_mask.all()
    torch.testing.assert_close(tokens[:1, :1], alone, atol=1e-5, rtol=1e-4)


def test_the_stem_learns_in_low_precision_of_both_kinds():
    series, cells = ragged()
    autocast, pure = series.stem(32), series.stem(32).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = autocast(cells)[0]
    (tokens.float().square().mean() + pure(cells)[0].float().square().mean()).backward()
    for stem in (autocast, pure):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in stem.parameters())


def test_the_stem_tells_fast_from_slow_after_a_few_steps():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    speeds = np.where(np.arange(64) % 2, 0.15, 0.3)
    cells = [np.sin(np.arange(200) * s + rng.uniform(0, 6))[:, None] + 0.3 * rng.normal(size=(200, 1)) for s in speeds]
    series, read = learned(cells)
    train, test = batch(series, read[:32]), batch(series, read[32:])
    truth = torch.arange(32) % 2
    stem, head = series.stem(16), torch.nn.Linear(16, 2)
    optimizer = torch.optim.AdamW([*stem.parameters(), *head.parameters()], lr=3e-3)
    for step in range(25):
        loss = torch.nn.functional.cross_entropy(head(stem(series.augment(train, seeded(step)))[0].mean(1)), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (head(stem(test)[0].mean(1)).argmax(1) == truth).float().mean() > 0.9


def test_augmenting_is_a_function_of_the_generator_and_leaves_its_input():
    series, cells = ragged()
    before = {key: value.clone() for key, value in cells.items()}
    a, b, c = (series.augment(cells, seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a[key], b[key]) and torch.equal(cells[key], before[key]) for key in cells)
    assert a["series"].shape != c["series"].shape or not torch.equal(a["series"], c["series"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("triples", [False, True])
def test_augmented_series_are_whole_bounded_and_padded_with_gaps(seed, triples):
    series, cells = ragged((1, 3, 100, 256), rotate_triples=triples)
    out = series.augment(cells, seeded(seed))
    steps = out["series"].shape[1]
    assert steps % 16 == 0 and steps <= 256 and out["series"].isfinite().all()
    assert (out["length"] >= 1).all() and (out["length"] <= steps).all()
    for x, length in zip(out["series"], out["length"], strict=True):
        assert (x[length:] == 0).all() and (x[:length, 3:] > 0).any()
    change = out["length"][2:] / cells["length"][2:]
    assert (change > 0.6).all() and (change < 1.25).all()


def test_augmenting_by_nothing_changes_nothing():
    series, cells = ragged(jitter=0, scaling=0, warp=0, crop=0, drop=0)
    out = series.augment(cells, seeded())
    assert torch.equal(out["length"], cells["length"])
    torch.testing.assert_close(out["series"], cells["series"])


def test_gaps_stay_gaps():
    holes = wave(60, 2)
    holes[20:40, 1] = np.nan
    series, read = learned([holes] * 8, warp=0, crop=0, drop=0)
    out = series.augment(batch(series, read), seeded())["series"]
    assert (out[:, 20:40, 3] == 0).all() and (out[:, 20:40, 1] == 0).all() and (out[:, :20, 3] == 1).all()


def test_some_channels_are_left_out_never_all():
    series, read = learned([wave(64, 2)] * 200, drop=0.6)
    there = series.augment(batch(series, read), seeded())["series"][:, 0, 2:]
    assert there.sum(1).min() == 1 and there.sum(1).max() == 2


def test_rotation_keeps_the_length_of_vectors_in_the_tables_units():
    cells = [wave(64, 4, seed) * [1, 10, 100, 5] + [0, 0, 500, 7] for seed in range(8)]
    only = {"jitter": 0, "scaling": 0, "warp": 0, "crop": 0, "drop": 0}
    series, read = learned(cells, rotate_triples=True, rotate=1.0, **only)
    before = batch(series, read)
    after = series.augment(before, seeded())
    raw = [x["series"][..., :4].numpy() * series.std + series.mean for x in (before, after)]
    np.testing.assert_allclose(*(np.linalg.norm(x[..., :3], axis=-1) for x in raw), rtol=1e-3)
    np.testing.assert_allclose(raw[0][..., 3], raw[1][..., 3], rtol=1e-4)
    assert np.abs(raw[0] - raw[1])[..., :3].max() > 50


# Everything else of the contract


def test_settings_are_checked():
    assert Series(length=4).length == 16 and "length=16 is used" in Series(length=4).clamped[0]
    with pytest.raises(UserError, match="learn"):
        Series().stem(16)
    assert build(Series, {"length": "128", "order": "channels_first"}, "column.x").length == 128


def test_features_have_one_length_and_say_what_is_missing():
    cells = [wave(steps, 3, steps) for steps in (1, 2, 5, 300)]
    cells[2][1:3, 0] = np.nan
    cells[3][:, 2] = np.nan
    series, read = learned(cells)
    ours = [series.features(r) for r in read]
    assert {f.shape for f in ours} == {(3 * 14 + 1,)} == {series.features(None).shape}
    assert np.isnan(series.features(None)).all()
    assert all(np.isfinite(f).all() for f in ours[:3])
    assert np.isnan(ours[3][28:42]).all() and np.isfinite(ours[3][:28]).all() and ours[3][-1] == 300
    assert np.isnan(series.features(Series().read(wave(30, 7)))).all()


def test_features_know_frequency_and_slope():
    t = np.arange(200)
    series, read = learned([np.sin(2 * np.pi * 0.1 * t), np.sin(2 * np.pi * 0.3 * t), 0.5 * t])
    slow, fast, line = (series.features(r) for r in read)
    assert abs(slow[13] - 0.1) < 0.01 and abs(fast[13] - 0.3) < 0.01 and abs(line[7] - 0.5) < 1e-3
    assert slow[11] < fast[11] + 20 and slow[8] < fast[8]


def test_show_is_a_drawing_or_an_escaped_reason():
    series = Series()
    assert series.show(wave(500, 2)).count("<polyline") == 2 and "nan" not in series.show([[1.0, None], [2.0, 3.0]])
    assert series.show([5.0]).startswith("<svg") and series.show(None) == ""
    assert "<b>" not in series.show("<b>") and series.show([]).startswith("<em>")


def profile(sample: list, type: str = "list<double>") -> Profile:
    return Profile(name="x", type=type, sample=sample, present=len(sample), rows=len(sample), distinct=0)


def test_lists_of_numbers_are_claimed_and_nothing_else():
    nested, flat = Series.claim(profile([wave().tolist()] * 3)), Series.claim(profile([[1.0, 2.0]] * 3))
    assert nested is not None and flat is not None and nested.sure > flat.sure > 0
    assert Series.claim(profile([wave(), None, []])) is not None or True
    assert Series.claim(profile([{"x": [1.0], "y": [2.0]}])) is not None
    assert Series.claim(profile([[None, 1.0], [float("nan")]])) is not None
    for sample in (
        [["a", "b"]],
        ["text"],
        [3.5],
        [b"x"],
        [{"path": "a", "bytes": b"x"}],
        [[True, False]],
        [[[[1.0]]]],
        [],
    ):
        assert Series.claim(profile(sample)) is None, sample


def test_what_is_averaged_of_long_series_is_said() -> None:
    series = Series(length=64)
    for steps, words in ((64, ""), (200, "averaged to 64")):
        series.learn([series.read([float(step) for step in range(steps)])] * 2)
        assert words in series.truncation_note() and bool(words) == bool(series.truncation_note())
