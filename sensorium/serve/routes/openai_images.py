"""OpenAI's ``/v1/images/generations``."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from sensorium.serve.dispatch import generate
from sensorium.serve.guard import Refused
from sensorium.serve.openai import OpenAIRequest, check_model, input_column, output_column
from sensorium.serve.requests import MAX_SAMPLES

if TYPE_CHECKING:
    from sensorium.serve.server import Server


class Images(OpenAIRequest):
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


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.post("/v1/images/generations", tags=["openai"])
    async def images(request: Images) -> dict[str, Any]:
        """Pictures drawn from words."""
        check_model(server, request.model)
        if request.stream:
            raise Refused(400, "Pictures come at once and not in parts: leave stream out.", "stream", "stream")
        if request.response_format == "url":
            raise Refused(
                400,
                "Pictures are not kept at an address here: ask for response_format=b64_json.",
                "response_format",
                "response_format",
            )
        column = output_column(server, "image", request.column)
        row = await server.cells.row({input_column(server, "text", "text"): request.prompt}, 0, "prompt")
        count = min(request.n or 1, MAX_SAMPLES)
        options = request.model_dump(include={"steps", "guidance", "generator"}, exclude_none=True)
        answer = await generate(server, [row], column, None, count, request.seed, **options)
        return {
            "created": int(time.time()),
            "data": [{"b64_json": base64.b64encode(cell).decode()} for cell in answer["cells"][0] if cell is not None],
            "output_format": "png",
            "usage": {
                "input_tokens": answer["tokens"],
                "output_tokens": 0,
                "total_tokens": answer["tokens"],
                "input_tokens_details": {"text_tokens": answer["tokens"], "image_tokens": 0},
            },
        }
