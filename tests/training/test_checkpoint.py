"""Checkpoints: whole or not there, any flipped byte found, a full disk told, and nothing of a file is ever run."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_table
from safetensors import SafetensorError

from sensorium.core.errors import UserError
from sensorium.model import Model
from sensorium.training import checkpoint

PLAIN = ["name", "colour", "width"]


def tensors(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "network": {"a.b": torch.full((3, 2), value), "half": torch.ones(2, dtype=torch.bfloat16),
        "count": torch.tensor(7)},
        "optimizer": {"a.b/step": torch.tensor(3.0), "turned": torch.arange(6.0).reshape(2, 3).T}, "ema": {},
    }  # fmt: skip


def two(folder: Path) -> Path:
    """A folder with the checkpoints of steps 10 and 20."""
    for step in (10, 20):
        checkpoint.write(folder, step, tensors(float(step)), {"progress": {"step": step}, "seed": 3})
    return folder


def step_of(folder: Path) -> tuple[int, list[str]]:
    groups, state, wrong = checkpoint.read(folder)
    assert groups["network"]["a.b"].eq(state["step"]).all()
    return state["step"], wrong


def test_what_is_written_is_read(tmp_path: Path) -> None:
    groups, state, wrong = checkpoint.read(two(tmp_path))
    assert state == {"progress": {"step": 20}, "seed": 3, "step": 20} and not wrong
    assert groups.keys() == tensors(20.0).keys()
    for name, group in tensors(20.0).items():
        assert groups[name].keys() == group.keys()
        assert all(torch.equal(groups[name][k], v) and groups[name][k].dtype == v.dtype for k, v in group.items())


def test_the_last_two_are_kept_and_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / ".writing-000000005").mkdir()
    (tmp_path / ".writing-000000005" / "network.safetensors").write_bytes(b"half")
    for step in (1, 2, 30, 100_000_000):
        checkpoint.write(tmp_path, step, tensors(float(step)), {})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000030", "step-100000000"]
    checkpoint.write(tmp_path, 100_000_000, tensors(1e8), {"again": True})
    assert checkpoint.read(tmp_path)[1]["again"]


FILES = ["network.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json", "sha256.json"]


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_byte_is_found_and_the_one_before_is_used(name: str, tmp_path: Path) -> None:
    path = two(tmp_path) / "step-000000020" / name
    whole = path.read_bytes()
    assert step_of(tmp_path) == (20, [])
    places = (
        range(len(whole)) if len(whole) < 400 else sorted({*range(0, len(whole), len(whole) // 60), 0, len(whole) - 1})
    )
    for place in places:
        for bit in (1, 128):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            step, wrong = step_of(tmp_path)
            assert step == 10 and len(wrong) == 1 and "step-000000020" in wrong[0]
    path.write_bytes(whole)
    assert step_of(tmp_path) == (20, [])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b""),
    lambda p: p.write_bytes(p.read_bytes()[:-1]),
                                    lambda p: p.write_bytes(p.read_bytes() + b"x"), lambda p: p.write_text("[]"),
                                    lambda p: p.write_text("3")],
                         ids=["gone", "empty", "cut", "longer", "a list", "a number"])  # fmt: skip
def test_a_damaged_file_is_found(name: str, damage: Callable[[Path], Any], tmp_path: Path) -> None:
    damage(two(tmp_path) / "step-000000020" / name)
    step, wrong = step_of(tmp_path)
    assert step == 10 and len(wrong) == 1


def test_without_any_whole_checkpoint_it_says_what_was_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none was found.*Start again without --resume"):
        checkpoint.read(tmp_path)
    two(tmp_path)
    for path in checkpoint.steps(tmp_path):
        (path / "state.json").write_text("{}")
    with pytest.raises(UserError, match=r"step-000000020.*SHA-256.*step-000000010"):
        checkpoint.read(tmp_path)


# --- a full disk ------------------------------------------------------------------------------------------------------


def full(*given: object, **named: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


REFUSALS = {
    "tensors": ("sensorium.training.checkpoint.save_file", full),
    "safetensors' own error": (
        "sensorium.training.checkpoint.save_file",
        lambda *given: (_ for _ in ()).throw(SafetensorError("I/O error: No space")),
    ),
    "text": ("pathlib.Path.write_text", full),
    "sync": ("os.fsync", full),
    "rename": ("pathlib.Path.rename", full),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(*REFUSALS[name])
        with pytest.raises(UserError, match=r"No space.*last complete checkpoint is '.*step-000000020'.*--resume"):
            checkpoint.write(tmp_path, 30, tensors(30.0), {})
        with pytest.raises(UserError, match="no complete checkpoint yet"):
            checkpoint.write(tmp_path / "new", 30, tensors(30.0), {})
    assert step_of(tmp_path) == (20, []) and not list(tmp_path.glob(".writing-*"))


@pytest.mark.usefixtures("no_report")
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(
    quick_fit: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tiny_table(50).select(PLAIN)
    given = [table, "train.checkpoint_steps=2"]
    quick_fit(*given, out=tmp_path / "whole", epochs=3)
    save, saved = checkpoint.save_file, []

    def filling(group: Any, path: Path) -> None:
        saved.append(path)
        if len(saved) > 12:
            full()
        save(group, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", filling)
        with pytest.raises(UserError, match="No space left"):
            quick_fit(*given, out=tmp_path / "full", epochs=3)
    assert checkpoint.read(tmp_path / "full" / "checkpoints")[1]["step"] == 4
    quick_fit(*given, out=tmp_path / "full", epochs=3, resume=True)
    assert (tmp_path / "full" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


@pytest.mark.usefixtures("no_report")
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(
    quick_fit: Callable[..., Model], tmp_path: Path
) -> None:
    table = tiny_table(50).select(PLAIN)
    quick_fit(table, "train.checkpoint_steps=2", epochs=3)
    whole = (tmp_path / "run" / "model.safetensors").read_bytes()
    last = checkpoint.steps(tmp_path / "run" / "checkpoints")[-1]
    raw = bytearray((last / "network.safetensors").read_bytes())
    raw[len(raw) // 2] ^= 1
    (last / "network.safetensors").write_bytes(bytes(raw))
    quick_fit(table, "train.checkpoint_steps=2", epochs=3, resume=True)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == whole


# --- no pickle --------------------------------------------------------------------------------------------------------

HEARD: list[str] = []
LISTENING: list[bool] = []


def hear(event: str, arguments: tuple[Any, ...]) -> None:
    """Every event by which a file could run something; a hook can't be taken away again, so it is switched."""
    if LISTENING and event in (
        "pickle.find_class",
        "marshal.loads",
        "os.system",
        "subprocess.Popen",
        "os.exec",
        "os.posix_spawn",
    ):
        HEARD.append(f"{event} {arguments!r}")


