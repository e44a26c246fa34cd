"""Settings: a constructor's signature is its schema.

Every part is keyword-only, annotated and defaulted, so settings files, ``section.key=value`` on the command line,
help and docs all come from the signatures. Unknown keys are errors with "did you mean".
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from sensorium.core import registry
from sensorium.core.errors import UserError, unknown
from sensorium.core.renamed_settings import with_current_names


class Settable:
    """Mark of a group of settings, ``Annotated[Group, Settable("lr", …)]``: a dataclass that several sections share.

    The section lists these fields of it as if they were its own; the default of the parameter says theirs. The other
    fields stay as they are in that default.
    """

    def __init__(self, *names: str) -> None:
        self.names = names


def groups(part: Callable[..., Any]) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Groups of settings among a part's keyword-only parameters: the default of each, and its fields that may be
    set."""
    function, result = inspect.unwrap(part.__init__ if inspect.isclass(part) else part), {}
    for name, parameter in inspect.signature(part).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and dataclasses.is_dataclass(parameter.default):
            for mark in get_args(resolve(parameter.annotation, function, include_extras=True))[1:]:
                if isinstance(mark, Settable):
                    result[name] = parameter.default, mark.names
    return result


def schema(part: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a part: its settings, with resolved annotations and defaults."""
    function, grouped = inspect.unwrap(part.__init__ if inspect.isclass(part) else part), groups(part)
    result = {}
    for name, parameter in inspect.signature(part).parameters.items():
        if name in grouped:
            default, fields = grouped[name]
            known = schema(type(default))
            result |= {field: known[field].replace(default=getattr(default, field)) for field in fields}
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            result[name] = parameter.replace(annotation=resolve(parameter.annotation, function))
    return result


def resolve(annotation: Any, function: Callable[..., Any], include_extras: bool = False) -> Any:
    """An annotation as a type; only settings are resolved, so that other parameters may name types unknown here."""
    if not isinstance(annotation, str):
        return Any if annotation is inspect.Parameter.empty else annotation
    holder = type("Holder", (), {"__annotations__": {"it": annotation}, "__module__": function.__module__})
    return typing.get_type_hints(holder, include_extras=include_extras)["it"]


def defaults(part: Callable[..., Any]) -> dict[str, Any]:
    """Each setting of a part at its default."""
    return {name: parameter.default for name, parameter in schema(part).items()}


def check(
    part: Callable[..., Any], given: Mapping[str, Any], section: str, inner: Collection[str] = ()
) -> dict[str, Any]:
    """``given`` with every value converted to its annotation; ``inner``: what only the program itself may give.

    Raises:
        UserError: a key that isn't a setting of the part, or a value of another type.
    """
    known = {key: parameter for key, parameter in schema(part).items() if key not in inner}
    result = {}
    for key, value in given.items():
        if key not in known:
            others = owners(part, key)
            if others:
                raise UserError(
                    f"{section}.{key} is a setting of {', '.join(others)}, and {section} is {registry.name_of(part)} "
                    f"here, with {', '.join(sorted(known))}."
                )
            raise unknown(f"setting of {section}:", key, known)
        result[key] = convert(value, known[key].annotation, f"{section}.{key}")
    return result


def owners(part: Callable[..., Any], key: str) -> list[str]:
    """Names of the parts beside this one that have such a setting."""
    contract = (
        next((base for base in inspect.getmro(part) if base.__module__ == part.__module__.rpartition(".")[0]), None)
        if inspect.isclass(part)
        else None
    )
    found = []
    if contract is None:
        return found
    for name in registry.names(contract):
        with contextlib.suppress(UserError):  # what it needs isn't installed
            if key in schema(registry.find(contract, name)):
                found.append(name)
    return found


def build(part: Callable[..., Any], given: Mapping[str, Any], section: str, **rest: Any) -> Any:
    """``part`` constructed from checked settings and ``rest``, what the program itself hands in."""
    return part(**rest, **grouped_arguments(part, check(part, given, section)))


def grouped_arguments(part: Callable[..., Any], checked: Mapping[str, Any]) -> dict[str, Any]:
    """Checked settings as keyword arguments of ``part``: those of a group in one dataclass."""
    result = dict(checked)
    for name, (default, fields) in groups(part).items():
        result[name] = dataclasses.replace(
            default, **{field: result.pop(field) for field in fields if field in checked}
        )
    return result


def convert(value: Any, wanted: Any, where: str) -> Any:
    """``value`` (a string from the command line, or plain JSON) as the type ``wanted``."""
    origin = get_origin(wanted)
    if wanted is Any:
        return value
    if origin is typing.Literal:
        for option in get_args(wanted):
            if value == option or (isinstance(value, str) and value == str(option)):
                return option
        raise unknown(f"value of {where}:", value, get_args(wanted))
    if origin in (Union, types.UnionType):
        if value is None or (
            isinstance(value, str) and value.lower() in ("none", "null") and type(None) in get_args(wanted)
        ):
            return None
        tried = [option for option in get_args(wanted) if option is not type(None)]
        for option in tried:
            try:
                return convert(value, option, where)
            except UserError:
                if option is tried[-1]:
                    raise
    if origin in (tuple, list):
        inner = get_args(wanted)[0] if get_args(wanted) else Any
        items = [item for item in value.split(",") if item] if isinstance(value, str) else value
        return origin(convert(item, inner, where) for item in items)
    try:
        if wanted is bool:
            if isinstance(value, str):
                return {
                    "true": True,
                    "1": True,
                    "yes": True,
                    "on": True,
                    "false": False,
                    "0": False,
                    "no": False,
                    "off": False,
                }[value.lower()]
            if isinstance(value, bool):
                return value
            raise ValueError
        if wanted is int and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            if float(value) != int(float(value)):
                raise ValueError
            return int(float(value))
        if wanted is float and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return float(value)
        if wanted in (str, Path) and isinstance(value, (str, Path)):
            return wanted(value)
        if inspect.isclass(wanted) and isinstance(value, wanted):
            return value
        if origin is dict:
            if isinstance(value, str):
                value = dict(item.rsplit(":", 1) for item in value.split(",") if item)
            if isinstance(value, dict):
                return {key: convert(item, get_args(wanted)[1], f"{where}.{key}") for key, item in value.items()}
    except (ValueError, KeyError, OverflowError):
        pass
    raise UserError(f"{where}={value!r} is not {describe(wanted)}.")


def describe(wanted: Any) -> str:
    """A type in words, for messages and help."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    if get_origin(wanted) in (Union, types.UnionType):
        return " or ".join("none" if option is type(None) else describe(option) for option in get_args(wanted))
    if get_origin(wanted) is dict:
        return f"name:value pairs joined by commas, each value {describe(get_args(wanted)[1])}"
    if get_origin(wanted) in (tuple, list):
        return f"{describe(get_args(wanted)[0])}, several joined by commas"
    return words.get(wanted, str(getattr(wanted, "__name__", wanted)))


def at_least(section: str, least: float, **values: float) -> None:
    """Refuse settings below their smallest value.

    Raises:
        UserError: naming the setting, its value and what is needed.
    """
    for name, value in values.items():
        if not value >= least:
            raise UserError(f"{section}.{name}={value} is too small: at least {least:g} is needed.")


def parse(assignments: Iterable[str]) -> dict[str, Any]:
    """``["train.batch=64", "trunk=concat"]`` as a nested mapping; a part's name alone is kept under ``""``.

    ``{"train": {"batch": "64"}, "trunk": {"": "concat"}}``
    """
    tree: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"'{text}' is no setting. Write section.key=value, for instance train.batch=64.")
        put(tree, split_key(key), value)
    return with_current_names(tree)


