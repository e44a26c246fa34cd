"""A served model that talks, asked by OpenAI's own client: pictures in the conversation, streams, and what is wrong is
said.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from conftest import drawing, shown_table
from live_server import Served

from sensorium.model import Model

NAME = "talker"


@pytest.fixture(scope="module")
def served(talking: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, table = shutil.copytree(talking.folder, tmp_path_factory.mktemp("run") / NAME), shown_table(24, seed=5)
    Model.load(folder).index(table, folder / "index")
    server = Served(str(folder), str(folder / "index"), log=tmp_path_factory.mktemp("log") / "log")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none") as client:
        yield client


def shown(colour: str, text: str) -> list[dict[str, Any]]:
    url = "data:image/png;base64," + base64.b64encode(drawing(colour, "square", 2)).decode()
    return [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]}
    ]


def test_it_says_what_a_picture_shows_and_goes_on(client: openai.OpenAI) -> None:
    said = [
        client.chat.completions.create(model=NAME, messages=shown(colour, "What is this?"))
        for colour in ("red", "green", "blue")
    ]  # type: ignore[arg-type]
    assert [one.choices[0].message.content for one in said] == ["red", "green", "blue"] and said[0].choices[
        0
    ].finish_reason == "stop"
    assert (
        said[0].usage is not None and said[0].usage.completion_tokens == 4 and said[0].usage.prompt_tokens > 20
    )  # three letters and the end
    more = [
        *shown("red", "Is this blue?"),
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "What is this?"},
    ]
    answer = client.chat.completions.create(model=NAME, messages=more)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == "red"


def test_it_streams_as_it_speaks_and_is_cut_off_where_asked(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(model=NAME, messages=shown("green", "What is this?"), stream=True, max_tokens=2)
    )  # type: ignore[arg-type]
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "gr"
        and chunks[-1].choices[0].finish_reason == "length"
    )
    chunks = list(
        client.chat.completions.create(
            model=NAME, messages=shown("green", "What is this?"), stream=True, stream_options={"include_usage": True}
        )
    )  # type: ignore[arg-type]
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert (
        pieces == list("green") and chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 6
    )  # a token each, as soon as it is said
    assert chunks[-2].model_extra["sensorium"]["right"] > 0.5  # type: ignore[index]


def test_it_says_how_sure_it_is_and_cites_rows(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model=NAME, messages=shown("red", "What is this?"))  # type: ignore[arg-type]
    beside = said.model_extra["sensorium"]  # type: ignore[index]
    assert (
        0.5 < beside["right"] < 1 and not beside["unsure"] and [row["colour"] for row in beside["cited"]] == ["red"] * 3
    )
    for stream in (False, True):
        other: Any = client.chat.completions.create(
            model=NAME,
            messages=shown("red", "What is this?"),
            stream=stream,
            extra_body={"sure": beside["right"] + 1e-4, "cite": 0},
        )  # type: ignore[call-overload]
        chunks = list(other) if stream else []
        text = (
            "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            if stream
            else other.choices[0].message.content
        )
        told = (chunks[-1] if stream else other).model_extra["sensorium"]
        assert text == "I don't know." and told["unsure"] == "red" and not told["cited"]
    with pytest.raises(openai.APIStatusError, match="cite"):
        messages: Any = shown("red", "a")
        client.chat.completions.create(model=NAME, messages=messages, extra_body={"cite": -1})


def test_one_picture_comes_after_the_other(client: openai.OpenAI) -> None:
    colours = ("red", "green", "blue")
    talk = [
        message
        for colour in colours
        for message in (*shown(colour, "What is this?"), {"role": "assistant", "content": colour})
    ][:-1]
    said = client.chat.completions.create(model=NAME, messages=talk)  # type: ignore[arg-type]
    cited = [row["colour"] for row in said.model_extra["sensorium"]["cited"]]  # type: ignore[index]
    assert said.choices[0].message.content == "blue" and cited.count("blue") >= 2, cited
    assert {*cited} <= {"blue", None}, "rows like the last one; that of some is missing"


def test_many_talk_at_once_and_each_hears_his_own(client: openai.OpenAI) -> None:
    colours = ["red", "green", "blue"] * 4

    def asked(number: int) -> str:
        if number % 2:
            return "".join(
                chunk.choices[0].delta.content or ""
                for chunk in client.chat.completions.create(
                    model=NAME, messages=shown(colours[number], "What is this?"), stream=True
                )
            )  # type: ignore[arg-type]
        return (
            client.chat.completions.create(model=NAME, messages=shown(colours[number], "What is this?"))
            .choices[0]
            .message.content
            or ""
        )  # type: ignore[arg-type]

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(asked, range(12))) == colours


def test_who_leaves_a_stream_frees_the_model(client: openai.OpenAI, served: Served) -> None:
    for _ in range(3):
        with client.chat.completions.create(
            model=NAME, messages=shown("green", "Describe this."), stream=True, temperature=2.0, max_tokens=200
        ) as stream:  # type: ignore[arg-type]
            next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
        assert (
            client.chat.completions.create(model=NAME, messages=shown("red", "What is this?"))
            .choices[0]
            .message.content
            == "red"
        )  # type: ignore[arg-type]
    assert b"died" not in served.log.read_bytes() and b"failed" not in served.log.read_bytes()


def test_a_stream_that_can_not_begin_is_refused_as_ever(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="nothing to answer"):
        client.chat.completions.create(
            model=NAME, messages=[*shown("red", "a"), {"role": "assistant", "content": "b"}], stream=True
        )  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([*shown("red", "a"), {"role": "assistant", "content": "b"}], "nothing to answer"),
        ([*shown("red", "a"), {"role": "user", "content": "b"}], "after 'user'"),
        ([{"role": "assistant", "content": "b"}], "after 'nothing'"),
        ([{"role": "user", "content": shown("red", "a")[0]["content"] * 17}], "looks at 16 cells"),
        ([{"role": "user", "content": "long " * 600}], "are kept of a conversation"),
    ],
)
def test_what_it_cannot_answer_it_says(client: openai.OpenAI, messages: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model=NAME, messages=messages)  # type: ignore[arg-type]
    assert refused.value.status_code in (400, 422) and why in str(refused.value)
