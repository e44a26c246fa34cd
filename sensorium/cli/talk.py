"""What ``chat`` and ``ask-data`` do."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from sensorium.cli.files import asked_for
from sensorium.cli.show import note
from sensorium.core.attachments import deal
from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import name_of
from sensorium.data.table import Table

if TYPE_CHECKING:
    from sensorium.model import Model
    from sensorium.query import QueryEngine
    from sensorium.search.index import Index

HELP = """/image FILE, /audio FILE, /video FILE: show it with the next question
/row N: talk about row N of the table (--table); /cell COLUMN=VALUE or COLUMN=@FILE: give a cell of your own
/ask QUESTION: of all rows of the table (as "which group has the oldest ones?"; such questions about nothing shown are taken so), or a SELECT over rows
/why: what the last answer came from; /like: rows of the index that are like what is shown
/adapter NAME: talk with other low-rank updates (--adapter), or again with the run's own
/save FILE: keep the conversation as JSON; /new: begin anew; /help; /quit"""
KINDS = ("image", "audio", "video")


class ChatCommand:
    """One conversation in the terminal.

    Args:
        say: prints a line; stream: prints a piece of an answer.
    """

    def __init__(
        self,
        model: Model,
        table: Table | None,
        index: Index | None,
        say: Callable[[str], None],
        stream: Callable[[str], None],
        **how: Any,
    ) -> None:
        self.model, self.table, self.index, self.say, self.stream, self.how = model, table, index, say, stream, how
        self.asker: QueryEngine | None = None
        self.new()

    def new(self) -> None:
        """Begin anew."""
        self.messages: list[dict[str, Any]] = []
        self.cells: list[dict[str, Any]] = [{}]
        self.waiting: list[dict[str, Any]] = []
        self.meant = ""  # what the last answer was, or would have been

    def hear(self, line: str) -> bool:
        """One line by the user; False where it ends the talk. What is wrong is said, and the talk goes on."""
        command, _, rest = line.strip().partition(" ")
        try:
            if command in ("/quit", "/exit", "/q"):
                return False
            if command.startswith("/"):
                self.command(command[1:], rest.strip())
            elif line.strip():
                self.ask(line.strip())
        except UserError as error:
            self.say(f"Error: {error}")
        except OSError as error:
            self.say(f"Error: {rest}: {error.strerror or error}")
        return True

    def command(self, name: str, rest: str) -> None:
        """What isn't said to the model."""
        if name in KINDS:
            cell = Path(rest).expanduser().read_bytes()
            at, column = deal(
                name, [c for c, m in self.model.network.modalities.items() if name_of(m) == name], self.cells
            )
            self.show(column, cell, at)
        elif name == "cell":
            column, equals, value = rest.partition("=")
            self.model.check([column])
            if not equals:
                raise UserError("Write /cell COLUMN=VALUE, or COLUMN=@FILE.")
            cell = Path(value[1:]).expanduser().read_bytes() if value.startswith("@") else value
            self.show(column, cell, deal(name_of(self.model.network.modalities[column]), [column], self.cells)[0])
        elif name == "row":
            if self.table is None:
                raise UserError("There is no table. Give one with --table.")
            if not rest.isdigit() or int(rest) >= self.table.rows:
                raise UserError(f"'{rest}' is no row of '{self.table.name}'. Rows are 0 to {self.table.rows - 1}.")
            self.new()
            row = self.table.take(np.array([int(rest)])).to_pylist()[0]
            media = [
                c
                for c, m in self.model.network.modalities.items()
                if row.get(c) is not None and (m.media or name_of(m) in ("series", "points"))
            ]
            for column in media[:1] or [
                c
                for c in self.model.columns
                if row.get(c) is not None and not self.model.network.modalities[c].is_dialogue
            ]:
                self.show(column, row[column])
        elif name == "ask":
            self.of_many(rest)
        elif name == "adapter":
            if rest:
                self.model.adapters.use(rest)
            self.say(
                ", ".join(
                    f"{one} (heard)" if one == self.model.adapters.active else one for one in self.model.adapters.names
                )
            )
        elif name == "why":
            self.why()
        elif name == "like":
            self.like()
        elif name == "save":
            with asked_for(Path(rest)) as part:
                part.write_text(json.dumps({"messages": self.messages}, ensure_ascii=False, indent=1), encoding="utf-8")
            self.say(f"Wrote {rest}")
        elif name == "new":
            self.new()
        elif name == "help":
            self.say(HELP)
        else:
            raise unknown(
                "command",
                f"/{name}",
                [
                    f"/{c}"
                    for c in (*KINDS, "row", "cell", "ask", "adapter", "why", "like", "save", "new", "help", "quit")
                ],
            )

    def show(self, column: str, cell: Any, row: int = 0) -> None:
        """A cell that comes with the next question; after others of its kind in a row of its own."""
        self.cells[row][column] = cell
        self.waiting.append({"type": "cell", "column": column, "row": row})
        self.say(f"({column} is shown with your next question)")

    def of_many(self, question: str) -> None:
        """A question about many rows of the table, the query that it became, and its answer."""
        from sensorium.cli.show import print_rows

        found = self.asks().answer(question)
        self.say(found.sql)
        print_rows(found.rows)
        for other in found.others:
            self.say(f"(or was this meant: /ask {other})")
        told = (
            "; ".join(
                ", ".join(f"{name} {cell}" for name, cell in row.items() if cell is not None)
                for row in found.rows.slice(0, 10).to_pylist()
            )
            or "nothing"
        )
        self.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": told}]
        self.meant = ""  # it came from the query

    def asks(self) -> QueryEngine:
        """Who answers questions about many rows of the table."""
        if self.table is None:
            raise UserError("There is no table to ask about. Give one with --table.")
        if self.asker is None:
            from sensorium.query import QueryEngine

            self.asker = QueryEngine.knowing(self.table, {})
        return self.asker

    def ask(self, text: str) -> None:
        """A question, and its answer as it is said."""
        if self.table is not None and not any(self.cells) and self.asks().about_many(text):
            with contextlib.suppress(UserError):  # who isn't understood by the table is heard by the model
                self.of_many(text)
                return
        content = [*self.waiting, {"type": "text", "text": text}]
        asked, started, first = [*self.messages, {"role": "user", "content": content}], time.perf_counter(), []

        def heard(piece: str) -> None:
            if not first:
                first.append(time.perf_counter() - started)
            self.stream(piece)

        from sensorium.dialogue.chat import in_words

        said = self.model.chat(asked, cells=self.cells, heard=heard, index=self.index, **self.how)
        self.say("")
        for row in said.cited:
            self.say(f"  [{row['row']}] {in_words(row)[:100]} ({row['score']:.2f})")
        if said.right is not None:
            self.say(
                f"(such answers were right in {said.right:.0%} of cases held out{f'; it would have been: {said.unsure}' if said.unsure else ''})"
            )
        if not said.ended:
            self.say(f"(cut off after {said.tokens} tokens: --max-tokens)")
        self.messages, self.waiting = [*asked, {"role": "assistant", "content": said.text}], []
        self.meant = said.unsure or said.text
        self.spent = first[0] if first else 0.0, said.tokens / max(time.perf_counter() - started, 1e-9)

    def why(self) -> None:
        """What the last answer came from."""
        from sensorium.dialogue.chat import why

        if not self.messages:
            raise UserError("Nothing was answered yet.")
        if not self.meant:
            raise UserError("The last answer came from the query above it.")
        rows, given = self.model.conversation(self.messages[:-1], self.cells)
        found = why(self.model.network, rows, 0, given, self.meant)
        if not found:
            self.say("From the conversation alone: it refers to no cell.")
        for because in [b for b in found if not b.part] + [b for b in found if b.part][:5]:
            self.say(
                f"  {because.column}{' ' + because.part if because.part else ''}: {because.nats:+.2f} nats likelier with it"
            )

    def like(self) -> None:
        """Rows of the index that are like what is shown."""
        if self.index is None:
            raise UserError("There is no index. Give one: sensorium chat RUN INDEX (made by sensorium index).")
        cells = {c: cell for c, cell in self.cells[-1].items() if self.model.network.modalities[c].matched}
        if not cells:
            raise UserError("Nothing is shown that could be searched by.")
        from sensorium.cli.show import print_rows

        print_rows(self.index.search(cells, k=5))


