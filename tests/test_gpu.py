"""On a GPU: learned there, stopped and gone on with, drawn from, searched, explained; and what it says is what the
processor says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY, drawing

from sensorium import Model
from sensorium.training.table_trainer import TableTrainer

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("no_report", "gpu")]
DRAWN = ["questions.generate=picture,tone,curve", "questions.generate_share=0.5"]


@pytest.fixture(scope="module")
def gpu() -> Iterator[None]:
    """Every command and call goes by the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENSORIUM_DEVICE", os.environ.get("SENSORIUM_DEVICE", "cuda"))  # or a stand-in
        yield


@pytest.fixture(scope="module")
def on_gpu(gpu: None, tiny: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that learned on the first GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
        return Model.fit(tiny, out=tmp_path_factory.mktemp("gpu"), epochs=3, settings=[*TINY, *DRAWN], seed=1)


def test_a_gpu_is_used_and_bf16_with_it(on_gpu: Any, tiny: pa.Table, tmp_path: Path) -> None:
    there = os.environ["SENSORIUM_DEVICE"]
    for model, device in (
        (on_gpu, there),
        (Model.load(on_gpu.folder), there),
        (Model.load(on_gpu.folder, "cpu"), "cpu"),
    ):
        assert {part.device.type for part in model.network.parameters()} == {device}
    settings = [one for one in TINY if "precision" not in one] + ["train.precision=bf16"] * (there != "cuda")
    fitted = Model.fit(tiny, out=tmp_path / "run", epochs=1, settings=settings)
    assert fitted.facts["precision"] == "bf16" and fitted.facts["skipped_steps"] == 0


def test_what_was_learned_there_says_the_same_on_the_processor(on_gpu: Any, tiny: pa.Table) -> None:
    here = Model.load(on_gpu.folder, "cpu")
    for columns in (["picture"], ["name"], ["tone"], ["curve"], None):
        np.testing.assert_allclose(on_gpu.embed(tiny, columns), here.embed(tiny, columns), atol=5e-3)
    ours, theirs = (model.predict(tiny, "colour", seen=["picture", "name"]) for model in (on_gpu, here))
    np.testing.assert_allclose(ours["probability"].to_numpy(), theirs["probability"].to_numpy(), atol=0.02)
    ours, theirs = (
        model.predict(tiny, "width", seen=["picture", "name"])["value"].to_numpy() for model in (on_gpu, here)
    )
    np.testing.assert_allclose(ours, theirs, atol=0.02 * np.ptp(theirs) + 1e-3)
    ours, theirs = (model.generate(tiny.slice(0, 9), "curve", seen=["name"], seed=3) for model in (on_gpu, here))
    for one, other in zip(ours, theirs, strict=True):  # the noise is the processor's on both
        np.testing.assert_allclose(*(np.array(cell, dtype=float) for cell in (one, other)), atol=0.1)


def test_a_seed_gives_the_same_cells_again(on_gpu: Any, tiny: pa.Table) -> None:
    for column in ("picture", "tone", "curve"):
        one, other = (on_gpu.generate(tiny.slice(0, 4), column, seen=["name"], seed=3) for _ in range(2))
        assert all(cell is not None for cell in one) and str(one) == str(other)


@pytest.mark.parametrize("generator", ["vae", "gan", "codes"])
def test_every_generator_learns_there(generator: str, tiny: pa.Table, tmp_path: Path) -> None:
    model = Model.fit(
        tiny, out=tmp_path / "run", epochs=2, settings=[*TINY, *DRAWN, f"questions.generator={generator}"]
    )
    assert all(cell is not None for cell in model.generate(tiny.slice(0, 3), "picture", seen=["name"]))


def test_latents_and_a_student_of_one_step(tiny: pa.Table, tmp_path: Path) -> None:
    model = Model.fit(tiny, out=tmp_path / "run", epochs=2, settings=[*TINY, *DRAWN, "generator.flow.latents=8"])
    student = model.distill(
        tiny, "picture", out=tmp_path / "student", epochs=1, settings=["distill.pairs=64", "distill.batch=16"]
    )
    assert all(
        cell is not None for cell in student.generate(tiny.slice(0, 3), "picture", seen=["name"], generator="onestep")
    )


def test_a_run_goes_on_to_the_same_numbers(tiny: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, learn = [*TINY, "train.checkpoint_steps=5"], TableTrainer.training_step
    Model.fit(tiny, out=tmp_path / "whole", epochs=4, settings=settings)

    def stopping(loop: TableTrainer, step: int, *work: Any) -> Any:
        if step == 12:
            raise KeyboardInterrupt
        return learn(loop, step, *work)

    monkeypatch.setattr(TableTrainer, "training_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        Model.fit(tiny, out=tmp_path / "cut", epochs=4, settings=settings)
    monkeypatch.setattr(TableTrainer, "training_step", learn)
    Model.fit(tiny, out=tmp_path / "cut", epochs=4, settings=settings, resume=True)
    ours, theirs = (Model.load(tmp_path / name).embed(tiny, ["picture"]) for name in ("whole", "cut"))
    np.testing.assert_allclose(ours, theirs, atol=5e-3)  # sums there are added in no fixed order


def test_finding_and_explaining(on_gpu: Any, tiny: pa.Table, tmp_path: Path) -> None:
    on_gpu.index(tiny, tmp_path / "index")
    assert on_gpu.search({"picture": drawing("red", "bar", 3)}, among=tiny, column="name", k=3).num_rows == 3
    assert all(on_gpu.explain(tiny.slice(0, 2), "colour"))
    assert on_gpu.explain(tiny.slice(0, 1), "picture", seen=["name"])[0]
