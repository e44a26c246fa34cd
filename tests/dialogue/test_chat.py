"""From a table to a model that talks about it: conversations are built, learned, answered, explained, saved and
measured."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from conftest import TALKING, drawing, shown_table, tiny_table
from PIL import Image
from tiny_models import twin

from sensorium.backbones._open import _opened_language
from sensorium.core.errors import UserError
from sensorium.data.schema import infer
from sensorium.data.table import Table
from sensorium.dialogue.decoding import Sampling, decode_replies, generate_replies
from sensorium.dialogue.evaluate import examples
from sensorium.dialogue.messages import attach_media, with_retrieved_rows
from sensorium.dialogue.parts import dialogue_column
from sensorium.dialogue.questions import KINDS, SEVERAL, QuestionGenerator
from sensorium.dialogue.scoring import answer_log_probabilities, attribute_answer, choice_probabilities
from sensorium.dialogue.session import ChatSession
from sensorium.dialogue.synthesis import ask_data
from sensorium.export.language_model import read_adapter, write_adapter
from sensorium.inference.rows import Rows
from sensorium.model import Model
from sensorium.nn.online_memory import OnlineMemory
from sensorium.trunks.causal_lm import CausalLM

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speakers")


@pytest.fixture(scope="module")
def model(talking: Model) -> Model:
    return talking


def asks(text: str, cell: bool = True) -> list[dict[str, Any]]:
    return [
        {
            "role": "user",
            "content": [*([{"type": "cell", "column": "picture"}] if cell else []), {"type": "text", "text": text}],
        }
    ]


def picture(colour: str) -> bytes:
    return drawing(colour, "square", 2)


# --- conversations from a table ---------------------------------------------------------------------------------------


def test_questions_are_right_and_held_out_rows_stay_out(talks: pa.Table) -> None:
    assert set(talks.column("split").to_pylist()) == {"train"} and talks.num_rows > 200
    for colour, messages in zip(
        talks.column("colour").to_pylist(), talks.column("conversation").to_pylist(), strict=True
    ):
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2) and messages[0]["content"][
            0
        ]["column"] == "picture"
        for asked, told in zip(messages[::2], messages[1::2], strict=True):
            question, answer = asked["content"][-1]["text"], told["content"][0]["text"]
            if answer in ("Yes.", "No."):
                assert colour is None or (colour in question) == (answer == "Yes.")
            elif answer != "I don't know.":
                assert colour in answer


def test_conversations_are_a_function_of_the_seed_and_all_kinds_are_asked() -> None:
    table = Table.open(tiny_table(60, 0).select(["picture", "colour", "width", "day"]))
    schema = infer(table)
    one, two, other = (ask_data(table, schema, about="colour", each=8, seed=seed) for seed in (0, 0, 1))
    one, two, other = (made.column("conversation").to_pylist() for made in (one, two, other))
    assert one == two != other
    asker, rng = QuestionGenerator(table, schema, "colour"), np.random.default_rng(0)
    found = {
        q.kind
        for row in range(table.rows)
        for kind in set(KINDS) - set(SEVERAL)
        if (q := asker.question(kind, row, rng))
    }
    assert found == set(KINDS) - set(SEVERAL)
    missing = [q for row in range(table.rows) if (q := asker.question("unknown", row, rng))]
    assert missing and all(q.answer == "I don't know." for q in missing)


@pytest.mark.parametrize(
    ("how", "why_not"),
    [
        ({"about": "hue"}, "hue"),
        ({"of": ["photo"]}, "photo"),
        ({"kinds": {"nmae": 1}}, "nmae"),
        ({"each": 0}, "--each 0"),
        ({"keep": ["x"]}, "'x'"),
    ],
)
def test_what_cannot_be_asked_is_said(how: dict[str, Any], why_not: str) -> None:
    table = Table.open(shown_table())
    with pytest.raises(UserError, match=why_not):
        ask_data(table, infer(table), **how)


def test_a_table_of_no_rows_or_of_too_few_to_compare_is_told() -> None:
    empty = Table.open(shown_table().slice(0, 0))
    with pytest.raises(UserError, match="has no rows to ask about"):
        ask_data(empty, infer(empty))
    table = Table.open(pa.table({"name": ["a", "b"], "note": ["some words about it"] * 2, "split": ["train", "test"]}))
    with pytest.raises(UserError, match="Of kinds compare nothing can be asked"):
        ask_data(table, infer(table), about="name", of=["note"], kinds={"compare": 1})


# --- a model that talks -----------------------------------------------------------------------------------------------


def test_it_says_what_it_sees_in_rows_it_never_saw(model: Model) -> None:
    said = [
        model.chat(asks("What is this?"), cells={"picture": picture(colour)}).text
        for colour in ("red", "green", "blue")
    ]
    assert said == ["red", "green", "blue"]
    results = model.examine(shown_table(200, seed=7), split="test")
    assert results["n"] >= 30 and results["exact"] > 0.8


def test_some_answers_are_there_to_look_at(model: Model) -> None:
    part = Table.open(shown_table(40, seed=7))
    found = examples(model.network, part, infer(part), 8)
    assert 4 <= len(found) <= 8 and {question.kind for _, question, _ in found} <= {
        "name",
        "choice",
        "yes_no",
        "absent",
    }
    colours = part.take(range(part.rows), ["colour"]).column("colour").to_pylist()
    assert all(answer == question.answer == colours[row] for row, question, answer in found if question.kind == "name")


def test_pictures_come_in_messages_in_every_form(model: Model, tmp_path: Path) -> None:
    raw = picture("green")
    (tmp_path / "a.png").write_bytes(raw)
    forms = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(raw).decode()}},
        {"type": "image", "image": tmp_path / "a.png"},
        {"type": "image", "image": raw},
        {"type": "image", "image": Image.open(io.BytesIO(raw))},
    ]
    said = {
        model.chat([{"role": "user", "content": [form, {"type": "text", "text": "What is this?"}]}]).text
        for form in forms
    }
    assert said == {"green"}


def test_a_talk_goes_on_about_one_picture_after_the_other(model: Model) -> None:
    raw = {colour: picture(colour) for colour in ("red", "blue")}
    rows = model.rows([{"picture": raw["red"]}, {"picture": raw["blue"]}])
    talks = [
        [("user", [{"column": "picture", **row}, "What is this?"]), ("assistant", ["blue"])] for row in ({}, {"row": 1})
    ]
    second, other, first = (
        float(answer_log_probabilities(model.network, rows, [at], [talks[which]])[0])
        for at, which in ((1, 0), (0, 1), (0, 0))
    )
    assert (
        second == pytest.approx(other, abs=1e-5) and abs(first - second) > 0.1
    )  # a cell of the next row is that cell, whoever refers to it
    shown = [
        {
            "role": "user",
            "content": [{"type": "image", "image": raw["red"]}, {"type": "text", "text": "What is this?"}],
        },
        {"role": "assistant", "content": "red"},
        {
            "role": "user",
            "content": [{"type": "image", "image": raw["blue"]}, {"type": "text", "text": "What is this?"}],
        },
    ]
    cleaned, dealt = attach_media(shown, model.network)
    assert dealt == [{"picture": raw["red"]}, {"picture": raw["blue"]}] and cleaned[2]["content"][0] == {
        "type": "cell",
        "column": "picture",
        "row": 1,
    }
    said = model.chat(shown)
    assert (
        said.text == "blue" and said.prompt == model.chat(shown[:1]).prompt
    )  # no conversation that it learned showed two: each picture begins anew
    read, given = ChatSession(model).read(shown)
    because = attribute_answer(model.network, read, 0, given, said.text)
    assert all(abs(b.nats) < 1e-4 for b in because if b.column == "picture") and [
        b.nats > 0.05 for b in because if b.column == "picture 2" and not b.part
    ] == [True]
    assert sum(b.column == "picture 2" and bool(b.part) for b in because) > 2
    talk = model.network.modalities["conversation"]
    both = [
        json.dumps(
            [
                ["user", [{"column": "picture"}, "a"]],
                ["assistant", ["b"]],
                ["user", [{"column": "picture"}, "c"]],
                ["assistant", ["d"]],
            ][:many]
        ).encode()
        for many in (2, 4)
    ]
    other = type(talk)(language=talk.path)
    for cells, again in ((both[:1], False), (both, True)):
        other.learn([np.frombuffer(cell, np.uint8) for cell in cells])
        assert other.again == again and len(other.prepare(np.frombuffer(both[1], np.uint8))) > len(
            other.prepare(np.frombuffer(both[0], np.uint8))
        ) * (1.3 if again else 0.9)
    told = model.chat(
        [
            {
                "role": "user",
                "content": [{"type": "cell", "column": "picture", "row": 1}, {"type": "text", "text": "What is this?"}],
            }
        ],
        cells=[{"picture": raw["red"]}, {"picture": raw["blue"]}],
    )
    assert told.text == "blue"
    with pytest.raises(UserError, match="refers to 'picture', which isn't there"):
        model.chat(
            [{"role": "user", "content": [{"type": "cell", "column": "picture", "row": 2}]}],
            cells=[{"picture": raw["red"]}],
        )
    for row in (16, -1, "1"):
        with pytest.raises(UserError, match="refers to row"):
            model.chat(
                [{"role": "user", "content": [{"type": "cell", "column": "picture", "row": row}]}],
                cells={"picture": raw["red"]},
            )
    with pytest.raises(UserError, match="looks at 16 cells"):
        attach_media([{"role": "user", "content": [{"type": "image", "image": raw["red"]}] * 17}], model.network)


def test_a_model_in_bf16_talks_and_scores_answers(model: Model) -> None:
    """Cells are encoded in bf16 there; what brings them into the language model's width must take them."""
    table = Table.open(shown_table(4))
    read = Rows.of(model.network, table, ["picture"])
    read.precision = "bf16"
    column = dialogue_column(model.network)
    ids = model.network.modalities[column].shortened([["user", [{"column": "picture"}, "what is it?"]]])[0]
    (reply,) = decode_replies(model.network, read, [0], [ids], Sampling(max_tokens=3))
    assert reply.tokens >= 1
    chances = choice_probabilities(model.network, read, ["picture"], "what is it?", ["red", "blue"])
    assert chances.shape == (4, 2) and np.isfinite(chances).all()


