"""Questions in other words: a user's, and those that a language model finds and that still ask the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from conftest import shown_table
from tiny_models import twin

from sensorium.core.errors import UserError
from sensorium.data.schema import infer
from sensorium.data.table import Table
from sensorium.dialogue.synthesis import ask_data
from sensorium.dialogue.templates import (
    EXAMPLES,
    INSTRUCTION,
    UNRELATED,
    WORDS,
    Paraphraser,
    fill_holes,
    is_paraphrase,
    merge_wordings,
    paraphrase_templates,
    restore_holes,
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def rewording(tmp_path_factory: pytest.TempPathFactory) -> Paraphraser:
    return Paraphraser(str(twin("llama", tmp_path_factory.mktemp("speakers"))))


def test_a_users_wordings_in_any_language_are_asked_beside_ours() -> None:
    words = merge_wordings(
        {"name": ["Was ist das?"], "yes_no": ["Ist das {value}?"], "choice": ["Was davon ist es: {options}?"]}
    )
    assert words["name"] == (*WORDS["name"], "Was ist das?") and words["describe"] == WORDS["describe"]
    table = Table.open(shown_table(60))
    talks = (
        ask_data(table, infer(table), each=6, kinds={"name": 1, "yes_no": 1, "choice": 1}, words=words)
        .column("conversation")
        .to_pylist()
    )
    asked = [message["content"][-1]["text"] for talk in talks for message in talk if message["role"] == "user"]
    assert any(text == "Was ist das?" for text in asked) and any(text == "What is this?" for text in asked)
    for colour in ("red", "green", "blue"):
        assert f"Ist das {colour}?" in asked
    assert any(text.startswith("Was davon ist es: ") and " or " in text for text in asked) and not any(
        "{" in text for text in asked
    )


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ({"nmae": ["x?"]}, "Unknown question in the wordings: 'nmae'. Did you mean 'name'"),
        ({"name": "x?"}, "no list of texts"),
        ({"name": [""]}, "no list of texts"),
        ({"name": [3]}, "no list of texts"),
        ({"yes_no": ["Is this it?"]}, r"takes \{value\}, each once"),
        ({"yes_no": ["Is {value} {value}?"]}, r"takes \{value\}"),
        ({"name": ["What is {value}?"]}, "takes no hole"),
        ({"yes_no": ["Is this {value} {?"]}, "no other braces"),
        ({"how_many_have": ["How many have {value}?"]}, r"takes \{column\} and \{value\}"),
        ({"field": ["Which {value}?"]}, r"takes \{column\}"),
    ],
)
def test_wordings_that_ask_something_else_are_told(own: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        merge_wordings(own)


@pytest.mark.parametrize(
    ("kind", "text", "kept"),
    [
        ("yes_no", "Is it {value} that you see?", True),
        ("yes_no", "What is it {value}?", False),
        ("yes_no", "That's {value}!", False),
        ("yes_no", "Is this {value} from the house?", False),
        ("yes_no", "Is {value}?", False),
        ("yes_no", "Is this {value}? Yes?", False),
        ("yes_no", 'Is this "{value}"?', False),
        ("name", "Can you tell me what this is?", True),
        ("name", "Is this it?", False),
        ("name", "What is the name of the house?", False),
        ("name", "What?", False),
        ("name", "Can you tell me what this is that I see here and that you see there now?", False),
    ],
)
def test_other_words_are_kept_where_their_form_asks_the_same(kind: str, text: str, kept: bool) -> None:
    assert is_paraphrase(kind, text, WORDS[kind][0]) == kept


def test_what_stood_in_holes_makes_holes_again() -> None:
    wording = WORDS["how_many_have"][0]
    assert fill_holes(wording) == "How many of these have the colour a harp?"
    assert (
        restore_holes("Of these, how many have a harp as colour?", wording)
        == "Of these, how many have {value} as {column}?"
    )
    assert (
        restore_holes("How many have a harp?", wording) is None
        and restore_holes("A colour, a colour: a harp?", wording) is None
        and restore_holes("How many a harpist's colour?", wording) is None
    )


def test_how_likely_a_question_is_after_another_is_transformers_own(rewording: Paraphraser) -> None:
    language = rewording.language
    model = transformers.AutoModelForCausalLM.from_pretrained(language.folder, attn_implementation="eager").eval()
    talk = [
        {"role": role, "content": text}
        for asked, other in EXAMPLES
        for role, text in (("user", INSTRUCTION + asked), ("assistant", other))
    ]
    before = language.tokenizer.apply_chat_template(
        [*talk, {"role": "user", "content": INSTRUCTION + UNRELATED[0]}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=False,
    )
    wanted = [*language.ids("What is this?"), language.end]
    with torch.no_grad():
        logs = model(torch.tensor([[*before, *wanted]])).logits[0, len(before) - 1 : -1].log_softmax(-1)
        assert rewording.log_probability("What is this?", UNRELATED[0]) == pytest.approx(
            float(logs.gather(1, torch.tensor(wanted).unsqueeze(1)).mean()), abs=1e-4
        )
    drawn = rewording.sample("What is this?")
    assert all(isinstance(text, str) for text in drawn) and len(drawn) <= 16


def test_those_come_first_that_say_most_of_the_question_and_none_is_of_another(
    rewording: Paraphraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [
        "Can you tell me what this is?",
        "what's this?",
        "What is this?",
        "Describe this.",
        "Who do you see?",
        "What is the name of this?",
        "Tell me a story?",
        "What is this called?",
    ]
    monkeypatch.setattr(rewording, "sample", lambda question: said)
    rewording.known.clear()
    likely = {
        "Can you tell me what this is?": -1.0,
        "What is this?": -0.5,
        "What is the name of this?": -0.7,
        "What is this called?": -2.5,
        "Who do you see?": -9.0,
    }
    rival = "Describe this."
    monkeypatch.setattr(
        rewording,
        "log_probability",
        lambda question, other: (
            -4.0
            if other in UNRELATED
            else -0.5
            if question == other
            else likely[other]
            if question == "What is this?"
            else -0.6
            if (question, other) == (rival, said[0])
            else -5.0
        ),
    )
    assert rewording.paraphrases("name", ["What is this?"], 9) == ["What is the name of this?"], (
        "one says less than half, one nothing of it, one more of another question, the others ask otherwise"
    )
    rival = "And this?"
    assert rewording.paraphrases("name", ["What is this?"], 9) == ["What is the name of this?"]
    rival = ""
    assert rewording.paraphrases("name", ["What is this?"], 9) == [
        "What is the name of this?",
        "Can you tell me what this is?",
    ]
    assert rewording.paraphrases("name", ["What is this?"], 1) == ["What is the name of this?"]


def test_the_command_takes_wordings_and_writes_what_a_language_model_finds(
    run: Run, rewording: Paraphraser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(shown_table(40), tmp_path / "t.parquet")
    asks = ("ask-data", tmp_path / "t.parquet", "--out", tmp_path / "c.parquet", "--kinds", "name")
    status, _, err = run(*asks, "--words", tmp_path / "no.json")
    assert status == 2 and "no.json' can't be read: No such file" in err
    (tmp_path / "own.json").write_text("[1]")
    assert run(*asks, "--words", tmp_path / "own.json")[0] == 2
    (tmp_path / "own.json").write_text(json.dumps({"name": ["Quelle couleur ?"]}))
    assert run(*asks, "--words", tmp_path / "own.json")[0] == 0
    assert "Quelle couleur ?" in str(pq.read_table(tmp_path / "c.parquet").column("conversation").to_pylist())
    status, _, err = run(*asks, "--words", tmp_path / "own.json", "--reword", rewording.language.folder)
    assert status == 2 and "is there already" in err
    status, _, err = run(*asks, "--reword", rewording.language.folder, "--rewordings", 0)
    assert status == 2 and "--rewordings 0" in err
    monkeypatch.setattr(
        Paraphraser,
        "paraphrases",
        lambda self, kind, wordings, count: ["Can you say what this is?"] if kind == "name" else [],
    )
    status, out, err = run(*asks, "--words", tmp_path / "found.json", "--reword", rewording.language.folder)
    assert status == 0 and "name: Can you say what this is?" in out + err and "choice: no other words" in out + err
    assert json.loads((tmp_path / "found.json").read_text())["name"] == ["Can you say what this is?"]
    assert "Can you say what this is?" in str(pq.read_table(tmp_path / "c.parquet").column("conversation").to_pylist())


def test_a_random_language_model_finds_nothing_that_asks_the_same(rewording: Paraphraser) -> None:
    found = paraphrase_templates(str(rewording.language.folder), 2)
    assert not any(found.values())
    assert found.keys() == WORDS.keys() and merge_wordings(found).keys() == WORDS.keys()
