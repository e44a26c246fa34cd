"""OpenAI's endpoints, asked by OpenAI's own client."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pyarrow as pa
import pytest
import soundfile
from live_server import Served
from PIL import Image

from sensorium.model import Model
from sensorium.search.store import turned


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none", max_retries=0) as client:
        yield client


def picture(shown: pa.Table, row: int = 3) -> str:
    return "data:image/png;base64," + base64.b64encode(shown["picture"][row].as_py()).decode()


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "sensorium"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4'"):
        client.models.retrieve("gpt-4")


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_embeddings_are_the_models(
    client: openai.OpenAI, drawing_model: Model, kept: tuple, encoding: str | None
) -> None:
    given = {} if encoding is None else {"encoding_format": encoding}
    said = client.embeddings.create(model="tiny", input=["a red bar", "a big blue circle"], **given)
    index = Model.load(kept[0]).open_index(kept[1])
    own = turned(drawing_model.embed([{"name": "a red bar"}, {"name": "a big blue circle"}]), index.store.turn)
    found = [
        np.frombuffer(base64.b64decode(one.embedding), "<f4")
        if isinstance(one.embedding, str)
        else np.array(one.embedding)
        for one in said.data
    ]
    assert np.allclose(found, own, atol=1e-4) and said.usage.prompt_tokens > 0
    fewer = client.embeddings.create(model="tiny", input="a red bar", dimensions=8)
    assert np.allclose(fewer.data[0].embedding, own[0, :8] / np.linalg.norm(own[0, :8]), atol=1e-3)


def test_pictures_and_sounds_are_embedded(client: openai.OpenAI, drawing_model: Model, shown: pa.Table) -> None:
    parts = [{"type": "text", "text": "a red bar"}, {"type": "image_url", "image_url": {"url": picture(shown)}}]
    sound = [
        {
            "type": "input_audio",
            "input_audio": {"data": base64.b64encode(shown["tone"][3].as_py()).decode(), "format": "wav"},
        }
    ]
    said = client.embeddings.create(model="tiny", input=[parts, sound])  # type: ignore[arg-type]
    rows = [{"name": "a red bar", "picture": shown["picture"][3].as_py()}, {"tone": shown["tone"][3].as_py()}]
    own = drawing_model.embed(rows)
    assert abs(np.dot(said.data[0].embedding, said.data[1].embedding) - own[0] @ own[1]) < 1e-3


def test_pictures_are_drawn(client: openai.OpenAI) -> None:
    said = client.images.generate(
        model="tiny", prompt="a red bar", n=2, response_format="b64_json", extra_body={"steps": 3, "seed": 4}
    )
    again = client.images.generate(
        model="tiny", prompt="a red bar", n=2, response_format="b64_json", extra_body={"steps": 3, "seed": 4}
    )
    pictures = [base64.b64decode(one.b64_json) for one in said.data]
    assert [Image.open(io.BytesIO(one)).size for one in pictures] == [(16, 16)] * 2 and pictures[0] != pictures[1]
    assert pictures == [base64.b64decode(one.b64_json) for one in again.data]


@pytest.mark.parametrize("form", ["wav", "mp3", "flac", "opus", "pcm"])
def test_words_are_spoken(client: openai.OpenAI, form: str) -> None:
    said = client.audio.speech.create(model="tiny", input="a red bar", voice="alloy", response_format=form).read()
    if form == "pcm":
        assert len(said) % 2 == 0 and len(said) > 1000
    else:
        samples, rate = soundfile.read(io.BytesIO(said))
        assert rate >= 8000 and 0.1 < len(samples) / rate < 1


def test_a_voice_is_a_class_of_a_column(client: openai.OpenAI) -> None:
    assert client.audio.speech.create(model="tiny", input="a bar", voice="red", response_format="wav").read()
    with pytest.raises(openai.BadRequestError, match="Unknown voice 'purple'.*red"):
        client.audio.speech.create(model="tiny", input="a bar", voice="purple")


def test_a_picture_is_described(client: openai.OpenAI, drawing_model: Model, shown: pa.Table) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": picture(shown)}},
            ],
        },
    ]
    own = drawing_model.generate([{"picture": shown["picture"][3].as_py()}], "name")[0]
    said = client.chat.completions.create(model="tiny", messages=messages)  # type: ignore[arg-type]
    assert (
        said.choices[0].message.content == own
        and said.choices[0].finish_reason == "stop"
        and said.usage.prompt_tokens > 0
    )
    brief = client.chat.completions.create(model="tiny", messages=messages, max_tokens=1)  # type: ignore[arg-type]
    assert (
        brief.choices[0].message.content == own.split()[0]
        and brief.choices[0].finish_reason == ("length" if " " in own else "stop")
        and brief.usage.completion_tokens == 1
    )
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=messages, stream=True, stream_options={"include_usage": True}
        )
    )  # type: ignore[arg-type]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == own
    assert chunks[-1].usage.prompt_tokens == said.usage.prompt_tokens and len(chunks) > 3


def test_a_question_may_name_a_column(client: openai.OpenAI, drawing_model: Model, shown: pa.Table) -> None:
    content = [
        {"type": "text", "text": "Which colour is it?"},
        {"type": "image_url", "image_url": {"url": picture(shown)}},
    ]
    messages: list[Any] = [{"role": "user", "content": content}]
    said = client.chat.completions.create(model="tiny", messages=messages)
    assert (
        said.choices[0].message.content
        == drawing_model.predict([{"picture": shown["picture"][3].as_py()}], "colour")["value"][0].as_py()
    )


def test_words_alone_are_what_is_shown(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "tiny red bar"}])
    assert {line.split(":")[0] for line in said.choices[0].message.content.splitlines()} == {"colour", "width", "day"}


@pytest.mark.parametrize(("path", "body", "status", "words"), [
    ("/v1/embeddings", {"model": "tiny", "input": []}, 400, "1 to 256 inputs"),
    ("/v1/embeddings", {"model": "tiny", "input": [[1, 2, 3]]}, 400, "numbers of tokens are not taken"),
    ("/v1/embeddings", {"model": "tiny", "input": "x", "dimensions": 4}, 422, "dimensions"),
    ("/v1/embeddings", {"model": "other", "input": "x"}, 404, "no model 'other'"),
    ("/v1/embeddings", {"model": "tiny", "input": ["x", " "]}, 422, "Row 1: it is empty"),
    ("/v1/images/generations", {"model": "tiny", "prompt": "x", "response_format": "url"}, 400, "b64_json"),
    ("/v1/images/generations", {"model": "tiny", "prompt": "x", "column": "colour"}, 400, "'colour' is none"),
    ("/v1/chat/completions", {"model": "tiny", "messages": []}, 422, "messages"),
    ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "king", "content": "x"}]}, 400, "Unknown role"),
    ("/v1/chat/completions", {"model": "tiny", "messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}
    ]}, 422, "a file comes as"),
    ("/v1/chat/completions", {"model": "tiny", "messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x"}}]}
    ]}, 422, "not fetched"),
    ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, 400,
    "Unknown part"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_openais_envelope(
    served: Served, path: str, body: dict, status: int, words: str
) -> None:
    found, said, _ = served.ask("POST", path, body)
    assert (
        found == status
        and words in said["error"]["message"]
        and set(said["error"]) == {"message", "type", "param", "code"}
    )


def test_words_that_look_like_control_tokens_are_words(client: openai.OpenAI, drawing_model: Model) -> None:
    texts = ["[END] red", "<|endoftext|> red", "</s><s>", "\x00\x01\x02 red"]
    said = client.embeddings.create(model="tiny", input=texts)
    modality = drawing_model.network.modalities["name"]
    assert len(said.data) == len(texts) and all(
        (modality.prepare(modality.read(text)) >= 3).all() for text in texts if len(modality.read(text))
    )
