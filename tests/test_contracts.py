"""What every part promises, whoever wrote it: one test for each promise, run over all files of a parts' folder.

A modality is tried on those columns of ``SPECIMENS`` that it claims before all others, or else on the first that it can
read, so a new file is tested as soon as it exists.
"""

from __future__ import annotations

import atexit
import copy
import dataclasses
import datetime
import inspect
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import clip, tiny_cells
from tiny_models import twin
from torch import nn

from sensorium.core.errors import BadCell
from sensorium.core.registry import find, name_of, names
from sensorium.core.settings import schema
from sensorium.core.types import Claim, Profile, Tokens
from sensorium.data.profile import profile_columns
from sensorium.data.schema import claims
from sensorium.data.table import Table
from sensorium.generators import Generator, GeneratorOutput
from sensorium.modalities import Modality
from sensorium.modalities._capabilities import Attributable, Dialogue, Generable, generable
from sensorium.network.batch import collate
from sensorium.network.types import Plan
from sensorium.nn.row_memory import MemoryAnswer
from sensorium.objectives import Objective
from sensorium.trunks import Trunk

WIDTH = 24
MODALITIES, GENERATORS, TRUNKS, OBJECTIVES = (names(part) for part in (Modality, Generator, Trunk, Objective))
MODALITIES = [
    name for name in MODALITIES if not issubclass(find(Modality, name), Dialogue)
]  # conversations need a language model, and are tried with one elsewhere


def specimens() -> Table:
    """Columns of every kind, none of them with a missing cell."""
    rng = np.random.default_rng(0)
    cells = tiny_cells(30, gaps=0.0)
    cells |= {
        "passed": [bool(i % 3) for i in range(30)],
        "stars": [int(i % 5) for i in range(30)],
        "price": [float(10 ** rng.uniform(-3, 9)) for _ in range(30)],
        "whole": [int(v) for v in rng.integers(-(10**6), 10**6, 30)],
        "moment": [
            datetime.datetime(2001, 2, 3) + datetime.timedelta(seconds=int(s)) for s in rng.integers(0, 10**8, 30)
        ],
        "written": [f"2019-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(30)],
        "story": [f"Ein <b>Satz</b> über {i} & «Ωμέγα» 猫🐈 " + "wort " * int(rng.integers(1, 9)) for i in range(30)],
        "beat": [rng.normal(size=int(n)).tolist() for n in rng.integers(5, 40, 30)],
        "clip": [
            clip(["red", "green", "blue"][i % 3], [(1, 0), (0, 1), (-1, 0), (0, -1)][i % 4], 4 + i % 5)
            for i in range(30)
        ],
        "lidar_points": [rng.normal(size=(int(n), 4)).tolist() for n in rng.integers(3, 90, 30)],
        "corners": [rng.normal(size=(int(n), 3)).tolist() for n in rng.integers(4, 9, 30)],
    }
    for name in MODALITIES:  # those of other packages bring cells of their own
        if hasattr(find(Modality, name), "example_cells"):
            cells[f"of_{name}"] = find(Modality, name).example_cells()
    return Table.open(pa.table(cells))


SPECIMENS = specimens()
LANGUAGES = Path(tempfile.mkdtemp(prefix="sensorium-twins-"))
atexit.register(shutil.rmtree, LANGUAGES, ignore_errors=True)


@dataclasses.dataclass
class Learned:
    """A modality that has learned from a specimen, and the specimen."""

    modality: Modality
    cells: list[Any]
    read: list[np.ndarray]
    ready: list[np.ndarray]


def cells_of(column: str, media: bool) -> list[Any]:
    """A specimen's cells as ``read`` is given them."""
    return list(SPECIMENS.cells(SPECIMENS.take(range(SPECIMENS.rows)), column, media))


def columns_for(name: str) -> list[str]:
    """The specimens that a modality is tried on."""
    part = find(Modality, name)
    won = [
        column for column, seen in profile_columns(SPECIMENS).items() if (found := claims(seen)) and found[0][0] == name
    ]
    for column in [] if won else SPECIMENS.columns:
        try:
            if all(len(part().read(cell)) for cell in cells_of(column, part.media)):
                return [column]
        except BadCell:
            continue
    assert won, f"no specimen can be read by '{name}': add a column of such cells to specimens()"
    return won


CASES = [(name, column) for name in MODALITIES for column in columns_for(name)]


@pytest.fixture(scope="module", params=CASES, ids=[f"{name}-{column}" for name, column in CASES])
def learned(request: pytest.FixtureRequest) -> Learned:
    name, column = request.param
    modality = find(Modality, name)()
    cells = cells_of(column, modality.media)
    read = [modality.read(cell) for cell in cells]
    type(modality).learn_together({column: (modality, read)})
    return Learned(modality, cells, read, [modality.prepare(cell) for cell in read])


def empty(kind: str = "string") -> Profile:
    return Profile(name="x", type=kind, sample=[], present=0, rows=0, distinct=0)


# --- parts in general -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contract", "name"), [(c, n) for c in (Modality, Generator, Trunk, Objective) for n in names(c)]
)
def test_a_constructor_is_its_schema(contract: type, name: str) -> None:
    part = find(contract, name)
    handed = {Modality: 0, Objective: 0, Generator: 2, Trunk: 2}[contract]
    parameters = list(inspect.signature(part).parameters.values())
    assert [p.kind for p in parameters[:handed]] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * handed
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters[handed:])
    for setting, parameter in schema(part).items():
        assert parameter.annotation is not inspect.Parameter.empty, setting
        assert parameter.default is not inspect.Parameter.empty, setting
    assert name_of(part) == name and inspect.getdoc(part)


