"""Trackers of other packages: what is given to them, and what is said where one isn't installed.

Stand-ins take the place of the packages, so that what reaches them can be seen.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sensorium.core.errors import UserError
from sensorium.training.trackers import make_trackers

VALUES = {"loss": 0.5, "match a>b": 1.5}


class Calls(list):
    """Stand-in of a package that keeps the calls of its functions."""

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Calls:
            self.append((name, args, options))
            return self

        return call

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, options) for called, args, options in self if called == name]


def test_wandb_stays_offline_and_gets_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setitem(sys.modules, "wandb", calls)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    [tracker] = make_trackers(["wandb"], tmp_path, {"train": {"lr": 0.1}})
    for step in range(3):
        tracker.log(step, VALUES)
    tracker.close()
    [(_, options)] = calls.of("init")
    assert options["mode"] == "offline" and options["dir"] == str(tmp_path) and options["config"]["train"]["lr"] == 0.1
    assert [options["step"] for _, options in calls.of("log")] == [0, 1, 2] and len(calls.of("finish")) == 1
    monkeypatch.setenv("WANDB_MODE", "online")
    make_trackers(["wandb"], tmp_path, {})
    assert calls.of("init")[-1][1]["mode"] == "online"


def test_mlflow_writes_to_the_run_and_gets_every_tenth_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setitem(sys.modules, "mlflow", calls)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    [tracker] = make_trackers(["mlflow"], tmp_path, {"train": {"lr": 0.1}})
    for step in range(21):
        tracker.log(step, VALUES)
    tracker.close()
    assert str(tmp_path) in calls.of("set_tracking_uri")[0][0][0]
    logged = calls.of("log_metrics")
    assert [options["step"] for _, options in logged] == [0, 10, 20]
    assert logged[0][0][0] == {"loss": 0.5, "match_a>b": 1.5} and len(calls.of("end_run")) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:elsewhere")
    make_trackers(["mlflow"], tmp_path, {})
    assert len(calls.of("set_tracking_uri")) == 1


def test_tensorboard_gets_every_tenth_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Calls()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=lambda folder: writer))
    [tracker] = make_trackers(["tensorboard"], tmp_path, {})
    for step in range(11):
        tracker.log(step, VALUES)
    tracker.close()
    assert [(*args, *options.values()) for args, options in writer.of("add_scalar")] == [
        ("loss", 0.5, 0),
        ("match/a>b", 1.5, 0),
        ("loss", 0.5, 10),
        ("match/a>b", 1.5, 10),
    ]
    assert len(writer.of("close")) == 1


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_says_what_to_install(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match="pip install"):
        make_trackers([name], tmp_path, {})
