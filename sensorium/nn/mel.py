"""Log-mel spectrograms, sound from them, and resampling, in torch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def cached(make: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that caches a function's last results, made outside inference mode so that training can use them as
    well."""
    return functools.lru_cache(maxsize=32)(torch.inference_mode(False)(make))


def log_mel(
    wave: Float[Tensor, "*batch t"],
    *,
    rate: int,
    mels: int,
    hop: int,
    window: int,
    low: float = 0.0,
    high: float | None = None,
    floor: float = 1e-10,
) -> Float[Tensor, "*batch frames mels"]:
    """Logarithm (base 10) of the power in each mel band.

    Equal to ``librosa.feature.melspectrogram(center=True, power=2, norm="slaney", htk=False)`` with ``n_fft=window``,
    then ``log10(max(·, floor))``.

    Args:
        wave: samples [..., t], float.
        rate: samples a second.
        mels: number of bands.
        hop, window: in samples; the window is a periodic Hann.
        low, high: edges of the bands in Hz; ``high`` is half the rate by default.

    Returns:
        [..., 1 + t // hop, mels]
    """
    bands = mel_filters(rate, window, mels, low, rate / 2 if high is None else high).to(wave.device)
    frames = F.pad(wave.reshape(-1, wave.shape[-1]), (window // 2, window // 2)).unfold(1, window, hop)
    spectrum = torch.view_as_real(torch.fft.rfft(frames * hann(window).to(wave.device)))
    # Real and imaginary parts stand side by side, and so does each band's weight for them: their sum costs nothing.
    power = spectrum.square_().flatten(2) @ bands.T.repeat_interleave(2, 0)
    return power.clamp_(min=floor).log10_().view(*wave.shape[:-1], -1, mels)


def from_log_mel(
    mel: Float[Tensor, "frames mels"], *, rate: int, hop: int, window: int, steps: int = 60, pursuit: int = 100
) -> Float[Tensor, " t"]:
    """Samples [(frames - 1) · hop] of a sound whose ``log_mel`` is about ``mel`` [frames, mels], deterministic.

    Its phases come from the fast Griffin–Lim algorithm (Perraudin et al. 2013).

    Args:
        steps: iterations of Griffin–Lim.
        pursuit: see ``magnitudes``.
    """
    return griffin_lim(magnitudes(mel, rate=rate, window=window, pursuit=pursuit), hop, window, steps)


def magnitudes(
    mel: Float[Tensor, "*batch mels"], *, rate: int, window: int, pursuit: int
) -> Float[Tensor, "*batch bins"]:
    """Non-negative spectra [..., window // 2 + 1] whose bands are about ``mel`` [..., mels], log10 of the power in
    each.

    Args:
        pursuit: multiplicative updates (Lee & Seung 2001).
    """
    bands = mel_filters(rate, window, mel.shape[-1], 0.0, rate / 2).to(mel.device)
    known, gram = torch.pow(10.0, mel.float()) @ bands, bands.T @ bands
    spectrum = known / gram.sum(1).clamp(min=1e-30)
    for _ in range(pursuit):
        spectrum = spectrum * known / (spectrum @ gram).clamp(min=1e-30)  # bins that no band covers stay at zero
    return spectrum.sqrt()


def griffin_lim(size: Tensor, hop: int, window: int, steps: int, momentum: float = 0.99) -> Tensor:
    """Samples [(frames - 1) · hop] whose spectrogram has about the magnitudes ``size`` [frames, window // 2 + 1]."""
    shape = hann(window).to(size.device)
    padded = max(1, (len(size) - 1) * hop)

    def wave(spectrum: Tensor) -> Tensor:
        """By overlap and add, each sample divided by the windows' squares that fell on it."""
        pieces = torch.fft.irfft(spectrum, window) * shape
        length = (len(size) - 1) * hop + window
        added, weight = (
            F.fold(x.T.unsqueeze(0), (1, length), (1, window), stride=(1, hop)).flatten()
            for x in (pieces, shape.square().expand_as(pieces))
        )
        return (added / weight.clamp(min=1e-6))[window // 2 : window // 2 + padded]

    def spectrum_of(samples: Tensor) -> Tensor:
        frames = F.pad(samples, (window // 2, window // 2 + window)).unfold(0, window, hop)[: len(size)]
        return torch.fft.rfft(frames * shape)

    turn = torch.rand(size.shape, generator=torch.Generator().manual_seed(0)).to(size.device) * (2 * math.pi)
    phase, before = torch.polar(torch.ones_like(size), turn), torch.zeros((), dtype=torch.complex64, device=size.device)
    for _ in range(steps):
        now = spectrum_of(wave(size * phase))
        ahead = now + momentum * (now - before)
        phase, before = ahead / ahead.abs().clamp(min=1e-12), now
    return wave(size * phase)


@cached
def hann(window: int) -> Tensor:
    """The periodic Hann window, [window]."""
    return torch.hann_window(window, periodic=True)


@cached
def mel_filters(rate: int, window: int, mels: int, low: float, high: float) -> Tensor:
    """Mel filter bank: triangles of equal area, [mels, window // 2 + 1] (Slaney's Auditory Toolbox, 1998)."""
    pitch = torch.linspace(hertz_to_mel(low), hertz_to_mel(high), mels + 2, dtype=torch.float64)
    edges = torch.where(pitch < 15, pitch * (200 / 3), 1000 * torch.exp((pitch - 15) * (math.log(6.4) / 27)))
    bins = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return (torch.minimum(rise, fall).clamp(min=0) * (2 / (right - left))).float()


def hertz_to_mel(hertz: float) -> float:
    """Slaney's mel scale: linear up to 1 kHz (15 mel), logarithmic above."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def resample(wave: Float[Tensor, "*batch t"], old: int, new: int) -> Float[Tensor, "*batch resampled"]:
    """Resampled audio: samples [..., t] at rate ``old`` to [..., ceil(t · new / old)] at rate ``new``.

    A windowed sinc evaluated once for each phase (polyphase; Kaiser window; Smith, "Digital Audio Resampling"). Rates
    whose ratio needs more than 1,000 phases get the nearest ratio that doesn't: off by less than two cents of pitch.
    """
    ratio = Fraction(new, old).limit_denominator(1000) if new < old else 1 / Fraction(old, new).limit_denominator(1000)
    up, down = ratio.numerator, ratio.denominator
    if up == down:
        return wave
    kernel, reach = sinc_phases(up, down)
    shape, t = wave.shape[:-1], wave.shape[-1]
    length = -(-t * up // down)
    blocks = -(-length // up)
    padded = F.pad(wave.reshape(-1, 1, t), (reach, max(0, (blocks - 1) * down + kernel.shape[-1] - reach - t)))
    phases = F.conv1d(padded, kernel, stride=down)[..., :blocks]
    return phases.transpose(1, 2).reshape(*shape, -1)[..., :length]


@cached
def sinc_phases(up: int, down: int, zeros: int = 24, beta: float = 9.0) -> tuple[Tensor, int]:
    """Low-pass filter at each of ``up`` phases, [up, 1, taps], and the number of samples it reaches back.

    Args:
        zeros: zero crossings of the sinc on each side: a longer filter is steeper.
        beta: of the Kaiser window: larger keeps aliases further down (9 gives about −90 dB).
    """
    cutoff = min(1.0, up / down) * 0.95
    reach = math.ceil(zeros / cutoff)
    taps = torch.arange(-reach, reach + down + 1, dtype=torch.float64)
    centre = torch.arange(up, dtype=torch.float64)[:, None] * (down / up)
    x = (taps - centre) * cutoff
    inside = (1 - (x / zeros).square()).clamp(min=0)
    kaiser = torch.special.i0(beta * inside.sqrt()) / torch.special.i0(torch.tensor(beta, dtype=torch.float64))
    return (torch.sinc(x) * kaiser * (x.abs() < zeros) * cutoff).float()[:, None], reach
