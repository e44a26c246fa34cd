"""Speech synthesis with espeak-ng's shared library, through ctypes: 16 kHz, mono, 16 bit, as a WAV file's bytes.

Knows nothing of tables. The voices are synthetic, and plainly so. The library keeps hidden state from one utterance to
the next (phases of oscillators, a random generator) that none of its calls resets, so it is loaded afresh for each:
4 ms that make a sound depend on its own arguments alone.
"""

from __future__ import annotations

import _ctypes
import ctypes
import io
import wave
from functools import cache

import numpy as np
from scipy.signal import firwin, resample_poly

from sensorium.core.errors import UserError

RATE = 16_000
SYNCHRONOUS, UTF8 = 2, 1  # AUDIO_OUTPUT_SYNCHRONOUS: no sound card, samples come to a callback
DONT_EXIT = 0x8000  # without it the library ends the whole process when its data isn't found
SPEED, PITCH = 1, 3  # espeak_PARAMETER

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(text: str, *, library: str, data: str, voice: str, speed: int, pitch: int) -> bytes:
    """Speak ``text`` and return the WAV file.

    Args:
        library, data: paths of the shared library and of its folder of voices.
        voice: name of a voice and perhaps a variant, such as ``en-us+f2``.
        speed: words a minute, 80 to 450.
        pitch: 0 to 99; 50 is the voice's own.

    Raises:
        UserError: the library can't be loaded on this machine.
        RuntimeError: the library refuses a setting, or gives no sound.
    """
    rate, samples = _synthesize(text, library, data, voice, speed, pitch)
    if not samples.any():
        raise RuntimeError(f"espeak-ng gave no sound for {text!r} with the voice {voice!r}")
    return wav(resample(samples, rate))


def _synthesize(text: str, library: str, data: str, voice: str, speed: int, pitch: int) -> tuple[int, np.ndarray]:
    blocks: list[bytes] = []

    @_Callback
    def on_samples(samples, count, events):
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, count * 2))
        return 0

    def call(name: str, *args) -> None:
        status = getattr(lib, name)(*args)
        if status != 0:
            raise RuntimeError(f"{name}{args[:1]} failed with status {status} (voice {voice!r}, text {text!r})")

    try:
        lib = ctypes.CDLL(library)
    except OSError as error:
        raise UserError(
            f"The speech library espeak-ng can't be loaded: {error}. Install it with: pip install 'sensorium[demo]'"
        ) from error
    try:
        rate = lib.espeak_Initialize(SYNCHRONOUS, 0, data.encode(), DONT_EXIT)
        if rate <= 0:
            raise RuntimeError(f"espeak-ng can't be started: status {rate}")
        lib.espeak_SetSynthCallback(on_samples)
        lib.espeak_ng_SetRandSeed(ctypes.c_long(1))  # its own seed is the time of day
        call("espeak_SetVoiceByName", voice.encode())
        call("espeak_SetParameter", SPEED, speed, 0)
        call("espeak_SetParameter", PITCH, pitch, 0)
        words = text.encode() + b"\0"
        call("espeak_Synth", words, ctypes.c_size_t(len(words)), 0, 0, 0, UTF8, None, None)
        lib.espeak_Synchronize()
        lib.espeak_Terminate()
    finally:
        _close(lib)
    return rate, np.frombuffer(b"".join(blocks), np.int16)


def _close(lib: ctypes.CDLL) -> None:
    close = getattr(_ctypes, "dlclose", None) or getattr(_ctypes, "FreeLibrary")  # noqa: B009, FreeLibrary: Windows
    close(lib._handle)


@cache
def _taps(up: int, down: int) -> np.ndarray:
    """Low-pass filter at the lower rate's edge, in whole numbers of 2**-20."""
    half = 16 * max(up, down)
    taps = firwin(2 * half + 1, 0.95 / max(up, down), window=("kaiser", 8.0))
    return np.round(taps * 2**20)


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Resample from ``rate`` Hz to 16 kHz, int16 to int16.

    Whole-number taps times whole-number samples stay below 2**53, so every sum is exact in float64 and no
    order of adding, and so no processor, can change a bit.
    """
    if rate == RATE:
        return samples
    divisor = int(np.gcd(rate, RATE))
    up, down = RATE // divisor, rate // divisor
    exact = resample_poly(samples.astype(np.float64), up, down, window=_taps(up, down))
    return np.clip(np.floor(exact / 2**20 + 0.5), -32768, 32767).astype(np.int16)


def wav(samples: np.ndarray) -> bytes:
    """WAV file, 16 kHz mono, of int16 samples."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()