@pytest.fixture(scope="module")
def chained() -> pa.Table:
    """Conversations about several pictures each: one after the other, two to compare, some to count."""
    table = Table.open(shown_table())
    return ask_data(table, infer(table), each=12, kinds={"name": 1, "next": 2, "compare": 2, "how_many": 0.5})


def test_questions_about_several_rows_are_right(chained: pa.Table) -> None:
    colours, asked = chained.column("colour").to_pylist(), Counter()
    for at, messages in enumerate(chained.column("conversation").to_pylist()):
        shown: list[str] = []
        new: list[str] = []
        for question, told in zip(messages[::2], messages[1::2], strict=True) if messages else ():
            new, before = (
                [colours[at + (part["row"] or 0)] for part in question["content"] if part["type"] == "cell"],
                new,
            )
            shown, new = shown + new, new or before
            text, answer = question["content"][-1]["text"], told["content"][0]["text"]
            if answer in ("The first.", "The second."):
                asked["compare"] += 1
                assert new[answer == "The second."] in text and new[0] != new[1]
            elif re.fullmatch(r"\d\.", answer):
                asked["how many"] += 1
                assert len(new) >= 3 and sum(colour in text for colour in new) == int(answer[0])
            elif "first" in text:
                asked["first"] += 1
                assert answer == shown[0]
            elif answer in ("Yes.", "No."):
                assert (new[0] in text) == (answer == "Yes.")
            else:
                asked["next" if len(shown) > 1 else "name"] += 1
                assert answer == new[0]
    assert min(asked[kind] for kind in ("compare", "how many", "first", "next", "name")) >= 10
    last = next(at for at in reversed(range(len(colours))) if chained.column("conversation")[at].is_valid)
    assert last >= len(colours) - 4  # and every row that is referred to is there


