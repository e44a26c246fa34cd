"""Our endpoints: they say what the model says in Python, of cells and of rows of the table."""

from __future__ import annotations

import base64
import concurrent.futures
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from live_server import Served

from sensorium.model import Model

ROW = {"name": "a red bar", "width": 12.5}


def file_of(cell: bytes) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(cell).decode()


def plain(found: pa.Table) -> list[dict[str, Any]]:
    return [
        {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}
        for row in found.to_pylist()
    ]


def same(said: Any, own: Any) -> bool:
    """Whether two answers are the same but for rounding."""
    if isinstance(own, dict):
        return set(said) == set(own) and all(same(said[name], own[name]) for name in own)
    if isinstance(own, list):
        return len(said) == len(own) and all(map(same, said, own))
    return abs(said - own) < 1e-3 * max(1, abs(own)) if isinstance(own, float) else said == own


@pytest.mark.parametrize(
    ("column", "coverage"),
    [("colour", None), ("colour", 0.8), ("width", None), ("width", 0.5), ("day", None), ("name", None)],
)
def test_predictions_are_the_models(served: Served, drawing_model: Model, column: str, coverage: float | None) -> None:
    rows = [ROW, {"name": "big blue circle"}, {}]
    own = drawing_model.predict(
        [{**row, column: None} for row in rows], column, **({} if coverage is None else {"coverage": coverage})
    )
    assert same(served.post("/predict", rows=rows, column=column, coverage=coverage)["answers"], plain(own))


def test_rows_of_the_table_are_asked_by_number(served: Served, drawing_model: Model, shown: pa.Table) -> None:
    said = served.post("/predict", table_rows=[3, 12], column="colour", seen=["picture", "tone"])
    assert same(said["answers"], plain(drawing_model.predict(shown.take([3, 12]), "colour", ["picture", "tone"])))
    every = list(range(40))
    assert same(
        served.post("/predict", table_rows=every, column="width")["answers"],
        plain(drawing_model.predict(shown, "width")),
    )
    assert said["tokens"] > 4


def test_files_come_as_data_urls_and_as_base64(served: Served, drawing_model: Model, shown: pa.Table) -> None:
    cell = shown["picture"][5].as_py()
    vectors = served.post(
        "/embed",
        rows=[
            {"picture": file_of(cell)},
            {"picture": {"base64": base64.b64encode(cell).decode()}},
            {"tone": file_of(shown["tone"][0].as_py())},
        ],
    )["vectors"]
    own = drawing_model.embed([{"picture": cell}, {"tone": shown["tone"][0].as_py()}])
    assert (
        np.allclose(vectors[0], vectors[1], atol=1e-5) and abs(np.dot(vectors[0], vectors[2]) - own[0] @ own[1]) < 1e-3
    )


@pytest.mark.parametrize(
    ("column", "begins"),
    [("picture", "data:image/png;base64,"), ("tone", "data:audio/wav;base64,"), ("curve", None), ("name", None)],
)
def test_cells_of_every_kind_are_generated(served: Served, column: str, begins: str | None) -> None:
    given = {} if column == "name" else {"samples": 2, "seed": 7}
    said = served.post("/generate", rows=[ROW], column=column, **given)["cells"]
    assert len(said) == 1 and len(said[0]) == (1 if column == "name" else 2)
    assert said[0][0].startswith(begins) if begins else isinstance(said[0][0], str if column == "name" else list)
    assert said == served.post("/generate", rows=[ROW], column=column, **given)["cells"]
    if column != "name":
        assert (
            said[0][0] != said[0][1] and said != served.post("/generate", rows=[ROW], column=column, samples=2)["cells"]
        )


def test_search_finds_what_the_index_finds(served: Served, kept: tuple) -> None:
    index = Model.load(kept[0]).open_index(kept[1])
    said = served.post(
        "/search",
        query={"name": "a red bar"},
        without={"name": "blue"},
        where="width > 5",
        weights={"name": 2},
        among="picture",
        k=4,
    )
    own = index.search(
        {"name": "a red bar"},
        among="picture",
        k=4,
        condition="width > 5",
        without={"name": "blue"},
        weights={"name": 2},
    )
    assert all(line.pop("table_row") == line["row"] for line in said["rows"])
    assert same(said["rows"], plain(own)) and len(said["rows"]) == 4
    assert served.post("/search", table_row=7, seen=["picture"], among="picture", k=1)["rows"][0]["score"] > 0.999


