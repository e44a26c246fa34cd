"""The card of a model: what was measured stands beside chance and plain models, and nothing a table says breaks out of
its cell.
"""

from __future__ import annotations

import json
from pathlib import Path

from sensorium.report.card import licence, measured, plain, write_card

RESULTS = {
    "rows": 304,
    "seconds": 1.0,
    "columns": {
        "group": {
            "kind": "category",
            "n": 301,
            "accuracy": 0.9,
            "chance": 0.2,
            "baseline": {"one_column": 0.8, "trees": 0.95},
        },
        "name": {"kind": "text", "n": 9, "exact": 0.25, "chrf": 0.4},
        "x|<script>": {"kind": "number", "r2": 0.5, "chance": -0.01},
        "photo": {"kind": "image"},
    },
    "retrieval": {"name>photo": {"recall@1": 0.3, "recall@10": 0.7, "gallery": 100, "n": 50}},
}


def test_the_card_says_what_was_measured_and_whose_encoders_it_stands_on(tmp_path: Path) -> None:
    (tmp_path / "results-test_new.json").write_text(json.dumps(RESULTS))
    facts = {
        "table": "pets\n# not a heading",
        "parameters": 1234,
        "rows": {"train": 56},
        "seconds": 7.0,
        "steps": 8,
        "seed": 3,
        "bad_rows": 2,
    }
    card = write_card(
        tmp_path,
        {"group": "category", "a|b": "text"},
        facts,
        {"group": {"name": "lite", "licence": "apache-2.0", "sha256": "a" * 64}},
        {"id": "an id"},
    )
    lines = card.split("\n")
    assert (
        "| group: right | 0.900 | 0.200 | 0.800 | 0.950 |" in lines
        and "| name: exact match | 0.250 |  |  |  |" in lines
    )
    assert "| name finds photo: recall@10 of 100 | 0.700 | 0.100 |  |  |" in " ".join(lines).replace("\\", "")
    assert (
        sum(line.startswith("# ") for line in lines) == 1
        and "| a\\|b | text |" in lines
        and "\\<script\\>" in card
        and " <script" not in card
    )
    assert (
        "| group | lite | apache-2.0 | aaaaaaaaaaaaaaaa… |" in lines
        and "seed 3" in card
        and "2 rows held cells" in card
        and "id (an id)" in card
    )
    assert card.startswith("---\nlibrary_name: sensorium\n") and "On 'test\\_new', 304 rows" in card
    assert "Nothing was measured" in write_card(
        tmp_path / "none", {}, {}, {}, {}
    ) and "None: all weights" in write_card(tmp_path / "none", {}, {}, {}, {})


def test_lines_are_of_what_has_a_number(tmp_path: Path) -> None:
    assert [line["what"] for line in measured(RESULTS)] == [
        "group: right",
        "name: exact match",
        "x|<script>: R²",
        "name finds photo: recall@10 of 100",
    ]
    assert plain("a\n|b[c](d)") == "a \\|b\\[c\\](d)"


def test_the_licence_is_the_one_that_a_card_names(tmp_path: Path) -> None:
    assert licence(tmp_path) == ""
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# x")
    assert licence(tmp_path) == "apache-2.0"
    (tmp_path / "README.md").write_text("# x\nlicense: none")
    assert licence(tmp_path) == ""
