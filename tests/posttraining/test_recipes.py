"""A recipe of one's own is one class: post_train checks its settings, runs it and saves the model with its facts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_table

from sensorium.core.errors import UserError
from sensorium.core.registry import names
from sensorium.core.settings import grouped_arguments
from sensorium.data.table import Table
from sensorium.inference.trained import Trained
from sensorium.model import Model
from sensorium.posttraining import Recipe, RunOptions
from sensorium.posttraining._run import make_recipe
from sensorium.training.settings import PostTrainingSettings, TrainerSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShrinkSettings:
    """Settings of a recipe: a factor, and a trainer's."""

    factor: float = 0.5
    trainer: PostTrainingSettings = TrainerSettings(lr=0.25)


class Shrink(Recipe):
    """A recipe that scales the trunk."""

    section = "shrink"
    settings_class = ShrinkSettings

    def __init__(self, times: int = 1) -> None:
        self.times = times

    def run(
        self, trained: Trained, table: Table, folder: Path, settings: Mapping[str, Any], options: RunOptions
    ) -> dict[str, Any]:
        values = ShrinkSettings(**grouped_arguments(ShrinkSettings, settings))
        for parameter in trained.network.trunk.parameters():
            parameter.data.mul_(values.factor**self.times)
        return {"shrunk": {"rows": table.rows, "factor": values.factor, "lr": values.trainer.lr, **vars(options)}}

    def finish(self, trained: Trained, folder: Path) -> None:
        (folder / "shrunk.txt").touch()


def test_the_recipes_are_found_by_their_files() -> None:
    assert names(Recipe) == ["distill", "dpo", "grpo"]
    with pytest.raises(UserError, match="dpo"):
        make_recipe("dpi", {})
    with pytest.raises(UserError, match="takes the options: column; given were: none"):
        make_recipe("distill", {})
    with pytest.raises(UserError, match="takes the options: none; given were: column"):
        make_recipe("dpo", {"column": "picture"})


def test_a_recipe_is_run_and_the_model_is_saved(
    drawing_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorium.posttraining._run.find", lambda contract, name: Shrink)
    assert drawing_model.folder is not None
    model = Model.load(shutil.copytree(drawing_model.folder, tmp_path / "run"))
    before = [parameter.detach().clone() for parameter in model.network.trunk.parameters()]
    model.post_train("shrink", tiny_table(4), settings=["shrink.factor=0.25", "shrink.lr=0.5"], times=2, seed=3)
    known = json.loads((tmp_path / "run" / "model.json").read_text())["facts"]["shrunk"]
    assert known["factor"] == 0.25 and known["lr"] == 0.5 and known["rows"] == 4
    assert known["minutes"] == 10 and known["epochs"] is None and known["seed"] == 3 and not known["resume"]
    assert (tmp_path / "run" / "shrunk.txt").is_file()
    for now, old in zip(Model.load(tmp_path / "run").network.trunk.parameters(), before, strict=True):
        assert now.equal(old / 16)
    with pytest.raises(UserError, match="Did you mean 'factor'"):
        model.post_train("shrink", tiny_table(4), settings=["shrink.facto=1"])
    with pytest.raises(UserError, match="section 'shrink', as shrink.factor"):
        model.post_train("shrink", tiny_table(4), settings=["train.lr=1"])
