"""Templates, styles and scripts of this folder."""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def environment() -> jinja2.Environment:
    """Jinja environment of this folder's templates; everything is escaped unless it is marked as HTML."""
    import jinja2  # only when a page is written: a search needs none

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def asset(name: str) -> str:
    """Text of a file of this folder."""
    return (importlib.resources.files("sensorium.report") / name).read_text(encoding="utf-8")
