"""Airports of the United States: name and city in words, latitude and longitude in numbers, the state as a category.

In the public domain (ourairports.com), as the package vega_datasets carries them. Where an airport is nearly says which
state it is in, but not near a border; what it is called says a little, and differently.
"""

from __future__ import annotations

import csv
from typing import Any

import pyarrow as pa

from sensorium.datasets import Builder, Progress
from sensorium.datasets._parquet import beginning, check_rows, data_file, share, write

CREDITS = ("Airports: ourairports.com, public domain, in vega_datasets (MIT); package vega_datasets {version}",)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("city", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("state", pa.string()),
        ("split", pa.string()),
    ]
)


class Airports(Builder):
    """3,364 rows, a fifth of them in ``test``; ``state`` is one of 56 states and territories.

    Args:
        rows: how many rows; None: all. A small table is the beginning of the whole one.
    """

    def __init__(self, *, rows: int | None = None) -> None:
        check_rows(rows)
        self.rows = rows

    def build(self, out: Any, *, progress: Progress | None = None) -> dict[str, Any]:
        """Write the table; see ``Builder.build``."""
        path, version = data_file("vega_datasets", "_data/airports.csv", "airports")
        with open(path, encoding="utf-8", newline="") as file:
            found = [entry for entry in csv.DictReader(file) if entry["state"] != "NA"]
        rows = [
            {
                "id": entry["iata"],
                "name": entry["name"].strip(),
                "city": entry["city"].strip(),
                "latitude": float(entry["latitude"]),
                "longitude": float(entry["longitude"]),
                "state": entry["state"],
                "split": "test" if share(f"airports {entry['iata']}") < 0.2 else "train",
            }
            for entry in found
        ]
        credits = [line.format(version=version) for line in CREDITS]
        return write(out, "airports", beginning(rows, self.rows), SCHEMA, credits, progress)
