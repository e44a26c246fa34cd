"""Folders of files, tar shards and Hugging Face datasets."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_helpers import columns, png, wav, write_tar

from sensorium.core.errors import BadCell, UserError
from sensorium.core.registry import find, names
from sensorium.data.sources import Source
from sensorium.data.table import Table


def test_every_source_is_one_part() -> None:
    endings = [suffix for name in names(Source) for suffix in find(Source, name).suffixes]
    assert len(endings) == len(set(endings)) and {".parquet", ".csv", ".jsonl", ".tar", ".arrow"} <= set(endings)


@pytest.mark.parametrize("metadata", ["csv", "jsonl", "parquet"])
def test_folder_with_metadata(metadata: str, tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / f"files/{i}.png").write_bytes(png(i))
        (tmp_path / f"files/{i}.wav").write_bytes(wav())
    rows = [
        {"file_name": f"files/{i}.png", "sound_file_name": f"files/{i}.wav", "words": f"word {i}"} for i in range(3)
    ]
    if metadata == "csv":
        text = "file_name,sound_file_name,words\n" + "".join(",".join(row.values()) + "\n" for row in rows)
        (tmp_path / "metadata.csv").write_text(text)
    elif metadata == "jsonl":
        (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "metadata.parquet")
    table = Table.open(str(tmp_path))
    assert table.columns == ["image", "sound", "words"] and table.folder == tmp_path.resolve()
    assert columns(table, ("image", "sound")) == {
        "image": [png(i) for i in range(3)],
        "sound": [wav()] * 3,
        "words": [f"word {i}" for i in range(3)],
    }


def test_folder_with_metadata_in_each_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.png").write_bytes(png())
        (tmp_path / split / "metadata.csv").write_text(f"file_name,in\na.png,{split}\ngone.png,x\n")
    table = Table.open(tmp_path)
    found = columns(table, ("image",))
    assert found["split"] == ["test", "test", "train", "train"] and found["in"] == ["test", "x", "train", "x"]
    assert found["image"][0] == found["image"][2] == png()
    assert isinstance(found["image"][1], BadCell) and "test/gone.png" in str(found["image"][1])
    assert table.take([3, 0], ["split"])["split"].to_pylist() == ["train", "test"]


def test_folder_of_classes_and_splits(tmp_path: Path) -> None:
    for path in ("train/cat/1.png", "train/dog/2.JPG", "test/cat/3.png", "train/.hidden/4.png", "train/cat/notes.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(png())
    found = columns(Table.open(tmp_path))
    assert found == {
        "image": ["test/cat/3.png", "train/cat/1.png", "train/dog/2.JPG"],
        "split": ["test", "train", "train"],
        "label": ["cat", "cat", "dog"],
    }


def test_folder_of_tables_and_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no table"):
        Table.open(tmp_path)
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "data/0.parquet")
    assert columns(Table.open(tmp_path)) == {"a": [1]}
    (tmp_path / "metadata.csv").write_text("name\nx\n")
    with pytest.raises(UserError, match="no column file_name"):
        Table.open(tmp_path)


def npy(array: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def test_tar_shards(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar",
        [
            ("a/1.png", png()),
            ("a/1.json", b'{"year": 2001, "tags": ["x"]}'),
            ("a/1.cls", b"7\n"),
            ("a/1.mask.png", b"M"),
            ("a/2.JPG", b"J"),
            ("a/2.txt", "né".encode()),
            ("a/2.cls", b"8"),
            ("a/2.npy", npy(np.ones((2, 3)))),
            (".hidden", b"x"),
        ],
    )
    write_tar(
        tmp_path / "1.tar", [("b.wav", wav()), ("b.json", b"[1"), ("c.json", b"[1]"), ("d.npy", npy(np.array(["x"])))]
    )
    table = Table.open(str(tmp_path / "*.tar"))
    assert columns(table) == {
        "__key__": ["a/1", "a/2", None, "c", None],
        "image": [png(), b"J", None, None, None],
        "year": [2001, None, None, None, None],
        "tags": [["x"], None, None, None, None],
        "label": [7, 8, None, None, None],
        "mask": [b"M", None, None, None, None],
        "text": [None, "né", None, None, None],
        "array": [None, [[1, 1, 1]] * 2, None, None, None],
        "json": [None, None, None, [1], None],
    }
    assert {row: bad.where for row, bad in table.bad_rows.items()} == {2: "1.tar, sample b", 4: "1.tar, sample d"}


@pytest.mark.parametrize("name", ["1.pyd", "1.pickle", "1.pkl", "1.pth", "1.weights.pth", "1.npz", "1.npy"])
def test_tar_with_a_pickle_is_refused_and_runs_nothing(name: str, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",)

    data = npy(np.array([Evil()], object), allow_pickle=True) if name == "1.npy" else pickle.dumps(Evil())
    write_tar(tmp_path / "0.tar", [("0.txt", b"x"), (name, data)])
    with pytest.raises(UserError, match="never reads pickles"):
        Table.open(tmp_path / "0.tar")
    assert not (tmp_path / "ran").exists()


def test_reading_hostile_files_imports_no_pickle_and_runs_nothing(tmp_path: Path) -> None:
    """An audit hook sees every unpickling, exec, process and file outside of what was given."""
    write_tar(tmp_path / "0.tar", [("0.txt", b"x"), ("0.npy", npy(np.array([{}], object), allow_pickle=True))])
    pq.write_table(
        pa.table({"a": [pickle.dumps({})]}).replace_schema_metadata({"pandas": "{}"}), tmp_path / "t.parquet"
    )
    code = f"""if True:
        import sys
        from sensorium.core.errors import UserError
        from sensorium.core.registry import find, names
        from sensorium.data.sources import Source
        from sensorium.data.table import Table
        [find(Source, name) for name in names(Source)]
        Table.open([{{"a": 1}}])
        seen = []
        sys.addaudithook(lambda event, args: seen.append(event) if event in (
            "pickle.find_class", "exec", "os.system", "subprocess.Popen", "marshal.loads", "socket.connect") else None)
        for name in ("0.tar", "t.parquet"):
            try:
                print(sum(batch.num_rows for _, batch in Table.open({str(tmp_path)!r} + "/" + name).batches()))
            except UserError as error:
                print(error)
        print(seen)
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "never reads pickles" in done.stdout and done.stdout.splitlines()[-2:] == ["1", "[]"]


