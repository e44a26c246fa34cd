"""The classic two-branch sample in tf.keras (LSTMs for text, a convolution for the picture, concatenated) on made rows.

Ten classes, each a topic of the text and a direction of stripes in the picture together, so that neither alone is
enough. What counts is the time until the same share of held-out rows is right.

The peer runs in an environment with TensorFlow: this one, or the interpreter that SENSORIUM_BENCH_TF_PYTHON names.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from benchmarks import Comparison, Metric, Side
from benchmarks._measure import memory_growth

ROWS, HELD_OUT, TOKENS, WORDS, SIDE, CLASSES = 10_000, 2_000, 64, 5_000, 32, 10
REACHED = 0.95
"""Share of held-out rows that must be right."""


def comparisons(quick: bool) -> list[Comparison]:
    """The peer at its usual batch sizes."""
    epochs = 3 if quick else 30
    return [
        Comparison(
            name=f"classic sample, to {REACHED:.0%} right",
            metrics=(
                Metric(key="seconds", unit="s", wanted=4.0),
                Metric(key="seconds with reading and settling", unit="s"),
                Metric(key="seconds an epoch", unit="s"),
                Metric(key="accuracy", unit="", less=False),
                Metric(key="MiB", unit="MiB"),
            ),
            ours=Side(run="ours"),
            peers={
                f"keras, batch {batch}": Side(
                    run="keras",
                    arguments={"batch": batch, "epochs": epochs},
                    needs=("keras", "tensorflow"),
                    python=os.environ.get("SENSORIUM_BENCH_TF_PYTHON"),
                )
                for batch in (32, 128)
            },
            repeats=1,  # up to 30 epochs of each peer take minutes
        )
    ]


def rows() -> tuple[Any, Any, Any]:
    """Token ids [n, 64] in 1..4999, pictures uint8 [n, 32, 32, 3] and classes [n]; the last rows are held out.

    Eight of the 64 words tell the topic (one of five) and two of them another one, the rest is Zipf's; stripes in one
    of two directions lie under noise.
    """
    import numpy as np

    rng, n = np.random.default_rng(0), ROWS + HELD_OUT
    label = rng.integers(0, CLASSES, n)
    topic, upright = label // 2, label % 2
    frequency = 1 / np.arange(1, WORDS - 200)
    tokens = rng.choice(np.arange(201, WORDS), (n, TOKENS), p=frequency / frequency.sum())
    said = np.where(np.arange(8) < 6, topic[:, None], rng.integers(0, CLASSES // 2, (n, 8)))
    places = rng.random((n, TOKENS)).argsort(1)[:, :8]
    np.put_along_axis(tokens, places, 1 + 40 * said + rng.integers(0, 40, (n, 8)), 1)
    phase, wave = rng.uniform(0, 2 * np.pi, (n, 1, 1)), rng.uniform(0.5, 1.2, (n, 1, 1))
    y, x = np.mgrid[:SIDE, :SIDE]
    stripes = np.sin(phase + wave * np.where(upright[:, None, None] == 1, x, y))
    pixels = 128 + 40 * stripes[..., None] + 40 * rng.standard_normal((n, SIDE, SIDE, 3))
    return tokens, pixels.clip(0, 255).astype(np.uint8), label


def table(path: Path) -> None:
    """The same rows as a Parquet table: text, image (PNG), label, split (train or test)."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    tokens, pictures, labels = rows()
    images = []
    for pixels in pictures:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG", compress_level=1)
        images.append(out.getvalue())
    pq.write_table(pa.table({
        "text": [" ".join(word(token) for token in line) for line in tokens.tolist()],
        "image": images,
        "label": [f"class {label}" for label in labels.tolist()],
        "split": ["train"] * ROWS + ["test"] * HELD_OUT,
    }), path)  # fmt: skip


def word(token: int) -> str:
    """A token as a word that can be spoken: three syllables, one word for each."""
    syllables = []
    for _ in range(3):
        token, syllable = divmod(token, 70)
        syllables.append("bdfgklmnprstvz"[syllable // 5] + "aeiou"[syllable % 5])
    return "".join(syllables)


BUDGETS = (5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0)
"""Seconds that ours is given, each a training of its own, until one is as good."""


def ours() -> dict[str, float | None]:
    """Our defaults, told only what is asked: the time of the shortest training that is right often enough."""
    import tempfile

    import numpy as np

    import sensorium.fit.stages
    from sensorium import Model, Table
    from sensorium.inference.trained import keep_split

    sensorium.fit.stages.report = lambda *_, **__: None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classic.parquet"
        table(path)
        test = keep_split(Table.open(path), "test", "split")
        truth = np.array(test.take(np.arange(test.rows), ["label"]).column("label").to_pylist())
        best = 0.0
        for seconds in BUDGETS:
            start = time.perf_counter()
            model = Model.fit(
                path,
                target="label",
                minutes=seconds / 60,
                out=Path(folder) / "run",
                quiet=True,
                settings=["baselines.share=0", "trackers=none"],
            )
            whole = time.perf_counter() - start
            said = np.array(model.predict(test, "label").column("value").to_pylist())
            best = max(best, float((said == truth).mean()))
            if best >= REACHED:
                return {"seconds": seconds, "seconds with reading and settling": whole, "accuracy": best}
    return {"seconds": None, "accuracy": best}


def keras(batch: int, epochs: int) -> dict[str, float | None]:
    """Embedding, two LSTMs; convolution, pooling, dense; concatenated, dense, softmax. Adam, as the samples have it."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras as k

    k.utils.set_random_seed(0)
    tokens, pictures, labels = rows()
    pictures = pictures.astype("float32") / 255
    text, image = k.Input((TOKENS,), dtype="int32"), k.Input((SIDE, SIDE, 3))
    a = k.layers.Embedding(WORDS, 128)(text)
    a = k.layers.LSTM(64, return_sequences=True)(a)
    a = k.layers.LSTM(64)(a)
    b = k.layers.Conv2D(32, 3, activation="relu")(image)
    b = k.layers.Flatten()(k.layers.MaxPooling2D()(b))
    b = k.layers.Dense(64, activation="relu")(b)
    both = k.layers.Dense(64, activation="relu")(k.layers.Concatenate()([a, b]))
    model = k.Model([text, image], k.layers.Dense(CLASSES, activation="softmax")(both))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    spent, right, needed = [], [], None

    def train() -> None:
        nonlocal needed
        for _ in range(epochs):
            start = time.perf_counter()
            model.fit([tokens[:ROWS], pictures[:ROWS]], labels[:ROWS], batch_size=batch, epochs=1, verbose=0)
            spent.append(time.perf_counter() - start)
            right.append(model.evaluate([tokens[ROWS:], pictures[ROWS:]], labels[ROWS:], batch_size=500, verbose=0)[1])
            if right[-1] >= REACHED:
                needed = sum(spent)
                break

    memory = memory_growth(train)
    return {
        "seconds": needed,
        "seconds an epoch": sorted(spent)[len(spent) // 2],
        "accuracy": max(right),
        "MiB": memory,
    }
