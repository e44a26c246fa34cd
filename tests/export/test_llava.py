"""Pictures as LLaVA hears them, and a model of that layout which transformers alone opens and which says the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from conftest import TALKING, drawing, shown_table
from PIL import Image
from tiny_models import twin

from sensorium.backbones import features
from sensorium.backbones._open import open_backbone
from sensorium.core.errors import UserError
from sensorium.dialogue.scoring import answer_log_probabilities
from sensorium.model import Model
from sensorium.nn.feature_projection import PatchProjector

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


def settings_of(folder: Path, tower: str = "clip", *more: str, speaker: str = "llama") -> list[str]:
    return [
        *(s for s in TALKING if not s.startswith("column.picture")),
        f"column.picture.backbone={twin(tower, folder)}",
        "column.picture.llava=true",
        "trunk=causal_lm",
        f"trunk.path={twin(speaker, folder)}",
        "trunk.rank=2",
        "trunk.rate=1",
        "questions.plans=0",
        'column.conversation.system=Look "well"\nat it.',
        *more,
    ]


def asks(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "cell", "column": "picture"}, {"type": "text", "text": text}]}]


@pytest.mark.parametrize(
    ("tower", "tune", "speaker"),
    [("clip", "frozen", "llama"), ("siglip", "frozen", "qwen3"), ("clip", "lora", "llama")],
)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # by PEFT, of transformers
def test_transformers_alone_opens_it_and_says_the_same(
    tower: str, tune: str, speaker: str, no_report: None, folder: Path, talks: pa.Table, tmp_path: Path, run: Run
) -> None:
    model = Model.fit(
        talks.slice(0, 60),
        out=tmp_path / "run",
        epochs=2,
        seed=0,
        settings=settings_of(
            folder,
            tower,
            f"column.picture.tune={tune}",
            "column.picture.rank=2",
            "column.picture.tune_rate=1",
            speaker=speaker,
        ),
    )
    status, out, _ = run("export-trunk", tmp_path / "run", "--out", tmp_path / "lm")
    assert status == 0 and f"Wrote {tmp_path / 'lm' / 'llava'}: all of it in the layout of LLaVA" in out
    alone = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "lm" / "llava").eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "lm" / "llava")
    assert not any("lora" in name for name, _ in alone.named_parameters())
    for colour in ("red", "blue"):
        raw = drawing(colour, "square", 2)
        talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
        prompt = processor.apply_chat_template(talk, add_generation_prompt=True)
        given = processor(images=[Image.open(io.BytesIO(raw)).convert("RGB")], text=prompt, return_tensors="pt")
        assert int((given["input_ids"] == alone.config.image_token_id).sum()) == 16
        rows = model.rows([{"picture": raw}])
        network, ids = model.network, model.network.modalities["conversation"]
        line = ids.shortened([["user", [{"column": "picture"}, "What is this?"]]], answer=True)[0]
        cells = ids.collate([np.array([*line, *[0] * len(line)], np.int32)])
        with torch.inference_mode():
            made = network.dialogue.pack_conversations(
                "conversation", {"picture": rows.encoded("picture")}, cells, torch.tensor([0])
            )
            mine = network.trunk.logits(network.trunk.run(made.pool, made.index, made.lines))
            theirs = alone(**given).logits[0]
            assert mine.shape[0] == theirs.shape[0] and (mine - theirs[:, : mine.shape[1]]).abs().max() <= 1e-3
            said = alone.generate(**given, do_sample=False, max_new_tokens=12)[0, given["input_ids"].shape[1] :]
        answer = model.chat(asks("What is this?"), cells={"picture": raw}, max_tokens=12)
        assert processor.decode(said, skip_special_tokens=True).strip() == answer.text
    if tune == "lora":
        base = transformers.AutoModel.from_pretrained(twin("clip", folder)).vision_model.state_dict()
        assert any(not torch.equal(value, base[name]) for name, value in alone.model.vision_tower.state_dict().items())


def test_all_patches_are_learned_from_and_pictures_are_told_apart(
    no_report: None, folder: Path, tmp_path: Path
) -> None:
    from sensorium.data.schema import infer
    from sensorium.data.table import Table
    from sensorium.dialogue.synthesis import ask_data

    table = Table.open(shown_table(200))
    talks = ask_data(table, infer(table), about="colour", of=["picture"], each=4, kinds={"name": 1})
    model = Model.fit(
        talks,
        out=tmp_path / "run",
        epochs=14,
        seed=0,
        settings=settings_of(folder, "clip", "trunk.tune=full", "questions.dialogue_rows=16", "column.colour.kind=out"),
    )
    model = Model.load(tmp_path / "run")
    assert [
        model.chat(asks("What is this?"), cells={"picture": drawing(colour, "square", 2)}).text
        for colour in ("red", "green", "blue")
    ] == ["red", "green", "blue"]
    several = model.rows([{"picture": drawing(colour, "square", 2)} for colour in ("red", "green", "blue")])
    talk = [("user", [{"column": "picture"}, "What is this?"]), ("assistant", ["blue"])]
    alone = [
        float(
            answer_log_probabilities(
                model.network, model.rows([{"picture": drawing(colour, "square", 2)}]), [0], [talk]
            )[0]
        )
        for colour in ("blue", "red")
    ]
    assert answer_log_probabilities(model.network, several, [2, 0], [talk, talk]) == pytest.approx(alone, abs=1e-4), (
        "each hears its own picture, whichever stand beside it"
    )


def test_patches_begin_alike_spread_and_as_loud_as_words() -> None:
    torch.manual_seed(0)
    projector, patches = (
        PatchProjector(12, 20, n_placed=3, count=4),
        5 + torch.randn(30, 4, 12) * torch.logspace(-2, 2, 12),
    )
    projector.initialise(patches, 0.07)
    found = projector(patches)
    assert float(found.detach().square().mean().sqrt()) == pytest.approx(0.07, rel=1e-3)
    within = torch.nn.functional.linear(patches, projector.linear_1.weight, projector.linear_1.bias).detach()
    assert within.std() < 2 and abs(float(within.mean())) < 0.5
    cells = {"features": torch.randn(2, 9, 12), "there": torch.tensor([[1] * 7 + [0] * 2] * 2).bool()}
    assert torch.equal(projector.patches(cells), cells["features"][:, 3:7])


def test_features_are_the_towers_own_layer_before_the_last(folder: Path) -> None:
    backbone, plain = (
        open_backbone(str(twin("clip", folder)), "image", True),
        open_backbone(str(twin("clip", folder)), "image"),
    )
    picture = backbone.picture(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8))
    found, known = (features(one, [picture], keep=False)[0] for one in (backbone, plain))
    assert (
        backbone.sha256 != plain.sha256
        and found.shape == (len(known) + 16, 32)
        and np.array_equal(found[: len(known)], known)
    )
    tower = transformers.AutoModel.from_pretrained(twin("clip", folder)).vision_model.eval()
    x = (torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 - backbone.mean) / backbone.std
    with torch.no_grad():
        assert np.allclose(
            found[len(known) :], tower(pixel_values=x, output_hidden_states=True).hidden_states[-2][0, 1:], atol=2e-3
        )


def test_what_has_no_such_layout_is_told(
    no_report: None, folder: Path, talks: pa.Table, tmp_path: Path, run: Run
) -> None:
    for name, why in (("dinov2", "is a dinov2"), ("timm-vit", "is one of timm"), ("resnet", "is a resnet")):
        with pytest.raises(UserError, match=f"takes a CLIP or SigLIP.*{why}|{why}"):
            Model.fit(talks.slice(0, 60), out=tmp_path / name, epochs=1, settings=settings_of(folder, name))
    with pytest.raises(UserError, match=r"column\.picture\.llava=true is for conversations"):
        Model.fit(
            talks.slice(0, 60).drop_columns(["conversation"]),
            out=tmp_path / "none",
            epochs=1,
            settings=[
                s
                for s in settings_of(folder)
                if not s.startswith(("trunk", "column.conversation")) and s != "questions.plans=0"
            ],
        )
    with pytest.raises(UserError, match="takes a backbone"):
        Model.fit(
            talks.slice(0, 60),
            out=tmp_path / "bare",
            epochs=1,
            settings=[s for s in settings_of(folder) if "backbone" not in s],
        )
    Model.fit(talks.slice(0, 60), out=tmp_path / "capped", epochs=1, settings=settings_of(folder, speaker="gemma2"))
    status, out, _ = run("export-trunk", tmp_path / "capped", "--out", tmp_path / "lm")
    assert (
        status == 0
        and "Nothing in the layout of LLaVA: 'gemma2' changes its logits" in out
        and not (tmp_path / "lm" / "llava").exists()
    )
    pq.write_table(talks.slice(0, 60), tmp_path / "t.parquet")
    status, _, err = run(
        "fit",
        tmp_path / "t.parquet",
        "--out",
        tmp_path / "cli",
        "column.picture.llava=true",
        f"column.picture.backbone={twin('vit', folder)}",
        "trunk=causal_lm",
        f"trunk.path={twin('llama', folder)}",
    )
    assert status == 2 and "LLaVA" in err and "Traceback" not in err