def test_numbers_and_groups_are_compared() -> None:
    table = Table.open(
        pa.table(
            {
                "name": [f"thing {n}" for n in range(40)],
                "size": [float(n) for n in range(40)],
                "group": [["a", "b"][n % 2] for n in range(40)],
                "split": ["train"] * 40,
                "note": ["long words that say nothing about it"] * 40,
            }
        )
    )
    made = ask_data(table, infer(table), about="name", of=["note"], each=8, kinds={"compare": 1, "how_many": 1})
    names, found = made.column("name").to_pylist(), Counter()
    for at, messages in enumerate(made.column("conversation").to_pylist()):
        if not messages:
            continue
        numbers = [
            int(names[at + (part["row"] or 0)].split()[1]) for part in messages[0]["content"] if part["type"] == "cell"
        ]
        text, answer = messages[0]["content"][-1]["text"], messages[1]["content"][0]["text"]
        if "larger size" in text or "size is larger" in text:
            found["more"] += 1
            assert answer == ("The first." if numbers[0] > numbers[1] else "The second.")
        elif "both" in text or "alike" in text:
            found["same"] += 1
            assert answer == ("Yes." if numbers[0] % 2 == numbers[1] % 2 else "No.")
        elif "group" in text:
            found["group"] += 1
            assert int(answer[0]) == sum(number % 2 == text.endswith("b?") for number in numbers)
        assert "split" not in text
    assert min(found[kind] for kind in ("more", "same", "group")) >= 5


@pytest.mark.parametrize("epochs", [1, pytest.param(24, marks=pytest.mark.slow)])
def test_several_pictures_are_learned_from_and_told_apart(
    chained: pa.Table, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    monkeypatch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
    settings = [
        *TALKING,
        "trunk=causal_lm",
        f"trunk.path={twin('llama', folder)}",
        "trunk.tune=full",
        "trunk.rate=1",
        "questions.plans=0",
        "questions.dialogue_rows=16",
    ]
    made = Model.fit(chained, out=tmp_path / "run", epochs=epochs, settings=settings, seed=0)
    talk = made.network.modalities["conversation"]
    if epochs > 1:
        found = Model.load(tmp_path / "run").examine(shown_table(200, seed=7), split="test")
        assert found["next"] > 0.8 and found["exact"] > 0.8 and found["compare"] > 0.6
    assert talk.again and talk.beside
    two = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": picture("red")},
                {"type": "image", "image": picture("blue")},
                "Which of the two is blue, the first or the second?",
            ],
        }
    ]
    assert made.chat(two).text in ("The first.", "The second.") or epochs == 1


def test_pieces_are_heard_as_they_are_said(model: Model) -> None:
    pieces: list[str] = []
    said = model.chat(asks("Describe this."), cells={"picture": picture("red")}, on_text=pieces.append)
    assert "".join(pieces).strip() == said.text and len(pieces) > 1 and said.ended and 0 < said.sureness <= 1


