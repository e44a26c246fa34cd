"""The whole way, as a user walks it: columns, fit, evaluate, predict, embed, search, generate, report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import TINY, drawing, tiny_table


def sensorium(folder: Path, *arguments: str) -> str:
    """What a command prints; it must end well and say nothing of warnings."""
    command = [sys.executable, "-W", "error", "-m", "sensorium", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_whole_way(tmp_path: Path) -> None:
    pq.write_table(tiny_table(160, seed=1, gaps=0.05), tmp_path / "train.parquet")
    pq.write_table(tiny_table(60, seed=2, gaps=0.05), tmp_path / "new.parquet")
    (tmp_path / "query.png").write_bytes(drawing("red", "bar", 3))
    said = sensorium(tmp_path, "columns", "train.parquet")
    assert all(kind in said for kind in ("image", "text", "category", "number", "date", "series", "audio"))
    sensorium(
        tmp_path,
        "fit",
        "train.parquet",
        "--out",
        "run",
        "--epochs",
        "20",
        "--seed",
        "0",
        "train.lr=0.005",
        *[setting for setting in TINY if not setting.startswith("baselines")],
        "baselines.share=0.4",
    )
    for name in (
        "settings.json",
        "schema.json",
        "splits.parquet",
        "environment.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
    ):
        assert (tmp_path / "run" / name).stat().st_size, name
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert (
        "data:image/png" in page and "data:audio/wav" in page and "http://" not in page.replace("http://www.w3.org", "")
    )

    sensorium(tmp_path, "evaluate", "run", "new.parquet", "--json", "results.json")
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    colour = results["columns"]["colour"]
    assert colour["accuracy"] > 0.8 > colour["chance"] and {"one_column", "trees"} <= set(colour["baseline"])
    assert results["columns"]["width"]["r2"] > 0.3 and results["retrieval"]["name>picture"]["recall@10"] > 0.4
    assert results["trained_on"] == 0

    sensorium(
        tmp_path, "predict", "run", "new.parquet", "--column", "colour", "--seen", "picture", "--out", "colour.parquet"
    )
    predicted = pq.read_table(tmp_path / "colour.parquet")
    truth = np.array([c or "" for c in tiny_table(60, seed=2, gaps=0.05)["colour"].to_pylist()])
    known = truth != ""
    assert (np.array(predicted["value"].to_pylist())[known] == truth[known]).mean() > 0.7
    sensorium(tmp_path, "embed", "run", "new.parquet", "--columns", "picture", "--out", "gists.parquet")
    assert pq.read_table(tmp_path / "gists.parquet").num_rows == 60
    found = sensorium(
        tmp_path, "search", "run", "new.parquet", "--by", "picture=@query.png", "--among", "name", "-k", "5"
    )
    assert found.count("red") >= 3, found
    sensorium(
        tmp_path, "generate", "run", "new.parquet", "--column", "name", "--seen", "picture", "--out", "names.jsonl"
    )
    lines = [json.loads(line) for line in (tmp_path / "names.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 60 and all(isinstance(line["value"], str) for line in lines)
