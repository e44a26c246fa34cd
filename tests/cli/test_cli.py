"""The commands: status 0, 2 for what the user can mend, 1 for our faults; a sentence on stderr; help without torch."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY, drawing, known_settings, tiny_table

from sensorium.core.errors import UserError
from sensorium.data.options import open_arguments
from sensorium.model import Model

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(fitted: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny table as Parquet and a run that knows it."""
    path = tmp_path_factory.mktemp("cli")
    pq.write_table(tiny_table(20).append_column("split", pa.array(["a", "b"] * 10)), path / "tiny.parquet")
    shutil.copytree(fitted.folder, path / "run")
    (path / "query.png").write_bytes(drawing("red", "bar", 2))
    return path


def told(result: tuple[int, str, str], *words: str) -> None:
    """The command left with 2 and one sentence, or a few, that hold these words; no traceback."""
    status, _, err = result
    assert status == 2, result
    assert all(word in err for word in words) and "Traceback" not in err and 0 < len(err.strip().splitlines()) <= 3, err


# --- without a run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["--help"], ["--version"], ["fit", "--help"], ["table", "--help"],
                                     ["table", "emoji", "--help"], ["demo", "--help"]], ids=" ".join)  # fmt: skip
def test_help_comes_without_torch(command: list[str]) -> None:
    heavy = ("torch", "sklearn", "pyarrow", "transformers", "PIL")
    code = f"""
import sys
from sensorium.cli.main import main
sys.argv = ["sensorium", *{command!r}]
try:
    main()
finally:
    print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and done.stdout.strip() and done.stderr.strip().splitlines()[-1] in ("[]", "['PIL']"), (
        done
    )


def test_importing_the_package_is_light() -> None:
    code = "import sys, sensorium; sensorium.UserError; print('torch' in sys.modules, sensorium.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("False ")


def test_wrong_usage_is_status_two(run: Run) -> None:
    for arguments in (
        ["fitt"],
        ["fit"],
        ["fit", "x.csv", "--minuts", "3"],
        ["fit", "x.csv", "--seed", "many"],
        ["predict", "run", "x.csv"],
    ):
        status, _, err = run(*arguments)
        assert status == 2 and err and "Traceback" not in err


def test_fit_tells_what_is_wrong(run: Run, folder: Path, tmp_path: Path) -> None:
    table, out = folder / "tiny.parquet", ["--out", tmp_path / "run"]
    told(run("fit", tmp_path / "nothing.parquet", *out), "nothing.parquet")
    told(run("fit", table, "train.bach=3", *out), "Did you mean 'batch'")
    told(run("fit", table, "trunk.bits=8", *out), "trunk.bits is a setting of causal_lm, and trunk is segment here")
    told(run("fit", table, "trian.batch=3", *out), "Did you mean 'train'")
    told(run("fit", table, "train.batch", *out), "section.key=value")
    told(run("fit", table, *out, "--target", "color"), "Did you mean 'colour'")
    told(run("fit", table, *out, "--minutes", "0"), "--minutes")
    told(run("fit", table, *out, "--tracker", "tensorbord"), "Did you mean 'tensorboard'")
    told(run("fit", table, *out, "--max-bad", "lots"), "--max-bad lots")
    told(run("fit", table, *out, "--settings", tmp_path / "no.yaml"), "no.yaml")
    told(run("fit", table, *out, "--resume"), "Start it without --resume")
    told(run("fit", table, *out, "--device", "cuda:9"), "cuda:9", "Possible: cpu")
    told(run("fit", table, "--out", folder / "query.png" / "x"), "--out")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("text", ["{", "[1, 2]", "- a\n", "train: [\n"])
def test_a_broken_settings_file_is_told(text: str, run: Run, folder: Path, tmp_path: Path) -> None:
    for ending in (".yaml", ".json", ".toml", ".ini"):
        path = tmp_path / f"settings{ending}"
        path.write_text(text)
        told(run("fit", folder / "tiny.parquet", "--out", tmp_path / "run", "--settings", path), "settings")


@pytest.mark.usefixtures("no_report")
def test_fit_takes_settings_from_a_file_and_the_command_line(run: Run, tmp_path: Path) -> None:
    table = tiny_table(40).select(["name", "colour"])
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "s.yaml").write_text("train: {batch: 32, lr: 0.001}\ntrunk: concat\nbaselines: {share: 0}\n")
    given = [s for s in known_settings(table) if not s.startswith(("baselines", "train.batch", "trackers"))]
    status, out, err = run("fit", tmp_path / "t.parquet", "train.batch=8", *given, "--settings", tmp_path / "s.yaml",
                           "--epochs", 1, "--out", tmp_path / "run", "--target", "colour", "--tracker", "none",
                           "--max-bad", "50%")  # fmt: skip
    assert status == 0 and "steps" in out and str(tmp_path / "run") in out and "Traceback" not in err
    kept = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (
        kept["settings"]["train"]["batch"] == "8"
        and kept["settings"]["train"]["lr"] == 0.001
        and kept["target"] == ["colour"]
    )
    assert kept["settings"]["trunk"][""] == "concat" and kept["settings"]["data"]["max_bad"] == "50%"
    assert json.loads((tmp_path / "run" / "model.json").read_text())["facts"]["batch"] == 8


def test_columns_says_what_each_column_is(run: Run, folder: Path, tmp_path: Path) -> None:
    status, out, _ = run("columns", folder / "tiny.parquet")
    assert status == 0
    for words in ("picture", "image", "curve", "series", "split"):
        assert words in out
    told(run("columns", tmp_path / "nothing"), "nothing")
    spoiled = tiny_table(12, gaps=0.0)
    spoiled = spoiled.set_column(
        0, "picture", pa.array([drawing("red", "bar", 1)] * 10 + [b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\nx"])
    )
    pq.write_table(spoiled, tmp_path / "spoiled.parquet")
    status, out, err = run("columns", tmp_path / "spoiled.parquet")
    assert status == 0 and "column 'picture': 2 bad cell(s); the first is row 10" in err


# --- with a run -------------------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, Any]]:
    match path.suffix:
        case ".parquet":
            return pq.read_table(path).to_pylist()
        case ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        case _:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_predictions_are_written(ending: str, run: Run, folder: Path, fitted: Model, tmp_path: Path) -> None:
    table, out = pq.read_table(folder / "tiny.parquet"), tmp_path / "new" / f"said{ending}"
    for column in ("colour", "width", "day", "name"):
        status, words, _ = run(
            "predict",
            folder / "run",
            folder / "tiny.parquet",
            "--column",
            column,
            "--out",
            out,
            "--seen",
            "picture,curve",
        )
        wanted = fitted.predict(table, column, ["picture", "curve"]).to_pylist()
        rows = rows_of(out)
        assert status == 0 and str(out) in words and len(rows) == 20 and list(rows[0]) == list(wanted[0])
        assert [str(row["value"]) for row in rows] == [str(row["value"]) for row in wanted] or column == "width"
        assert np.allclose(
            [float(row["probability"]) for row in rows], [row["probability"] for row in wanted], atol=1e-5
        )
        if column == "width":
            assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows)
    assert [path.name for path in out.parent.iterdir()] == [out.name], "nothing half written is left"


@pytest.mark.parametrize("ending", [".npy", ".parquet", ".csv", ".jsonl"])
def test_embeddings_are_written(ending: str, run: Run, folder: Path, fitted: Model, tmp_path: Path) -> None:
    out = tmp_path / f"gists{ending}"
    assert run("embed", folder / "run", folder / "tiny.parquet", "--columns", "picture", "--out", out)[0] == 0
    wanted = fitted.embed(pq.read_table(folder / "tiny.parquet"), ["picture"])
    if ending == ".npy":
        found = np.load(out, allow_pickle=False)
    elif ending == ".csv":
        found = np.array([[float(value) for value in row.values()] for row in rows_of(out)])
    else:
        found = np.array([row["gist"] for row in rows_of(out)])
    assert np.allclose(found, wanted, atol=1e-5)


def test_generated_texts_are_written(run: Run, folder: Path, fitted: Model, tmp_path: Path) -> None:
    out = tmp_path / "said.jsonl"
    assert run("generate", folder / "run", folder / "tiny.parquet", "--column", "name", "--out", out)[0] == 0
    assert [row["value"] for row in rows_of(out)] == fitted.generate(pq.read_table(folder / "tiny.parquet"), "name")
    told(
        run("generate", folder / "run", folder / "tiny.parquet", "--column", "picture", "--out", out),
        "image",
        "Possible: name",
    )


def test_search_prints_what_it_found(run: Run, folder: Path, fitted: Model) -> None:
    status, out, _ = run(
        "search", folder / "run", folder / "tiny.parquet", "--by", "name=a red bar", "--among", "picture", "-k", 3
    )
    found = fitted.search({"name": "a red bar"}, among=pq.read_table(folder / "tiny.parquet"), column="picture", k=3)
    assert status == 0 and all(f"{score:.3f}" in out for score in found["score"].to_pylist())
    status, out, _ = run(
        "search",
        folder / "run",
        folder / "tiny.parquet",
        "--by",
        f"picture=@{folder / 'query.png'}",
        "--by",
        "colour=red",
    )
    assert status == 0 and "score" in out
    for by, words in (
        ("name", "column=words"),
        ("nme=x", "Did you mean 'name'"),
        ("picture=@no.png", "no.png"),
        ("width=ten", "'ten' is no number"),
    ):
        told(run("search", folder / "run", folder / "tiny.parquet", "--by", by), words)
    told(run("search", folder / "run", folder / "tiny.parquet", "--by", "name=x", "-k", "0"), "k=0")
    told(run("search", folder / "run", folder / "tiny.parquet", "--by", "name=x", "--among", "photo"), "photo")


def test_a_coverage_may_be_asked(run: Run, folder: Path, tmp_path: Path) -> None:
    asked = ("predict", folder / "run", folder / "tiny.parquet", "--column", "colour", "--out", tmp_path / "said.csv")
    assert run(*asked, "--coverage", "0.8")[0] == 0 and json.loads(rows_of(tmp_path / "said.csv")[0]["set"])[0] in (
        "red",
        "green",
        "blue",
    )
    told(run(*asked, "--coverage", "1.5"), "between 0 and 1")


def test_an_index_is_made_searched_and_changed(run: Run, folder: Path, fitted: Model, tmp_path: Path) -> None:
    made, table = tmp_path / "index", folder / "tiny.parquet"
    status, out, _ = run("index", folder / "run", table, "--out", made)
    assert status == 0 and f"Wrote {pq.read_table(table).num_rows:,} rows of 24 dimensions" in out
    status, out, _ = run(
        "search",
        made,
        "--by",
        "name=a red bar",
        "--among",
        "picture",
        "-k",
        3,
        "--where",
        'colour = "red"',
        "--not",
        "name=huge",
        "--weight",
        "name=2",
    )
    assert status == 0 and "score" in out and "blue" not in out
    told(run("search", made, table, "--by", "name=x"), "without a table")
    told(run("search", folder / "run", "--by", "name=x"), "give the table")
    told(run("search", folder / "run", table, "--by", "name=x", "--where", "width > 3"), "are for an index")
    told(run("search", made, "--by", "name=x", "--weight", "name"), "column=number")
    told(run("search", made, "--by", "name=x", "--weight", "colour=2"), "colour")
    told(run("search", made), "is empty")
    told(run("index", folder / "run", table, "--out", made, "--add", "--remove"), "together")
    told(run("index", folder / "run", table, "--out", made, "--add", "--key", "name"), "Leave them out")
    told(run("index", folder / "run", table, "--out", made, "--remove"), "by their key")
    status, out, _ = run("index", folder / "run", table, "--out", made, "--add")
    assert status == 0 and "0 in place of others" in out
    status, out, _ = run("duplicates", made, "--above", "0.9999", "--out", tmp_path / "d.csv")
    assert status == 0 and "nearly alike" in out and (tmp_path / "d.csv").is_file()
    (made / "index.json").write_text(
        (made / "index.json").read_text().replace(str((folder / "run").resolve()), "/nowhere")
    )
    told(run("search", made, "--by", "name=x"), "--run RUN")
    assert run("search", made, "--by", "name=x", "--run", folder / "run")[0] == 0


def test_evaluate_prints_and_writes_results(run: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "r.json"
    status, out, _ = run("evaluate", folder / "run", folder / "tiny.parquet", "--split", "b", "--seen", "picture, name",
                         "--entity-key", "colour", "--json", path)  # fmt: skip
    results = json.loads(
        path.read_text(encoding="utf-8"), parse_constant=lambda text: pytest.fail(f"{text} is no JSON")
    )
    assert status == 0 and results["rows"] == 10 and set(results["columns"]["colour"]["alone"]) == {"picture", "name"}
    assert "name>picture" in out or "name > picture" in out
    told(run("evaluate", folder / "run", folder / "tiny.parquet", "--split", "c"), "split")
    told(run("evaluate", folder / "run", folder / "tiny.parquet", "--entity-key", "colr"), "Did you mean 'colour'")
    told(run("evaluate", folder / "run", folder / "tiny.parquet", "--seen", "colr"), "Did you mean 'colour'")
    told(run("evaluate", folder / "run", folder / "tiny.parquet", "--json", folder / "query.png" / "r.json"), "--json")
    told(run("evaluate", folder / "run", folder / "tiny.parquet", "--json", tmp_path), "--json")


def test_a_run_or_a_file_that_is_wrong_is_told(run: Run, folder: Path, tmp_path: Path) -> None:
    table = folder / "tiny.parquet"
    told(
        run("predict", folder / "run", table, "--column", "colour", "--out", tmp_path / "said.xlsx"),
        ".parquet, .csv, .jsonl",
    )
    told(run("embed", folder / "run", table, "--out", tmp_path / "said.txt"), ".npy")
    told(
        run("predict", folder / "run", table, "--column", "color", "--out", tmp_path / "said.csv"),
        "Did you mean 'colour'",
    )
    told(
        run("predict", folder / "run", table, "--column", "colour", "--seen", "nme", "--out", tmp_path / "said.csv"),
        "Did you mean 'name'",
    )
    told(
        run("predict", folder / "run", tmp_path / "no.csv", "--column", "colour", "--out", tmp_path / "said.csv"),
        "no.csv",
    )
    told(
        run("predict", folder, table, "--column", "colour", "--out", tmp_path / "said.csv"),
        "holds no model",
        "sensorium fit",
    )
    told(run("embed", folder / "run", table, "--columns", "nme", "--out", tmp_path / "x.npy"), "Did you mean 'name'")
    told(
        run("predict", folder / "run", table, "--column", "colour", "--out", folder / "query.png" / "said.csv"),
        "query.png",
    )
    assert not list(tmp_path.iterdir())


def test_what_is_said_once_goes_to_stderr(run: Run, folder: Path, tmp_path: Path) -> None:
    pq.write_table(tiny_table(5).select(["name"]), tmp_path / "less.parquet")
    status, out, err = run(
        "predict", folder / "run", tmp_path / "less.parquet", "--column", "colour", "--out", tmp_path / "said.csv"
    )
    assert (
        status == 0
        and err.count("has no column") == 1
        and "has no column" not in out
        and len(rows_of(tmp_path / "said.csv")) == 5
    )


# --- our own faults ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "status", "words"), [
    (ZeroDivisionError("oh"), 1, "fault of Sensorium, not yours: ZeroDivisionError: oh"),
    (UserError("Mend it."), 2, "Mend it."),
    (OSError(28, "No space left on device"), 2, "No space left"),
    (OSError(5, "Input/output error"), 1, "fault of Sensorium"),
    (MemoryError(), 2, "memory"),
], ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "")  # fmt: skip
def test_faults_have_their_status(
    error: Exception, status: int, words: str, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(Model, "load", fail)
    found, _, err = run("evaluate", folder / "run", folder / "tiny.parquet")
    assert found == status and words in err and "Traceback" not in err


def test_module_and_script_are_the_command(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-m", "sensorium", "fit", str(folder / "tiny.parquet"), *TINY,
                           "train.x=1"],
                          capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert (
        done.returncode == 2
        and "train" in done.stderr
        and len(done.stderr.strip().splitlines()) == 1
        and not done.stdout
    )


def test_columns_tells_how_a_table_was_read_also_as_json(run: Run, tmp_path: Path) -> None:
    lines = [f"Bär {i % 4};€{i}.50;{1 + i % 28:02}/03/2020;{i}" for i in range(40)]
    lines[7] += ";too;many"
    (tmp_path / "t.csv").write_bytes(("name;price;born;n\n" + "\n".join(lines)).encode("cp1252"))
    status, out, err = run("columns", tmp_path / "t.csv")
    assert status == 0 and "39 rows, and 1 that can't be read" in out
    for words in ("Windows-1252", "delimiter semicolon", "t.csv, line 9", "6 cells where the header has 4"):
        assert words in err
    status, out, _ = run("columns", tmp_path / "t.csv", "column.n.kind=category", "--json", "-")
    found = json.loads(out)
    assert status == 0 and found["rows"] == 40 and found["bad_row_count"] == 1 and found["bad_rows"][0]["row"] == 7
    assert found["read"]["t.csv"] | {"encoding": "cp1252", "delimiter": ";"} == found["read"]["t.csv"]
    columns = {column["name"]: column for column in found["columns"]}
    assert columns["price"]["settings"]["prefix"] == "€" and columns["born"]["settings"] == {"format": "%d/%m/%Y"}
    assert columns["n"]["kind"] == "category"
    status, _, _ = run("columns", tmp_path / "t.csv", "--json", tmp_path / "found.json", "--no-check")
    assert status == 0 and json.loads((tmp_path / "found.json").read_text())["bad_cells"] is None
    told(run("columns", tmp_path / "t.csv", "data.encoding=klingon"), "data.encoding=klingon")
    status, out, err = run("columns", tmp_path / "t.csv", "data.max_bad=0")
    assert status == 2 and "39 rows" in out and "1 of 40 rows" in err.splitlines()[-1]


def test_fit_says_what_it_leaves_out(run: Run, tmp_path: Path) -> None:
    rows = [
        {"scan": f"a/{i}.dcm", "same": 1, "uid": f"{i:032x}", "name": f"thing {i % 5} of it", "n": i * 7 % 11}
        for i in range(40)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"n": ')
    settings = [
        "train.batch=16",
        "network.width=24",
        "network.gist=24",
        "trunk.depth=1",
        "trackers=none",
        "baselines.share=0",
        "memory.rows=0",
    ]
    status, _, err = run("fit", tmp_path / "t.jsonl", *settings, "--out", tmp_path / "run", "--epochs", 1)
    plain = " ".join(err.split())
    assert status == 0, err
    for words in (
        "'scan' is left out",
        "DICOM",
        "'same' is left out: always 1",
        "'uid' is left out: an id",
        "column.uid.kind=text",
        "t.jsonl, line 41",
    ):
        assert words in plain, words
    entry = json.loads((tmp_path / "run" / "quarantine.jsonl").read_text())
    assert entry["row"] == 40 and entry["column"] == "(row)" and "line 41" in entry["reason"]


def test_a_run_reads_tables_as_it_read_its_own(run: Run, tmp_path: Path, no_report: None) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "tables").mkdir()
    for i in range(24):
        (tmp_path / f"photos/{i}.png").write_bytes(drawing(["red", "green", "blue"][i % 3], "bar", i % 4))
    lines = "".join(
        f"{tmp_path}/photos/{i}.png|{['red', 'green', 'blue'][i % 3]}|{i // 3}.{i % 3}0\n" for i in range(24)
    )
    (tmp_path / "tables/t.csv").write_text("photo|colour|code\n" + lines)
    model = Model.fit(tmp_path / "tables/t.csv", out=tmp_path / "run", epochs=1, target="colour", settings=[
        "column.photo.size=16", "train.batch=16", "network.width=24", "network.gist=24", "trunk.depth=1",
        "trackers=none", "baselines.share=0",
        "data.outside=true", "column.code.kind=category", "data.delimiter=|",
    ])  # fmt: skip
    assert model.network.modalities["code"].classes and all(
        code.endswith("0") for code in model.network.modalities["code"].classes
    )
    status, _, err = run(
        "embed", tmp_path / "run", tmp_path / "tables/t.csv", "--columns", "photo", "--out", tmp_path / "gists.npy"
    )
    vectors = np.load(tmp_path / "gists.npy")
    assert status == 0 and "can't be read" not in err and len(np.unique(vectors.round(4), axis=0)) > 2
    told = open_arguments(tmp_path / "run")
    assert told["allow_outside"] is True and told["options"].delimiter == "|"
    assert Model.load(tmp_path / "run").open(tmp_path / "tables/t.csv").schema.field("code").type == pa.string()


def test_the_old_name_of_an_option_still_counts_and_is_told(run: Run, folder: Path, tmp_path: Path) -> None:
    ask = ("evaluate", folder / "run", folder / "tiny.parquet", "--json", tmp_path / "r.json")
    status, new, err = run(*ask, "--entity-key", "colour")
    assert status == 0 and "--same" not in err
    status, old, err = run(*ask, "--same", "colour")
    assert status == 0 and old == new and "--same is called --entity-key now" in err
    told(run(*ask, "--same", "colour", "--entity-key", "colour"), "Give only --entity-key")
    assert "--same" not in run("evaluate", "--help")[1]


def test_a_warning_is_its_text_only(tmp_path: Path) -> None:
    code = """
