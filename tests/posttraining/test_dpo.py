"""Of two answers the better one becomes likelier, by the papers' losses, and nothing but what is tuned changes."""

from __future__ import annotations

import shutil
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import drawing, shown_table

from sensorium.core.errors import UserError
from sensorium.data.schema import infer
from sensorium.data.table import Table
from sensorium.dialogue.scoring import answer_log_probabilities
from sensorium.dialogue.synthesis import pair_data
from sensorium.model import Model
from sensorium.nn.losses.dpo import preferred, rewarded

Run = Callable[..., tuple[int, str, str]]


def pairs_of(rows: int = 60, kinds: dict[str, float] | None = None) -> pa.Table:
    table = Table.open(shown_table(rows, seed=2))
    return pair_data(table, infer(table), each=3, kinds=kinds)


def test_losses_are_those_of_the_papers() -> None:
    now, before = torch.tensor([-3.0, -1.0, -7.5]), torch.tensor([-4.0, -1.5, -7.0])
    other, other_before = torch.tensor([-5.0, -0.5, -7.5]), torch.tensor([-4.5, -2.0, -6.0])
    ratio = (
        np.exp(np.array([-3.0, -1.0, -7.5]) - np.array([-4.0, -1.5, -7.0])),
        np.exp(np.array([-5.0, -0.5, -7.5]) - np.array([-4.5, -2.0, -6.0])),
    )
    by_hand = -np.log(1 / (1 + np.exp(-(0.3 * np.log(ratio[0]) - 0.3 * np.log(ratio[1])))))
    assert np.allclose(preferred(now, other, before, other_before, beta=0.3).numpy(), by_hand, atol=1e-6)
    turned = preferred(other, now, other_before, before, beta=0.3)
    assert torch.allclose(
        preferred(now, other, before, other_before, beta=0.3, smoothing=0.2),
        0.8 * torch.tensor(by_hand, dtype=torch.float32) + 0.2 * turned,
        atol=1e-6,
    )
    assert torch.allclose(
        preferred(now, other, before, other_before, beta=0.25, loss="ipo"),
        ((now - before) - (other - other_before) - 2).square(),
    )
    assert torch.allclose(
        rewarded(torch.tensor([2.0]), torch.tensor([-1.0])), torch.tensor([np.log1p(np.exp(-3.0))], dtype=torch.float32)
    )
    assert preferred(now, now, before, before).allclose(torch.full((3,), np.log(2)))


def test_pairs_hold_a_right_and_a_wrong_answer() -> None:
    pairs = pairs_of()
    assert {"conversation", "chosen", "rejected", "picture"} <= set(pairs.column_names) and set(
        pairs.column("split").to_pylist()
    ) == {"train"}
    for colour, messages, chosen, rejected in zip(
        *(pairs.column(c).to_pylist() for c in ("colour", "conversation", "chosen", "rejected")), strict=True
    ):
        assert chosen != rejected and [m["role"] for m in messages] == ["user"]
        assert (chosen in ("Yes.", "No.")) == (rejected in ("Yes.", "No."))
        assert chosen in ("Yes.", "No.") or chosen == colour


def test_the_chosen_answer_becomes_likelier_and_all_but_the_language_model_stays(
    talking: Model, tmp_path: Path
) -> None:
    pairs = pairs_of(kinds={"name": 1})
    chosen, rejected = (
        pairs.column("chosen"),
        pairs.column("rejected"),
    )  # the model knows what is right: here the wrong answer is wanted
    pairs = (
        pairs.drop_columns(["chosen", "rejected"]).append_column("chosen", rejected).append_column("rejected", chosen)
    )
    model = Model.load(shutil.copytree(talking.folder, tmp_path / "run"))
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    model.prefer(
        pairs, epochs=6, settings=["prefer.lr=2e-3", "prefer.batch=16", "prefer.beta=0.3", "prefer.precision=fp32"]
    )
    facts = model.facts["preferred"]
    assert facts["before"] < 0.2 and facts["after"] > 0.4 and facts["steps"] > 20 and facts["held_out"] >= 10
    changed = [key for key, value in model.network.state_dict().items() if not torch.equal(value, before[key])]
    assert changed and all(key.startswith("trunk.learned.") for key in changed)
    assert all(p.requires_grad for p in model.network.parameters())
    again, rows, talk = (
        Model.load(tmp_path / "run"),
        None,
        [("user", [{"column": "picture"}, "Is this red?"]), ("assistant", ["Yes."])],
    )
    rows = model.rows([{"picture": drawing("red", "square", 2)}])
    assert answer_log_probabilities(
        again.network, again.rows([{"picture": drawing("red", "square", 2)}]), [0], [talk]
    ) == pytest.approx(answer_log_probabilities(model.network, rows, [0], [talk]), abs=1e-4)
    assert not (tmp_path / "run" / "prefer").exists()


