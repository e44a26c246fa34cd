"""Audio of any sample rate and length as log-mel spectrograms, and a convolutional stem: one token for each quarter of
a second."""

from __future__ import annotations

import base64
import html
import io
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.core.types import Claim, Profile, Ragged, Tokens
from sensorium.media.audio import MAX_RATE, MIN_RATE, decoded
from sensorium.media.formats import dotted, fuller, is_sound, sounds_by_name, undecided
from sensorium.modalities import claim_files
from sensorium.modalities._audio_frames import FRAMES, SILENCE, whole
from sensorium.modalities._capabilities import Attributable, Refinable

if TYPE_CHECKING:
    import torch

    from sensorium.nn.stem import Cells, Stem
    from sensorium.nn.vocoder import Vocoder

ENDINGS = dotted("audio")

QUIET, ENDED, LOUDEST = 1.5, 1.1, 1.5
"""Dynamic range of what is generated: it is silent so far, 60 dB, under a sound's loudest band; how near to that band
no frame comes after a sound's end; and the largest stored value."""
IMAGE_SCALE = 2, 5
"""Pixels of a band and of a frame in a picture of them."""
MAX_BANDS = 512
"""Largest number of mel bands."""


class Audio(Refinable, Attributable):
    """Audio file, or the sound track of a film, mixed to one channel.

    Args:
        rate: sample rate after resampling, in Hz.
        mels: number of mel bands, a multiple of 8 up to 512.
        hop_ms: time from one frame to the next; the window is twice as long.
        seconds: what is read of a sound, from its start.
        max_minutes: a longer sound is a bad cell, by its header.
        norm: the norm of the convolutions (``nn.conv``).
        speed: largest change of tempo in training, as a share.
        pitch: largest shift in training along the mel bands, in bands.
        gain_db: largest change of loudness in training.
        noise: share of sounds that get background noise in training.
        masks: stretches of time and of frequency blanked in training, of each kind (SpecAugment, arXiv 1904.08779).
        backbone: a pretrained audio encoder whose features stand for the cells: a folder, package:NAME, or
            OWNER/NAME@REVISION on the hub. It determines the rate; such a column is seen and not generated. dropout:
            share of its features that training leaves out.
        tune: frozen, lora, dora, rslora, bias, last:N or full: fine-tuning of the backbone, with the model. Unless it
            is frozen, cells go through it in every step.
        rank: of low-rank updates. tune_rate: learning rate of what is tuned, relative to ``train.lr``; 0: as suits
            ``tune``.
    """

    display_rank = 2
    display_cost = 1
    media = True
    matched = True
    ending = ".wav"
    generator = "flow"

    def __init__(
        self,
        *,
        rate: int = 16_000,
        mels: int = 48,
        hop_ms: float = 16.0,
        seconds: float = 4.0,
        max_minutes: float = 10.0,
        norm: Ragged = "layer",
        speed: float = 0.15,
        pitch: float = 2.0,
        gain_db: float = 6.0,
        noise: float = 0.5,
        masks: int = 2,
        backbone: str = "",
        tune: str = "frozen",
        rank: int = 16,
        tune_rate: float = 0.0,
        dropout: float = 0.1,
    ) -> None:
        if self.use_backbone(backbone, "audio", tune, rank, tune_rate):
            assert self.encoder is not None
            rate = self.encoder.rate
        mels = self.clamp("mels", mels, 8, MAX_BANDS, 8)
        rate = self.clamp("rate", rate, MIN_RATE, MAX_RATE)
        if hop_ms <= 0 or seconds <= 0 or max_minutes <= 0:
            raise UserError("hop_ms, seconds and max_minutes are greater than zero.")
        self.rate, self.mels, self.hop = rate, mels, max(1, round(rate * hop_ms / 1000))
        self.seconds, self.max_minutes, self.norm, self.masks = seconds, max_minutes, norm, masks
        self.speed, self.pitch, self.gain_db, self.noise, self.dropout = speed, pitch, gain_db, noise, dropout
        self.span = whole(round(seconds * rate / self.hop) + 1)
        self.middle, self.reach, self.full = np.full(mels, 0.2, np.float32), 0.4, 0.0

    @classmethod
    def claim(cls, profile: Profile) -> Claim | None:
        """Claim on files whose first bytes are a sound's; less sure where only their names say it."""
        profile = fuller(profile)
        named = sounds_by_name(profile)
        return claim_files(profile, lambda head: is_sound(head) or (named and undecided(head)), ENDINGS, "sound")

    def read(self, cell: Any) -> np.ndarray:
        """Log-mel spectrogram of the bytes of a sound, float16 [frames, mels]: log10(power) / 4 + 1, nothing below 80
        dB under its loudest.

        With a backbone samples float32 [n] of its rate.

        Raises:
            BadCell: not a sound, no samples, longer than ``max_minutes``, or samples that are not finite.
        """
        wave = self.wave(cell)
        return self.bands(wave) if self.encoder is None else wave.numpy()

    def bands(self, wave: torch.Tensor) -> np.ndarray:
        """Log-mel spectrogram of samples, float16 [frames, mels]; see ``read``."""
        import torch

        from sensorium.nn.mel import log_mel

        mel = log_mel(wave, rate=self.rate, mels=self.mels, hop=self.hop, window=2 * self.hop)
        if not torch.isfinite(mel).all():
            raise BadCell("the sound's samples are out of range")
        return (torch.maximum(mel, mel.max() - 8) / 4 + 1).to(torch.float16).numpy()

    def as_image(self, read: np.ndarray) -> np.ndarray | None:
        """Spectrogram: time to the right, high bands above, loud ones dark."""
        if self.encoder is not None or not len(read):
            return None
        loud = np.clip((read.astype(np.float32) - (read.max() - QUIET)) / QUIET, 0, 1).T[::-1]
        return np.repeat(
            np.repeat(np.repeat((255 * (1 - loud)).astype(np.uint8)[:, :, None], 3, 2), IMAGE_SCALE[0], 0),
            IMAGE_SCALE[1],
            1,
        )

    def parts(self, read: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Tenths of the sound, each made silent, named by their start in seconds."""
        edges, result = np.unique(np.linspace(0, len(read), 11).round().astype(int)), []
        for start, end in itertools.pairwise(edges.tolist()):
            rest = read.copy()
            rest[start:end] = SILENCE if self.encoder is None else 0
            result.append((f"{start * (self.hop if self.encoder is None else 1) / self.rate:.2f} s", rest))
        return result

    def truncation_note(self) -> str:
        return (
            f"{self.full:.0%} of the sounds reach the {self.seconds:g} s that are read of each "
            "(column.NAME.seconds reads more)"
            if self.full
            else ""
        )

    def learn(self, cells: Sequence[np.ndarray]) -> None:
        """Fit the statistics of generated sounds.

        They have as many frames as the longest sound; bands are normalised by the mean of each and the deviation of
        all.
        """
        if cells and self.encoder is None:
            self.full = sum(len(cell) > self.seconds * self.rate / self.hop for cell in cells) / len(cells)
            self.span = whole(max(map(len, cells)))
            bands = np.concatenate([np.maximum(cell, cell.max() - QUIET) for cell in cells if len(cell)]).astype(
                np.float32
            )
            self.middle, self.reach = bands.mean(0), max(float((bands - bands.mean(0)).std()), 0.05)

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        """``mel`` float32 [n, frames, mels], padded with silence to a multiple of 16 frames, and ``length`` int64 [n].

        With a backbone ``features`` and their mask ``there``.
        """
        import torch

        from sensorium.modalities._stems.encoder import collate_encoded

        if self.encoder is not None:
            return collate_encoded(self.encoder, self.tuning, cells)
        lengths = [len(cell) for cell in cells]
        mel = np.full((len(cells), whole(max(lengths)), self.mels), SILENCE, np.float32)
        for row, cell in zip(mel, cells, strict=True):
            row[: len(cell)] = cell
        return {"mel": torch.from_numpy(mel), "length": torch.tensor(lengths)}

    def augment(self, cells: Cells, generator: torch.Generator) -> Cells:
        """Random tempo, start, pitch, loudness, noise and blanks for each sound.

        A change of pitch, or of the length of the speaker's vocal tract, is a shift along the mel axis where that is
        logarithmic. Features stay as they are.
        """
        import torch

        if "mel" not in cells:
            return cells
        mel, length = cells["mel"], cells["length"]
        n, frames, mels = mel.shape
        device = mel.device
        draw = (torch.rand(7, n, generator=generator) * 2 - 1).to(device)
        tempo, late = torch.exp2(draw[0] * math.log2(1 + self.speed)), (draw[1] * 4).round()
        wanted = (length / tempo + late).round().long().clamp(1, round(self.seconds * self.rate / self.hop) + 1)
        out = whole(int(wanted.max()))
        # Old frames either side of each new one: before the start the first holds, after the end comes padding.
        at = ((torch.arange(out, device=device) - late[:, None]) * tempo[:, None]).clamp_(0, frames - 1)
        before = at.floor().long()
        rows = mel.bfloat16().view(-1, mels)  # Half a percent of 10 dB is no loss here, and half the memory to move.
        first = torch.arange(n, device=device)[:, None] * frames
        early = rows.index_select(0, (first + before).view(-1))
        later = rows.index_select(0, (first + (before + 1).clamp_(max=frames - 1)).view(-1))
        sound = early.lerp_(later, (at - before).to(rows.dtype).view(-1, 1)).view(n, out, mels)
        sound = torch.bmm(sound, self._shift(draw[2]).to(rows.dtype))
        sound += (draw[3] * (self.gain_db / 40)).to(rows.dtype)[:, None, None]
        self._add_noise(sound, draw[4:], generator)
        return {**cells, "mel": self._blank(sound, wanted, generator).to(mel.dtype), "length": wanted, "whole": mel}

    def _shift(self, draw: torch.Tensor) -> torch.Tensor:
        """Matrix [mels, mels] for each sound that moves its bands by up to ``pitch``, by linear interpolation."""
        import torch

        band = torch.arange(self.mels, device=draw.device)
        source = (band + self.pitch * draw[:, None]).clamp_(0, self.mels - 1)
        return (1 - (band[:, None] - source[:, None]).abs()).clamp_(min=0)

    def _add_noise(self, sound: torch.Tensor, draw: torch.Tensor, generator: torch.Generator) -> None:
        """Add a tilted noise floor 16 to 56 dB below the loudest; the louder of two powers is nearly their sum."""
        import torch

        n, frames, mels = sound.shape
        rough = (torch.rand(frames, mels, generator=generator) * 0.2).to(sound)
        tilt = torch.linspace(-0.3, 0.3, mels, device=sound.device) * draw[1, :, None]
        under = torch.where(draw[2] < 2 * self.noise - 1, 0.9 + 0.5 * draw[0], 1e3)
        level = sound.view(n, -1).amax(1) - under
        torch.maximum(sound, rough + (level[:, None] + tilt).to(sound.dtype)[:, None], out=sound)

    def _blank(self, sound: torch.Tensor, length: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Replace up to an eighth of the time and of the bands by the sound's mean, ``masks`` times, and padding by
        silence."""
        import torch

        from sensorium.nn.conv import present

        n, frames, mels = sound.shape
        blank = []
        for size, whole_axis in ((length, frames), (torch.full_like(length, mels), mels)):
            random = torch.rand(2, n, self.masks, generator=generator).to(sound.device)
            start, wide = random[0] * size[:, None], random[1] * size[:, None] / 8
            at = torch.arange(whole_axis, device=sound.device)[:, None] - start[:, None]
            blank.append(((at >= 0) & (at < wide[:, None])).any(2))
        here = present(length, frames)[:, :, None]
        mean = (sound.sum(2, dtype=torch.float32) * here[..., 0]).sum(1) / (length * mels)
        sound = torch.where(blank[0][:, :, None] | blank[1][:, None], mean.to(sound.dtype)[:, None, None], sound)
        return sound.masked_fill_(~here, SILENCE)

    def stem(self, width: int) -> Stem:
        """Stem with one token for every 16 frames; with a backbone one for the whole sound and up to 16 in time."""
        from sensorium.backbones import MOMENTS
        from sensorium.modalities._stems.audio import AudioStem
        from sensorium.modalities._stems.encoder import encoder_stem
        from sensorium.nn.shape_buckets import recurring

        if self.encoder is not None:
            return encoder_stem(width, self.encoder, self.tuning, recurring(1 + MOMENTS), self.dropout)
        return AudioStem(width, self.mels, self.norm)

    @property
    def is_generable(self) -> bool:
        return self.encoder is None

    def tokens(self) -> Tokens:
        """Segments of four frames, up to the longest sound, each a vector of their bands of about unit size."""
        return Tokens(
            length=self.span // FRAMES,
            width=FRAMES * self.mels,
            timed=True,
            grid=(self.span // FRAMES,),
            patch=(FRAMES,),
        )

    def target(self, cells: Cells) -> torch.Tensor:
        """Bands before augmentation, [n, span / 4, 4 · mels], nothing below 60 dB under a sound's loudest; silence
        after its end."""
        import torch
        from torch.nn import functional as F

        mel = cells.get("whole", cells["mel"])[:, : self.span]
        mel = F.pad(mel, (0, 0, 0, self.span - mel.shape[1]), value=SILENCE)
        mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - QUIET)
        return ((mel - torch.from_numpy(self.middle).to(mel)) / self.reach).reshape(len(mel), self.span // FRAMES, -1)

    def decode(self, tokens: np.ndarray) -> bytes:
        """WAV file of ``rate`` from tokens [span / 4, 4 · mels], up to where nothing but silence follows."""
        import soundfile
        import torch

        from sensorium.nn.mel import from_log_mel

        mel = torch.from_numpy(
            np.asarray(tokens, np.float32).reshape(self.span, self.mels) * self.reach + self.middle
        ).clamp(SILENCE, LOUDEST)
        last = int((mel.amax(1) > mel.max() - ENDED).nonzero()[-1])
        mel = mel[: max(2, last + 1)].clamp(min=float(mel.max()) - QUIET)  # one frame alone has no samples
        if self.refiner is None:
            wave = from_log_mel((mel - 1) * 4, rate=self.rate, hop=self.hop, window=2 * self.hop)
        else:
            with torch.no_grad():
                wave = self.refiner(mel.to(self.refiner.device)[None])[0].cpu()
        out = io.BytesIO()
        soundfile.write(out, wave.clamp(-1, 1).numpy(), self.rate, format="WAV", subtype="PCM_16")
        return out.getvalue()

    def make_refiner(self) -> Vocoder:
        """Vocoder with fresh weights. Without one phases come from the fast Griffin–Lim algorithm."""
        from sensorium.nn.vocoder import Vocoder

        return Vocoder(self.wave, self.rate, self.mels, self.hop)

    def wave(self, cell: Any) -> torch.Tensor:
        """Samples [t] of ``rate`` from the bytes of a sound; see ``read``."""
        import torch

        from sensorium.nn.mel import resample

        wave, rate = decoded(cell, self.seconds, self.max_minutes)
        return resample(torch.from_numpy(wave), rate, self.rate)

    def score(self, truth: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """``mel_db``: mean distance of bands in dB, over the frames that both sounds have.

        What is 50 dB below the loudest counts as silent.
        """
        gaps = []
        for pair in zip(truth, predicted, strict=True):
            a, b = (self.read(cell).astype(np.float32) for cell in pair)
            a, b = (x.clip(x.max() - 1.25) for x in (a, b))
            gaps.append(np.abs(a[: len(b)] - b[: len(a)]).mean() * 40)
        return {"mel_db": float(np.mean(gaps))} if gaps else {}

    def state(self) -> dict[str, Any]:
        """Longest sound in frames, and the scale of the bands of generated sounds."""
        return {"span": self.span, "middle": self.middle.tolist(), "reach": self.reach}

    def load_state(self, state: dict[str, Any]) -> None:
        self.span, self.middle, self.reach = (
            int(state["span"]),
            np.array(state["middle"], np.float32),
            float(state["reach"]),
        )

    def show(self, cell: Any) -> str:
        """Audio player. The sound is decoded and encoded anew, so that nothing of a hostile file reaches the page."""
        import soundfile
        import torch

        from sensorium.nn.mel import resample

        if cell is None:
            return ""
        try:
            wave, rate = decoded(cell.get("bytes") if isinstance(cell, dict) else cell, 15.0, self.max_minutes)
        except BadCell as error:
            return f"<em>{html.escape(str(error))}</em>"
        if rate > self.rate:
            wave, rate = resample(torch.from_numpy(wave), rate, self.rate).numpy(), self.rate
        out = io.BytesIO()
        soundfile.write(out, wave.clip(-1, 1), rate, format="WAV", subtype="PCM_16")
        data = base64.b64encode(out.getvalue()).decode()
        return f'<audio controls preload="none" src="data:audio/wav;base64,{data}"></audio>'

    def features(self, read: np.ndarray | None) -> np.ndarray:
        """Mean, deviation, 10, 50 and 90 % quantiles and mean change of each band, then the duration in seconds."""
        import torch

        if read is None:
            return np.full(6 * self.mels + 1, np.nan, np.float32)
        mel = (read if self.encoder is None else self.bands(torch.from_numpy(np.array(read)))).astype(np.float32)
        change = np.abs(np.diff(mel, axis=0)).mean(0) if len(mel) > 1 else np.zeros(self.mels, np.float32)
        parts = [mel.mean(0), mel.std(0), *np.quantile(mel, (0.1, 0.5, 0.9), axis=0), change]
        return np.concatenate([*parts, [len(mel) * self.hop / self.rate]]).astype(np.float32)
