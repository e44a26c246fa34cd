"""The report: it needs nothing but itself, runs nobody else's code, and has every section whatever there is to show."""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sensorium.core.errors import UserError
from sensorium.core.registry import find, names
from sensorium.modalities import Modality
from sensorium.report import page, words
from sensorium.report.cells import CellGallery, examples, split
from sensorium.report.types import Evaluation, Predictions, Retrieval, RunInfo
from sensorium.report.write import write_report

SECTIONS = [
    "summary", "results", "training", "retrieval", "confusion", "numbers", "captions", "drawn", "errors", "missing",
    "columns",
    "quarantine", "settings", "environment",
]  # fmt: skip
SHOWN = {
    name: {key: getattr(find(Modality, name), key) for key in ("display_rank", "display_cost", "is_spatial")}
    for name in names(Modality)
}
VOID = {"meta", "link", "img", "br", "input", "hr", "source"}
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>{{ 7 * 7 }}"


class Page(HTMLParser):
    """Collects tags, ids and texts, and checks that tags close in the order they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.inside: dict[str, list[str]] = {}
        self.section = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, (tag, self.getpos())
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.said.append(data)
            self.inside.setdefault(self.section, []).append(data)

    def words(self, section: str | None = None) -> str:
        return " ".join(" ".join(self.said if section is None else self.inside.get(section, [])).split())


def picture(letters: int = 3000) -> str:
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(bytes(letters)).decode()}">'


def fake(folder: Path, name: str = "pets", rows: int = 60, evil: str = "") -> tuple[RunInfo, Evaluation]:
    rng = np.random.default_rng(0)
    at = np.arange(rows) + 1000
    kinds = {"photo": "image", f"notes{evil}": "text", f"group{evil}": "category", "weight": "number", "born": "date"}
    text, group = list(kinds)[1], list(kinds)[2]
    truth = [["cat", "dog", f"bird{evil}"][i] for i in rng.integers(0, 3, rows)]
    said = [t if rng.random() < 0.8 else "cat" for t in truth]
    weights = 10 ** rng.normal(0, 1, rows)
    born = [datetime.date(2000, 1, 1) + datetime.timedelta(days=int(d)) for d in rng.integers(0, 7000, rows)]
    rank = rng.integers(1, 40, rows)
    found = np.stack([rng.choice(at, 10, replace=False) for _ in at])
    hit = np.arange(1, 11)[None] == rank[:, None]
    metrics = folder / "metrics.jsonl"
    with metrics.open("w") as file:
        for step in range(500):
            line = {
                "step": step,
                "seconds": step / 2,
                "rows": step * 9,
                "loss": 5 / (step + 1),
                f"match{evil}": 1.0,
                "lr": 0.01,
            }
            file.write(json.dumps(line | ({"gradient": math.nan} if step == 7 else {"gradient": 1.5})) + "\n")
        file.write('{"step": 500, "sec')
    run = RunInfo(
        name=name + evil, rows={"train": 900, "valid": 100}, parameters=4_200_000, seconds=302.4, steps=1234,
        rows_per_second=612.3, waited_share=0.013,
        settings={"train": {"lr": 0.003, "note": evil}, "trunk": {"": "segment"}},
        columns=[{"name": c, "kind": k, "why": f"because{evil}", **SHOWN.get(k, {})} for c, k in kinds.items()],
        left_out={"id": f"every value differs{evil}"}, environment={"python": "3.12", "cpu": {"cores": 2}},
        quarantine={"photo": (3, [f"truncated{evil}", "empty"])}, metrics=metrics, notes=[f"a note{evil}"],
    )  # fmt: skip
    columns = {
        group: {"kind": "category", "n": rows, "accuracy": 0.81, "chance": 0.36, "alone": {"photo": 0.7, text: 0.5},
                "members": {f"trees on {text}": {"accuracy": 0.77, "weight": 0.625, "n": rows}},
                "baseline": {"one_column": 0.7, "one_column_name": text, "trees": 0.95}},
        "weight": {"kind": "number", "n": rows, "r2": 0.7, "mae": 1.25, "chance": -0.01,
                   "baseline": {"one_column": 0.2, "one_column_name": "photo", "trees": 0.4}},
        "born": {"kind": "date", "n": rows, "r2": 0.5, "mae": 400.0},
        text: {"kind": "text", "n": rows, "exact": 0.1, "chrf": 0.33},
    }  # fmt: skip
    texts = [f"a text about {t}{evil}" for t in truth]
    predictions = {
        group: Predictions(kind="category", rows=at, truth=truth, predicted=said, confidence=rng.random(rows)),
        "weight": Predictions(kind="number", rows=at, truth=list(weights), predicted=list(weights * 1.3),
        confidence=None,
                              interval=np.stack([weights / 2, weights * 2], 1).astype(object)),
        "born": Predictions(kind="date", rows=at, truth=born, predicted=[b.isoformat() for b in born[::-1]],
                            confidence=np.full(rows, np.nan), interval=np.array([(b, b) for b in born], object)),
        text: Predictions(kind="text", rows=at, truth=texts, predicted=texts[::-1], confidence=rng.random(rows)),
    }  # fmt: skip
    direction = f"{text}>photo"
    return run, Evaluation(
        results={"rows": rows, "columns": columns, "seconds": 12.5, "trained_on": 4,
                 "retrieval": {direction: {"recall@1": 0.1, "recall@10": 0.3, "median_rank": 18.0, "gallery": rows,
                                           "n": rows}}},
        predictions=predictions,
        retrieval={direction: Retrieval(query_rows=at, found_rows=found, hit=hit, rank=rank, gallery=rows)},
        missing={group: [(0.0, 0.81), (0.5, 0.6), (1.0, 0.35)], "weight": [(0.0, 0.7), (1.0, -0.02)]},
    )  # fmt: skip


def show(row: int, column: str) -> str:
    return picture() if column == "photo" else html.escape(f"cell {row} of {column}")


def made(folder: Path, run: RunInfo, evaluation: Evaluation, cell=show) -> tuple[str, Page]:
    path = folder / "report.html"
    write_report(path, run, evaluation, cell)
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 15_000_000
    return text, Page(text)


def test_every_section_and_what_is_in_it(tmp_path: Path) -> None:
    text, parsed = made(tmp_path, *fake(tmp_path))
    ids = [attrs["id"] for tag, attrs in parsed.tags if tag == "section"]
    assert ids == SECTIONS
    links = [attrs["href"] for tag, attrs in parsed.tags if tag == "a"]
    known = {attrs.get("id") for _, attrs in parsed.tags}
    assert {f"#{s}" for s in SECTIONS} <= set(links) and all(link[1:] in known for link in links)
    for section, expected in {
        "summary": ["pets", "5\u202fmin 02\u202fs", "900 rows", "4.2\u202fM", "612", "1.3 % waiting",
                    "4 of the 60 evaluated rows were trained on",
                    "group : gradient-boosted trees on all other columns win", "weight : ours wins with R² 0.7",
                    "a note"],
        "results": ["accuracy 81.0\u202f%", "mean error 1.25", "chrF 0.33", "notes → photo",
                    "Ours, from a single column", "The answer combines these models", "(0.62)"],
        "training": ["loss", "match", "gradient", "0.01 at the end"],
        "retrieval": ["notes → photo", "10.0\u202f% first", "found first", "✗ place", "right would be", "cell 10"],
        "confusion": ["cat", "dog", "bird", "60 rows"],
        "numbers": ["weight", "born", "60 of 60 rows", "The interval holds the truth in 100.0"],
        "captions": ["a text about"],
        "errors": ["wrong", "not exact", "cell 10"],
        "missing": ["group", "share of the other columns removed", "50 %"],
        "columns": ["because", "every value differs", "left out"],
        "quarantine": ["photo", "3", "truncated", "empty"],
        "settings": ["train.lr", "0.003", "trunk", "segment"],
        "environment": ["cpu.cores", "2", "3.12"],
    }.items():  # fmt: skip
        for wanted in expected:
            assert " ".join(wanted.split()) in parsed.words(section), (section, wanted)
    assert text.count("<svg") >= 8


def test_needs_nothing_but_itself(tmp_path: Path) -> None:
    text, parsed = made(tmp_path, *fake(tmp_path))
    for tag, attrs in parsed.tags:
        assert tag not in ("iframe", "object", "embed", "base", "form"), tag
        for name, value in attrs.items():
            if name in ("src", "href", "data", "action", "poster", "srcset", "xlink:href"):
                assert value is not None and value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttp|import\(", text)


def test_only_its_own_script_may_run(tmp_path: Path) -> None:
    text, parsed = made(tmp_path, *fake(tmp_path))
    policy = next(
        a["content"] for t, a in parsed.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None and text.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.split("script-src")[1] and "unsafe-eval" not in policy
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)


def test_text_can_not_become_markup(tmp_path: Path) -> None:
    plain = made(tmp_path, *fake(tmp_path))[1]
    run, evaluation = fake(tmp_path, evil=EVIL)
    text, parsed = made(tmp_path, run, evaluation)
    assert [t for t, _ in parsed.tags if t == "script"] == ["script"]
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    assert "alert(1)</script>" not in text.replace("&lt;/script&gt;", "") and "<svg onload" not in text
    assert "{{ 7 * 7 }}" in parsed.words()  # shown, not computed
    for section in (
        "summary",
        "results",
        "training",
        "retrieval",
        "confusion",
        "captions",
        "errors",
        "columns",
        "quarantine",
        "settings",
    ):
        assert "<script>alert(1)" in parsed.words(section), section
    assert sorted(t for t, _ in parsed.tags) == sorted(t for t, _ in plain.tags)


@pytest.mark.parametrize("name", ["", "\ud800lone", "nul\0", "a" * 5000, "\u202eright to left", "ｗｉｄｅ 漢字 🐈"])
def test_odd_names(name: str, tmp_path: Path) -> None:
    run, evaluation = fake(tmp_path, rows=12, evil=name)
    text, parsed = made(tmp_path, run, evaluation)
    assert [a["id"] for t, a in parsed.tags if t == "section"] == SECTIONS
    assert "\0" not in text


@pytest.mark.parametrize("gone", ["everything", "columns", "retrieval", "predictions", "metrics", "missing"])
def test_what_is_not_there_is_said(gone: str, tmp_path: Path) -> None:
    run, evaluation = fake(tmp_path)
    if gone == "everything":
        run, evaluation = RunInfo(name="bare"), Evaluation()
    if gone == "columns":
        evaluation.results["columns"] = {}
    if gone == "retrieval":
        evaluation.retrieval, evaluation.results["retrieval"] = {}, {}
    if gone == "predictions":
        evaluation.predictions = {}
    if gone == "metrics":
        run.metrics = tmp_path / "nowhere.jsonl"
    if gone == "missing":
        evaluation.missing = {"group": [], "weight": [(0.5, math.nan)]}
    parsed = made(tmp_path, run, evaluation)[1]
    assert [a["id"] for t, a in parsed.tags if t == "section"] == SECTIONS
    said = {
        "everything": ["Nothing was evaluated", "No losses were recorded", "No column holds categories",
                       "Every cell could be read", "Nothing was predicted", "isn't known how many", "None recorded"],
        "columns": ["Search in every direction"],
        "retrieval": ["No two columns"],
        "predictions": ["No column holds text", "No column holds numbers", "Nothing was predicted"],
        "metrics": ["No losses were recorded"],
        "missing": ["It wasn't measured what happens"],
    }[gone]  # fmt: skip
    for wanted in said:
        assert wanted in parsed.words(), wanted


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows_and_constant_values(rows: int, tmp_path: Path) -> None:
    run, evaluation = fake(tmp_path, rows=12)
    for said in evaluation.predictions.values():
        said.rows, said.truth, said.predicted = said.rows[:rows], [said.truth[0]] * rows, [said.truth[0]] * rows
        said.confidence = None if said.confidence is None else said.confidence[:rows]
        said.interval = None if said.interval is None else said.interval[:rows]
    evaluation.predictions["weight"].predicted = [float("nan")] * rows
    evaluation.predictions["none"] = Predictions(kind="number", rows=np.zeros(0, int), truth=[], predicted=[])
    parsed = made(tmp_path, run, evaluation)[1]
    assert "No values to draw" in parsed.words("numbers")
    assert "No row was wrong" in parsed.words("errors")


def test_stays_small_and_keeps_the_first_of_every_direction(tmp_path: Path) -> None:
    run, evaluation = fake(tmp_path)
    run.columns = [*run.columns, {"name": "song", "kind": "audio", "why": "", **SHOWN["audio"]}]
    base = evaluation.retrieval["notes>photo"]
    evaluation.retrieval = {"notes>song": base, "song>notes": base, **evaluation.retrieval}
    calls: list[tuple[int, str]] = []

    def heavy(row: int, column: str) -> str:
        calls.append((row, column))
        return (
            f'<audio controls src="data:audio/wav;base64,{"A" * 400_000}"></audio>'
            if column == "song"
            else show(row, column)
        )

    text, parsed = made(tmp_path, run, evaluation, heavy)
    assert len(text) > 8_000_000 and "left out" in parsed.words("retrieval")
    assert len(calls) == len(set(calls))
    assert len([c for c in calls if c[1] == "song"]) < 40  # what can't be kept isn't made
    kept = {a["id"] for t, a in parsed.tags if t == "template"}
    assert {a["data-cell"] for _, a in parsed.tags if "data-cell" in a} == kept
    assert text.count(picture()) == len(
        {row for row, column in calls if column == "photo"}
    )  # each once, before any sound


def test_room_goes_to_light_kinds_then_by_turn() -> None:
    cells = CellGallery(lambda row, column: column * 2000, {"a": 1, "i": 0})
    spots = [cells.place(1, "a", 0), cells.place(2, "i", 5), cells.place(3, "i", 1), cells.place(4, "i", 2)]
    cells.settle(4500)
    assert ["left out" in spot.__html__() for spot in spots] == [True, True, False, False]
    assert cells.left_out == 2


def test_examples_are_spread_over_success_and_failure() -> None:
    def of(rank: list[int]) -> list[int]:
        ranks = np.array(rank)
        return examples(Retrieval(query_rows=ranks, found_rows=ranks[:, None], hit=ranks[:, None] == 1, rank=ranks))

    ranks = [1] * 50 + [4] * 30 + [99] * 20
    chosen = of(ranks)
    assert len(chosen) == len(set(chosen)) == 12
    assert [ranks[i] for i in chosen] == [1] * 4 + [4] * 4 + [99] * 4
    assert len(of([1] * 40)) == 12 and len(of([50, 1, 3])) == 3 and of([]) == []
    assert [[50, 1][i] for i in of([50, 1])] == [1, 50]


def test_directions_whose_columns_hold_the_sign() -> None:
    assert split("a>b", ["a", "b"]) == ("a", "b")
    assert split("a>b>c", ["a>b", "c"]) == ("a>b", "c")
    assert split("a>b>c", ["a", "b>c"]) == ("a", "b>c")


def test_says_who_won() -> None:
    def of(ours: float, trees: float, n: int = 10_000, metric: str = "accuracy") -> words.Verdict:
        entry = {
            "kind": "category",
            "n": n,
            metric: ours,
            "chance": 0.1,
            "baseline": {"one_column": 0.2, "one_column_name": "x", "trees": trees},
        }
        return words.verdict("c", entry, metric)

    assert of(0.9, 0.8).winner == "ours" and "ours wins with accuracy 90.0" in of(0.9, 0.8).sentence
    assert (
        of(0.8, 0.9).winner == "plain" and "trees on all other columns win with accuracy 90.0" in of(0.8, 0.9).sentence
    )
    assert of(0.8, 0.8).winner == "even" and "level at 80.0" in of(0.8, 0.8).sentence
    close = of(0.80, 0.82, n=100)
    assert (
        close.winner == "even"
        and "trees on all other columns win" in close.sentence
        and "may be chance" in close.sentence
    )
    assert of(0.5, 0.6, n=5, metric="r2").winner == "plain"
    alone = words.verdict("c", {"kind": "text", "exact": 0.2}, "exact")
    assert alone.winner == "" and alone.sentence == "exact 20.0\u202f%."
    assert "nothing could be measured" in words.verdict("c", {"kind": "number", "r2": math.nan}, "r2").sentence
    assert words.overall([of(0.9, 0.8), of(0.8, 0.9), alone]) == "Ours is ahead on ‘c’; a plain model is ahead on ‘c’."


def test_confusion_puts_rare_classes_together() -> None:
    truth = [f"class {i % 30}" for i in range(300)]
    said = ["class 0"] * 150 + ["never true"] * 150
    found = page.confusion("c", Predictions(kind="category", rows=np.arange(300), truth=truth, predicted=said))
    assert len(found["labels"]) == 21 and found["labels"][-1] == "11 other classes"
    counts = np.array(found["counts"])
    assert (
        counts.sum() == 300 and counts[:, found["labels"].index("class 0")].sum() == 150 and counts[:, -1].sum() == 150
    )


def test_errors_are_the_worst_first(tmp_path: Path) -> None:
    cells = CellGallery(show, {})
    said = Predictions(kind="number", rows=np.array([7, 8, 9]), truth=[1.0, 2.0, 3.0], predicted=[1.0, 5.0, 3.5])
    assert [r["row"] for r in page.errors(RunInfo(name=""), "c", said, cells)["rows"]] == [8, 9]
    sure = np.array([0.2, 0.9, 0.5])
    said = Predictions(
        kind="category", rows=np.array([7, 8, 9]), truth=["a", "b", "c"], predicted=["x", "y", "c"], confidence=sure
    )
    assert [r["row"] for r in page.errors(RunInfo(name=""), "c", said, cells)["rows"]] == [8, 7]


def test_a_file_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="Can't write the report"):
        write_report(tmp_path / "folder", RunInfo(name="x"), Evaluation(), show)
