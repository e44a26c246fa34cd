"""What README and docs say runs: their Python, their example of a modality, their links and their commands."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """(words after the language, code) of each fenced block."""
    found = re.findall(rf"^```{language}([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [(head.strip(), code) for head, code in found]


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """The table that the README's lines are about."""
    notes = {"cat": ["purrs and sleeps all day", "asleep on a sofa", "hunts mice at night"],
             "dog": ["barks at the postman", "fetches the ball again", "wags and runs"]}
    with (tmp_path / "pets.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["notes", "species", "weight"])
        for i in range(120):
            species = ("cat", "dog")[i % 2]
            writer.writerow([f"{notes[species][i % 3]} no {i}", species, 3 + 5 * (i % 2) + i / 100])
    monkeypatch.chdir(tmp_path)


def test_the_readme_runs(pets):
    (_, code), = blocks(ROOT / "README.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) == 8
    short = code.replace("minutes=5", "epochs=2, settings=['train.batch=32', 'baselines.share=0', 'trackers=none']")
    assert short != code
    subprocess.run([sys.executable, "-c", short], check=True, timeout=120)
    assert Path("runs/copy/model.safetensors").is_file() and Path("runs/pets/report.html").is_file()


def test_a_modality_is_one_file(tmp_path, monkeypatch):
    import sensorium.modalities
    from sensorium import Model
    from sensorium.core.parts import names
    from sensorium.modalities import Modality

    (head, code), = blocks(ROOT / "docs" / "add-a-modality.md", "python")
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / head.removeprefix("file=")).write_text(code, encoding="utf-8")
    monkeypatch.setattr(sensorium.modalities, "__path__", [*sensorium.modalities.__path__, str(folder)])
    assert "colour" in names(Modality)
    rows = [{"paint": f"#{200 * red:02x}10{i:02x}", "word": ("cold blue sea", "hot red fire")[red] + f" {i}", "warm": ("no", "yes")[red]}
            for i in range(80) for red in (0, 1)]
    model = Model.fit(rows, epochs=12, out=tmp_path / "run",
                      settings=["train.batch=32", "baselines.share=0", "trackers=none", "network.width=48", "trunk.depth=1"])
    assert model.schema.columns["paint"].kind == "colour"
    said = model.predict([{"paint": "#c81001"}, {"paint": "#001001"}], "warm").column("value").to_pylist()
    assert said == ["yes", "no"]
    sys.modules.pop("sensorium.modalities.colour", None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_options_that_docs_name_exist():
    from typer.testing import CliRunner

    from sensorium.cli import app

    for page in PAGES:
        for line in re.findall(r"^    sensorium (\w+ .*)$", page.read_text(encoding="utf-8"), re.M):
            command, options = line.split()[0], set(re.findall(r"--[a-z][a-z-]*", line.split("#")[0]))
            if command == "table":
                continue
            said = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
            assert options <= set(re.findall(r"--[a-z][a-z-]*", said)), (page.name, line)


def test_setting_sections_of_the_docs_exist():
    from sensorium.core.settings import schema
    from sensorium.data.sample import Sampler
    from sensorium.train.build import Data, Shape
    from sensorium.train.loop import Loop

    text = (ROOT / "docs" / "fit.md").read_text(encoding="utf-8")
    for section, part in {"train": Loop, "network": Shape, "sample": Sampler, "data": Data}.items():
        keys = re.search(rf"^\| `{section}` \|.*\| `([^`]*)` \|$", text, re.M)
        assert keys, section
        assert set(keys[1].split()) <= set(schema(part)), section
