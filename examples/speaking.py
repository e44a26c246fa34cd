"""Can drawn speech be understood? English names spoken from their words or their pictures, a judge that never met the
model, and a recogniser.

    python examples/speaking.py --minutes 40

The table is the emoji's, its rows with English sounds. The judge is a second model, of other sizes and another seed,
trained on the same training rows to match names and sounds alone. The recogniser is PocketSphinx with its own model of
English (`pip install pocketsphinx`; without it its lines are left out), told that one of the names is spoken. Asked are
known concepts in rows not seen, of any voice. Beside the drawn sounds stand the real ones of the same rows, and the
real ones read as the model reads them and made sound again. A run in --out is used again.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from _compare import arguments, build, fit, known, run, show
from scipy.fft import dct

from sensorium import Model, Table
from sensorium.inference.trained import keep_split
from sensorium.network.batch import collate
from sensorium.nn.mel import log_mel

GALLERY = 100
"""Names among which the judge and the recogniser seek the right one."""
OTHERS = ("name_de", "name_fr", "name_es", "name_ja", "year", "spoken_language", "tags", "group", "concept", "style")
SOUNDS = (
    "column.spoken.seconds=2",
    "column.image.size=32",
    "column.image.trim=true",
    *(f"column.{column}.kind=out" for column in OTHERS),
    "baselines.share=0",
)
SPEAKING = (
    "questions.generate=spoken",
    "questions.generate_share=1",
    "questions.trunk_share=0.1",
    "questions.detach_generation=false",
    "questions.plans=1",
    "train.batch=64",
    "generator.flow.prefix_share=0.1",
    "train.ema_decay=0.998",
    "train.weight_decay=0.1",
    "questions.weights=name:3",
    "data.entity_key=id",
    "finish.share=1",
    "column.name.vocabulary=300",
    "column.name.length=48",
    "column.name.dropout=0",
)
"""A voice goes from letter to letter: of word pieces it would have to learn each by heart, and of a name that lacks
some it can't say them.
"""
JUDGING = ("objectives=match", "network.width=144", "network.gist=144", "column.image.kind=out", "train.batch=256")
BANDS, CEPSTRA = 40, 13
"""Bands of a mel cepstrum, and how many of its coefficients are compared, without the first, which is loudness."""


def main() -> None:
    given = arguments(__doc__, minutes=40.0, choices={"steps": ("20", "10", "50")})
    table = (
        Table.open(given.out / "emoji.parquet")
        if given.out and (given.out / "emoji.parquet").is_file()
        else build("emoji", given)
    )
    spoken = table.take(np.arange(table.rows), ["spoken_language"]).column("spoken_language").to_pylist()
    table = table.select(np.array([language == "en" for language in spoken]))
    drawer = known(given.out / "run") or fit(table, "", given, "run", [*SOUNDS, *SPEAKING])
    other = argparse.Namespace(**vars(given) | {"seed": given.seed + 1, "minutes": given.minutes / 4})
    judge = known(given.out / "judge") or fit(table, "", other, "judge", [*SOUNDS[:-1], *JUDGING, "baselines.share=0"])
    part = keep_split(table, "test_new_style", "split")
    names = part.take(np.arange(part.rows), ["name"]).column("name").to_pylist()
    rows = np.array([row for row, name in enumerate(names) if names.index(name) == row])[:GALLERY]
    names, asked = [names[row] for row in rows], part.select(rows)
    real = list(asked.cells(asked.take(np.arange(asked.rows), ["spoken"]), "spoken", True))
    sounds = {"real sounds": real, "real sounds, read and made": again(drawer, real)}
    for column in ("name", "image"):
        sounds[f"from the {column}"] = drawer.generate(asked, "spoken", seen=[column], steps=int(given.steps))
    both = drawer.generate_together(asked, ["name", "spoken"], ["image"], jointly=True)
    sounds["from the image, its name said first"] = [row["spoken"] for row in both]
    for what, cells in sounds.items():
        write(given.out / what.replace(" ", "-").replace(",", ""), cells[:12], names)
    recogniser, right = recognise(names), np.arange(len(rows))
    heard = judge.embed([{"name": name} for name in names], ["name"])
    lines = {
        "from the image: its name": float(np.mean([row["name"] == name for row, name in zip(both, names, strict=True)]))
    }
    for what, cells in sounds.items():
        lines[f"{what}: judge"] = float(
            ((judge.embed([{"spoken": cell} for cell in cells], ["spoken"]) @ heard.T).argmax(1) == right).mean()
        )
        if recogniser is not None:
            lines[f"{what}: words"] = float(
                np.mean([words_right(recogniser(wave_of(cell)), name) for cell, name in zip(cells, names, strict=True)])
            )
        if cells is not real:
            lines[f"{what}: cepstra"] = float(
                np.mean([cepstral(wave_of(a), wave_of(b)) for a, b in zip(cells, real, strict=True)])
            )
    lines["real, of another name: cepstra"] = float(
        np.mean([cepstral(wave_of(a), wave_of(b)) for a, b in zip(real[1:], real, strict=False)])
    )
    show(
        f"Known concepts: {len(rows)} names",
        drawer,
        {"ours": lines["from the name: judge"], "chance": 1 / len(rows), **lines},
    )


def again(model: Model, cells: Sequence[bytes]) -> list[bytes]:
    """Sounds read as the model reads them, and made sound again as it does."""
    modality = model.network.modalities["spoken"]
    batch = collate(
        {"spoken": modality}, {"spoken": [modality.prepare(modality.read(cell)) for cell in cells]}, len(cells)
    )
    return [modality.decode(tokens) for tokens in modality.target(batch.cells["spoken"]).numpy()]


def wave_of(cell: bytes) -> np.ndarray:
    """The samples of a sound, 16,000 a second."""
    return soundfile.read(io.BytesIO(cell), dtype="float32", always_2d=True)[0].mean(1)


def write(folder: Path, cells: Sequence[bytes], names: Sequence[str]) -> None:
    """Sounds to be listened to."""
    folder.mkdir(parents=True, exist_ok=True)
    for cell, name in zip(cells, names, strict=False):
        (folder / f"{re.sub(r'[^a-z]+', '-', name.lower())}.wav").write_bytes(cell)


# --- a recogniser of words --------------------------------------------------------------------------------------------


def words(name: str) -> list[str]:
    """The words of a name."""
    return re.findall(r"[a-z']+", name.lower().replace("’", "'"))


def recognise(names: Sequence[str]) -> Recogniser | None:
    """A recogniser told that one of the names is spoken, as far as it knows the words; None where not installed."""
    try:
        import pocketsphinx
    except ImportError:
        return None
    return Recogniser(pocketsphinx.Decoder(samprate=16_000, loglevel="FATAL"), names)


class Recogniser:
    """Samples to the words that are heard in them."""

    def __init__(self, decoder: object, names: Sequence[str]) -> None:
        self.decoder = decoder
        known = [
            " ".join(words(name))
            for name in names
            if words(name) and all(decoder.lookup_word(word) for word in words(name))
        ]
        decoder.add_jsgf_string(
            "names", f"#JSGF V1.0; grammar names; public <name> = {' | '.join(sorted(set(known)))} ;"
        )
        decoder.activate_search("names")

    def __call__(self, wave: np.ndarray) -> list[str]:
        loud = np.pad(wave / max(float(np.abs(wave).max(initial=0)), 1e-6) * 0.7, 4_800)
        self.decoder.start_utt()
        self.decoder.process_raw((loud * 32_767).astype("<i2").tobytes(), full_utt=True)
        self.decoder.end_utt()
        found = self.decoder.hyp()
        return found.hypstr.split() if found else []


def words_right(heard: Sequence[str], name: str) -> float:
    """The share of a name's words that were heard."""
    said = words(name)
    return sum(word in heard for word in said) / max(len(said), 1)


