"""Parts of another package: those of docs/extend.md, installed with entry points and put through the contract tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GROUPS = {
    "modalities": "modalities",
    "generators": "generators",
    "objectives": "objectives",
    "backbones": "backbones",
    "training/trackers": "trackers",
    "search/finders": "finders",
    "posttraining": "posttraining",
    "cli/commands": "commands",
    "serve/routes": "routes",
}
"""Folders of parts, and their groups of entry points."""
NAMED = {"commands"}
"""Groups whose entry points name a function and not a class or a module."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which a package is installed that brings the page's parts."""
    site, groups = tmp_path_factory.mktemp("site"), {}
    (site / "extras").mkdir()
    (site / "extras" / "__init__.py").touch()
    text = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    for path, code in re.findall(r"^```python file=(\S+)\n(.*?)^```", text, re.M | re.S):
        folder, _, file = path.rpartition("/")
        group, name = GROUPS[folder], file.removesuffix(".py")
        module = f"{group}_{name}"
        (site / "extras" / f"{module}.py").write_text(code, encoding="utf-8")
        public = re.search(r"^class (\w+)\(", code, re.M)
        kind = f":{name}" if group in NAMED else f":{public[1]}" if public and group != "routes" else ""
        groups.setdefault(f"sensorium.{group}", []).append(f"{name} = extras.{module}{kind}")
    assert len(groups) >= 9, groups
    info = site / "extras-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extras\nVersion: 1.0\n", encoding="utf-8")
    lines = [line for group, entries in groups.items() for line in (f"[{group}]", *entries, "")]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])}


def test_installed_parts_pass_the_contract_tests(installed: dict[str, str]) -> None:
    """Those of modalities, generators and objectives, without another file being touched."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_contracts.py"]
    done = subprocess.run(
        [*command, "-k", "palette or gaussian or spread"],
        cwd=ROOT,
        env=installed,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", run_summary(done.stdout))[1]) > 20, done.stdout[-500:]


def run_summary(output: str) -> str:
    """Pytest's count of passed tests; with -q twice it would print none."""
    dots = sum(line.count(".") for line in re.findall(r"^[.sxF]+ +\[", output, re.M))
    return f"{dots} passed"


def test_installed_parts_are_found_and_ours_come_first(installed: dict[str, str]) -> None:
    code = """
        from pathlib import Path
        from sensorium.backbones import Backbone
        from sensorium.backbones._open import library_of
        from sensorium.core.registry import find, name_of, names
        from sensorium.generators import Generator
        from sensorium.modalities import Modality
        from sensorium.search.finders import Finder
        from sensorium.training.trackers import Tracker

        for contract, name in (
            (Modality, "palette"), (Generator, "gaussian"), (Backbone, "pooled"), (Finder, "halves"), (Tracker, "csv")
        ):
            part = find(contract, name)
            assert issubclass(part, contract) and name in names(contract) and name_of(part) == name, name
            assert part.__module__.startswith("extras."), part
        assert find(Modality, "image").__module__ == "sensorium.modalities.image"
        assert library_of({"library": "pooled"}) == "pooled" and library_of({"model_type": "clip"}) == "transformers"
    """
    program = "\n".join(line.removeprefix("        ") for line in code.splitlines())
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=installed, check=True, timeout=120)


def test_installed_commands_and_routes_are_there(installed: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sensorium", "--help"],
        env=installed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and "nearest" in done.stdout, done.stdout + done.stderr
    code = "from sensorium.serve.routes import route_modules; assert 'nearest' in route_modules()"
    subprocess.run([sys.executable, "-c", code], env=installed, check=True, timeout=120)


def test_an_installed_recipe_is_run_and_saved(installed: dict[str, str], tmp_path: Path) -> None:
    run = shutil.copytree(ROOT / "tests" / "network" / "format_7", tmp_path / "run")
    code = f"""
        import pyarrow as pa
        from sensorium.core.errors import UserError
        from sensorium.model import Model

        model = Model.load({str(run)!r})
        model.post_train("prune", pa.table({{"a": [1]}}), settings=["prune.share=0.75"])
        again = Model.load({str(run)!r})
        assert again.facts["pruned"]["share"] == 0.75
        weight = next(weight for weight in again.network.trunk.parameters() if weight.ndim == 2)
        assert abs((weight == 0).float().mean().item() - 0.75) < 0.01
        try:
            model.post_train("prune", pa.table({{"a": [1]}}), settings=["prune.share=2"])
        except UserError as error:
            assert "give a share between 0 and 1" in str(error)
        else:
            raise AssertionError("a share of 2 was taken")
    """
    program = "\n".join(line.removeprefix("        ") for line in code.splitlines())
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=installed, check=True, timeout=120)
