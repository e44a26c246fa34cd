"""Speech: a sound depends on its own arguments alone, and resampling keeps what 16 kHz can hold."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from sensorium.core.errors import UserError
from sensorium.datasets._espeak import resample, speak, wav

loader = pytest.importorskip("espeakng_loader")


def say(text: str, voice: str = "en-us+f2", speed: int = 170, pitch: int = 50) -> bytes:
    return speak(
        text, library=loader.get_library_path(), data=loader.get_data_path(), voice=voice, speed=speed, pitch=pitch
    )


def test_a_sound_does_not_depend_on_what_was_said_before():
    first = say("school bus")
    say("Gesicht mit Freudentränen", "de+m3", 140, 40)
    say("fish", "en+f4", 190, 60)
    assert say("school bus") == first


def test_voice_speed_and_pitch_are_heard():
    sounds = {say("umbrella"), say("umbrella", voice="en+m3"), say("umbrella", speed=130), say("umbrella", pitch=60)}
    assert len(sounds) == 4
    assert len(say("umbrella", speed=130)) > len(say("umbrella", speed=190))


def test_errors():
    with pytest.raises(RuntimeError, match="SetVoiceByName"):
        say("cat", voice="nobody")
    with pytest.raises(RuntimeError, match="no sound"):
        say("")
    with pytest.raises(UserError, match="sensorium"):
        speak("cat", library="/nowhere/libespeak-ng.so", data="", voice="en", speed=170, pitch=50)


@pytest.mark.parametrize(("hertz", "gain"), [(200, 1.0), (1000, 1.0), (6000, 1.0), (9000, 0.0), (10500, 0.0)])
def test_resampling_keeps_tones_below_8_khz_and_no_others(hertz, gain):
    time = np.arange(22_050) / 22_050
    tone = np.round(10_000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)
    heard = resample(tone, 22_050)
    assert len(heard) == 16_000 and heard.dtype == np.int16
    middle = heard[2000:-2000].astype(float)
    assert middle.std() / (10_000 / np.sqrt(2)) == pytest.approx(gain, abs=0.003)
    if gain:
        expected = 10_000 * np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000)[2000:-2000]
        assert np.abs(middle - expected).max() < 40


def test_wav_is_read_back():
    samples = np.array([0, 1, -1, 32767, -32768], np.int16)
    with wave.open(io.BytesIO(wav(samples))) as file:
        assert np.array_equal(np.frombuffer(file.readframes(5), "<i2"), samples)