import warnings
from sensorium.cli.main import app, main
from sensorium.core.errors import SensoriumWarning

@app.command()
def caution() -> None:
    warnings.warn("Two cells can't be read.", SensoriumWarning)
    warnings.warn("else", UserWarning)

import sys
sys.argv = ["sensorium", "caution"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    first, second = done.stderr.splitlines()[:2]
    assert first == "Two cells can't be read." and second.endswith("UserWarning: else"), done


def test_other_packages_add_commands(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    from sensorium.cli import lazy

    (tmp_path / "count_rows.py").write_text(
        'import typer\n\ndef count_rows(table: str, twice: bool = False) -> None:\n    """Count."""\n'
        "    typer.echo(f'counted {table} {twice}')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = [importlib.metadata.EntryPoint(name, f"{name.replace('-', '_')}:{name.replace('-', '_')}",
                                             lazy.ENTRY_POINTS)
              for name in ("count-rows", "missing", "fit")]  # fmt: skip
    monkeypatch.setattr(lazy, "entry_points", lambda group: [p for p in points if p.group == group])
    lazy.command_entries.cache_clear()
    try:
        status, out, _ = run("--help")
        assert status == 0 and "count-rows" in out and "Count." in out and "can't be imported" in out
        assert "Train one model on a table." in out
        status, out, _ = run("count-rows", "x.csv", "--twice")
        assert status == 0 and out.strip() == "counted x.csv True"
    finally:
        lazy.command_entries.cache_clear()
