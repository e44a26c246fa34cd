"""Exceptions and warnings that Sensorium raises on purpose.

A message says what was asked, what was found, what is possible and what to do.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable


class UserError(Exception):
    """Error that the user can mend: the command line prints it without a traceback and exits with status 2."""


class SensoriumWarning(UserWarning):
    """Warning of input that was read otherwise than it may have been intended.

    Such are cells or rows that can't be read, and columns that lack.
    """


def warn(words: str) -> None:
    """Warn the caller of Sensorium, at the line that called it."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "sensorium":
        level, frame = level + 1, frame.f_back
    warnings.warn(words, SensoriumWarning, stacklevel=level - 1)


class BadCell(Exception):
    """Cell that can't be read: its row goes to the quarantine file with this reason and the run goes on."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggestion " Did you mean 'x'?" for a near miss of ``word`` among ``known``, then all that is possible."""
    known = sorted(map(str, known))
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"{hint} Possible: {', '.join(known) or 'none'}."


def unknown(what: str, word: str, known: Iterable[str]) -> UserError:
    """UserError for a name that isn't among ``known``."""
    return UserError(f"Unknown {what} '{word}'.{did_you_mean(word, known)}")
