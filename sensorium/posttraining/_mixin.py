"""Post-training methods of a model: distillation, preference optimisation and reinforcement learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sensorium.inference.trained import Trained

M = TypeVar("M", bound="PostTrainingMixin")


class PostTrainingMixin(Trained):
    """Methods that train a fitted model further, inherited by ``Model``."""

    def post_train(
        self: M,
        recipe: str,
        table: Any,
        *,
        out: str | Path | None = None,
        minutes: float | None = None,
        epochs: float | None = None,
        seed: int = 0,
        resume: bool = False,
        settings: Mapping[str, Any] | Sequence[str] = (),
        quiet: bool = True,
        note: Callable[[str], None] | None = None,
        **options: Any,
    ) -> M:
        """Train a part of this model by a recipe (``sensorium.posttraining``), and save the model.

        Args:
            recipe: distill, dpo, grpo, or one that another package brings. options: arguments of its constructor.
            out: the folder that the model is then saved to; where it was loaded from by default. What a stopped run is
                resumed from lies there, too.
            minutes, epochs: how long; 10 minutes if neither is given. settings: of the recipe's section.

        Returns:
            this model; ``facts`` says what was learned.

        Raises:
            UserError: there is no such recipe, or what it needs of the model, the table or the settings isn't there.
        """
        from sensorium.posttraining import RunOptions
        from sensorium.posttraining._run import post_train

        post_train(
            self,
            recipe,
            table,
            out,
            settings,
            RunOptions(minutes=minutes, epochs=epochs, seed=seed, resume=resume, quiet=quiet, note=note),
            **options,
        )
        return self

    def distill(
        self: M,
        table: Any,
        column: str,
        *,
        out: str | Path | None = None,
        minutes: float | None = None,
        epochs: float | None = None,
        seed: int = 0,
        resume: bool = False,
        settings: Mapping[str, Any] | Sequence[str] = (),
        quiet: bool = True,
        note: Callable[[str], None] | None = None,
    ) -> M:
        """Distil a generated column's flow, which takes many steps, into a generator ``onestep`` that takes one. All
        else stays as it is.

        Args:
            table: rows to generate from; of a table that the run was trained on only those rows.
            out: the folder that the model is then saved to; where it was loaded from by default. The state of an
                interrupted run is kept there.
            minutes: of learning, after the flow has generated what is learned from; epochs: or passes over that. 10
                minutes if neither is given.
            settings: of section ``distill``: ``["distill.pairs=8192"]``.

        Returns:
            this model; ``facts["distilled"]`` says how near the student comes.

        Raises:
            UserError: the column has no flow, the table no rows, or a setting isn't there.
        """
        return self.post_train(
            "distill",
            table,
            out=out,
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            resume=resume,
            settings=settings,
            quiet=quiet,
            note=note,
            column=column,
        )

    def prefer(
        self: M,
        table: Any,
        *,
        out: str | Path | None = None,
        minutes: float | None = None,
        epochs: float | None = None,
        seed: int = 0,
        resume: bool = False,
        settings: Mapping[str, Any] | Sequence[str] = (),
        quiet: bool = True,
    ) -> M:
        """Train this model on preferences (DPO): which of two answers is better. Only what is tuned of its language
        model changes.

        With ``prefer.loss=reward`` a reward model is trained instead, which scores answers (``reward_score``,
        ``reinforce``), and the model stays as it is.

        Args:
            table: with columns ``conversation``, ``chosen``, ``rejected``, and those that conversations refer to.
            out: the folder that the model is then saved to; where it was loaded from by default. The state of an
                interrupted run is kept there.
            minutes, epochs: how long; 10 minutes if neither is given. settings: of section ``prefer``:
                ``["prefer.beta=0.3"]``.

        Returns:
            this model; ``facts["preferred"]`` (or ``facts["judge"]``) says what was learned.

        Raises:
            UserError: the model doesn't talk, nothing of it is tuned, or the table has no pairs.
        """
        return self.post_train(
            "dpo",
            table,
            out=out,
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            resume=resume,
            settings=settings,
            quiet=quiet,
        )

    def reinforce(
        self: M,
        table: Any,
        *,
        score: Callable[[str, str, dict[str, Any]], float] | None = None,
        out: str | Path | None = None,
        minutes: float | None = None,
        epochs: float | None = None,
        seed: int = 0,
        resume: bool = False,
        settings: Mapping[str, Any] | Sequence[str] = (),
        quiet: bool = True,
    ) -> M:
        """Train this model by reinforcement (GRPO): it samples several answers to each question and learns from which
        were good. Only what is tuned of its language model changes.

        Args:
            table: with columns ``conversation``, which ends with the user, ``answer`` (or ``chosen``), the right one,
                where answers are compared with it, and those that conversations refer to.
            score: of an answer, beside the right one and the row's plain cells: higher is better. By default what
                ``reinforce.score`` names: exact, contains, words or judge.
            out, minutes, epochs, seed, resume: as of ``prefer``. settings: of section ``reinforce``:
                ``["reinforce.group=16"]``.

        Returns:
            this model; ``facts["reinforced"]`` says what was learned.

        Raises:
            UserError: the model doesn't talk, nothing of it is tuned, the table has no questions, or there is no reward
                model.
        """
        return self.post_train(
            "grpo",
            table,
            out=out,
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            resume=resume,
            settings=settings,
            quiet=quiet,
            score=score,
        )