def test_explanations_add_up_and_name_the_nearest_rows(served: Served) -> None:
    why = served.post("/explain", table_rows=[4], column="colour", seen=["picture", "name"])["whys"][0]
    assert abs(sum(why["shares"].values()) - (why["everything"] - why["nothing"])) < 1e-4 and set(why["shares"]) <= {
        "picture",
        "name",
    }
    assert {line["colour"] for line in why["index"]["nearest"]} <= {why["answer"]} and why["answer"] not in {
        line["colour"] for line in why["index"]["contrast"]
    }

    for way in ("gradients", "attention"):
        other = served.post("/explain", table_rows=[4], column="colour", seen=["picture", "name"], inside=way)["whys"][
            0
        ]
        assert (
            other["inside"] == way
            and other["shares"] == why["shares"]
            and other["parts"]["picture"]["names"] == why["parts"]["picture"]["names"]
            and other["parts"] != why["parts"]
        )
    assert served.ask("POST", "/explain", {"table_rows": [4], "column": "colour", "inside": "guess"})[0] == 422


def test_columns_and_their_ways_are_told(served: Served) -> None:
    status, said, _ = served.ask("GET", "/columns")
    assert status == 200 and said["columns"]["picture"] | {"tokens": 0} == {
        "kind": "image",
        "media": True,
        "talks": False,
        "asked": True,
        "drawn": True,
        "searched": True,
        "generators": ["flow"],
        "ending": ".png",
        "classes": [],
        "tokens": 0,
    }
    assert (
        said["index"]["rows"] == 40
        and said["table"]["rows"] == 40
        and said["columns"]["colour"]["classes"] == ["red", "blue", "green"]
    )


@pytest.mark.parametrize(("path", "body", "words"), [
    ("/predict", {"rows": [ROW], "column": "color"}, "Did you mean 'colour'"),
    ("/predict", {"rows": [{"colr": "x"}], "column": "name"}, "Unknown column 'colr'"),
    ("/predict", {"rows": [], "column": "name"}, "No rows were given"),
    ("/predict", {"rows": [ROW], "column": "picture"}, "generated, not predicted"),
    ("/predict", {"rows": [ROW, {"width": "wide"}], "column": "name"}, "Row 1, column 'width': "),
    ("/predict", {"rows": [{"width": 10**400}], "column": "name"}, "Row 0, column 'width': '1000"),
    ("/predict", {"rows": [ROW], "column": "name", "extra": 1}, "extra"),
    ("/predict", {"rows": [ROW] * 257, "column": "name"}, "rows"),
    ("/predict", {"table_rows": [40], "column": "name"}, "rows 0 to 39"),
    ("/predict", {"rows": [{"picture": "picture.png"}], "column": "name"},
    "Row 0, column 'picture': a file comes as a data URL"),
    ("/predict", {"rows": [{"picture": "/etc/passwd"}], "column": "name"},
    "Row 0, column 'picture': a file comes as a data URL"),
    ("/predict", {"rows": [{"picture": "data:image/png;base64,AAAA"}], "column": "name"}, "Row 0, column 'picture': "),
    ("/predict", {"rows": [{"picture": "data:image/png;base64,%%%"}], "column": "name"}, "no base64"),
    ("/embed", {"rows": [{}]}, "Row 0: it is empty"),
    ("/embed", {"rows": [ROW], "size": 4000}, "dimensions"),
    ("/generate", {"rows": [ROW] * 4, "column": "picture", "samples": 20}, "at most 64 cells"),
    ("/generate", {"rows": [ROW], "column": "picture", "generator": "gan"}, "gan"),
    ("/generate", {"rows": [ROW], "column": "colour", "samples": 2}, "one cell is generated"),
    ("/embed", {"rows": [ROW], "seen": []}, "Row 0: it is empty"),
    ("/search", {"query": {}}, "is empty"),
    ("/search", {"query": ROW, "where": "width >"}, "width"),
    ("/search", {"query": ROW, "among": "width"}, "Unknown column to search among"),
    ("/search", {"query": ROW, "weights": {"name": 0, "width": 0}}, "leave nothing"),
    ("/surprise", {"rows": [ROW]}, "has too few validation rows"),
    ("/predict", {"rows": [ROW], "column": "name", "seen": [1] * 100_000}, "at most 4,096"),
    ("/predict", {"rows": [ROW], "column": "name", **{f"x{n}": n for n in range(1000)}}, "more than there are"),
    ("/search", {"query": ROW, "weights": {"name": 1e308}}, "weights"),
    ("/search", {"query": ROW, "seen": ["nothing"]}, "Unknown column 'nothing'"),
    ("/predict", {"rows": [{"curve": [[[[[[[[[[[1.0]]]]]]]]]]]}], "column": "name"}, "lists in lists"),
    ("/predict", {"rows": [{"name": [1, 2]}], "column": "colour"}, "Row 0, column 'name': list is no text"),
    ("/predict", {"rows": [{"\ud800": 1}], "column": "colour"}, "Unknown column '?'"),
    ("/generate", {"rows": [ROW], "column": "picture", "solver": "\ud800"}, "The options can't be read"),
    ("/embed", {"rows": [ROW], "size": 2**64}, "size"),
    ("/embed", {"rows": [ROW], "seen": ["picture"]}, "Row 0: it is empty"),
    ("/table/corrections", {"column": "curve", "rows": {"0": "x"}}, "no such column"),
    ("/table/corrections", {"column": "width", "rows": {"0": "wide"}}, "no such column"),
])  # fmt: skip
def test_what_is_wrong_is_said(served: Served, path: str, body: dict, words: str) -> None:
    status, said, _ = served.ask("POST", path, body)
    assert status == 422 and words in said["error"]["message"], said


