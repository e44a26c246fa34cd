"""Sounds of every kind are read; hostile ones are turned away; padding, augmentation and stem keep their promises."""

from __future__ import annotations

import base64
import io
import struct
import sys

import numpy as np
import pytest
import soundfile
import torch

from sensorium.core.errors import BadCell, UserError
from sensorium.core.settings import build
from sensorium.core.types import Profile
from sensorium.media import ffmpeg
from sensorium.media.video import written
from sensorium.modalities._audio_frames import SILENCE
from sensorium.modalities.audio import Audio
from sensorium.modalities.video import Video


def tone(seconds: float = 1.0, rate: int = 16000, pitch: float = 440.0, channels: int = 1) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * pitch * t) * np.minimum(1, 20 * t)
    return wave.astype(np.float32) if channels == 1 else np.stack([wave] * channels, 1).astype(np.float32)


def saved(wave: np.ndarray, rate: int = 16000, format: str = "WAV", subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=format, subtype=subtype)
    return out.getvalue()


def murmur(seconds: float, loud: float) -> np.ndarray:
    """Noise with less power at high pitches, four times a second louder and softer by 20 dB."""
    t = np.arange(int(seconds * 16000)) / 16000
    wave = np.convolve(np.random.default_rng(0).standard_normal(len(t)), np.full(4, 0.25), "same")
    return (loud * 0.2 * wave * 10 ** (np.sin(8 * np.pi * t) / 2)).astype(np.float32)


READABLE = {
    "wav 16": saved(tone()),
    "wav 8": saved(tone(), subtype="PCM_U8"),
    "wav 24": saved(tone(), subtype="PCM_24"),
    "wav float": saved(tone(), subtype="FLOAT"),
    "wav double": saved(tone().astype(float), subtype="DOUBLE"),
    "wav mu-law": saved(tone(), subtype="ULAW"),
    "stereo": saved(tone(channels=2)),
    "six channels": saved(tone(channels=6)),
    "flac": saved(tone(), format="FLAC"),
    "ogg": saved(tone(), format="OGG"),
    "mp3": saved(tone(), format="MP3"),
    "aiff": saved(tone(), format="AIFF"),
    "au": saved(tone(), format="AU"),
    "w64": saved(tone(), format="W64"),
    "8 kHz": saved(tone(rate=8000), 8000),
    "44.1 kHz": saved(tone(rate=44100), 44100),
    "odd rate": saved(tone(rate=22051), 22051),
    "96 kHz": saved(tone(rate=96000), 96000),
}


@pytest.mark.parametrize("name", READABLE)
def test_every_kind_says_the_same_tone(name):
    mel = Audio().read(READABLE[name])
    assert mel.dtype == np.float16 and mel.shape[1] == 48 and 60 <= len(mel) <= 70
    plain = Audio().read(READABLE["wav 16"])
    assert abs(int(mel[30].argmax()) - int(plain[30].argmax())) <= 0
    assert abs(float(mel.max()) - float(plain.max())) < 0.05


