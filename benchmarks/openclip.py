"""Contrastive training on the emoji table's pictures and names against open_clip's own models and loss.

Rows a second of whole training steps at batch 128, and the seconds until held-out drawings are found as well as the
peer finds them at the end of its own training. The peer gets its pictures decoded, so that only training is measured;
each of its models runs in each precision, and the best counts. Ours runs twice: as it is by default, and widened until
it has as many parameters as the peer has outside its table of words.

The table is made by ``sensorium table emoji --out data/emoji.parquet``, or named by SENSORIUM_BENCH_EMOJI.
"""

from __future__ import annotations

import functools
import io
import os
import time
from pathlib import Path
from typing import Any

from benchmarks import Comparison, Metric, Side
from benchmarks._measure import ROOT

BATCH, SIDE, WIDTH, LAYERS, PATCH, SEED = 128, 64, 256, 6, 8, 0
RESNET = {"layers": (2, 2, 2, 2), "width": 32}
"""As many parameters as the ViT, to a few percent."""
OTHERS = (
    "style",
    "tags",
    "name_de",
    "name_fr",
    "name_es",
    "name_ja",
    "group",
    "year",
    "spoken",
    "spoken_language",
    "concept",
)
ALIKE = 480
"""Our width at which all that is learned but the words has about as many parameters as the peer's towers."""
BUDGETS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Seconds that ours is given, each a training of its own, until one reaches what the peer reached."""


def table() -> Path:
    """Where the emoji table lies."""
    return Path(os.environ.get("SENSORIUM_BENCH_EMOJI", ROOT / "data" / "emoji.parquet"))


def comparisons(quick: bool) -> list[Comparison]:
    """The peer's speed with each model and precision."""
    if not table().exists():
        raise RuntimeError(f"no table at {table()}. Make it: sensorium table emoji --out {table()}")
    arguments = {"path": str(table()), "seconds": 10.0 if quick else 20.0}
    whole = {"path": str(table()), "seconds": 30.0 if quick else 90.0}
    peers = {
        f"open_clip {model}, {precision}": Side(
            run="rate", arguments={**arguments, "model": model, "precision": precision}, needs=("open_clip",)
        )
        for model in ("vit", "resnet")
        for precision in ("fp32", "amp", "bf16")
    }
    speed = (
        Metric(key="rows/s", unit="rows/s", less=False, wanted=2.0),
        Metric(key="share of peak", unit="", less=False),
        Metric(key="share of time waiting for data", unit="", limit=0.05),
        Metric(key="parameters", unit=""),
    )
    repeats = 1 if quick else 2
    return [
        Comparison(
            name=f"images and names, batch {BATCH}",
            metrics=speed,
            ours=Side(run="ours", arguments=arguments),
            peers=peers,
            repeats=repeats,
        ),
        Comparison(
            name=f"the same, as many parameters, batch {BATCH}",
            metrics=speed,
            ours=Side(run="ours", arguments={**arguments, "width": ALIKE}),
            repeats=repeats,
            peers={name: side for name, side in peers.items() if not name.endswith("fp32")},
        ),
        # Tiles of AMX multiply the peak sevenfold, but not the speed of memory: the share of either peak says more than
        # one.
        Comparison(
            name=f"the same, as many parameters, batch {BATCH}, oneDNN without AMX",
            metrics=speed,
            repeats=repeats,
            ours=Side(run="ours", arguments={**arguments, "width": ALIKE, "isa": "AVX512_CORE_BF16"}),
        ),
        Comparison(
            name="images and names, to the peer's last recall@10",
            metrics=(Metric(key="seconds", unit="s", wanted=2.0), Metric(key="recall@10", unit="", less=False)),
            ours=Side(run="reach", arguments=whole, needs=("open_clip",)),
            peers={
                f"open_clip {model}": Side(run="last", arguments={**whole, "model": model}, needs=("open_clip",))
                for model in ("vit", "resnet")
            },
            repeats=1,
        ),
    ]


def settings(width: int | None = None) -> list[str]:
    """Our defaults for a table of pictures and names alone."""
    return [
        *(f"column.{column}.kind=out" for column in OTHERS),
        "objectives=match",
        f"train.batch={BATCH}",
        "data.entity_key=id",
        "baselines.share=0",
        "trackers=none",
        *([f"network.width={width}", "trunk.heads=1"] if width else []),
    ]


