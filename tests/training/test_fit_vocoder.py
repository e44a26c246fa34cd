"""What finishes drawn cells: learned when a run has ended, kept where it is nearer than its stand-in, and kept with the
model.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import tiny_table

from sensorium.core.errors import UserError
from sensorium.model import Model
from sensorium.nn.vocoder import Vocoder
from sensorium.training.fit_vocoder import VocoderTrainer

SETTINGS = [
    "questions.generate=tone",
    "generator.flow.depth=1",
    "data.validation=0.3",
    "finish.share=2",
    "finish.batch=4",
]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The vocoder is as far away as the list's first number says, and its stand-in as far as the second."""
    found = [1.0, 2.0]
    monkeypatch.setattr(Vocoder, "compare", lambda self, read: tuple(found))
    return found


def test_a_vocoder_that_is_nearer_is_asked_and_kept(
    quick_fit: Callable[..., Any], judged: list[float], tmp_path: Path
) -> None:
    model = quick_fit(tiny_table(40), *SETTINGS, epochs=2)
    facts = model.facts["finished"]["tone"]
    assert (
        facts["kept"]
        and facts["steps"] == 2 * model.facts["steps"]
        and facts["away"] == 1.0
        and facts["plain_away"] == 2.0
    )
    row = tiny_table(1)
    drawn = model.generate(row, "tone", steps=2)[0]
    wave, rate = soundfile.read(io.BytesIO(drawn))
    assert rate == 16_000 and np.isfinite(wave).all()
    again = Model.load(model.save(tmp_path / "kept"))
    assert again.generate(row, "tone", steps=2)[0] == drawn
    again.network.remove_refiner("tone")
    assert again.generate(row, "tone", steps=2)[0] != drawn, "Griffin–Lim makes another sound"
    assert not list(model.folder.glob("checkpoints/finish-*"))
    assert Model.load(again.save(tmp_path / "without")).network.modalities["tone"].refiner is None


def test_one_that_is_not_nearer_is_done_without(quick_fit: Callable[..., Any], judged: list[float]) -> None:
    judged[:] = [2.0, 1.0]
    model = quick_fit(tiny_table(40), *SETTINGS, epochs=1)
    assert not model.facts["finished"]["tone"]["kept"] and model.network.modalities["tone"].refiner is None
    assert not any("finishers" in name for name in model.network.state_dict())
    assert Model.load(model.folder).network.modalities["tone"].refiner is None


def test_without_time_there_is_none(quick_fit: Callable[..., Any], judged: list[float]) -> None:
    model = quick_fit(tiny_table(40), *SETTINGS, "finish.share=0", epochs=1)
    assert "finished" not in model.facts and model.network.modalities["tone"].refiner is None


def test_without_judges_there_is_none(
    quick_fit: Callable[..., Any], judged: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorium.training.fit_vocoder.MIN_CELLS", 30)
    model = quick_fit(tiny_table(40), *SETTINGS, epochs=1)
    assert "finished" not in model.facts and model.network.modalities["tone"].refiner is None


def test_settings_are_checked_before_long_work(quick_fit: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="shar.*share"):
        quick_fit(tiny_table(20), "finish.shar=1")


def test_one_that_was_interrupted_is_gone_on_with(
    quick_fit: Callable[..., Any], judged: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = VocoderTrainer.run

    def ended(self: Any, log: Any) -> Any:
        at = run(self, log)
        at.stopped = True
        return at

    with monkeypatch.context() as patch:
        patch.setattr(VocoderTrainer, "finished", lambda self: self.at.step == 3)
        patch.setattr(VocoderTrainer, "run", ended)
        model = quick_fit(tiny_table(40), *SETTINGS, epochs=2, out=tmp_path / "part")
    assert model.facts["stopped"] and model.network.modalities["tone"].refiner is None
    again = quick_fit(tiny_table(40), *SETTINGS, epochs=2, out=tmp_path / "part", resume=True)
    straight = quick_fit(tiny_table(40), *SETTINGS, epochs=2, out=tmp_path / "whole")
    assert again.facts["finished"]["tone"]["kept"] and not again.facts["stopped"]
    row = tiny_table(1)
    assert again.generate(row, "tone", steps=2) == straight.generate(row, "tone", steps=2)


def test_a_silent_sound_has_samples(quick_fit: Callable[..., Any], judged: list[float]) -> None:
    model = quick_fit(tiny_table(40), *SETTINGS, epochs=1)
    modality = model.network.modalities["tone"]
    tokens = modality.tokens()
    silent = modality.decode(np.full((tokens.length, tokens.width), -1.0, np.float32))
    assert len(modality.read(silent))