# --- modalities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODALITIES)
def test_claims_are_sure_to_a_degree_and_say_why(name: str) -> None:
    part, claimed = find(Modality, name), columns_for(name)
    for column, seen in profile_columns(SPECIMENS).items():
        claim = part.claim(seen.profile)
        assert claim is None or (isinstance(claim, Claim) and 0 < claim.sure <= 1 and claim.why)
        assert claim is not None or column not in claimed or not claims(seen)[0][0] == name
    for kind in ("string", "int64", "double", "binary", "null", "list<double>", "struct<bytes, path>", "timestamp[us]"):
        part.claim(empty(kind))


def test_a_read_cell_has_one_type_and_shape_but_for_its_first_dimension(learned: Learned) -> None:
    assert {(cell.dtype, cell.shape[1:]) for cell in learned.read} == {
        (learned.read[0].dtype, learned.read[0].shape[1:])
    }
    assert {(cell.dtype, cell.shape[1:]) for cell in learned.ready} == {
        (learned.ready[0].dtype, learned.ready[0].shape[1:])
    }
    assert all(isinstance(cell, np.ndarray) and len(cell) for cell in learned.read + learned.ready)
    again = [learned.modality.read(cell) for cell in learned.cells]
    assert all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(again, learned.read, strict=True))


HOSTILE: list[Any] = [
    None, "", " ", "\x00", "\ud800", "nan", "inf", "-inf", "1e999", "💥" * 50, "x" * 100_000, b"", b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x00\x00\x00\x00WAVE", bytes(range(256)), True, 0, -1, 10**30, float("nan"), float("inf"), [], [None], [[]],
    [1, "a"],
    [[1, 2], [3]], [float("nan")], [float("inf")], {}, {"bytes": None, "path": None}, {"bytes": b"", "path": "x"},
    object(), 3 + 4j,
    np.zeros(0), np.zeros((2, 0)), np.zeros((2, 2, 2)), np.array("x"), np.datetime64("NaT"), datetime.date(1, 1, 1),
    datetime.time(),
    datetime.datetime(9999, 12, 31, 23, 59, 59, 999999), datetime.timedelta(1), {"a": [1.0]}, [{"a": 1}], ["a", "b"],
    range(3),
]  # fmt: skip


@pytest.mark.parametrize("cell", HOSTILE, ids=lambda cell: ascii(cell).partition(" at 0x")[0][:24])
def test_any_cell_is_read_or_bad(learned: Learned, cell: Any) -> None:
    modality = learned.modality
    try:
        read = modality.read(cell)
    except BadCell as error:
        assert str(error)
        return
    assert (
        isinstance(read, np.ndarray)
        and read.dtype == learned.read[0].dtype
        and read.shape[1:] == learned.read[0].shape[1:]
    )
    if not len(read):
        return
    try:
        ready = modality.prepare(read)
    except BadCell as error:
        assert str(error)
        return
    cells = modality.collate([learned.ready[0], ready])
    with torch.no_grad():
        tokens, _ = modality.stem(WIDTH).eval()(cells)
    assert torch.isfinite(tokens).all()
    assert modality.features(read).shape == modality.features(learned.read[0]).shape


