"""Contrastive training on the emoji table's pictures and names against open_clip's own models and loss.

Rows a second of whole training steps at batch 128, and recall@10 of held-out drawings over time. The peer gets its
pictures decoded, so that only training is measured; each of its models runs in each precision, and the best counts.

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


def table() -> Path:
    """Where the emoji table lies."""
    return Path(os.environ.get("SENSORIUM_BENCH_EMOJI", ROOT / "data" / "emoji.parquet"))


def comparisons(quick: bool) -> list[Comparison]:
    """The peer's speed with each model and precision."""
    if not table().exists():
        raise RuntimeError(f"no table at {table()}. Make it: sensorium table emoji --out {table()}")
    arguments = {"path": str(table()), "seconds": 15.0 if quick else 60.0}
    peers = {
        f"open_clip {model}, {precision}": Side(
            run="rate", arguments={**arguments, "model": model, "precision": precision}, needs=("open_clip",)
        )
        for model in ("vit", "resnet")
        for precision in ("fp32", "amp", "bf16")
    }
    return [Comparison(
        name=f"images and names, batch {BATCH}",
        metrics=(Metric(key="rows/s", unit="rows/s", less=False, wanted=2.0),),
        ours=None,
        peers=peers,
        repeats=1 if quick else 3,
    )]


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
        """Share of names of a split whose drawing, or one of the same name, is among the k nearest of all its drawings."""
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
        return sum(any(names[j] == name for j in found) for name, found in zip(names, nearest, strict=True)) / len(names)


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


def curve(path: str, model: str, precision: str, seconds: float, points: int = 20) -> dict[str, Any]:
    """recall@10, name to drawing, of ``test_new_style`` along one training of so many seconds: [(seconds, recall)]."""
    training, found = Training(path, model, precision, seconds), []
    for point in range(points):
        while training.spent < seconds * (point + 1) / points:
            training.step()
        found.append((training.spent, training.recall(path)))
    return {"curve": found, "recall@10": found[-1][1]}
