"""A registry of parts: ``find(Objective, "match")`` imports ``objectives/match.py`` and gives its class.

The folder is the registry: a part's name is its file, and a file that starts with an underscore is no part. Other
packages add parts by entry points, in the group of the folder's name (``sensorium.modalities``): see docs/extend.md.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import os
import pkgutil
import sys
import types
from typing import Any, TypeVar

from sensorium.core.errors import UserError, unknown

Part = TypeVar("Part")


def names(contract: type) -> list[str]:
    """Names of all parts that fulfil ``contract`` (the abstract class in a folder's ``__init__.py``), installed ones
    too."""
    return sorted({*own_names(contract.__module__), *entry_points(contract.__module__)})


def own_names(folder: str) -> list[str]:
    """Names of the parts in a folder of ours, given as a module (``sensorium.modalities``), which is imported."""
    paths = tuple(sys.modules[folder].__path__)
    return list(_names(paths, tuple(os.stat(path).st_mtime_ns for path in paths)))


@functools.lru_cache(maxsize=64)
def _names(folders: tuple[str, ...], _: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the parts in some folders, as long as nothing in these changes."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folders) if not m.name.startswith("_")))


def entry_points(folder: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Entry points of installed packages that add parts to a folder, by name; ours come first where names are the
    same."""
    return _entry_points(f"sensorium.{folder.rpartition('.')[2]}", tuple(sys.path))


@functools.lru_cache(maxsize=64)
def _entry_points(group: str, _: tuple[str, ...]) -> dict[str, importlib.metadata.EntryPoint]:
    """Entry points of a group, as long as the import path is the same."""
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=group)}


def find(contract: type[Part], name: str) -> type[Part]:
    """The class of a part: the one in the file ``name`` of the contract's folder, or of the entry point of that name.

    Raises:
        UserError: there is none, or what it needs isn't installed.
    """
    kind = contract.__name__.lower()
    if name not in names(contract):
        raise unknown(kind, name, names(contract))
    entry = None if name in own_names(contract.__module__) else entry_points(contract.__module__)[name]
    try:
        module = importlib.import_module(f"{contract.__module__}.{name}" if entry is None else entry.module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sensorium"):
            raise
        raise UserError(
            f"The {kind} '{name}' needs the package '{error.name}', which isn't installed. "
            f"Install it with: pip install {error.name}"
        ) from error
    if entry is not None and entry.attr:
        part = getattr(module, entry.attr, None)
        if not (inspect.isclass(part) and issubclass(part, contract)):
            raise UserError(
                f"The {kind} '{name}', which the package '{entry.dist.name if entry.dist else entry.module}' adds as "
                f"{entry.value}, is no {contract.__name__}. Ask its authors, or uninstall it."
            )
    else:
        part = _part(contract, module)
    if entry is not None:
        _ENTRY_NAMES[part] = name
    return part


_ENTRY_NAMES: dict[type, str] = {}
"""Of parts that other packages have added, the names of their entry points."""


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
    """The name of a part: its file, or its entry point."""
    cls = part if inspect.isclass(part) else type(part)
    return _ENTRY_NAMES.get(cls) or cls.__module__.rpartition(".")[2]
