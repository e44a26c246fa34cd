"""GRPO: sampled answers with a high reward become likelier, and nothing but what is tuned changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import drawing, shown_table

from sensorium.core.errors import UserError
from sensorium.core.registry import find, names
from sensorium.data.schema import infer
from sensorium.data.table import Table
from sensorium.dialogue.rewards import AnswerReward, Reward
from sensorium.dialogue.synthesis import pair_data
from sensorium.model import Model

Run = Callable[..., tuple[int, str, str]]
FAST = ["reinforce.lr=2e-3", "reinforce.precision=fp32", "reinforce.longest=8", "reinforce.temperature=1.5"]


def questions(rows: int = 40, kinds: dict[str, float] | None = None) -> pa.Table:
    table = Table.open(shown_table(rows, seed=2))
    return pair_data(table, infer(table), each=2, kinds=kinds or {"name": 1})


def asks(text: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "cell", "column": "picture"}, {"type": "text", "text": text}]}]


def test_it_learns_to_say_what_is_wanted_though_it_was_seldom_said(talking: Model, tmp_path: Path) -> None:
    """The model says names of three to five letters; here short answers are wanted, whatever they are."""
    model = Model.load(shutil.copytree(talking.folder, tmp_path / "run"))
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    model.reinforce(
        questions(),
        score=lambda said, right, row: -float(len(said)) - (row["colour"] != right),
        epochs=6,
        settings=[*FAST, "reinforce.beta=0"],
    )
    facts = model.facts["reinforced"]
    assert facts["after"] > facts["before"] + 0.5 and facts["steps"] >= 40 and facts["held_out"] >= 5
    changed = [key for key, value in model.network.state_dict().items() if not torch.equal(value, before[key])]
    assert (
        changed
        and all(key.startswith("trunk.learned.") for key in changed)
        and all(p.requires_grad for p in model.network.parameters())
    )
    assert not (tmp_path / "run" / "reinforce").exists()
    picture = drawing("red", "square", 2)
    assert (
        Model.load(tmp_path / "run").chat(asks("What is this?"), cells={"picture": picture}).text
        == model.chat(asks("What is this?"), cells={"picture": picture}).text
    )


def test_what_it_was_begun_with_holds_it(talking: Model, tmp_path: Path) -> None:
    apart = []
    for beta in (0, 5):
        model = Model.load(shutil.copytree(talking.folder, tmp_path / f"run{beta}"))
        before = {key: value.detach().clone() for key, value in model.network.trunk.learned.items()}
        model.reinforce(
            questions(),
            score=lambda said, right, row: -float(len(said)),
            epochs=2,
            settings=[*FAST, f"reinforce.beta={beta}"],
        )
        picture = drawing("green", "square", 2)
        apart.append(
            sum(
                float((value.detach() - before[key]).square().sum())
                for key, value in model.network.trunk.learned.items()
            )
        )
        said = model.chat(asks("What is this?"), cells={"picture": picture}).text
    assert said == "green" and all(value > 0 for value in apart)


def test_a_judge_can_score_and_a_lesson_stopped_goes_on_to_the_same_numbers(
    talking: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import types

    from sensorium.posttraining.grpo import GRPOTrainer

    first, some = shutil.copytree(talking.folder, tmp_path / "judged"), questions(20)
    settings = [*FAST, "reinforce.score=judge", "reinforce.checkpoint_steps=2", "reinforce.group=4"]
    with pytest.raises(UserError, match="no judge"):
        Model.load(first).reinforce(some, epochs=1, settings=settings)
    Model.load(first).prefer(some, epochs=2, settings=["prefer.loss=reward", "prefer.lr=2e-3"])
    whole = Model.load(shutil.copytree(first, tmp_path / "whole")).reinforce(some, epochs=1, settings=settings)
    over, steps = GRPOTrainer.finished, whole.facts["reinforced"]["steps"]
    with monkeypatch.context() as patch:
        patch.setattr(GRPOTrainer, "finished", lambda self: self.at.step >= 4 or over(self))
        patch.setattr("sensorium.posttraining.grpo.shutil", types.SimpleNamespace(rmtree=lambda *given, **named: None))
        part = Model.load(shutil.copytree(first, tmp_path / "part"))
        part.reinforce(some, epochs=1, settings=settings)
    assert part.facts["reinforced"]["steps"] == 4 < steps
    shutil.copytree(tmp_path / "part" / "reinforce", tmp_path / "kept")
    shutil.rmtree(tmp_path / "part")
    shutil.copytree(first, tmp_path / "part")
    shutil.copytree(tmp_path / "kept", tmp_path / "part" / "reinforce")
    on = Model.load(tmp_path / "part").reinforce(some, epochs=1, settings=settings, resume=True)
    a, b = (m.network.state_dict() for m in (whole, on))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_questions_that_the_tuned_model_does_not_answer_are_left_out(talks: pa.Table, tmp_path: Path) -> None:
    from conftest import TALKING
    from tiny_models import twin

    settings = [
        *TALKING,
        "trunk=causal_lm",
        f"trunk.path={twin('llama', tmp_path)}",
        "trunk.rank=2",
        "questions.plans=0",
    ]
    model = Model.fit(talks.slice(0, 40), out=tmp_path / "run", epochs=1, settings=settings)
    table = pa.table({"conversation": [[{"role": "user", "content": "Hello"}]] * 3, "answer": ["Yes."] * 3})
    with pytest.raises(UserError, match="0 question"):
        model.reinforce(table, epochs=1)
    with pytest.raises(UserError, match="0 pair"):
        model.prefer(
            table.append_column("chosen", table["answer"]).append_column("rejected", table["answer"]), epochs=1
        )


def test_answers_are_scored_as_people_would() -> None:
    def score(name: str, answer: str, right: str) -> float:
        reward = find(Reward, name)()
        assert isinstance(reward, AnswerReward)
        return reward.score(answer, right)

    assert names(Reward) == ["contains", "exact", "judge", "words"]
    assert [score(name, "A red car.", "a red car") for name in ("exact", "contains", "words")] == [1, 1, 1]
    assert [score(name, "it is a red car", "red car") for name in ("exact", "contains")] == [0, 1]
    assert score("words", "a red car", "a blue car") == pytest.approx(2 / 3)
    assert score("words", "", "") == 0 and score("exact", "blue", "red") == 0


def test_what_is_no_question_is_told(talking: Model, fitted: Model, tmp_path: Path, run: Run) -> None:
    some, model = questions(20), Model.load(shutil.copytree(talking.folder, tmp_path / "run"))
    with pytest.raises(UserError, match="no column 'answer'"):
        model.reinforce(some.drop_columns(["chosen"]), epochs=1)
    with pytest.raises(UserError, match="no column 'conversation'"):
        model.reinforce(some.drop_columns(["conversation"]), epochs=1)
    with pytest.raises(UserError, match="0 question"):
        model.reinforce(
            some.set_column(some.column_names.index("chosen"), "chosen", pa.array([None] * some.num_rows, pa.string())),
            epochs=1,
        )
    with pytest.raises(UserError, match=r"score=bleu.*contains, exact, judge, words"):
        model.reinforce(some, epochs=1, settings=["reinforce.score=bleu"])
    with pytest.raises(UserError, match="reinforce.mean: 'all'"):
        model.reinforce(some, epochs=1, settings=["reinforce.mean=all"])
    with pytest.raises(UserError, match="section 'reinforce'"):
        model.reinforce(some, epochs=1, settings=["prefer.lr=1"])
    with pytest.raises(UserError, match="is nan"):
        model.reinforce(some, score=lambda said, right, row: float("nan"), epochs=1)
    with pytest.raises(UserError, match="hasn't learned to talk"):
        Model.load(shutil.copytree(fitted.folder, tmp_path / "other")).reinforce(some, epochs=1)
    pq.write_table(some, tmp_path / "q.parquet")
    status, out, _ = run(
        "reinforce",
        tmp_path / "run",
        tmp_path / "q.parquet",
        "reinforce.longest=6",
        "reinforce.group=4",
        "--epochs",
        1,
        "--out",
        tmp_path / "better",
    )
    assert not status and "held out score" in out and (tmp_path / "better" / "model.json").is_file()
    status, _, err = run("reinforce", tmp_path / "run", tmp_path / "q.parquet", "reinforce.group=1", "--epochs", 1)
    assert status and "group" in err
