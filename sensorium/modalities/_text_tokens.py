"""Helpers of the byte-level tokenizer, and of a text's words."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers

TERMS, PRIME = 1 << 20, np.uint64(0x9E3779B97F4A7C15)
"""Places of hashed terms, and by which they are mixed."""
HASHED = 128
"""Buckets for words, and as many for letter trigrams, in the baselines' features."""
SKETCH_SIZE = 256
"""Buckets for words and letter trigrams together in a sketch."""
MAX_LEARNED_BYTES = 16_000_000
"""Bytes of text that the vocabulary is learned from, at most."""


def agree(one: np.ndarray, other: np.ndarray) -> bool:
    """True if ids are the same as far as both go."""
    both = min(len(one), len(other))
    return bool((one[:both] == other[:both]).all())


def packed(ids: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Ids int32 [k] and another array as one array of bytes, uint8."""
    return np.concatenate(
        [
            np.array([len(ids)], np.int32).view(np.uint8),
            np.ascontiguousarray(ids).view(np.uint8),
            np.ascontiguousarray(seen).view(np.uint8).ravel(),
        ]
    )


def unpacked(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of ``packed``; the other array as bytes, uint8."""
    raw = np.ascontiguousarray(cell).tobytes()
    count = int(np.frombuffer(raw, np.int32, 1)[0])
    return np.frombuffer(raw, np.int32, count, 4), np.frombuffer(raw, np.uint8, offset=4 + 4 * count)


def _words_and_trigrams(text: str) -> tuple[list[str], list[str]]:
    """Words of a text, and its trigrams of letters, those at both ends with a space."""
    words = text.split()
    spaced = f" {' '.join(words)} "
    return words, [spaced[i : i + 3] for i in range(len(spaced) - 2)]


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _split() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _alphabet() -> list[str]:
    """Letters that stand for the 256 bytes, sorted."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _alphabet_of_bytes() -> list[str]:
    """Letter of each byte 0…255: printable ones stand for themselves, the others follow from U+0100."""
    own = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    other = iter(range(0x100, 0x200))
    return [chr(byte if byte in own else next(other)) for byte in range(256)]


def _merges(bpe: Tokenizer) -> list[list[str]]:
    merges = json.loads(bpe.to_str())["model"]["merges"]
    return [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in merges]


def _some(columns: list[Sequence[np.ndarray]]) -> Iterator[str]:
    """Texts of all columns in turn, until enough bytes are read."""
    read = 0
    for row in range(max(map(len, columns), default=0)):
        for cells in columns:
            if row < len(cells) and len(cells[row]):
                yield " " + cells[row].tobytes().decode()
                read += len(cells[row])
        if read > MAX_LEARNED_BYTES:
            return


def joined(texts: Sequence[str | None]) -> str:
    """List of texts as one, separated by semicolons."""
    return "; ".join(text for text in texts if text)


def beginning(read: np.ndarray | None, most: int) -> str | None:
    """Text of a read cell's first bytes, in small letters; None where the cell is missing or empty."""
    return read.tobytes()[:most].decode("utf-8", "ignore").lower() if read is not None and len(read) else None


def hashed_counts(text: str | None) -> np.ndarray:
    """Log counts of a text's hashed words and trigrams, then those of characters and words: [2 · ``HASHED`` + 2]; NaN
    where it is missing."""
    if text is None:
        return np.full(2 * HASHED + 2, np.nan)
    words, grams = _words_and_trigrams(text)
    places = [zlib.crc32(word.encode()) % HASHED for word in words]
    places += [HASHED + zlib.crc32(gram.encode()) % HASHED for gram in grams]
    counts = np.bincount(places, minlength=2 * HASHED + 2).astype(np.float64)
    counts[-2:] = len(grams), len(words)
    return np.log1p(counts)


def hashed_terms(text: str | None) -> np.ndarray | None:
    """Places of a text's terms among ``TERMS``: words, pairs of words, and runs of three to five letters."""
    if text is None:
        return None
    words = text.split()
    codes = np.array([zlib.crc32(word.encode()) for word in words], np.uint64)
    letters = np.frombuffer(f" {' '.join(words)} ".encode("utf-32-le"), np.uint32).astype(np.uint64)
    places = [codes * PRIME]
    if len(codes) > 1:
        places.append((codes[:-1] * PRIME + codes[1:]) * PRIME + np.uint64(1))
    for length in range(3, 6):
        if len(letters) >= length:
            mixed = np.full(len(letters) - length + 1, length, np.uint64)
            for start in range(length):
                mixed = mixed * PRIME + letters[start : len(letters) - length + 1 + start]
            places.append(mixed * PRIME)
    return (np.concatenate(places) >> np.uint64(40)).astype(np.int64) & (TERMS - 1)


def sketches(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of texts by feature hashing of their words and trigrams, float32 [n, ``SKETCH_SIZE``]."""
    result = np.zeros((len(texts), SKETCH_SIZE), np.float32)
    for row, text in zip(result, texts, strict=True):
        words, grams = _words_and_trigrams(text)
        hashed = np.array([zlib.crc32(part.encode()) for part in [f"={word}" for word in words] + grams], np.int64)
        np.add.at(row, hashed % SKETCH_SIZE, 1.0 - 2.0 * (hashed >> 31))
    return result / np.linalg.norm(result, axis=1, keepdims=True).clip(1e-6)


PAD, END, SPECIAL = 0, 1, 3  # id 2 is kept free


def owned_tokens(cell: np.ndarray, rest: Sequence[np.ndarray | None], length: int) -> np.ndarray:
    """Tokens of a text that belong to each of its words, float32 [words, length], 1 where they do.

    Args:
        cell: ids of the text. rest: ids of the text without each word; None where nothing was left.
    """
    owned, end = np.zeros((len(rest), length), np.float32), 0
    for word, other in enumerate(rest):
        left = np.zeros(0, cell.dtype) if other is None else other
        both = min(len(cell), len(left))
        start = next((i for i in range(both) if cell[i] != left[i]), both)
        # Both may be cut at ``length``.
        lengths = range(max(0, len(cell) - len(left)), len(cell) - start + 1)
        count = next((gone for gone in lengths if agree(cell[start + gone :], left[start:])), 0)
        # Of equal words next to each other it is the one whose turn it is.
        while start > end and count and cell[start - 1] == cell[start + count - 1]:
            start -= 1
        owned[word, start : start + count] = 1
        end = start + count
    return owned
