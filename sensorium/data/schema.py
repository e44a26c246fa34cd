"""Schema inference: the modality of each column and the reason, columns left out, and the split column.

Every modality is asked for its claim on what a column looks like; the surest wins. It knows no modality by name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import find, names
from sensorium.core.settings import check
from sensorium.core.types import Claim
from sensorium.data.media import HEAD_BYTES, sniff
from sensorium.data.profile import ColumnProfile, profile_columns
from sensorium.data.table import Table
from sensorium.data.uninformative import exclusion_reason, unreadable_reason
from sensorium.modalities import Modality

OUT, SPLIT = "out", "split"
"""Values of an override besides the names of modalities."""
SPLIT_NAMES = re.compile(r"split|subset|partition|(?:data_?)?set(?:_?split)?|split_?(?:name|set)", re.IGNORECASE)
SPLIT_VALUES = re.compile(r"(train(ing)?|val(id(ation)?)?|dev|test(ing)?|eval|holdout)([_\-. ].*)?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Column:
    """Column of a schema.

    Attributes:
        name: as in the table.
        kind: the modality's name.
        why: how that is known, in words.
        settings: the modality's constructor arguments: those that the user set, or where there are none those that
            suit the cells seen.
    """

    name: str
    kind: str
    why: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Schema:
    """Schema of a table: the modality of each column.

    Attributes:
        columns: the columns that are used, in the table's order.
        left_out: the others, each with why.
        split: the column that says which part of the split a row is in; None if there is none.
    """

    columns: dict[str, Column] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    split: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Schema as plain JSON."""
        return {
            "columns": {
                name: {"kind": column.kind, "why": column.why, "settings": column.settings}
                for name, column in self.columns.items()
            },
            "left_out": dict(self.left_out),
            "split": self.split,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """Restore from what ``to_json`` gave."""
        columns = {name: Column(name, c["kind"], c["why"], dict(c["settings"])) for name, c in data["columns"].items()}
        return cls(columns, dict(data["left_out"]), data["split"])


def infer(
    table: Table,
    *,
    overrides: Mapping[str, Any] | None = None,
    targets: Collection[str] = (),
    sample: int = 2048,
) -> Schema:
    """Infer the modality of each column of a table.

    Args:
        overrides: the user's choices for some columns: ``{"year": {"kind": "category"}}``, ``{"x": {"kind": "out"}}``,
            ``{"fold": {"kind": "split"}}``, or settings of the modality with or without a kind.
            ``{"year": "category"}`` is the same as the first.
        targets: columns that must stay, even where they look like ids or constants.
        sample: how many cells of a column are in its sample; counts are over many more.

    Raises:
        UserError: an override or target names no column, or no modality; a setting is unknown; a target has no cell.
    """
    settings_given = {name: _as_mapping(value) for name, value in (overrides or {}).items()}
    for name in (*settings_given, *targets):
        if name not in table.columns:
            raise unknown("column", name, table.columns)
    kinds = [*names(Modality), OUT, SPLIT]
    for name, value in settings_given.items():
        if value.get("kind", OUT) not in kinds:
            raise unknown(f"kind of the column '{name}':", value["kind"], kinds)
    schema = Schema()
    schema.split = next((name for name, value in settings_given.items() if value.get("kind") == SPLIT), None)
    asked = [name for name in table.columns if settings_given.get(name, {}).get("kind") not in (OUT, SPLIT)]
    looks = profile_columns(table, asked, sample)
    if schema.split is None:
        plain = [name for name in looks if name not in targets and "kind" not in settings_given.get(name, {})]
        schema.split = next((name for name in plain if _is_split(looks[name])), None)
    for name in table.columns:
        if name == schema.split:
            continue
        if name not in looks:
            schema.left_out[name] = (
                "you said so" if settings_given[name]["kind"] == OUT else "another column is the split"
            )
            continue
        _add_column(schema, looks[name], settings_given.get(name, {}), name in targets, table.remarks.get(name, ""))
    return schema


def _as_mapping(value: Any) -> dict[str, Any]:
    """Normalise an override to a mapping with ``kind``; a bare word (also as settings files write it) is the kind."""
    value = dict(value) if isinstance(value, Mapping) else {"kind": value}
    return {"kind" if key == "" else key: item for key, item in value.items()}


def _add_column(schema: Schema, seen: ColumnProfile, override: dict[str, Any], target: bool, remark: str = "") -> None:
    """Add one column, used or left out; ``remark``: the type that its cells were read as."""
    name = seen.profile.name
    more = [
        words
        for words in (remark, f"{seen.infinite:,} infinite, which count as missing" if seen.infinite else "")
        if words
    ]
    kind, settings = override.get("kind"), {key: value for key, value in override.items() if key != "kind"}
    if kind is not None:
        part = find(Modality, kind)
        claim = part.claim(seen.profile) if seen.profile.present else None
        form = claim.form if claim is not None else {}
        schema.columns[name] = Column(name, kind, "you said so", check(part, {**form, **settings}, f"column.{name}"))
        return
    best = claims(seen)
    required = target or bool(settings)
    reason = unreadable_reason(seen.profile)
    best = [] if reason else best
    reason = reason or exclusion_reason(seen, best[0][0] if best else None)
    if seen.profile.type == "null" and remark:
        reason = remark
    if reason and reason.startswith("an id"):
        reason += f" (column.{name}.kind=text keeps it)"
    if reason and not (required and best and seen.profile.present):
        if target:
            raise UserError(f"The target '{name}' can't be used: {reason}. Give another column as the target.")
        schema.left_out[name] = reason
    elif not best:
        if required:
            raise UserError(
                f"No modality reads the column '{name}' ({seen.profile.type}). Write its cells as texts, numbers, "
                "dates, files or lists of numbers."
            )
        schema.left_out[name] = (
            f"no modality reads {seen.profile.type}: write its cells as texts, numbers or lists of numbers"
        )
    else:
        kind, claim = best[0]
        why = "; ".join([claim.why, *more])
        given = check(find(Modality, kind), {**claim.form, **(settings or claim.settings)}, f"column.{name}")
        schema.columns[name] = Column(name, kind, why, given)


def claims(seen: ColumnProfile) -> list[tuple[str, Claim]]:
    """Every modality's claim on a column, the surest first; of equals one of files, then by name."""
    found = []
    for name in names(Modality):
        try:
            part = find(Modality, name)
        except UserError:  # a modality whose package isn't installed claims nothing
            continue
        claim = part.claim(seen.profile)
        if claim is not None:
            found.append((-claim.sure, not part.media, name, claim))
    return [(name, claim) for _, _, name, claim in sorted(found, key=lambda item: item[:3])]


def _is_split(seen: ColumnProfile) -> bool:
    """True where name and all values are those of a split; one value is enough, for a table may be all "train"."""
    profile = seen.profile
    return (
        SPLIT_NAMES.fullmatch(profile.name) is not None
        and profile.type in ("string", "dictionary<string>")
        and 0 < profile.distinct <= 64
        and all(SPLIT_VALUES.fullmatch(str(cell).strip()) for cell in profile.sample)
    )


def columns_report(table: Table, schema: Schema, bad_counts: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """Entries of ``sensorium columns``, one for each column in the table's order.

    Args:
        bad_counts: bad cells of each column, if they were counted.

    Returns:
        For each column ``name``, ``kind`` ("split", or "–" where it is left out), ``why``, ``type``, ``present`` (share
        of the looked-at rows, 0 to 1), ``distinct``, ``example`` and, where counted, ``bad``. A column of the schema
        that the table lacks comes last.
    """
    report = []
    for name, seen in profile_columns(table).items():
        profile = seen.profile
        column = schema.columns.get(name)
        if column is not None:
            kind, why = column.kind, column.why
        elif name == schema.split:
            kind, why = SPLIT, "says which part of the split a row is in"
        else:
            kind, why = "–", schema.left_out.get(name, "not in the schema")
        share = profile.present / profile.rows if profile.rows else 0.0
        report.append(
            {
                "name": name,
                "kind": kind,
                "why": why,
                "type": profile.type,
                "present": share,
                "distinct": profile.distinct,
                "example": example(profile.sample),
            }
        )
    for name in schema.columns:
        if name not in table.columns:
            report.append(
                {
                    "name": name,
                    "kind": schema.columns[name].kind,
                    "why": "not in this table",
                    "type": "",
                    "present": 0.0,
                    "distinct": 0,
                    "example": "",
                }
            )
    if bad_counts is not None:
        for entry in report:
            entry["bad"] = int(bad_counts.get(entry["name"], 0))
    return report


def example(cells: Sequence[Any], width: int = 40) -> str:
    """The first cell of a sample in a few words: text as it is, a file by what it is, a list by its shape."""
    if not cells:
        return ""
    cell = cells[0]
    if isinstance(cell, Mapping) and isinstance(cell.get("bytes"), bytes):
        cell = cell["bytes"]
    elif isinstance(cell, Mapping) and isinstance(cell.get("path"), str):
        cell = cell["path"]
    if isinstance(cell, bytes):
        return sniff(cell[:HEAD_BYTES]) or f"bytes {cell[:8].hex()}"
    shape = getattr(cell, "shape", None)
    if shape:
        return " × ".join(map(str, shape)) + " numbers"
    if isinstance(cell, list):
        return f"{len(cell)} items"
    text = re.sub(r"\s+", " ", f"{cell:.6g}" if isinstance(cell, float) else str(cell)).strip()
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)  # a terminal would obey them
    return text if len(text) <= width else text[: width - 1] + "…"
