"""A run that is stopped anywhere and goes on gives the numbers of a run that wasn't stopped, to the bit."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY, known_settings, tiny_table

from sensorium.core.errors import UserError
from sensorium.model import Model
from sensorium.training.metrics_log import MetricsLog

PLAIN = ["name", "colour", "width", "day"]
"""Columns whose steps take milliseconds."""


class Killed(BaseException):
    """The machine was switched off: nobody saves anything any more."""


def losses(folder: Path) -> list[dict[str, float]]:
    """What was written of each step, without what depends on the clock."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None] | None = None) -> None:
    """Let the next run be killed (or something else happen) once it has written its ``step``-th line."""
    write = MetricsLog.write

    def writing(self: MetricsLog, at: Any, values: dict[str, float]) -> None:
        write(self, at, values)
        if at.step == step:
            if act is None:
                raise Killed
            act()

    monkeypatch.setattr(MetricsLog, "write", writing)


def fit(table: pa.Table, folder: Path, *settings: str, resume: bool = False, epochs: float = 4, **more: Any) -> Model:
    given = [*known_settings(table), "train.checkpoint_steps=3", *settings]
    return Model.fit(table, out=folder, epochs=epochs, settings=given, resume=resume, seed=3, **more)


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    "settings",
    [
        ["train.optimizer=adamw", "train.accumulate=2", "train.ema_decay=0.9"],
        ["train.optimizer=sgd", "train.lr=0.01", "train.ema_decay=0.5"],
        ["train.optimizer=adafactor", "train.accumulate=2"],
        ["train.optimizer=muon", "train.accumulate=3"],
        ["train.batch=0", "trunk=late", "match.kind=siglip", "objectives=tell,match,autoencode"],
        ["train.precision=bf16", "trunk=concat"],
    ],
    ids=lambda settings: settings[0].rpartition(".")[2],
)
def test_a_killed_run_goes_on_to_the_same_numbers(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tiny_table(60).select(PLAIN)
    fit(table, tmp_path / "whole", *settings)
    wanted = losses(tmp_path / "whole")
    assert [line["step"] for line in wanted] == list(range(1, len(wanted) + 1)) and len(wanted) >= 10
    assert len({line.get("loss") for line in wanted}) == len(wanted)
    killed = tmp_path / "killed"
    for step in (1, 5, 11):  # before the first checkpoint, and twice after one
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, step)
            fit(table, killed, *settings, resume=step > 1)
        assert not (killed / "model.safetensors").exists()
    fit(table, killed, *settings, resume=True)
    assert losses(killed) == wanted
    assert weights(killed) == weights(tmp_path / "whole")


@pytest.mark.usefixtures("no_report")
def test_every_kind_of_column_goes_on_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tiny_table(40)
    fit(table, tmp_path / "whole", epochs=2)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 4)
        fit(table, tmp_path / "killed", epochs=2)
    fit(table, tmp_path / "killed", epochs=2, resume=True)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, before = tiny_table(60).select(PLAIN), signal.getsignal(number)
    never = "train.checkpoint_steps=1000"
    fit(table, tmp_path / "whole", never)
    with monkeypatch.context() as patch:
        kill_at(patch, 4, lambda: os.kill(os.getpid(), number))
        model = fit(table, tmp_path / "stopped", never)
    assert model.facts["stopped"] and model.facts["steps"] == 4 and signal.getsignal(number) is before
    assert Model.load(tmp_path / "stopped").facts["stopped"]
    model = fit(table, tmp_path / "stopped", never, resume=True)
    assert not model.facts["stopped"]
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