sys.addaudithook(hear)


@pytest.fixture
def heard() -> Iterator[list[str]]:
    HEARD.clear()
    LISTENING.append(True)
    yield HEARD
    LISTENING.clear()


class Poison:
    """Would leave a file behind if anything unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def poisons(path: Path) -> list[bytes]:
    """A pickle in the forms in which one travels: plain, torch's, NumPy's."""
    plain = pickle.dumps(Poison(path))
    torch_file, numpy_file = path.with_suffix(".pt"), path.with_suffix(".npy")
    torch.save({"a": Poison(path)}, torch_file)
    np.save(numpy_file, np.array([Poison(path)], dtype=object), allow_pickle=True)
    return [plain, torch_file.read_bytes(), numpy_file.read_bytes()]


def test_the_hook_would_hear_a_pickle(heard: list[str], tmp_path: Path) -> None:
    pickle.loads(poisons(tmp_path / "run")[0])
    assert any("pickle.find_class" in event for event in heard) and (tmp_path / "run").exists()


def test_loading_and_asking_unpickles_nothing(heard: list[str], fitted: Model) -> None:
    model = Model.load(fitted.folder)
    table = tiny_table(12)
    heard.clear()  # imports of modules may unmarshal code
    Model.load(fitted.folder)
    model.embed(table)
    model.predict(table, "colour")
    checkpoint.read(fitted.folder / "checkpoints")
    assert not heard


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "rows.npy"])
def test_a_poisoned_model_runs_nothing(name: str, heard: list[str], fitted: Model, tmp_path: Path) -> None:
    folder, table = tmp_path / "run", tiny_table(12)
    for poison in poisons(tmp_path / "poisoned"):
        shutil.copytree(fitted.folder, folder, dirs_exist_ok=True)
        (folder / name).write_bytes(poison)
        if name == "model.safetensors":  # even with a hash that fits
            described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            described["sha256"] = checkpoint.digest(folder / name)
            (folder / "model.json").write_text(json.dumps(described), encoding="utf-8")
        with pytest.raises(UserError):
            Model.load(folder).evaluate(table)
    assert not (tmp_path / "poisoned").exists() and not any("pickle" in event for event in heard)


@pytest.mark.parametrize("name", FILES)
def test_a_poisoned_checkpoint_runs_nothing(name: str, heard: list[str], tmp_path: Path) -> None:
    for poison in poisons(tmp_path / "poisoned"):
        folder = tmp_path / "checkpoints"
        shutil.rmtree(folder, ignore_errors=True)
        last = two(folder) / "step-000000020"
        (last / name).write_bytes(poison)
        hashes = {path.name: checkpoint.digest(path) for path in last.iterdir() if path.name != "sha256.json"}
        if name != "sha256.json":
            (last / "sha256.json").write_text(json.dumps(hashes))
        step, wrong = step_of(folder)
        assert step == 10 and len(wrong) == 1
    assert not (tmp_path / "poisoned").exists() and not any("pickle" in event for event in heard)
