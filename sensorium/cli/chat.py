"""Chat session of the terminal: the command ``chat``."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from sensorium.cli.files import write_whole
from sensorium.cli.output import note
from sensorium.core.attachments import assign_cell
from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import name_of
from sensorium.data.table import Table

if TYPE_CHECKING:
    from sensorium.dialogue.session import ChatSession
    from sensorium.model import Model
    from sensorium.query import QueryEngine
    from sensorium.search.index import Index

HELP_TEXT = """/image FILE, /audio FILE, /video FILE: show it with the next question
/row N: talk about row N of the table (--table); /cell COLUMN=VALUE or COLUMN=@FILE: give a cell of your own
/ask QUESTION: of all rows of the table (as "which group has the oldest ones?"; such questions about nothing shown \
are taken so), or a SELECT over rows
/why: what the last answer came from; /like: rows of the index that are like what is shown
/adapter NAME: talk with other low-rank updates (--adapter), or again with the run's own
/save FILE: keep the conversation as JSON; /new: begin anew; /help; /quit"""
MEDIA_KINDS = ("image", "audio", "video")


class TerminalChat:
    """Slash commands of one terminal, over a ``ChatSession``.

    Args:
        session: answers questions, and keeps the conversation.
        say: prints a line.
        stream: prints a piece of an answer.
    """

    def __init__(
        self,
        model: Model,
        table: Table | None,
        index: Index | None,
        session: ChatSession,
        say: Callable[[str], None],
        stream: Callable[[str], None],
    ) -> None:
        self.model, self.table, self.index, self.session = model, table, index, session
        self.say, self.stream = say, stream
        self.asker: QueryEngine | None = None

    def handle_line(self, line: str) -> bool:
        """Handle one line of input; False where it ends the session. An error is printed, and the session goes on."""
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
        """Run a slash command."""
        if name in MEDIA_KINDS:
            cell = Path(rest).expanduser().read_bytes()
            at, column = assign_cell(
                name, [c for c, m in self.model.network.modalities.items() if name_of(m) == name], self.session.cells
            )
            self.show(column, cell, at)
        elif name == "cell":
            column, equals, value = rest.partition("=")
            self.model.check([column])
            if not equals:
                raise UserError("Write /cell COLUMN=VALUE, or COLUMN=@FILE.")
            cell = Path(value[1:]).expanduser().read_bytes() if value.startswith("@") else value
            self.show(
                column,
                cell,
                assign_cell(name_of(self.model.network.modalities[column]), [column], self.session.cells)[0],
            )
        elif name == "row":
            if self.table is None:
                raise UserError("There is no table. Give one with --table.")
            if not rest.isdigit() or int(rest) >= self.table.rows:
                raise UserError(f"'{rest}' is no row of '{self.table.name}'. Rows are 0 to {self.table.rows - 1}.")
            self.session.reset()
            row = self.table.take(np.array([int(rest)])).to_pylist()[0]
            media = [
                c
                for c, m in self.model.network.modalities.items()
                if row.get(c) is not None and (m.media or m.is_nested)
            ]
            for column in media[:1] or [
                c for c in self.model.columns if row.get(c) is not None and c not in self.model.network.dialogue_columns
            ]:
                self.show(column, row[column])
        elif name == "ask":
            self.query_table(rest)
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
            with write_whole(Path(rest)) as part:
                part.write_text(
                    json.dumps({"messages": self.session.messages}, ensure_ascii=False, indent=1), encoding="utf-8"
                )
            self.say(f"Wrote {rest}")
        elif name == "new":
            self.session.reset()
        elif name == "help":
            self.say(HELP_TEXT)
        else:
            raise unknown(
                "command",
                f"/{name}",
                [
                    f"/{c}"
                    for c in (
                        *MEDIA_KINDS,
                        "row",
                        "cell",
                        "ask",
                        "adapter",
                        "why",
                        "like",
                        "save",
                        "new",
                        "help",
                        "quit",
                    )
                ],
            )

    def show(self, column: str, cell: Any, row: int = 0) -> None:
        """Attach a cell to the next question; after others of its kind in a row of its own."""
        self.session.attach(column, cell, row)
        self.say(f"({column} is shown with your next question)")

    def query_table(self, question: str) -> None:
        """Print the answer to a question about many rows of the table, with the query that it became."""
        from sensorium.cli.output import print_rows

        found = self.query_engine().answer(question)
        self.say(found.sql)
        print_rows(found.rows)
        for other in found.others:
            self.say(f"(or was this meant: /ask {other})")
        summary = (
            "; ".join(
                ", ".join(f"{name} {cell}" for name, cell in row.items() if cell is not None)
                for row in found.rows.slice(0, 10).to_pylist()
            )
            or "nothing"
        )
        self.session.add_exchange(question, summary)

    def query_engine(self) -> QueryEngine:
        """Query engine of the table, made when it is first asked."""
        if self.table is None:
            raise UserError("There is no table to ask about. Give one with --table.")
        if self.asker is None:
            from sensorium.query import QueryEngine

            self.asker = QueryEngine.knowing(self.table, {})
        return self.asker

    def ask(self, text: str) -> None:
        """Ask a question, and print the answer as it streams."""
        if self.table is not None and not any(self.session.cells) and self.query_engine().about_many(text):
            with contextlib.suppress(UserError):  # what the query engine doesn't understand goes to the model
                self.query_table(text)
                return
        started, first = time.perf_counter(), []

        def on_text(piece: str) -> None:
            if not first:
                first.append(time.perf_counter() - started)
            self.stream(piece)

        from sensorium.dialogue.messages import row_text

        answer = self.session.ask(text, on_text)
        self.say("")
        for row in answer.cited:
            self.say(f"  [{row['row']}] {row_text(row)[:100]} ({row['score']:.2f})")
        if answer.right is not None:
            otherwise = f"; it would have been: {answer.unsure}" if answer.unsure else ""
            self.say(f"(such answers were right in {answer.right:.0%} of validation cases{otherwise})")
        if not answer.ended:
            self.say(f"(cut off after {answer.tokens} tokens: --max-tokens)")
        self.spent = first[0] if first else 0.0, answer.tokens / max(time.perf_counter() - started, 1e-9)

    def why(self) -> None:
        """Print the attribution of the last answer to the cells that were shown."""
        if not self.session.messages:
            raise UserError("Nothing was answered yet.")
        if not self.session.answer:
            raise UserError("The last answer came from the query above it.")
        found = self.session.attribute()
        if not found:
            self.say("From the conversation alone: it refers to no cell.")
        for because in [b for b in found if not b.part] + [b for b in found if b.part][:5]:
            self.say(
                f"  {because.column}{' ' + because.part if because.part else ''}: {because.nats:+.2f} nats "
                "likelier with it"
            )

    def like(self) -> None:
        """Print the nearest rows of the index to what is shown."""
        if self.index is None:
            raise UserError("There is no index. Give one: sensorium chat RUN INDEX (made by sensorium index).")
        cells = {c: cell for c, cell in self.session.cells[-1].items() if self.model.network.modalities[c].matched}
        if not cells:
            raise UserError("Nothing is shown that could be searched by.")
        from sensorium.cli.output import print_rows

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

    from sensorium.dialogue.decoding import Sampling
    from sensorium.dialogue.parts import dialogue_column
    from sensorium.dialogue.session import ChatSession
    from sensorium.model import Model

    model = Model.load(run)
    dialogue_column(model.network)
    for adapter in adapters:
        model.load_adapter(adapter)
    out = Console(highlight=False)
    terminal = sys.stdin.isatty()
    rows, opened = model.open(table) if table else None, model.open_index(index, note) if index else None
    talk = TerminalChat(
        model,
        rows,
        opened,
        ChatSession(
            model, Sampling(max_tokens=max_tokens, temperature=temperature), seed=seed, sure=sure, index=opened
        ),
        lambda line: out.print(line, markup=False),
        lambda piece: out.print(piece, end="", markup=False),
    )
    if terminal:
        out.print(HELP_TEXT, markup=False)
    while True:
        try:
            line = input("> " if terminal else "")
        except (EOFError, KeyboardInterrupt):
            break
        if not talk.handle_line(line):
            break
