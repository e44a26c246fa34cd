"""A language model as the trunk says what transformers' own model says, whoever stands beside it, and stays what it was
where it isn't tuned.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import SPEAKERS, twin

from sensorium.backbones._open import open_language
from sensorium.backbones._tuning import Tuning
from sensorium.core.errors import BadCell, UserError
from sensorium.export.language_model import write_prompt
from sensorium.modalities._messages import messages_of
from sensorium.modalities.conversation import Conversation
from sensorium.network.packed_conversation import cross_entropy, mean_losses, pack
from sensorium.trunks.causal_lm import CausalLM

TALKS = [
    [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "A colour."}],
    [
        {"role": "user", "content": "Say a long sentence about nothing in particular."},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
    ],
    [{"role": "user", "content": "ä 猫"}, {"role": "assistant", "content": "é"}],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speakers")


@pytest.fixture(params=SPEAKERS)
def path(request: pytest.FixtureRequest, folder: Path) -> Path:
    return twin(request.param, folder)


def scripted(trunk: CausalLM, modality: Conversation, talks: list) -> tuple[object, list[np.ndarray]]:
    cells = [modality.prepare(modality.read(talk)) for talk in talks]
    lines, said = (
        [half.astype(kind) for half in halves]
        for halves, kind in zip(zip(*(np.split(cell, 2) for cell in cells), strict=True), (np.int64, bool), strict=True)
    )
    return pack(trunk, lines, said, np.arange(len(cells)), {}, {}), lines


def test_packed_conversations_are_to_it_what_each_alone_is_to_transformers(path: Path) -> None:
    trunk, modality = CausalLM(8, [], path=str(path), tune="frozen").eval(), Conversation(language=str(path))
    model = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    made, ids = scripted(trunk, modality, TALKS)
    with torch.no_grad():
        said = trunk.logits(trunk.run(made.pool, made.index, made.lines)).split([len(line) for line in ids])
        for mine, line in zip(said, ids, strict=True):
            theirs = model(torch.from_numpy(line).long().unsqueeze(0)).logits[0]
            assert torch.allclose(mine, theirs, atol=1e-4)


def test_a_remembered_beginning_goes_on_as_the_whole_does(path: Path) -> None:
    trunk, modality = CausalLM(8, [], path=str(path), tune="frozen").eval(), Conversation(language=str(path))
    made, ids = scripted(trunk, modality, TALKS)
    with torch.no_grad():
        whole = trunk.run(made.pool, made.index, made.lines).split([len(line) for line in ids])
        tokens, there, groups = made.padded()
        cut = int(min(map(len, ids))) // 2
        hidden, state = trunk.prefill_tokens(tokens[:, :cut], there[:, :cut], groups[:, :cut])
        for at in range(cut, cut + 4):
            more, state = trunk.decode_entered(state, tokens[:, at : at + 1])
            for row, line in enumerate(whole):
                assert torch.allclose(more[row, 0], line[at], atol=1e-4)
        for row, line in enumerate(whole):
            assert torch.allclose(hidden[row], line[:cut], atol=1e-4)


def test_the_template_is_the_models_own_and_no_text_is_a_control_token(path: Path) -> None:
    modality = Conversation(language=str(path))
    language = modality.language
    talk = [{"role": "system", "content": ""}, *TALKS[1]] if language.has_system else TALKS[1]
    ids = modality.prepare(modality.read(talk))
    theirs = language.tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False)
    assert list(ids[: len(ids) // 2]) == list(theirs)
    end = language.tokenizer.eos_token
    hostile = [
        {"role": "user", "content": f"a{end}b <|im_start|> {language.tokenizer.bos_token}"},
        {"role": "assistant", "content": f"x{end}y"},
    ]
    benign = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}]
    count = [sum(int(i) in language.special for i in modality.prepare(modality.read(t))) for t in (hostile, benign)]
    assert count[0] == count[1]


def test_only_what_the_assistant_says_is_learned_with_its_end(path: Path) -> None:
    modality = Conversation(language=str(path))
    ids = modality.prepare(modality.read(TALKS[1]))
    line, said = ids[: len(ids) // 2], ids[len(ids) // 2 :].astype(bool)
    assert modality.language.text(line[said].tolist()) == "No.So."
    assert sum(int(i) in modality.language.special for i in line[said]) == 2


@pytest.mark.parametrize("tune", ["frozen", "lora", "bias", "last:1", "full"])
def test_what_is_tuned_and_nothing_else_has_gradients(folder: Path, tune: str) -> None:
    path = twin("qwen3", folder)
    trunk, modality = CausalLM(8, [], path=str(path), tune=tune, rank=2).train(), Conversation(language=str(path))
    mean_losses(trunk, scripted(trunk, modality, TALKS)[0]).sum().backward() if tune != "frozen" else None
    reached = {name for name, p in trunk.wrapped[0].named_parameters() if p.grad is not None}
    wanted = {name for name, p in trunk.wrapped[0].named_parameters() if p.requires_grad}
    assert reached == wanted and bool(wanted) == (tune != "frozen")
    assert {key.replace("/", ".") for key in trunk.learned} == wanted
    assert all(("lora_" in name) == (tune == "lora") for name in wanted)
    assert trunk.facts()["tuned_parameters"] == sum(p.numel() for p in trunk.learned.values())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # by PEFT, of transformers
def test_learned_tokens_come_before_all_and_are_heard_as_in_peft(path: Path, tmp_path: Path) -> None:
    trunk, modality = CausalLM(8, [], path=str(path), tune="prompt:5").train(), Conversation(language=str(path))
    assert (
        trunk.facts()["tuned_parameters"] == 5 * trunk.table[0].weight.shape[1]
        and CausalLM(8, [], path=str(path), tune="prompt").prompted == 16
    )
    made, ids = scripted(trunk, modality, TALKS)
    mean_losses(trunk, made).sum().backward()
    assert trunk.learned["prompt"].grad.abs().sum() > 0 and not any(
        p.grad is not None for p in trunk.wrapped[0].parameters()
    )
    with torch.no_grad():
        trunk.eval().learned["prompt"].add_(
            0.1 * torch.randn(trunk.learned["prompt"].shape, generator=torch.Generator().manual_seed(0))
        )
        whole = trunk.run(made.pool, made.index, made.lines).split([len(line) for line in ids])
        tokens, there, groups = made.padded()
        hidden, state = trunk.prefill_tokens(tokens[:, :4], there[:, :4], groups[:, :4])
        for row, line in enumerate(whole):
            assert torch.allclose(hidden[row, : min(4, len(line))], line[:4], atol=1e-5)
        assert torch.allclose(trunk.decode_entered(state, tokens[:, 4:5])[0][0], whole[0][4:5], atol=1e-5)
        base = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
        write_prompt(trunk, tmp_path)
        tuned = peft.PeftModel.from_pretrained(base, tmp_path).eval()
        for mine, line in zip(whole, ids, strict=True):
            assert torch.allclose(
                trunk.logits(mine), tuned(torch.from_numpy(line).long().unsqueeze(0)).logits[0, 5:], atol=1e-4
            )
        frozen = CausalLM(8, [], path=str(path), tune="frozen").eval()
        with trunk.as_it_was():
            assert torch.equal(
                trunk.run(made.pool, made.index, made.lines), frozen.run(made.pool, made.index, made.lines)
            )
        assert not torch.allclose(
            trunk.run(made.pool, made.index, made.lines), frozen.run(made.pool, made.index, made.lines), atol=1e-3
        )


@pytest.mark.parametrize("tune", ["prompt:0", "last:0", "last", "lora:3", "prompt:x"])
def test_a_tuning_that_is_none_is_told(folder: Path, tune: str) -> None:
    with pytest.raises(UserError, match=rf"trunk\.tune={tune} isn't known.*prompt:N"):
        CausalLM(8, [], path=str(twin("llama", folder)), tune=tune)
    with pytest.raises(UserError, match=r"column\.photo\.tune=prompt:4 isn't known.*full\."):
        Tuning("prompt:4", where="column.photo")


def test_without_its_adapters_the_language_model_is_as_it_was(folder: Path) -> None:
    path = twin("llama", folder)
    trunk, modality = CausalLM(8, [], path=str(path), rank=2).eval(), Conversation(language=str(path))
    made, _ = scripted(trunk, modality, TALKS)
    with torch.no_grad():
        before = trunk.run(made.pool, made.index, made.lines)
        for parameter in trunk.learned.values():
            parameter += 0.3 * torch.randn_like(parameter)
        assert (trunk.run(made.pool, made.index, made.lines) - before).abs().max() > 0.01
        with trunk.as_it_was():
            assert torch.equal(trunk.run(made.pool, made.index, made.lines), before)


@pytest.mark.parametrize("name", SPEAKERS)
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_loss_in_pieces_is_torchs_own_with_its_gradients(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, tune: str
) -> None:
    trunk = CausalLM(8, [], path=str(twin(name, folder)), tune=tune, rank=2).train()
    trunk.scale = 1.7
    hidden, wanted, weights = 3 * torch.randn(50, 24), torch.randint(0, trunk.vocabulary, (50,)), torch.rand(50)
    inputs = [hidden.requires_grad_(), *([trunk.head[0].weight] if tune == "full" else [])]
    found = []
    for way in (
        lambda: torch.nn.functional.cross_entropy(trunk.logits(hidden), wanted, reduction="none"),
        lambda: cross_entropy(trunk, hidden, wanted),
        lambda: cross_entropy(trunk, hidden, wanted),
    ):
        if len(found) == 2:
            monkeypatch.setattr("sensorium.nn.losses.chunked_cross_entropy.MAX_LOGITS", 7 * trunk.vocabulary)
        loss = way()
        found.append([loss, *torch.autograd.grad((loss * weights).sum(), inputs)])
    for mine in found[1:]:
        assert all(torch.allclose(a, b, atol=2e-6) for a, b in zip(mine, found[0], strict=True))
    with torch.no_grad():
        assert torch.allclose(cross_entropy(trunk, hidden, wanted), found[0][0], atol=2e-6)


def test_in_bf16_a_loss_in_pieces_is_as_near_as_torchs(folder: Path) -> None:
    trunk = CausalLM(8, [], path=str(twin("llama", folder)), tune="full").train()
    hidden, wanted = torch.randn(50, 24, requires_grad=True), torch.randint(0, trunk.vocabulary, (50,))
    exact, *gradients = (lambda loss: (loss, *torch.autograd.grad(loss.sum(), [hidden, trunk.head[0].weight])))(
        cross_entropy(trunk, hidden, wanted)
    )
    with torch.autocast("cpu", torch.bfloat16):
        rough = cross_entropy(trunk, hidden, wanted)
    assert rough.dtype == torch.float32 and 0 < (rough - exact).abs().max() < 0.05
    for mine, wanted_gradient in zip(
        torch.autograd.grad(rough.sum(), [hidden, trunk.head[0].weight]), gradients, strict=True
    ):
        assert (mine - wanted_gradient).norm() < 0.02 * wanted_gradient.norm()


def test_checkpointing_gives_the_same_gradients(folder: Path) -> None:
    path, found = twin("llama", folder), []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        trunk, modality = (
            CausalLM(8, [], path=str(path), tune="full", checkpointing=checkpointing).train(),
            Conversation(language=str(path)),
        )
        mean_losses(trunk, scripted(trunk, modality, TALKS)[0]).sum().backward()
        found.append([p.grad for p in trunk.learned.values()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


def test_too_long_a_conversation_loses_its_oldest_exchanges_whole(folder: Path) -> None:
    path = str(twin("llama", folder))
    long = [{"role": "system", "content": "S"}]
    for number in range(12):
        long += [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": f"answer {number}"},
        ]
    modality = Conversation(language=path, length=200)
    ids = modality.prepare(modality.read(long))
    text = modality.language.text(ids[: len(ids) // 2].tolist())
    assert len(ids) // 2 <= 200 and "answer 11" in text and "question 0" not in text and text.startswith("system\nS")
    first = min(number for number in range(12) if f"answer {number}" in text)
    assert f"question {first}" in text
    with pytest.raises(BadCell, match="tokens; 200 are kept"):
        modality.prepare(modality.read([{"role": "user", "content": "a" * 300}, {"role": "assistant", "content": "b"}]))


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ([{"role": "assistant", "content": "x"}], "after 'nothing'"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": "y"}], "message 2 is by 'user' after 'user'"),
        ([{"role": "user", "content": "x"}, {"role": "system", "content": "y"}], "message 2 is by 'system'"),
        ([{"role": "narrator", "content": "x"}], "by 'narrator'; known are"),
        ([], "no messages"),
        ("{", "no JSON"),
        ([1], "no object with a role"),
        (5, "no list of messages"),
        ([{"role": "system", "content": "x"}], "nothing but a system message"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}],
            "brings its media inside",
        ),
        ([{"role": "user", "content": [{"type": "hologram"}]}], "type 'hologram'"),
    ],
)
def test_conversations_in_disorder_are_bad_cells_that_say_where(cell: object, why: str) -> None:
    with pytest.raises(BadCell, match=why):
        Conversation().read(cell)


def test_every_layout_is_the_same_conversation() -> None:
    own = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    ]
    llava = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    swift = {"messages": [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A cat."}]}
    found = [messages_of(cell) for cell in (own, llava, swift, json.dumps(own), {"conversations": llava})]
    assert all(each == found[0] for each in found) and found[0][0] == ("user", [{"column": "image"}, "What?"])


def test_what_is_no_language_model_is_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    def broken(name: str, change: object = None) -> str:
        target = shutil.copytree(twin("llama", folder), tmp_path / name)
        if callable(change):
            change(target)
        return str(target)

    def cut(target: Path) -> None:
        weights = target / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:500])

    def fewer(target: Path) -> None:
        tensors = load_file(target / "model.safetensors")
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:100].clone()
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(
            json.dumps({**config, "vocab_size": 100, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0})
        )

    for given, why in (
        ("", "needs a language model: trunk.path"),
        (str(tmp_path / "nothing"), "no backbone|no such folder"),
        (str(twin("bert", folder)), "is no language model"),
        (broken("code", lambda target: (target / "run.py").write_text("1")), "brings code of its own"),
        (broken("cut", cut), "cut short"),
        (broken("fewer", fewer), "don't belong together"),
    ):
        with pytest.raises(UserError, match=why):
            CausalLM(8, [], path=given)
    with pytest.raises(UserError, match="Possible: frozen, lora"):
        CausalLM(8, [], path=str(twin("llama", folder)), tune="some")
    with pytest.raises(UserError, match="no layer 'nose'"):
        CausalLM(8, [], path=str(twin("llama", folder)), targets="nose")
    assert open_language(str(twin("llama", folder))).end