def test_rows_of_known_things_are_held_out_beside_whole_things_to_tell_how_often_it_is_right(
    folder: Path, talks: pa.Table, tmp_path: Path
) -> None:
    table = talks.append_column("thing", pa.array([f"{row % 9}" for row in range(talks.num_rows)]))
    settings = [
        *TALKING,
        "trunk=causal_lm",
        f"trunk.path={twin('llama', folder)}",
        "trunk.tune=full",
        "questions.plans=0",
        "data.entity_key=thing",
        "data.dialogue_validation=0.2",
        "column.thing.kind=out",
    ]
    model = Model.fit(table, out=tmp_path / "run", epochs=1, settings=settings)
    rows = model.facts["rows"]
    assert rows["alone"] >= 20 and rows["validation"] >= 5 and sum(rows.values()) == talks.num_rows
    assert model.network.modalities["conversation"].sureness is not None
    without = Model.fit(table, out=tmp_path / "other", epochs=1, settings=[*settings, "data.dialogue_validation=0"])
    assert without.facts["rows"]["validation"] == rows["validation"] and "alone" not in without.facts["rows"]


def test_it_says_how_often_such_answers_are_right_and_that_it_does_not_know(model: Model, tmp_path: Path) -> None:
    known = model.network.modalities["conversation"].sureness
    assert (
        known is not None
        and known == Model.load(model.save(tmp_path / "kept")).network.modalities["conversation"].sureness
    )
    said = model.chat(asks("What is this?"), cells={"picture": picture("red")})
    assert said.text == "red" and said.right > 0.7 and not said.unsure
    pieces: list[str] = []
    other = model.chat(
        asks("What is this?"), cells={"picture": picture("red")}, sure=said.right + 1e-6, on_text=pieces.append
    )
    assert (other.text, other.unsure, pieces) == (
        "I don't know.",
        "red",
        ["I don't know."],
    ) and other.right == said.right
    assert model.chat(asks("What is this?"), cells={"picture": picture("red")}, sure=said.right - 1e-6).text == "red"
    assert (
        model.chat(asks("Hello", cell=False), max_tokens=4).right is None
    )  # of what is about nothing shown nobody asked
    found = model.examine(shown_table(60, seed=9), about="colour", of=["picture"])
    assert 0 <= found["calibration"] < 0.25 and found["answered_right"] >= found["exact"] - 0.05


def test_answers_do_not_hang_on_who_is_asked_beside(model: Model) -> None:
    rows = model.rows(shown_table(12, seed=3))
    have = np.flatnonzero(rows.has("picture")).tolist()
    talks = [[("user", [{"column": "picture"}, text])] for text in ("What is this?", "Is this red?", "Describe this.")]
    together = generate_replies(model.network, rows, [row for row in have for _ in talks], talks * len(have))
    alone = [generate_replies(model.network, rows, [row], [talk])[0] for row in have for talk in talks]
    assert [r.text for r in together] == [r.text for r in alone]
    assert np.allclose([r.score for r in together], [r.score for r in alone], atol=1e-3)
    whole = [[*talk, ("assistant", [r.text])] for talk, r in zip(talks * len(have), together, strict=True)]
    ended = [at for at, r in enumerate(together) if r.ended]
    weighed = answer_log_probabilities(model.network, rows, [row for row in have for _ in talks], whole)
    assert np.allclose(weighed[ended], np.array([r.score for r in together])[ended], atol=1e-3)


def test_it_chooses_among_answers_also_such_as_it_never_learned(model: Model, tmp_path: Path, run: Run) -> None:
    table, names = shown_table(30, seed=6), ["red", "green", "blue", "zzzz"]
    said = model.choose(table, "What is this?", names)
    right = [
        a == b
        for a, b, there in zip(
            said.column("value").to_pylist(),
            table.column("colour").to_pylist(),
            table.column("picture").is_valid().to_pylist(),
            strict=True,
        )
        if there
    ]
    assert np.mean(right) > 0.9
    chance = np.stack([said.column(name).to_numpy() for name in names], 1)
    assert (
        np.allclose(chance.sum(1), 1, atol=1e-5)
        and np.allclose(chance.max(1), said.column("probability").to_numpy())
        and (chance[:, 3] < 0.2).all()
    )
    turned = model.choose(table, "What is this?", names[::-1])
    assert np.allclose(turned.column("red").to_numpy(), said.column("red").to_numpy(), atol=1e-4)
    assert model.choose(table.slice(0, 0), "What is this?", names).num_rows == 0
    pq.write_table(table, tmp_path / "t.parquet")
    assert (
        run(
            "choose",
            model.folder,
            tmp_path / "t.parquet",
            "--question",
            "What is this?",
            "--among",
            "red, green,blue,zzzz",
            "--out",
            tmp_path / "o.csv",
        )[0]
        == 0
    )
    assert (tmp_path / "o.csv").read_text().splitlines()[0].replace('"', "") == "value,probability,red,green,blue,zzzz"
    for options, why_not in ((["red"], "at least two"), (["red", "red"], "no two alike")):
        with pytest.raises(UserError, match=why_not):
            model.choose(table, "What is this?", options)


