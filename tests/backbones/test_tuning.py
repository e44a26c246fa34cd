"""Encoders that are learned further: they begin as they were, learn what they are told to and nothing else, and are
kept by what was learned.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, tiny_table
from safetensors.torch import load_file
from test_backbones import CASES, cells
from tiny_models import twin

from sensorium.backbones._open import open_backbone
from sensorium.backbones._tuning import Tuning, everywhere
from sensorium.core.errors import UserError
from sensorium.modalities._stems.encoder import TunedFeatures
from sensorium.model import Model
from sensorium.network.dialogue import DialogueHead
from sensorium.training.optimizer import Optimizer

WAYS = ("lora", "dora", "rslora", "bias", "last:1", "full")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("twins")


def stem_of(
    name: str, kind: str, folder: Path, tune: str, laid: int = 0
) -> tuple[TunedFeatures, dict[str, torch.Tensor], list[np.ndarray]]:
    encoder = open_backbone(str(twin(name, folder)), kind)
    given = [encoder.picture(cell) for cell in cells(kind)] if kind == "image" else cells(kind)
    torch.manual_seed(0)
    return TunedFeatures(encoder, Tuning(tune, rank=4), 24, 80, 0.0, laid), encoder.batch(given), encoder.encode(given)


@pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{name}-{kind}" for name, kind in CASES])
def test_it_begins_as_the_encoder_was_and_learns(name: str, kind: str, folder: Path) -> None:
    stem, batch, before = stem_of(name, kind, folder, "lora")
    stem.train()
    found = stem.features(batch)
    for tokens, there, own in zip(found["features"], found["there"], before, strict=True):
        assert torch.allclose(tokens[there], torch.from_numpy(own), atol=2e-5) and not tokens[~there].any()
    other = copy.deepcopy(stem.encoder[0].model.state_dict())
    optimizer = torch.optim.SGD(stem.learned.values(), lr=1.0)
    for _ in range(
        2
    ):  # the second factor of an update begins at zero, so the first one has no gradient in the first step
        optimizer.zero_grad()
        stem.features(batch)["features"].sin().mean().backward()
        assert sum(p.grad is not None for p in stem.learned.values()) > 0.7 * len(
            stem.learned
        )  # some have heads that nobody asks
        optimizer.step()
    assert not torch.allclose(stem.features(batch)["features"], found["features"], atol=1e-5)
    assert all(
        torch.equal(value, other[key]) for key, value in stem.encoder[0].model.state_dict().items()
    )  # others that stand on it have it as it was


@pytest.mark.parametrize("tune", WAYS)
@pytest.mark.parametrize(("name", "kind"), [("bert", "text"), ("timm-cnn", "image"), ("wav2vec2", "audio")])
def test_only_what_was_to_be_learned_is(name: str, kind: str, tune: str, folder: Path) -> None:
    stem, batch, _ = stem_of(name, kind, folder, tune)
    every = dict(stem.wrapped[0].named_parameters())
    learned = {key.replace("/", ".") for key in stem.learned}
    match tune:
        case "full":
            assert learned == set(every)
        case "bias":
            assert learned and all(key.endswith("bias") or every[key].ndim == 1 for key in learned)
        case "last:1":
            assert 0 < sum(every[key].numel() for key in learned) < sum(p.numel() for p in every.values())
        case _:
            assert (
                learned
                and all("lora_" in key for key in learned)
                and any("magnitude" in key for key in learned) == (tune == "dora")
            )
    assert {key.removeprefix("learned.") for key in stem.state_dict() if key.startswith("learned.")} == set(
        stem.learned
    ) and not any("held" in key for key in stem.state_dict())
    groups = Optimizer([stem], name="adamw", lr=1.0)
    groups.step(0.5)
    assert any(
        group["lr"] == pytest.approx(0.5 * Tuning.RATES[Tuning(tune).kind])
        and len(group["params"]) == len(stem.learned)
        for part in groups.parts
        for group in part.param_groups
    )
    kept, norms = (
        {key: value.clone() for key, value in every.items()},
        {key: value.clone() for key, value in stem.wrapped[0].named_buffers()},
    )
    stem.train()
    stem.features(batch)["features"].square().mean().backward()
    with torch.no_grad():
        for p in every.values():
            if p.grad is not None:
                p.add_(p.grad.sign(), alpha=-0.01)
    changed = {key for key, value in every.items() if not torch.equal(value, kept[key])}
    assert changed and changed <= learned
    assert all(
        torch.equal(value, norms[key]) for key, value in stem.wrapped[0].named_buffers()
    )  # what a norm counted stays


COLUMNS = {"picture": ("timm-cnn", "lora"), "name": ("bert", "last:1"), "tone": ("wav2vec2", "bias")}


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    settings = [*TINY, "train.ema_decay=0.9", "data.entity_key=colour"]
    settings += [
        f"column.{column}.{key}"
        for column, (name, tune) in COLUMNS.items()
        for key in (f"backbone={twin(name, folder)}", f"tune={tune}", "rank=4")
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
        return Model.fit(tiny_table(80), out=tmp_path_factory.mktemp("run"), epochs=3, settings=settings, seed=1)


def test_a_model_on_them_learns_is_kept_and_answers_the_same(model: Model, folder: Path, tmp_path: Path) -> None:
    rows = tiny_table(12, seed=5)
    for column in COLUMNS:
        stem = model.network.stems[model.network.stem_key[column]]
        before = dict(stem.encoder[0].model.named_parameters())
        moved = [
            not torch.equal(value, before.get(key.replace("/", "."), torch.zeros_like(value)))
            for key, value in stem.learned.items()
            if "lora_A" not in key
        ]
        assert sum(moved) > 0.7 * len(moved), (column, moved)
    vectors = model.embed(rows, list(COLUMNS))
    other = Model.load(model.save(tmp_path / "kept"))
    assert np.allclose(other.embed(rows, list(COLUMNS)), vectors, atol=1e-5)
    assert (
        other.predict(rows, "colour").column("value").to_pylist()
        == model.predict(rows, "colour").column("value").to_pylist()
    )
    alone = model.save_pretrained(tmp_path / "given")
    (folder / "bert").rename(folder / "away")
    try:
        assert np.allclose(Model.load(alone).embed(rows, list(COLUMNS)), vectors, atol=1e-5)
    finally:
        (folder / "away").rename(folder / "bert")
    sizes = {
        key: value.numel() for key, value in load_file(model.folder / "model.safetensors").items() if ".learned." in key
    }
    assert sizes and not any("held" in key for key in sizes)


def test_a_run_that_was_cut_goes_on_to_the_same_numbers(
    folder: Path, tmp_path: Path, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [
        *TINY,
        f"column.picture.backbone={twin('timm-cnn', folder)}",
        "column.picture.tune=lora",
        "train.ema_decay=0.9",
        "train.checkpoint_steps=3",
    ]
    whole = Model.fit(tiny_table(60), out=tmp_path / "whole", epochs=2, settings=settings, seed=2)
    step, count = Optimizer.step, iter(range(100))

    def stop(self: Optimizer, share: float) -> None:
        step(self, share)
        if next(count) == 4:
            raise RuntimeError("cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="cut"):
        patch.setattr(Optimizer, "step", stop)
        Model.fit(tiny_table(60), out=tmp_path / "cut", epochs=2, settings=settings, seed=2)
    again = Model.fit(tiny_table(60), out=tmp_path / "cut", epochs=2, settings=settings, seed=2, resume=True)
    wanted = whole.network.state_dict()
    assert any(".learned." in key for key in wanted) and all(
        torch.equal(value, wanted[key]) for key, value in again.network.state_dict().items()
    )


def test_why_it_answered_so_is_told_of_their_parts(model: Model) -> None:
    rows = tiny_table(2, gaps=0.0)
    why = model.explain(rows, "colour", seen=["picture", "name"], inside="occlusion")[0]
    assert len(why.parts["picture"][0]) == 36 and all(np.isfinite(worse).all() for _, worse in why.parts.values())
    assert np.isfinite(model.explain(rows, "colour", seen=["picture"], inside="gradients")[0].parts["picture"][1]).all()
    with pytest.raises(UserError, match="learned further"):
        model.explain(rows, "colour", seen=["picture", "name"], inside="gradients")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["column.picture.tune=half"], "column.picture.tune=half isn't known. Possible: frozen, lora"),
        (["column.picture.tune=last"], "last:N"),
        (["column.picture.tune=last:0"], "last:N"),
    ],
)
def test_ways_that_there_are_not_are_refused(settings: list[str], words: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        Model.fit(
            tiny_table(20),
            out=tmp_path / "run",
            epochs=1,
            settings=[*TINY, f"column.picture.backbone={twin('timm-cnn', folder)}", *settings],
        )
    assert not (tmp_path / "run" / "model.json").exists()
    with pytest.raises(UserError, match="none is named: column.picture.backbone=FOLDER"):
        Model.fit(tiny_table(20), out=tmp_path / "run", epochs=1, settings=[*TINY, "column.picture.tune=lora"])


def test_one_word_tunes_all_that_is_pretrained() -> None:
    given: dict[str, Any] = {
        "column": {"photo": {"backbone": "a"}, "notes": {"backbone": "b", "tune": "bias"}, "age": {"kind": "number"}},
        "trunk": {"": "causal_lm", "path": "c"},
    }
    found = everywhere(given, "lora")
    assert found["column"] == {
        "photo": {"backbone": "a", "tune": "lora"},
        "notes": {"backbone": "b", "tune": "bias"},
        "age": {"kind": "number"},
    }
    assert found["trunk"] == {"": "causal_lm", "path": "c", "tune": "lora"}
    with pytest.raises(UserError, match="nothing stands on a pretrained model"):
        everywhere({"column": {"age": {"kind": "number"}}}, "lora")
    with pytest.raises(UserError, match="isn't known"):
        everywhere(given, "much")


def test_cells_that_are_looked_up_too_go_through_the_encoder_once(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, key = model.network, model.network.stem_key["picture"]
    encoder, seen = network.stems[key].encoder[0], []
    tokens = encoder.tokens
    monkeypatch.setattr(encoder, "tokens", lambda batch, own: seen.append(len(batch["pixels"])) or tokens(batch, own))
    dialogue = DialogueHead({}, {}, network.stems, network.trunk, network.gist_size)
    dialogue.online_memories[key] = torch.nn.Identity()
    monkeypatch.setattr(network, "dialogue", dialogue)
    found = model.rows(tiny_table(6, gaps=0.0), ["picture"]).encoded("picture")
    assert seen == [6] and found.similarity.shape == (6, network.stems[key].similarity_size)
