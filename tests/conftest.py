"""What several tests share: a tiny table of every kind of column, and settings that train on it within seconds."""

from __future__ import annotations

import datetime
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = (
    "1"  # sums in another order are other numbers; and as many tests run at once as there are cores
)
os.environ["SENSORIUM_CACHE"] = tempfile.mkdtemp(
    prefix="sensorium-features-"
)  # nothing of the user's, nor left in their place

import numpy as np
import pyarrow as pa
import pytest
import shape_types  # noqa: F401 (before sensorium)
import soundfile
import torch
from PIL import Image, ImageDraw

torch.set_num_threads(1)

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 220)}
SHAPES = ("circle", "square", "bar")
SIZES = ("tiny", "small", "big", "huge")
TINY = [
    "finish.share=0",
    "network.width=24", "network.gist=24", "trunk.depth=1", "trunk.heads=2",
    "column.picture.size=16", "column.name.vocabulary=300", "column.name.length=12",
    "column.curve.length=32", "column.tone.mels=16", "column.tone.seconds=0.3",
    "train.batch=16", "train.precision=fp32", "train.warmup_steps=5", "trackers=none", "baselines.share=0",
]  # fmt: skip
"""Settings of a model that takes a step on the tiny table in a few milliseconds."""


def drawing(colour: str, shape: str, size: int, side: int = 24) -> bytes:
    """A picture as PNG: the colour and the shape are the class, the size is the number."""
    image = Image.new("RGB", (side, side), "white")
    pen, reach = ImageDraw.Draw(image), 3 + 2 * size
    box = [side // 2 - reach, side // 2 - reach, side // 2 + reach, side // 2 + reach]
    if shape == "bar":
        box[0], box[2] = side // 2 - 2, side // 2 + 2
    (pen.ellipse if shape == "circle" else pen.rectangle)(box, fill=COLOURS[colour])
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def tone(hertz: float, seconds: float = 0.25, rate: int = 8000) -> bytes:
    """A sine as a WAV file."""
    out = io.BytesIO()
    soundfile.write(out, 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), rate, format="WAV")
    return out.getvalue()


