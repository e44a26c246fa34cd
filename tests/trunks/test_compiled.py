"""A compiled language model learns and says what one as it is written does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from test_causal_lm import TALKS, scripted
from tiny_models import twin

from sensorium.core.errors import UserError
from sensorium.modalities.conversation import Conversation
from sensorium.network.packed_conversation import mean_losses
from sensorium.trunks.causal_lm import CausalLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speakers")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.parametrize(
    ("name", "how"), [("llama", {"tune": "lora", "bits": 8}), ("qwen3", {"tune": "full", "checkpointing": True})]
)
def test_it_learns_what_one_as_written_does(
    folder: Path, name: str, how: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    path, made = str(twin(name, folder)), []
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    for compiled in (False, True):
        torch.manual_seed(0)
        trunk, modality = (
            CausalLM(8, [], path=path, rank=2, compile=compiled, **how).train(),
            Conversation(language=path),
        )
        with torch.no_grad():
            for parameter in trunk.learned.values():
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        found = []
        for some in (TALKS, TALKS[:2], TALKS[1:]):  # of other lengths each
            script = scripted(trunk, modality, some)[0]
            loss = mean_losses(trunk, script).sum()
            found += [loss.detach(), *torch.autograd.grad(loss, list(trunk.learned.values()))]
        with torch.no_grad():
            found.append(trunk.run(script.pool, script.index, script.lines))
            if trunk.adapted:
                with trunk.as_it_was():
                    found.append(trunk.run(script.pool, script.index, script.lines))
            ids = torch.tensor([trunk.language.ids("What is red?")])
            hidden, state = trunk.prefill_tokens(trunk.words(ids), torch.ones_like(ids, dtype=torch.bool))
            found += [hidden, trunk.decode_entered(state, trunk.words(ids[:, :1]))[0]]
        made.append(found)
        assert (graphs["unique_graphs"] > before) == compiled
    for number, (mine, theirs) in enumerate(zip(*made, strict=True)):
        assert torch.allclose(mine, theirs, atol=1e-4, rtol=1e-3), number


def test_what_can_not_be_compiled_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(twin("llama", folder))
    with pytest.raises(
        UserError,
        match=r"trunk.compile=true makes one program of each layer, past which trunk.expert=true could not go",
    ):
        CausalLM(8, [], path=path, compile=True, expert=True)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"trunk.compile=true wants a C\+\+ compiler.*apt-get install g\+\+"):
        CausalLM(8, [], path=path, compile=True)
