"""What leaves the machine with a model: nothing of single training rows, unless that is said."""

from __future__ import annotations

import json
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import TINY, tiny_table
from safetensors.torch import load_file
from torch.nn import functional as F

from sensorium import Model
from sensorium.core.errors import UserError
from sensorium.core.quantiles import Quantiles
from sensorium.export import model_folder, redaction, run_files
from sensorium.nn.linear_probe import MIN_ROWS, LinearProbes
from sensorium.nn.online_memory import OnlineMemory
from sensorium.nn.row_memory import RowMemory

RARE = "violet-of-nobody-else"
TOLD = 97.125
"""A class of two rows, and a number of one."""

ALONE = "baselines.share=1", "baselines.most=1", "answer.members=network"
"""Settings of a run whose answers are the network's, as those of a model without rows are."""


def people(rows: int = 120, seed: int = 0) -> pa.Table:
    table = tiny_table(rows, seed, gaps=0.0)
    colours, widths = table.column("colour").to_pylist(), table.column("width").to_pylist()
    colours[10] = colours[11] = RARE
    widths[12] = TOLD
    table = table.set_column(table.column_names.index("colour"), "colour", pa.array(colours))
    table = table.set_column(table.column_names.index("width"), "width", pa.array(widths))
    parts = ["train" if number < rows - 30 else "validation" for number in range(rows)]
    return table.append_column("split", pa.array(parts))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of a few steps with all that tells of rows: a memory by hand, baselines, a quarantine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
        folder = tmp_path_factory.mktemp("privacy") / "run"
        made = Model.fit(
            people(),
            out=folder,
            epochs=2,
            settings=[*TINY, *ALONE],
        )
    rows, gists, table = 90, {}, people()
    part = made.rows(table.slice(0, rows))
    for column in ("picture", "name", "tone"):
        gists[column] = torch.from_numpy(part.column_gists(column)[1])
    sketches = {"name": torch.from_numpy(made.network.modalities["name"].sketch(part.cells["name"]))}
    told = {}
    for column in ("colour", "width"):
        modality = made.network.modalities[column]
        told[column] = modality.target(modality.collate(part.cells[column])), torch.ones(rows, dtype=torch.bool)
    made.network.calibration.memory = RowMemory(
        gists,
        20.0,
        0.5,
        sketches,
        0.5,
        told,
        {"colour": 0.75, "width": 0.5},
        {"colour": ["picture", "name"], "width": ["name"]},
    )
    made.settings["data"] = {"outside": "true", "same": ""}
    made.facts |= {
        "table": "patients-of-2031",
        "preferred": {"table": "letters-of-2031", "from": "/home/somebody/letters"},
    }
    made.save(folder)
    (folder / "quarantine.jsonl").write_text('{"row": 3, "cell": "secret"}\n')
    (folder / "report.html").write_text("<p>cells</p>")
    return made