@pytest.mark.usefixtures("no_report")
def test_a_run_by_the_clock_goes_on_with_the_time_it_had_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tiny_table(40).select(["colour", "width"])
    given = [*known_settings(table), "train.checkpoint_steps=1"]
    with monkeypatch.context() as patch:
        kill_at(patch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        model = Model.fit(table, out=tmp_path, minutes=2 / 60, settings=given)
    first = model.facts["seconds"]
    assert model.facts["stopped"] and first < 2
    model = Model.fit(table, out=tmp_path, minutes=2 / 60, settings=given, resume=True)
    assert not model.facts["stopped"] and 2 <= model.facts["seconds"] < 4
    steps = [line["step"] for line in losses(tmp_path)]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.usefixtures("no_report")
def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    table = tiny_table(40).select(PLAIN)
    fit(table, tmp_path, "train.ema_decay=0.8")
    before, weight = losses(tmp_path), weights(tmp_path)
    fit(table, tmp_path, "train.ema_decay=0.8", resume=True)
    assert losses(tmp_path) == before and weights(tmp_path) == weight


@pytest.mark.usefixtures("no_report")
def test_a_run_is_only_resumed_as_it_was_begun(tmp_path: Path) -> None:
    table = tiny_table(40).select(PLAIN)
    with pytest.raises(UserError, match="no run in"):
        fit(table, tmp_path / "none", resume=True)
    fit(table, tmp_path, epochs=1)
    with pytest.raises(UserError, match="settings"):
        fit(table, tmp_path, "train.lr=0.1", resume=True)
    with pytest.raises(UserError, match="seed"):
        Model.fit(
            table,
            out=tmp_path,
            epochs=1,
            settings=[*known_settings(table), "train.checkpoint_steps=3"],
            seed=4,
            resume=True,
        )
    with pytest.raises(UserError, match="table"):
        fit(tiny_table(41, seed=9).select(PLAIN), tmp_path, epochs=1, resume=True)
    with pytest.raises(UserError, match=r"[Tt]he table"):
        fit(tiny_table(40, seed=9).select(PLAIN), tmp_path, epochs=1, resume=True)


@pytest.mark.usefixtures("no_report")
def test_a_new_run_in_an_old_folder_takes_nothing_from_it(tmp_path: Path) -> None:
    table = tiny_table(40).select(PLAIN)
    fit(table, tmp_path / "a", epochs=2)
    fit(table, tmp_path / "b", "train.lr=0.01", epochs=4)
    fit(table, tmp_path / "b", epochs=2)
    assert losses(tmp_path / "a") == losses(tmp_path / "b") and weights(tmp_path / "a") == weights(tmp_path / "b")


# --- real kills -------------------------------------------------------------------------------------------------------

COMMAND = [
    sys.executable,
    "-c",
    "import sensorium.fit.stages as f; f.report = lambda *a, **k: None; from sensorium.cli.main import main; main()",
]


def command(table: Path, out: Path, *more: str) -> list[str]:
    return [
        *COMMAND,
        "fit",
        str(table),
        *TINY,
        "train.checkpoint_steps=1",
        "--out",
        str(out),
        "--epochs",
        "20",
        "--seed",
        "5",
        *more,
    ]


KILLS = 4
"""Kills of one run; with three seeds a dozen."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kill_minus_nine_at_random_moments(seed: int, tmp_path: Path) -> None:
    """Every step writes a checkpoint, so that many of the kills fall into the writing of one."""
    table = tmp_path / "tiny.parquet"
    pq.write_table(tiny_table(48), table)
    subprocess.run(command(table, tmp_path / "whole"), check=True, capture_output=True, timeout=600)
    rng, killed = random.Random(seed), tmp_path / "killed"
    for _ in range(KILLS):
        with running(table, killed) as process:
            wait_for(killed / "checkpoints", process, rng)
            process.kill()
            words = process.communicate(timeout=600)[1].decode()
        assert process.returncode == -signal.SIGKILL, f"the run was over before it could be killed: {words}"
    with running(table, killed) as process:
        words = process.communicate(timeout=600)[1].decode()
    assert process.returncode == 0, words
    assert losses(killed) == losses(tmp_path / "whole")
    assert weights(killed) == weights(tmp_path / "whole")


def running(table: Path, out: Path) -> subprocess.Popen[bytes]:
    """The run, gone on with where it has begun."""
    given = command(table, out, *(["--resume"] if (out / "settings.json").exists() else []))
    return subprocess.Popen(given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(folder: Path, process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Until a random moment: before the first step, within a few steps, or while a checkpoint is being written.

    It goes by what the run has written, not by the clock: whatever the machine's speed, the run is still going.
    """

    def step() -> int:
        return max((int(path.name[5:]) for path in folder.glob("step-*")), default=0)

    before, wanted, writing = step(), rng.randint(1, 4), rng.random() < 0.6
    end = time.monotonic() + (rng.uniform(0.2, 3.0) if rng.random() < 0.3 else 300)
    while time.monotonic() < end and process.poll() is None:
        done = step() - before
        if done > wanted or (done == wanted and (not writing or any(folder.glob(".writing-*")))):
            break
        time.sleep(rng.uniform(0.0, 0.004))
    time.sleep(rng.uniform(0.0, 0.02))
