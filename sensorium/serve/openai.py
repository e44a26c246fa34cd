"""The endpoints of OpenAI's API that a model of columns can answer, so that programs which know that API need not be changed.

A text goes to the model's text column, a picture to its picture column, a sound to its sound column; ``column`` in a request's extra body names another.
A run without a trunk that talks answers a chat by describing what it is shown: it says its text column.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from sensorium.core.attachments import deal
from sensorium.core.errors import UserError
from sensorium.serve.guard import Refused
from sensorium.serve.own import DRAWN, draw, few, numbers, written
from sensorium.serve.server import Server, shown

LONGEST = 4096
"""Tokens of an answer at most, whatever is asked."""
INPUTS = 256
"""Texts of one request for embeddings."""
PLAIN_VOICES = frozenset(
    {
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
    }
)
"""Voices that clients name because they must; here they mean the model's own."""
SOUNDS = {"wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "opus": "audio/ogg", "pcm": "audio/pcm"}
PCM = 24_000
"""Samples a second of bare samples, as OpenAI's are."""
KINDS = {"text": "text", "image_url": "image", "input_image": "image", "input_audio": "audio", "video_url": "video"}
"""The modality of a part of a message."""


class Body(BaseModel):
    """A request; what we don't know of it is left aside, as clients send more than a model of columns needs."""

    model_config = ConfigDict(extra="allow")
    model: str


class Embeddings(Body):
    """``/v1/embeddings``."""

    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(ge=8, le=65_536)] = None
    column: str | None = None


class Images(Body):
    """``/v1/images/generations``."""

    prompt: Annotated[str, Field(max_length=32_000)]
    n: Annotated[int | None, Field(ge=1, le=10)] = 1
    response_format: Literal["b64_json", "url"] | None = None
    stream: bool = False
    size: str | None = None
    column: str | None = None
    seed: Annotated[int | None, Field(ge=0, lt=2**53)] = None
    steps: Annotated[int | None, Field(ge=1, le=200)] = None
    guidance: Annotated[float | None, Field(ge=0, le=20)] = None
    generator: str | None = None


class Speech(Body):
    """``/v1/audio/speech``."""

    input: Annotated[str, Field(max_length=4096)]
    voice: Any = "default"
    response_format: Literal["mp3", "opus", "flac", "wav", "pcm"] = "mp3"
    column: str | None = None
    seed: Annotated[int | None, Field(ge=0, lt=2**53)] = None


class Message(BaseModel):
    """What somebody said."""

    model_config = ConfigDict(extra="allow")
    role: str
    content: Annotated[str | list[dict[str, Any]] | None, few(256)] = None


class Chat(Body):
    """``/v1/chat/completions``."""

    messages: Annotated[list[Message], few(1000), Field(min_length=1)]
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    n: Annotated[int | None, Field(ge=1, le=1)] = 1
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=2**31)] = None
    column: str | None = None
    sure: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Say that it isn't known where such answers were right less often on conversations held out.",
        ),
    ] = 0.0
    cite: Annotated[
        int,
        Field(
            ge=0,
            le=20,
            description="Rows of the server's index that come along; where nothing is shown they are told before the question.",
        ),
    ] = 3

    @property
    def longest(self) -> int | None:
        """Tokens that the answer may have; None where the client doesn't say."""
        wanted = self.max_completion_tokens or self.max_tokens
        return None if wanted is None else min(wanted, LONGEST)