@pytest.mark.parametrize("samples", [1, 2, 255, 256, 257, 5000])
def test_short_sounds_are_used(samples):
    mel = Audio().read(saved(tone(1.0)[-samples:]))
    assert mel.shape == (1 + samples // 256, 48) and np.isfinite(mel).all()


def test_silence_is_allowed_and_stays_silent():
    assert (Audio().read(saved(np.zeros(4000, np.float32))) == SILENCE).all()


def test_a_longer_sound_is_cropped_to_its_start():
    start, long = tone(2.0), np.concatenate([tone(2.0), tone(30.0, pitch=2000)])
    audio = Audio(seconds=1.5)
    mel = audio.read(saved(long))
    assert len(mel) == 1 + 24000 // 256
    np.testing.assert_allclose(mel[:90].astype(float), audio.read(saved(start))[:90].astype(float), atol=0.01)


def test_loudness_is_kept_in_decibels():
    quiet = Audio().read(saved(tone() * 0.1, subtype="FLOAT")).astype(float)
    loud = Audio().read(saved(tone(), subtype="FLOAT")).astype(float)
    assert abs((loud.max() - quiet.max()) - 0.5) < 0.01  # 20 dB


def header_only() -> bytes:
    return saved(np.zeros(0, np.float32))


def claiming(frames: int, rate: int = 16000, channels: int = 1) -> bytes:
    size = frames * channels * 2
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2 & 0xFFFF, 16)
    data = bytes(min(size, 4000))
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + fmt
        + b"data"
        + struct.pack("<I", min(size, 0xFFFFFFFF))
        + data
    )


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (b"", "empty"),
        (None, "NoneType"),
        ("a.wav", "str"),
        (b"no sound at all, only words", "decoded"),
        (header_only(), "no samples"),
        (header_only()[:20], "decoded"),
        (saved(tone() * np.nan, subtype="FLOAT"), "not finite"),
        (saved(np.where(np.arange(16000) == 9000, np.inf, tone()).astype(np.float32), subtype="FLOAT"), "not finite"),
        (saved(tone().astype(float) * 1e30, subtype="DOUBLE"), "out of range"),
        (claiming(1000, rate=0), "."),
        (claiming(1000, rate=3), "3 samples a second"),
        (claiming(1000, rate=2_000_000_000), "2000000000 samples a second"),
        (claiming(1000, channels=1000), "."),
    ],
)  # fmt: skip
def test_bad_cells_say_why(cell, reason):
    with pytest.raises(BadCell, match=reason):
        Audio().read(cell)


def test_minutes_are_counted_in_the_header():
    data = saved(np.zeros(16000 * 70, np.float32), format="FLAC")
    assert len(Audio(max_minutes=2).read(data)) == 251
    with pytest.raises(BadCell, match="1.2 minutes, more than max_minutes=1"):
        Audio(max_minutes=1).read(data)


def test_a_file_cut_short_is_used_as_far_as_it_goes_or_is_bad():
    for name in ("wav 16", "flac", "ogg", "mp3"):
        data = READABLE[name]
        for share in (0.02, 0.2, 0.7):
            try:
                mel = Audio().read(data[: int(len(data) * share)])
                assert mel.shape[1] == 48 and np.isfinite(mel).all()
            except BadCell as error:
                assert str(error)


def test_random_damage_never_raises_anything_else():
    rng, audio = np.random.default_rng(0), Audio()
    for name in ("wav 16", "wav float", "flac", "ogg", "mp3", "aiff"):
        for _ in range(20):
            data = bytearray(READABLE[name])
            for place in [*rng.integers(0, min(len(data), 60), 2), *rng.integers(0, len(data), 4)]:
                data[place] = rng.integers(0, 256)
            try:
                assert np.isfinite(audio.read(bytes(data))).all()
            except BadCell as error:
                assert str(error)


# Batches


def batch(audio: Audio, lengths: tuple[float, ...] = (0.3, 1.0, 0.7, 1.9)) -> dict[str, torch.Tensor]:
    cells = [audio.read(saved(tone(seconds, pitch=300 + 100 * i))) for i, seconds in enumerate(lengths)]
    return audio.collate(cells)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_collate_pads_with_silence_to_whole_tokens():
    audio = Audio()
    cells = [audio.read(saved(tone(seconds))) for seconds in (0.3, 1.0)]
    both = audio.collate(cells)
    assert both["mel"].shape == (2, 64, 48) and both["length"].tolist() == [19, 63]
    np.testing.assert_array_equal(both["mel"][0, :19].numpy(), cells[0].astype(np.float32))
    assert (both["mel"][0, 19:] == SILENCE).all()


@pytest.mark.parametrize("norm", ["layer", "weight"])
def test_tokens_do_not_depend_on_neighbours_or_padding(norm):
    audio = Audio(norm=norm)
    stem, cells = audio.stem(32), batch(audio)
    tokens, mask = stem(cells)
    assert tokens.shape == (4, 8, 32) and mask.sum(1).tolist() == [2, 4, 3, 8]
    alone, alone_mask = stem({"mel": cells["mel"][:1, :32], "length": cells["length"][:1]})
    assert alone_mask.all()
    torch.testing.assert_close(tokens[:1, :2], alone, atol=1e-5, rtol=1e-4)
    noisy = {
        **cells,
        "mel": torch.where(torch.arange(128)[:, None] < cells["length"][:, None, None], cells["mel"], 9.0),
    }
    again = stem(noisy)[0]
    torch.testing.assert_close(again[mask], tokens[mask])


