"""Renamed settings, arguments and methods: old names are still taken, with a warning that says the new one. They go
with the release after next."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from sensorium.core.errors import UserError, warn

P = ParamSpec("P")
R = TypeVar("R")

SECTIONS = {"sample": "questions"}
"""Sections of settings, old to new."""
_TRAINER = {
    "clip": "max_grad_norm",
    "decay": "weight_decay",
    "ema": "ema_decay",
    "fall": "lr_power",
    "warmup": "warmup_steps",
}
KEYS: dict[str, dict[str, str]] = {
    "data": {"alone": "dialogue_validation", "same": "entity_key"},
    "generator.flow": {"begun": "prefix_share"},
    "tell": {"drawn": "generative", "talked": "dialogue"},
    "questions": {
        "absent": "drop_column",
        "alone": "single_column",
        "apart": "detach_generation",
        "blank": "unconditional_share",
        "drawn": "generate_share",
        "everything": "all_columns",
        "most": "max_per_modality",
        "share": "trunk_share",
        "talk": "dialogue_rows",
    },
    **dict.fromkeys(("train", "finish", "distill", "prefer", "reinforce"), _TRAINER),
}
"""For each section, by its new name, settings old to new."""
METHODS = {
    "continued": "iter_forecast",
    "continues": "continuation_generator",
    "draw": "iter_generate",
    "judged": "reward_score",
    "together": "iter_generate_together",
}
"""Methods of ``Model``, old to new."""


def with_current_names(settings: Mapping[str, Any], quiet: bool = False) -> dict[str, Any]:
    """Settings under the names that they have now.

    Args:
        settings: nested by section, as ``settings.parse`` gives them. quiet: without warnings, as for a saved model.

    Raises:
        UserError: a setting is given by its old name and by its new one.
    """
    result: dict[str, Any] = {}
    for section, given in settings.items():
        name = SECTIONS.get(section, section)
        if not isinstance(given, Mapping):
            result[name] = given
            continue
        here = result.setdefault(name, {})
        for key, value in given.items():
            if isinstance(value, Mapping) and f"{name}.{key}" in KEYS:
                value = _renamed(value, f"{section}.{key}", f"{name}.{key}", {}, quiet)
            _renamed({key: value}, section, name, here, quiet)
    return result


def _renamed(given: Mapping[str, Any], section: str, name: str, into: dict[str, Any], quiet: bool) -> dict[str, Any]:
    """``into`` with the settings of one section under their present names."""
    for key, value in given.items():
        current = KEYS.get(name, {}).get(key, key)
        old, new = f"{section}.{key}".rstrip("."), f"{name}.{current}".rstrip(".")
        if old != new and not quiet:
            warn(f"The setting {old} is called {new} now; the old name will not be taken for long.")
        if current in into:
            raise UserError(f"{new} is given twice, also by its old name {old}. Give it once.")
        into[current] = value
    return into


def renamed_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a function some of whose keyword arguments have new names; old ones are taken with a warning.

    Args:
        names: old to new, as ``same="entity_key"``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def renamed(*args: Any, **given: Any) -> Any:
            for old, new in names.items():
                if old in given:
                    warn(f"The argument {old}= is called {new}= now; the old name will not be taken for long.")
                    given[new] = given.pop(old)
            return function(*args, **given)

        return renamed

    return decorate


def renamed_method(owner: object, name: str) -> Any:
    """Method of a model by its old name, with a warning; for ``__getattr__``.

    Raises:
        AttributeError: there is none of that name.
    """
    if name not in METHODS:
        raise AttributeError(f"'{type(owner).__name__}' object has no attribute '{name}'")
    warn(f"The method {name} is called {METHODS[name]} now; the old name will not be taken for long.")
    return getattr(owner, METHODS[name])
