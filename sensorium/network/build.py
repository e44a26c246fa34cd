"""From a schema and settings to modalities, network, objectives and sampler: which parts a run is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import find, name_of, names
from sensorium.core.settings import at_least, build
from sensorium.core.types import Tokens
from sensorium.data.schema import Schema
from sensorium.generators import Generator
from sensorium.modalities import Modality
from sensorium.modalities._capabilities import Dialogue, generable
from sensorium.network.network import Network
from sensorium.trunks import Trunk

OBJECTIVES = ("tell", "match")


class NetworkSize:
    """The network's size (section ``network``).

    Args:
        width: of a token; gist: of a gist; summary: give the trunk each matched column's gist as a token.
        drop: share of the tokens of a picture, a video, a sound or a series that training hides.
    """

    def __init__(self, *, width: int = 192, gist: int = 192, summary: bool = True, drop: float = 0.1) -> None:
        at_least("network", 1, width=width, gist=gist)
        at_least("network", 0, drop=drop)
        if not drop < 1:
            raise UserError(f"network.drop={drop} hides everything. Give a share below 1, for instance 0.3.")
        self.width, self.gist, self.summary, self.drop = width, gist, summary, drop


def said_as_written(columns: Mapping[str, Any]) -> list[str]:
    """The columns that the user says are of a kind that reads cells as they are written (section ``column``)."""
    result = []
    for name, said in columns.items():
        given = dict(said) if isinstance(said, Mapping) else {"kind": said}
        kind = given.pop("kind", given.pop("", None))
        if (kind in names(Modality) and find(Modality, kind).reads_as_written(given)) or (
            kind is None and set(given) & FORMS
        ):
            result.append(name)
    return result


FORMS = {"decimal", "thousands", "prefix", "suffix", "format", "zone"}
"""Settings of columns that say how texts are written."""


def objectives_of(settings: Mapping[str, Any]) -> list[str]:
    """Names of the objectives of a run."""
    given = settings.get("objectives", {}).get("", OBJECTIVES)
    return [name for name in (given.split(",") if isinstance(given, str) else given) if name]


def make_modalities(columns: Schema, settings: Mapping[str, Any]) -> dict[str, Modality]:
    """One modality for each column of a schema."""
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


def make_network(modalities: Mapping[str, Modality], settings: Mapping[str, Any], seed: int) -> Network:
    """A network with fresh weights, from modalities that have learned. The caller's own random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return fresh_network(modalities, settings)


def fresh_network(modalities: Mapping[str, Modality], settings: Mapping[str, Any]) -> Network:
    """A network with weights drawn from torch's own generator."""
    shape = build(NetworkSize, plain(settings, "network"), "network")
    trunk = build(trunk_of(settings), plain(settings, "trunk"), "trunk", width=shape.width, columns=list(modalities))
    generators: dict[str, Generator] = {}
    shared, written, more = {}, generated(modalities, settings), {}
    ways = drawn_by(settings)
    for column, modality in modalities.items():
        asked = generable(modality) if asks(settings) else None
        if asked is None or (column not in written and find(Generator, asked.generator).is_generative):
            continue
        tokens = asked.tokens()
        key = modality.shared()
        if key is not None and key in shared:
            generators[column] = shared[key]
            continue
        chosen = [*ways, *settings.get("taught", {}).get(column, ())] if column in written else [asked.generator]
        generators[column], *others = (begun(name, tokens, settings, shape.width, column) for name in chosen)
        if others:
            more[column] = others
        if key is not None:
            shared[key] = generators[column]
    network = Network(modalities, trunk, generators, shape.width, shape.gist, shape.summary, shape.drop, more)
    network.matches = "match" in objectives_of(settings)
    return network


def begun(name: str, tokens: Tokens, settings: Mapping[str, Any], width: int, column: str) -> Generator:
    """A generator with fresh weights; one that draws has random numbers of its own, so that nothing else begins differently for it."""
    draws = find(Generator, name).is_generative
    with torch.random.fork_rng(devices=[], enabled=draws):
        if draws:
            torch.manual_seed(
                int.from_bytes(hashlib.sha256(f"{torch.initial_seed()} {column} {name}".encode()).digest()[:8]) >> 1
            )
        return make_generator(name, tokens, settings, width, column)


