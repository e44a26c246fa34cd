"""Model: the class that a user holds. Each method delegates to the package of its verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.core.renamed_settings import renamed_method
from sensorium.data.table import Table
from sensorium.dialogue.mixin import DialogueMixin
from sensorium.evaluation.mixin import EvaluationMixin
from sensorium.explain import rows as explain_verbs
from sensorium.explain.columns import Explanation
from sensorium.export import hub, model_folder
from sensorium.inference import predict as predict_verbs
from sensorium.inference import surprise as surprise_verbs
from sensorium.inference.answers import Answers
from sensorium.nn.precision import usable
from sensorium.posttraining._mixin import PostTrainingMixin
from sensorium.search import table as search_verbs
from sensorium.search.index import Index, Windows

if TYPE_CHECKING:
    from sensorium.export.language_model import Adapters
    from sensorium.query import QueryResult


class Model(DialogueMixin, PostTrainingMixin, EvaluationMixin):
    """Trained model: a network and all that is needed to ask it about tables.

    Attributes:
        network: the torch module; schema: its columns; settings: what it was made with.
        facts: what is known of its training (rows, seconds, seed, results on the validation part).
        folder: where it was loaded from or fitted to; None for a model that lives in memory only.
    """

    _adapters: Adapters | None = None

    def __getattr__(self, name: str) -> Any:
        return renamed_method(self, name)

    # --- make, keep ---------------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        table: Any,
        *,
        out: str | Path | None = None,
        target: str | Sequence[str] = (),
        minutes: float | None = None,
        epochs: float | None = None,
        seed: int = 0,
        resume: bool = False,
        settings: Mapping[str, Any] | Sequence[str] = (),
        device: str | None = None,
        quiet: bool = True,
    ) -> Model:
        """Train one model on a table.

        Args:
            table: path, glob, folder, DataFrame (pandas, polars), Arrow table, ``datasets.Dataset`` or ``Table``.
            out: the run's folder (checkpoints, metrics, report); a temporary one by default.
            target: columns to be predicted first of all; every column can be asked in any case.
            minutes, epochs: how long; 5 minutes if neither is given.
            settings: ``{"train": {"batch": 64}}`` or ``["train.batch=64"]``.

        Raises:
            UserError: what was asked can't be done; the message says what to do.
        """
        from sensorium.fit.fit import fit

        trained = fit(
            table,
            out=out,
            target=[target] if isinstance(target, str) else list(target),
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            resume=resume,
            settings=settings,
            device=device,
            quiet=quiet,
        )
        return cls(trained.network, trained.schema, trained.settings, trained.facts, trained.folder)

    def save(self, folder: str | Path) -> Path:
        """Write the model as safetensors and JSON; a folder that ``load`` reads. Atomic file by file.

        Raises:
            UserError: the disk is full or can't be written.
        """
        return hub.save(self, Path(folder))

    def save_pretrained(self, folder: str | Path, *, rows: bool = False) -> Path:
        """Write the model for others: with the encoders that columns are based on, what was measured, and a model card
        (``README.md``). Nothing in it tells of single training rows, of the table's name or of this machine (see
        ``docs/privacy.md``).

        Args:
            rows: with the memory of training rows and all else that ``save`` writes, too.

        Raises:
            UserError: the disk is full or can't be written, or the folder holds a run's files that tell of rows, as
                this model's own does.
        """
        return hub.save_pretrained(self, Path(folder), rows)

    def push_to_hub(self, name: str, *, private: bool = True, token: str | None = None, rows: bool = False) -> str:
        """Upload the model to a repository on the Hugging Face hub, ``OWNER/NAME``, made where it isn't there. Nothing
        else leaves the machine.

        Args:
            rows: with what tells of single training rows; see ``save_pretrained``.

        Returns:
            the repository's address.

        Raises:
            UserError: the hub's package isn't installed, or it refuses.
        """
        return hub.push_to_hub(self, name, private, token, rows)

    def export_trunk(self, folder: str | Path) -> dict[str, Any]:
        """Write the language model of this model's trunk as ``transformers`` reads it, merged with what was tuned.

        See ``export.export_trunk``.

        Raises:
            UserError: the trunk is no language model, or the disk is full.
        """
        from sensorium.export.language_model import export_trunk

        return export_trunk(self.network, Path(folder))

    @property
    def adapters(self) -> Adapters:
        """Adapters of the language model: ``names``, ``active``, and ``use(name)``; ``own`` are those of this run."""
        from sensorium.export.language_model import Adapters

        if self._adapters is None:
            self._adapters = Adapters(self.network.trunk)
        return self._adapters

    def load_adapter(self, folder: str | Path, name: str | None = None) -> int:
        """Load other low-rank updates for the language model, in PEFT's layout, and use them.

        ``export_trunk`` writes them to ``adapter``, ``PeftModel.save_pretrained`` too. Those before stay at hand:
        ``model.adapters.use("own")``. All else stays as it is, and nothing is written.

        Args:
            name: what it is called from then on; by default as its folder.

        Returns:
            the number of their parameters.

        Raises:
            UserError: see ``export.read_adapter``, or a name that is taken.
        """
        return self.adapters.load(Path(folder), name)

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None) -> Model:
        """Read what ``save`` or a fit wrote.

        Raises:
            UserError: no model there, one of a newer format, or a file that isn't what was written.
        """
        folder = Path(folder)
        network, schema, settings, facts = model_folder.read(folder)
        return cls(network.to(usable(device)), schema, settings, facts, folder)

    from_pretrained = load

    # --- ask ----------------------------------------------------------------------------------------------------------

    def embed(
        self, rows: Any, columns: Sequence[str] | None = None, note: Callable[[str], None] | None = None
    ) -> np.ndarray:
        """Embeddings of rows: a unit vector [rows, gist] for each, from whichever of ``columns`` it has (all by
        default); NaN for a row that can't be read.
        """
        return predict_verbs.embed(self, rows, columns, note)

    def predict(
        self,
        rows: Any,
        column: str,
        seen: Sequence[str] | None = None,
        seed: int = 0,
        note: Callable[[str], None] | None = None,
        candidates: int = 0,
        **options: Any,
    ) -> pa.Table:
        """Predictions of a column, from the row's other columns.

        Returns:
            a table with ``value``, ``probability`` (how sure, 0 to 1) and, for numbers and dates, ``low`` and ``high``:
            the calibrated 90 % interval, or one of the ``coverage`` that is asked; for categories with a ``coverage``
            also ``set``: the classes that hold the truth in so many of all rows like the validation rows, the likeliest
            first. A row of the table that can't be read has no answer; where there are such rows ``bad_row`` says why.
        """
        return predict_verbs.predict(self, rows, column, seen, seed, note, candidates, **options)

    def explain(
        self,
        rows: Any,
        column: str,
        cells: Sequence[Any] | None = None,
        seen: Sequence[str] | None = None,
        among: Any = None,
        seed: int = 0,
        generator: str | None = None,
        note: Callable[[str], None] | None = None,
        done: Callable[[int], None] | None = None,
        inside: str = "occlusion",
    ) -> list[Explanation | None]:
        """Explanations of each row's cell of ``column``.

        They hold the share that each seen column had in it, how much worse its parts would be without each part of a
        seen cell, and from ``among``, which should be the table that the run was trained on, the nearest rows; for a
        category also those of other classes and what would turn the answer (of 2,000 rows, evenly spread).

        Args:
            cells: one for each of ``rows``, as ``generate`` and ``predict`` gave them, from ``seen`` and by
                ``generator``; by default what is predicted now.
            inside: how parts of seen cells are weighed: ``occlusion``, ``gradients`` or ``attention``.
        """
        return explain_verbs.explain_rows(self, rows, column, cells, seen, among, seed, generator, note, done, inside)

    def query(self, table: Any, question: str) -> QueryResult:
        """Answer to a question about many of a table's rows ("Which group has the oldest ones?"), or to one SELECT over
        ``rows``.

        See ``query.query``.

        Returns:
            ``rows``, an Arrow table, ``sql``, the query that was asked, and ``others`` that might have been meant.

        Raises:
            UserError: DuckDB isn't installed, the question speaks of nothing that the table has, or the query can't be
                answered.
        """
        from sensorium.query import QueryEngine

        return QueryEngine.knowing(
            self.open(table), {name: column.kind for name, column in self.schema.columns.items()}
        ).answer(question)

    def surprise(self, rows: Any, note: Callable[[str], None] | None = None) -> pa.Table:
        """Surprise of each row: how unlikely its cells are beside one another, so that wrong labels, swapped files and
        odd rows stand out.

        Returns:
            ``surprise``, the largest of all columns, ``column``, whose that is, and one number for each column: 0 is
            usual, 1 as unusual as one of ten validation rows, larger is odder; null where the row lacks the column or
            has nothing beside it. ``away`` says how far what the row has lies from all that was trained on, in the same
            measure, and ``away of`` the same of its texts, pictures, sounds and series only: what is far is of another
            kind.

        Raises:
            UserError: there were too few validation rows to say what is usual.
        """
        return surprise_verbs.surprise_table(self, rows, note)

    def answers(
        self,
        rows: Any,
        column: str,
        seen: Sequence[str] | None,
        seed: int,
        note: Callable[[str], None] | None = None,
        candidates: int = 0,
        **options: Any,
    ) -> Answers:
        """Predicted cells of a column, with scores."""
        return predict_verbs.answers(self, rows, column, seen, seed, note, candidates, **options)

    def search(
        self,
        query: Mapping[str, Any],
        *,
        among: Any,
        column: str | None = None,
        k: int = 10,
        note: Callable[[str], None] | None = None,
    ) -> pa.Table:
        """Nearest rows: those whose ``column`` (all columns by default) is nearest to a query of any columns.

        Returns:
            a table with ``row`` (number in ``among``) and ``score`` (cosine), best first.

        Raises:
            UserError: a column that the model doesn't know, a query of which no cell can be read, or k below 1.
        """
        return search_verbs.search_table(self, query, among=among, column=column, k=k, note=note)

    def index(
        self,
        table: Any,
        out: str | Path,
        *,
        columns: Sequence[str] | None = None,
        key: str | None = None,
        size: int | None = None,
        finder: str | None = None,
        plan: str = "pca",
        note: Callable[[str], None] | None = None,
        done: Callable[[int], None] | None = None,
    ) -> Index:
        """Write an index of a table's rows to a folder, to be searched, added to and removed from; see
        ``search.index.Index``.

        Args:
            columns: those that are looked at; all of the model's by default.
            key: a column whose cells differ, by which rows are replaced and removed.
            size: dimensions that are kept of each vector, the leading ones of its principal components; all by default.
            finder: what proposes the rows that are looked at, ``hnsw`` or ``lance``; by default all are.
            plan: how rows lie on the page's map, ``pca`` or ``umap``.
            done: is called with the number of rows that were embedded.

        Raises:
            UserError: the model is in no folder, nothing can be indexed, or the key is not each row's own.
        """
        return search_verbs.build_index(
            self,
            table,
            Path(out),
            self.identity(),
            note,
            columns=columns,
            key=key,
            size=size,
            finder=finder,
            plan=plan,
            done=done,
        )

    def open_index(self, folder: str | Path, note: Callable[[str], None] | None = None) -> Index:
        """Index that ``index`` wrote.

        Raises:
            UserError: there is none, or its vectors are another model's.
        """
        return Index.open(Path(folder), self.reader(note), self.identity()["sha256"])

    def reader(self, note: Callable[[str], None] | None) -> Windows:
        """Reader of a table's rows for this model, a window at a time."""
        return search_verbs.reader(self, note)

    def identity(self) -> dict[str, str]:
        """Identity of this model: where it is kept, and what tells it from others."""
        if self.folder is None:
            raise UserError(
                "This model is in no folder yet, and an index names the one that its vectors are of. Save it first: "
                "model.save(FOLDER)."
            )
        return {"run": str(self.folder.resolve()), "sha256": model_folder.identity(self.folder)}


def open_table(table: Any) -> Table:
    """Table from whatever a user hands in."""
    return table if isinstance(table, Table) else Table.open(table)