def test_collated_rows_are_those_given(learned: Learned) -> None:
    cells, n = learned.modality.collate(learned.ready), len(learned.ready)
    assert cells and all(torch.is_tensor(v) and len(v) == n for v in cells.values())
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    mixed = learned.modality.collate([learned.ready[i] for i in order])
    assert mixed.keys() == cells.keys()
    assert all(torch.equal(mixed[key], cells[key][order]) for key in cells)


def test_a_cell_whose_parts_are_all_there_is_itself_and_fading_reaches_its_tokens(learned: Learned) -> None:
    modality, stem = learned.modality, learned.modality.stem(WIDTH).eval()
    if not isinstance(modality, Attributable):
        return
    for read, ready in zip(learned.read, learned.ready, strict=True):
        parts = modality.parts(read)
        if len(parts) < 2:
            continue
        rest = [modality.prepare(other) if len(other) else None for _, other in parts]
        keep = torch.ones(2, len(parts), requires_grad=True)
        whole, _ = stem(modality.collate([ready]))
        tokens, _ = stem(modality.interpolate_parts(ready, rest, keep))
        assert torch.allclose(tokens[1], whole[0], atol=1e-4)
        (gradient,) = torch.autograd.grad(tokens.square().sum(), keep)
        assert gradient.shape == keep.shape and torch.isfinite(gradient).all() and gradient.any()
        nothing, _ = stem(modality.interpolate_parts(ready, rest, torch.zeros(1, len(parts))))
        assert torch.isfinite(nothing).all() and not torch.allclose(nothing[0], whole[0], atol=1e-3)


def test_what_is_read_is_a_picture_or_none(learned: Learned) -> None:
    if not isinstance(learned.modality, Attributable):
        return
    for read in learned.read:
        pixels = learned.modality.as_image(read)
        assert pixels is None or (
            pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
        )
    assert name_of(learned.modality) not in ("image", "audio", "series") or pixels is not None


def test_augmenting_is_a_function_of_the_generator_and_leaves_what_is_asked(learned: Learned) -> None:
    modality, cells = learned.modality, learned.modality.collate(learned.ready)
    before = {key: value.clone() for key, value in cells.items()}
    first, second, *others = (
        modality.augment(cells, torch.Generator().manual_seed(seed)) for seed in (5, 5, *range(6, 30))
    )
    assert all(torch.equal(cells[key], value) for key, value in before.items()), "augment changed what it was given"
    assert first.keys() >= cells.keys() and first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(len(value) == len(learned.ready) for value in first.values())
    if type(modality).augment is not Modality.augment:
        assert any(
            first[key].shape != other[key].shape or not torch.equal(first[key], other[key])
            for other in others
            for key in first
        )
    with torch.no_grad():
        assert torch.isfinite(modality.stem(WIDTH)(first)[0]).all()
    if isinstance(modality, Generable):
        assert torch.equal(modality.target(first), modality.target(cells))


