"""Vocoder: sound from log-mel spectrograms by a small network that predicts each frame's spectra with their phases,
then overlap-add.

Everything is computed at the rate of frames, as in Vocos (arXiv 2306.00814), which makes it cheap on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.nn.discriminator import adversarial_losses
from sensorium.nn.mel import from_log_mel, hann, log_mel, magnitudes
from sensorium.nn.refiner import Refiner

LOSS_WINDOWS = 256, 512, 1024
"""Window lengths, in samples, of the multi-resolution spectrogram loss."""
MAGNITUDE_FLOOR = 1e-3
"""Magnitude of silence in them."""
KERNEL_FRAMES = 7
"""Frames of a convolution's kernel."""
PIECE_FRAMES = 32
"""Frames of a training piece."""
PURSUIT_STEPS = 8
"""Updates of the magnitudes that the bands determine, which the network corrects."""
DYNAMIC_RANGE = 6
"""Logarithm (base 10) of power by which bands are below a sound's loudest at most."""
MIN_MAGNITUDE, MAX_LOG_CORRECTION = 1e-3, 3.0
"""Lower bound of these magnitudes, and the logarithm of the largest correction."""
BAND_NOISE = 0.02
"""Deviation of the noise on bands in training, as generated ones are not exact."""
ADVERSARIAL_WEIGHT, PENALTY_WEIGHT = 0.1, 1.0
"""Weights of the adversarial loss beside the distance of spectrograms, and of the gradient penalty."""
JUDGED_PIECES, PENALISED_PIECES = slice(None, None, 2), slice(None, None, 4)
"""Pieces that the discriminator gets, and of these those at which the gradient penalty is taken."""


