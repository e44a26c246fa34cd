"""Entry point of the command line: global options and the exit status. The verbs are the files of ``cli/commands``."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sys
import threading
import warnings
from typing import Annotated, Any

import typer

from sensorium.cli.lazy import LazyGroup
from sensorium.core.errors import SensoriumWarning, UserError

python_format = warnings.formatwarning
app = typer.Typer(
    name="sensorium",
    cls=LazyGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="One multimodal model for a table: any column finds, predicts or generates any other.",
)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Global options; without a command the help is printed."""
    if version:
        from sensorium import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command: status 2 for what the user can mend, 1 for our own faults, 130 when interrupted."""
    warnings.formatwarning = format_warning  # ty: ignore[invalid-assignment]  # Python documents this replacement
    try:
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

    Exit handlers run; only the interpreter's teardown of loaded modules is skipped, which with torch takes a second and
    a hundred megabytes.
    """
    try:
        main()
        status: Any = 0
    except SystemExit as left:
        status = left.code
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()  # ty: ignore[missing-attribute]  # CPython waits for threads by it, and so do we
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Text of a warning on stderr: of ours the message only, of others with the line of code, as Python has it."""
    if issubclass(category, SensoriumWarning):
        return f"{message}\n"
    return python_format(message, category, filename, lineno, line)


def unexpected(error: Exception) -> None:
    """Report a fault of ours, status 1."""
    if os.environ.get("SENSORIUM_DEBUG"):
        raise error
    fail(
        f"This is a fault of Sensorium, not yours: {type(error).__name__}: {error}\n"
        "Set SENSORIUM_DEBUG=1 to see where, and please report it.",
        1,
    )


def fail(words: str, status: int) -> None:
    """Print why on stderr and leave."""
    print(words, file=sys.stderr)
    sys.exit(status)