def live(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with noise on every weight: what starts as no change at all would hide faults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module


def test_a_stem_gives_tokens_that_do_not_depend_on_the_neighbours(learned: Learned) -> None:
    modality, n = learned.modality, len(learned.ready)
    stem = live(modality.stem(WIDTH)).eval()
    tokens, mask = stem(modality.collate(learned.ready))
    assert tokens.shape[0] == n and tokens.shape[2] == WIDTH and torch.isfinite(tokens).all()
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
    assert mask.shape == tokens.shape[:2] and mask.dtype == torch.bool and mask.any(1).all()
    for row in (0, n // 2, n - 1):
        alone, own = stem(modality.collate([learned.ready[row]]))
        alone = alone[0] if own is None else alone[0][own[0]]
        assert torch.allclose(alone, tokens[row][mask[row]], atol=1e-5)
    (tokens * mask.unsqueeze(-1)).square().sum().backward()
    missing = [key for key, p in stem.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not missing, f"no gradient reaches {missing}"


NEAR = {key: lambda value: value > 0.999 for key in ("accuracy", "exact", "r2")}
NEAR |= {"psnr": lambda value: value > 60, "mel_db": lambda value: value < 4, "chamfer": lambda value: value < 1e-4}
"""How near a cell is to itself, once read and said, by each measure."""


def test_what_is_asked_comes_back_as_the_cell(learned: Learned) -> None:
    modality = learned.modality
    if not isinstance(modality, Generable):
        return
    assert modality.is_generable
    kind = modality.tokens()
    assert modality.generator in GENERATORS and find(Generator, modality.generator).fits(kind)
    target = modality.target(modality.collate(learned.ready))
    assert len(target) == len(learned.ready) and 1 <= target.shape[1] <= kind.length
    if kind.vocabulary:
        assert target.ndim == 2 and target.dtype == torch.int64 and target.min() >= 0 and target.max() < kind.vocabulary
    else:
        assert target.ndim == 3 and target.shape[2] == kind.width and torch.isfinite(target).all()
    said = [modality.decode(tokens) for tokens in target.numpy()]
    if modality.ending:
        assert all(isinstance(cell, bytes) for cell in said), "what is no file has no ending"
    else:
        json.dumps(said, allow_nan=False)
    measured = modality.score(learned.cells, said)
    assert set(measured) & set(NEAR) and all(NEAR[key](value) for key, value in measured.items() if key in NEAR), (
        measured
    )
    for cell, again in (
        zip(learned.ready, said, strict=True) if "mel_db" not in measured else ()
    ):  # a sound's phases are made up
        assert np.allclose(modality.prepare(modality.read(again)), cell, rtol=1e-5, atol=1e-5)


def test_shown_cells_are_safe_html(learned: Learned) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    for cell in [
        *learned.cells[:3],
        hostile,
        hostile.encode(),
        {"bytes": hostile.encode(), "path": hostile},
        [hostile],
        None,
    ]:
        shown = learned.modality.show(cell)
        assert isinstance(shown, str) and "<script" not in shown and "onerror=alert(1)>" not in shown
    assert all(learned.modality.show(cell) for cell in learned.cells)


def test_sketches_are_unit_vectors_or_none_at_all(learned: Learned) -> None:
    drawn = learned.modality.sketch(learned.ready)
    if drawn is None:
        assert learned.modality.sketch([]) is None
        return
    assert learned.modality.matched, "only gists that are compared are refined by what sketches find"
    assert drawn.dtype == np.float32 and drawn.shape == (len(learned.ready), learned.modality.sketch([]).shape[1])
    assert np.allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-5)
    assert all(
        np.array_equal(learned.modality.sketch([cell])[0], row) for cell, row in zip(learned.ready, drawn, strict=True)
    )


def test_features_are_of_one_length_and_nan_where_missing(learned: Learned) -> None:
    features = [learned.modality.features(cell) for cell in learned.read]
    missing = learned.modality.features(None)
    assert {f.shape for f in features} == {missing.shape} and missing.ndim == 1
    assert all(f.dtype.kind == "f" for f in (*features, missing)) and np.isnan(missing).all()
    assert all(np.isfinite(f).any() for f in features)


def test_state_is_json_and_gives_the_same_answers(learned: Learned) -> None:
    modality = learned.modality
    text = json.dumps(modality.state(), allow_nan=False)
    other = type(modality)()
    other.load_state(json.loads(text))
    assert (
        json.dumps(other.state()) == text
        and (not isinstance(modality, Generable) or other.tokens() == modality.tokens())
        and other.shared() == modality.shared()
    )
    for cell, ready in zip(learned.read, learned.ready, strict=True):
        assert np.array_equal(other.prepare(cell), ready)
        assert np.array_equal(other.features(cell), modality.features(cell), equal_nan=True)
    a, b = other.collate(learned.ready), modality.collate(learned.ready)
    assert all(torch.equal(a[key], b[key]) for key in b)
    if isinstance(modality, Generable):
        assert [other.decode(t) for t in other.target(a).numpy()] == [
            modality.decode(t) for t in modality.target(b).numpy()
        ]
    one, two = modality.stem(WIDTH), other.stem(WIDTH)
    two.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert torch.equal(one.eval()(b)[0], two.eval()(a)[0])


@pytest.mark.parametrize("name", MODALITIES)
def test_a_column_without_cells_is_learned_and_asked(name: str) -> None:
    modality = find(Modality, name)()
    type(modality).learn_together({"x": (modality, [])})
    json.dumps(modality.state(), allow_nan=False)
    assert modality.score([], []) == {}
    asked = generable(modality)
    if asked is not None:
        generator = find(Generator, asked.generator)(asked.tokens(), WIDTH)
        said = generator.sample(lambda tokens, start: tokens, 2, torch.device("cpu"))
        for tokens in said.tokens.numpy():
            asked.decode(tokens)


# --- generators -------------------------------------------------------------------------------------------------------

KINDS = [
    Tokens(length=1, vocabulary=7), Tokens(length=6, vocabulary=9, ordered=True, end=1), Tokens(length=1, width=1),
    Tokens(length=1, width=3), Tokens(length=4, width=5), Tokens(length=3, vocabulary=4),
]  # fmt: skip
PAIRS = [(name, kind) for name in GENERATORS for kind in KINDS if find(Generator, name).fits(kind)]


def test_every_generator_fits_some_tokens() -> None:
    assert {name for name, _ in PAIRS} == set(GENERATORS), "add tokens that fit to KINDS"


def targets(kind: Tokens, rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind.width:
        return torch.randn(rows, kind.length, kind.width, generator=generator)
    if not kind.ordered:
        return torch.randint(1, kind.vocabulary, (rows, kind.length), generator=generator)
    ids = torch.randint(3, kind.vocabulary, (rows, kind.length), generator=generator)
    ends = torch.arange(rows) % kind.length
    ids[torch.arange(rows), ends] = kind.end
    return ids.masked_fill(torch.arange(kind.length) > ends[:, None], 0)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_generator_learns_rows_one_by_one(name: str, kind: Tokens) -> None:
    torch.manual_seed(0)
    generator = live(find(Generator, name)(kind, WIDTH))
    target = generator.with_noise(targets(kind, 8))
    asked = generator.asked_tokens(target)
    assert asked.shape[0] == 8 and asked.shape[2] == WIDTH and asked.ndim == 3
    hidden = torch.tanh(asked.detach() + torch.randn(8, 1, WIDTH)).requires_grad_()
    loss = generator.loss(hidden, target)
    assert loss.shape == (8,) and torch.isfinite(loss).all() and (loss != loss[0]).any()
    rows = torch.tensor([5, 2])
    assert torch.allclose(generator.loss(hidden[rows], target[rows]), loss[rows], atol=1e-5)
    loss[3].backward()
    assert hidden.grad is not None and hidden.grad[3].any() and not hidden.grad[[0, 1, 2, 4, 5, 6, 7]].any()
    assert len(generator.loss(hidden[:0], target[:0])) == 0


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_generator_says_segments_of_its_kind(name: str, kind: Tokens) -> None:
    torch.manual_seed(0)
    generator = live(find(Generator, name)(kind, WIDTH)).eval()
    context = torch.randn(5, 1, WIDTH)

    class Listener:
        """A trunk without memory; it knows which of its rows are still asked."""

        def __init__(self) -> None:
            self.rows = torch.arange(5)

        def __call__(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
            return torch.tanh(tokens + context[self.rows])

        def reorder(self, rows: torch.Tensor) -> None:
            self.rows = self.rows[rows]

    first, second = (
        generator.sample(Listener(), 5, torch.device("cpu"), torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first.tokens, second.tokens) and torch.equal(first.score, second.score)
    assert first.score.shape == (5,) and torch.isfinite(first.score).all()
    if kind.width:
        assert first.tokens.shape == (5, kind.length, kind.width) and torch.isfinite(first.tokens).all()
    else:
        assert first.tokens.shape[0] == 5 and 1 <= first.tokens.shape[1] <= kind.length
        assert first.tokens.min() >= 0 and first.tokens.max() < kind.vocabulary
    if first.probabilities is not None:
        assert first.probabilities.shape == (5, kind.vocabulary) and torch.allclose(
            first.probabilities.sum(1), torch.ones(5)
        )
    if first.interval is not None:
        low, high = first.interval.unbind(1)
        assert (
            first.interval.shape == (5, 2, kind.width)
            and (low <= first.tokens[:, 0]).all()
            and (first.tokens[:, 0] <= high).all()
        )
    assert len(generator.sample(lambda tokens, start: tokens, 0, torch.device("cpu")).score) == 0


@pytest.mark.parametrize(
    ("name", "kind"), [pair for pair in PAIRS if find(Generator, pair[0])(pair[1], WIDTH).uses_memory]
)
def test_an_answer_leans_on_what_is_remembered_by_its_share(name: str, kind: Tokens) -> None:
    torch.manual_seed(0)
    generator, known = live(find(Generator, name)(kind, WIDTH)).eval(), targets(kind, 6)
    like = torch.eye(6)[[4, 0, 2, 0]]
    like[3] = 0  # nothing is shown by the last row

    def said(share: float | None) -> tuple[GeneratorOutput, torch.Tensor]:
        recalled = [] if share is None else [MemoryAnswer(known, like, share)]

        def trunk(tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
            return torch.tanh(tokens + torch.linspace(-1, 1, 4).view(4, 1, 1))

        asked = trunk(generator.asked_tokens(known[:4]))
        return generator.sample(trunk, 4, torch.device("cpu"), None, *recalled), generator.loss(
            asked, known[[4, 0, 2, 0]], *recalled
        )

    alone, loss = said(None)
    nothing, same = said(0.0)
    half, _ = said(0.5)
    surely, least = said(0.999)
    for a, b in ((alone, nothing), (alone, surely)):
        rows = slice(None) if b is nothing else slice(3, 4)
        assert torch.allclose(a.tokens[rows].float(), b.tokens[rows].float(), atol=1e-4)
        assert torch.allclose(a.score[rows], b.score[rows], atol=1e-4)
    assert (
        torch.allclose(loss, same, atol=1e-4)
        and (least[:3] < 0.3 * loss[:3]).all()
        and torch.allclose(least[3], loss[3], atol=1e-4)
    )
    assert torch.allclose(surely.tokens[:3].float(), known[[4, 0, 2]].float(), atol=0.05)
    if half.probabilities is not None:
        assert torch.allclose(half.probabilities.sum(1), torch.ones(4), atol=1e-5)
        mean = (alone.probabilities[0] + torch.nn.functional.one_hot(known[4, 0], kind.vocabulary)) / 2
        assert torch.allclose(half.probabilities[0], mean, atol=1e-5)
    else:
        assert torch.allclose(half.tokens[:3], (alone.tokens[:3] + known[[4, 0, 2]]) / 2, atol=1e-4)
        assert (half.interval[:, 0] <= half.tokens[:, 0]).all() and (half.tokens[:, 0] <= half.interval[:, 1]).all()


# --- trunks -----------------------------------------------------------------------------------------------------------

COLUMNS = ["a", "b", "c"]


def trunk_of(name: str) -> Trunk:
    torch.manual_seed(0)
    part = find(Trunk, name)
    shape = {"path": str(twin("llama", LANGUAGES)), "rank": 4} if part.is_language_model else {"heads": 2, "depth": 2}
    return live(part(WIDTH, COLUMNS, **shape)).eval()


def seen_of(columns: list[str], rows: int = 4, seed: int = 0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Tokens of some columns; each has its own, whichever others there are."""
    seen = {"": (torch.ones(rows, 1, WIDTH) * 0.1, torch.ones(rows, 1, dtype=torch.bool))}
    for column in columns:
        generator = torch.Generator().manual_seed(seed + 10 * COLUMNS.index(column))
        length = 2 + COLUMNS.index(column)
        seen[column] = (
            torch.randn(rows, length, WIDTH, generator=generator),
            torch.ones(rows, length, dtype=torch.bool),
        )
    return seen


def asked_of(rows: int = 4) -> tuple[list[torch.Tensor], list[bool]]:
    generator = torch.Generator().manual_seed(99)
    return [torch.randn(rows, k, WIDTH, generator=generator) for k in (1, 5, 3)], [False, True, False]


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", TRUNKS)
@pytest.mark.parametrize("columns", [[], ["b"], ["a", "b", "c"]])
def test_a_trunk_answers_every_asked_segment(name: str, columns: list[str]) -> None:
    trunk, (asked, causal) = trunk_of(name), asked_of()
    said = trunk(seen_of(columns), asked, causal)
    assert [s.shape for s in said] == [a.shape for a in asked] and all(torch.isfinite(s).all() for s in said)


@pytest.mark.parametrize("name", TRUNKS)
def test_asked_segments_hear_what_is_seen_and_not_one_another(name: str) -> None:
    trunk, (asked, causal) = trunk_of(name), asked_of()
    together = trunk(seen_of(COLUMNS), asked, causal)
    for i, segment in enumerate(asked):
        assert near(trunk(seen_of(COLUMNS), [segment], [causal[i]])[0], together[i])
        other = trunk(seen_of(COLUMNS, seed=1), [segment], [causal[i]])[0]
        assert ((other - together[i]).abs().amax((1, 2)) > 1e-3).all()
    changed = [asked[0].flip(2), asked[1], asked[2]]
    assert near(trunk(seen_of(COLUMNS), changed, causal)[1], together[1])
    assert not near(trunk(seen_of(COLUMNS), changed, causal)[0], together[0])


@pytest.mark.parametrize("name", TRUNKS)
def test_a_column_that_a_row_lacks_is_as_one_that_is_not_given(name: str) -> None:
    trunk, (asked, causal) = trunk_of(name), asked_of()
    seen = seen_of(COLUMNS)
    tokens, mask = seen["b"]
    mask = mask.clone()
    mask[[1, 3]] = False
    with_gaps = trunk({**seen, "b": (tokens, mask)}, asked, causal)
    noisy = trunk({**seen, "b": (tokens + 100 * ~mask.unsqueeze(-1), mask)}, asked, causal)
    without = trunk(seen_of(["a", "c"]), asked, causal)
    whole = trunk(seen, asked, causal)
    for gap, noise, gone, full in zip(with_gaps, noisy, without, whole, strict=True):
        assert near(gap[[1, 3]], gone[[1, 3]]) and near(gap[[0, 2]], full[[0, 2]]) and near(gap, noise)
        assert not near(gone[[1, 3]], full[[1, 3]])


@pytest.mark.parametrize("name", TRUNKS)
def test_tokens_that_are_not_there_change_nothing(name: str) -> None:
    trunk, (asked, causal) = trunk_of(name), asked_of()
    seen = seen_of(COLUMNS)
    tokens, mask = seen["c"]
    padded = (
        torch.cat([tokens, torch.full((4, 3, WIDTH), 7.0)], 1),
        torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], 1),
    )
    for a, b in zip(trunk({**seen, "c": padded}, asked, causal), trunk(seen, asked, causal), strict=True):
        assert near(a, b)


@pytest.mark.parametrize("name", TRUNKS)
def test_columns_have_no_order_and_rows_are_their_own(name: str) -> None:
    trunk, (asked, causal) = trunk_of(name), asked_of()
    seen = seen_of(COLUMNS)
    seen["b"][1][2, 1:] = False
    said = trunk(seen, asked, causal)
    turned = {column: seen[column] for column in ("c", "", "b", "a")}
    order = torch.tensor([2, 0, 3])
    part = {column: (tokens[order], mask[order]) for column, (tokens, mask) in seen.items()}
    for whole, other, rows in zip(
        said, trunk(turned, asked, causal), trunk(part, [a[order] for a in asked], causal), strict=True
    ):
        assert near(whole, other) and near(whole[order], rows)


@pytest.mark.parametrize("name", TRUNKS)
def test_going_on_token_by_token_is_as_all_at_once(name: str) -> None:
    trunk, (asked, causal) = trunk_of(name), asked_of()
    seen = seen_of(COLUMNS)
    seen["a"][1][1] = False
    said = trunk(seen, asked, causal)
    state, parts = trunk.prefill(seen), []
    for i in range(asked[1].shape[1]):
        hidden, state = trunk.decode(state, asked[1][:, i : i + 1])
        parts.append(hidden)
    assert near(torch.cat(parts, 1), said[1])
    assert near(trunk.decode(trunk.prefill(seen), asked[2])[0], said[2])
    assert not near(said[1][:, -1], trunk(seen, [asked[1].flip(1)], [True])[0][:, 0])


@pytest.mark.parametrize("name", TRUNKS)
def test_a_remembered_state_can_be_reordered(name: str) -> None:
    trunk, (asked, _) = trunk_of(name), asked_of()
    seen, rows = seen_of(COLUMNS), torch.tensor([3, 3, 0, 1, 2])
    seen["a"][1][1] = False
    _, state = trunk.decode(trunk.prefill(seen), asked[1][:, :1])
    straight, _ = trunk.decode(state, asked[1][:, 1:2])
    turned, _ = trunk.decode(trunk.reorder(state, rows), asked[1][rows, 1:2])
    assert near(turned, straight[rows])


@pytest.mark.parametrize("name", TRUNKS)
def test_gradients_reach_every_weight_of_a_trunk(name: str) -> None:
    trunk, (asked, causal) = trunk_of(name).train(), asked_of()
    sum(s.square().sum() for s in trunk(seen_of(["a", "b"]), asked, causal)).backward()
    missing = [key for key, p in trunk.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not missing


# --- objectives -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(fitted: Any, tiny: pa.Table) -> tuple[Any, dict[str, list[Any]]]:
    """A network that may be changed, and the prepared cells of 16 rows."""
    rows = fitted.rows(tiny.slice(0, 16))
    return copy.deepcopy(fitted.network).train(), rows.cells


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_gives_finite_losses_that_reach_the_network(name: str, trained: Any) -> None:
    network, cells = trained
    objective = find(Objective, name)()
    batch = collate(network.modalities, cells, 16)
    every = torch.arange(16)
    plans = [Plan(every[:8], ("picture", "name"), ("colour", "width")), Plan(every[8:], ("tone",), ("name", "day"))]
    losses = objective(network(batch, plans))
    assert losses and all(isinstance(key, str) and v.ndim == 0 and torch.isfinite(v) for key, v in losses.items())
    sum(losses.values()).backward()
    reached = [p for p in (*network.parameters(), *objective.parameters()) if p.grad is not None and p.grad.any()]
    assert reached and all(torch.isfinite(p.grad).all() for p in reached)
    assert all(p.grad is not None for p in objective.parameters())
    network.zero_grad()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_bears_empty_and_lonely_batches(name: str, trained: Any) -> None:
    network, cells = trained
    objective = find(Objective, name)()
    for rows, columns in ((1, list(cells)), (3, ["colour"]), (3, []), (16, ["picture"]), (2, ["picture", "tone"])):
        batch = collate(network.modalities, {c: cells[c][:rows] for c in columns}, rows)
        plans = [
            Plan(torch.arange(rows), ("picture", "colour"), ("name", "width")),
            Plan(torch.arange(rows), (), ("colour",)),
        ]
        assert all(torch.isfinite(loss) for loss in objective(network(batch, plans)).values())


def test_tokens_are_hidden_in_training_alone_and_never_all() -> None:
    from sensorium.network.encoding import drop_tokens

    torch.manual_seed(0)
    mask = torch.rand(2000, 9) < 0.7
    kept = drop_tokens(mask, 0.4)
    assert not (kept & ~mask).any() and torch.equal(kept.any(1), mask.any(1))
    assert 0.55 < float(kept.sum() / mask.sum()) < 0.68


def test_restyled_maps_differ_by_row_and_channel_only() -> None:
    from sensorium.modalities._stems.image import restyled
    from sensorium.modalities.image import Image

    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    y = restyled(x, 0.3)
    scale = (y - y.mean((2, 3), keepdim=True)) / (x - x.mean((2, 3), keepdim=True))
    assert torch.allclose(scale, scale[..., :1, :1].expand_as(scale), atol=0.02) and scale[..., 0, 0].std() > 0.1
    cells = {"pixels": torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)}
    stem = Image(size=32, restyle=0.5).stem(32)
    assert not torch.equal(stem(cells)[0], stem(cells)[0])
    stem.eval()
    assert torch.equal(stem(cells)[0], stem(cells)[0])