def test_a_temperature_next_to_nothing_is_none(served: Served) -> None:
    for temperature in (1e-38, 1e-300):
        assert served.post(
            "/generate", rows=[ROW | {"name": None}], column="name", temperature=temperature
        ) == served.post("/generate", rows=[ROW | {"name": None}], column="name", temperature=0)


def test_one_request_s_fault_is_no_other_s(served: Served) -> None:
    """While the model is busy a search with and one without anything that counts come together."""
    busy = threading.Thread(
        target=served.ask, args=("POST", "/generate", {"rows": [ROW], "column": "picture", "samples": 32, "steps": 60})
    )
    busy.start()
    time.sleep(0.3)
    asked = [
        {"query": {"name": "x", "width": 1.0}, "weights": {"name": 0}, "k": 1},
        {"query": {"name": "x"}, "weights": {"name": 0}, "k": 1},
    ]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda body: served.ask("POST", "/search", body)[0], asked))
    busy.join()
    assert said == [200, 422]


def test_explanations_don_t_hang_on_who_else_asks(served: Served) -> None:
    body = {"rows": [{"name": "a"}], "column": "picture", "seed": 1}
    alone = served.post("/explain", **body)["whys"][0]["everything"]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        said = list(
            pool.map(
                lambda other: served.post("/explain", **other)["whys"][0]["everything"],
                [body | {"rows": [{"name": "b"}]}, body, body],
            )
        )
    assert said[1] == pytest.approx(alone, abs=1e-6) == said[2]


def test_what_nobody_waits_for_is_left_off(served: Served) -> None:
    asked = {"rows": [ROW], "column": "picture", "samples": 64}
    begun = time.monotonic()
    served.post("/generate", **asked, steps=50)
    took, body = time.monotonic() - begun, json.dumps({**asked, "steps": 1000}).encode()
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(
            b"POST /generate HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
            b"%d\r\n\r\n" % len(body) + body
        )
        time.sleep(0.5)
    begun = time.monotonic()
    served.post("/predict", rows=[ROW], column="colour")
    assert time.monotonic() - begun < 5 * took + 2, "of twenty times as many steps"


def test_too_many_values_and_other_types_are_refused(served: Served) -> None:
    status, said, _ = served.ask("POST", "/embed", b'{"rows": [' + b"[]," * 600_000 + b"[]]}")
    assert status == 413 and "1,000,000 values" in said["error"]["message"]
    status, said, _ = served.ask(
        "POST",
        "/predict",
        json.dumps({"rows": [ROW], "column": "colour"}).encode(),
        {"content-type": "application/x-www-form-urlencoded"},
    )
    assert status == 415 and "application/json" in said["error"]["message"]
    client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    client.request("HEAD", "/health")
    assert client.getresponse().status == 200
    client.close()


def test_rows_of_an_index_are_found_in_the_table_that_is_shown(
    started: Callable[..., Served], kept: tuple, shown: pa.Table, tmp_path: Path
) -> None:
    """The table has them in another order, and one of them not at all."""
    from sensorium.model import Model

    keys = pa.array([f"k{row}" for row in range(shown.num_rows)])
    Model.load(kept[0]).index(shown.append_column("key", keys), tmp_path / "index", key="key")
    order = [*range(shown.num_rows - 1, 0, -1)]
    pq.write_table(shown.append_column("key", keys).take(order), tmp_path / "other.parquet")
    server = started(str(tmp_path / "index"), "--table", str(tmp_path / "other.parquet"), index=False)
    found = server.post("/search", query={"name": "a red bar"}, k=shown.num_rows)["rows"]
    assert {line["row"]: line["table_row"] for line in found} == {
        row: order.index(row) if row else None for row in range(shown.num_rows)
    }
    cells = server.ask("GET", "/table/rows?rows=" + ",".join(str(line["table_row"]) for line in found if line["row"]))[
        1
    ]["rows"]
    assert [line["cells"]["name"] for line in cells] == [line["name"] for line in found if line["row"]]
    points = server.ask("GET", "/table/map")[1]["points"]
    assert sorted(point[0] for point in points) == list(range(len(order)))
    assert "1 rows of" in server.log.read_text(encoding="utf-8")


