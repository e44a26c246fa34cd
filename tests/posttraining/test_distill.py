"""A student that draws in one step: as near to its teacher as it can come, and all else as it was."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_table
from PIL import Image

import sensorium.posttraining.distill
from sensorium.core.errors import UserError
from sensorium.model import Model
from sensorium.posttraining.distill import student_of

FEW = ["distill.pairs=96", "distill.batch=8", "distill.steps=3", "distill.lr=0.005", "distill.warmup_steps=1"]


@pytest.fixture(scope="module")
def taught(drawing_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A copy of the drawing model, saved, whose pictures a student has learned."""
    model = Model.load(drawing_model.save(tmp_path_factory.mktemp("drawing")))
    return model.distill(tiny_table(40), "picture", epochs=12, settings=FEW)


def test_a_student_comes_nearer_than_the_teachers_first_guess(taught: Model) -> None:
    facts = taught.facts["distilled"]["picture"]
    assert facts["steps"] == 12 * 11 and facts["pairs"] == 88 and not facts["stopped"]
    assert facts["away"] < 0.7 * facts["teacher_away"]
    assert not list(taught.folder.glob("distill-*")), "nothing is left of the run"


def test_it_draws_cells_of_the_columns_kind_in_one_step_and_is_kept(taught: Model, tmp_path: Path) -> None:
    rows = tiny_table(3)
    drawn = taught.generate(rows, "picture", generator="onestep", seed=3)
    assert all(Image.open(io.BytesIO(cell)).size == (16, 16) for cell in drawn)
    assert (
        drawn
        == taught.generate(rows, "picture", generator="onestep", seed=3)
        != taught.generate(rows, "picture", generator="onestep", seed=4)
    )
    assert Model.load(taught.folder).generate(rows, "picture", generator="onestep", seed=3) == drawn
    assert (
        Model.load(taught.save(tmp_path / "elsewhere")).generate(rows, "picture", generator="onestep", seed=3) == drawn
    )
    with pytest.raises(UserError, match="steps"):
        taught.generate(rows, "picture", generator="onestep", steps=3)


def test_what_the_model_knew_stays_as_it_was(taught: Model, drawing_model: Model) -> None:
    rows = tiny_table(4)
    assert taught.generate(rows, "picture", steps=2) == drawing_model.generate(rows, "picture", steps=2), (
        "flow is asked where none is named"
    )
    assert (taught.embed(rows) == drawing_model.embed(rows)).all()
    assert taught.predict(rows, "colour").equals(drawing_model.predict(rows, "colour"))
    assert all(p.requires_grad for p in taught.network.parameters())


def test_a_student_begins_as_its_teachers_first_guess(drawing_model: Model) -> None:
    flow = drawing_model.network.generator("picture", "flow")
    student = student_of(flow)

    def trunk(tokens: torch.Tensor, start: int) -> torch.Tensor:
        return torch.tanh(tokens)

    one, other = (
        part.sample(trunk, 3, torch.device("cpu"), torch.Generator().manual_seed(0), **how).tokens
        for part, how in ((student, {}), (flow, {"steps": 1, "guidance": 1.0}))
    )
    assert torch.allclose(one, other, atol=1e-6)


