"""Talking: a conversation goes on, over the cells of rows that it refers to, word by word.

It knows networks whose trunk talks and rows that are read, no terminal and no server.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensorium.core.attachments import assign_cell
from sensorium.core.errors import BadCell, UserError
from sensorium.core.registry import name_of
from sensorium.generators.autoregressive import draw
from sensorium.inference.rows import Rows
from sensorium.modalities.conversation import last_said, messages_of
from sensorium.network.network import Network
from sensorium.network.packed_conversation import PackedConversation, lost
from sensorium.nn.platt import MAX_ANSWER_TOKENS
from sensorium.nn.precision import autocast

AT_ONCE = 32
"""Conversations that are gone on with side by side."""
LONGEST = 256
"""Tokens of an answer, at most, where nothing is said."""
CELL = 200
"""Letters of a cell that are told of a row that was looked up."""
UNSURE = "I don't know."
"""What is said where it isn't sure enough."""


@dataclasses.dataclass
class Reply:
    """What the assistant said.

    Attributes:
        text: in words. score: log-probability of it, with its end. tokens: how many, the end included. ended: it came to its end, and wasn't cut off.
        prompt: tokens before it, those of cells included. ids: what was said, with its end. recalled: what known rows that are like what is shown are called, the likest first; near: how near the nearest is (``nn.online_memory``).
        right: how often answers as sure as this one were right on conversations held out, 0 to 1 (``nn.platt``); None where that isn't known: of long answers, and of
            those about nothing shown. unsure: what it would have said, where that was too seldom right and ``UNSURE`` is said instead. cited: rows of an index that are like
            what was shown, or that were looked up for a question about nothing shown: their numbers (``row``), how near they are (``score``) and their plain cells.
    """

    text: str
    score: float
    tokens: int
    ended: bool
    prompt: int
    recalled: list[str] = dataclasses.field(default_factory=list)
    near: tuple[float, float] = (float("nan"), float("nan"))
    ids: list[int] = dataclasses.field(default_factory=list, repr=False)
    right: float | None = None
    unsure: str = ""
    cited: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def sureness(self) -> float:
        """The geometric mean of its tokens' probabilities, 0 to 1."""
        return float(np.exp(self.score / max(self.tokens, 1)))


def talker(network: Network) -> str:
    """The column of conversations that a network learned.

    Raises:
        UserError: it learned none.
    """
    if not network.dialogue_columns:
        raise UserError(
            "This model hasn't learned to talk. Build conversations and fit on them: sensorium ask-data TABLE --out conversations.parquet; "
            "sensorium fit conversations.parquet trunk=causal_lm trunk.path=FOLDER"
        )
    return network.dialogue_columns[0]


def seen_in(
    messages: Sequence[Any], network: Network, taken: Sequence[Mapping[str, Any]] = ()
) -> tuple[list[Any], list[dict[str, Any]]]:
    """Messages in OpenAI's form whose pictures, sounds and clips have become references, and these as rows of cells: the first picture is a cell of the first column of pictures, the second of the
    second, and where there are no more columns of the kind the next one is a cell of the first again, in a row of its own.

    Args:
        messages: parts may be ``image_url`` (a data URL), ``input_audio``, or ``image``, ``audio``, ``video`` with bytes, a path or a PIL picture. taken: rows of cells that are there already.

    Raises:
        UserError: a kind of which the model has no column, more than it can look at in one conversation, an address, or what is no media.
    """
    columns: dict[str, list[str]] = {}
    for column, modality in network.modalities.items():
        columns.setdefault(name_of(modality), []).append(column)
    rows, result = [dict(row) for row in taken] or [{}], []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), (list, tuple)):
            result.append(message)
            continue
        parts = []
        for part in message["content"]:
            found = media(part, number) if isinstance(part, Mapping) and not part.get("column") else None
            if found is None:
                parts.append(part)
                continue
            kind, cell = found
            try:
                row, column = assign_cell(kind, columns.get(kind, ()), rows)
            except UserError as error:
                raise UserError(f"Message {number}: {error}") from None
            rows[row][column] = cell
            parts.append({"type": "cell", "column": column, "row": row})
        result.append({**message, "content": parts})
    return result, rows


