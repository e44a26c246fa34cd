"""A vocoder: as many samples as frames ask for, and nearer to tones than Griffin–Lim once it has learned them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sensorium.core.settings import build
from sensorium.nn.discriminator import adversarial_losses
from sensorium.nn.vocoder import Vocoder, around, spectral_distance
from sensorium.training.fit_vocoder import VocoderSettings, VocoderTrainer

RATE, HOP, MELS = 4000, 64, 16


def vocoder(width: int = 48, depth: int = 2) -> Vocoder:
    torch.manual_seed(0)
    return Vocoder(torch.from_numpy, RATE, MELS, HOP, width=width, depth=depth)


def tones(count: int, samples: int = 3000) -> list[np.ndarray]:
    """Hummed notes of a few pitches, each beginning anywhere."""
    t, lots = np.arange(samples) / RATE, np.random.default_rng(0)
    return [
        (0.2 * sum(np.sin(2 * np.pi * pitch * k * t + lots.uniform(0, 6)) / k for k in (1, 2, 3))).astype(np.float32)
        for pitch in lots.choice([220, 262, 330, 392], count)
    ]


@pytest.mark.parametrize("frames", [1, 2, 7, 40])
@pytest.mark.parametrize("hop", [64, 63])
def test_frames_give_their_samples(frames: int, hop: int) -> None:
    part = Vocoder(lambda cell: cell, RATE, MELS, hop, width=16, depth=1)
    made = part(torch.rand(2, frames, MELS))
    assert made.shape == (2, (frames - 1) * hop) and made.isfinite().all()


def test_a_row_does_not_hang_on_its_neighbours() -> None:
    part, mel = vocoder(), torch.rand(3, 20, MELS)
    with torch.no_grad():
        assert torch.allclose(part(mel)[1:2], part(mel[1:2]), atol=1e-6)


def test_a_neighbourhood_is_seven_frames() -> None:
    x = torch.arange(10.0).view(1, 10, 1)
    assert around(x)[0, 4, 0].tolist() == [1, 2, 3, 4, 5, 6, 7] and around(x)[0, 0, 0].tolist() == [0, 0, 0, 0, 1, 2, 3]


def test_sounds_are_as_far_apart_as_they_differ() -> None:
    one, other = (torch.from_numpy(np.stack(tones(2))) for _ in range(2))
    near, far = spectral_distance(0.9 * one, other), spectral_distance(one.flip(0), other)
    assert float(spectral_distance(one, other)) == 0 < float(near) < float(far)


def test_pieces_are_of_one_length_and_of_the_sound() -> None:
    part, lots = vocoder(), np.random.default_rng(1)
    long, short = np.arange(9000, dtype=np.float32), np.arange(5, dtype=np.float32)
    piece = part.piece(long, lots)
    assert len(piece) == len(part.piece(short, lots)) == 32 * HOP and (np.diff(piece) == 1).all()


def test_tones_are_learned_better_than_griffin_lim_makes_them(tmp_path: Path) -> None:
    part, cells = vocoder(), tones(16)
    before = np.mean([part.compare(cell) for cell in cells[:4]], 0)
    settings = build(VocoderSettings, {"share": 1.0, "lr": 0.01, "batch": 8}, "finish")
    course = VocoderTrainer(part, cells, tmp_path, 0, 160, "fp32", settings)
    course.run()
    ours, plain = np.mean([part.compare(cell) for cell in cells[:4]], 0)
    assert ours < 0.8 * before[0] and ours < plain == before[1]


def test_an_adversary_teaches_each_side_by_its_own_loss() -> None:
    class Ear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.weight).sum(-1, keepdim=True)

    ear, made, real = Ear(), torch.zeros(3, 4, requires_grad=True), torch.ones(3, 4)
    fooling, judging, slope = adversarial_losses(ear, real, made, 0.1 * torch.ones(3, 4))
    fooling.sum().backward()
    assert made.grad is not None and (made.grad < 0).all() and ear.weight.grad is None, (
        "what is made becomes more as the real is"
    )
    made.grad = None
    (judging.sum() + slope.sum()).backward()
    assert made.grad is None and ear.weight.grad is not None
    assert torch.allclose(slope, torch.full((3,), 2 * 0.4**2))


def test_what_was_computed_in_asking_serves_learning() -> None:
    from sensorium.nn.mel import from_log_mel, hann, mel_filters

    for kept in (hann, mel_filters):
        kept.cache_clear()
    with torch.inference_mode():
        from_log_mel(torch.zeros(4, MELS), rate=RATE, hop=HOP, window=2 * HOP, steps=1, pursuit=1)
    part = vocoder(16, 1)
    sum(
        part.losses(
            torch.from_numpy(np.stack([part.piece(tone, np.random.default_rng(0)) for tone in tones(4)]))
        ).values()
    ).backward()
    assert part.enter.weight.grad is not None
