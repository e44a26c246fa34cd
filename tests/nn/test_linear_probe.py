"""Linear probes: they say what remembered rows would say, and hold none of them."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from sensorium.nn.linear_probe import MIN_ROWS, LinearProbes, classes, probes
from sensorium.nn.row_memory import RowMemory


def unit(rows: int, size: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def memory() -> RowMemory:
    """Rows of three kinds: what they say follows from what they show; a fourth kind has too few."""
    kind = torch.arange(200) % 3 + 1
    kind[:4] = 4
    a, b = (F.normalize(unit(5, 16, seed)[kind] + 0.5 * unit(200, 16, seed + 10), dim=1) for seed in (0, 1))
    b[5] = 0
    told = {
        "kind": (kind.unsqueeze(1), torch.arange(200) != 7),
        "size": (
            kind.float().view(-1, 1, 1) * 10 + torch.linspace(0, 1, 200).view(-1, 1, 1),
            torch.ones(200, dtype=torch.bool),
        ),
    }
    return RowMemory(
        {"a": a, "b": b},
        20.0,
        0.5,
        {"b": unit(200, 30, 7)},
        0.5,
        told,
        {"kind": 0.75, "size": 0.5},
        {"kind": ["a", "b"], "size": ["a"]},
        {"size": [[0.5]]},
    )


def test_probes_say_what_the_rows_say(memory: RowMemory) -> None:
    learned = probes(memory)
    seen = {
        column: (known.float(), memory.present[number])
        for number, (column, known) in enumerate(zip(memory.columns, memory.known, strict=True))
    }
    said, kind = learned.answer("kind", seen), memory.targets()["kind"][0].flatten()
    assert (
        said.share == 0.75 and said.margin is None and said.targets.flatten().tolist() == [1, 2, 3]
    )  # four rows are too few for a class
    assert (
        torch.allclose(said.weights.sum(1), torch.ones(200), atol=1e-5)
        and (said.targets.flatten()[said.weights.argmax(1)] == kind)[4:].float().mean() > 0.95
    )
    alone = learned.answer("kind", {"a": seen["a"], "c": seen["a"]})
    assert (alone.targets.flatten()[alone.weights.argmax(1)] == kind)[4:].float().mean() > 0.9
    size = learned.answer("size", seen)
    assert (
        size.margin.tolist() == [[0.5]]
        and size.targets.shape[1:] == (1, 1)
        and abs((size.weights @ size.targets.flatten() - memory.targets()["size"][0].flatten())[4:]).mean() < 3
    )
    nobody = (seen["a"][0][:3], torch.tensor([True, False, True]))
    assert learned.answer("kind", {"a": nobody}).weights.sum(1).tolist() == pytest.approx([1, 0, 1])
    assert (
        learned.answer("kind", {})
        is learned.answer("other", seen)
        is learned.answer("kind", seen, 0.0)
        is learned.answer("size", {"b": seen["b"]})
        is None
    )
    gist, sketch = unit(6, 16, 3), unit(6, 30, 4)
    sketch[2] = 0
    assert (
        not torch.allclose(learned("b", gist, sketch), learned("b", gist))
        and torch.allclose(learned("b", gist, sketch)[2], learned("b", gist)[2])
        and learned("c", gist) is gist
    )
    assert torch.allclose(learned("b", gist, sketch).norm(dim=1), torch.ones(6), atol=1e-5)
    others = F.normalize(memory.known[1].float()[20:], dim=1)
    assert (learned("a", seen["a"][0][20:]) * others).sum(1).mean() > (seen["a"][0][20:] * others).sum(
        1
    ).mean() + 0.1  # a gist leans towards what its row holds elsewhere
    again = probes(memory)
    assert all(torch.equal(value, again.tensors()[name]) for name, value in learned.tensors().items())
    back = LinearProbes.of(learned.tensors(), json.loads(json.dumps(learned.described())))
    assert torch.equal(back.answer("kind", seen).weights, said.weights) and torch.equal(
        back("b", gist, sketch), learned("b", gist, sketch)
    )


def test_probes_are_learned_of_what_counts_alone(memory: RowMemory) -> None:
    memory.strength = memory.trust = 0.0
    memory.shares = {"kind": 0.5}
    learned = probes(memory)
    assert {name.split(".")[0] for name in learned.tensors()} == {"weight", "bias", "tokens"}
    assert learned.asked_columns == ["kind"]
    memory.shares = {}
    assert probes(memory) is None


def test_no_class_and_no_range_is_of_fewer_rows() -> None:
    have = torch.ones(100, dtype=torch.bool)
    ids = torch.tensor([1] * 60 + [2] * 36 + [3] * 4).unsqueeze(1)
    labels, said = classes(ids, have, MIN_ROWS)
    assert said.flatten().tolist() == [1, 2] and (labels == -1).sum() == 4
    for values in (
        torch.arange(100.0),
        torch.tensor([0.0] * 90 + [1.0] * 6 + [2.0] * 4),
        torch.rand(100, generator=torch.Generator().manual_seed(0)),
    ):
        labels, said = classes(values.view(-1, 1, 1), have, MIN_ROWS)
        counts = torch.bincount(labels)
        assert len(counts) == len(said) <= 16 and (counts >= MIN_ROWS).all()
        assert torch.allclose(
            said.flatten(), torch.stack([values[labels == number].mean() for number in range(len(said))]), atol=1e-5
        )
    assert not len(classes(torch.arange(4.0).view(-1, 1, 1), have[:4], MIN_ROWS)[1])
