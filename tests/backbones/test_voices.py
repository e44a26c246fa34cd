"""Voices are heard in the stretches, at the loudness and in the bands that their encoder was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import twin

from sensorium.backbones import MOMENTS, _packages
from sensorium.backbones._open import located, open_backbone
from sensorium.backbones.ge2e import HOP, MELS, QUIET, RATE, STRETCH, SpeakerEncoder, from_resemblyzer, stretches
from sensorium.core.errors import UserError

librosa = pytest.importorskip("librosa")


def wave(seconds: float, loud: float = 0.1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, loud, round(RATE * seconds)).astype(np.float32)


@pytest.mark.filterwarnings("ignore")  # librosa's own
@pytest.mark.parametrize(
    ("seconds", "starts"),
    [(0.5, [0]), (1.6, [0]), (1.9, [0]), (2.0, [0, 77]), (2.4, [0, 77]), (4.0, [0, 77, 154, 231])],
)
def test_stretches_are_librosas_bands_of_what_is_loud_enough(seconds: float, starts: list[int]) -> None:
    for loud in (0.2, 0.001):
        given = wave(seconds, loud)
        found = stretches(torch.from_numpy(given))
        assert found.shape == (len(starts), STRETCH, MELS)
        given = given * max(1.0, QUIET / np.sqrt(np.mean(np.square(given))))
        given = np.pad(given, (0, max(0, (starts[-1] + STRETCH) * HOP - len(given))))
        bands = librosa.feature.melspectrogram(y=given, sr=RATE, n_fft=400, hop_length=HOP, n_mels=MELS).T
        for part, start in zip(found.numpy(), starts, strict=True):
            assert np.allclose(part, bands[start : start + STRETCH], rtol=1e-3, atol=1e-6)
    assert torch.isfinite(stretches(torch.zeros(8000))).all()


def test_a_sound_is_the_mean_of_its_stretches_as_a_unit_vector(tmp_path: Path) -> None:
    backbone = open_backbone(str(twin("voices", tmp_path)), "audio")
    long = wave(60)
    (found,) = backbone.encode([long])
    with torch.inference_mode():
        each = backbone.model(stretches(torch.from_numpy(long)))
    whole = each.mean(0) / each.mean(0).norm()
    assert (
        len(found) == 1 + MOMENTS
        and np.allclose(found[0], whole.numpy(), atol=1e-5)
        and np.allclose(each.norm(dim=1), 1, atol=1e-5)
    )
    with pytest.raises(UserError, match="encoder of voices; the column holds text"):
        open_backbone(str(twin("voices", tmp_path)), "text")


def test_the_packages_weights_are_read_as_plain_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    made, folder = SpeakerEncoder(), tmp_path / _packages.SPEAKERS
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('it is never run')")
    torch.save(
        {"step": 1, "model_state": {**made.state_dict(), "similarity_weight": torch.ones(1)}, "optimizer_state": {}},
        folder / "pretrained.pt",
    )
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    path = located("package:resemblyzer")
    backbone = open_backbone("package:resemblyzer", "audio")
    assert (
        sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]
        and backbone.width == 256
        and backbone.rate == RATE
    )
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in backbone.model.state_dict().items())
    for name, kept in (
        ("less", {"model_state": {}}),
        ("other", {"model_state": {name: value[:1] for name, value in made.state_dict().items()}}),
        ("none", [1]),
    ):
        torch.save(kept, tmp_path / f"{name}.pt")
        with pytest.raises(UserError, match="other weights"):
            from_resemblyzer(tmp_path / f"{name}.pt", tmp_path / "nothing")
    (tmp_path / "broken.pt").write_bytes(b"x")
    with pytest.raises(UserError, match="other weights"):
        from_resemblyzer(tmp_path / "broken.pt", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