def test_tar_that_ends_early_keeps_what_came_before(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [(f"{i}.txt", b"x" * 3000) for i in range(9)])
    data = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(data[: len(data) // 2])
    table = Table.open(tmp_path / "0.tar")
    assert 3 <= table.rows - len(table.bad_rows) <= 5 and len(table.bad_rows) == 1
    assert any("ends early" in note and "'4'" in note for note in table.notes), table.notes


def test_tar_links_out_of_the_shard_devices_and_huge_members_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("secret")
    with tarfile.open(tmp_path / "0.tar", "w") as shard:
        for kind, target in (
            (tarfile.SYMTYPE, str(tmp_path / "secret")),
            (tarfile.LNKTYPE, "secret"),
            (tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo("0.txt")
            info.type, info.linkname = kind, target
            shard.addfile(info)
        for name, data in (("1.txt", b"y" * 2000), ("2.txt", b"ok")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    monkeypatch.setattr("sensorium.data.sources.tar.MAX_MEMBER_BYTES", 1000)
    table = Table.open(tmp_path / "0.tar")
    assert columns(table) == {"__key__": [None, None, "2"], "text": [None, None, "ok"]}
    assert "link" in table.bad_rows[0].reason and "limit" in table.bad_rows[1].reason


def dataset() -> datasets.Dataset:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "n": datasets.Value("int32"),
            "s": datasets.Sequence(datasets.Value("float32")),
        }
    )
    rows = {
        "image": [{"bytes": png(i), "path": None} for i in range(5)],
        "label": [0, 1, None, 0, 1],
        "n": list(range(5)),
        "s": [[1.0, 2.0], None, [], [3.0], [4.0]],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_datasets_are_read_undecoded_in_their_own_order() -> None:
    table = Table.open(dataset().select([4, 2, 0]))
    assert table.declared == {"label"}
    found = columns(table, ("image",))
    assert found == {
        "image": [png(4), png(2), png(0)],
        "label": ["dog", None, "cat"],
        "n": [4, 2, 0],
        "s": [[4], [], [1, 2]],
    }
    assert table.take([2, 0], ["n", "label"]).to_pydict() == {"n": [0, 4], "label": ["cat", "dog"]}


def test_dataset_dict_and_stream() -> None:
    both = datasets.DatasetDict({"train": dataset(), "test": dataset().select([1])})
    found = columns(Table.open(both))
    assert found["split"] == ["train"] * 5 + ["test"] and found["label"] == ["cat", "dog", None, "cat", "dog", "dog"]
    table = Table.open(dataset().to_iterable_dataset())
    found = columns(table, ("image",))
    assert found["image"] == [png(i) for i in range(5)] and found["label"] == ["cat", "dog", None, "cat", "dog"]


def test_a_hub_name_is_loaded_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args: asked.append(args) or dataset())
    assert Table.open("hf:owner/name:config").rows == 5 and asked == [("owner/name", "config")]
    assert Table.open("hf:owner/name").name == "name"

    def fail(*args: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=r"owner/name.*no network"):
        Table.open("hf:owner/name")