def test_the_stem_learns_in_low_precision_of_both_kinds():
    audio = Audio()
    cells, autocast, pure = batch(audio), audio.stem(32), audio.stem(32).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = autocast(cells)[0]
    (tokens.float().square().mean() + pure(cells)[0].float().square().mean()).backward()
    for stem in (autocast, pure):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in stem.parameters())


def test_two_seconds_are_eight_tokens_and_four_the_most():
    audio = Audio()
    tokens, mask = audio.stem(16)(batch(audio, (2.0, 9.0)))
    assert mask.sum(1).tolist() == [8, 16] and tokens.shape[1] == 16


def test_the_stem_tells_sounds_apart_after_a_few_steps():
    torch.manual_seed(0)
    audio = Audio()
    cells = batch(audio, (0.5,) * 8)
    stem, head = audio.stem(32), torch.nn.Linear(32, 8)
    optimizer = torch.optim.AdamW([*stem.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(30):
        tokens, mask = stem(cells)
        gist = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        loss = torch.nn.functional.cross_entropy(head(gist), torch.arange(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3


def test_augmenting_is_a_function_of_the_generator_and_leaves_its_input():
    audio = Audio()
    cells = batch(audio)
    before = {key: value.clone() for key, value in cells.items()}
    a, b, c = (audio.augment(cells, seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a[key], b[key]) and torch.equal(cells[key], before[key]) for key in cells)
    assert a["mel"].shape != c["mel"].shape or not torch.equal(a["mel"], c["mel"])


@pytest.mark.parametrize("seed", range(5))
def test_augmented_sounds_are_whole_bounded_and_padded_with_silence(seed):
    audio = Audio()
    cells = batch(audio, (0.02, 0.3, 1.0, 3.9, 4.0))
    out = audio.augment(cells, seeded(seed))
    frames = out["mel"].shape[1]
    assert frames % 16 == 0 and out["mel"].isfinite().all() and out["mel"].dtype == torch.float32
    assert (out["length"] >= 1).all() and (out["length"] <= min(frames, 251)).all()
    for mel, length in zip(out["mel"], out["length"], strict=True):
        assert (mel[length:] == SILENCE).all()
    change = out["length"] / cells["length"]
    assert (change[2:] > 0.75).all() and (change[2:] < 1.3).all()


def test_augmenting_by_nothing_only_shifts_time():
    audio = Audio(speed=0, pitch=0, gain_db=0, noise=0, masks=0)
    cells = batch(audio, (1.0, 1.0))
    out = audio.augment(cells, seeded())
    for before, after, length in zip(cells["mel"], out["mel"], out["length"], strict=True):
        late = int(length) - 63
        assert abs(late) <= 4
        a, b = (before[: 63 - 4 - late], after[late : 63 - 4]) if late >= 0 else (before[-late:59], after[: 59 + late])
        assert (a[: len(b)] - b[: len(a)]).abs().max() < 0.02


def test_pitch_moves_the_loudest_band_and_gain_the_level():
    audio = Audio(speed=0, pitch=3, gain_db=0, noise=0, masks=0)
    cells = {key: value.repeat(32, *[1] * (value.dim() - 1)) for key, value in batch(audio, (1.0,)).items()}
    moved = audio.augment(cells, seeded())["mel"][:, 30].argmax(1) - cells["mel"][0, 30].argmax()
    assert moved.min() <= -2 and moved.max() >= 2 and moved.abs().max() <= 3
    louder = Audio(speed=0, pitch=0, gain_db=6, noise=0, masks=0).augment(cells, seeded())["mel"].amax((1, 2))
    change = louder - cells["mel"][0].max()
    assert change.abs().max() <= 0.16 and change.min() < -0.1 and change.max() > 0.1


def test_noise_fills_what_is_quiet_and_masks_blank():
    quiet = {key: value.repeat(64, *[1] * (value.dim() - 1)) for key, value in batch(Audio(), (1.0,)).items()}
    noisy = Audio(speed=0, pitch=0, gain_db=0, noise=0.5, masks=0).augment(quiet, seeded())["mel"]
    filled = noisy[:, 10:50, 40:].mean((1, 2)) > quiet["mel"][0, 10:50, 40:].mean() + 0.02
    assert 0.2 < filled.float().mean() < 0.8
    blanked = Audio(speed=0, pitch=0, gain_db=0, noise=0, masks=2).augment(quiet, seeded())["mel"][:, 5:50]
    flat = (blanked.std(2) < 1e-6).float().mean()
    assert 0.02 < flat < 0.3


# Everything else of the contract


def test_settings_are_checked():
    with pytest.raises(UserError):
        Audio(seconds=0)
    for given, name, used in ((50, "mels", 48), (10, "rate", 1000), (10**9, "rate", 400_000)):
        audio = Audio(**{name: given})
        assert getattr(audio, name) == used and f"{name}={used} is used" in audio.clamped[0]
    audio = build(Audio, {"rate": "8000", "mels": "40"}, "column.sound")
    assert audio.read(READABLE["wav 16"]).shape == (63, 40)
    assert audio.stem(16)(audio.collate([audio.read(READABLE["wav 16"])]))[0].shape == (1, 4, 16)


def test_features_have_one_length_and_say_what_is_missing():
    audio = Audio()
    short, long = (audio.features(audio.read(saved(tone(seconds)))) for seconds in (0.01, 2.0))
    missing = audio.features(None)
    assert short.shape == long.shape == missing.shape and np.isnan(missing).all()
    assert np.isfinite(short).all() and abs(long[-1] - 2.0) < 0.05


def test_show_is_a_fresh_sound_or_an_escaped_reason():
    shown = Audio().show(READABLE["44.1 kHz"])
    data = base64.b64decode(shown.split("base64,")[1].split('"')[0])
    wave, rate = soundfile.read(io.BytesIO(data))
    assert shown.startswith("<audio controls") and rate == 16000 and abs(len(wave) - 16000) <= 1
    assert Audio().show({"bytes": READABLE["wav 16"]}).startswith("<audio")
    assert Audio().show(None) == "" and "<b>" not in Audio().show("<b>") and Audio().show(b"x").startswith("<em>")


def profile(sample: list, heads: list[bytes], type: str = "binary") -> Profile:
    return Profile(name="x", type=type, sample=sample, present=len(sample), rows=len(sample), distinct=0, heads=heads)


@pytest.mark.parametrize("name", [name for name in READABLE if "not claimed" not in name])
def test_files_are_claimed_by_their_first_bytes(name):
    claim = Audio.claim(profile([READABLE[name]], [READABLE[name][:32]]))
    assert claim is not None and claim.sure > 0.9 and claim.why


def test_claims_by_name_are_weaker_and_nothing_else_is_claimed():
    named = Audio.claim(profile(["a/b.WAV", "c.mp3"], [], "string"))
    assert named is not None and named.sure < 0.9
    assert Audio.claim(profile(["a cat", "a dog"], [], "string")) is None
    for head in (b"RIFF....WEBPVP8 ", b"\xff\xd8\xff\xe0\0\x10JFIF", b"\x89PNG\r\n\x1a\n", b"FORM....ILBM", b"\xff"):
        assert Audio.claim(profile([head], [head])) is None
    assert Audio.claim(profile([], [])) is None


def test_state_is_what_is_learned_of_sounds_that_are_generated_and_loads():
    audio, other = Audio(), Audio()
    audio.learn([audio.read(saved(tone(seconds=s))) for s in (0.3, 0.9)])
    other.load_state(audio.state())
    assert (
        other.state() == audio.state()
        and audio.span == 64
        and audio.shared() is None
        and other.tokens().width == 4 * audio.mels
    )


def test_what_is_generated_is_about_one_off_zero_and_ends_where_the_sound_does():
    audio = Audio()
    cells = [saved(murmur(seconds, loud)) for seconds, loud in ((0.4, 0.9), (1.2, 0.05), (0.8, 0.3))]
    read = [audio.read(cell) for cell in cells]
    audio.learn(read)
    target = audio.target(audio.collate(read))
    assert target.shape == (3, audio.span // 4, 4 * audio.mels) and 0.5 < target.std() < 2 and target.abs().max() < 8
    noise = 0.1 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    for tokens, mel in zip(target + noise, read, strict=True):
        drawn = audio.read(audio.decode(tokens.numpy()))
        assert abs(len(drawn) - len(mel)) <= 4 and abs(float(drawn.max()) - float(mel.max())) < 0.1


def test_a_sound_without_any_power_is_drawn():
    audio = Audio()
    mel = audio.read(saved(np.zeros(4000, np.float32)))
    audio.learn([mel])
    assert audio.wave(audio.decode(audio.target(audio.collate([mel]))[0].numpy())).abs().max() < 1e-4


def test_what_is_not_heard_of_long_sounds_is_said() -> None:
    audio = Audio(seconds=1)
    short, long = (
        audio.read(saved((0.1 * np.sin(np.arange(int(seconds * 16_000)))).astype(np.float32))) for seconds in (0.5, 3)
    )
    audio.learn([short, short])
    assert audio.truncation_note() == ""
    audio.learn([short, long])
    assert "50%" in audio.truncation_note() and "1 s" in audio.truncation_note()


# What is damaged, claims too much, or takes FFmpeg


KINDS = {
    "WAV": None,
    "FLAC": None,
    "OGG": None,
    "MP3": None,
    "AIFF": None,
    "AU": None,
    "CAF": None,
    "W64": None,
    "RF64": None,
}


def damaged(data: bytes) -> list[bytes]:
    rng, cases = np.random.default_rng(0), [data[:share] for share in (10, 30, 60, 90, 200)]
    cases += [bytes(len(data)), data[:64] + bytes(len(data) - 64), bytes(64) + data[64:]]
    for _ in range(12):
        garbled = bytearray(data)
        for place in rng.integers(0, min(len(data), 300), 12):
            garbled[place] = rng.integers(0, 256)
        cases.append(bytes(garbled))
    return cases


@pytest.mark.parametrize("kind", KINDS)
def test_reasons_of_damaged_sounds_are_plain_true_and_the_same_each_time(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for cell in damaged(saved(tone(0.3), format=kind)):
        found = []
        for _ in range(2):
            try:
                found.append(len(Audio().read(cell)))
            except BadCell as error:
                found.append(str(error))
                for word in (" 0x", "object", "pipe", "exist", "Error", "regular file"):
                    assert word not in str(error)
                assert "decoded" in str(error) or "samples" in str(error) or "lasts" in str(error)
        assert found[0] == found[1]
    assert "Traceback" not in capfd.readouterr().err, "libsndfile seeks where a header sends it"


def xing(frames: int, size: int | None = None) -> bytes:
    """An MP3 whose header says how many frames it has."""
    data = bytearray(saved(tone(0.3), format="MP3"))
    at = data.index(b"Xing") if b"Xing" in data else data.index(b"Info")
    data[at + 8 : at + 12] = frames.to_bytes(4, "big")
    return bytes(data[:size])


def test_a_length_that_a_file_can_not_hold_is_not_believed() -> None:
    plain = Audio().read(saved(tone(0.3), format="MP3"))
    for frames in (0xFFFFFFFF, 0x7FFFFFFF, 10_000_000):
        read = Audio().read(xing(frames))
        assert abs(len(read) - len(plain)) <= 8 and abs(int(read[10].argmax()) - int(plain[10].argmax())) <= 1
    with pytest.raises(BadCell, match="MP3 can't be decoded: it is cut short or damaged"):
        Audio().read(xing(10, 200))


def test_a_stream_of_flac_that_does_not_know_its_length_is_read() -> None:
    data = bytearray(saved(tone(0.5), format="FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # the number of samples: unknown
    assert abs(len(Audio().read(bytes(data))) - 32) <= 1


def test_of_a_flac_that_is_damaged_further_on_the_beginning_is_kept() -> None:
    data = saved(np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32), format="FLAC")
    assert 30 < len(Audio().read(data[: len(data) * 2 // 3])) < 188


def recorded(kind: str, codec: str, film: bool = False, rate: int = 16000) -> bytes:
    """A tone as FFmpeg writes it, alone or with a film."""
    av, out = pytest.importorskip("av"), io.BytesIO()
    with av.open(out, "w", format=kind) as file:
        if film:
            pictures = file.add_stream("mpeg4" if kind != "avi" else "mjpeg", rate=10)
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p" if kind != "avi" else "yuvj420p"
        stream = file.add_stream(codec, rate=rate, layout="mono")
        if film:
            for level in range(10):
                file.mux(
                    pictures.encode(
                        av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * level, np.uint8), format="rgb24")
                    )
                )
            file.mux(pictures.encode())
        frame = av.AudioFrame.from_ndarray(
            (tone(rate=rate)[None] * 32767).astype(np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.codec_context.format,
            layout="mono",
            rate=rate,
            frame_size=stream.codec_context.frame_size or 1024,
        )
        for even in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(even))
        file.mux(stream.encode())
    return out.getvalue()


RECORDED = {"m4a": ("ipod", "aac"), "aac": ("adts", "aac"), "alac": ("ipod", "alac"), "mka": ("matroska", "aac"),
    "flv": ("flv", "aac"), "wavpack": ("wv", "wavpack"),
            "mp4": ("mp4", "aac", True), "mov": ("mov", "pcm_s16le", True), "mkv": ("matroska", "pcm_s16le", True),
            "avi": ("avi", "pcm_s16le", True), "ts": ("mpegts", "aac", True)}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_the_sound_of_what_ffmpeg_reads_is_the_same_tone(name: str) -> None:
    cell, plain = recorded(*RECORDED[name]), Audio().read(READABLE["wav 16"])
    mel = Audio().read(cell)
    assert abs(len(mel) - len(plain)) <= 10 and abs(int(mel[30].argmax()) - int(plain[30].argmax())) <= 1
    assert abs(float(mel.max()) - float(plain.max())) < 0.05 and len(Audio(seconds=0.5).read(cell)) == 32
    if len(RECORDED[name]) == 2:
        assert (
            Audio.claim(profile([cell] * 3, [cell[:1024]] * 3)).sure > 0.9
            and Video.claim(profile([cell] * 3, [cell[:1024]] * 3)) is None
        )
        with pytest.raises(BadCell, match="kind=audio reads"):
            Video().read(cell)
    assert Audio().show(cell).startswith("<audio")


def test_a_film_without_sound_and_damaged_ones_say_so() -> None:
    film = recorded("matroska", "aac", True)
    for cell in (film[:40], film[:300], recorded("ipod", "aac")[:500], recorded("adts", "aac")[:12]):
        with pytest.raises(BadCell, match="decoded|no sound|no samples"):
            Audio().read(cell)
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    with pytest.raises(BadCell, match="no sound, only a film"):
        Audio().read(written(frames, 8.0, ".mp4"))


def test_more_channels_than_eight_are_mixed() -> None:
    assert Audio().read(saved(tone(0.3, channels=20), format="WAV")).shape == (19, 48)
    many = bytearray(saved(tone(0.3, channels=12), format="CAF"))
    wave, rate, said = ffmpeg.samples(bytes(many), 1.0, 32, 1000, 400_000)
    assert rate == 16000 and abs(len(wave) - 4800) <= 1 and abs(float(np.abs(wave).max()) - 0.5) < 0.02


def test_without_pyav_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = recorded("ipod", "aac")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BadCell, match=r"pip install 'sensorium\[video\]'"):
        Audio().read(cell)
    assert len(Audio().read(READABLE["mp3"])) > 60


@pytest.mark.parametrize(
    "cell",
    [
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"#EXTM3U\nfile:///etc/hostname\n",
        b"%PDF-1.4",
        b"\x89PNG\r\n\x1a\n" + bytes(90),
        b"PK\x03\x04" + bytes(60),
    ],
)
def test_what_is_no_sound_says_what_it_is_and_is_never_followed(cell: bytes) -> None:
    with pytest.raises(BadCell, match="can't be decoded"):
        Audio().read(cell)


def test_encodings_that_libsndfile_does_not_know_are_read_by_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = recorded("wav", "aac")
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(io.BytesIO(cell))
    mel, plain = Audio().read(cell), Audio().read(READABLE["wav 16"])
    assert abs(int(mel[30].argmax()) - int(plain[30].argmax())) <= 1
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BadCell, match=r"rare one, pip install 'sensorium\[video\]'"):
        Audio().read(cell)
