"""Post-training by a recipe: its settings are checked, it trains a model, and the model is saved with its facts."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sensorium.core.errors import UserError
from sensorium.core.registry import find
from sensorium.core.settings import check, parse, plain, schema, sections
from sensorium.data.table import Table
from sensorium.export import hub
from sensorium.inference.trained import Trained
from sensorium.posttraining import Recipe, RunOptions
from sensorium.training.trainer import asked_length


def post_train(
    trained: Trained,
    recipe: str,
    table: Any,
    out: str | Path | None,
    settings: Mapping[str, Any] | Sequence[str],
    options: RunOptions,
    **arguments: Any,
) -> None:
    """Train a model by a recipe, and save it: see ``Model.post_train``."""
    chosen = make_recipe(recipe, arguments)
    given = section_settings(settings, chosen.section, next(iter(schema(chosen.settings_class))))
    chosen.check(trained)
    folder = target_folder(trained, out)
    minutes, epochs = asked_length(options.seed, options.minutes, options.epochs, chosen.minutes)
    trained.facts |= chosen.run(
        trained,
        Table.open(table),
        folder / chosen.folder_name(trained),
        check(chosen.settings_class, plain(given, chosen.section), chosen.section),
        dataclasses.replace(options, minutes=minutes, epochs=epochs),
    )
    hub.save(trained, folder)
    chosen.finish(trained, folder)


def make_recipe(name: str, options: Mapping[str, Any]) -> Recipe:
    """A recipe by its name.

    Raises:
        UserError: there is none of that name, or it takes other options.
    """
    part = find(Recipe, name)
    known = inspect.signature(part).parameters
    needed = {key for key, parameter in known.items() if parameter.default is inspect.Parameter.empty}
    if not needed <= set(options) <= set(known):
        raise UserError(
            f"The recipe '{name}' takes the options: {', '.join(known) or 'none'}; "
            f"given were: {', '.join(options) or 'none'}."
        )
    return part(**options)


def section_settings(settings: Mapping[str, Any] | Sequence[str], section: str, key: str) -> dict[str, Any]:
    """Settings of a recipe.

    Args:
        key: one of its settings, as an example.

    Raises:
        UserError: some are of another section.
    """
    given = sections(settings) if isinstance(settings, Mapping) else parse(settings)
    for name in given:
        if name != section:
            raise UserError(
                f"Settings of this recipe are in section '{section}', as {section}.{key}=VALUE; given: '{name}'."
            )
    return given


def target_folder(trained: Trained, out: str | Path | None) -> Path:
    """The folder that a model is saved to.

    Raises:
        UserError: there is none yet.
    """
    folder = Path(out) if out is not None else trained.folder
    if folder is None:
        raise UserError("This model is in no folder yet, and a run of a recipe is saved in one. Give it: out=FOLDER.")
    return folder
