"""Writes ``settings.md`` from the signatures and docstrings of the parts, so that it can't say anything else.

python docs/settings.py
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from sensorium.core.registry import find, names
from sensorium.core.settings import describe, groups, schema
from sensorium.data.settings import DataSettings
from sensorium.datasets import Builder
from sensorium.evaluation.fit_baselines import BaselineSettings
from sensorium.generators import Generator
from sensorium.modalities import Modality
from sensorium.network.build import OBJECTIVES, NetworkSize
from sensorium.objectives import Objective
from sensorium.posttraining.distill import DistillationSettings
from sensorium.posttraining.dpo import DPOSettings
from sensorium.posttraining.grpo import GRPOSettings
from sensorium.training.build_memory import MemorySettings
from sensorium.training.fit_ensembles import AnswerSettings
from sensorium.training.fit_vocoder import VocoderSettings
from sensorium.training.questions import QuestionSampler
from sensorium.training.table_trainer import TableTrainerSettings
from sensorium.training.trackers import Tracker
from sensorium.trunks import Trunk

PAGE = Path(__file__).parent / "settings.md"
BEGIN = """# Settings

<!-- Written by docs/settings.py from the code; the tests compare. Change a docstring or a signature, then run it. -->

Every part's constructor arguments are its settings. `sensorium fit` takes them as `section.key=value`, as a file
(`--settings`, in YAML, TOML or JSON; the command line wins over the file), and `Model.fit` as a list of such words or
as a mapping. An unknown key is an error that names the nearest known one. `none` says that there is no value; several
values are joined by commas.
"""


def words(part: Any) -> dict[str, str]:
    """What a part's docstring says of each of its settings: "name: words", one after the other, under "Args:"."""
    result: dict[str, str] = {}
    for default, fields in groups(part).values():
        result |= {key: text for key, text in words(type(default)).items() if key in fields}
    known = "|".join(schema(part))
    body = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", inspect.getdoc(part) or "", re.M)
    if not body or not known:
        return result
    text = body[1]
    found = list(re.finditer(rf"(?:^ +|(?<=[;.,] ))((?:{known})(?:, (?:{known}))*): ", text, re.M))
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends, strict=True):
        said = " ".join(text[match.end() : end].split()).rstrip(";., ")
        result |= dict.fromkeys(match[1].split(", "), said.replace("``", "`"))
    return result


def table(part: Any) -> str:
    """The settings of a part as a table."""
    said, lines = words(part), ["| key | value | default | |", "|---|---|---|---|"]
    for key, parameter in schema(part).items():
        default = (
            "`none`"
            if parameter.default is None
            else f"`{shown(parameter.default)}`"
            if parameter.default != ""
            else "empty"
        )
        lines.append(f"| `{key}` | {kind(parameter.annotation)} | {default} | {said.get(key, '')} |")
    return "\n".join(lines) if len(lines) > 2 else "No settings."


def kind(annotation: Any) -> str:
    """What a value is, in words."""
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    return describe(annotation).removeprefix("a ").removeprefix("an ").replace("|", "\\|")


def shown(value: Any) -> str:
    """A default as one would write it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def first(part: Any) -> str:
    """A docstring's first sentence on one line."""
    paragraph = " ".join((inspect.getdoc(part) or "").split("\n\n")[0].split()).replace("``", "`")
    return paragraph if paragraph.endswith(".") else paragraph + "."


def page() -> str:
    """The whole page."""
    parts = [BEGIN]

    def section(title: str, part: Any, intro: str = "") -> None:
        parts.append(f"## {title}\n\n{intro or first(part)}\n\n{table(part)}\n")

    def several(contract: Any, pattern: str) -> None:
        for name in names(contract):
            part = find(contract, name)
            parts.append(f"### `{pattern.replace('NAME', name)}`\n\n{first(part)}\n\n{table(part)}\n")

    section("`train`: how it learns", TableTrainerSettings)
    section("`data`: how the table is read", DataSettings)
    section("`sample`: which questions are asked", QuestionSampler)
    section("`network`: how large it is", NetworkSize)
    parts.append(
        "## `trunk`: what fusion is\n\n`trunk=concat` chooses one; its own settings are `trunk.key=value`. The "
        "default is `segment`.\n"
    )
    several(Trunk, "trunk=NAME")
    parts.append(
        f"## `objectives`: what is learned\n\n`objectives=match,tell,autoencode` chooses; the default is "
        f"`{','.join(OBJECTIVES)}`. Each "
        "one's own settings are in the section of its name.\n"
    )
    several(Objective, "NAME")
    parts.append(
        "## `column.NAME`: what a column is\n\n`column.year.kind=category` (or `column.year=category`) says what the "
        "column `year` is; "
        f"possible are {', '.join(f'`{name}`' for name in names(Modality))}, `out` (not used) and `split`. The other "
        f"keys are those "
        "of the modality: `column.photo.size=64`.\n"
    )
    several(Modality, "NAME")
    parts.append(
        "## `generator.NAME`: how cells are said\n\nThe modality chooses the generator; `generator.quantile.levels=9` "
        "sets it up.\n"
    )
    several(Generator, "generator.NAME")
    section("`distill`: how a student is taught (`sensorium distill`)", DistillationSettings)
    section("`prefer`: how preferences are taught (`sensorium prefer`)", DPOSettings)
    section("`reinforce`: how a model practises (`sensorium reinforce`)", GRPOSettings)
    section("`baselines`: the plain models beside ours", BaselineSettings)
    section("`memory`: what is kept of training rows", MemorySettings)
    section("`answer`: what a prediction combines", AnswerSettings)
    section("`finish`: what finishes drawn cells, after training", VocoderSettings)
    chosen = ", ".join(f"`{name}`" for name in names(Tracker))
    parts.append(
        f"## `trackers`: where numbers go\n\n`trackers=tensorboard,wandb` (or `--tracker`, several times): {chosen}, "
        f"or `none`. "
        "`metrics.jsonl` in the run's folder is always written. The default is `tensorboard`.\n"
    )
    parts.append("## Tables that are built\n\n`sensorium table NAME --out FILE key=value`\n")
    several(Builder, "NAME")
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
