"""Factories of the parts of a run: modalities, generators and the network, from a schema and settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import find, name_of, names
from sensorium.core.settings import at_least, build, plain
from sensorium.core.types import Tokens
from sensorium.data.columns import trunk_of
from sensorium.generators import Generator
from sensorium.modalities import Modality
from sensorium.modalities._capabilities import Dialogue, Spatial, generable
from sensorium.network.network import Network

OBJECTIVES = ("tell", "match")


class NetworkSize:
    """Sizes of the network (section ``network``).

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


def objectives_of(settings: Mapping[str, Any]) -> list[str]:
    """Names of the objectives of a run."""
    given = settings.get("objectives", {}).get("", OBJECTIVES)
    return [name for name in (given.split(",") if isinstance(given, str) else given) if name]


def make_network(modalities: Mapping[str, Modality], settings: Mapping[str, Any], seed: int) -> Network:
    """Network with fresh weights, from modalities that have learned. The caller's random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return fresh_network(modalities, settings)


def fresh_network(modalities: Mapping[str, Modality], settings: Mapping[str, Any]) -> Network:
    """Network with weights from torch's global random generator."""
    shape = build(NetworkSize, plain(settings, "network"), "network")
    trunk = build(trunk_of(settings), plain(settings, "trunk"), "trunk", width=shape.width, columns=list(modalities))
    generators: dict[str, Generator] = {}
    shared, written, more = {}, generated(modalities, settings), {}
    generator_names = chosen_generators(settings)
    for column, modality in modalities.items():
        asked = generable(modality) if has_questions(settings) else None
        if asked is None or (column not in written and find(Generator, asked.generator).is_generative):
            continue
        tokens = asked.tokens()
        key = modality.shared()
        if key is not None and key in shared:
            generators[column] = shared[key]
            continue
        chosen = (
            [*generator_names, *settings.get("taught", {}).get(column, ())] if column in written else [asked.generator]
        )
        generators[column], *others = (
            initial_generator(name, tokens, settings, shape.width, column) for name in chosen
        )
        if others:
            more[column] = others
        if key is not None:
            shared[key] = generators[column]
    network = Network(modalities, trunk, generators, shape.width, shape.gist, shape.summary, shape.drop, more)
    network.matches = "match" in objectives_of(settings)
    return network


def initial_generator(name: str, tokens: Tokens, settings: Mapping[str, Any], width: int, column: str) -> Generator:
    """Generator with fresh weights.

    A generative one gets random numbers of its own, so that all other weights are the same with and without it.
    """
    draws = find(Generator, name).is_generative
    with torch.random.fork_rng(devices=[], enabled=draws):
        if draws:
            torch.manual_seed(
                int.from_bytes(hashlib.sha256(f"{torch.initial_seed()} {column} {name}".encode()).digest()[:8]) >> 1
            )
        return make_generator(name, tokens, settings, width, column)


def has_questions(settings: Mapping[str, Any]) -> bool:
    """True where training asks columns. Else (``questions.plans=0``) a run learns to match and to talk, and no column
    of it can be asked.
    """
    return int(settings.get("questions", {}).get("plans", 1)) > 0 or bool(settings.get("questions", {}).get("generate"))


def check_conversations(modalities: Mapping[str, Modality], settings: Mapping[str, Any]) -> None:
    """Refuse conversations without a trunk that talks, before any long work.

    Raises:
        UserError: there are some.
    """
    for column, modality in modalities.items():
        if modality.llava and not trunk_of(settings).is_language_model:
            raise UserError(
                f"column.{column}.llava=true is for conversations, which need a language model as the trunk: "
                "trunk=causal_lm trunk.path=FOLDER. Or leave it out."
            )
        if isinstance(modality, Dialogue) and not trunk_of(settings).is_language_model:
            raise UserError(
                f"Column '{column}' holds conversations, which need a language model as the trunk: trunk=causal_lm "
                f"trunk.path=FOLDER. Or leave the column out: column.{column}.kind=out"
            )


def check_followed(modalities: Mapping[str, Modality]) -> None:
    """Refuse columns that lie on others (``column.NAME.of``) which aren't there, are no images, or lie on others too.

    Raises:
        UserError: naming the column, and those that can be named.
    """
    able = [c for c, m in modalities.items() if isinstance(m, Spatial) and not m.follows and m.encoder is None]
    for column, modality in modalities.items():
        if isinstance(modality, Spatial) and modality.follows and modality.follows not in able:
            raise unknown(f"column of pictures in column.{column}.of:", modality.follows, able)


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


def make_generator(name: str, tokens: Tokens, settings: Mapping[str, Any], width: int, column: str) -> Generator:
    """Generator with fresh weights for a column's tokens."""
    part = find(Generator, name)
    if not part.fits(tokens):
        raise UserError(f"Generator '{name}' can't say the tokens of column '{column}': {tokens}.")
    return build(part, settings.get("generator", {}).get(name, {}), f"generator.{name}", tokens=tokens, width=width)


def chosen_generators(settings: Mapping[str, Any]) -> list[str]:
    """Names of the generators of pictures, videos, sounds, series and points (``questions.generator``). The first one
    is asked unless another is named.

    Raises:
        UserError: one that isn't there or isn't generative.
    """
    given = settings.get("questions", {}).get("generator", "flow")
    chosen = [name.strip() for name in (given.split(",") if isinstance(given, str) else given) if name.strip()]
    able = [
        name for name in names(Generator) if find(Generator, name).is_generative and not find(Generator, name).teacher
    ]
    for name in chosen:
        if name in names(Generator) and find(Generator, name).teacher:
            raise UserError(
                f"Generator '{name}' is trained after a fit: sensorium distill RUN TABLE. To fit with: "
                f"{', '.join(able)}."
            )
        if name not in able:
            raise unknown("generator of pictures, videos, sounds, series and points:", name, able)
    return list(dict.fromkeys(chosen)) or ["flow"]


def able_to_generate(modalities: Mapping[str, Modality]) -> list[str]:
    """Columns of pictures, videos, sounds, series and points that could be generated."""
    return [
        c
        for c, m in modalities.items()
        if (asked := generable(m)) is not None and find(Generator, asked.generator).is_generative
    ]


def generated(modalities: Mapping[str, Modality], settings: Mapping[str, Any]) -> list[str]:
    """Columns of pictures, videos, sounds, series and points that a run learns to generate (``questions.generate``).

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
                f"Column '{column}' is asked like any other; --generate is for pictures, videos, sounds, series and "
                "points. "
                f"Possible: {', '.join(able) or 'none'}."
            )
    return wanted
