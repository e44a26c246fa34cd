"""ZIP archives."""

from __future__ import annotations

import gc
import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from table_helpers import columns, png

from sensorium.core.errors import BadCell, UserError
from sensorium.data.spool import cache_folder
from sensorium.data.table import Table


def write_zip(path: Path, members: dict[str, bytes | str]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_zip_of_media_is_as_the_folder(tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    files: dict[str, bytes | str] = {
        f"pets/{path}": png(i)
        for i, path in enumerate(
            ("train/cat/1.png", "train/dög/2.JPG", "test/cat/3.png", "train/year=2020/dog/4.png", "train/cat/unnamed")
        )
    }
    write_zip(
        tmp_path / "pets.zip",
        {**files, "pets/train/cat/notes.txt": "x", "__MACOSX/pets/._1.png": "x", "pets/.hidden.png": "x"},
    )
    with zipfile.ZipFile(tmp_path / "pets.zip") as archive:
        archive.extractall(tmp_path / "out")
    nothing_written()
    table, folder = Table.open(tmp_path / "pets.zip"), Table.open(tmp_path / "out/pets")
    assert columns(table, ("image",)) == columns(folder, ("image",)) and table.rows == 5
    assert set(columns(table)["label"]) == {"cat", "dög", "dog"} and "1 .txt" in " ".join(table.notes)
    assert (
        columns(Table.open([tmp_path / "pets.zip"] * 2), ("image",))["image"] == columns(table, ("image",))["image"] * 2
    )
    assert [cell["path"] for cell in table.take([4, 0], ["image"])["image"].to_pylist()] == [
        "train/year=2020/dog/4.png",
        "test/cat/3.png",
    ]
    write_zip(tmp_path / "cats.zip", {"cats/1.png": png()})
    assert columns(Table.open(tmp_path / "cats.zip"), ("image",)) == {"image": [png()], "label": ["cats"]}
    (tmp_path / "cats.zip").unlink()


@pytest.mark.parametrize("splits", [False, True])
def test_zip_with_metadata(splits: bool, tmp_path: Path) -> None:
    text = "file_name,words\n1.png,a\nsub/2.png,b\ngone.png,c\n../../secret.png,d\n"
    tops = ("test/", "train/") if splits else ("",)
    members: dict[str, bytes | str] = {}
    for top in tops:
        members |= {f"{top}metadata.csv": text, f"{top}1.png": png(1), f"{top}sub/2.png": png(2)}
    write_zip(tmp_path / "a.zip", members)
    (tmp_path / "secret.png").write_bytes(png())
    for outside in (False, True):
        found = columns(Table.open(tmp_path / "a.zip", allow_outside=outside), ("image",))
        assert found["words"] == ["a", "b", "c", "d"] * len(tops) and found["image"][:2] == [png(1), png(2)]
        assert all(isinstance(cell, BadCell) and "not in the archive" in str(cell) for cell in found["image"][2:4])
    assert found.get("split") == (["test"] * 4 + ["train"] * 4 if splits else None)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl", ".csv.gz"])
def test_zip_of_a_table(ending: str, tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["é", "x"]})
    data = {
        ".csv": frame.to_csv(index=False).encode(),
        ".parquet": frame.to_parquet(),
        ".jsonl": frame.to_json(orient="records", lines=True).encode(),
        ".csv.gz": gzip.compress(frame.to_csv(index=False).encode()),
    }[ending]
    write_zip(tmp_path / "one.zip", {f"../../töp/dä ta{ending}": data, "readme.md": "x"})
    write_zip(tmp_path / "two.zip", {f"x/1{ending}": data, f"y/1{ending}": data})
    nothing_written()
    table = Table.open(tmp_path / "one.zip")
    assert columns(table) == {"a": [1, 2], "b": ["é", "x"]} and table.name == "one" and "1 .md" in " ".join(table.notes)
    assert columns(Table.open(tmp_path / "two.zip")) == {"a": [1, 2, 1, 2], "b": ["é", "x", "é", "x"]}
    cache = cache_folder()
    del table
    gc.collect()
    assert not list(cache.glob("zip-*"))


def test_zip_hostile_and_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    write_zip(tmp_path / "a.zip", {"x/1.png": png(1), "x/2.png": noise, "x/3.png": b"\0" * 10**6, "y/4.png": png(4)})
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        at = archive.getinfo("x/2.png").header_offset + 100
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[at] ^= 255
    (tmp_path / "holes.zip").write_bytes(data)
    with monkeypatch.context() as patch:
        patch.setattr("sensorium.data.sources.archive.MAX_MEMBER_BYTES", 10**5)
        table = Table.open(tmp_path / "holes.zip")
        found = columns(table, ("image",))
    assert (
        found["label"] == ["x", "x", None, "y"] and list(table.bad_rows) == [2] and "limit" in table.bad_rows[2].reason
    )
    assert found["image"][0] == png(1) and found["image"][3] == png(4) and "damaged" in str(found["image"][1])
    write_zip(tmp_path / "bomb.zip", {"a.csv": b"a\n" + b"1\n" * 10**6})
    with monkeypatch.context() as patch:
        patch.setattr("sensorium.data.sources.archive.FREE_BYTES", 1000)
        with pytest.raises(UserError, match=r"bomb\.zip': 'a\.csv' unpacks to more than"):
            Table.open(tmp_path / "bomb.zip")
    write_zip(tmp_path / "nested.zip", {"bomb.zip": (tmp_path / "bomb.zip").read_bytes()})
    write_zip(tmp_path / "none.zip", {})
    write_zip(tmp_path / "bad.zip", {"a.parquet": b"PAR1 none"})
    (tmp_path / "cut.zip").write_bytes(data[:3000])
    locked = bytearray((tmp_path / "bomb.zip").read_bytes())
    locked[6] |= 1
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    for name, words in (
        ("nested", "holds 1 .zip"),
        ("none", "is empty"),
        ("bad", r"bad\.zip/0/a\.parquet"),
        ("cut", "can't be read as a ZIP"),
        ("locked", "password"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            Table.open(tmp_path / f"{name}.zip")
        assert f"{name}.zip" in str(caught.value)
    del table
    gc.collect()
    assert not list(cache_folder().glob("zip-*"))
    both = zipfile.ZipFile(tmp_path / "overlap.zip", "w")
    with both:
        both.writestr("a.csv", noise)
        info = both.infolist()[0]
        for i in range(9):
            other = zipfile.ZipInfo(f"{i}.csv")
            other.header_offset, other.compress_size, other.file_size, other.CRC = (
                info.header_offset,
                info.compress_size,
                info.file_size,
                info.CRC,
            )
            both.filelist.append(other)
            both.NameToInfo[other.filename] = other
    with pytest.raises(UserError, match=r"overlap\.zip' overlap"):
        Table.open(tmp_path / "overlap.zip")
