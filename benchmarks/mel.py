"""Log-mel spectrograms of 10-second clips at 16 kHz against librosa: clips a second, and whether they are the same.

Clip by clip from a pool of threads, as a table's cells are read, with the audio modality's own settings.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import Comparison, Metric, Side
from benchmarks._measure import seconds

RATE, LENGTH, CLIPS, MELS, WINDOW, HOP, WORKERS = 16_000, 160_000, 64, 48, 512, 256, 2


def comparisons(quick: bool) -> list[Comparison]:
    """Speed and equality."""
    peer = Side(run="librosa", needs=("librosa",))
    return [
        Comparison(
            name="log-mel",
            metrics=(Metric(key="clips/s", unit="clips/s", less=False, wanted=5.0),),
            ours=Side(run="ours"),
            peers={"librosa": peer},
            repeats=2 if quick else 5,
        ),
        Comparison(
            name="log-mel, largest difference",
            metrics=(Metric(key="difference", unit="", limit=1e-4),),
            ours=Side(run="difference", needs=("librosa",)),
            repeats=1,
        ),
    ]


def clips() -> Any:
    """Clips [n, samples], float32: tones that glide, over noise."""
    import numpy as np

    rng = np.random.default_rng(0)
    time = np.arange(LENGTH) / RATE
    low, high = rng.uniform(80, 400, (CLIPS, 1)), rng.uniform(400, 4000, (CLIPS, 1))
    tone = np.sin(2 * np.pi * (low + (high - low) * time / 20) * time)
    return (0.3 * tone + 0.05 * rng.standard_normal((CLIPS, LENGTH))).astype(np.float32)


def mel_ours(wave: Any) -> Any:
    """Sensorium's: [frames, mels]."""
    import torch

    from sensorium.nn.mel import log_mel

    return log_mel(torch.from_numpy(wave), rate=RATE, mels=MELS, hop=HOP, window=WINDOW).numpy()


def mel_librosa(wave: Any) -> Any:
    """librosa's: [frames, mels]."""
    import librosa
    import numpy as np

    power = librosa.feature.melspectrogram(y=wave, sr=RATE, n_fft=WINDOW, hop_length=HOP, n_mels=MELS, power=2.0)
    return np.log10(np.maximum(power.T, 1e-10))


def rate(function: Callable[[Any], Any]) -> dict[str, float]:
    """Clips a second."""
    import torch

    torch.set_num_threads(1)  # the pool has the cores
    waves = clips()
    with ThreadPoolExecutor(WORKERS) as pool:
        return {"clips/s": CLIPS / seconds(lambda: list(pool.map(function, waves)))}


def ours() -> dict[str, float]:
    """Sensorium's speed."""
    return rate(mel_ours)


def librosa() -> dict[str, float]:
    """The peer's speed."""
    return rate(mel_librosa)


def difference() -> dict[str, float]:
    """The largest difference of any value, in decades."""
    import numpy as np

    return {"difference": max(float(np.abs(mel_ours(wave) - mel_librosa(wave)).max()) for wave in clips())}
