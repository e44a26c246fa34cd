"""OpenAI's ``/v1/audio/speech``."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Response
from pydantic import Field

from sensorium.serve.dispatch import generate
from sensorium.serve.guard import Refused
from sensorium.serve.openai import OpenAIRequest, check_model, input_column, output_column

if TYPE_CHECKING:
    from sensorium.serve.server import Server

OPENAI_VOICES = frozenset(
    [
        "alloy",
        "ash",
        "ballad",
        "coral",
        "echo",
        "fable",
        "nova",
        "onyx",
        "sage",
        "shimmer",
        "verse",
        "marin",
        "cedar",
        "default",
    ]
)
"""Voices that clients name because they must; here they mean the model's own."""
MEDIA_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "opus": "audio/ogg", "pcm": "audio/pcm"}
PCM_RATE = 24_000
"""Samples a second of bare samples, as OpenAI's are."""
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


class Speech(OpenAIRequest):
    """``/v1/audio/speech``."""

    input: Annotated[str, Field(max_length=4096)]
    voice: Any = "default"
    response_format: Literal["mp3", "opus", "flac", "wav", "pcm"] = "mp3"
    column: str | None = None
    seed: Annotated[int | None, Field(ge=0, lt=2**53)] = None


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.post("/v1/audio/speech", tags=["openai"])
    async def speech(request: Speech) -> Response:
        """Words spoken."""
        check_model(server, request.model)
        column = output_column(server, "audio", request.column)
        cells = {input_column(server, "text", "text"): request.input, **voice_cell(server, request.voice)}
        row = await server.cells.row(cells, 0, "input")
        answer = await generate(server, [row], column, list(row), 1, request.seed)
        sound = answer["cells"][0][0]
        if sound is None:
            raise Refused(500, "What was generated is no sound.", "drawn")
        data = await asyncio.to_thread(encode_audio, sound, request.response_format)
        return Response(data, media_type=MEDIA_TYPES[request.response_format])


def voice_cell(server: Server, voice: Any) -> dict[str, str]:
    """Cell that stands for a voice: a class of a category column, whatever that is called; none for OpenAI's voices.

    Raises:
        Refused: no column has such a class.
    """
    name = voice.get("id") if isinstance(voice, Mapping) else voice
    for column in server.columns_of("category"):
        if name in server.columns[column]["classes"]:
            return {column: name}
    if isinstance(name, str) and name in OPENAI_VOICES:
        return {}
    known = {c: server.columns[c]["classes"][:12] for c in server.columns_of("category")}
    raise Refused(
        400,
        f"Unknown voice '{str(name)[:80]}'. Possible: 'default', or a class of a category column: "
        f"{json.dumps(known, ensure_ascii=False)[:1000]}.",
        "voice",
        "voice",
    )


def encode_audio(wave: bytes, form: str) -> bytes:
    """A WAV file in another format."""
    if form == "wav":
        return wave
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
    if form == "pcm" or (form == "opus" and rate not in OPUS_RATES):
        from math import gcd

        from scipy.signal import resample_poly

        samples = resample_poly(samples, PCM_RATE // gcd(PCM_RATE, rate), rate // gcd(PCM_RATE, rate))
        rate = PCM_RATE
    if form == "pcm":
        return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    out = io.BytesIO()
    kind, part = {"mp3": ("MP3", "MPEG_LAYER_III"), "flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}[form]
    soundfile.write(out, samples, rate, format=kind, subtype=part)
    return out.getvalue()
