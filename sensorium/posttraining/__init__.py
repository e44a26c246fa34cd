"""Post-training recipes: training of a part of a finished network with a loss of its own, one recipe a file."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from sensorium.data.table import Table
from sensorium.inference.trained import Trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of one run of a recipe.

    Args:
        minutes, epochs: length, one of them. resume: go on from where a stopped run was. quiet: without progress.
        note: is called with what is worth knowing of the table.
    """

    minutes: float | None = None
    epochs: float | None = None
    seed: int = 0
    resume: bool = False
    quiet: bool = True
    note: Callable[[str], None] | None = None


class Recipe(abc.ABC):
    """Contract of a post-training recipe. What it needs beside a table are arguments of its constructor.

    ``_run.post_train`` checks the settings, calls ``run``, and saves the model with the facts.
    """

    section: ClassVar[str]
    """Section of its settings."""
    settings_class: ClassVar[type]
    """Dataclass of its settings, whose fields are their names, types and defaults."""
    minutes: ClassVar[float] = 10.0
    """Length where none is asked."""

    def check(self, trained: Trained) -> None:
        """Refuse a model that can't be trained so. Default: none is refused.

        Raises:
            UserError: it can't.
        """

    def folder_name(self, trained: Trained) -> str:
        """The name of the folder, inside the model's, for what a stopped run is resumed from."""
        return self.section

    @abc.abstractmethod
    def run(
        self,
        trained: Trained,
        table: Table,
        folder: Path,
        settings: Mapping[str, Any],
        options: RunOptions,
    ) -> dict[str, Any]:
        """Train the network of a model on a table, in place.

        Args:
            folder: for what a stopped run is resumed from; removed where the run came to its end.
            settings: those of ``section`` that were given, checked: see ``core.settings.grouped_arguments``.

        Returns:
            facts, by name, which are added to the model's.

        Raises:
            UserError: the table lacks what is needed, or there is no run that can be resumed.
        """

    def finish(self, trained: Trained, folder: Path) -> None:
        """Write what else was learned beside the model, which is saved in ``folder``. Default: nothing."""
