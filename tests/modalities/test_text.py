"""Text: round trips, hostile input, one vocabulary for all columns, spelling."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.core.errors import BadCell, UserError
from sensorium.core.types import Profile
from sensorium.modalities.text import END, SPECIAL, Text
from sensorium.nn.shape_buckets import recurring

NAMES = [
    "grinning face",
    "cat with tears of joy",
    "flag: Österreich",
    "笑っている猫",
    "smiling cat",
    "face with tongue",
] * 5


def learned(cells: list[Any] = NAMES, **options: Any) -> Text:
    text = Text(**options)
    text.learn([text.read(cell) for cell in cells])
    return text


def prepared(text: Text, cells: list[Any]) -> list[np.ndarray]:
    return [text.prepare(text.read(cell)) for cell in cells]


TEXT = learned(length=256)


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=40).filter(lambda t: t.replace("\0", "").strip()))
def test_any_text_comes_back_in_form_nfc_without_nul(cell: str) -> None:
    (ids,) = prepared(TEXT, [cell])
    assert ids.min() >= SPECIAL and ids.max() < TEXT.tokens().vocabulary
    assert TEXT.decode(ids) == unicodedata.normalize("NFC", cell.replace("\0", ""))


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ("\ud800a\udfff", "\ufffda\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("a\x00b", "ab"),
        (b"caf\xc3\xa9", "café"),
        (12, "12"),
        (1.5, "1.5"),
        ("e\u0301", "é"),
        (np.str_("x"), "x"),
        ("<pad><end>", "<pad><end>"),
        ("\ufeffbom", "\ufeffbom"),
        (True, "True"),
    ],
)
def test_odd_cells_are_read(cell: Any, read: str) -> None:
    (ids,) = prepared(TEXT, [cell])
    assert TEXT.decode(ids) == read


@pytest.mark.parametrize("cell", [None, "", " \n\t", "\x00\x00", float("nan")])
def test_missing(cell: Any) -> None:
    assert Text().read(cell).shape == (0,)


@pytest.mark.parametrize("cell", [b"\xff\xfe\x00", b"\xc3", [1, 2], {"a": 1}, 1j, pytest.param(10**5000, id="huge")])
def test_bad(cell: Any) -> None:
    with pytest.raises(BadCell):
        Text().read(cell)


def test_a_list_of_texts_is_one_text() -> None:
    assert np.array_equal(Text().read(["red", None, "round"]), Text().read("red; round"))
    assert Text().read([]).shape == (0,)


def test_large_cells_are_cut_early() -> None:
    text = learned(length=8)
    for cell in (
        "a" * 10**7,
        b"\xc3\xa9" * 10**7,
        b"x" + b"\xc3\xa9" * 10**7,
        "a\u0301" * 10**6,
        " " * 9_999 + "x" * 10**6,
    ):
        read = text.read(cell)
        assert 0 < len(read) <= 4 * text.max_chars and len(text.prepare(read)) == 8


def test_too_small_settings_say_what_is_needed() -> None:
    with pytest.raises(UserError, match="259"):
        Text(vocabulary=100)
    with pytest.raises(UserError, match="length=0"):
        Text(length=0)


def test_columns_learn_one_vocabulary() -> None:
    names, tags = Text(), Text(length=8)
    columns = {"name": (names, [names.read(n) for n in NAMES]), "tags": (tags, [tags.read("yellow | smiley")] * 9)}
    Text.learn_together(columns)
    assert names.merges == tags.merges and names.shared() == tags.shared() == "text"
    assert len(prepared(names, ["yellow smiley"])[0]) < 5


def test_state_is_json_and_makes_a_copy() -> None:
    copy = Text()
    copy.load_state(json.loads(json.dumps(TEXT.state())))
    assert all(np.array_equal(a, b) for a, b in zip(prepared(copy, NAMES), prepared(TEXT, NAMES), strict=True))
    assert copy.tokens().vocabulary == TEXT.tokens().vocabulary


def test_the_vocabulary_is_the_same_in_every_process() -> None:
    cells = [f"{a}{b} {c}{a}" for a in "abcdefgh" for b in "xyzuvw" for c in "klmno" for _ in range(3)]
    code = (
        "import json, sys; from sensorium.modalities.text import Text; t = Text(vocabulary=600); "
        "t.learn([t.read(cell) for cell in json.load(sys.stdin)]); print(json.dumps(t.merges))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(cells), capture_output=True, text=True, check=True
    )
    here = learned(cells, vocabulary=600).merges
    assert json.loads(other.stdout) == here and len(here) > 50


def test_vocabulary_is_bounded_and_without_text_bytes_remain() -> None:
    many = learned([f"{a}{b}{c}" for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvwx"] * 2, vocabulary=300)
    assert many.tokens().vocabulary <= 300
    empty = learned([])
    assert empty.decode(prepared(empty, ["still here"])[0]) == "still here"


def test_collate_pads_to_the_longest_of_the_batch_only() -> None:
    cells = TEXT.collate(prepared(TEXT, ["cat", "cat with tears of joy"]))
    assert cells["ids"].shape == (2, recurring(int(cells["length"].max()))) and cells["ids"].dtype == torch.int64
    assert ((cells["ids"] > 0).sum(1) == cells["length"]).all()
    target = TEXT.target(cells)
    assert target.shape[1] == cells["ids"].shape[1] + 1
    assert ((target == END).sum(1) == 1).all()
    assert [TEXT.decode(row) for row in target.numpy()] == ["cat", "cat with tears of joy"]


def test_dropout_keeps_order_and_never_takes_all() -> None:
    text = learned(dropout=0.9)
    cells = text.collate(prepared(text, ["cat", "cat with tears of joy and a very long tail"] * 100))
    seen = text.augment(cells, torch.Generator().manual_seed(0))
    assert (seen["length"] >= 1).all() and seen["length"].sum() < 0.4 * cells["length"].sum()
    assert ((seen["ids"] > 0).sum(1) == seen["length"]).all()
    for few, all_ in zip(seen["ids"].tolist(), cells["ids"].tolist(), strict=True):
        rest = iter(all_)
        assert all(i in rest for i in few if i)  # a subsequence
    assert torch.equal(text.target(seen), text.target(cells))


def test_stem_ignores_padding_and_neighbours() -> None:
    torch.manual_seed(0)
    stem = TEXT.stem(16).eval()
    torch.nn.init.normal_(stem.out.weight)  # a trained one
    with torch.no_grad():
        alone, mask = stem(TEXT.collate(prepared(TEXT, ["cat"])))
        beside, wide = stem(TEXT.collate(prepared(TEXT, ["cat", "a much longer text beside it"])))
    k = int(mask.sum())
    assert mask[0, :k].all() and wide[0].sum() == k
    assert torch.allclose(alone[0, :k], beside[0, :k], atol=1e-6) and not beside[0, k:].any() and not alone[0, k:].any()


def test_words_spelled_alike_begin_alike() -> None:
    torch.manual_seed(0)
    text = learned(["smiling smile Smiling zebra quartz"] * 9)
    stem = text.stem(256)
    assert stem.letters is not None

    def gist(word: str) -> torch.Tensor:
        used = torch.from_numpy(prepared(text, [word])[0].astype(np.int64))
        return (stem.letters(stem.grams[used]).sum(1) * stem.share[used]).mean(0)

    like = torch.nn.functional.cosine_similarity
    assert like(gist("smiling"), gist("smile"), 0) > 0.4 > like(gist("smiling"), gist("quartz"), 0)
    assert like(gist("smiling"), gist("Smiling"), 0) > 0.99
    assert learned(spelling=False).stem(16).letters is None


def test_sketches_are_alike_where_words_are() -> None:
    texts = [
        "a red sailboat",
        "A RED  Sailboat",
        "red sailing boats",
        "\uff41 red sailboat",
        "three green apples",
        "猫",
    ]
    drawn = TEXT.sketch([TEXT.prepare(TEXT.read(text)) for text in texts])
    like = drawn @ drawn.T
    assert like[0, 1] == pytest.approx(1) and like[0, 3] == pytest.approx(1)
    assert 0.9 > like[0, 2] > 0.4 and max(like[0, 4], abs(like[0, 5])) < 0.2
    assert TEXT.sketch([]).shape == (0, 256) and not TEXT.sketch([np.zeros(0, np.int32)]).any()


def test_score_folds_case_and_spaces() -> None:
    scores = TEXT.score(["Red  Heart", "blue heart", "cat"], ["red heart", "blue heart", "dog"])
    assert scores["exact"] == pytest.approx(2 / 3) and 0.5 < scores["chrf"] < 1


def test_features_and_show_are_bounded_and_safe() -> None:
    assert TEXT.features(None).shape == TEXT.features(TEXT.read("x" * 9999)).shape == (258,)
    assert np.isnan(TEXT.features(None)).all() and np.isfinite(TEXT.features(TEXT.read("\x00a"))).all()
    shown = TEXT.show("<script>alert('x')</script>\x07" + "y" * 10**6)
    assert "<" not in shown and "\x07" not in shown and len(shown) < 2000


def test_claims() -> None:
    def sure(sample: list[Any]) -> float:
        found = Text.claim(
            Profile(
                name="x",
                type="string",
                sample=sample,
                present=len(sample),
                rows=len(sample),
                distinct=len({str(cell) for cell in sample}),
            )
        )
        return found.sure if found else 0.0

    assert sure(NAMES) > sure(["a1", "b2"]) > 0 and not sure([1, 2]) and not sure([])