def to_answer(messages: Any) -> list[Any]:
    """Messages in any layout as roles with parts, where the assistant is to speak next.

    Raises:
        UserError: they are in no order, or there is nothing to answer.
    """
    try:
        given = messages_of(messages, False)
    except BadCell as error:
        raise UserError(f"The conversation can't be gone on with: {error}.") from error
    if given[-1][0] not in ("user", "tool"):
        raise UserError(
            f"The last message is by '{given[-1][0]}', so there is nothing to answer. End with one by the user."
        )
    return given


def media(part: Mapping[str, Any], number: int) -> tuple[str, Any] | None:
    """The kind and the cell that a message's part brings; None where it brings text.

    Raises:
        UserError: an address, or a data URL that is none.
    """
    kind = str(part.get("type", "text"))
    if kind in ("image_url", "audio_url", "video_url"):
        given = part.get(kind)
        address = str(given.get("url", "") if isinstance(given, Mapping) else given)
        found = re.fullmatch(r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,(.*)", address, re.S)
        if found is None:
            raise UserError(
                f"Message {number}: '{address[:60]}' is no data URL (data:image/png;base64,…). Nothing is fetched from addresses here."
            )
        return kind.removesuffix("_url"), decoded(found[1], number)
    if kind == "input_audio" and isinstance(part.get("input_audio"), Mapping):
        return "audio", decoded(str(part["input_audio"].get("data", "")), number)
    if kind in ("image", "audio", "video") and part.get(kind) is not None:
        cell = part[kind]
        if isinstance(cell, (str, Path)):
            try:
                cell = Path(cell).read_bytes()
            except OSError as error:
                raise UserError(f"Message {number}: '{cell}' can't be read: {error.strerror}.") from error
        elif hasattr(cell, "save"):  # a PIL picture
            kept = io.BytesIO()
            cell.save(kept, "PNG")
            cell = kept.getvalue()
        return kind, cell
    return None


def decoded(text: str, number: int) -> bytes:
    """Base64 to bytes.

    Raises:
        UserError: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UserError(f"Message {number} brings media that are no base64: {error}.") from error


def prompts(network: Network, conversations: Sequence[Sequence[Any]]) -> list[list[int]]:
    """Ids of conversations, as ``messages_of`` gives them, up to where the assistant is to speak.

    Raises:
        UserError: one is too long or in no order that the language model takes.
    """
    modality, result = network.modalities[talker(network)], []
    for number, messages in enumerate(conversations, 1):
        try:
            result.append(modality.shortened([[role, list(parts)] for role, parts in messages], answer=True)[0])
        except BadCell as error:
            raise UserError(f"Conversation {number}: {error}") from error
    return result


@torch.inference_mode()
def reply(
    network: Network,
    rows: Rows,
    which: Sequence[int],
    conversations: Sequence[Sequence[Any]],
    *,
    longest: int = LONGEST,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    heard: Callable[[int, str], None] | None = None,
) -> list[Reply]:
    """Go on with conversations, each about a row.

    Args:
        rows: read; which: for each conversation the row whose cells it refers to. longest: tokens of an answer at most.
        temperature, top_k, top_p: see ``generators.autoregressive``. heard: is told each piece of text as it is said, with the number of its conversation.

    Raises:
        UserError: the network doesn't talk, or a conversation is too long.
    """
    known = prompts(network, conversations)
    result: dict[int, Reply] = {}
    for some in batches(known):
        for number, said in zip(
            some,
            go_on(
                network,
                rows,
                [which[n] for n in some],
                [known[n] for n in some],
                longest,
                temperature,
                top_k,
                top_p,
                generator,
                heard and (lambda at, text, some=some: heard(some[at], text)),
            ),
            strict=True,
        ):
            result[number] = said
    return [result[number] for number in range(len(known))]


def batches(known: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Which conversations go side by side: of about one length, and none that refers to a cell beside one that refers to none, which may be answered otherwise."""
    for refers in (False, True):
        order = sorted(
            (number for number, ids in enumerate(known) if any(i < 0 for i in ids) == refers),
            key=lambda number: len(known[number]),
        )
        yield from (order[start : start + AT_ONCE] for start in range(0, len(order), AT_ONCE))


def as_heard(network: Network, refers: bool) -> contextlib.AbstractContextManager[None]:
    """A context in which the language model is tuned, or, where a conversation refers to no cell and none such was learned, as it was."""
    return contextlib.nullcontext() if as_tuned(network, refers) else network.trunk.as_it_was()


def as_tuned(network: Network, refers: bool) -> bool:
    """Whether a conversation that refers to some cell, or to none, is answered by the language model as it was tuned."""
    return refers or network.trunk.always or network.modalities[talker(network)].bare


@torch.inference_mode()
def go_on(
    network: Network,
    rows: Rows,
    which: Sequence[int],
    ids: Sequence[list[int]],
    longest: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    heard: Callable[[int, str], None] | None = None,
    each: int = 1,
) -> list[Reply]:
    """As ``reply``, of conversations as ids up to where the assistant is to speak, side by side; ``each``: answers to each of them, drawn one beside the other."""
    column, trunk = talker(network), network.trunk
    language, device = trunk.language, rows.device
    cells = network.modalities[column].collate([np.array([*line, *[0] * len(line)], np.int32) for line in ids])
    encoded = {c: rows.encoded(c) for c in rows.cells if c != column and rows.has(c).any()}
    made = network.pack_conversations(column, encoded, cells, torch.tensor(list(which)))
    tokens, there, groups = made.padded()
    length = there.sum(1)
    with autocast(rows.precision, device), as_heard(network, any(i < 0 for line in ids for i in line)):
        hidden, state = trunk.hear(tokens, there, groups)
        last = hidden[torch.arange(len(ids), device=device), length - 1]
        if each > 1:
            own = torch.arange(len(ids), device=device).repeat_interleave(each)
            state, last, length, ids = (
                trunk.reorder(state, own),
                last[own],
                length[own],
                [line for line in ids for _ in range(each)],
            )
            made.recalled, made.near = (
                [words for words in made.recalled for _ in range(each)],
                made.near.repeat(each, 0),
            )
        texts, every = [StreamedText(language) for _ in ids], [[] for _ in ids]
        live, score, said, ended = (
            torch.arange(len(ids), device=device),
            torch.zeros(len(ids), device=device),
            torch.zeros(len(ids), dtype=torch.long),
            torch.zeros(len(ids), dtype=torch.bool),
        )
        for step in range(longest):
            logits = trunk.logits(last, state)
            new = logits.argmax(-1) if temperature == 0 else draw(logits / temperature, top_k, top_p, generator)
            score[live] += logits.log_softmax(-1).gather(1, new.unsqueeze(1)).squeeze(1)
            over = torch.tensor([int(i) in language.special for i in new.tolist()])
            said[live.cpu()] += 1
            ended[live.cpu()[over]] = True
            for number, i, done in zip(live.tolist(), new.tolist(), over.tolist(), strict=True):
                every[number].append(i)
                more = "" if done else texts[number].add(i)
                if more and heard:
                    heard(number, more)
            going = (~over).nonzero().squeeze(1).to(device)
            if not len(going) or step + 1 == longest:
                break
            if len(going) < len(live):
                state, live, new = trunk.reorder(state, going), live[going], new[going]
            hidden, state = trunk.continued(state, trunk.words(new.unsqueeze(1)))
            last = hidden[:, -1]
    for number, text in enumerate(texts):
        if (more := text.rest()) and heard:
            heard(number, more)
    result = [
        Reply(text.text.strip(), float(s), int(n), bool(e), int(k), r, tuple(near), own)
        for text, s, n, e, k, r, near, own in zip(
            texts, score, said, ended, length, made.recalled, made.near.tolist(), every, strict=True
        )
    ]
    known = network.modalities[column].sureness
    for answer, line in zip(result, ids, strict=True):
        if (
            known is not None
            and not trunk.foreign
            and answer.ended
            and answer.tokens <= MAX_ANSWER_TOKENS
            and any(i < 0 for i in line)
        ):
            answer.right = float(known.right(np.array([signs(answer, line, language)]))[0])
    return result


def signs(answer: Reply, before: Sequence[int], language: Any) -> list[float]:
    """What tells how often such answers are right: the log-probability of all of it, and its mean over tokens, for a name of many tokens is less likely than "Yes."; how near what was asked about is to
    what is known, for a model is as sure of things that it never saw; and whether it says what stood in the question (one of those to choose from), or what was looked up, and which of these.

    Args:
        before: ids up to it.
    """
    said, called = folded(answer.text), [folded(words) for words in answer.recalled]
    asked = folded(language.text([i for i in before if i >= 0]))
    copied = bool(said) and re.search(rf"(?<!\w){re.escape(said)}(?!\w)", asked) is not None
    return [
        answer.score,
        answer.score / max(answer.tokens, 1),
        *answer.near,
        float(copied),
        1 / (1 + called.index(said)) if said in called else 0.0,
    ]


def folded(text: str) -> str:
    """An answer without what doesn't count: case, spaces, a full stop."""
    return " ".join(text.casefold().split()).rstrip(".!")


def in_words(row: Mapping[str, Any]) -> str:
    """The plain cells of a row that was found."""
    return "; ".join(
        f"{column}: {str(cell)[:CELL]}"
        for column, cell in row.items()
        if column not in ("row", "score") and isinstance(cell, (str, int, float)) and cell != ""
    )


def with_rows(messages: Sequence[Any], found: Sequence[Mapping[str, Any]]) -> list[Any]:
    """A conversation whose last question comes after the rows that were looked up for it, in words; cells that no words say are left out."""
    lines = [f"Row {row['row']}: {in_words(row)}" for row in found]
    role, parts = messages[-1]
    return [*messages[:-1], (role, ["Known rows:\n" + "\n".join(lines) + "\n\n", *parts])] if lines else list(messages)


def told_before(network: Network, messages: Sequence[Any], found: Sequence[Mapping[str, Any]]) -> list[Any]:
    """As ``with_rows``, of so many rows as the model has room for."""
    for count in range(len(found), 0, -1):
        given = with_rows(messages, found[:count])
        try:
            prompts(network, [given])
            return given
        except UserError:
            continue
    return list(messages)


def unless_unsure(answer: Reply, sure: float) -> Reply:
    """An answer, or ``UNSURE`` where such answers were right less often than ``sure``."""
    return (
        dataclasses.replace(answer, text=UNSURE, unsure=answer.text)
        if answer.right is not None and answer.right < sure
        else answer
    )


@torch.inference_mode()
def weigh(network: Network, rows: Rows, which: Sequence[int], conversations: Sequence[Sequence[Any]]) -> np.ndarray:
    """Log-probability [n] of what the assistant says last in each conversation, of which each is about a row.

    Raises:
        UserError: as ``reply``.
    """
    result = np.zeros(len(conversations))
    for some, refers, made in last_answers(network, rows, which, conversations):
        with autocast(rows.precision, rows.device), as_heard(network, refers):
            result[some] = -lost(network.trunk, made)[0].float().cpu().numpy()
    return result


def last_answers(
    network: Network, rows: Rows, which: Sequence[int], conversations: Sequence[Sequence[Any]]
) -> Iterator[tuple[list[int], bool, PackedConversation]]:
    """Conversations of which what the assistant says last alone is said, some at once: their numbers, whether they refer to cells, and themselves.

    Raises:
        UserError: one is too long, or in no order that the language model takes.
    """
    column = talker(network)
    modality, encoded, known = (
        network.modalities[column],
        rows.encoded_columns([c for c in rows.cells if c != column]),
        [],
    )
    for messages in conversations:
        try:
            known.append(modality.shortened([[role, list(parts)] for role, parts in messages]))
        except BadCell as error:
            raise UserError(f"A conversation can't be weighed: {error}") from error
    for some in batches([ids for ids, _ in known]):
        made = network.pack_conversations(
            column,
            encoded,
            modality.collate([last_said(*known[number]) for number in some]),
            torch.tensor([which[number] for number in some]),
        )
        yield some, any(i < 0 for number in some for i in known[number][0]), made


def choose(network: Network, rows: Rows, columns: Sequence[str], question: str, options: Sequence[str]) -> np.ndarray:
    """Probabilities [n, options] of answers to a question about each row, which need be none that were ever learned: how likely the language model is to say each, beside the others.

    Args:
        columns: what is shown of a row, where it has it.

    Raises:
        UserError: as ``reply``, fewer than two options, or two that are alike.
    """
    if len(options) < 2 or len(set(options)) < len(options):
        raise UserError(
            f"Answers to choose among are at least two, and no two alike; given were: {', '.join(options) or 'none'}."
        )
    if not rows.count:
        return np.zeros((0, len(options)))
    shown = [[{"column": c} for c in columns if rows.has(c)[row]] for row in range(rows.count)]
    asked = [[("user", [*cells, question]), ("assistant", [option])] for cells in shown for option in options]
    said = weigh(network, rows, [row for row in range(rows.count) for _ in options], asked).reshape(
        rows.count, len(options)
    )
    chance = np.exp(said - said.max(1, keepdims=True))
    return chance / chance.sum(1, keepdims=True)


@dataclasses.dataclass
class TextAttribution:
    """How much likelier an answer is with a cell, or a part of one, than without it, in nats."""

    column: str
    part: str
    nats: float


def why(network: Network, rows: Rows, row: int, messages: Sequence[Any], answer: str) -> list[TextAttribution]:
    """What of the cells that a conversation refers to an answer came from: each left out, and then each of its parts, the weightiest first.

    Raises:
        UserError: as ``reply``.
    """
    whole = [*messages, ("assistant", [answer])]
    names = {name_of(network.modalities[c]): c for c in reversed(network.columns)} | {c: c for c in network.columns}
    told = dict.fromkeys(
        (names.get(part["column"], ""), row + part.get("row", 0))
        for _, parts in messages
        for part in parts
        if isinstance(part, dict)
    )
    base, result = float(weigh(network, rows, [row], [whole])[0]), []
    for column, at in told:
        if column not in rows.cells or at >= rows.count or not rows.has(column)[at]:
            continue
        called = f"{column} {at - row + 1}" if at > row else column
        alone = rows.with_cells(column, np.array([at]), [None])
        result.append(TextAttribution(called, "", base - float(weigh(network, alone, [row], [whole])[0])))
        parts = network.modalities[column].parts(rows.read[column][at])
        ready = network.modalities[column].prepare_all([cell for _, cell in parts], keep=False) if parts else []
        able = [(name, cell) for (name, _), cell in zip(parts, ready, strict=True) if not isinstance(cell, BadCell)]
        if not able:
            continue
        span = rows.count - row  # the conversation's rows once for each part, one of them without it
        others = Rows(network, {c: cells[row:] * len(able) for c, cells in rows.cells.items()}, {}, span * len(able))
        for number, (_, cell) in enumerate(able):
            others.cells[column][number * span + at - row] = cell
        others.precision = rows.precision
        without = weigh(network, others, [number * span for number in range(len(able))], [whole] * len(able))
        result += [
            TextAttribution(called, name, base - float(value)) for (name, _), value in zip(able, without, strict=True)
        ]
    return sorted(result, key=lambda because: (because.part != "", -because.nats))


class StreamedText:
    """Ids as they are said, and their text so far; half a character waits for its other half."""

    def __init__(self, language: Any) -> None:
        self.language, self.ids, self.text = language, [], ""

    def add(self, i: int) -> str:
        """One more id; what it adds to the text."""
        self.ids.append(i)
        whole = self.language.text(self.ids)
        if whole.endswith("\ufffd"):
            return ""
        more, self.text = whole[len(self.text) :], whole
        return more

    def rest(self) -> str:
        """What still waited."""
        whole = self.language.text(self.ids)
        more, self.text = whole[len(self.text) :], whole
        return more