def asks(settings: Mapping[str, Any]) -> bool:
    """Whether columns are asked in training; else (``questions.plans=0``) a run learns to match, and to talk, and nothing can be asked of it."""
    return int(settings.get("questions", {}).get("plans", 1)) > 0 or bool(settings.get("questions", {}).get("generate"))


def check_conversations(modalities: Mapping[str, Modality], settings: Mapping[str, Any]) -> None:
    """Refuse conversations without a trunk that talks, before any long work.

    Raises:
        UserError: there are some.
    """
    for column, modality in modalities.items():
        if modality.llava and not trunk_of(settings).is_language_model:
            raise UserError(
                f"column.{column}.llava=true is for conversations, which need a language model as the trunk: trunk=causal_lm trunk.path=FOLDER. Or leave it out."
            )
        if isinstance(modality, Dialogue) and not trunk_of(settings).is_language_model:
            raise UserError(
                f"Column '{column}' holds conversations, which need a language model as the trunk: trunk=causal_lm trunk.path=FOLDER. Or leave the column out: column.{column}.kind=out"
            )


def check_referred(modalities: Mapping[str, Modality]) -> None:
    """Refuse conversations that refer to what the table hasn't.

    Raises:
        UserError: a column, or a kind of column, that isn't there.
    """
    known = {*modalities, *map(name_of, modalities.values())}
    for column, modality in modalities.items():
        for name in sorted(modality.referred - known) if isinstance(modality, Dialogue) else ():
            raise unknown(
                f"column that conversations in '{column}' refer to:",
                name,
                [c for c, m in modalities.items() if not isinstance(m, Dialogue)],
            )


def trunk_of(settings: Mapping[str, Any]) -> type[Trunk]:
    """The kind of trunk of a run."""
    return find(Trunk, str(settings.get("trunk", {}).get("", "segment")))


def make_generator(name: str, tokens: Tokens, settings: Mapping[str, Any], width: int, column: str) -> Generator:
    """A generator with fresh weights for a column's tokens."""
    part = find(Generator, name)
    if not part.fits(tokens):
        raise UserError(f"Generator '{name}' can't say the tokens of column '{column}': {tokens}.")
    return build(part, settings.get("generator", {}).get(name, {}), f"generator.{name}", tokens=tokens, width=width)


def drawn_by(settings: Mapping[str, Any]) -> list[str]:
    """Names of the generators of pictures, videos, sounds, series and points (``questions.generator``), the first one asked unless another is named.

    Raises:
        UserError: one that isn't there or doesn't draw.
    """
    given = settings.get("questions", {}).get("generator", "flow")
    chosen = [name.strip() for name in (given.split(",") if isinstance(given, str) else given) if name.strip()]
    able = [
        name for name in names(Generator) if find(Generator, name).is_generative and not find(Generator, name).teacher
    ]
    for name in chosen:
        if name in names(Generator) and find(Generator, name).teacher:
            raise UserError(
                f"Generator '{name}' is taught by a run that has ended: sensorium distill RUN TABLE. To fit with: {', '.join(able)}."
            )
        if name not in able:
            raise unknown("generator of pictures, videos, sounds, series and points:", name, able)
    return list(dict.fromkeys(chosen)) or ["flow"]


def able_to_generate(modalities: Mapping[str, Modality]) -> list[str]:
    """The columns of pictures, videos, sounds, series and points that could be generated."""
    return [
        c
        for c, m in modalities.items()
        if (asked := generable(m)) is not None and find(Generator, asked.generator).is_generative
    ]


def generated(modalities: Mapping[str, Modality], settings: Mapping[str, Any]) -> list[str]:
    """The columns of pictures, videos, sounds, series and points that a run learns to generate (``questions.generate``).

    Raises:
        UserError: a column that isn't there or can't be generated.
    """
    able = able_to_generate(modalities)
    given = settings.get("questions", {}).get("generate", "")
    given = given.split(",") if isinstance(given, str) else list(given)
    wanted = [column.strip() for column in given if column.strip() and column.strip() != "auto"]
    for column in wanted:
        if column not in modalities:
            raise unknown("column to generate:", column, able)
        if column not in able:
            raise UserError(
                f"Column '{column}' is asked like any other; --generate is for pictures, videos, sounds, series and points. "
                f"Possible: {', '.join(able) or 'none'}."
            )
    return wanted


def plain(settings: Mapping[str, Any], section: str) -> dict[str, Any]:
    """A section's keys without the part's own name."""
    return {key: value for key, value in settings.get(section, {}).items() if key}
