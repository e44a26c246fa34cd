"""Log-mel against librosa; resampling against exact tones and scipy."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from sensorium.nn.mel import from_log_mel, log_mel, resample

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    librosa = pytest.importorskip("librosa")


@pytest.mark.parametrize(
    ("rate", "mels", "window", "hop", "low", "high"),
    [(16000, 48, 512, 256, 0, None), (22050, 80, 1024, 200, 20, 8000), (8000, 16, 256, 128, 0, None)],
)
@pytest.mark.parametrize("samples", [1, 300, 16000])
def test_log_mel_is_librosas(rate, mels, window, hop, low, high, samples):
    wave = np.random.default_rng(0).normal(size=samples).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa warns of clips shorter than a window.
        power = librosa.feature.melspectrogram(
            y=wave, sr=rate, n_fft=window, hop_length=hop, n_mels=mels, fmin=low, fmax=high, pad_mode="constant"
        )
    expected = np.log10(np.maximum(power, 1e-10)).T
    ours = log_mel(torch.from_numpy(wave), rate=rate, mels=mels, hop=hop, window=window, low=low, high=high)
    assert ours.shape == (1 + samples // hop, mels)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)


def test_log_mel_takes_batches_of_any_shape():
    waves = torch.randn(2, 3, 4000)
    settings = {"rate": 16000, "mels": 24, "hop": 128, "window": 256}
    together = log_mel(waves, **settings)
    assert together.shape == (2, 3, 32, 24)
    torch.testing.assert_close(together[1, 2], log_mel(waves[1, 2], **settings), atol=1e-4, rtol=1e-4)


def test_silence_is_the_floor():
    assert (log_mel(torch.zeros(1000), rate=16000, mels=24, hop=128, window=256) == -10).all()


@pytest.mark.parametrize("old", [8000, 11025, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("new", [16000, 22050])
def test_a_tone_stays_the_same_tone(old, new):
    def tones(rate: int, count: int) -> np.ndarray:
        t = np.arange(count) / rate
        return np.sin(2 * np.pi * 440 * t) + 0.3 * np.sin(2 * np.pi * 2900 * t + 1)

    ours = resample(torch.from_numpy(tones(old, old)).float(), old, new).numpy()
    assert len(ours) == new
    np.testing.assert_allclose(ours[500:-500], tones(new, new)[500:-500], atol=1e-4)


def test_resampling_agrees_with_scipy_below_the_filters_edge():
    signal = pytest.importorskip("scipy.signal")
    noise = np.random.default_rng(0).normal(size=44100)
    smooth = signal.sosfiltfilt(signal.butter(10, 5000, fs=44100, output="sos"), noise).copy()
    expected = signal.resample_poly(smooth, 160, 441, window=("kaiser", 12.0), padtype="constant")
    ours = resample(torch.from_numpy(smooth).float(), 44100, 16000).numpy()
    assert len(ours) == len(expected)
    assert np.abs(ours - expected)[200:-200].max() < 5e-3 * np.abs(expected).max()


def test_what_is_above_the_new_nyquist_is_gone():
    t = torch.arange(48000, dtype=torch.float64) / 48000
    above = resample(torch.sin(2 * math.pi * 11000 * t).float(), 48000, 16000)[200:-200]
    assert 20 * math.log10(above.abs().max()) < -80


@pytest.mark.parametrize("old", [44101, 16001, 399_999, 1009])
def test_odd_rates_cost_no_giant_filter(old):
    wave = resample(torch.ones(old), old, 16000)
    assert abs(len(wave) - 16000) <= 16
    assert (wave[1000:-1000] - 1).abs().max() < 1e-3


def test_the_same_rate_is_left_alone_and_batches_work():
    wave = torch.randn(2, 3, 100)
    assert resample(wave, 16000, 16000) is wave
    together = resample(wave, 8000, 16000)
    assert together.shape == (2, 3, 200)
    torch.testing.assert_close(together[1, 1], resample(wave[1, 1], 8000, 16000))


def test_a_sound_comes_back_from_its_bands() -> None:
    t = torch.arange(8000) / 16_000
    wave = 0.4 * torch.sin(2 * torch.pi * (300 + 900 * t) * t) + 0.2 * torch.sin(2 * torch.pi * 2500 * t) * (t > 0.2)
    how = {"rate": 16_000, "hop": 256, "window": 512}
    mel = log_mel(wave, mels=48, **how)
    again = from_log_mel(mel, **how)
    assert len(again) == (len(mel) - 1) * 256 and torch.equal(again, from_log_mel(mel, **how))
    found = log_mel(again, mels=48, **how)
    floor = mel.max() - 5  # 50 dB
    assert (mel.clamp(min=floor) - found.clamp(min=floor)).abs().mean() * 10 < 1.5
    assert torch.isfinite(from_log_mel(torch.full((1, 48), -10.0), **how)).all()
