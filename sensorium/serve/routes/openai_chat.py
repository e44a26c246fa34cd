"""OpenAI's ``/v1/chat/completions``: conversations about pictures, sounds and clips.

A run without a trunk that talks answers by describing what it is shown: it says its text column.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from sensorium.core.attachments import assign_cell
from sensorium.core.errors import UserError
from sensorium.serve import dispatch
from sensorium.serve.events import event_stream, stream_pieces, stream_words, usage_of
from sensorium.serve.guard import Refused
from sensorium.serve.jobs import Job
from sensorium.serve.openai import OpenAIRequest, cell_of, check_model, input_column
from sensorium.serve.process import check_cancelled, send_piece
from sensorium.serve.requests import at_most

if TYPE_CHECKING:
    from sensorium.serve.server import Server
    from sensorium.serve.worker import ModelWorker

MAX_ANSWER_TOKENS = 4096
"""Tokens of an answer at most, whatever is asked."""
MIN_TEMPERATURE = 0.001
"""Below it the likeliest is said."""
N_CITED = 3
"""Rows of the index that come with what is said in a conversation."""
ROLES = ("system", "developer", "user", "assistant", "tool")


class Message(BaseModel):
    """Message of a conversation."""

    model_config = ConfigDict(extra="allow")
    role: str
    content: Annotated[str | list[dict[str, Any]] | None, at_most(256)] = None


class Chat(OpenAIRequest):
    """``/v1/chat/completions``."""

    messages: Annotated[list[Message], at_most(1000), Field(min_length=1)]
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
            description="Answer that it isn't known where such answers were right less often on validation "
            "conversations.",
        ),
    ] = 0.0
    cite: Annotated[
        int,
        Field(
            ge=0,
            le=20,
            description="Rows of the server's index that come along; where nothing is shown they come before the "
            "question.",
        ),
    ] = 3

    @property
    def max_answer_tokens(self) -> int | None:
        """Tokens that the answer may have; None where the client doesn't say."""
        wanted = self.max_completion_tokens or self.max_tokens
        return None if wanted is None else min(wanted, MAX_ANSWER_TOKENS)

    @property
    def sampling_temperature(self) -> float | None:
        """Temperature; None where the likeliest is said."""
        return self.temperature if self.temperature and self.temperature >= MIN_TEMPERATURE else None

    @property
    def include_usage(self) -> bool:
        """True where a stream ends with the count of tokens."""
        return bool((self.stream_options or {}).get("include_usage"))


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.post("/v1/chat/completions", tags=["openai"])
    async def chat(request: Chat) -> Any:
        """Answer of the model about what it is given."""
        check_model(server, request.model)
        about = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": server.name}
        if request.column is None and any(column["talks"] for column in server.columns.values()):
            if request.stream:
                return await stream_chat(server, request, about)
            result = await converse(server, request)
            more = {"sensorium": result["evidence"]}
        else:
            result = await describe_last(server, request)
            more = {}
        count = result.get("answer_tokens", len(result["text"].split()))
        usage = usage_of(result, count)
        finish_reason = "stop" if result.get("ended", True) else "length"
        if request.stream:
            total = usage if request.include_usage else None
            return event_stream(stream_words(about, result["text"], total, finish_reason))
        message = {"role": "assistant", "content": result["text"], "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return {**about, "object": "chat.completion", "usage": usage, **more, "choices": [choice]}


async def stream_chat(server: Server, request: Chat, about: Mapping[str, Any]) -> Any:
    """Response that streams a conversation's answer; an error before its first piece is answered as any other."""
    pieces: asyncio.Queue[str | None] = asyncio.Queue()
    task = asyncio.create_task(converse(server, request, pieces.put_nowait))
    task.add_done_callback(lambda _: pieces.put_nowait(None))
    try:
        first = await pieces.get()
    except asyncio.CancelledError:
        task.cancel()
        raise
    if first is None:
        task.result()
    return event_stream(stream_pieces(about, first, pieces, task, request.include_usage))


async def converse(server: Server, request: Chat, on_piece: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Answer of a model that learned to talk; each picture, sound or clip is a cell of the next column of its kind
    (``core.attachments.assign_cell``). ``on_piece`` is called with each piece of it.
    """
    rows: list[dict[str, Any]] = [{}]
    messages = []
    for message in request.messages:
        content: list[dict[str, Any]] = []
        for part in parts_of(message):
            kind, cell = cell_of(part)
            if kind == "text":
                content.append({"type": "text", "text": cell})
                continue
            try:
                at, column = assign_cell(
                    kind, [c for c, known in server.columns.items() if known["kind"] == kind], rows
                )
            except UserError as error:
                raise Refused(400, str(error), "content", "messages") from None
            rows[at][column] = cell
            content.append({"type": "cell", "column": column, "row": at})
        messages.append({"role": message.role, "content": content})
    cells = [await server.cells.row(row, at, "messages") for at, row in enumerate(rows)]
    temperature = request.sampling_temperature
    seed = None if request.seed is None or not temperature else abs(request.seed) % 2**63
    result = await dispatch.ask(
        server,
        "openai_chat",
        cells,
        extra={"messages": messages},
        on_piece=on_piece,
        exclusive=seed is not None,
        tokens=request.max_answer_tokens,
        temperature=temperature,
        top_p=request.top_p if temperature else None,
        seed=seed,
        sure=request.sure or None,
        cite=request.cite,
    )
    # how often such answers are right, what it would have said, what it was reminded of, and the rows that it cites
    evidence = dispatch.as_json({key: result[key] for key in ("right", "unsure", "recalled", "cited")})
    return {**result, "evidence": evidence}


def parts_of(message: Message) -> list[dict[str, Any]]:
    """The parts of a message; a text is one."""
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}]
    return message.content or []


async def describe_last(server: Server, request: Chat) -> dict[str, Any]:
    """Description of what the last message of a user shows, cut to the tokens that are asked; a word is a token."""
    cells, words = await last_user_message(server, request.messages)
    result = await describe(server, cells, words, request.column or named_column(server, words, cells), request)
    count = (request.max_answer_tokens or MAX_ANSWER_TOKENS) - 1
    cut = re.match(rf"\s*\S+(?:\s+\S+){{{count}}}(?=\s+\S)", result["text"])
    return result if cut is None else {**result, "text": cut[0], "ended": False}


async def last_user_message(server: Server, messages: Sequence[Message]) -> tuple[dict[str, Any], str]:
    """The cells that the last message of a user shows, and its words."""
    for message in messages:
        if message.role not in ROLES:
            raise Refused(
                400, f"Unknown role '{message.role[:40]}'. Possible: system, user, assistant.", "role", "messages"
            )
    last = next((message for message in reversed(messages) if message.role == "user" and message.content), None)
    if last is None:
        raise Refused(400, "No message of a user says anything.", "messages", "messages")
    cells, words = {}, []
    for part in parts_of(last):
        kind, cell = cell_of(part)
        if kind == "text":
            words.append(cell)
        else:
            cells[input_column(server, kind, kind)] = cell
    return await server.cells.row(cells, 0, "messages"), " ".join(words).strip()


def is_textual(known: Mapping[str, Any]) -> bool:
    """True for a column whose answers are words."""
    return known["asked"] and not known["drawn"]


def named_column(server: Server, words: str, cells: Mapping[str, Any]) -> str | None:
    """The column that a question names, if it names one that isn't shown."""
    named = {word.lower() for word in re.findall(r"\w+", words)}
    for column, known in server.columns.items():
        names = column.lower() in named or set(column.lower().split("_")) <= named
        if names and column not in cells and is_textual(known):
            return column
    return None


async def describe(
    server: Server, cells: dict[str, Any], words: str, column: str | None, request: Chat
) -> dict[str, Any]:
    """One column's answer as a text, or of a model without a text column to be said all short ones."""
    server.cells.check(column)
    if not cells:  # the words are what is shown
        cells = await server.cells.row({input_column(server, "text", "text"): words}, 0, "messages")
    if column is not None and not is_textual(server.columns[column]):
        raise Refused(
            400,
            f"'{column}' can't be said in words. Possible: "
            f"{', '.join(c for c, known in server.columns.items() if is_textual(known))}.",
            "column",
            "column",
        )
    texts = [c for c in server.columns_of("text", asked=True) if c not in cells]
    short = [c for c, known in server.columns.items() if is_textual(known) and c not in cells]
    wanted = [column] if column is not None else texts[:1] or short
    lines, tokens = [], 0
    for name in wanted:
        if server.columns[name]["kind"] == "text":
            temperature = request.sampling_temperature
            options: dict[str, Any] = {
                "temperature": temperature,
                "top_p": None if temperature is None else request.top_p,
            }
            seed = None if request.seed is None else abs(request.seed)
            result = await dispatch.generate(server, [cells], name, None, 1, seed, **options)
            text = str(result["cells"][0][0])
        else:
            result = await dispatch.ask(server, "predict", [cells], column=name)
            text = str(dispatch.as_json(result["answers"][0]["value"]))
        tokens = max(tokens, result["tokens"])
        lines.append(text if len(wanted) == 1 else f"{name}: {text}")
    return {"text": "\n".join(lines), "tokens": tokens}


def answer(
    worker: ModelWorker,
    jobs: Sequence[Job],
    tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    sure: float = 0.0,
    cite: int = N_CITED,
) -> list[Any]:
    """The assistant's reply to each job's ``messages`` (roles with parts), about its first row and those after it.

    With an index ``cite`` of its rows come along (``ChatSession.retrieve``).
    """
    from sensorium.dialogue.decoding import Sampling
    from sensorium.dialogue.messages import messages_to_answer
    from sensorium.dialogue.session import ChatSession

    session = ChatSession(
        worker.model,
        Sampling(max_tokens=tokens, temperature=temperature, top_p=top_p),
        seed=secrets.randbelow(2**31) if seed is None else seed,
        sure=sure,
        index=worker.index,
        n_cited=cite,
    )
    messages = [messages_to_answer(job["messages"]) for job in jobs]

    def on_text(number: int, text: str) -> None:
        check_cancelled()
        if jobs[number].get("stream") and not sure:  # what must be sure is sent when all of it is there
            send_piece([jobs[number]["number"], text])

    starts = np.cumsum([0, *(len(job["rows"]) for job in jobs)])[:-1].tolist()
    replies = session.reply_all(messages, lambda some: worker.rows([jobs[number] for number in some]), starts, on_text)
    return [
        {
            "text": one.text,
            "tokens": one.prompt,
            "answer_tokens": one.tokens,
            "ended": one.ended,
            "right": one.right,
            "unsure": one.unsure,
            "recalled": one.recalled,
            "cited": one.cited,
        }
        for one in replies
    ]
