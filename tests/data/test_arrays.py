"""ORC, Avro, NumPy and HDF5 files."""

from __future__ import annotations

import datetime
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import h5py
import numpy as np
import pyarrow as pa
import pytest
from table_helpers import columns, rows_of, without

from sensorium.core.errors import UserError
from sensorium.data.options import ReadOptions
from sensorium.data.table import Table


def test_orc_by_stripe(tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    from pyarrow import orc

    data = pa.table(
        {
            "a": pa.array([*range(4999), None]),
            "s": ["é" * 9] * 5000,
            "d": [datetime.date(2020, 1, 1)] * 5000,
            "at": [datetime.datetime(2020, 1, 2, 3)] * 5000,
            "l": [[1.5, None]] * 5000,
            "p": [{"x": 1}] * 5000,
        }
    )
    # A stripe ends where a batch does.
    with orc.ORCWriter(tmp_path / "a.orc", stripe_size=1000) as writer:
        for start in range(0, 5000, 1000):
            writer.write(data.slice(start, 1000))
    orc.write_table(data.slice(0, 0), tmp_path / "empty.orc")
    (tmp_path / "misnamed.csv").write_bytes((tmp_path / "a.orc").read_bytes())
    nothing_written()
    table = Table.open(tmp_path / "a.orc")
    assert len(table.starts) > 2 and table.rows == 5000
    wanted = [{**{name: row[name] for name in ("a", "s", "d", "at", "l")}, "p.x": 1} for row in data.to_pylist()]
    assert rows_of(tmp_path / "a.orc") == wanted == rows_of(tmp_path / "misnamed.csv")
    assert table.take([4998, 3], ["a"])["a"].to_pylist() == [4998, 3]
    assert (
        Table.open(tmp_path / "empty.orc").columns == ["a", "s", "d", "at", "l", "p.x"]
        and rows_of(tmp_path / "empty.orc") == []
    )
    assert Table.open([tmp_path / "a.orc", tmp_path / "empty.orc"]).rows == 5000


def test_orc_damaged(tmp_path: Path) -> None:
    from pyarrow import orc

    orc.write_table(
        pa.table({"a": np.random.default_rng(0).integers(0, 2**60, 9999)}), tmp_path / "a.orc", compression="zlib"
    )
    data = bytearray((tmp_path / "a.orc").read_bytes())
    (tmp_path / "cut.orc").write_bytes(data[: len(data) // 2])
    data[1000:2000] = b"\xff" * 1000
    (tmp_path / "holes.orc").write_bytes(data)
    for name in ("cut", "holes"):
        with pytest.raises(UserError, match=rf"{name}\.orc' can't be read"):
            rows_of(tmp_path / f"{name}.orc")


@pytest.mark.parametrize("compression", ["uncompressed", "zlib", "snappy", "lz4", "zstd"])
def test_orc_lengths_that_no_cell_has_are_refused(compression: str, tmp_path: Path) -> None:
    from pyarrow import orc

    lists = [[1.0] * row for row in range(12)]
    falling = [["x"] * (400 - row % 400) for row in range(2000)]
    bits = np.random.default_rng(0).integers(0, 60, 2000)
    for name, cells in (("rising", lists), ("falling", falling), ("mixed", [["x"] * count for count in bits])):
        source = pa.table({"c": cells, "text": ["é" * len(cell) for cell in cells]})
        orc.write_table(source, tmp_path / f"{name}.orc", compression=compression, stripe_size=10_000)
        assert rows_of(tmp_path / f"{name}.orc") == source.to_pylist()
    # A run of lengths 0, 1, 2, … that a damaged byte makes one of 3, 2, 1, 0, -1, …: the library ends the process.
    orc.write_table(pa.table({"c": lists}), tmp_path / "a.orc", compression=compression)
    data = (tmp_path / "a.orc").read_bytes()
    assert data.count(b"\xc0\x0b\x00\x02") == 1
    (tmp_path / "a.orc").write_bytes(data.replace(b"\xc0\x0b\x00\x02", b"\xc0\x0b\x03\x01"))
    with pytest.raises(UserError, match=r"a\.orc' can't be read as ORC: a cell of its column 1 has the length -8"):
        rows_of(tmp_path / "a.orc")


def test_orc_run_lengths() -> None:
    from sensorium.data.sources._orc_lengths import _lengths_1, _lengths_2

    def extremes(data: str, read: Callable[[bytes], Any]) -> list[int]:
        return list(read(bytes.fromhex(data)))

    # The examples of the specification: short repeat, direct, patched base, delta; runs and literals of version 1.
    assert extremes("0a2710", _lengths_2) == [10000]
    assert extremes("5e035ca1ab1edeadbeef", _lengths_2) == []
    assert extremes("8e092b2107d01e00147028323c46505afce8", _lengths_2) == [2000, 2000]
    assert extremes("c609020222424246" + "0a2710", _lengths_2) == [2, 10000]
    assert extremes("610007" + "fb020306070b", _lengths_1) == [7, 7, 2, 3, 6, 7, 11]
    # Beyond what a cell has: 64 bits with the highest set, a falling run of varying steps, a negative base.
    assert min(extremes("38" + "ff" * 8, _lengths_2)) >= 1 << 63
    assert max(extremes("7e00" + "ff" * 8, _lengths_2)) >= 1 << 63
    assert min(extremes("c609020122424246", _lengths_2)) < 0
    assert min(extremes("8e09ab2187d01e00147028323c46505afce8", _lengths_2)) < 0
    assert min(extremes("05ff03", _lengths_1)) < 0


AVRO = {
    "type": "record", "name": "Row", "namespace": "x", "fields": [
        {"name": "id", "type": "long"}, {"name": "näme", "type": ["null", "string"]},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "photo", "type": "bytes"}, {"name": "list", "type": {"type": "array", "items": "double"}},
        {"name": "place", "type": {"type": "record", "name": "Place", "fields": [{"name": "x", "type": "float"}]}},
    ],
}  # fmt: skip


def avro_rows(count: int) -> list[dict[str, Any]]:
    when = datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    return [
        {"id": i, "näme": None if i % 3 else f"é{i}", "day": datetime.date(2020, 1, 1), "at": when if i % 2 else None,
        "kind": "AB"[i % 2],
         "photo": bytes([i % 256]), "list": [i / 2] * (i % 3), "place": {"x": 0.5}}
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_avro_equals_what_was_written(codec: str, tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    path = tmp_path / "a.avro"
    with open(path, "wb") as file:
        fastavro.writer(file, AVRO, avro_rows(100), codec=codec, sync_interval=500)
    with open(tmp_path / "empty.avro", "wb") as file:
        fastavro.writer(file, AVRO, [])
    nothing_written()
    wanted = [
        {**{name: cell for name, cell in row.items() if name != "place"}, "place.x": 0.5} for row in avro_rows(100)
    ]
    table = Table.open(path)
    assert rows_of(path) == wanted and table.declared == {"kind"} and table.notes == []
    assert rows_of(tmp_path / "empty.avro") == [] and "näme" in Table.open(tmp_path / "empty.avro").columns


def test_avro_damaged_block_costs_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.avro"
    with open(path, "wb") as file:
        fastavro.writer(file, AVRO, avro_rows(100), codec="deflate", sync_interval=500)
    whole = path.read_bytes()
    data = bytearray(whole)
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    path.write_bytes(data)
    table = Table.open(path)
    found = columns(table)["id"]
    assert table.rows == 100 and 0 < len(table.bad_rows) < 50 and "damaged blocks" in table.notes[0]
    assert [cell for row, cell in enumerate(found) if row not in table.bad_rows] == [
        row for row in range(100) if row not in table.bad_rows
    ]
    path.write_bytes(whole[:-30])
    table = Table.open(path)
    assert table.rows == 100 and min(table.bad_rows) > 50 and "ends early" in next(iter(table.bad_rows.values())).reason
    for data in (b"Obj\x01", whole[:40], b"Obj\x01\x02\x16avro.schema\x02{\x00" + b"s" * 16):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"a\.avro' can't be read as Avro"):
            Table.open(path)


def container(schema: str, blocks: list[tuple[int, bytes]], codec: str = "null") -> bytes:
    """An Avro file of blocks as they are."""

    def number(value: int) -> bytes:
        value, out = value << 1, bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    def text(data: bytes) -> bytes:
        return number(len(data)) + data

    head = (
        b"Obj\x01"
        + number(2)
        + text(b"avro.schema")
        + text(schema.encode())
        + text(b"avro.codec")
        + text(codec.encode())
        + b"\0"
        + b"s" * 16
    )
    return head + b"".join(number(count) + text(data) + b"s" * 16 for count, data in blocks)


@pytest.mark.parametrize(("codec", "name"), [("snappy", "snappy"), ("zstandard", "zstd")])
def test_avro_by_codecs_that_its_writer_lacks_here(codec: str, name: str, tmp_path: Path) -> None:
    data = b"\x02a\x02b" * 50
    packed = pa.Codec(name).compress(data, asbytes=True)
    block = packed + zlib.crc32(data).to_bytes(4, "big") * (codec == "snappy")
    schema = '{"type": "record", "name": "L", "fields": [{"name": "n", "type": "string"}]}'
    (tmp_path / "a.avro").write_bytes(
        container(schema, [(100, block), (2, packed[:-5] + b"none"), (100, block)], codec)
    )
    table = Table.open(tmp_path / "a.avro")
    assert columns(table) == {"n": ["a", "b"] * 50 + [None] * 2 + ["a", "b"] * 50} and list(table.bad_rows) == [
        100,
        101,
    ]


def test_avro_hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.avro"
    field = '{{"type": "record", "name": "L", "fields": [{{"name": "n", "type": {}}}]}}'
    for kind, words in (
        ('["null", "L"]', "hold themselves"),
        ('{"type": "array", "items": "null"}', "take no bytes"),
        ('["null", {"type": "L"}]', "damaged"),
    ):
        path.write_bytes(container(field.format(kind), [(1, b"\x02" * 3_000_000)]))
        with pytest.raises(UserError, match=rf"a\.avro' can't be read as Avro: .*{words}"):
            Table.open(path)
    path.write_bytes(container(field.format('"null"'), [(1 << 60, b"")]))
    with pytest.raises(UserError, match="more records than it has bytes for"):
        Table.open(path)
    path.write_bytes(
        container(
            field.format('"string"'), [(1, b"\xfe\xff\xff\xff\xff\xff\xff\x01x"), (2, b"\x02a\x02b"), (1, b"\x01")]
        )
    )
    assert columns(Table.open(path)) == {"n": [None, "a", "b", None]}
    # A damaged block that claims far more records than lie between two markers is one bad row.
    for claimed, rows in ((900_000, 1), (50, 50)):
        data = bytearray(container(field.format('"string"'), [(1, b"\x02a"), (claimed, b"\x02b"), (1, b"\x02c")]))
        data[-21] = ord("t")  # the end of the second block's marker
        path.write_bytes(data)
        assert Table.open(path).rows == 1 + rows and len(Table.open(path).bad_rows) == rows
    monkeypatch.setattr("sensorium.data.sources.avro.MAX_BLOCK_BYTES", 10**6)
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    path.write_bytes(
        container(
            field.format('"string"'), [(1, b"\x02a"), (1, bomb.compress(b"\0" * 10**7) + bomb.flush())], "deflate"
        )
    )
    with pytest.raises(UserError, match="no row that can be read"):
        Table.open(path)
    path.write_bytes(container(field.format('"string"'), [], "lzo"))
    with pytest.raises(UserError, match="compressed by lzo.*Possible: null"):
        Table.open(path)
    without("fastavro", monkeypatch)
    with pytest.raises(UserError, match=r"sensorium\[avro\]"):
        Table.open(path)


def test_npy_in_place(tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    arrays = {
        "n": np.arange(20000, dtype=">i4"),
        "m": np.arange(24, dtype=np.float32).reshape(4, 2, 3),
        "f": np.asfortranarray(np.arange(8.0).reshape(4, 2)),
        "u": np.array(["é", "", "x"]),
        "b": np.array([b"a", b"\xff"]),
        "t": np.array(["2020-01-02", "NaT"], "datetime64[D]"),
        "none": np.zeros((0, 3)),
        "o": np.array([True, False]),
        "h": np.array([1, 2], np.float16),
        "thin": np.zeros((3, 0)),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    named = np.array([(1, "a", [1.5, 2]), (2, "é", [3, 4])], [("id", "i8"), ("näme", "U5"), ("v", "f4", 2)])
    np.save(tmp_path / "s.npy", named)
    wide = np.array([(1,)], [("日", "i8")])
    with pytest.warns(UserWarning, match="format 3"):
        np.save(tmp_path / "wide.npy", wide)
        np.savez(tmp_path / "wide.npz", a=wide)
    (tmp_path / "misnamed.csv").write_bytes((tmp_path / "n.npy").read_bytes())
    nothing_written()
    for name in ("n", "m", "f", "u", "o", "h", "none"):
        assert columns(Table.open(tmp_path / f"{name}.npy")) == {
            "array": [None if cell == "" else cell for cell in arrays[name].tolist()]
        }
    assert columns(Table.open(tmp_path / "thin.npy"))["array"] == [[], [], []]
    assert columns(Table.open(tmp_path / "b.npy")) == {"array": ["a", "\ufffd"]}
    assert columns(Table.open(tmp_path / "t.npy")) == {"array": [datetime.datetime(2020, 1, 2), None]}
    assert rows_of(tmp_path / "s.npy") == [{"id": 1, "näme": "a", "v": [1.5, 2]}, {"id": 2, "näme": "é", "v": [3, 4]}]
    assert rows_of(tmp_path / "wide.npy") == [{"日": 1}] and rows_of(tmp_path / "wide.npz") == [{"a.日": 1}]
    table = Table.open(tmp_path / "misnamed.csv")
    assert len(table.starts) == 4 and table.take([19999, 5])["array"].to_pylist() == [19999, 5]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_arrays_of_one_length_are_columns(
    save: Callable[..., None], tmp_path: Path, nothing_written: Callable[[], None]
) -> None:
    save(tmp_path / "a.npz", x=np.arange(12).reshape(4, 3), y=np.array(["a", "é", "", "d"]),
        f=np.asfortranarray(np.arange(8.0).reshape(4, 2)),
         other=np.zeros(9), scalar=np.float64(3), c=np.zeros(4, complex))  # fmt: skip
    save(tmp_path / "empty.npz", x=np.zeros((0, 2)))
    nothing_written()
    table = Table.open(tmp_path / "a.npz")
    assert columns(table) == {
        "x": np.arange(12).reshape(4, 3).tolist(),
        "y": ["a", "é", None, "d"],
        "f": np.arange(8.0).reshape(4, 2).tolist(),
    }
    assert "other, scalar, c" in table.notes[0]
    assert Table.open(tmp_path / "empty.npz").columns == ["x"] and rows_of(tmp_path / "empty.npz") == []


def test_numpy_hostile_and_damaged(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",)

    evil = np.array([Evil()], object)
    np.save(tmp_path / "o.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "o.npz", a=np.zeros(1), b=evil)
    for name in ("o.npy", "o.npz"):
        with pytest.raises(UserError, match="never reads pickles"):
            Table.open(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    np.save(tmp_path / "a.npy", np.arange(1000))
    np.savez(tmp_path / "a.npz", a=np.random.default_rng(0).random(1000))
    whole = (tmp_path / "a.npy").read_bytes()
    far = whole.replace(b"(1000,), ", b"(1" + b"0" * 7 + b"," * 0 + b",)")
    wide = io.BytesIO()
    np.lib.format.write_array_header_1_0(wide, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 30)})
    for name, data in (
        ("cut.npy", whole[:4000]), ("head.npy", whole[:50]), ("far.npy", far), ("wide.npy", wide.getvalue()),
        ("complex.npy", None),
        ("one.npy", None), ("cut.npz", (tmp_path / "a.npz").read_bytes()[:5000]),
        ("code.npy", whole.replace(b"'<i8'", b"exit(")),
    ):  # fmt: skip
        if data is None:
            np.save(tmp_path / name, np.zeros(3, complex) if name == "complex.npy" else np.float64(1))
        else:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=rf"{name}' can't be read as"):
            Table.open(tmp_path / name)
    np.save(tmp_path / "long.npy", np.zeros((2, 300000)))
    with pytest.raises(UserError, match="data.max_cell_mb"):
        Table.open(tmp_path / "long.npy", options=ReadOptions(max_cell_mb=1))


def test_hdf5_group_in_place(tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("group/inner")
        group["n"] = np.arange(10000)
        group.create_dataset("m", data=np.arange(40000.0).reshape(10000, 2, 2), chunks=(100, 2, 2), compression="gzip")
        group.create_dataset("wörds", data=["é", "b"] * 5000, dtype=h5py.string_dtype())
        group["fixed"] = np.array([b"ab", b"c"] * 5000)
        group["flag"] = np.arange(10000) % 2 == 0
        group.create_dataset("list", (10000,), h5py.vlen_dtype(np.int32))
        group["list"][1] = [1, 2]
        group.create_dataset("kind", data=np.arange(10000) % 2, dtype=h5py.enum_dtype({"A": 0, "B": 1}, "i8"))
        group["both"] = np.array([(1, 2.5)] * 10000, [("x", "i4"), ("y", "f8")])
        group["short"], group["scalar"] = np.zeros(3), 5
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"], file["g/y"] = np.arange(2), np.arange(3)
        file["none/y"] = np.zeros(0)
    (tmp_path / "misnamed.csv").write_bytes((tmp_path / "a.h5").read_bytes())
    nothing_written()
    table = Table.open(tmp_path / "a.h5")
    found = columns(table)
    assert table.rows == 10000 and len(table.starts) > 1 and "short" in table.notes[0]
    assert (
        found["n"] == [*range(10000)]
        and found["m"] == np.arange(40000.0).reshape(10000, 2, 2).tolist()
        and found["wörds"][:2] == ["é", "b"]
    )
    assert found["fixed"][:2] == ["ab", "c"] and found["flag"][:2] == [True, False] and found["kind"][:2] == ["A", "B"]
    assert found["list"][:2] == [[], [1, 2]] and found["both.x"][0] == 1 and found["both.y"][9999] == 2.5
    assert table.take([9999, 3], ["n", "wörds"]).to_pydict() == {"n": [9999, 3], "wörds": ["b", "b"]}
    assert (
        columns(Table.open(tmp_path / "misnamed.csv")) == found == columns(Table.open(f"{tmp_path}/a.h5#/group/inner"))
    )
    assert columns(Table.open(f"{tmp_path}/b.h5#/g")) == {"y": [0, 1, 2]} and columns(
        Table.open(f"{tmp_path}/b.h5#/")
    ) == {"x": [0, 1]}
    assert columns(Table.open(f"{tmp_path}/b.h5#none")) == {"y": []}
    with pytest.raises(UserError, match="several groups.*Possible: /, /g, /none"):
        Table.open(tmp_path / "b.h5")
    with pytest.raises(UserError, match="no group '/h'.*/g"):
        Table.open(f"{tmp_path}/b.h5#/h")


def test_hdf5_reads_no_other_file_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.arange(4)
    (tmp_path / "secret.bin").write_bytes(b"secret!!" * 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(4)
        file["linked"] = h5py.ExternalLink("secret.h5", "/x")
        file["soft"] = h5py.SoftLink("/linked")
        file.create_dataset("external", (4,), "i8", external=[(str(tmp_path / "secret.bin"), 0, 32)])
        layout = h5py.VirtualLayout((4,), "i8")
        layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "x", (4,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("reference", data=[file["x"].ref] * 4, dtype=h5py.ref_dtype)
        file["loop"] = file["/"]
    table = Table.open(tmp_path / "a.h5")
    assert table.columns == ["x"] and all(
        name in table.notes[0] for name in ("linked", "soft", "external", "virtual", "reference")
    )
    with h5py.File(tmp_path / "far.h5", "w") as file:
        file.create_dataset("x", (1 << 50,), "f8", chunks=(1000,))
    with pytest.raises(UserError, match="times its size"):
        Table.open(tmp_path / "far.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", data=np.random.default_rng(0).random(100000), chunks=(10000,), compression="gzip")
    data = bytearray((tmp_path / "b.h5").read_bytes())
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    data[len(data) // 2 : len(data) // 2 + 9000] = b"\xff" * 9000
    (tmp_path / "holes.h5").write_bytes(data)
    (tmp_path / "none.h5").write_bytes(b"none")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    for name in ("cut", "holes", "none", "empty"):
        with pytest.raises(UserError, match=rf"{name}\.h5'"):
            rows_of(tmp_path / f"{name}.h5")
    without("h5py", monkeypatch)
    with pytest.raises(UserError, match=r"sensorium\[hdf5\]"):
        Table.open(tmp_path / "a.h5")
