"""The files of this folder that pages are made of."""

from __future__ import annotations

import importlib.resources

import jinja2


def environment() -> jinja2.Environment:
    """Templates of this folder; everything is escaped unless it is marked as HTML."""
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def asset(name: str) -> str:
    """A file of this folder."""
    return (importlib.resources.files(__package__) / name).read_text(encoding="utf-8")