def test_a_student_is_explained_by_its_teacher(taught: Model) -> None:
    rows = tiny_table(2)
    cells = taught.generate(rows, "picture", generator="onestep")
    one, other = (
        taught.explain(rows, "picture", cells, ["name"], generator=way)[0].shares for way in ("onestep", "flow")
    )
    assert one == other


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Lessons end at the step that the list names, as if someone had pressed Ctrl-C."""
    at = [5]
    over = sensorium.posttraining.distill.DistillationTrainer.finished
    monkeypatch.setattr(
        sensorium.posttraining.distill.DistillationTrainer, "finished", lambda self: over(self) or self.at.step == at[0]
    )
    run = sensorium.posttraining.distill.DistillationTrainer.run

    def ended(self: Any, log: Any) -> Any:
        result = run(self, log)
        result.stopped = not over(self)
        return result

    monkeypatch.setattr(sensorium.posttraining.distill.DistillationTrainer, "run", ended)
    yield at


def test_a_lesson_that_was_stopped_goes_on_to_the_same_numbers(
    drawing_model: Model, tmp_path: Path, stopped: list[int]
) -> None:
    def lesson(folder: str, resume: bool = False) -> Model:
        return Model.load(tmp_path / "teacher").distill(
            tiny_table(40), "picture", out=tmp_path / folder, epochs=1, settings=FEW, resume=resume
        )

    drawing_model.save(tmp_path / "teacher")
    part = lesson("part")
    assert part.facts["distilled"]["picture"]["stopped"] and part.facts["distilled"]["picture"]["steps"] == 5
    assert "onestep" in Model.load(tmp_path / "part").network.generator_keys["picture"], "the student is kept as it is"
    kept = next((tmp_path / "part").glob("distill-*"))
    assert len(list((kept / "pairs").glob("*.safetensors"))) == 12
    with pytest.raises(UserError, match="other column|other .*seed"):
        Model.load(tmp_path / "teacher").distill(
            tiny_table(40), "picture", out=tmp_path / "part", epochs=1, settings=FEW, resume=True, seed=1
        )
    other = Model.load(tmp_path / "teacher")
    other.network.conditioning.to_gist.bias.data += 1
    with pytest.raises(UserError, match="other teacher"):
        other.distill(tiny_table(40), "picture", out=tmp_path / "part", epochs=1, settings=FEW, resume=True)
    stopped[0] = -1
    again, whole = lesson("part", resume=True), lesson("whole")
    assert again.facts["distilled"]["picture"]["steps"] == 11 and not again.facts["distilled"]["picture"]["stopped"]
    for one, other in zip(
        again.network.generator("picture", "onestep").parameters(),
        whole.network.generator("picture", "onestep").parameters(),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_rows_that_the_teacher_fails_at_are_not_learned_from(
    drawing_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = sensorium.posttraining.distill.DistillationTrainer.pair

    def spoiled(self: Any, number: int) -> Any:
        noise, drawn = pair(self, number)
        drawn[1, 0, 0] = float("nan")
        return noise, drawn

    monkeypatch.setattr(sensorium.posttraining.distill.DistillationTrainer, "pair", spoiled)
    model = Model.load(drawing_model.save(tmp_path / "m")).distill(tiny_table(40), "picture", epochs=1, settings=FEW)
    assert all(p.isfinite().all() for p in model.network.generator("picture", "onestep").parameters())


def test_what_can_not_be_done_is_refused_before_long_work(drawing_model: Model, fitted: Model, tmp_path: Path) -> None:
    def refused(
        words: str, model: Model = drawing_model, column: str = "picture", table: Any = None, **how: Any
    ) -> None:
        with pytest.raises(UserError, match=words):
            model.distill(tiny_table(8) if table is None else table, column, **{"out": tmp_path / "x", **how})

    refused("not generated by flow.*picture", column="colour")
    refused("--generate picture", fitted)
    refused("pictur", column="pictur")
    refused("section 'distill'", settings=["train.lr=1"])
    refused("pairz", settings=["distill.pairz=8"])
    refused("distill.batch", settings=["distill.batch=0"])
    refused("--minutes", minutes=0)
    refused("no rows", table=tiny_table(0))
    refused("no stopped run", resume=True)
    refused("--seed -1", seed=-1)
    refused("distill.lr", settings=["distill.lr=-1"])


def test_a_fit_does_not_take_a_student_for_a_generator(quick_fit: Any) -> None:
    with pytest.raises(UserError, match="sensorium distill"):
        quick_fit(tiny_table(20), "questions.generate=picture", "questions.generator=flow,onestep")


def test_the_command_teaches_a_run(drawing_model: Model, tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    from typer.testing import CliRunner

    from sensorium.cli.main import app

    drawing_model.save(tmp_path / "run")
    pq.write_table(tiny_table(20), tmp_path / "t.parquet")
    said = CliRunner().invoke(
        app,
        ["distill", str(tmp_path / "run"), str(tmp_path / "t.parquet"), "--column", "picture", "--epochs", "1", *FEW],
    )
    assert said.exit_code == 0 and "--generator onestep" in said.output, said.output
    facts = json.loads((tmp_path / "run" / "model.json").read_text(encoding="utf-8"))["facts"]["distilled"]["picture"]
    assert facts["steps"] == 11
    shutil.rmtree(tmp_path / "run")