# --- mel cepstra ------------------------------------------------------------------------------------------------------


def cepstral(one: np.ndarray, other: np.ndarray) -> float:
    """The mel-cepstral distance in dB (Kubichek 1993) along the best alignment in time."""
    a, b = (cepstra(wave) for wave in (one, other))
    gap = 10 / np.log(10) * np.sqrt(2) * np.sqrt(np.square(a[:, None] - b[None]).sum(-1))
    total, steps = np.full((len(a) + 1, len(b) + 1), np.inf), np.zeros((len(a) + 1, len(b) + 1))
    total[0, 0] = 0
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            from_ = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda at: total[at])
            total[i, j], steps[i, j] = total[from_] + gap[i - 1, j - 1], steps[from_] + 1
    return float(total[-1, -1] / steps[-1, -1])


def cepstra(wave: np.ndarray) -> np.ndarray:
    """Cepstra [frames, 13] of the log magnitudes in 40 bands, which is their sum, twice each times its cosine."""
    logs = (
        np.log(10)
        / 2
        * log_mel(torch.from_numpy(wave), rate=16_000, mels=BANDS, hop=256, window=512, floor=1e-6).numpy()
    )
    return dct(logs, axis=1)[:, 1 : 1 + CEPSTRA] / (2 * BANDS)


if __name__ == "__main__":
    run(main)
