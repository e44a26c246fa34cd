"""A model folder of an earlier format is read, and answers as it did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from sensorium.model import Model
from sensorium.network.older_formats import format_7_path

FOLDER = Path(__file__).parent / "format_7"
"""A model that release 0.1.0 saved, with what it answered for six of its rows."""


@pytest.mark.filterwarnings("ignore:.*is called.*")
def test_a_folder_of_format_7_answers_as_when_it_was_written() -> None:
    expected = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
    model, rows, before = Model.load(FOLDER), expected["rows"], expected["answers"]
    colours = model.predict([{k: v for k, v in row.items() if k != "colour"} for row in rows], "colour")
    widths = model.predict([{k: v for k, v in row.items() if k != "width"} for row in rows], "width")
    assert colours["value"].to_pylist() == before["colour"]
    assert np.allclose(colours["probability"].to_pylist(), before["probability"], atol=1e-5)
    assert np.allclose(widths["value"].to_pylist(), before["width"], atol=1e-4)
    assert np.allclose(model.embed(rows), before["gist"], atol=1e-5)


def test_paths_of_weights_go_back_to_those_of_format_7() -> None:
    """Hashes of networks are taken by them, so that a reward model of format 7 still knows its own."""
    network = Model.load(FOLDER).network
    assert set(map(format_7_path, network.state_dict())) == set(load_file(FOLDER / "model.safetensors"))