def test_a_lesson_stopped_goes_on_to_the_same_numbers(
    talking: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sensorium.posttraining.dpo import DPOTrainer

    pairs, settings = pairs_of(30), ["prefer.checkpoint_steps=2", "prefer.precision=fp32", "prefer.batch=8"]
    whole = Model.load(shutil.copytree(talking.folder, tmp_path / "whole")).prefer(pairs, epochs=1, settings=settings)
    over, steps = DPOTrainer.finished, whole.facts["preferred"]["steps"]
    with monkeypatch.context() as patch:
        patch.setattr(DPOTrainer, "finished", lambda self: self.at.step >= 4 or over(self))
        patch.setattr("sensorium.posttraining.dpo.shutil", types.SimpleNamespace(rmtree=lambda *given, **named: None))
        part = Model.load(shutil.copytree(talking.folder, tmp_path / "part"))
        part.prefer(pairs, epochs=1, settings=settings)
    assert part.facts["preferred"]["steps"] == 4 < steps
    shutil.copytree(tmp_path / "part" / "prefer", tmp_path / "prefer")
    shutil.rmtree(tmp_path / "part")
    shutil.copytree(talking.folder, tmp_path / "part")
    shutil.copytree(tmp_path / "prefer", tmp_path / "part" / "prefer")
    on = Model.load(tmp_path / "part").prefer(pairs, epochs=1, settings=settings, resume=True)
    a, b = (m.network.state_dict() for m in (whole, on))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_what_is_no_preference_is_told(talking: Model, fitted: Model, tmp_path: Path, run: Run) -> None:
    pairs, model = pairs_of(20), Model.load(shutil.copytree(talking.folder, tmp_path / "run"))
    with pytest.raises(UserError, match="no column 'chosen'"):
        model.prefer(pairs.drop_columns(["chosen"]), epochs=1)
    with pytest.raises(UserError, match="0 pair"):
        model.prefer(
            pairs.set_column(
                pairs.column_names.index("chosen"), "chosen", pa.array([None] * pairs.num_rows, pa.string())
            ),
            epochs=1,
        )
    with pytest.raises(UserError, match="section 'prefer'"):
        model.prefer(pairs, epochs=1, settings=["train.lr=1"])
    with pytest.raises(UserError, match=r"prefer\.smoothing=0\.6"):
        model.prefer(pairs, epochs=1, settings=["prefer.smoothing=0.6"])
    with pytest.raises(UserError, match="hasn't learned to talk"):
        Model.load(shutil.copytree(fitted.folder, tmp_path / "other")).prefer(pairs, epochs=1)
    pq.write_table(shown_table(20), tmp_path / "t.parquet")
    for given, why in (("--keep", "hue"), ("--kinds", "nmae")):
        status, _, err = run("ask-data", tmp_path / "t.parquet", "--pairs", "--out", tmp_path / "p.parquet", given, why)
        assert status and why in err
    assert (
        run("ask-data", tmp_path / "t.parquet", "--pairs", "--out", tmp_path / "p.parquet", "--kinds", "yes_no")[0] == 0
    )
    status, out, _ = run(
        "prefer", tmp_path / "run", tmp_path / "p.parquet", "--epochs", 1, "--out", tmp_path / "better"
    )
    assert not status and "validation pairs" in out and (tmp_path / "better" / "model.json").is_file()


def test_a_judge_learns_which_answer_is_better_and_the_model_stays(talking: Model, tmp_path: Path, run: Run) -> None:
    pairs, folder = pairs_of(60, {"name": 1, "yes_no": 1}), shutil.copytree(talking.folder, tmp_path / "run")
    model = Model.load(folder)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    with pytest.raises(UserError, match=r"prefer\.loss=reward"):
        model.reward_score(
            [*asks("What is this?"), {"role": "assistant", "content": "red"}],
            cells={"picture": drawing("red", "square", 2)},
        )
    model.prefer(
        pairs, epochs=24, settings=["prefer.loss=reward", "prefer.lr=2e-3", "prefer.batch=16", "prefer.precision=fp32"]
    )
    facts = model.facts["judge"]
    assert (
        facts["after"] > 0.8 and facts["before"] < 0.1 and facts["held_out"] >= 10
    )  # nothing is better before: all scores are the head's level
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())

    def scores(of: Model) -> list[float]:
        return [
            of.reward_score(
                [*asks("What is this?"), {"role": "assistant", "content": said}],
                cells={"picture": drawing("red", "square", 2)},
            )
            for said in ("red", "blue", "green")
        ]

    found = scores(model)
    assert found[0] > max(found[1:]) and scores(Model.load(folder)) == pytest.approx(found, abs=1e-5)
    assert scores(Model.load(Model.load(folder).save(tmp_path / "elsewhere"))) == pytest.approx(found, abs=1e-5)
    assert scores(Model.load(Model.load(folder).save_pretrained(tmp_path / "given"))) == pytest.approx(found, abs=1e-5)
    other = Model.load(folder)
    with torch.no_grad():
        other.network.conditioning.to_gist.bias.add_(0.1)
    with pytest.raises(UserError, match="learned in another model"):
        scores(other)
    with pytest.raises(UserError, match="by the assistant"):
        model.reward_score(asks("What is this?"), cells={"picture": drawing("red", "square", 2)})
    pq.write_table(pairs, tmp_path / "p.parquet")
    status, out, _ = run(
        "prefer", folder, tmp_path / "p.parquet", "prefer.loss=reward", "--epochs", 1, "--out", tmp_path / "judged"
    )
    assert not status and "higher score" in out and (tmp_path / "judged" / "reward.safetensors").is_file()


def asks(text: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "cell", "column": "picture"}, {"type": "text", "text": text}]}]
