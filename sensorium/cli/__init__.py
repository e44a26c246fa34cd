"""The command ``sensorium``: a verb a command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.cli.options import app, build
from sensorium.core.errors import UserError

for part in ("learning", "answering", "finding"):  # whose commands are listed in this order
    importlib.import_module(f"sensorium.cli.{part}")


def add_tables() -> None:
    """One command for each builder in ``sensorium/tables``: its options are the builder's settings."""
    from sensorium.core.registry import names as parts
    from sensorium.datasets import Builder

    for name in parts(Builder):
        build.command(name, help=f"Build the table '{name}'.")(table_command(name))


def table_command(name: str) -> Any:
    """The command that builds one table."""

    def command(
        out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
        settings: Annotated[
            list[str] | None, typer.Argument(metavar="KEY=VALUE", help="The builder's settings, as rows=200.")
        ] = None,
    ) -> None:
        from sensorium.cli.demo import build_table

        build_table(name, out, settings or [])

    return command


def main() -> None:
    """Run the command: status 2 for what the user can mend, 1 for our own faults, 130 when interrupted."""
    try:
        add_tables()
        app(standalone_mode=True)
    except UserError as error:
        fail(str(error), 2)
    except KeyboardInterrupt:
        fail("Interrupted.", 130)
    except SystemExit as left:
        if left.code == 130:  # typer has heard of it before us
            print("Interrupted.", file=sys.stderr)
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except MemoryError:
        fail("Out of memory. Use a smaller train.batch, or fewer columns.", 2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM) or os.environ.get(
            "SENSORIUM_DEBUG"
        ):
            unexpected(error)
        fail(f"The system refused: {error}. Free some space, or write elsewhere.", 2)
    except Exception as error:
        unexpected(error)


def run() -> None:
    """Run the command as a process of its own, which ends at once.

    What is to be done at the end is done; only Python doesn't take apart what is loaded, which with torch takes a second
    and a hundred megabytes.
    """
    try:
        main()
        status: Any = 0
    except SystemExit as left:
        status = left.code
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter would
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def unexpected(error: Exception) -> None:
    """Own up to a fault of ours."""
    if os.environ.get("SENSORIUM_DEBUG"):
        raise error
    fail(
        f"This is a fault of Sensorium, not yours: {type(error).__name__}: {error}\n"
        "Set SENSORIUM_DEBUG=1 to see where, and please report it.",
        1,
    )


def fail(words: str, status: int) -> None:
    """Say why on stderr and leave."""
    print(words, file=sys.stderr)
    sys.exit(status)
