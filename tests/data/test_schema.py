"""The schema: what each column is, and which columns say nothing."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_helpers import png, wav

from sensorium.core.errors import UserError
from sensorium.core.registry import names
from sensorium.core.types import Claim
from sensorium.data.media import HEAD_BYTES
from sensorium.data.profile import MAX_EXACT_DISTINCT, MAX_PROFILED_ROWS, profile_columns, stretches
from sensorium.data.schema import Schema, claims, columns_report, infer
from sensorium.data.table import Table
from sensorium.modalities import Modality

N = 200
RNG = np.random.default_rng(0)
WORDS = [
    "red",
    "green",
    "blue",
    "small",
    "large",
    "happy",
    "sad",
    "old",
    "new",
    "cat",
    "dog",
    "bird",
    "tree",
    "house",
    "river",
]


def sentence() -> str:
    return " ".join(RNG.choice(WORDS, 6))


def everything() -> dict[str, list]:
    return {
        "id": list(range(1, N + 1)),
        "uid": [str(uuid.UUID(bytes=RNG.bytes(16))) for _ in range(N)],
        "notes": [sentence() for _ in range(N)],
        "species": RNG.choice(["cat", "dog", "owl"], N).tolist(),
        "weight": RNG.lognormal(size=N).tolist(),
        "born": [f"20{i % 20 + 10}-0{i % 9 + 1}-1{i % 9}" for i in range(N)],
        "photo": [png(i) for i in range(N)],
        "call": [wav() + bytes([i]) for i in range(N)],
        "walk": [RNG.normal(size=(5 + i % 3, 2)).tolist() for i in range(N)],
        "alive": RNG.random(N).__gt__(0.5).tolist(),
        "empty": [None] * N,
        "same": ["x"] * N,
        "split": RNG.choice(["train", "test_a", "dev"], N).tolist(),
        "when": pd.date_range("2020-01-01", periods=N, freq="D").tolist(),
    }


KINDS = {
    "notes": "text",
    "species": "category",
    "weight": "number",
    "born": "date",
    "photo": "image",
    "call": "audio",
    "walk": "series",
    "alive": "category",
    "when": "date",
}


def test_every_kind_of_column_is_recognised_and_the_rest_left_out() -> None:
    table = Table.open(everything())
    schema = infer(table)
    there = names(Modality)
    assert {name: column.kind for name, column in schema.columns.items()} == {
        n: k for n, k in KINDS.items() if k in there
    }
    assert schema.split == "split" and set(schema.left_out) >= {"id", "uid", "empty", "same"}
    assert (
        "id" in schema.left_out["id"] and "UUIDs" in schema.left_out["uid"] and "always 'x'" in schema.left_out["same"]
    )
    assert "no cell" in schema.left_out["empty"] and all(column.why for column in schema.columns.values())
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize(
    "name, cells",
    [
        ("code", [f"{0x1F300 + i:X}" for i in range(N)]),
        ("x", [f"{0x1F300 + i:x}-200d-1f469" for i in range(N)]),
        ("x", [f"IMG_{i:05}" for i in range(N)]),
        ("x", [uuid.uuid5(uuid.NAMESPACE_DNS, str(i)).hex for i in range(N)]),
        ("file", [f"data/{i}.dat" for i in range(N)]),
        ("x", [f"https://example.com/{i}" for i in range(N)]),
        ("customerId", [f"c{i // 2:03}" for i in range(N)]),
        ("patient_id", [1000 + 7 * i for i in range(N)]),
        ("Unnamed: 0", list(range(N))),
        ("x", RNG.permutation(N).tolist()),
        ("id", ["zero", "one", "two", "three", "four"]),
        ("id", [f"{0x1F300 + i // 2:X}" for i in range(N)]),
        ("x", [bytes([i]).hex() * 10 + f"{i:04}" for i in range(N)]),
        ("key", [f"aB{i}xYz{i * 7}Qr{i}w" for i in range(N)]),
    ],
)
def test_ids_are_left_out(name: str, cells: list) -> None:
    schema = infer(Table.open({name: cells}))
    assert not schema.columns and schema.left_out[name].startswith("an id")


@pytest.mark.parametrize(
    "name, cells, kind",
    [
        ("year", list(range(1900, 1900 + N)), "number"),
        ("width", RNG.integers(0, 10**6, N).tolist(), "number"),
        ("paid", [f"said number {i}" for i in range(N)], "text"),
        ("name", [f"{a}{b}" for a in WORDS for b in WORDS][:N], "text"),
        ("postcode", [f"0{1000 + i % 7}" for i in range(N)], "category"),
        ("store_id", [i % 5 for i in range(N)], "category"),
        ("video", [f"{sentence()} ({i})" for i in range(N)], "text"),
        ("idle", RNG.normal(size=N).tolist(), "number"),
        ("day", [f"2020-{1 + i // 28:02}-{1 + i % 28:02}" for i in range(N)], "date"),
        ("amount", ["1,5", "2,25", "x"] * 30, "category"),
        ("number", RNG.normal(size=N).tolist(), "number"),
        ("stage", [i % 4 for i in range(N)], "category"),
    ],
)
def test_what_looks_like_an_id_but_is_none_stays(name: str, cells: list, kind: str) -> None:
    schema = infer(Table.open({name: cells}))
    assert {name: kind} == {n: column.kind for n, column in schema.columns.items()}, schema.left_out


def test_the_user_has_the_last_word() -> None:
    table = Table.open(everything())
    schema = infer(
        table,
        overrides={
            "id": {"kind": "number"},
            "notes": {"kind": "out"},
            "species": "text",
            "same": {"": "category"},
            "split": {"kind": "category"},
        },
        targets=["uid"],
    )
    assert schema.columns["id"].kind == "number" and schema.columns["id"].why == "you said so"
    assert schema.left_out["notes"] == "you said so" and schema.columns["species"].kind == "text"
    assert (
        schema.columns["same"].kind == "category"
        and schema.columns["split"].kind == "category"
        and schema.split is None
    )
    assert schema.columns["uid"].kind == "text"
    assert infer(table, overrides={"species": {"kind": "split"}}).split == "species"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"overrides": {"note": {"kind": "text"}}}, "Did you mean 'notes'"),
        ({"targets": ["specie"]}, "Did you mean 'species'"),
        ({"overrides": {"notes": {"kind": "txt"}}}, "Did you mean 'text'.*Possible: .*out, .*split"),
        ({"overrides": {"notes": {"kind": "text", "wrong": 1}}}, "column.notes.*'wrong'"),
        ({"targets": ["empty"]}, "target 'empty' can't be used: no cell"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        infer(Table.open(everything()), **options)


def test_a_target_of_one_class_stays() -> None:
    assert infer(Table.open(everything()), targets=["same"]).columns["same"].kind in ("category", "text")


def test_split_is_known_by_name_and_values() -> None:
    def split(name: str, cells: list) -> str | None:
        return infer(Table.open({name: cells, "x": list(range(len(cells)))})).split

    assert split("split", ["train", "test"] * 5) == "split" and split("Split", ["train"] * 9) == "Split"
    assert split("subset", ["training", "Validation", "test_new_style"]) == "subset"
    assert split("split", ["banana", "pear"] * 5) is None and split("transport", ["train", "bus"] * 5) is None
    assert split("x2", ["train", "test"] * 5) is None and split("split", [0.1, 0.2]) is None


def test_files_by_path_and_by_cell_have_heads(tmp_path: Path) -> None:
    rows = []
    for i in range(30):
        (tmp_path / f"{i}.png").write_bytes(png(i))
        rows.append(
            {
                "a": f"{i}.png",
                "b": {"bytes": png(i), "path": None},
                "c": png(i),
                "d": {"bytes": None, "path": f"{i}.png"},
                "e": f"gone{i}.txt",
                "f": f"{sentence()}.png or so {i}",
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    table = Table.open(tmp_path / "t.parquet")
    seen = profile_columns(table)
    for name in "abcd":
        assert len(seen[name].profile.heads) == 30 and {head[:4] for head in seen[name].profile.heads} == {b"\x89PNG"}
        assert all(len(head) < HEAD_BYTES and head[-8:-4] == b"IEND" for head in seen[name].profile.heads), (
            "a small file is its own head"
        )
    assert isinstance(seen["a"].profile.sample[0], str) and seen["e"].profile.heads == [] == seen["f"].profile.heads
    schema = infer(table)
    assert [schema.columns[name].kind for name in "abcd"] == ["image"] * 4


def test_a_sample_is_spread_over_the_whole_table(tmp_path: Path) -> None:
    rows = 2 * MAX_PROFILED_ROWS
    column = np.arange(rows)
    table = pa.table(
        {"n": column, "late": np.where(column > rows * 0.9, "late", "early"), "blob": pa.array([b"x"] * rows)}
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=rows // 8)
    seen = profile_columns(Table.open(tmp_path / "t.parquet"), sample=500)
    sample = np.array(seen["n"].profile.sample)
    assert len(sample) == 500 and np.histogram(sample, 10, (0, rows))[0].min() > 20
    assert seen["late"].profile.distinct == 2 and 10 < seen["late"].profile.sample.count("late") < 120
    assert seen["n"].profile.rows == MAX_PROFILED_ROWS and seen["n"].rising and not seen["n"].exact
    assert abs(seen["n"].profile.distinct / MAX_PROFILED_ROWS - 1) < 0.05
    assert seen["blob"].profile.rows < 5000 and len(seen["blob"].profile.sample) > 100


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.integers(0, 50), max_size=100))
def test_counts_are_exact_while_few(cells: list) -> None:
    profile = profile_columns(Table.open(pa.table({"a": pa.array(cells, pa.int64())})))["a"].profile
    there = [cell for cell in cells if cell is not None]
    assert (profile.rows, profile.present, profile.distinct) == (len(cells), len(there), len(set(there)))
    assert sorted(profile.sample) == sorted(there)


def test_distinct_is_estimated_closely_beyond() -> None:
    cells = np.arange(100_000) % 60_000
    seen = profile_columns(Table.open({"a": cells}))["a"]
    assert (
        not seen.exact and seen.profile.distinct > MAX_EXACT_DISTINCT and abs(seen.profile.distinct / 60_000 - 1) < 0.04
    )


@given(st.integers(0, 10**7), st.integers(64, 5000))
def test_stretches_are_rows(rows: int, wanted: int) -> None:
    found = stretches(rows, wanted)
    assert len(found) <= wanted or rows <= wanted
    assert len(found) == min(rows, len(found)) and (np.diff(found) > 0).all()
    if rows:
        assert found[0] == 0 and found[-1] == rows - 1


def test_the_surest_claim_wins_and_ties_are_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.core.registry import find

    for name in names(Modality):
        monkeypatch.setattr(find(Modality, name), "claim", classmethod(lambda cls, profile: Claim(sure=0.5, why="so")))
    seen = profile_columns(Table.open({"a": ["x", "y"]}))["a"]
    order = [name for name, _ in claims(seen)]
    files = [name for name in sorted(names(Modality)) if find(Modality, name).media]
    assert order == [*files, *(name for name in sorted(names(Modality)) if name not in files)]
    monkeypatch.setattr(find(Modality, "text"), "claim", classmethod(lambda cls, profile: Claim(sure=0.6, why="so")))
    assert claims(seen)[0][0] == "text"


def test_declared_categories_are_said_to_be() -> None:
    frame = pd.DataFrame({"c": pd.Categorical(["a", "b"] * 20), "d": pd.Categorical([f"t {i}" for i in range(40)])})
    seen = profile_columns(Table.open(frame))
    assert seen["c"].profile.type == "dictionary<string>" and seen["d"].profile.type == "string"


def test_report_of_columns() -> None:
    table = Table.open(everything())
    schema = infer(table)
    report = {entry["name"]: entry for entry in columns_report(table, schema, {"photo": 3})}
    assert list(report) == table.columns
    assert report["photo"] == {
        "name": "photo",
        "kind": "image",
        "why": schema.columns["photo"].why,
        "type": "binary",
        "present": 1.0,
        "distinct": N,
        "example": "image/png",
        "bad": 3,
    }
    assert report["id"]["kind"] == "–" and report["split"]["kind"] == "split" and report["empty"]["present"] == 0
    assert all(isinstance(entry["example"], str) and len(entry["example"]) <= 40 for entry in report.values())
    json.dumps(list(report.values()))
    other = columns_report(Table.open({"notes": ["a b", None], "new": [1, 2]}), schema)
    assert [entry["name"] for entry in other][:2] == ["notes", "new"] and other[0]["present"] == 0.5
    assert other[1]["why"] == "not in the schema" and other[-1]["why"] == "not in this table" and "bad" not in other[0]


@pytest.mark.parametrize("source", [[], {"a": []}, {"a": [None]}, [{"a": 1}], [{"a": [{"b": 1}]}, {"a": None}]])
def test_small_and_odd_tables(source: object) -> None:
    table = Table.open(source)
    schema = infer(table)
    assert set(schema.columns) | set(schema.left_out) == set(table.columns)
    assert len(columns_report(table, schema)) == len(table.columns)
