"""The tests for a GPU, on a stand-in for one: nothing is left on the wrong device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = """
import sys
import fake_gpu
fake_gpu.begin()
import pytest
sys.exit(pytest.main(["-m", "gpu", "-p", "no:cacheprovider", "-p", "no:xdist", sys.argv[1]]))
"""


@pytest.mark.slow
def test_nothing_is_left_on_the_wrong_device() -> None:
    environment = {
        **os.environ,
        "SENSORIUM_DEVICE": "standin",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(HERE / "test_gpu.py")],
        cwd=HERE.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_the_stand_in_holds_tensors_apart_and_casts_as_cuda_does() -> None:
    script = """
import fake_gpu
fake_gpu.begin()
import torch
x, layer = torch.randn(3, 4, device="standin"), torch.nn.Linear(4, 5).to("standin")
mixed = (lambda: x + torch.ones(4), lambda: layer(torch.ones(1, 4)), lambda: x.index_select(0, torch.tensor([0])))
for wrong in (lambda: x.numpy(), *mixed):
    try:
        wrong()
    except (RuntimeError, TypeError):
        continue
    raise SystemExit("not found")
with torch.autocast("standin", torch.bfloat16):
    y = layer(x)
    types = (y.dtype, torch.nn.functional.layer_norm(y, (5,)).dtype, y.sum().dtype, (y + 1).dtype)
    assert types == (torch.bfloat16, torch.float32, torch.float32, torch.bfloat16)
y.float().square().mean().backward()
assert layer.weight.grad.device.type == "standin"
assert x[torch.tensor([0])].cpu().shape == (1, 4) and float(x.sum()) == float(x.cpu().sum())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
