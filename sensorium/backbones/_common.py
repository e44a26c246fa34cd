"""Helpers of the parts that use transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import transformers


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Context manager without progress bars and advice."""
    level, bars = transformers.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