def fit(path: str, seconds: float, width: int | None = None) -> Any:
    """A model of ours after so many seconds of training, without a report."""
    import tempfile

    import sensorium.fit.stages
    from sensorium import Model

    sensorium.fit.stages.report = lambda *_, **__: None
    with tempfile.TemporaryDirectory() as folder:
        return Model.fit(path, out=folder, minutes=seconds / 60, seed=SEED, settings=settings(width), quiet=True)


def ours(path: str, seconds: float, width: int | None = None, isa: str | None = None) -> dict[str, float]:
    """Rows a second of the median step after a first quarter that isn't counted, and how near it comes to the peak.

    Args:
        isa: the instructions that oneDNN, and so the peak, is held to.
    """
    if isa:
        os.environ["ONEDNN_MAX_CPU_ISA"] = isa
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.peak import matrix_peak
    from sensorium.training.table_trainer import TableTrainer

    times, waits, counted, learn, run = [], [], [], TableTrainer.training_step, TableTrainer.run

    def timed(loop: TableTrainer, *given: Any) -> Any:
        start = time.perf_counter()
        found = learn(loop, *given)
        times.append(time.perf_counter() - start)
        waits.append(loop.at.waited)
        return found

    def running(loop: TableTrainer, *given: Any) -> Any:
        at = run(loop, *given)
        loop.network.train()
        with FlopCounterMode(display=False) as counter:
            learn(loop, 0, *loop.make(0))
        learned = {key.rpartition("/")[0] for key in loop.optimizer.tensors()}
        counted.extend([counter.get_total_flops(), sum(loop.optimizer.parameters[key].numel() for key in learned)])
        return at

    TableTrainer.training_step, TableTrainer.run = timed, running
    model = fit(path, seconds, width)
    start, median = len(times) // 4, sorted(times[len(times) // 4 :])[len(times) * 3 // 8]
    peak = matrix_peak("bfloat16" if model.facts["precision"] == "bf16" else "float32")
    waited = (waits[-1] - waits[start]) / (sum(times[start:]) + waits[-1] - waits[start])
    step = median / max(1 - waited, 1e-9)
    return {
        "rows/s": BATCH / step,
        "share of peak": counted[0] / step / peak,
        "share of time waiting for data": waited,
        "parameters": counted[1],
    }


def found(path: str, seconds: float) -> float:
    """Our recall@10, name to drawing, of ``test_new_style``, as ``Training.recall`` counts it."""
    from sensorium.data.table import Table
    from sensorium.evaluation.evaluate import search_all
    from sensorium.inference.trained import keep_split

    model = fit(path, seconds)
    part = keep_split(Table.open(path), "test_new_style", "split")
    return float(search_all(model.rows(part), part, "name")["name>image"].hit.any(1).mean())


def last(path: str, seconds: float, model: str) -> dict[str, float]:
    """The peer's recall@10 at the end of a training of so many seconds, in the precision that is fastest here."""
    speeds = {precision: rate(path, model, precision, 5.0)["rows/s"] for precision in ("fp32", "amp", "bf16")}
    training = Training(path, model, max(speeds, key=lambda p: speeds[p]), seconds)
    while training.spent < seconds:
        training.step()
    return {"seconds": seconds, "recall@10": training.recall(path)}


def reach(path: str, seconds: float) -> dict[str, float | None]:
    """The shortest of our trainings that finds as much as the better of the peer's models in so many seconds."""
    wanted = max(last(path, seconds, model)["recall@10"] for model in ("vit", "resnet"))
    recall = 0.0
    for budget in BUDGETS:
        recall = found(path, budget)
        if recall >= wanted:
            return {"seconds": budget, "recall@10": recall}
    return {"seconds": None, "recall@10": recall}


