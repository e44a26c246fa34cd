"""Lazy loading of commands: listed by folder, described by their source, imported when they are asked."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

FOLDER = "sensorium.cli.commands"
"""The package whose files are commands."""
ENTRY_POINTS = "sensorium.commands"
"""The entry points by which other packages add commands: ``verb = "package.module:function"``, or a ``typer.Typer``."""
OTHERS = ("Other packages", 1000)
"""Heading and rank of commands that give none."""


@dataclasses.dataclass(frozen=True)
class CommandEntry:
    """Command before it is imported.

    Attributes:
        name: as users type it.
        load: imports it; a function or a ``typer.Typer``.
        help: its docstring.
        group, rank: its heading and its place in ``--help``.
    """

    name: str
    load: Callable[[], Any]
    help: str
    group: str = OTHERS[0]
    rank: int = OTHERS[1]


@functools.cache
def command_entries() -> dict[str, CommandEntry]:
    """All commands by name, in the order of ``--help``; ours win over another package's of the same name."""
    ours = [entry_of(path) for path in command_files()]
    found = {entry.name: entry for entry in ours}
    for point in entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, third_party_entry(point))
    return dict(sorted(found.items(), key=lambda item: (item[1].rank, item[0])))


def command_files() -> Iterator[Path]:
    """The files of the folder; one that starts with an underscore is no command."""
    for folder in importlib.import_module(FOLDER).__path__:
        yield from (path for path in sorted(Path(folder).glob("*.py")) if not path.name.startswith("_"))


def entry_of(path: Path) -> CommandEntry:
    """A file's command, from its source alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants: dict[str, Any] = dict(zip(("GROUP", "RANK"), OTHERS))
    text = ast.get_docstring(tree) or ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == path.stem:
            text = ast.get_docstring(node) or ""
        elif (
            isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name) and target.id in constants
        ):
            constants[target.id] = ast.literal_eval(node.value)
    module, name = f"{FOLDER}.{path.stem}", path.stem
    return CommandEntry(
        name.replace("_", "-"),
        lambda: getattr(importlib.import_module(module), name),
        text,
        constants["GROUP"],
        constants["RANK"],
    )


def third_party_entry(point: EntryPoint) -> CommandEntry:
    """Another package's command, which is imported for its help."""

    @functools.cache
    def load() -> Any:
        return point.load()

    try:
        loaded = load()
    except Exception as error:  # a broken package must not break ours
        return CommandEntry(point.name, load, f"It can't be imported: {type(error).__name__}: {error}")
    words = loaded.info.help if isinstance(loaded, typer.Typer) else loaded.__doc__
    return CommandEntry(point.name, load, words if isinstance(words, str) else "")


def build_command(name: str, given: Any) -> Any:
    """A function or a ``typer.Typer`` as a command for the parser."""
    if not isinstance(given, typer.Typer):
        given, function = typer.Typer(add_completion=False, rich_markup_mode=None), given
        given.command(name)(function)
    command = typer.main.get_command(given)
    command.name = name
    return command


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are asked; those that were added by hand stay."""

    def entries(self) -> Mapping[str, CommandEntry]:
        """The commands by name."""
        return command_entries()

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in order."""
        return [*self.entries(), *(name for name in self.commands if name not in self.entries())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; None if there is none."""
        entry = self.entries().get(cmd_name)
        if entry is not None and not isinstance(self.commands.get(cmd_name), TyperCommand | TyperGroup):
            self.commands[cmd_name] = build_command(cmd_name, entry.load())
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that arguments begin with; names that are like a wrong one are suggested."""
        if args and args[0] not in self.entries():
            names, self.commands = self.commands, {**dict.fromkeys(self.entries()), **self.commands}
            try:
                return super().resolve_command(ctx, args)
            finally:
                self.commands = names
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, a section for each heading."""
        names = self.list_commands(ctx)
        limit = formatter.width - 6 - max(map(len, names), default=0)
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            entry = self.entries().get(name)
            command: Any = self.commands[name] if entry is None else TyperCommand(name, help=entry.help)
            heading = OTHERS[0] if entry is None else entry.group
            sections.setdefault(heading, []).append(
                (name.ljust(max(map(len, names))), command.get_short_help_str(limit))
            )
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)