def run_chat(
    run: Path,
    index: Path | None,
    table: str | None,
    max_tokens: int,
    temperature: float,
    sure: float,
    adapters: Sequence[Path],
    seed: int,
) -> None:
    """The command ``chat``: lines from stdin until it ends."""
    import sys

    from sensorium.dialogue.chat import talker
    from sensorium.model import Model

    model = Model.load(run)
    talker(model.network)
    for adapter in adapters:
        model.load_adapter(adapter)
    out = Console(highlight=False)
    terminal = sys.stdin.isatty()
    talk = ChatCommand(
        model,
        model.open(table) if table else None,
        model.open_index(index, note) if index else None,
        lambda line: out.print(line, markup=False),
        lambda piece: out.print(piece, end="", markup=False),
        max_tokens=max_tokens,
        temperature=temperature,
        sure=sure,
        seed=seed,
    )
    if terminal:
        out.print(HELP, markup=False)
    while True:
        try:
            line = input("> " if terminal else "")
        except (EOFError, KeyboardInterrupt):
            break
        if not talk.hear(line):
            break


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
    """The command ``ask-data``."""
    from sensorium.data.schema import infer
    from sensorium.dialogue.questions import ask_data, pair_data
    from sensorium.model import open_table

    if out.suffix != ".parquet":
        raise UserError(f"--out {out}: conversations are written as .parquet.")
    table = open_table(source)
    said = wordings(words, language, rewordings, seed)
    made = (pair_data if pairs else ask_data)(
        table, infer(table), about=about, of=of, each=each, kinds=chances(kinds), keep=keep, seed=seed, words=said
    )
    with asked_for(out) as part:
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
    """Ours, those of a file, and those that a language model finds, which are written to the file where it isn't there yet.

    Raises:
        UserError: see ``wordings``, or the file is there and a language model was named, too.
    """
    from sensorium.dialogue.templates import WORDS, read_words, reword, worded

    if words is not None and language is not None and words.exists():
        raise UserError(
            f"--words {words} is there already, so --reword has nothing to do. Leave one of them out, or name another file."
        )
    if language is None:
        return dict(WORDS) if words is None else worded(read_words(words))
    found = reword(language, count, seed, lambda kind, said: note(f"  {kind}: {' '.join(said) or 'no other words'}"))
    if words is not None:
        with asked_for(words) as part:
            part.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    return worded(found)


def chances(given: str | None) -> dict[str, float] | None:
    """``name:4,choice`` as numbers.

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