def build(model: str) -> Any:
    """An open_clip model: ViT or ResNet beside its text transformer, initialised as it does itself."""
    import torch
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(SEED)
    if model == "vit":
        vision = CLIPVisionCfg(layers=LAYERS, width=WIDTH, patch_size=PATCH, image_size=SIDE)
    else:
        vision = CLIPVisionCfg(layers=RESNET["layers"], width=RESNET["width"], image_size=SIDE)
    return CLIP(WIDTH, vision, CLIPTextCfg(width=WIDTH, heads=WIDTH // 64, layers=LAYERS))


@functools.cache
def rows(path: str, split: str) -> tuple[Any, Any, list[str]]:
    """Pictures uint8 [n, 3, 72, 72] on white, tokens [n, 77] and names of one split."""
    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import torch
    from open_clip.tokenizer import SimpleTokenizer
    from PIL import Image

    data = pq.read_table(path, columns=["image", "name", "split"])
    data = data.filter(pc.equal(data["split"], split))
    pictures = []
    for cell in data["image"].to_pylist():
        drawn = Image.open(io.BytesIO(cell)).convert("RGBA").resize((72, 72))
        white = Image.new("RGBA", drawn.size, "white")
        pictures.append(np.asarray(Image.alpha_composite(white, drawn).convert("RGB")))
    names = data["name"].to_pylist()
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), SimpleTokenizer()(names), names


def crops(pictures: Any, generator: Any) -> Any:
    """The peer's own augmentation, RandomResizedCrop(scale=(0.9, 1)), for the batch at once: float [n, 3, 64, 64]."""
    import torch
    from torch.nn import functional as F

    n = len(pictures)
    draw = torch.rand(3, n, generator=generator)
    zoom = (0.9 + 0.1 * draw[0]).sqrt()
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = ((2 * draw[1:] - 1) * (1 - zoom)).T
    grid = F.affine_grid(theta, [n, 3, SIDE, SIDE], align_corners=False)
    return normal(F.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=False))


def normal(pixels: Any) -> Any:
    """Pixels in 0..255 as the peer wants them: less its mean, over its deviation."""
    import torch
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    mean, deviation = (torch.tensor(x).view(3, 1, 1) * 255 for x in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return (pixels - mean) / deviation


class Training:
    """The peer's training as its own ``main`` does it: AdamW, cosine decay after a warm-up, ClipLoss."""

    def __init__(self, path: str, model: str, precision: str, seconds: float, rate: float = 1e-3) -> None:
        import torch
        from open_clip.loss import ClipLoss

        self.pictures, self.tokens, _ = rows(path, "train")
        self.model, self.loss, self.precision = build(model), ClipLoss(), precision
        if precision == "bf16":
            self.model = self.model.to(torch.bfloat16)
        named = list(self.model.named_parameters())
        plain = [p for name, p in named if p.ndim < 2 or "bn" in name or "ln" in name or "logit_scale" in name]
        kept = {id(p) for p in plain}
        matrices = [p for _, p in named if id(p) not in kept]
        groups = [{"params": matrices, "weight_decay": 0.2}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-6)
        self.seconds, self.rate, self.spent, self.steps = seconds, rate, 0.0, 0
        self.generator = torch.Generator().manual_seed(SEED)

    def step(self) -> None:
        """One step, its time added to what was spent."""
        import math

        import torch

        start = time.perf_counter()
        share = min(1.0, self.spent / self.seconds)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, (self.steps + 1) / 60) * 0.5 * (1 + math.cos(math.pi * share))
        index = torch.randint(len(self.pictures), (BATCH,), generator=self.generator)
        images, texts = crops(self.pictures[index], self.generator), self.tokens[index]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "amp"):
            if self.precision == "bf16":
                images = images.to(torch.bfloat16)
            loss = self.loss(*self.model(images, texts))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        if not math.isfinite(loss.item()):
            raise RuntimeError("the peer's loss isn't finite")
        self.steps += 1
        self.spent += time.perf_counter() - start

    def recall(self, path: str, split: str = "test_new_style", k: int = 10) -> float:
        """Share of a split's names whose drawing, or one of the same name, is among the k nearest of its drawings."""
        import torch

        pictures, tokens, names = rows(path, split)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.model.eval()
        with torch.no_grad():
            shown = torch.nn.functional.interpolate(pictures.float(), (SIDE, SIDE), mode="area")
            images = torch.cat([self.model.encode_image(x, normalize=True) for x in normal(shown).to(dtype).split(128)])
            texts = torch.cat([self.model.encode_text(x, normalize=True) for x in tokens.split(128)])
            nearest = (texts.float() @ images.float().T).topk(k).indices.tolist()
        self.model.train()
        return sum(any(names[j] == name for j in found) for name, found in zip(names, nearest, strict=True)) / len(
            names
        )


def rate(path: str, model: str, precision: str, seconds: float) -> dict[str, float]:
    """Rows a second of training steps, from the median step after two that aren't counted."""
    training = Training(path, model, precision, 1e9)
    times: list[float] = []
    while sum(times) < seconds or len(times) < 5:
        before = training.spent
        training.step()
        times.append(training.spent - before)
    times = sorted(times[2:])
    return {"rows/s": BATCH / times[len(times) // 2], "parameters": sum(p.numel() for p in training.model.parameters())}
