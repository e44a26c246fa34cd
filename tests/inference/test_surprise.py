"""Cells that don't go with their rows are found, by the column that is wrong; what is usual is saved with the model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import TINY, tiny_table
from PIL import Image

from sensorium.core.errors import UserError
from sensorium.inference.surprise import LEVELS, surprise_quantiles
from sensorium.model import Model


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
        return Model.fit(
            tiny_table(260), out=tmp_path_factory.mktemp("learned"), epochs=12, settings=[*TINY, "data.validation=0.2"]
        )


def swapped(rows: int = 60) -> tuple[pa.Table, np.ndarray]:
    """New rows, every third with another colour than its own; and which."""
    table, wrong = tiny_table(rows, seed=7, gaps=0.0), np.arange(rows) % 3 == 0
    colours = table.column("colour").to_pylist()
    turned = {"red": "green", "green": "blue", "blue": "red"}
    cells = [turned[colour] if bad else colour for colour, bad in zip(colours, wrong, strict=True)]
    return table.set_column(table.column_names.index("colour"), "colour", pa.array(cells)), wrong


def test_wrong_cells_are_more_surprising_than_right_ones(learned: Model) -> None:
    table, wrong = swapped()
    found = learned.surprise(table)
    odd = found.column("of colour").to_numpy()
    better = (odd[wrong][:, None] > odd[~wrong]).mean()
    assert better > 0.9 and np.median(odd[wrong]) > 1 > np.median(odd[~wrong])
    assert found.column_names == [
        "surprise",
        "column",
        *(f"of {c}" for c in learned.network.calibration.surprise_quantiles),
        "away",
        *(f"away of {c}" for c in ("picture", "name", "curve", "tone")),
    ]
    named = found.column("column").to_pylist()
    assert np.mean([name == "colour" for name, bad in zip(named, wrong, strict=True) if bad]) > 0.5
    whole = np.stack([found.column(name).to_numpy() for name in found.column_names if name.startswith("of ")], 1)
    assert np.allclose(found.column("surprise").to_numpy(), whole.max(1))


def test_what_can_not_be_said_is_null_and_what_is_usual_is_kept(learned: Model, tmp_path: Path) -> None:
    rows = pa.table({"colour": ["red", None, "blue"], "width": [3.0, None, None], "name": [None, None, "a blue bar"]})
    found = learned.surprise(rows)
    assert found.column("surprise").null_count == 1 and found.column("column")[1].as_py() is None
    assert found.column("of picture").null_count == 3 and found.column("of name").to_pylist()[:2] == [None, None]
    again = Model.load(learned.save(tmp_path / "again"))
    assert again.surprise(rows).equals(found) and set(again.network.calibration.surprise_quantiles) == {
        "picture",
        "name",
        "colour",
        "width",
        "day",
        "curve",
        "tone",
    }


def test_a_run_that_held_out_too_little_says_so(fitted: Model) -> None:
    with pytest.raises(UserError, match="has too few validation rows"):
        fitted.surprise(tiny_table(3))


def test_what_is_usual_are_quantiles_of_enough_rows() -> None:
    values = np.append(np.arange(100.0), np.nan)
    found = surprise_quantiles({"a": values, "b": values[:9]})
    assert (
        set(found) == {"a"}
        and len(found["a"]) == LEVELS
        and found["a"][0] == 0
        and found["a"][-1] == 99
        and found["a"][50] == pytest.approx(49.5)
    )


def test_the_command_prints_the_oddest_rows_and_writes_all(learned: Model, tmp_path: Path) -> None:
    import subprocess
    import sys

    learned.save(tmp_path / "run")
    table, wrong = swapped(30)
    pq.write_table(table, tmp_path / "t.parquet")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sensorium",
            "surprise",
            str(tmp_path / "run"),
            str(tmp_path / "t.parquet"),
            "--out",
            str(tmp_path / "s.csv"),
            "-k",
            "3",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0 and "colour" in done.stdout and (tmp_path / "s.csv").read_text().count("\n") == 31, (
        done.stderr
    )


def foreign(rows: int = 40) -> pa.Table:
    """Rows of another kind: noise for pictures and tones, words of another alphabet, curves that jump."""
    rng = np.random.default_rng(3)

    def picture() -> bytes:
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(out, "PNG")
        return out.getvalue()

    def noise() -> bytes:
        out = io.BytesIO()
        soundfile.write(out, 0.5 * rng.normal(size=2000).clip(-1, 1), 8000, format="WAV")
        return out.getvalue()

    return pa.table(
        {
            "picture": [picture() for _ in range(rows)],
            "tone": [noise() for _ in range(rows)],
            "curve": [(50 * rng.standard_cauchy((24, 2))).tolist() for _ in range(rows)],
        }
    )


def test_what_is_of_another_kind_is_far_away(learned: Model) -> None:
    known, other = learned.surprise(tiny_table(60, seed=9, gaps=0.0)), learned.surprise(foreign())
    for name in ("away", "away of picture", "away of tone"):
        far, near = other.column(name).to_numpy(), known.column(name).to_numpy()
        assert (far[:, None] > near).mean() > 0.9 and np.median(far) > 1 > np.median(near), name
    gone = learned.surprise(pa.table({"colour": [None, "red"]}))
    assert gone.column("away").null_count == 1 and gone.column("away of picture").null_count == 2


def test_known_gists_are_kept_and_may_be_removed(learned: Model, tmp_path: Path) -> None:
    learned.save(tmp_path / "run")
    path, table = tmp_path / "run" / "domain.safetensors", tiny_table(5)
    assert Model.load(tmp_path / "run").surprise(table).equals(learned.surprise(table))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x00" if whole[-1:] != b"\x00" else whole[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"domain\.safetensors' isn't what was written"):
        Model.load(tmp_path / "run")
    path.unlink()
    assert "away" not in Model.load(tmp_path / "run").surprise(table).column_names
