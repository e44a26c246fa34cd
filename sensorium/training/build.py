"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sensorium.core.errors import unknown
from sensorium.core.registry import find
from sensorium.core.settings import build, check
from sensorium.data.settings import DataSettings
from sensorium.generators import Generator
from sensorium.network.build import OBJECTIVES, NetworkSize, drawn_by, objectives_of, plain
from sensorium.network.network import Network
from sensorium.objectives import Objective
from sensorium.training.fit_vocoder import VocoderSettings
from sensorium.training.questions import QuestionSampler
from sensorium.training.table_trainer import TableTrainer
from sensorium.trunks import Trunk


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse unknown sections and keys before any long work.

    Raises:
        UserError: with the nearest known name.
    """
    known = {
        "network",
        "trunk",
        "data",
        "train",
        "questions",
        "objectives",
        "column",
        "generator",
        *OBJECTIVES,
        "autoencode",
        "trackers",
        "baselines",
        "memory",
        "finish",
    }
    for section, given in settings.items():
        if section not in known:
            raise unknown("section of settings:", section, known)
        given = given if isinstance(given, Mapping) else {"": given}
        rest = {key: value for key, value in given.items() if key}
        match section:
            case "network":
                check(NetworkSize, rest, section)
            case "data":
                check(DataSettings, rest, section)
            case "train":
                check(TableTrainer, rest, section)
            case "finish":
                check(VocoderSettings, rest, section)
            case "questions":
                check(QuestionSampler, rest, section)
                drawn_by(settings)
            case "trunk":
                check(find(Trunk, str(given.get("", "segment"))), rest, section)
            case "tell" | "match" | "autoencode":
                check(find(Objective, section), rest, section)
            case "objectives":
                for name in objectives_of(settings):
                    find(Objective, name)
            case "generator":
                for name, part in rest.items():
                    check(find(Generator, name), part if isinstance(part, Mapping) else {"": part}, f"generator.{name}")


def make_objectives(settings: Mapping[str, Any]) -> dict[str, Objective]:
    """The objectives of a run."""
    return {name: build(find(Objective, name), plain(settings, name), name) for name in objectives_of(settings)}


def make_sampler(network: Network, targets: Sequence[str], settings: Mapping[str, Any]) -> QuestionSampler:
    """How questions are drawn in this run."""
    return build(
        QuestionSampler, plain(settings, "questions"), "questions", facts=network.column_facts(), targets=targets
    )


def settings_of(part: type, given: Mapping[str, Any], section: str) -> dict[str, Any]:
    """A section's checked settings, as keyword arguments of ``part``."""
    return check(part, plain(given, section), section)


def plain_list(given: Mapping[str, Any], section: str) -> list[str]:
    """Names in a section such as ``trackers=tensorboard,wandb``; "none" names none."""
    value = given.get(section, {}).get("", "tensorboard")
    return [item for item in (value.split(",") if isinstance(value, str) else value) if item and item != "none"]