def every_byte(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_what_is_given_away_has_nothing_of_single_rows(model: Model, tmp_path: Path) -> None:
    given = model.save_pretrained(tmp_path / "given")
    assert {path.name for path in given.iterdir()} == {
        "model.json",
        "model.safetensors",
        "probes.safetensors",
        "metrics.jsonl",
        "README.md",
    }
    raw = every_byte(given)
    whole = every_byte(model.folder)
    for words in (RARE, str(TOLD), "patients-of-2031", "secret", "/home/somebody"):
        assert words.encode() in whole, f"'{words}' was never there"
        assert words.encode() not in raw, words
    for words in ("letters-of-2031", str(tmp_path), str(model.folder)):
        assert words.encode() not in raw, words
    for number in np.load(model.folder / "rows.npy"):
        assert number.tobytes() not in raw
    described = json.loads((given / "model.json").read_text())
    assert (
        described["memory"] is None
        and described["domain"] is None
        and "counts" not in described
        and "outside" not in described["settings"]["data"]
        and "table" not in described["facts"]
    )
    remembered = [F.normalize(vectors.float(), dim=1) for vectors in model.network.calibration.memory.known]
    for path in given.glob("*.safetensors"):
        for name, tensor in load_file(path).items():
            if tensor.is_floating_point() and tensor.ndim == 2 and 24 in tensor.shape and name != "bias":
                for vectors in (tensor.float(), tensor.float().T):
                    if vectors.shape[1] == 24:
                        for known in remembered:
                            assert (F.normalize(vectors, dim=1) @ known.T).max() < 0.999, (
                                f"{path.name} {name} holds a training row's gist"
                            )
    assert (
        model.folder is not None
        and (model.folder / "rows.npy").is_file()
        and isinstance(model.network.calibration.memory, RowMemory)
    )


def test_it_is_loaded_and_answers_without_the_rows(model: Model, tmp_path: Path) -> None:
    given = Model.from_pretrained(model.save_pretrained(tmp_path / "given"))
    table = people(30, seed=5).drop(["split"])
    assert (
        isinstance(given.network.calibration.memory, LinearProbes)
        and given.network.calibration.out_of_distribution is None
    )
    colours = given.network.modalities["colour"]
    assert (
        RARE not in colours.classes
        and RARE in model.network.modalities["colour"].classes
        and len(colours.classes) == len(model.network.modalities["colour"].classes) - 1
    )
    for column in ("colour", "width", "day", "name"):
        assert given.predict(table, column, candidates=1).num_rows == 30
    said, before = (
        np.array(one.rows(table).predict("colour", ["curve"]).probabilities) for one in (given, model)
    )  # no probe speaks of the curve
    stay = [0, *(1 + model.network.modalities["colour"].classes.index(c) for c in colours.classes)]
    assert np.allclose(said, before[:, stay] / before[:, stay].sum(1, keepdims=True), atol=1e-4)
    assert not np.allclose(given.embed(table, ["name"]), without(given).embed(table, ["name"]), atol=1e-3)
    again = Model.load(given.save_pretrained(tmp_path / "again"))
    assert np.array_equal(again.embed(table), given.embed(table)) and again.predict(table, "colour").equals(
        given.predict(table, "colour")
    )
    assert Model.load(given.save(tmp_path / "saved")).predict(table, "width").equals(given.predict(table, "width"))
    assert (
        model_folder.identity(tmp_path / "given")
        == model_folder.identity(tmp_path / "again")
        != model_folder.identity(model.folder)
    )
    (tmp_path / "given" / "probes.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match="isn't what was written"):
        Model.load(tmp_path / "given")
    (tmp_path / "given" / "probes.safetensors").unlink()
    assert Model.load(tmp_path / "given").network.calibration.memory is None


def without(model: Model) -> Model:
    folder = model.folder
    other = Model.load(folder)
    other.network.calibration.memory = None
    return other


def test_with_rows_it_is_whole_and_says_the_same(model: Model, tmp_path: Path) -> None:
    given = model.save_pretrained(tmp_path / "given", rows=True)
    assert {"memory.safetensors", "rows.npy", "quarantine.jsonl", "baselines", "report.html"} <= {
        path.name for path in given.iterdir()
    } and not (given / "probes.safetensors").exists()
    loaded, table = Model.from_pretrained(given), people(30, seed=5).drop(["split"])
    for column in ("colour", "width", "day", "name"):
        assert loaded.predict(table, column).equals(model.predict(table, column))
    assert (
        np.array_equal(loaded.embed(table), model.embed(table))
        and loaded.network.calibration.counts == model.network.calibration.counts
    )
    assert not any(
        words.encode() in (given / name).read_bytes()
        for name in ("model.json", "README.md")
        for words in ("patients-of-2031", "/home/somebody")
    )
    assert "tell of single training rows" in (given / "README.md").read_text()
    with pytest.raises(UserError, match=r"memory\.safetensors.*rows=True"):
        model.save_pretrained(given)  # what lies there would be given away with it


def test_the_whole_model_is_not_written_over(model: Model) -> None:
    with pytest.raises(UserError, match="own folder"):
        model.save_pretrained(model.folder)
    assert (model.folder / "memory.safetensors").is_file()


def test_a_model_of_today_is_still_loaded(model: Model, tmp_path: Path) -> None:
    old = shutil.copytree(model.folder, tmp_path / "old")
    described = json.loads((old / "model.json").read_text())
    del described["counts"], described["probes"]  # as they were written before
    (old / "model.json").write_text(json.dumps(described))
    table = people(30, seed=5).drop(["split"])
    loaded = Model.load(old)
    assert loaded.predict(table, "colour").equals(model.predict(table, "colour"))
    assert (
        RARE in Model.load(loaded.save_pretrained(tmp_path / "given")).network.modalities["colour"].classes
    )  # how many rows have it isn't known


def test_the_card_says_what_the_files_hold(model: Model, tmp_path: Path) -> None:
    card = (model.save_pretrained(tmp_path / "given") / "README.md").read_text()
    assert (
        "`probes.safetensors`" in card
        and "memory.safetensors" not in card
        and "Nothing of single training rows" in card
    )
    assert "patients-of-2031" not in card


def test_the_hub_gets_rows_only_where_that_is_said(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    seen: dict[str, Any] = {}

    class Hub:
        def __init__(self, token: str | None = None) -> None: ...

        def create_repo(self, name: str, **options: Any) -> None: ...

        def repo_info(self, name: str) -> Any:
            return types.SimpleNamespace(private=name != "me/public")

        def upload_folder(self, repo_id: str, folder_path: Path, ignore_patterns: list[str]) -> str:
            seen[repo_id] = {path.name for path in folder_path.iterdir()} - set(ignore_patterns)
            return repo_id

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    own = model.folder
    model.push_to_hub("me/without")
    model.push_to_hub("me/with", rows=True)
    assert not seen["me/without"] & set(run_files.FILES_WITH_ROWS) and "probes.safetensors" in seen["me/without"]
    assert {"memory.safetensors", "rows.npy", "baselines"} <= seen["me/with"] and not {
        "settings.json",
        "environment.json",
    } & (seen["me/with"] | seen["me/without"])
    assert model.folder == own
    with pytest.raises(UserError, match="everybody, say"):
        model.push_to_hub("me/public")
    with pytest.raises(UserError, match="memory of training rows"):
        model.push_to_hub("me/public", rows=True)


# --- its parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        np.arange(100.0) ** 1.5,
        np.random.default_rng(0).lognormal(size=1000),
        np.random.default_rng(0).normal(size=15_000),
        np.repeat([0.0, 1.0, 5.0], [80, 10, 10]),
        np.r_[np.zeros(500), 0.01, 0.02, np.arange(1, 60) ** 1.5],
        np.arange(3.0),
    ],
)
def test_quantiles_are_of_several_rows(values: np.ndarray) -> None:
    before = Quantiles.fit(values)
    state = redaction.coarse_quantiles(before.state(), len(values))
    after = Quantiles.from_state(state)
    assert np.diff(state["values"]).min(initial=1.0) > 0
    assert np.diff(np.stack([state["low"], state["high"]], 1).ravel()).min(initial=0.0) >= 0
    distinct, counts = np.unique(values, return_counts=True)
    often = set(distinct[counts >= MIN_ROWS].tolist())
    assert not set(distinct[counts < MIN_ROWS].tolist()) & set(state["values"])
    assert distinct[-1] in often or state["values"][-1] < distinct[-1], "the largest value is a single row's"
    assert often <= set(state["values"]) or len(distinct) > 192  # what many rows share stays as it is
    if len(values) > MIN_ROWS:
        inside = np.quantile(values, [0.1, 0.5, 0.9])
        assert np.allclose(after.encode(inside), before.encode(inside), atol=0.15)
    else:
        assert len(state["values"]) == 1


def test_names_that_are_looked_up_stay_here() -> None:
    recall = OnlineMemory(4, 8)
    recall.store(torch.arange(3), torch.eye(4)[:3], torch.eye(4)[1:], ["Anna", "Bert", "Cleo"])
    network = torch.nn.ModuleDict({"dialogue": torch.nn.ModuleDict({"x": recall}), "other": torch.nn.Linear(2, 2)})
    network.generator_keys = {}
    found = redaction.redacted_tensors(network, {})
    assert (
        not any(value.any() for name, value in found.items() if not name.startswith("other."))
        and found["other.weight"].any()
        and recall.letters.any()
    )
    recall.load_state_dict(
        {name.removeprefix("dialogue.x."): value for name, value in found.items() if name.startswith("dialogue.x.")}
    )
    assert recall.most_similar(torch.eye(4)[:2], 3)[0] == [[], []]


@pytest.mark.parametrize(
    ("value", "yes"),
    [
        ("/home/x", True),
        ("C:\\models", True),
        ("~/x", True),
        ("../x", True),
        ("\\\\host\\share", True),
        ("package:minilm", False),
        ("OWNER/NAME@main", False),
        ("out", False),
        (3, False),
    ],
)
def test_paths_are_told_from_other_settings(value: Any, yes: bool) -> None:
    assert redaction.is_path(value) is yes
