"""Parts of a training run from its settings: checked sections, objectives and the sampler of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sensorium.core.errors import unknown
from sensorium.core.registry import find, names
from sensorium.core.settings import build, check, plain
from sensorium.data.settings import DataSettings
from sensorium.generators import Generator
from sensorium.network.build import NetworkSize, chosen_generators, objectives_of
from sensorium.network.network import Network
from sensorium.objectives import Objective
from sensorium.training.fit_vocoder import VocoderSettings
from sensorium.training.questions import QuestionSampler
from sensorium.training.table_trainer import TableTrainerSettings
from sensorium.trunks import Trunk

Settings = TypeVar("Settings")

SECTIONS: dict[str, type] = {
    "network": NetworkSize,
    "data": DataSettings,
    "train": TableTrainerSettings,
    "finish": VocoderSettings,
    "questions": QuestionSampler,
}
"""Sections whose settings are a constructor's; an objective's section has its name (``match.weight``)."""
NAMED_SECTIONS = ("trunk", "objectives", "column", "generator", "trackers", "baselines", "memory", "answer")
"""Sections that name parts, or whose settings are checked where they are used."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse unknown sections and keys before any long work.

    Raises:
        UserError: with the nearest known name.
    """
    known, objectives = [*SECTIONS, *NAMED_SECTIONS, *names(Objective)], names(Objective)
    for section, given in settings.items():
        if section not in known:
            raise unknown("section of settings:", section, known)
        given = given if isinstance(given, Mapping) else {"": given}
        rest = {key: value for key, value in given.items() if key}
        if section in SECTIONS:
            check(SECTIONS[section], rest, section)
        elif section in objectives:
            check(find(Objective, section), rest, section)
        elif section == "trunk":
            check(find(Trunk, str(given.get("", "segment"))), rest, section)
        elif section == "objectives":
            for name in objectives_of(settings):
                find(Objective, name)
        elif section == "generator":
            for name, part in rest.items():
                check(find(Generator, name), part if isinstance(part, Mapping) else {"": part}, f"generator.{name}")
        if section == "questions":
            chosen_generators(settings)


def make_objectives(settings: Mapping[str, Any]) -> dict[str, Objective]:
    """Objectives of a run, by name."""
    return {name: build(find(Objective, name), plain(settings, name), name) for name in objectives_of(settings)}


def make_sampler(network: Network, targets: Sequence[str], settings: Mapping[str, Any]) -> QuestionSampler:
    """Sampler of this run's questions."""
    return build(
        QuestionSampler, plain(settings, "questions"), "questions", facts=network.column_facts(), targets=targets
    )


def settings_of(part: type[Settings], given: Mapping[str, Any], section: str) -> Settings:
    """Checked settings of a section, as an object of ``part``."""
    return build(part, plain(given, section), section)


def plain_list(given: Mapping[str, Any], section: str) -> list[str]:
    """Names in a section such as ``trackers=tensorboard,wandb``; "none" names none."""
    value = given.get(section, {}).get("", "tensorboard")
    return [item for item in (value.split(",") if isinstance(value, str) else value) if item and item != "none"]
