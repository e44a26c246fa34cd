"""Evaluation methods of a model: results, and the report page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sensorium.core.errors import warn
from sensorium.core.renamed_settings import renamed_arguments
from sensorium.evaluation.compare import compare as differences
from sensorium.inference.generate import GenerationMixin
from sensorium.report.types import Evaluation


class EvaluationMixin(GenerationMixin):
    """Methods that measure a model on a table, inherited by ``Model``."""

    @renamed_arguments(same="entity_key")
    def evaluate(
        self,
        table: Any,
        *,
        split: str | None = None,
        seen: Sequence[str] | None = None,
        entity_key: str | None = None,
        limit: int = 0,
        candidates: int = 1,
        metric: str | None = None,
        by: str | None = None,
        compare: EvaluationMixin | None = None,
    ) -> dict:
        """Results of every column, every direction, beside chance and the baselines; see ``evaluation`` for the
        details.

        Args:
            limit: rows that are looked at, evenly spaced; 0: all. candidates: texts that an answer is chosen from, as
                of ``predict``. metric: by which slices are ordered and models compared; by default accuracy, r2 or
                exact. by: a column: results for each of its values too, or for each quarter of numbers and dates.
            compare: another model, which answers the same rows: whether the difference is more than chance.
        """
        options: dict[str, Any] = {"split": split, "seen": seen, "entity_key": entity_key, "limit": limit, "by": by}
        options |= {"candidates": candidates, "metric": metric, "tell": warn}
        found = self.evaluation(table, **options)
        if compare is not None:
            found.results["compared"] = differences(found, compare.evaluation(table, **options))
        return found.results

    @renamed_arguments(same="entity_key")
    def evaluation(
        self,
        table: Any,
        *,
        split: str | None = None,
        seen: Sequence[str] | None = None,
        entity_key: str | None = None,
        curves: bool = False,
        limit: int = 0,
        candidates: int = 1,
        metric: str | None = None,
        by: str | None = None,
        note: Callable[[str], None] = lambda words: None,
        tell: Callable[[str], None] | None = None,
    ) -> Evaluation:
        """Evaluation as of ``evaluate``, with every prediction and every search.

        ``note`` is called with progress, ``tell`` with how the table was read (by default ``note`` is).
        """
        from sensorium.evaluation.evaluate import EvaluationOptions
        from sensorium.evaluation.run_report import evaluation_of

        options = EvaluationOptions(seen=seen, curves=curves, candidates=candidates, metric=metric, by=by)
        return evaluation_of(
            self, table, options, split=split, entity_key=entity_key, limit=limit, note=note, tell=tell
        )

    @renamed_arguments(same="entity_key")
    def report(
        self,
        table: Any,
        out: str | Path,
        *,
        split: str | None = None,
        entity_key: str | None = None,
        note: Callable[[str], None] = lambda words: None,
    ) -> Path:
        """Write the report page (HTML) of this model, measured on at most ``MAX_EVALUATED_ROWS`` rows of a table,
        evenly spread.

        Raises:
            UserError: the model is in no run's folder, the table has no rows, or the file can't be written.
        """
        from sensorium.evaluation.run_report import write_report_of

        return write_report_of(self, table, Path(out), split, entity_key, note)
