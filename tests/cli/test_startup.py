"""What a command imports before it does its work, counted and not timed (``benchmarks/startup.py`` times)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LISTED = """
import json, sys
from sensorium.cli.main import main
sys.argv = ["sensorium", *{arguments!r}]
try:
    main()
finally:
    print("\\n" + json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
NEVER = ("duckdb", "fastapi", "scipy", "sklearn", "sympy", "tensorboard", "transformers", "uvicorn")
"""Packages that no command needs to begin."""


def imported(*arguments: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    code = LISTED.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout.strip(), done
    return set(json.loads(done.stderr.strip().splitlines()[-1]))


@pytest.fixture(scope="module")
def columns_modules(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The modules that ``sensorium columns`` imports for a small table."""
    path = tmp_path_factory.mktemp("startup") / "small.csv"
    path.write_text("name,colour,width\n" + "".join(f"thing {i},{'red' if i % 2 else 'blue'},{i}\n" for i in range(20)))
    return imported("columns", str(path))


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ()], ids=" ".join)
def test_help_imports_no_command_and_nothing_heavy(arguments: tuple[str, ...]) -> None:
    modules = imported(*arguments)
    assert not modules & {*NEVER, "torch", "pandas", "numpy", "pyarrow", "rich", "PIL", "yaml"}
    assert not [name for name in modules if name.startswith("sensorium.cli.commands.")]
    assert len([name for name in modules if name.startswith("sensorium")]) <= 8


def test_a_command_s_help_imports_that_command_alone() -> None:
    modules = imported("predict", "--help")
    assert not modules & {*NEVER, "torch", "pandas", "numpy", "pyarrow", "PIL"}
    assert [name for name in modules if name.startswith("sensorium.cli.commands.")] == [
        "sensorium.cli.commands.predict"
    ]


def test_columns_imports_what_it_needs(columns_modules: set[str]) -> None:
    modules = columns_modules
    assert not modules & {*NEVER, "av", "datasets", "matplotlib", "timm"}
    assert not [name for name in modules if name.startswith(("sensorium.training", "sensorium.fit", "sensorium.serve"))]
    assert "sensorium.model" not in modules


def test_columns_imports_no_torch(columns_modules: set[str]) -> None:
    assert "torch" not in columns_modules
