"""OpenAI's ``/v1/embeddings``."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from sensorium.serve.dispatch import ask, json_response, vectors_as_lists
from sensorium.serve.guard import Refused
from sensorium.serve.openai import OpenAIRequest, cell_of, check_model, input_column

if TYPE_CHECKING:
    from sensorium.serve.server import Server

MAX_INPUTS = 256
"""Texts of one request."""


class Embeddings(OpenAIRequest):
    """``/v1/embeddings``."""

    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(ge=8, le=65_536)] = None
    column: str | None = None


def add_routes(router: APIRouter, server: Server) -> None:
    """Add the endpoint."""

    @router.post("/v1/embeddings", tags=["openai"])
    async def embeddings(request: Embeddings) -> Response:
        """Vectors of texts, pictures or sounds: one for each text, and for each list of parts, which is one row."""
        check_model(server, request.model)
        given = request.input
        inputs = [given] if isinstance(given, str) or (given and isinstance(given[0], dict)) else given
        if not 0 < len(inputs) <= MAX_INPUTS:
            raise Refused(
                400, f"1 to {MAX_INPUTS} inputs are embedded for a request, not {len(inputs)}.", "input", "input"
            )
        rows = []
        for number, one in enumerate(inputs):
            cells = row_of_text if isinstance(one, str) else row_of_parts
            rows.append(await server.cells.row(cells(server, one, request.column), number, "input"))
        answer = await ask(server, "embed", rows, size=request.dimensions)
        as_floats = request.encoding_format == "float"
        data = [
            {
                "object": "embedding",
                "index": number,
                "embedding": vectors_as_lists(vector) if as_floats else base64.b64encode(vector.tobytes()).decode(),
            }
            for number, vector in enumerate(answer["vectors"].astype("<f4"))
        ]
        usage = {"prompt_tokens": answer["tokens"], "total_tokens": answer["tokens"]}
        return json_response({"object": "list", "data": data, "model": server.name, "usage": usage})


def row_of_text(server: Server, text: str, column: str | None) -> dict[str, Any]:
    """Row of one text."""
    server.cells.check(column)
    return {column or input_column(server, "text", "text"): text}


def row_of_parts(server: Server, parts: Any, column: str | None) -> dict[str, Any]:
    """Row of parts as messages have them; several texts are joined.

    Raises:
        Refused: these are no parts.
    """
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
        name = column or input_column(server, kind, kind)
        server.cells.check(name)
        row[name] = f"{row[name]} {cell}" if kind == "text" and name in row else cell
    return row