def test_json_that_is_none_is_refused(served: Served) -> None:
    for body in (b"{", b"[" * 100_000, b"\xff\xfe", b'{"rows": [{"name": NaN}], "column": "colour"', b"null"):
        status, said, _ = served.ask("POST", "/predict", body)
        assert status in (400, 422) and "Traceback" not in said["error"]["message"], said


def test_rows_of_the_table_are_listed_and_chosen(served: Served, shown: pa.Table) -> None:
    status, said, _ = served.ask("GET", "/table/rows?start=2&count=3")
    assert status == 200 and said["total"] == 40 and [row["row"] for row in said["rows"]] == [2, 3, 4]
    assert said["rows"][0]["cells"]["name"] == shown["name"][2].as_py() and said["rows"][0]["cells"]["picture"] is True
    _, some, _ = served.ask("GET", "/table/rows?where=colour%20%3D%20%22red%22")
    assert {row["cells"]["colour"] for row in some["rows"]} == {"red"} and some["total"] == shown[
        "colour"
    ].to_pylist().count("red")
    assert (
        served.ask("GET", "/table/rows?where=nothing")[0] == 422
        and served.ask("GET", "/table/rows?count=1000")[0] == 422
    )


def test_questions_about_many_rows_are_answered_with_the_query(served: Served, shown: pa.Table) -> None:
    colours = [colour for colour in shown["colour"].to_pylist() if colour]
    said = served.post("/query", question="How many rows are red?")
    assert list(said["rows"][0].values()) == [colours.count("red")] and "count" in said["sql"].lower()
    said = served.post(
        "/query",
        question="SELECT row, day, width FROM rows WHERE day IS NOT NULL AND width IS NOT NULL ORDER BY row LIMIT 2",
    )
    assert [set(row) for row in said["rows"]] == [{"row", "day", "width"}] * 2 and isinstance(
        said["rows"][0]["day"], str
    )
    for question, why in (
        ("How is the weather?", "isn't clear"),
        ("DROP TABLE rows", "isn't clear"),
        ("SELECT * FROM read_csv('/etc/passwd')", "can't be answered"),
        ("WITH a AS (SELECT 1) DELETE FROM rows", "."),
        ("", "at least 1"),
        ("x" * 1001, "at most 1000"),
    ):
        status, told, _ = served.ask("POST", "/query", json.dumps({"question": question}).encode())
        assert (
            status == 422
            and why in told["error"]["message"]
            and "Traceback" not in told["error"]["message"]
            and "root:" not in str(told)
        )


def test_files_of_cells_are_shown_and_can_run_nothing(served: Served, shown: pa.Table) -> None:
    status, data, headers = served.ask("GET", "/table/file/3/picture")
    assert status == 200 and data == shown["picture"][3].as_py() and headers["content-type"] == "image/png"
    assert "sandbox" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
    gap = next(row for row in range(40) if shown["picture"][row].as_py() is None)
    assert served.ask("GET", f"/table/file/{gap}/picture")[0] == 204
    for path in (
        "/table/file/40/picture",
        "/table/file/3/name",
        "/table/file/3/nothing",
        "/table/file/-1/picture",
        "/table/file/x/picture",
    ):
        assert served.ask("GET", path)[0] in (404, 422)


def test_the_state_is_told(served: Served) -> None:
    assert served.ask("GET", "/health")[:2] == (200, {"status": "ok"}) and served.ask("GET", "/ready")[0] == 200
    served.post("/embed", rows=[ROW])
    _, text, headers = served.ask("GET", "/metrics")
    assert (
        headers["content-type"].startswith("text/plain")
        and b'sensorium_requests_total{route="/embed",status="200"}' in text
    )
    assert b"red bar" not in text and b"red bar" not in served.log.read_bytes()


def test_the_routes_are_described(served: Served) -> None:
    _, said, _ = served.ask("GET", "/openapi.json")
    assert {"/predict", "/embed", "/search", "/generate", "/explain", "/columns", "/v1/embeddings"} <= set(
        said["paths"]
    )
    assert served.ask("GET", "/docs")[0] == 200