def clip(colour: str, way: tuple[int, int], frames: int = 6, side: int = 32, kind: str = "WEBP") -> bytes:
    """A disc that crosses a white square, as a moving picture."""
    shown = []
    for number in range(frames):
        image = Image.new("RGB", (side, side), "white")
        x, y = (side // 2 + step * round((number - (frames - 1) / 2) * side / 10) for step in way)
        ImageDraw.Draw(image).ellipse([x - 5, y - 5, x + 5, y + 5], fill=COLOURS[colour])
        shown.append(image)
    out = io.BytesIO()
    shown[0].save(out, kind, save_all=True, append_images=shown[1:], duration=100, loop=0)
    return out.getvalue()


def tiny_cells(rows: int = 80, seed: int = 0, gaps: float = 0.1) -> dict[str, list[Any]]:
    """The tiny table's columns; the first 9 rows have every cell, of the others some are missing."""
    rng = np.random.default_rng(seed)
    cells: dict[str, list[Any]] = {c: [] for c in ("picture", "name", "colour", "width", "day", "curve", "tone")}
    for row in range(rows):
        colour, shape = list(COLOURS)[row % 3], SHAPES[row // 3 % 3]
        size = int(rng.integers(0, 4))
        steps = int(rng.integers(18, 30))
        wave = np.sin(np.arange(steps) * (0.3 + 0.4 * (row % 3)))
        whole = {
            "picture": drawing(colour, shape, size),
            "name": f"{SIZES[size]} {colour} {shape} {int(rng.integers(0, 50))}",
            "colour": colour,
            "width": round(10.0 * size + float(rng.normal()), 3),
            "day": datetime.date(2020, 1, 1) + datetime.timedelta(days=int(100 * size + rng.integers(0, 30))),
            "curve": [[float(a), float(b)] for a, b in zip(wave, rng.normal(size=steps), strict=True)],
            "tone": tone(300.0 * (1 + SHAPES.index(shape)) + 5 * row),
        }
        for column, cell in whole.items():
            gone = row >= 9 and rng.random() < gaps
            cells[column].append((float("nan") if column == "width" else None) if gone else cell)
    return cells


def tiny_table(rows: int = 80, seed: int = 0, gaps: float = 0.1) -> pa.Table:
    """The tiny table as Arrow."""
    return pa.table(tiny_cells(rows, seed, gaps))


@pytest.fixture(scope="session")
def tiny() -> pa.Table:
    """80 rows of every kind of column; about a tenth of the cells is missing."""
    return tiny_table()


@pytest.fixture
def nothing_written(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Call it once the files are there: at the end there are no others beside them."""
    before: list[set[Path]] = []
    yield lambda: before.append(set(tmp_path.rglob("*")))
    assert not before or set(tmp_path.rglob("*")) == before[0]


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit without the evaluation and the report at its end."""
    monkeypatch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)


@pytest.fixture(scope="session")
def fitted(tiny: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model fitted to the tiny table for a moment: every part works, nothing is known well. Not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
        from sensorium.model import Model

        return Model.fit(tiny, out=tmp_path_factory.mktemp("fitted"), epochs=4, settings=TINY, seed=1)


@pytest.fixture(scope="session")
def drawing_model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that has learned for a moment to generate all it can."""
    from sensorium.model import Model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
        return Model.fit(
            tiny_table(40),
            out=tmp_path_factory.mktemp("drawing"),
            epochs=3,
            settings=[*TINY, "questions.generate=picture,curve,tone", "generator.flow.depth=1"],
        )


@pytest.fixture(scope="session")
def shown() -> pa.Table:
    """The table behind the served model."""
    return tiny_table(40)


@pytest.fixture(scope="session")
def kept(drawing_model: Any, shown: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Folders of the run and its index, and the file of its table."""
    import pyarrow.parquet as pq

    from sensorium.model import Model

    folder = tmp_path_factory.mktemp("served")
    drawing_model.save(folder / "tiny")
    Model.load(folder / "tiny").index(shown, folder / "index")
    pq.write_table(shown, folder / "shown.parquet")
    return folder / "tiny", folder / "index", folder / "shown.parquet"


@pytest.fixture(scope="session")
def started(kept: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """``started("--key-file", file)``: a server of the tiny model with more arguments; all end with the session."""
    from live_server import Served

    running: list[Any] = []

    def start(*arguments: str, index: bool = True) -> Any:
        run, rows, _ = kept
        running.append(
            Served(
                str(run), *([str(rows)] if index else []), *arguments, log=tmp_path_factory.mktemp("log") / "log.jsonl"
            )
        )
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def served(started: Callable[..., Any], kept: tuple[Path, Path, Path]) -> Any:
    """A server with an index and a table. Not to be broken."""
    return started("--table", str(kept[2]))


@pytest.fixture
def quick_fit(no_report: None, tmp_path: Path) -> Callable[..., Any]:
    """``quick_fit(table, *settings, **arguments)``: one thread of a fit with the tiny settings, without a report."""
    from sensorium.model import Model

    def fit(table: Any, *settings: str, **arguments: Any) -> Any:
        given = {"out": tmp_path / "run", "epochs": 2, "seed": 0} | arguments
        if given["epochs"] is None or "minutes" in given:
            given.pop("epochs")
        return Model.fit(table, settings=[*known_settings(table), *settings], **given)

    return fit


def known_settings(table: Any) -> list[str]:
    """The tiny settings, without those of columns that a table hasn't."""
    columns = set(getattr(table, "column_names", None) or getattr(table, "columns", None) or tiny_cells(1))
    return [s for s in TINY if not s.startswith("column.") or s.split(".")[1] in columns]


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0x10
    path.write_bytes(bytes(raw))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``run("fit", …)``: (status, stdout, stderr) of a command, in this process."""

    from sensorium.cli.main import main

    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sensorium", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return left.value.code or 0, out, err

    return call


TALKING = [s for s in TINY if not s.startswith(("trunk.", "column."))] + ["column.picture.size=16"]
PARTS = ["train"] * 8 + ["test"] * 2


def shown_table(rows: int = 80, seed: int = 0) -> pa.Table:
    """Pictures, their colours, and which rows are held out."""
    table = tiny_table(rows, seed).select(["picture", "colour"])
    return table.append_column("split", pa.array([PARTS[row % 10] for row in range(rows)]))


@pytest.fixture(scope="session")
def talks() -> pa.Table:
    """Conversations about the colours of pictures, of one each."""
    from sensorium.data.schema import infer
    from sensorium.data.table import Table
    from sensorium.dialogue.questions import KINDS, SEVERAL
    from sensorium.dialogue.synthesis import ask_data

    table = Table.open(shown_table())
    return ask_data(
        table, infer(table), each=6, kinds={kind: often for kind, often in KINDS.items() if kind not in SEVERAL}
    )


@pytest.fixture(scope="session")
def talking(talks: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that talks about pictures: its language model is a tiny one that knew nothing, and is tuned whole."""
    from tiny_models import twin

    from sensorium.model import Model

    settings = [
        *TALKING,
        "trunk=causal_lm",
        f"trunk.path={twin('llama', tmp_path_factory.mktemp('speaker'))}",
        "trunk.tune=full",
        "trunk.rate=1",
        "questions.plans=0",
        "questions.dialogue_rows=16",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
        return Model.fit(talks, out=tmp_path_factory.mktemp("talking"), epochs=20, settings=settings, seed=0)