def routes(server: Server) -> APIRouter:
    """All of them, for one server."""
    router = APIRouter(prefix="/v1", tags=["openai"])

    def check(model: str) -> None:
        if model != server.name:
            raise Refused(
                404, f"There is no model '{model[:80]}' here. Possible: {server.name}.", "model_not_found", "model"
            )

    def place(kind: str, what: str) -> str:
        """The column that takes a part of a kind."""
        found = server.columns_of(kind)
        if not found:
            raise Refused(
                400,
                f"This model has no column that takes {what}. Its columns: {', '.join(server.columns)}.",
                "column",
                "input",
            )
        return found[0]

    @router.get("/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [card()]}

    @router.get("/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        """What is known of it."""
        check(name)
        return card()

    def card() -> dict[str, Any]:
        return {"id": server.name, "object": "model", "created": server.begun, "owned_by": "sensorium"}

    @router.post("/embeddings")
    async def embeddings(asked: Embeddings) -> Response:
        """Vectors of texts, pictures or sounds: one for each text, and for each list of parts, which is one row."""
        check(asked.model)
        inputs = (
            [asked.input]
            if isinstance(asked.input, str) or (asked.input and isinstance(asked.input[0], dict))
            else asked.input
        )
        if not 0 < len(inputs) <= INPUTS:
            raise Refused(400, f"1 to {INPUTS} inputs are embedded for a request, not {len(inputs)}.", "input", "input")
        rows = []
        for number, one in enumerate(inputs):
            cells = text_row(one, asked.column) if isinstance(one, str) else part_row(one, asked.column)
            rows.append(await server.cells.row(cells, number, "input"))
        said = await server.ask("embed", rows, size=asked.dimensions)
        vectors = said["vectors"].astype("<f4")
        data = [
            {
                "object": "embedding",
                "index": number,
                "embedding": numbers(vector)
                if asked.encoding_format == "float"
                else base64.b64encode(vector.tobytes()).decode(),
            }
            for number, vector in enumerate(vectors)
        ]
        return written(
            {
                "object": "list",
                "data": data,
                "model": server.name,
                "usage": {"prompt_tokens": said["tokens"], "total_tokens": said["tokens"]},
            }
        )

    def text_row(text: str, column: str | None) -> dict[str, Any]:
        server.cells.check(column)
        return {column or place("text", "text"): text}

    def part_row(parts: Any, column: str | None) -> dict[str, Any]:
        if not isinstance(parts, list | dict) or (
            isinstance(parts, list) and not all(isinstance(part, dict) for part in parts)
        ):
            raise Refused(
                400,
                "An input is a text, or a list of parts as messages have them; numbers of tokens are not taken.",
                "input",
                "input",
            )
        row: dict[str, Any] = {}
        for part in [parts] if isinstance(parts, dict) else parts:
            kind, cell = cell_of(part)
            name = column or place(kind, kind)
            server.cells.check(name)
            row[name] = f"{row[name]} {cell}" if kind == "text" and name in row else cell
        return row

    @router.post("/images/generations")
    async def images(asked: Images) -> dict[str, Any]:
        """Pictures drawn from words."""
        check(asked.model)
        if asked.stream:
            raise Refused(400, "Pictures come at once and not in parts: leave stream out.", "stream", "stream")
        if asked.response_format == "url":
            raise Refused(
                400,
                "Pictures are not kept at an address here: ask for response_format=b64_json.",
                "response_format",
                "response_format",
            )
        column = drawn("image", asked.column)
        row = await server.cells.row({place("text", "text"): asked.prompt}, 0, "prompt")
        count = min(asked.n or 1, DRAWN)
        options = asked.model_dump(include={"steps", "guidance", "generator"}, exclude_none=True)
        said = await draw(server, [row], column, None, count, asked.seed, **options)
        return {
            "created": int(time.time()),
            "data": [{"b64_json": base64.b64encode(cell).decode()} for cell in said["cells"][0] if cell is not None],
            "output_format": "png",
            "usage": {
                "input_tokens": said["tokens"],
                "output_tokens": 0,
                "total_tokens": said["tokens"],
                "input_tokens_details": {"text_tokens": said["tokens"], "image_tokens": 0},
            },
        }

    def drawn(kind: str, column: str | None) -> str:
        """The column of a kind that is drawn."""
        able = server.columns_of(kind, asked=True)
        if (column is not None and column not in able) or not able:
            which = f"'{column[:80]}' is none" if column is not None else "there is none"
            raise Refused(
                400,
                f"Wanted is a column of kind '{kind}' that this run learned to draw; {which}. Possible: {', '.join(able) or 'none: fit with --generate COLUMN'}.",
                "column",
                "column",
            )
        return column or able[0]

    @router.post("/audio/speech")
    async def speech(asked: Speech) -> Response:
        """Words spoken."""
        check(asked.model)
        column = drawn("audio", asked.column)
        cells: dict[str, Any] = {place("text", "text"): asked.input, **voice_of(asked.voice)}
        row = await server.cells.row(cells, 0, "input")
        said = await draw(server, [row], column, list(row), 1, asked.seed)
        sound = said["cells"][0][0]
        if sound is None:
            raise Refused(500, "What was drawn is no sound.", "drawn")
        return Response(
            await asyncio.to_thread(as_sound, sound, asked.response_format), media_type=SOUNDS[asked.response_format]
        )

    def voice_of(voice: Any) -> dict[str, str]:
        """A voice is a class of a category column, whatever that is called."""
        name = voice.get("id") if isinstance(voice, Mapping) else voice
        for column in server.columns_of("category"):
            if name in server.columns[column]["classes"]:
                return {column: name}
        if isinstance(name, str) and name in PLAIN_VOICES:
            return {}
        known = {c: server.columns[c]["classes"][:12] for c in server.columns_of("category")}
        raise Refused(
            400,
            f"Unknown voice '{str(name)[:80]}'. Possible: 'default', or a class of a category column: {json.dumps(known, ensure_ascii=False)[:1000]}.",
            "voice",
            "voice",
        )

    @router.post("/chat/completions")
    async def chat(asked: Chat) -> Any:
        """What the model says of what it is shown."""
        check(asked.model)
        about = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": server.name}
        talks = asked.column is None and any(column["talks"] for column in server.columns.values())
        if talks and asked.stream:
            pieces: asyncio.Queue[str | None] = asyncio.Queue()
            task = asyncio.create_task(talk(asked, pieces.put_nowait))
            task.add_done_callback(lambda _: pieces.put_nowait(None))
            try:
                first = await pieces.get()
            except asyncio.CancelledError:
                task.cancel()
                raise
            if first is None:
                task.result()  # what is wrong is told as ever where nothing was said yet
            return StreamingResponse(
                streamed(about, asked, first, pieces, task),
                media_type="text/event-stream",
                headers={"cache-control": "no-store"},
            )
        if talks:
            said = await talk(asked)
        else:
            cells, words = await shown_last(asked.messages)
            said = await describe(cells, words, asked.column or named(words, cells), asked)
            cut = re.match(
                rf"\s*\S+(?:\s+\S+){{{(asked.longest or LONGEST) - 1}}}(?=\s+\S)", said["text"]
            )  # a word is a token here, as it is counted
            said = said if cut is None else {**said, "text": cut[0], "ended": False}
        count = said.get("said", len(said["text"].split()))
        usage = {"prompt_tokens": said["tokens"], "completion_tokens": count, "total_tokens": said["tokens"] + count}
        ended = "stop" if said.get("ended", True) else "length"
        if not asked.stream:
            return {
                **about,
                "object": "chat.completion",
                "usage": usage,
                **({"sensorium": beside(said)} if talks else {}),
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": said["text"], "refusal": None},
                        "logprobs": None,
                        "finish_reason": ended,
                    }
                ],
            }
        total = usage if (asked.stream_options or {}).get("include_usage") else None
        return StreamingResponse(
            stream(about, said["text"], total, ended),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    async def talk(asked: Chat, heard: Callable[[str], None] | None = None) -> dict[str, Any]:
        """What a model that learned to talk says next; each picture, sound or clip is a cell of the next column of its kind (``core.dealt.deal``). ``heard``: is told each piece as it is said."""
        rows: list[dict[str, Any]] = [{}]
        messages = []
        for message in asked.messages:
            parts = (
                [{"type": "text", "text": message.content}]
                if isinstance(message.content, str)
                else message.content or []
            )
            content: list[dict[str, Any]] = []
            for part in parts:
                kind, cell = cell_of(part)
                if kind == "text":
                    content.append({"type": "text", "text": cell})
                    continue
                try:
                    at, column = deal(kind, [c for c, about in server.columns.items() if about["kind"] == kind], rows)
                except UserError as error:
                    raise Refused(400, str(error), "content", "messages") from None
                rows[at][column] = cell
                content.append({"type": "cell", "column": column, "row": at})
            messages.append({"role": message.role, "content": content})
        read = [await server.cells.row(cells, at, "messages") for at, cells in enumerate(rows)]
        warm = asked.temperature if asked.temperature and asked.temperature >= 0.001 else None
        seed = None if asked.seed is None or not warm else abs(asked.seed) % 2**63
        return await server.ask(
            "talk",
            read,
            own={"messages": messages},
            heard=heard,
            alone=seed is not None,
            tokens=asked.longest,
            temperature=warm,
            top_p=asked.top_p if warm else None,
            seed=seed,
            sure=asked.sure or None,
            cite=asked.cite,
        )

    async def shown_last(messages: Sequence[Message]) -> tuple[dict[str, Any], str]:
        """What the last message of a user shows, as cells, and what it says."""
        for message in messages:
            if message.role not in ("system", "developer", "user", "assistant", "tool"):
                raise Refused(
                    400, f"Unknown role '{message.role[:40]}'. Possible: system, user, assistant.", "role", "messages"
                )
        last = next((message for message in reversed(messages) if message.role == "user" and message.content), None)
        if last is None:
            raise Refused(400, "No message of a user says anything.", "messages", "messages")
        parts = [{"type": "text", "text": last.content}] if isinstance(last.content, str) else last.content
        cells, words = {}, []
        for part in parts:
            kind, cell = cell_of(part)
            if kind == "text":
                words.append(cell)
            else:
                cells[place(kind, kind)] = cell
        return await server.cells.row(cells, 0, "messages"), " ".join(words).strip()

    def named(words: str, cells: Mapping[str, Any]) -> str | None:
        """The column that a question names, if it names one that isn't shown."""
        said = {word.lower() for word in re.findall(r"\w+", words)}
        return next(
            (
                c
                for c, about in server.columns.items()
                if about["asked"]
                and not about["drawn"]
                and c not in cells
                and (c.lower() in said or set(c.lower().split("_")) <= said)
            ),
            None,
        )

    async def describe(cells: dict[str, Any], words: str, column: str | None, asked: Chat) -> dict[str, Any]:
        """One column's answer as a text, or of what has no text to be said of it all short ones."""
        server.cells.check(column)
        if not cells:  # the words are what is shown
            cells = await server.cells.row({place("text", "text"): words}, 0, "messages")
        if column is not None and (not server.columns[column]["asked"] or server.columns[column]["drawn"]):
            raise Refused(
                400,
                f"'{column}' can't be said in words. Possible: {', '.join(c for c, a in server.columns.items() if a['asked'] and not a['drawn'])}.",
                "column",
                "column",
            )
        texts = [c for c in server.columns_of("text", asked=True) if c not in cells]
        wanted = (
            [column]
            if column is not None
            else texts[:1]
            or [c for c, about in server.columns.items() if about["asked"] and not about["drawn"] and c not in cells]
        )
        lines, tokens = [], 0
        for name in wanted:
            if server.columns[name]["kind"] == "text":
                options = {
                    "temperature": asked.temperature if asked.temperature and asked.temperature >= 0.001 else None,
                    "top_p": asked.top_p if asked.temperature and asked.temperature >= 0.001 else None,
                }
                said = await draw(
                    server, [cells], name, None, 1, None if asked.seed is None else abs(asked.seed), **options
                )
                text = str(said["cells"][0][0])
            else:
                said = await server.ask("predict", [cells], column=name)
                text = str(shown(said["answers"][0]["value"]))
            tokens = max(tokens, said["tokens"])
            lines.append(text if len(wanted) == 1 else f"{name}: {text}")
        return {"text": "\n".join(lines), "tokens": tokens}

    return router


def cell_of(part: Mapping[str, Any]) -> tuple[str, Any]:
    """A part of a message: its modality, and its cell."""
    given = str(part.get("type"))
    kind = KINDS.get(given)
    if kind is None:
        raise Refused(
            400, f"Unknown part '{given[:40]}' of a message. Possible: {', '.join(KINDS)}.", "content", "messages"
        )
    cell = part.get(given, part.get(kind))
    if kind == "text" and isinstance(cell, str):
        return kind, cell
    if isinstance(cell, Mapping):
        cell = cell.get("url", {"base64": cell["data"]} if isinstance(cell.get("data"), str) else None)
    if kind == "text" or not isinstance(cell, str | Mapping):
        raise Refused(
            400,
            f"A part '{given}' holds {'a text' if kind == 'text' else 'a url with a data URL, or data in base64'}.",
            "content",
            "messages",
        )
    return kind, cell


def beside(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of an answer beside its words: how often such answers are right, what it would have said, what it was reminded of, and the rows that it cites."""
    return shown({key: said[key] for key in ("right", "unsure", "recalled", "cited")})


def event(
    about: Mapping[str, Any], delta: Mapping[str, Any] | None = None, ended: str | None = None, **more: Any
) -> str:
    """A piece of an answer, as a server-sent event."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": ended}]
    return f"data: {json.dumps({**about, 'object': 'chat.completion.chunk', 'choices': choices, **more}, ensure_ascii=False)}\n\n"


def stream(about: Mapping[str, Any], text: str, usage: Mapping[str, Any] | None, ended: str = "stop") -> Iterator[str]:
    """An answer that is there, word by word."""
    yield event(about, {"role": "assistant", "content": ""})
    for word in re.findall(r"\s*\S+|\s+$", text):
        yield event(about, {"content": word})
    yield event(about, {}, ended)
    if usage is not None:
        yield event(about, usage=usage)
    yield "data: [DONE]\n\n"


async def streamed(
    about: Mapping[str, Any],
    asked: Chat,
    first: str | None,
    pieces: asyncio.Queue[str | None],
    task: asyncio.Task[dict[str, Any]],
) -> AsyncIterator[str]:
    """An answer as it is being said: its ``first`` piece, those that come, and what the ``task`` knows when all is said."""
    try:
        yield event(about, {"role": "assistant", "content": ""})
        begun = first is not None
        while first is not None:
            yield event(about, {"content": first})
            first = await pieces.get()
        try:
            said = await task
        except Refused as refused:
            yield f"data: {refused.body().decode()}\n\n"
            return
        if not begun and said["text"]:
            yield event(about, {"content": said["text"]})
        yield event(about, {}, "stop" if said["ended"] else "length", sensorium=beside(said))
        if (asked.stream_options or {}).get("include_usage"):
            yield event(
                about,
                usage={
                    "prompt_tokens": said["tokens"],
                    "completion_tokens": said["said"],
                    "total_tokens": said["tokens"] + said["said"],
                },
            )
        yield "data: [DONE]\n\n"
    finally:
        task.cancel()


def as_sound(wave: bytes, form: str) -> bytes:
    """A WAV file in another format."""
    if form == "wav":
        return wave
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
    if form == "pcm" or (form == "opus" and rate not in (8000, 12000, 16000, 24000, 48000)):
        from math import gcd

        from scipy.signal import resample_poly

        samples, rate = resample_poly(samples, PCM // gcd(PCM, rate), rate // gcd(PCM, rate)), PCM
    if form == "pcm":
        return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    out = io.BytesIO()
    kind, part = {"mp3": ("MP3", "MPEG_LAYER_III"), "flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}[form]
    soundfile.write(out, samples, rate, format=kind, subtype=part)
    return out.getvalue()
