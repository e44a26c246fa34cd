"""Modalities of a table's columns, from a schema and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import find, names
from sensorium.core.settings import build
from sensorium.data.schema import Schema
from sensorium.modalities import Modality
from sensorium.modalities._capabilities import Dialogue

if TYPE_CHECKING:
    from sensorium.trunks import Trunk


def columns_read_as_written(columns: Mapping[str, Any]) -> list[str]:
    """Columns that are set to a kind that reads cells as they are written (section ``column``)."""
    result = []
    for name, given_kind in columns.items():
        given = dict(given_kind) if isinstance(given_kind, Mapping) else {"kind": given_kind}
        kind = given.pop("kind", given.pop("", None))
        if (kind in names(Modality) and find(Modality, kind).reads_as_written(given)) or (
            kind is None and set(given) & FORMS
        ):
            result.append(name)
    return result


FORMS = {"decimal", "thousands", "prefix", "suffix", "format", "zone"}
"""Settings of columns that say how texts are written."""


def make_modalities(columns: Schema, settings: Mapping[str, Any]) -> dict[str, Modality]:
    """Modalities by column of a schema."""
    given = settings.get("column", {})
    for column in given:
        if column not in columns.columns and column not in columns.left_out and column != columns.split:
            raise unknown("column in settings:", column, columns.columns)
    result = {}
    for name, column in columns.columns.items():
        more = given.get(name, {})  # a bare word is the kind, which the schema has
        rest = {**column.settings, **(more if isinstance(more, Mapping) else {})}
        rest = {k: v for k, v in rest.items() if k not in ("", "kind")}
        part = find(Modality, column.kind)
        if issubclass(part, Dialogue) and trunk_of(settings).is_language_model:
            rest.setdefault("language", settings["trunk"].get("path", ""))
        try:
            result[name] = build(part, rest, f"column.{name}")
        except UserError as error:
            words = str(error).replace("column.NAME", f"column.{name}")
            raise UserError(
                f"column.{name}.backbone: {words}"
                if rest.get("backbone") and not words.startswith("column.")
                else words
            ) from error
    return result


def trunk_of(settings: Mapping[str, Any]) -> type[Trunk]:
    """Trunk class of a run."""

    from sensorium.trunks import Trunk

    return find(Trunk, str(settings.get("trunk", {}).get("", "segment")))
