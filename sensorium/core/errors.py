"""The errors Sensorium raises on purpose.

A message says what was asked, what was found, what is possible and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: the command line prints it without a traceback and exits with status 2."""


class BadCell(Exception):
    """A cell that can't be read; its row goes to the quarantine file with this reason and the run goes on."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Words: " Did you mean 'x'?" for a near miss of ``word`` among ``known``, followed by all that is possible."""
    known = sorted(map(str, known))
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"{hint} Possible: {', '.join(known) or 'none'}."


def unknown(what: str, word: str, known: Iterable[str]) -> UserError:
    """The error for a name that isn't among ``known``."""
    return UserError(f"Unknown {what} '{word}'.{did_you_mean(word, known)}")