def split_key(key: str) -> list[str]:
    """``column.a.b.size`` names the column ``a.b``: only the last dot of a column's setting splits."""
    head, _, tail = key.partition(".")
    if head == "column" and "." in tail:
        return [head, *tail.rsplit(".", 1)]
    return key.split(".")


def put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Write ``value`` at ``path``, turning a part's bare name into ``{"": name}`` where it also has settings."""
    for step in path[:-1]:
        below = tree.setdefault(step, {})
        if not isinstance(below, dict):
            below = tree[step] = {"": below}
        tree = below
    last = tree.get(path[-1])
    if isinstance(last, dict) and not isinstance(value, dict):
        last[""] = value
    else:
        tree[path[-1]] = {"": value} if len(path) == 1 and not isinstance(value, dict) else value


def merge(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Later trees win, key by key."""
    result: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            if isinstance(value, Mapping) and isinstance(result.get(key), dict):
                result[key] = merge(result[key], value)
            elif isinstance(value, Mapping):
                result[key] = merge(value)
            elif isinstance(result.get(key), dict):
                result[key] = {**result[key], "": value}
            else:
                result[key] = value
    return result


def read_file(path: Path) -> dict[str, Any]:
    """A settings file in YAML, TOML or JSON, by its ending.

    Raises:
        UserError: no such file, another ending, or text that can't be parsed.
    """
    if not path.is_file():
        raise UserError(f"No settings file '{path}'.")
    text = path.read_text(encoding="utf-8")
    try:
        match path.suffix.lower():
            case ".yaml" | ".yml":
                import yaml

                tree = yaml.safe_load(text)
            case ".toml":
                import tomllib

                tree = tomllib.loads(text)
            case ".json":
                tree = json.loads(text)
            case other:
                raise UserError(f"'{path}' ends in '{other}'. A settings file is .yaml, .toml or .json.")
    except ValueError as error:
        raise UserError(f"'{path}' can't be read as settings: {error}") from error
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            raise UserError(f"'{path}' can't be read as settings: {' '.join(str(error).split())}") from error
        raise
    if not isinstance(tree, dict):
        raise UserError(f"'{path}' holds no settings: expected sections with keys, found {type(tree).__name__}.")
    return with_current_names({key: value if isinstance(value, dict) else {"": value} for key, value in tree.items()})


def sections(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as ``parse`` gives them, where ``{"trunk": "concat"}`` may be written for ``{"trunk": {"":
    "concat"}}``."""
    return with_current_names(
        {key: merge({}, value) if isinstance(value, Mapping) else {"": value} for key, value in settings.items()}
    )


def plain(settings: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Keys of a section without the part's own name."""
    return {key: value for key, value in settings.get(section, {}).items() if key}