class Vocoder(Refiner):
    """Vocoder of convolutions along time (ConvNeXt, arXiv 2201.03545). For each frame it predicts ``finer`` spectra:
    the phases, and factors on the magnitudes that the bands determine.

    It is trained by a multi-resolution spectrogram distance (arXiv 1910.11480) and by a spectrogram discriminator
    (arXiv 2210.13438, section 3.4).

    Args:
        decoded: function from a cell of the table to samples [t] of ``rate``.
        rate: samples a second.
        mels: bands of a frame.
        hop: samples from one frame to the next.
        width: channels.
        depth: blocks.
        finer: spectra to a frame, of 2 · hop samples each; one, where ``hop`` is no multiple of it.
    """

    def __init__(
        self,
        decoded: Callable[[Any], Tensor],
        rate: int,
        mels: int,
        hop: int,
        *,
        width: int = 192,
        depth: int = 4,
        finer: int = 2,
    ) -> None:
        super().__init__()
        self.decoded, self.rate, self.mels, self.hop = decoded, rate, mels, hop
        self.finer = finer if hop % finer == 0 else 1
        self.step, self.window = hop // self.finer, 2 * hop
        self.bins = self.window // 2 + 1
        self.enter = nn.Linear(KERNEL_FRAMES * mels, width)
        self.first, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(WideConv(width) for _ in range(depth))
        self.leave = nn.Linear(width, self.finer * 2 * self.bins)
        nn.init.normal_(self.leave.weight, std=0.02)
        nn.init.zeros_(self.leave.bias)
        self.listener = SpectralDiscriminator()

    def forward(self, mel: Float[Tensor, "n frames mels"]) -> Float[Tensor, "n t"]:
        """Bands [n, frames, mels], as an ``Audio`` column stores them, to samples [n, (frames - 1) · hop]."""
        x = self.first(self.enter(around(mel).flatten(2)))
        for block in self.blocks:
            x = block(x)
        n, frames = x.shape[:2]
        louder, phase = self.leave(self.last(x)).float().view(n, frames * self.finer, 2, self.bins).unbind(2)
        size = magnitudes(
            (mel.float() - 1) * 4, rate=self.rate, window=self.window, pursuit=PURSUIT_STEPS
        ).repeat_interleave(self.finer, 1)
        spectrum = torch.polar((size + MIN_MAGNITUDE) * louder.clamp(max=MAX_LOG_CORRECTION).exp(), phase)
        shape = hann(self.window).to(mel.device)
        pieces = torch.fft.irfft(spectrum, self.window) * shape
        length = (pieces.shape[1] - 1) * self.step + self.window
        wave, weight = (
            F.fold(x.transpose(1, 2), (1, length), (1, self.window), stride=(1, self.step)).flatten(1)[
                :, self.window // 2 :
            ]
            for x in (pieces, shape.square().expand(1, pieces.shape[1], -1))
        )
        wave = wave / weight.clamp(min=0.1)
        return F.pad(wave, (0, max(0, (frames - 1) * self.hop - wave.shape[1])))[:, : (frames - 1) * self.hop]

    # --- learning -----------------------------------------------------------------------------------------------------

    def read(self, cell: Any) -> np.ndarray:
        return self.decoded(cell).numpy()

    def piece(self, read: np.ndarray, lots: np.random.Generator) -> np.ndarray:
        wanted = PIECE_FRAMES * self.hop
        wave = np.pad(read, (0, max(0, wanted - len(read))))
        start = int(lots.integers(len(wave) - wanted + 1))
        return wave[start : start + wanted]

    def bands(self, wave: Float[Tensor, "n t"]) -> Float[Tensor, "n frames mels"]:
        """Bands [n, frames, mels], as an ``Audio`` column generates them, of samples [n, t]."""
        mel = log_mel(wave, rate=self.rate, mels=self.mels, hop=self.hop, window=2 * self.hop)
        return torch.maximum(mel, mel.amax((1, 2), keepdim=True) - DYNAMIC_RANGE) / 4 + 1

    def losses(self, pieces: Float[Tensor, "n t"]) -> dict[str, Float[Tensor, ""]]:
        known = self.bands(pieces)
        made = self(known + BAND_NOISE * torch.randn_like(known))
        near = spectral_distance(made, pieces) + (self.bands(made).clamp(min=known.min()) - known).abs().mean()
        fooling, judging, slope = adversarial_losses(
            self.listener,
            pieces[JUDGED_PIECES],
            made[JUDGED_PIECES],
            MAGNITUDE_FLOOR * torch.randn_like(pieces[JUDGED_PIECES]),
            some=PENALISED_PIECES,
        )
        return {
            "near": near,
            "fooling": ADVERSARIAL_WEIGHT * fooling.mean(),
            "judging": judging.mean() + PENALTY_WEIGHT * slope.mean(),
        }

    @torch.no_grad()
    def compare(self, read: np.ndarray) -> tuple[float, float]:
        wave = torch.from_numpy(read).to(self.device)[None]
        wave = wave[:, : wave.shape[1] // self.hop * self.hop]
        if not wave.shape[1]:
            return math.nan, math.nan
        mel = self.bands(wave)
        plain = from_log_mel((mel[0] - 1) * 4, rate=self.rate, hop=self.hop, window=2 * self.hop)[None]
        return float(spectral_distance(self(mel), wave)), float(spectral_distance(plain, wave))


class WideConv(nn.Module):
    """ConvNeXt block: a depthwise convolution over seven frames and a feed-forward layer, as a residual branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.over, self.norm = (
            nn.Parameter(torch.randn(width, KERNEL_FRAMES) * KERNEL_FRAMES**-0.5),
            nn.LayerNorm(width),
        )
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.25))

    def forward(self, x: Float[Tensor, "n frames width"]) -> Float[Tensor, "n frames width"]:
        """Activations [n, frames, width] to the same."""
        y = self.norm((around(x) * self.over).sum(-1))
        return x + self.scale * self.down(F.gelu(self.up(y)))


def around(x: Float[Tensor, "n frames width"]) -> Float[Tensor, "n frames width kernel"]:
    """Neighbourhood of each frame, [n, frames, width] to [n, frames, width, 7]."""
    return F.pad(x, (0, 0, KERNEL_FRAMES // 2, KERNEL_FRAMES // 2)).unfold(1, KERNEL_FRAMES, 1)


class SpectralDiscriminator(nn.Module):
    """Patch discriminator of a sound's spectrogram: convolutions over its logarithm, a logit for eight frames and eight
    bins."""

    def __init__(self, width: int = 16, window: int = 512) -> None:
        super().__init__()
        self.window = window
        layers: list[nn.Module] = []
        for before, after in ((3, width), (width, width), (width, 2 * width)):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Conv2d(2 * width, 1, 3, 1, 1))

    def forward(self, wave: Float[Tensor, "n t"]) -> Float[Tensor, "n patches"]:
        """Samples [n, t] to logits [n, patches]."""
        found = spectrum(wave, self.window)
        size = found.abs()
        parts = torch.stack(
            [(size + MAGNITUDE_FLOOR).log() / 3 + 1, *torch.view_as_real(found / (size + MAGNITUDE_FLOOR)).unbind(-1)],
            1,
        )
        return self.body(parts).flatten(1).float()


def spectrum(wave: Tensor, window: int) -> Tensor:
    """Short-time Fourier transform: samples [n, t] to [n, frames, bins], complex, four frames to a window."""
    frames = F.pad(wave, (window // 2, window // 2)).unfold(1, window, window // 4)
    return torch.fft.rfft(frames * hann(window).to(wave.device)) / math.sqrt(window)


def spectral_distance(one: Float[Tensor, "n t"], other: Float[Tensor, "n t"]) -> Float[Tensor, ""]:
    """Distance, [], of samples [n, t] from ``other``: of the logarithms of their magnitudes, and the relative norm of
    the difference."""
    total = one.new_zeros(())
    for window in LOSS_WINDOWS:
        a, b = (spectrum(wave, window).abs() for wave in (one, other))
        logs = (torch.log(a + MAGNITUDE_FLOOR) - torch.log(b + MAGNITUDE_FLOOR)).abs().mean()
        total = total + logs + (a - b).norm() / b.norm().clamp(min=MAGNITUDE_FLOOR)
    return total / len(LOSS_WINDOWS)