def test_why_names_the_cell_that_the_answer_came_from(model: Model) -> None:
    rows = model.rows([{"picture": picture("blue")}])
    found = attribute_answer(model.network, rows, 0, [("user", [{"column": "picture"}, "What is this?"])], "blue")
    assert found[0].column == "picture" and not found[0].part and found[0].nats > 1
    assert any(because.part for because in found)
    assert attribute_answer(model.network, rows, 0, [("user", ["What is red?"])], "blue") == []


def test_what_it_is_asked_wrongly_it_says(model: Model, fitted: Model) -> None:
    with pytest.raises(UserError, match="refers to 'picture', which isn't there"):
        model.chat(asks("What is this?"))
    with pytest.raises(UserError, match="last message is by 'assistant'"):
        model.chat([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    with pytest.raises(UserError, match="after 'user'"):
        model.chat([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    with pytest.raises(UserError, match="picture of the conversation can't be read"):
        model.chat(asks("What is this?"), cells={"picture": b"\x89PNG\r\n\x1a\nbroken"})
    with pytest.raises(UserError, match="can't look at video"):
        model.chat([{"role": "user", "content": [{"type": "video", "video": b"x"}]}])
    with pytest.raises(UserError, match="no data URL"):
        model.chat(
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}]
        )
    with pytest.raises(UserError, match="hasn't learned to talk"):
        fitted.chat(asks("What is this?"))
    with pytest.raises(UserError, match="are kept of a conversation"):
        model.chat(asks("long " * 500, cell=False))


def test_it_is_kept_without_its_language_model_where_that_is_not_tuned(
    model: Model, folder: Path, talks: pa.Table, tmp_path: Path
) -> None:
    said = model.chat(asks("What is this?"), cells={"picture": picture("red")})
    other = Model.load(shutil.copytree(model.folder, tmp_path / "copy"))
    again = other.chat(asks("What is this?"), cells={"picture": picture("red")})
    assert again.text == said.text and again.score == pytest.approx(said.score, abs=1e-4)
    settings = [
        *TALKING,
        "trunk=causal_lm",
        f"trunk.path={shutil.copytree(twin('llama', folder), tmp_path / 'lm')}",
        "trunk.rank=2",
        "questions.plans=0",
    ]
    small = Model.fit(talks.slice(0, 40), out=tmp_path / "small", epochs=1, settings=settings)
    before = small.chat(asks("Is this red?"), cells={"picture": picture("red")}, max_tokens=4)
    names = [key for key in small.network.state_dict() if "trunk" in key]
    assert any("lora_" in key for key in names) and not any("embed_tokens" in key for key in names)
    assert Model.load(tmp_path / "small").chat(
        asks("Is this red?"), cells={"picture": picture("red")}, max_tokens=4
    ).score == pytest.approx(before.score, abs=1e-4)
    given = small.save_pretrained(tmp_path / "given")
    assert "lm" in (given / "README.md").read_text() and str(tmp_path) not in (given / "model.json").read_text()
    config = json.loads((tmp_path / "lm" / "config.json").read_text())
    (tmp_path / "lm" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    _opened_language.cache_clear()  # a process opens each folder once
    with pytest.raises(UserError, match="isn't the one that"):
        Model.load(tmp_path / "small")
    shutil.rmtree(tmp_path / "lm")
    with pytest.raises(UserError, match="no language model"):
        Model.load(tmp_path / "small")
    shutil.move(given, tmp_path / "moved")
    assert Model.load(tmp_path / "moved").chat(
        asks("Is this red?"), cells={"picture": picture("red")}, max_tokens=4
    ).score == pytest.approx(before.score, abs=1e-4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # by PEFT, of transformers
@pytest.mark.parametrize("tune", ["lora", "dora"])
def test_its_language_model_is_one_for_transformers_and_peft(
    tune: str, folder: Path, talks: pa.Table, tmp_path: Path, run: Run
) -> None:
    settings = [
        *TALKING,
        "trunk=causal_lm",
        f"trunk.path={twin('llama', folder)}",
        f"trunk.tune={tune}",
        "trunk.rank=2",
        "trunk.rate=1",
        "questions.plans=0",
    ]
    model = Model.fit(talks.slice(0, 60), out=tmp_path / "run", epochs=2, settings=settings)
    assert run("export-trunk", tmp_path / "run", "--out", tmp_path / "lm")[0] == 0
    trunk, ids = model.network.trunk, torch.tensor([model.network.trunk.language.ids("What is this?")])
    with torch.no_grad():
        mine = trunk.logits(trunk.prefill_tokens(trunk.words(ids), torch.ones_like(ids, dtype=torch.bool))[0])
        alone = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
        assert torch.allclose(alone(ids).logits, mine, atol=1e-4) and not any(
            "lora" in name for name, _ in alone.named_parameters()
        )
        base = transformers.AutoModelForCausalLM.from_pretrained(twin("llama", folder))
        assert not torch.allclose(base(ids).logits, mine, atol=1e-3)
        tuned = peft.PeftModel.from_pretrained(base, tmp_path / "lm" / "adapter")
        assert torch.allclose(tuned(ids).logits, mine, atol=1e-4)
    fresh = CausalLM(8, [], path=str(twin("llama", folder)), tune=tune, rank=2)
    assert read_adapter(fresh, tmp_path / "lm" / "adapter") == sum(p.numel() for p in fresh.learned.values())
    with torch.no_grad():
        assert torch.allclose(
            fresh.logits(fresh.prefill_tokens(fresh.words(ids), torch.ones_like(ids, dtype=torch.bool))[0]),
            mine,
            atol=1e-4,
        )
    assert (tmp_path / "lm" / "projector.safetensors").is_file()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "lm").chat_template
    with pytest.raises(UserError, match="no language model"):
        Model.export_trunk(
            Model.fit(talks.drop_columns(["conversation"]), out=tmp_path / "other", epochs=1, settings=TALKING),
            tmp_path / "x",
        )


def test_several_adapters_take_turns(
    folder: Path, talks: pa.Table, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [
        *TALKING,
        "trunk=causal_lm",
        f"trunk.path={twin('llama', folder)}",
        "trunk.rank=4",
        "trunk.rate=1",
        "questions.plans=0",
    ]
    model = Model.fit(talks.slice(0, 60), out=tmp_path / "run", epochs=2, settings=settings)
    model.export_trunk(tmp_path / "zero")
    rows, talk = (
        model.rows([{"picture": picture("red")}]),
        [("user", [{"column": "picture"}, "Is this red?"]), ("assistant", ["Yes."])],
    )

    def heard() -> float:
        return float(answer_log_probabilities(model.network, rows, [0], [talk])[0])

    first = heard()
    with torch.no_grad():
        for parameter in model.network.trunk.learned.values():
            parameter.mul_(-2)
    model.export_trunk(tmp_path / "other")
    second = heard()
    assert abs(first - second) > 1e-3 and model.adapters.names == ["own"]
    model = Model.load(tmp_path / "run")
    assert (
        model.load_adapter(tmp_path / "other" / "adapter") > 0
        and (model.adapters.names, model.adapters.active) == (["own", "other"], "other")
        and heard() == pytest.approx(second, abs=1e-5)
    )
    model.load_adapter(tmp_path / "zero" / "adapter", "third")
    assert heard() == pytest.approx(first, abs=1e-5)
    for name, value in (("other", second), ("own", first), ("own", first), ("third", first), ("other", second)):
        model.adapters.use(name)
        assert model.adapters.active == name and heard() == pytest.approx(value, abs=1e-5)
    with pytest.raises(UserError, match="already"):
        model.load_adapter(tmp_path / "zero" / "adapter", "third")
    with pytest.raises(UserError, match="Unknown adapter 'fourth'"):
        model.adapters.use("fourth")
    monkeypatch.setattr("sys.stdin", io.StringIO("/adapter\n/adapter own\n/adapter x\n"))
    status, out, _ = run("chat", tmp_path / "run", "--adapter", tmp_path / "other" / "adapter")
    assert not status and "own, other (heard)" in out and "own (heard), other" in out and "Error: " in out


def test_an_adapter_of_another_model_is_refused_before_anything_changes(
    folder: Path, tmp_path: Path, fitted: Model
) -> None:
    def trunk(name: str, **how: Any) -> CausalLM:
        return CausalLM(8, [], path=str(twin(name, folder)), **how)

    write_adapter(trunk("llama", rank=2), tmp_path / "a")
    for other, why_not in (
        (trunk("llama", rank=3), "doesn't fit: .* in this run and .* in the adapter"),
        (trunk("mistral", rank=2), "learned on another language model"),
        (trunk("llama", tune="bias"), "no low-rank updates"),
    ):
        before = {key: value.clone() for key, value in other.learned.items()}
        with pytest.raises(UserError, match=why_not):
            read_adapter(other, tmp_path / "a")
        assert all(torch.equal(value, before[key]) for key, value in other.learned.items())
    with pytest.raises(UserError, match="no adapter in PEFT's layout"):
        read_adapter(trunk("llama", rank=2), tmp_path / "nothing")
    with pytest.raises(UserError, match="no low-rank updates"):
        fitted.load_adapter(tmp_path / "a")


def test_a_conversation_of_words_alone_is_answered_by_the_language_model_as_it_was(
    folder: Path, talks: pa.Table, tmp_path: Path
) -> None:
    settings = [
        *TALKING,
        "trunk=causal_lm",
        f"trunk.path={twin('llama', folder)}",
        "trunk.rank=4",
        "trunk.rate=1",
        "questions.plans=0",
    ]
    model = Model.fit(talks.slice(0, 60), out=tmp_path / "run", epochs=3, settings=settings)
    rows, talk = model.rows([{"picture": picture("red")}]), [("user", ["Hello"]), ("assistant", ["Yes."])]
    before = answer_log_probabilities(model.network, rows, [0], [talk])
    with torch.no_grad():
        for parameter in model.network.trunk.learned.values():
            parameter.zero_()
    assert answer_log_probabilities(model.network, rows, [0], [talk]) == pytest.approx(before, abs=1e-5)


def test_conversations_about_a_column_that_is_not_there_are_refused_before_training(
    folder: Path, talks: pa.Table, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="conversations in 'conversation' refer to: 'picture'"):
        Model.fit(
            talks.drop_columns(["picture"]),
            out=tmp_path / "run",
            epochs=1,
            settings=[s for s in TALKING if "picture" not in s]
            + ["trunk=causal_lm", f"trunk.path={twin('llama', folder)}"],
        )
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_conversations_without_a_language_model_are_refused_before_any_work(talks: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trunk=causal_lm .*column\.conversation\.kind=out"):
        Model.fit(talks, out=tmp_path / "run", epochs=1, settings=TALKING)


# --- in the terminal --------------------------------------------------------------------------------------------------


def test_the_terminal_talks_shows_explains_and_keeps(
    model: Model, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(picture("red"))
    table = tmp_path / "t.parquet"
    pq.write_table(shown_table(20, seed=3), table)
    lines = [
        f"/image {tmp_path / 'a.png'}",
        "What is this?",
        "/why",
        f"/save {tmp_path / 'talk.json'}",
        "/image x.png",
        "/nonsense",
        "/row 99",
        "/row 3",
        "What is this?",
        "/like",
        "/quit",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    status, out, err = run("chat", model.folder, "--table", table)
    assert status == 0, err
    assert (
        "red" in out
        and "nats likelier with it" in out
        and "can't be read" not in out
        and "x.png" in out
        and "/nonsense" in out
        and "Rows are 0 to 19" in out
        and "There is no index" in out
    )
    kept = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [m["role"] for m in kept] == ["user", "assistant"] and kept[1]["content"] == "red"


def test_a_question_about_many_rows_is_asked_of_the_table(
    model: Model, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(picture("red"))
    pq.write_table(table := shown_table(20, seed=3), tmp_path / "t.parquet")
    counts = Counter(c for c in table.column("colour").to_pylist() if c)
    lines = [
        "How many red ones are there?",
        "/ask which colour is the rarest",
        "/ask SELECT count(*) AS every FROM rows",
        "/ask DROP TABLE rows",
        f"/save {tmp_path / 'talk.json'}",
        f"/image {tmp_path / 'a.png'}",
        "Is this red?",
        "/quit",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    status, out, err = run("chat", model.folder, "--table", tmp_path / "t.parquet")
    assert status == 0, err
    assert (
        "SELECT count(*) AS count FROM rows WHERE \"colour\" = 'red'" in out
        and "or was this meant" in out
        and "isn't clear" in out
    )
    kept = [m["content"] for m in json.loads((tmp_path / "talk.json").read_text())["messages"]]
    assert (
        kept[1] == f"count {counts['red']}"
        and kept[5] == "every 20"
        and len(kept) == 6
        and min(counts, key=counts.get) in kept[3]
    )
    assert (
        out.count("picture is shown") == 1 and "such answers were right" in out
    )  # what is about something shown is answered by the model
    monkeypatch.setattr("sys.stdin", io.StringIO("/ask how many red ones\n"))
    assert "There is no table" in run("chat", model.folder)[1]


def test_why_tells_of_what_it_would_have_said(
    model: Model, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(picture("red"))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"/image {tmp_path / 'a.png'}\nWhat is this?\n/why\n"))
    status, out, _ = run("chat", model.folder, "--sure", 1)
    assert status == 0 and "I don't know." in out and "would have been: red" in out
    assert float(re.search(r"picture: ([+-][\d.]+) nats", out)[1]) > 1


def test_rows_of_an_index_come_with_the_answer(
    model: Model, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = shown_table(40, seed=4)
    index = model.index(table, tmp_path / "index")
    said = model.chat(asks("What is this?"), cells={"picture": picture("red")}, index=index, cited=5)
    colours, scores = table.column("colour").to_pylist(), [row["score"] for row in said.cited]
    assert said.text == "red" and len(said.cited) == 5 and scores == sorted(scores, reverse=True)
    assert (
        all(row["colour"] == colours[row["row"]] for row in said.cited)
        and sum(row["colour"] == "red" for row in said.cited) >= 4
    )
    bare = model.chat(asks("Hello", cell=False), max_tokens=4, index=index)
    assert (
        bare.cited == [] and bare.prompt == model.chat(asks("Hello", cell=False), max_tokens=4).prompt
    )  # no column of it could be searched by words
    (tmp_path / "a.png").write_bytes(picture("blue"))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"/image {tmp_path / 'a.png'}\nWhat is this?\n"))
    status, out, err = run("chat", model.folder, tmp_path / "index")
    assert status == 0 and re.search(r"\[\d+\] colour: blue; split: \w+ \([\d.]+\)", out), (out, err)


def test_a_question_comes_after_the_rows_that_were_looked_up_for_it() -> None:
    talk = [("system", ["Be kind."]), ("user", ["What is the price of tea?"])]
    found = [
        {"row": 7, "score": 0.9, "name": "green tea", "price": 3.5, "photo": None, "gone": ""},
        {"row": 2, "score": 0.8, "name": "x" * 500, "price": 1, "photo": None, "gone": ""},
    ]
    whole = with_retrieved_rows(talk, found)
    assert whole[0] == talk[0] and whole[1][1][1:] == talk[1][1]
    assert whole[1][1][
        0
    ] == "Known rows:\nRow 7: name: green tea; price: 3.5\nRow 2: name: " + "x" * 200 + "; price: 1\n\n" and talk[
        1
    ] == ("user", ["What is the price of tea?"])
    assert with_retrieved_rows(talk, []) == talk


def test_the_commands_build_and_measure(tmp_path: Path, model: Model, run: Run) -> None:
    pq.write_table(shown_table(40), tmp_path / "t.parquet")
    assert (
        run(
            "ask-data", tmp_path / "t.parquet", "--out", tmp_path / "c.parquet", "--each", 2, "--kinds", "name:3,choice"
        )[0]
        == 0
    )
    assert pq.read_table(tmp_path / "c.parquet").column_names == ["picture", "colour", "split", "conversation"]
    assert (
        run(
            "evaluate", model.folder, tmp_path / "t.parquet", "--chat", "--split", "test", "--json", tmp_path / "r.json"
        )[0]
        == 0
    )
    assert set(json.loads((tmp_path / "r.json").read_text())["chat"]) == {
        "exact",
        "choice",
        "yes_no",
        "absent",
        "n",
        "calibration",
        "answered",
        "answered_right",
    }
    status, out, _ = run("columns", tmp_path / "c.parquet")
    assert not status and "lists of messages" in out
    for given, why_not in ((("--kinds", "name:x"), "no number"), (("--out", str(tmp_path / "c.csv")), ".parquet")):
        status, _, err = run(
            "ask-data",
            tmp_path / "t.parquet",
            *(("--out", tmp_path / "d.parquet") if given[0] != "--out" else ()),
            *given,
        )
        assert status and why_not in err


# --- looking up what is like it ---------------------------------------------------------------------------------------


def test_what_is_like_a_cell_is_told_beside_it_and_nobody_looks_himself_up(
    talks: pa.Table, folder: Path, tmp_path: Path
) -> None:
    settings = [
        *TALKING,
        "trunk=causal_lm",
        f"trunk.path={twin('llama', folder)}",
        "trunk.tune=full",
        "trunk.rate=1",
        "questions.plans=0",
        "column.conversation.recall=colour",
        "column.conversation.recalled=2",
        "column.conversation.tokens=3",
    ]
    model = Model.fit(talks, out=tmp_path / "run", epochs=4, settings=settings)
    (bank,) = model.network.dialogue.online_memories.values()
    assert 20 < int(bank.count) <= 64, "each picture is kept once, however often it was seen"
    said = model.chat(asks("What is this?"), cells={"picture": picture("red")}, max_tokens=4)
    assert (
        said.recalled
        and set(said.recalled) <= {"red", "green", "blue"}
        and said.prompt > model.chat(asks("What is this?", cell=False), max_tokens=2).prompt + 10
    )
    gist = bank.seen_gists[:1].clone()
    first = bank.words(0)
    assert bank.most_similar(gist, 1)[0][0] == [first]
    bank.store(torch.tensor([77]), gist, None, ["alone"])
    assert (
        bank.most_similar(gist, 4, torch.tensor([5]))[0][0]
        and "alone" not in bank.most_similar(gist, 3, torch.tensor([77]))[0][0]
    )
    again = Model.load(model.folder)
    assert again.chat(asks("What is this?"), cells={"picture": picture("red")}, max_tokens=4).recalled == said.recalled
    with pytest.raises(UserError, match="hue"):
        Model.fit(talks, out=tmp_path / "other", epochs=1, settings=[*settings, "column.conversation.recall=hue"])


def test_a_full_recall_forgets_the_oldest() -> None:
    bank = OnlineMemory(4, 3)
    for number in range(5):
        bank.store(torch.tensor([number]), torch.eye(5, 4)[number : number + 1], None, [str(number)])
    assert [bank.words(place) for place in range(3)] == ["3", "4", "2"] and int(bank.count) == 5
    bank.store(torch.tensor([2]), torch.ones(1, 4), None, ["two"])
    assert [bank.words(place) for place in range(3)] == ["3", "4", "two"] and bank.most_similar(torch.ones(1, 4), 1)[
        0
    ] == [["two"]]
