"""Synthetic conversations about a table: the command ``ask-data``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from sensorium.cli.files import write_whole
from sensorium.cli.output import note
from sensorium.core.errors import UserError


def write_conversations(
    source: str,
    out: Path,
    about: str | None,
    of: Sequence[str],
    each: int,
    kinds: str | None,
    keep: Sequence[str] | None,
    seed: int,
    pairs: bool = False,
    words: Path | None = None,
    language: str | None = None,
    rewordings: int = 4,
) -> None:
    """Write conversations, or preference pairs, about a table's training rows."""
    from sensorium.data.schema import infer
    from sensorium.dialogue.synthesis import ask_data, pair_data
    from sensorium.model import open_table

    if out.suffix != ".parquet":
        raise UserError(f"--out {out}: conversations are written as .parquet.")
    table = open_table(source)
    templates = wordings(words, language, rewordings, seed)
    made = (pair_data if pairs else ask_data)(
        table,
        infer(table),
        about=about,
        of=of,
        each=each,
        kinds=kind_weights(kinds),
        keep=keep,
        seed=seed,
        words=templates,
    )
    with write_whole(out) as part:
        pq.write_table(made, part, compression="zstd")
    if pairs:
        note(f"{out}: {made.num_rows:,} pairs of a right and a wrong answer about the training rows of '{table.name}'")
        return
    talks = [
        messages for messages in made.column("conversation").to_pylist() if messages
    ]  # the last rows may only be there to be looked at
    answers = sum(map(len, talks)) // 2
    note(f"{out}: {len(talks):,} conversations with {answers:,} answers about the training rows of '{table.name}'")


def wordings(words: Path | None, language: str | None, count: int, seed: int) -> dict[str, tuple[str, ...]]:
    """Question templates: ours, those of a file, and a language model's.

    Those that a language model finds are written to the file where it isn't there yet.

    Raises:
        UserError: see ``dialogue.templates``, or the file is there and a language model was named, too.
    """
    from sensorium.dialogue.templates import WORDS, merge_wordings, paraphrase_templates, read_words

    if words is not None and language is not None and words.exists():
        raise UserError(
            f"--words {words} is there already, so --reword has nothing to do. Leave one of them out, or "
            "name another file."
        )
    if language is None:
        return dict(WORDS) if words is None else merge_wordings(read_words(words))
    found = paraphrase_templates(
        language, count, seed, lambda kind, texts: note(f"  {kind}: {' '.join(texts) or 'no other words'}")
    )
    if words is not None:
        with write_whole(words) as part:
            part.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    return merge_wordings(found)


def kind_weights(given: str | None) -> dict[str, float] | None:
    """Sampling weights of question kinds, from ``name:4,choice``.

    Raises:
        UserError: a number that is none.
    """
    if given is None:
        return None
    result = {}
    for part in given.split(","):
        kind, _, often = part.strip().partition(":")
        try:
            result[kind] = float(often or 1)
        except ValueError:
            raise UserError(f"--kinds {given}: '{often}' is no number. Write KIND:OFTEN, as name:4,choice:2.") from None
        if not result[kind] > 0:
            raise UserError(
                f"--kinds {given}: {kind} is asked {often} times as often. Give a number above 0, or leave it out."
            )
    return result
