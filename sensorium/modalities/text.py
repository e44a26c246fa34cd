"""Text in any language: byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909) learned from the table itself.

All text columns share one vocabulary, one stem and one generator; which column a token belongs to is marked elsewhere.
No text can become a special token: the tokenizer knows none, its ids are moved up by three.
"""

from __future__ import annotations

import html
import math
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.core.types import Claim, Profile, Tokens
from sensorium.media.documents import document_text, is_text
from sensorium.modalities import Modality
from sensorium.modalities._capabilities import Attributable, Generable
from sensorium.modalities._text_tokens import (
    END,
    PAD,
    SPECIAL,
    _alphabet,
    _alphabet_of_bytes,
    _folded,
    _merges,
    _some,
    _split,
    beginning,
    hashed_counts,
    hashed_terms,
    joined,
    owned_tokens,
    packed,
    sketches,
    unpacked,
)

if TYPE_CHECKING:
    import torch

    from sensorium.backbones import Backbone
    from sensorium.nn.stem import Cells, Stem

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads don't survive the fork of workers

EMPTY = np.zeros(0, np.uint8)
MAX_TOKEN_BYTES = 32
"""Bytes of a token, at most."""
MAX_PARTS = 24
"""Words that are left out one by one, at most."""


class Text(Generable, Attributable):
    """Words, sentences, names.

    Args:
        vocabulary: number of tokens, of which 256 are bytes and 3 special.
        length: tokens kept of a cell.
        max_chars: characters read of a cell.
        dropout: share of a seen cell's tokens that training leaves out, never all.
        spelling: add the letters of each token, as hashed trigrams, to its embedding (arXiv 1607.04606): words that are
            spelled alike begin alike, in capitals or not.
        buckets: rows of the trigram table.
        files: cells are files of text, plain or PDF, given as bytes or paths; such a column is seen and found, and not
            predicted.
        backbone: a pretrained text encoder, whose features are what is seen of the cells: a folder, package:NAME, or
            OWNER/NAME@REVISION on the hub. They are still predicted in words of their own; ``dropout`` is then of
            features.
        tune: frozen, lora, dora, rslora, bias, last:N or full: fine-tuning of the backbone, with the model. Unless it
            is frozen, cells go through it in every step.
        rank: of low-rank updates. tune_rate: learning rate of what is tuned, relative to ``train.lr``; 0: as suits
            ``tune``.
    """

    display_rank = 4
    matched = True
    generator = "autoregressive"
    is_text = True
    metric = "exact"

    def __init__(
        self,
        *,
        vocabulary: int = 3000,
        length: int = 64,
        max_chars: int = 10_000,
        dropout: float = 0.1,
        spelling: bool = True,
        buckets: int = 4096,
        files: bool = False,
        backbone: str = "",
        tune: str = "frozen",
        rank: int = 16,
        tune_rate: float = 0.0,
    ) -> None:
        self.use_backbone(backbone, "text", tune, rank, tune_rate)
        if vocabulary < 256 + SPECIAL:
            raise UserError(f"vocabulary={vocabulary}: bytes alone need {256 + SPECIAL}. Give at least that many.")
        if length < 1 or max_chars < 1:
            raise UserError(f"length={length}, max_chars={max_chars}: both must be at least 1.")
        self.vocabulary, self.length, self.max_chars, self.files = vocabulary, length, max_chars, files
        self.media = files
        self.dropout, self.spelling, self.buckets = dropout, spelling, buckets
        self.span = length
        self._set([])

    @classmethod
    def reads_as_written(cls, settings: Mapping[str, Any]) -> bool:
        return True

    @property
    def as_written(self) -> bool:
        return True

    @classmethod
    def claim(cls, profile: Profile) -> Claim | None:
        if profile.heads:
            texts = sum(map(is_text, profile.heads)) / len(profile.heads)
            pdfs = sum(head.startswith(b"%PDF-") for head in profile.heads) / len(profile.heads)
            what, share, sure = ("texts", texts, 0.88) if texts >= pdfs else ("PDFs", pdfs, 0.6)
            if share >= 0.9:
                files = what == "PDFs" or not all(
                    isinstance(cell, bytes) for cell in profile.sample
                )  # else bytes that are texts
                why = f"{share:.0%} of the {'files' if files else 'cells, which are bytes,'} begin as {what} do"
                return Claim(sure=sure, why=why, form={"files": True} if files else {})
        cells = [cell for cell in profile.sample if cell is not None]
        if cells and all(isinstance(cell, list) and all(isinstance(item, str) for item in cell) for cell in cells):
            return Claim(
                sure=0.55,
                why=f"lists of texts, read as one text each, such as '{max(map(joined, cells[:20]), key=len)[:30]}'",
            )
        if not cells or not all(isinstance(cell, str) for cell in cells):
            return None
        words = sum(len(cell[:2000].split()) for cell in cells) / len(cells)
        distinct = profile.distinct / max(1, profile.present)
        sure = 0.6 + 0.15 * (words >= 1.5) + 0.05 * (distinct > 0.5)
        return Claim(sure=sure, why=f"texts of {words:.1f} words, {profile.distinct} distinct")

    def read(self, cell: Any) -> np.ndarray:
        """UTF-8 bytes [n] of a text, in Unicode form NFC, without NUL, cut at ``max_chars``; blank is missing, [0].

        Numbers and dates are taken as they are written; lone surrogates become U+FFFD.

        Raises:
            BadCell: bytes that aren't UTF-8, or no text at all (a list of numbers, a mapping).
        """
        if self.files:
            if cell is not None and not isinstance(cell, (bytes, bytearray, memoryview)):
                raise BadCell(f"expected the bytes of a document, found {type(cell).__name__}")
            cell = None if cell is None else document_text(bytes(cell), self.max_chars)
        if isinstance(cell, (bytes, bytearray)):
            raw = bytes(cell[: 4 * self.max_chars])
            try:
                cell = raw.decode()
            except UnicodeDecodeError as error:
                if len(cell) <= len(raw) or error.start < len(raw) - 3:
                    raise BadCell("bytes that aren't UTF-8") from error
                cell = raw[: error.start].decode()
        if isinstance(cell, np.generic):
            cell = cell.item()
        if isinstance(cell, (list, tuple)) and all(item is None or isinstance(item, str) for item in cell):
            cell = joined(cell)
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return EMPTY
        if not isinstance(cell, str):
            if not isinstance(cell, (bool, int, float)) and not hasattr(cell, "isoformat"):
                raise BadCell(f"{type(cell).__name__} is no text")
            if isinstance(cell, int) and abs(cell) >= 2**63:
                raise BadCell("whole number beyond 64 bits")
            cell = str(cell)
        text = cell[: self.max_chars].replace("\x00", "")
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = unicodedata.normalize("NFC", text)
        return np.frombuffer(text.encode(), np.uint8) if text.strip() else EMPTY

    def learn(self, cells: Sequence[np.ndarray]) -> None:
        self.learn_together({"": (self, cells)})

    @classmethod
    def learn_together(cls, columns: dict[str, tuple[Modality, Sequence[np.ndarray]]]) -> None:
        """Fit one vocabulary to all columns, as large as the largest asked for; the same cells give the same one.

        The stem and the generator that they share have room for the longest, ``span``.
        """
        from tokenizers import Tokenizer, models, trainers

        texts = [modality for modality, _ in columns.values() if isinstance(modality, Text)]
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = _split()
        trainer = trainers.BpeTrainer(
            vocab_size=max(text.vocabulary for text in texts) - SPECIAL,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=_alphabet(),
            max_token_length=MAX_TOKEN_BYTES,
        )
        bpe.train_from_iterator(_some([cells for _, cells in columns.values()]), trainer)
        merges, span = _merges(bpe), max(text.length for text in texts)
        for text in texts:
            text._set(merges)
            text.span = span

    def _set(self, merges: list[list[str]]) -> None:
        """Set the tokenizer to some merges: single bytes first, then each merge in order."""
        from tokenizers import Tokenizer, decoders, models

        words = dict.fromkeys([*_alphabet(), *(left + right for left, right in merges)])
        self.merges, self.words = merges, list(words)
        ids = {word: i for i, word in enumerate(words)}
        self._bpe = Tokenizer(models.BPE(vocab=ids, merges=[(left, right) for left, right in merges]))
        self._bpe.pre_tokenizer, self._bpe.decoder = _split(), decoders.ByteLevel()

    def prepare(self, read: np.ndarray) -> np.ndarray:
        """Ids of UTF-8 bytes, int32 [1..length].

        With a backbone these and its features as bytes, or the text itself where the backbone is tuned.
        """
        if self.encoder is None:
            return self.ids(read)
        (ready,) = self.prepare_all([read])
        assert isinstance(ready, np.ndarray)  # no text is refused
        return ready

    def ids(self, read: np.ndarray) -> np.ndarray:
        """Ids of UTF-8 bytes, int32 [1..length]. A space is put before the text: a first word is like any other."""
        start = read.tobytes()[: self.length * MAX_TOKEN_BYTES].decode("utf-8", "ignore")  # no token lies further
        ids = self._bpe.encode(f" {start}").ids[: self.length]
        return np.array(ids, np.int32) + SPECIAL

    def prepare_all(self, cells: Sequence[np.ndarray], keep: bool = True) -> list[np.ndarray | BadCell]:
        from sensorium.backbones import features

        if self.encoder is None:
            return super().prepare_all(cells)
        texts = [cell.tobytes()[: self.length * MAX_TOKEN_BYTES].decode("utf-8", "ignore") for cell in cells]
        seen = (
            features(self.encoder, texts, keep)
            if self.tuning is None
            else [np.frombuffer(text.encode(), np.uint8) for text in texts]
        )
        return [packed(self.ids(cell), found) for cell, found in zip(cells, seen, strict=True)]

    def own(self, cells: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Ids of prepared cells, int32."""
        return list(cells) if self.encoder is None else [unpacked(cell)[0] for cell in cells]

    def encoded(self, encoder: Backbone, cells: Sequence[np.ndarray]) -> Cells:
        """Prepared cells as the encoder's stem takes them."""
        from sensorium.modalities._stems.encoder import collate_features

        seen = [unpacked(cell)[1] for cell in cells]
        if self.tuning is None:
            return collate_features([cell.view(np.float16).reshape(-1, encoder.width) for cell in seen])
        return encoder.batch([cell.tobytes().decode() for cell in seen])

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        """``ids`` int64 [n, tokens], padded with 0, and ``length`` [n].

        With a backbone also ``features`` and their mask ``there``, or the backbone's inputs.
        """
        import torch

        from sensorium.nn.shape_buckets import recurring

        seen = {} if self.encoder is None else self.encoded(self.encoder, cells)
        cells = self.own(cells)
        lengths = np.array([len(cell) for cell in cells], np.int64)
        ids = np.zeros((len(cells), min(recurring(int(lengths.max(initial=1))), self.length)), np.int64)
        if len(cells):
            ids[np.arange(ids.shape[1]) < lengths[:, None]] = np.concatenate(cells)
        return {"ids": torch.from_numpy(ids), "length": torch.from_numpy(lengths), **seen}

    def augment(self, cells: Cells, generator: torch.Generator) -> Cells:
        """Word dropout: each token is left out at random."""
        from sensorium.modalities._stems.text import dropped

        if self.dropout <= 0 or self.encoder is not None:
            return cells
        ids, lengths = dropped(cells["ids"], self.dropout, generator)
        return {**cells, "ids": ids, "length": lengths, "whole": cells["ids"]}

    def parts(self, read: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Words of the text, the first ``MAX_PARTS`` of them."""
        words = list(re.finditer(r"\S+", read.tobytes().decode("utf-8", "replace")))
        text = words[0].string if words else ""
        rest = (
            (word.group(), (text[: word.start()] + text[word.end() :].lstrip()).strip()) for word in words[:MAX_PARTS]
        )
        return [(word, self.read(other.encode() or None) if self.files else self.read(other)) for word, other in rest]

    def interpolate_parts(self, cell: np.ndarray, rest: Sequence[np.ndarray | None], keep: torch.Tensor) -> Cells:
        """Each word's tokens scaled in that measure, down to zero at their places; ``keep`` [n, tokens].

        Of an encoder's features what they lack without the word is taken away.
        """
        import torch

        if self.tuning is not None:
            raise UserError(
                "Words can't be faded in and out for an encoder that is learned further. Leave them out one by one "
                "instead, which is the default."
            )
        if self.encoder is not None:
            every = self.collate([cell, *(cell if other is None else other for other in rest)])["features"]
            every, there = every.to(keep.device), self.collate([cell])["there"].to(keep.device)
            gone = (every[1:] - every[:1]).flatten(1)
            here = every[:1] + ((1 - keep) @ gone).view(len(keep), *every.shape[1:])
            return {"features": here[:, : there.shape[1]], "there": there.expand(len(keep), -1)}
        cells = {key: value.to(keep.device) for key, value in self.collate([cell]).items()}
        owned = torch.from_numpy(owned_tokens(cell, rest, cells["ids"].shape[1])).to(keep.device)
        return {
            **{key: value.expand(len(keep), *value.shape[1:]) for key, value in cells.items()},
            "keep": 1 - ((1 - keep) @ owned).clamp(max=1),
        }

    def stem(self, width: int) -> Stem:
        from sensorium.backbones import WORDS
        from sensorium.modalities._stems.encoder import encoder_stem
        from sensorium.modalities._stems.text import TextStem
        from sensorium.nn.shape_buckets import recurring

        if self.encoder is not None:
            return encoder_stem(width, self.encoder, self.tuning, recurring(1 + WORDS), self.dropout)
        return TextStem(width, self.span, [b""] * SPECIAL + self.spelled(), self.buckets if self.spelling else 0)

    def shared(self) -> str | None:
        return None if self.encoder is not None else "files of text" if self.files else "text"

    @property
    def is_generable(self) -> bool:
        return not self.files

    def tokens(self) -> Tokens:
        """Ids with the end among them, hence one more than ``span``."""
        return Tokens(length=self.span + 1, vocabulary=len(self.words) + SPECIAL, ordered=True, end=END)

    def target(self, cells: Cells) -> torch.Tensor:
        from torch.nn import functional as F

        ids = F.pad(cells.get("whole", cells["ids"]), (0, 1))
        return ids.scatter(1, (ids != PAD).sum(1, keepdim=True), END)

    def decode(self, tokens: np.ndarray) -> str:
        """Text of ids up to the first end; bytes that make no character become U+FFFD."""
        ids = np.asarray(tokens).reshape(-1)
        ends = np.flatnonzero(ids == END)
        ids = ids[: ends[0]] if len(ends) else ids
        text = self._bpe.decode([int(i) - SPECIAL for i in ids if SPECIAL <= i < len(self.words) + SPECIAL])
        return text.removeprefix(" ")

    def spelled(self) -> list[bytes]:
        """Bytes of each token of the vocabulary, without the special ones."""
        back = dict(zip(_alphabet_of_bytes(), range(256), strict=True))
        return [bytes(back[letter] for letter in word) for word in self.words]

    def show(self, cell: Any) -> str:
        cell = joined(cell) if isinstance(cell, list) and all(isinstance(item, str) for item in cell) else cell
        text = bytes(cell[:2000]).decode("utf-8", "replace") if isinstance(cell, (bytes, bytearray)) else str(cell)
        text = "".join(letter if letter.isprintable() else " " for letter in text[:400])
        return html.escape(text[:300] + "…" if len(text) > 300 else text)

    def features(self, read: np.ndarray | None) -> np.ndarray:
        """Hashed words and letter trigrams, each as log(1 + count), then the log of characters and of words: [258]."""
        return hashed_counts(beginning(read, 8000))

    def terms(self, read: np.ndarray | None) -> np.ndarray | None:
        return hashed_terms(beginning(read, 4000))

    def sketch(self, cells: Sequence[np.ndarray]) -> np.ndarray:
        """Words and letter trigrams, each hashed to a place and a sign (Weinberger et al. 2009): [n, 256].

        Letters that are alike but for case, width or form (Unicode NFKC) are the same.
        """
        return sketches([unicodedata.normalize("NFKC", self.decode(cell)).casefold() for cell in self.own(cells)])

    def score(self, truth: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """``exact``: share that agree but for case and spaces; ``chrf``: chrF2 over all (Popović 2015), 0 to 1."""
        if not len(truth):
            return {}
        from sacrebleu.metrics import CHRF

        wanted, found = ([self.read(cell).tobytes().decode() for cell in cells] for cells in (truth, predicted))
        exact = sum(_folded(a) == _folded(b) for a, b in zip(wanted, found, strict=True)) / len(wanted)
        return {"exact": exact, "chrf": CHRF().corpus_score(found, [wanted]).score / 100}

    def state(self) -> dict[str, Any]:
        """Merges, to which bytes and order add the rest, and the longest length of the columns that share them."""
        return {"merges": self.merges, "span": self.span}

    def load_state(self, state: dict[str, Any]) -> None:
        self._set([list(pair) for pair in state["merges"]])
        self.span = int(state["span"])
