"""The registry of routes: the folder, and what other packages add to it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from sensorium.serve import routes


def test_a_file_is_a_route() -> None:
    modules = routes.route_modules()
    files = {path.stem for path in Path(routes.__file__).parent.glob("*.py") if not path.name.startswith("_")}
    assert set(modules) == files
    for name, module in modules.items():
        assert hasattr(module, "add_routes") or hasattr(module, "answer"), name


def test_the_server_s_process_imports_no_torch() -> None:
    code = "import sys, sensorium.serve.app, sensorium.serve.worker; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)


def test_other_packages_add_routes_and_don_t_replace_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more_routes.py").write_text(
        "def answer(worker, jobs):\n    return [len(job['rows']) for job in jobs]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = [importlib.metadata.EntryPoint(name, "more_routes", routes.ENTRY_POINTS) for name in ("more", "predict")]
    monkeypatch.setattr(routes, "entry_points", lambda group: [p for p in points if p.group == group])
    routes.route_modules.cache_clear()
    try:
        modules = routes.route_modules()
        assert modules["more"].answer(None, [{"rows": [1, 2]}]) == [2]
        assert modules["predict"].__name__ == "sensorium.serve.routes.predict"
    finally:
        routes.route_modules.cache_clear()
