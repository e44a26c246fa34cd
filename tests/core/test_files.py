"""A file takes its name when it is whole, and only then."""

import json

import pytest

from sensorium.core.files import atomic_write, digest, write_json


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as part:
        part.write_text("half")
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_write(path) as part:
        part.write_text("new")
        assert part.suffix == ".json" and path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_json_of_anything(tmp_path):
    path = tmp_path / "b.json"
    write_json(path, {"ä": tmp_path})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": str(tmp_path)}


def test_a_block_that_writes_nothing_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "c"):
        pass


def test_a_digest_tells_a_flipped_bit(tmp_path):
    (tmp_path / "d").write_bytes(b"\0" * 1000)
    before = digest(tmp_path / "d")
    (tmp_path / "d").write_bytes(b"\0" * 999 + b"\1")
    assert digest(tmp_path / "d") != before and len(before) == 64
