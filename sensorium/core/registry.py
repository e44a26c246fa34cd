"""A part's name is its file: ``find(Objective, "match")`` imports ``objectives/match.py`` and gives its class.

The folder is the registry. A file that starts with an underscore is no part.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
import sys
import types
from typing import Any, TypeVar

from sensorium.core.errors import UserError, unknown

Part = TypeVar("Part")


def names(contract: type) -> list[str]:
    """The names of all parts that fulfil ``contract`` (the abstract class in a folder's ``__init__.py``)."""
    folders = tuple(sys.modules[contract.__module__].__path__)
    return list(_names(folders, tuple(os.stat(folder).st_mtime_ns for folder in folders)))


@functools.lru_cache(maxsize=64)
def _names(folders: tuple[str, ...], _: tuple[int, ...]) -> tuple[str, ...]:
    """The parts in some folders, as long as nothing in these changes."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folders) if not m.name.startswith("_")))


def find(contract: type[Part], name: str) -> type[Part]:
    """The class in the file ``name`` of the contract's folder.

    Raises:
        UserError: no such file, or what it needs isn't installed.
    """
    if name not in names(contract):
        raise unknown(contract.__name__.lower(), name, names(contract))
    try:
        module = importlib.import_module(f"{contract.__module__}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sensorium"):
            raise
        raise UserError(
            f"The {contract.__name__.lower()} '{name}' needs the package '{error.name}', which isn't installed. "
            f"Install it with: pip install {error.name}"
        ) from error
    return _part(contract, module)


@functools.lru_cache(maxsize=512)
def _part(contract: type[Part], module: types.ModuleType) -> type[Part]:
    """The class of a contract that a module defines."""
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, contract)
        and value.__module__ == module.__name__
        and not inspect.isabstract(value)
        and not value.__name__.startswith("_")
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define exactly one public {contract.__name__}, found {found}")
    return found[0]


def name_of(part: Any) -> str:
    """The name of a part: its file."""
    cls = part if inspect.isclass(part) else type(part)
    return cls.__module__.rpartition(".")[2]
