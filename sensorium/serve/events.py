"""Server-sent events: chat completions as OpenAI streams them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from fastapi.responses import StreamingResponse

from sensorium.serve.guard import Refused

DONE = "data: [DONE]\n\n"


def event_stream(events: AsyncIterator[str] | Iterator[str]) -> StreamingResponse:
    """Response that streams events."""
    return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})


def chunk(
    about: Mapping[str, Any], delta: Mapping[str, Any] | None = None, finish_reason: str | None = None, **more: Any
) -> str:
    """One chunk of a completion, as an event."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    choices = [] if delta is None else [choice]
    body = {**about, "object": "chat.completion.chunk", "choices": choices, **more}
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def usage_of(answer: Mapping[str, Any], count: int) -> dict[str, int]:
    """Tokens of a prompt and of its answer."""
    return {
        "prompt_tokens": answer["tokens"],
        "completion_tokens": count,
        "total_tokens": answer["tokens"] + count,
    }


def stream_words(
    about: Mapping[str, Any], text: str, usage: Mapping[str, Any] | None, finish_reason: str = "stop"
) -> Iterator[str]:
    """Events of an answer that is complete, word by word."""
    yield chunk(about, {"role": "assistant", "content": ""})
    for word in re.findall(r"\s*\S+|\s+$", text):
        yield chunk(about, {"content": word})
    yield chunk(about, {}, finish_reason)
    if usage is not None:
        yield chunk(about, usage=usage)
    yield DONE


async def stream_pieces(
    about: Mapping[str, Any],
    first: str | None,
    pieces: asyncio.Queue[str | None],
    task: asyncio.Task[dict[str, Any]],
    include_usage: bool,
) -> AsyncIterator[str]:
    """Events of an answer while it is generated.

    Args:
        first: its first piece; None: there are none.
        pieces: those that come, None behind the last.
        task: the whole answer.
        include_usage: whether the tokens are counted at the end.
    """
    try:
        yield chunk(about, {"role": "assistant", "content": ""})
        started = first is not None
        while first is not None:
            yield chunk(about, {"content": first})
            first = await pieces.get()
        try:
            answer = await task
        except Refused as refused:
            yield f"data: {refused.body().decode()}\n\n"
            return
        if not started and answer["text"]:
            yield chunk(about, {"content": answer["text"]})
        yield chunk(about, {}, "stop" if answer["ended"] else "length", sensorium=answer["evidence"])
        if include_usage:
            yield chunk(about, usage=usage_of(answer, answer["answer_tokens"]))
        yield DONE
    finally:
        task.cancel()
