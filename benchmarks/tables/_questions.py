"""Tables and the questions that are asked of each: which column, from which others, and of which rows."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sensorium.core.registry import find
from sensorium.datasets import Builder


@dataclasses.dataclass(frozen=True)
class Question:
    """Question to a table.

    Attributes:
        target: the asked column. seen: those that are seen; empty: all others.
        part: of the split, whose rows are asked.
    """

    target: str
    seen: tuple[str, ...] = ()
    part: str = "test"

    @property
    def name(self) -> str:
        """Name for people."""
        where = "" if self.part == "test" else f" ({self.part})"
        return f"{self.target} from {', '.join(self.seen) or 'all'}{where}"


@dataclasses.dataclass(frozen=True)
class Source:
    """Table with its questions.

    Attributes:
        target: columns that the fit is told to predict; those of the questions by default.
        load: gives the table; None: a Parquet file of this name lies in the folder that ``--folder`` names.
        questions: those asked. drop: columns that aren't learned from. rows: at most, the first ones.
        settings: of the fit.
    """

    questions: tuple[Question, ...]
    load: Callable[[], pa.Table] | None = None
    target: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    rows: int = 0
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def targets(self) -> list[str]:
        """Columns that the fit is told to predict."""
        return list(self.target or dict.fromkeys(question.target for question in self.questions))

    def table(self, name: str, folder: Path | None) -> pa.Table | None:
        """The table; None where its file isn't there."""
        if self.load is not None:
            found = self.load()
        elif folder is not None and (folder / f"{name}.parquet").is_file():
            found = pq.read_table(folder / f"{name}.parquet")
        else:
            return None
        found = found.drop_columns([c for c in self.drop if c in found.column_names])
        return found.slice(0, self.rows) if self.rows else found


def built(name: str) -> Callable[[], pa.Table]:
    """One of Sensorium's tables, built from packages."""

    def load() -> pa.Table:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.parquet"
            find(Builder, name)().build(path)
            return pq.read_table(path)

    return load


def bundled(name: str) -> Callable[[], pa.Table]:
    """One of scikit-learn's tables; class names as words."""

    def load() -> pa.Table:
        import sklearn.datasets

        found = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
        frame = found.frame.copy()
        if hasattr(found, "target_names") and len(getattr(found, "target_names", ())):
            frame["target"] = [str(found.target_names[code]) for code in found.target]
        return with_split(pa.Table.from_pandas(frame, preserve_index=False))

    return load


def local(name: str, target: str) -> Callable[[], pa.Table]:
    """One of the tables in the package vega_datasets; rows without the target are left out."""

    def load() -> pa.Table:
        import vega_datasets

        frame = getattr(vega_datasets.local_data, name)().dropna(subset=[target])
        return with_split(pa.Table.from_pandas(frame, preserve_index=False))

    return load


def archived(name: str) -> Callable[[], pa.Table]:
    """One of the series tables in the package aeon, with its own split."""

    def load() -> pa.Table:
        from aeon.datasets import load_classification

        rows: dict[str, list[Any]] = {"series": [], "label": [], "roughness": [], "split": []}
        for part in ("train", "test"):
            series, labels = load_classification(name, split=part)
            for values, label in zip(series, labels, strict=True):
                rows["series"].append(np.asarray(values, np.float64).T.tolist())
                rows["label"].append(f"class {label}")
                rows["roughness"].append(float(np.abs(np.diff(values, axis=-1)).mean()))
                rows["split"].append(part)
        return pa.table(rows)

    return load


def with_split(table: pa.Table, seed: int = 0) -> pa.Table:
    """Table with a column ``split``: 60 % train, 10 % val, 30 % test, at random."""
    parts = np.random.default_rng(seed).choice(["train", "val", "test"], table.num_rows, p=[0.6, 0.1, 0.3])
    return table.append_column("split", pa.array(parts.tolist()))


ANSWER = ("question", "reference", "answer")
EMOJI = "test_new_concept"
SOURCES: dict[str, Source] = {
    "emoji": Source(
        (
            Question("group", part=EMOJI),
            Question("style", part=EMOJI),
            Question("year", part=EMOJI),
            Question("language", part=EMOJI),
            Question("group", ("image",), EMOJI),
        ),
        built("emoji"),
        settings={"data.entity_key": "concept"},
    ),
    "openclipart": Source(
        (
            Question("category", ("image",), "test_new_artist"),
            Question("category", ("image", "title", "description", "keywords"), "test_new_artist"),
        ),
        drop=("id", "author", "subcategory"),
    ),
    "physio": Source(
        (Question("exercise", ("series",)), Question("tempo_hz", ("series",)), Question("arm", ("series",))),
        drop=("id", "recording", "subject", "exercise_text", "start_s", "channels", "hz"),
    ),
    "home_rooms": Source(
        (
            Question("occupied"),
            Question("occupied", ("air", "hour")),
            Question("light", ("air", "hour")),
        )
    ),
    "home_text": Source((Question("intent", ("sentence",)), Question("domain", ("sentence",))), drop=("slots",)),
    "home_speech": Source(
        (Question("intent", ("speech",)), Question("size", ("speech",)), Question("coffeeDrink", ("speech",))),
        drop=("voice", "command"),
    ),
    "education": Source(
        (Question("answer_type", ("question",)), Question("course", ("question",)), Question("hints", ("question",))),
        drop=("problem", "lesson"),
    ),
    "education_answers": Source(
        (
            Question("verdict", ANSWER),
            Question("verdict", ANSWER, "test_new_questions"),
            Question("score", ANSWER),
            Question("score", ANSWER, "test_new_questions"),
            Question("score"),
        ),
        target=("verdict", "score", "feedback"),
        drop=("question_id",),
    ),
    "cells": Source(
        (Question("red", ("image",)), Question("white", ("image",)), Question("platelets", ("image",))),
        drop=("id", "cells"),
    ),
    "nuclei": Source(
        (Question("stain", ("image",)), Question("count", ("image",)), Question("share", ("image",))),
        drop=("id", "boxes", "nuclei"),
    ),
    "vowels": Source((Question("speaker"), Question("speaker", ("series",))), built("vowels")),
    "airports": Source(
        (Question("state"), Question("state", ("name", "city")), Question("latitude", ("name", "city", "state"))),
        built("airports"),
        drop=("iata", "country"),
    ),
    "basicmotions": Source((Question("activity"),), built("basicmotions")),
    "diabetes": Source((Question("target"), Question("bmi")), bundled("diabetes")),
    "breast_cancer": Source((Question("target"), Question("mean area")), bundled("breast_cancer")),
    "wine": Source((Question("target"), Question("alcohol")), bundled("wine")),
    "cars": Source(
        (Question("Miles_per_Gallon"), Question("Origin"), Question("Origin", ("Name",))),
        local("cars", "Miles_per_Gallon"),
    ),
    "weather": Source((Question("weather"), Question("temp_max")), local("seattle_weather", "weather")),
    "osuleaf": Source((Question("label", ("series",)), Question("roughness", ("series",))), archived("OSULeaf")),
    "gunpoint": Source((Question("label", ("series",)), Question("roughness", ("series",))), archived("GunPoint")),
    "power": Source((Question("label", ("series",)), Question("roughness", ("series",))), archived("ItalyPowerDemand")),
}
