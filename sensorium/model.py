"""Model: what a user holds. Each verb is a few lines that delegate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError, warn
from sensorium.core.renamed_settings import renamed_arguments
from sensorium.data.schema import infer
from sensorium.data.table import Table
from sensorium.dialogue.decoding import Sampling
from sensorium.dialogue.evaluate import examine
from sensorium.dialogue.parts import dialogue_column
from sensorium.dialogue.reply import Reply
from sensorium.dialogue.scoring import choose_answers
from sensorium.dialogue.session import Cells, ChatSession
from sensorium.explain import rows as explain_verbs
from sensorium.explain.columns import Explanation
from sensorium.export import hub, model_folder
from sensorium.inference import generate as generate_verbs
from sensorium.inference import predict as predict_verbs
from sensorium.inference import surprise as surprise_verbs
from sensorium.inference.answers import Answers
from sensorium.inference.fill import fill
from sensorium.inference.trained import Trained, UnreadableCells, keep_split
from sensorium.nn.precision import usable
from sensorium.report.types import Evaluation
from sensorium.search import table as search_verbs
from sensorium.search.index import Index, Windows

if TYPE_CHECKING:
    from sensorium.export.language_model import Adapters
    from sensorium.query import QueryResult


class Model(Trained):
    """One trained network and all that is needed to ask it about tables.

    Attributes:
        network: the torch module; schema: its columns; settings: what it was made with.
        facts: what is known of its training (rows, seconds, seed, results on the validation part).
        folder: where it was loaded from or fitted to; None for a model that lives in memory only.
    """

    _adapters: Adapters | None = None

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
        """Write the model for others: with the encoders that columns stand on, what was measured, and a card (``README.md``) that says what the model is; without what tells
        of single training rows, of the table's name or of this machine (see ``docs/privacy.md``).

        Args:
            rows: with the memory of training rows and all else that ``save`` writes, too.

        Raises:
            UserError: the disk is full or can't be written, or the folder holds a run's files that tell of rows, as this model's own does.
        """
        return hub.save_pretrained(self, Path(folder), rows)

    def push_to_hub(self, name: str, *, private: bool = True, token: str | None = None, rows: bool = False) -> str:
        """Give the model to a repository on the Hugging Face hub, ``OWNER/NAME``, made where it isn't there; the address. Nothing else leaves the machine.

        Args:
            rows: with what tells of single training rows; see ``save_pretrained``.

        Raises:
            UserError: the hub's package isn't installed, or it refuses.
        """
        return hub.push_to_hub(self, name, private, token, rows)

    def export_trunk(self, folder: str | Path) -> dict[str, Any]:
        """Write the language model of this model's trunk as ``transformers`` reads it, merged with what was tuned; see ``export.export_trunk``.

        Raises:
            UserError: the trunk is no language model, or the disk is full.
        """
        from sensorium.export.language_model import export_trunk

        return export_trunk(self.network, Path(folder))

    @property
    def adapters(self) -> Adapters:
        """The low-rank updates that the language model can be heard with: ``names``, ``active``, and ``use(name)``; ``own`` are those of this run."""
        from sensorium.export.language_model import Adapters

        if self._adapters is None:
            self._adapters = Adapters(self.network.trunk)
        return self._adapters

    def load_adapter(self, folder: str | Path, name: str | None = None) -> int:
        """Let the language model go on with other low-rank updates, in PEFT's layout (``export_trunk`` writes them to ``adapter``, ``PeftModel.save_pretrained`` too); how many parameters these are.
        Those before stay at hand: ``model.adapters.use("own")``. All else stays as it is, and nothing is written.

        Args:
            name: what it is called from then on; by default as its folder.

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
        """One unit vector [rows, gist] for each row, from whichever of ``columns`` it has (all by default); NaN for a row that can't be read."""
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
        """The column's cells as the model sees them from the row's other columns.

        Returns:
            a table with ``value``, ``probability`` (how sure, 0 to 1) and, for numbers and dates, ``low`` and ``high``: the
            calibrated 90 % interval, or one of the ``coverage`` that is asked; for categories with a ``coverage`` also ``set``: the classes that hold the
            truth in so many of all rows like those held out in training, the likeliest first. A row of the table that can't be read has no answer;
            where there are such rows ``bad_row`` says why.
        """
        return predict_verbs.predict(self, rows, column, seen, seed, note, candidates, **options)

    def generate(
        self,
        rows: Any,
        column: str,
        seen: Sequence[str] | None = None,
        seed: int = 0,
        candidates: int = 0,
        samples: int = 1,
        generator: str | None = None,
        note: Callable[[str], None] | None = None,
        **options: Any,
    ) -> list[Any]:
        """Cells of a column, said from the row's others, in the kind of the column: text, the bytes of a PNG, lists of numbers. Files show themselves in a notebook.

        ``temperature``, ``top_p`` and ``beam`` are options for text. Of pictures, videos, sounds, series and points ``samples`` are drawn for each row, with more
        than one each row's are a list; ``generator`` is one of those that the run learned; ``steps``, ``guidance`` and ``solver`` are
        options for the generator "flow", ``temperature`` for the others.
        Of ``candidates`` texts the one that recognises best what is seen is said; 0: up to 32, 1 where other options are given.
        """
        return generate_verbs.generate(self, rows, column, seen, seed, candidates, samples, generator, note, **options)

    def draw(
        self,
        rows: Any,
        column: str,
        seen: Sequence[str] | None = None,
        seed: int = 0,
        samples: int = 1,
        note: Callable[[str], None] | None = None,
        generator: str | None = None,
        **options: Any,
    ) -> Iterator[list[Any]]:
        """The cells that are drawn for one row after the other; see ``generate``. None for one that failed. What is asked is checked at once."""
        return generate_verbs.draw(self, rows, column, seen, seed, samples, note, generator, **options)

    def forecast(
        self,
        rows: Any,
        column: str,
        horizon: int,
        seen: Sequence[str] | None = None,
        seed: int = 0,
        samples: int = 1,
        note: Callable[[str], None] | None = None,
        **options: Any,
    ) -> list[list[Any]]:
        """The next ``horizon`` steps of each row's series, from the series so far and the columns ``seen``.

        Returns:
            for each row ``samples`` continuations, as the column's cells are; none for a row without a series. A horizon that is longer than what
            can be drawn is cut to that, and ``note`` told.

        Raises:
            UserError: a column that can't be continued, or no horizon.
        """
        return generate_verbs.forecast(self, rows, column, horizon, seen, seed, samples, note, **options)

    def continued(
        self,
        rows: Any,
        column: str,
        horizon: int,
        seen: Sequence[str] | None = None,
        seed: int = 0,
        samples: int = 1,
        note: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Iterator[list[Any]]:
        """As ``forecast``, row after row as they are finished."""
        return generate_verbs.continued(self, rows, column, horizon, seen, seed, samples, note, **options)

    def continues(self, column: str) -> str | None:
        """The generator of a column that can go on from a beginning; None where there is none."""
        return generate_verbs.continues(self, column)

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
        """Why each row's cell of ``column`` was said: the share that each seen column had in it, how much worse its parts would be without each
        part of a seen cell, and from ``among``, which should be the table that the run was trained on, the nearest rows, for a category also those of other
        classes and what would turn the answer (of 2,000 rows, evenly spread).

        ``cells``: one for each of ``rows``, as ``generate`` and ``predict`` gave them, from ``seen`` and by ``generator``; by default what is said now. ``inside``: how it is looked inside
        seen cells: ``occlusion``, ``gradients`` or ``attention``.
        """
        return explain_verbs.explain_rows(self, rows, column, cells, seen, among, seed, generator, note, done, inside)

    @renamed_arguments(heard="on_text")
    def chat(
        self,
        messages: Sequence[Any],
        *,
        cells: Cells = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        sure: float = 0.0,
        index: Index | None = None,
        cited: int = 3,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """Reply of the assistant to a conversation.

        Args:
            messages: in OpenAI's form; parts may bring pictures, sounds and clips (see ``messages.attach_media``), or
                name a cell: ``{"type": "cell", "column": NAME}``.
            cells: the row that such parts are of, or several, of which ``"row": 1`` names the second.
            max_tokens: of the answer. temperature, top_p: how it is sampled; 0 takes the likeliest token each time.
            sure: say "I don't know." where answers like this one were right less often, 0 to 1, on validation
                conversations; see ``Reply.right``.
            index: of this model (``open_index``): ``cited`` of its rows that are like what is shown come with the
                answer; where nothing is shown, those that are like the question are told before it.
            on_text: is called with each piece of the answer; with all of it at its end, where it must be ``sure``.

        Raises:
            UserError: the model doesn't talk, messages are in no order, or a cell can't be read.
        """
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p)
        session = ChatSession(self, sampling, seed=seed, sure=sure, index=index, n_cited=cited)
        return session.reply(messages, cells, on_text)

    def choose(
        self,
        rows: Any,
        question: str,
        options: Sequence[str],
        of: Sequence[str] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> pa.Table:
        """The likeliest of some answers to a question about each row; they may be names that were never learned (zero-shot).

        Args:
            of: columns that are shown; by default those that training conversations referred to.

        Returns:
            ``value``, ``probability``, and a column of probabilities for each option.

        Raises:
            UserError: the model doesn't talk, a column isn't there, or the options are no choice.
        """
        return choose_answers(self, rows, question, options, of, note)

    def query(self, table: Any, question: str) -> QueryResult:
        """The answer to a question about many of a table's rows ("Which group has the oldest ones?"), or to one SELECT over ``rows``: see ``query.query``.

        Returns:
            ``rows``, an Arrow table, ``sql``, the query that was asked, and ``others`` that might have been meant.

        Raises:
            UserError: DuckDB isn't installed, the question speaks of nothing that the table has, or the query can't be answered.
        """
        from sensorium.query import QueryEngine

        return QueryEngine.knowing(
            self.open(table), {name: column.kind for name, column in self.schema.columns.items()}
        ).answer(question)

    def surprise(self, rows: Any, note: Callable[[str], None] | None = None) -> pa.Table:
        """How little each row's cells go together: wrong labels, swapped files and odd rows stand out.

        Returns:
            ``surprise``, the largest of all columns, ``column``, whose that is, and one number for each column: 0 is usual, 1 as unusual as one of ten rows held
            out in training, larger is odder; null where the row lacks the column or has nothing beside it. ``away`` says how far what the row has lies from all that
            was trained on, in the same measure, and ``away of`` the same of its texts, pictures, sounds and series alone: what is far is of another kind.

        Raises:
            UserError: the run held out no rows that could say what is usual.
        """
        return surprise_verbs.surprise_table(self, rows, note)

    def distill(
        self,
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
    ) -> Model:
        """Teach this model to draw a column in one step, which its flow takes many for: a generator ``onestep`` more; all else stays as it is.

        Args:
            table: rows to draw from; of a table that the run was trained on only those rows.
            out: the folder that the model is then saved to; where it was loaded from by default. What a stopped lesson has is kept there.
            minutes: of learning, after the flow has drawn what is learned from; epochs: or passes over that. 10 minutes if neither is given.
            settings: of section ``distill``: ``["distill.pairs=8192"]``.

        Returns:
            this model; ``facts["distilled"]`` says how near the student comes.

        Raises:
            UserError: the column has no flow, the table no rows, or a setting isn't there.
        """
        from sensorium.posttraining.taught import distilled

        distilled(
            self,
            table,
            column,
            out=out,
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            resume=resume,
            settings=settings,
            quiet=quiet,
            note=note,
        )
        return self

    def prefer(
        self,
        table: Any,
        *,
        out: str | Path | None = None,
        minutes: float | None = None,
        epochs: float | None = None,
        seed: int = 0,
        resume: bool = False,
        settings: Mapping[str, Any] | Sequence[str] = (),
        quiet: bool = True,
    ) -> Model:
        """Teach this model which of two answers is better; only what is tuned of its language model changes. With ``prefer.loss=reward`` a judge is taught instead, which scores answers
        (``judged``, ``reinforce``), and the model stays as it is.

        Args:
            table: with columns ``conversation``, ``chosen``, ``rejected``, and those that conversations refer to.
            out: the folder that the model is then saved to; where it was loaded from by default. What a stopped lesson has is kept there.
            minutes, epochs: how long; 10 minutes if neither is given. settings: of section ``prefer``: ``["prefer.beta=0.3"]``.

        Returns:
            this model; ``facts["preferred"]`` (or ``facts["judge"]``) says what was learned.

        Raises:
            UserError: the model doesn't talk, nothing of it is tuned, or the table has no pairs.
        """
        from sensorium.posttraining.taught import preferred

        preferred(
            self,
            table,
            out=out,
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            resume=resume,
            settings=settings,
            quiet=quiet,
        )
        return self

    def reinforce(
        self,
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
    ) -> Model:
        """Let this model draw several answers to each question and learn from which were good (GRPO); only what is tuned of its language model changes.

        Args:
            table: with columns ``conversation``, which ends with the user, ``answer`` (or ``chosen``), the right one, where answers are compared with it, and those that conversations refer to.
            score: of an answer, beside the right one and the row's plain cells: higher is better. By default what ``reinforce.score`` names: exact, contains, words or judge.
            out, minutes, epochs, seed, resume: as of ``prefer``. settings: of section ``reinforce``: ``["reinforce.group=16"]``.

        Returns:
            this model; ``facts["reinforced"]`` says what was learned.

        Raises:
            UserError: the model doesn't talk, nothing of it is tuned, the table has no questions, or there is no judge.
        """
        from sensorium.posttraining.taught import reinforced

        reinforced(
            self,
            table,
            score=score,
            out=out,
            minutes=minutes,
            epochs=epochs,
            seed=seed,
            resume=resume,
            settings=settings,
            quiet=quiet,
        )
        return self

    def judged(self, messages: Sequence[Any], *, cells: Cells = None) -> float:
        """The score of the last answer of a conversation, by the judge that ``prefer`` taught (``prefer.loss=reward``); higher is better, beside other answers to the same question.

        Raises:
            UserError: there is no judge, the last message isn't the assistant's, or as of ``chat``.
        """
        from sensorium.dialogue.reward_model import score_answer

        return score_answer(self, messages, cells)

    def generate_together(
        self,
        rows: Any,
        columns: Sequence[str],
        seen: Sequence[str] | None = None,
        seed: int = 0,
        jointly: bool = False,
        note: Callable[[str], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Several columns of each row, from ``seen`` (by default all but these); ``jointly``: each from those said before it as well.

        Raises:
            UserError: a column that the model doesn't know or can't be asked for, or one that is both asked and seen.
        """
        return list(self.together(rows, columns, seen, seed, jointly, note))

    def together(
        self,
        rows: Any,
        columns: Sequence[str],
        seen: Sequence[str] | None = None,
        seed: int = 0,
        jointly: bool = False,
        note: Callable[[str], None] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """As ``generate_together``, row after row as they are finished."""
        return generate_verbs.generate_together(self, rows, columns, seen, seed, jointly, note)

    def fill(
        self,
        table: Any,
        columns: Sequence[str] | None = None,
        jointly: bool = False,
        seed: int = 0,
        note: Callable[[str], None] | None = None,
        done: Callable[[int], None] | None = None,
    ) -> pa.Table:
        """The table with its empty cells said from the present ones; see ``fill.fill``.

        Args:
            columns: those to fill, which are added where the table lacks them; by default those of its columns that can be asked.
            jointly: what is filled is seen where the row's next column is filled.
        """
        opened, tell = self.open(table), note or warn
        for column in columns or ():
            self.check_asked(column, None)
        heard = UnreadableCells()
        self.report_reading(opened, [c for c in self.network.columns if c not in (columns or ())], tell)
        if columns is not None and not columns:
            raise UserError(f"No column to fill was named. Possible: {', '.join(self.network.asked_columns)}.")
        wanted = [c for c in self.network.asked_columns if (c in opened.columns if columns is None else c in columns)]
        filled = fill(self.network, opened, wanted, jointly=jointly, seed=seed, bad=heard, done=done)
        for words in heard.messages():
            tell(words)
        return filled

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
        """What the model says of a column, with scores."""
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
        """The rows whose ``column`` (all columns by default) is nearest to a query of any columns.

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
        """Write an index of a table's rows to a folder, to be searched, added to and removed from; see ``search.index.Index``.

        Args:
            columns: those that are looked at; all of the model's by default. key: a column whose cells differ, by which rows are replaced and removed.
            size: dimensions that are kept of each vector, the leading ones of its principal components; all by default.
            finder: what proposes the rows that are looked at, ``hnsw`` or ``lance``; by default all are.
            plan: how rows lie on the page's map, ``pca`` or ``umap``. done: hears how many rows were embedded.

        Raises:
            UserError: the model is in no folder, nothing can be indexed, or the key is not each row's own.
        """
        self.check(columns or ())
        matched = [c for c in self.columns if self.network.modalities[c].matched]
        about = {
            "columns": self.columns,
            "matched": matched,
            "gist": self.network.gist_size,
            **self.identity(),
        }
        return Index.build(
            Path(out),
            self.open(table),
            self.reader(note),
            about,
            columns=columns,
            key=key,
            size=size,
            finder=finder,
            plan=plan,
            done=done,
        )

    def open_index(self, folder: str | Path, note: Callable[[str], None] | None = None) -> Index:
        """An index that ``index`` wrote.

        Raises:
            UserError: there is none, or its vectors are another model's.
        """
        return Index.open(Path(folder), self.reader(note), self.identity()["sha256"])

    def reader(self, note: Callable[[str], None] | None) -> Windows:
        """Rows of a table for this model, some at a time."""
        return lambda table, columns: self.windows(table, columns, note)

    def identity(self) -> dict[str, str]:
        """Where this model is kept, and what tells it from others."""
        if self.folder is None:
            raise UserError(
                "This model is in no folder yet, and an index names the one that its vectors are of. Save it first: model.save(FOLDER)."
            )
        return {"run": str(self.folder.resolve()), "sha256": model_folder.identity(self.folder)}

    def examine(
        self,
        table: Any,
        *,
        split: str | None = None,
        about: str | None = None,
        of: Sequence[str] = (),
        seed: int = 0,
        note: Callable[[str], None] = lambda words: None,
    ) -> dict[str, Any]:
        """How well it talks about a table's rows: see ``examine.examine``.

        Raises:
            UserError: the model doesn't talk, or there is nothing to ask about.
        """
        dialogue_column(self.network)
        opened = keep_split(self.open(table), split, self.schema.split)
        return examine(self.network, opened, infer(opened), about=about, of=of, seed=seed, note=note)

    @renamed_arguments(same="entity_key")
    def evaluate(
        self, table: Any, *, split: str | None = None, seen: Sequence[str] | None = None, entity_key: str | None = None
    ) -> dict:
        """Every column, every direction, beside chance and the baselines; see ``evaluation`` for the details behind it."""
        return self.evaluation(table, split=split, seen=seen, entity_key=entity_key, tell=warn).results

    @renamed_arguments(same="entity_key")
    def evaluation(
        self,
        table: Any,
        *,
        split: str | None = None,
        seen: Sequence[str] | None = None,
        entity_key: str | None = None,
        curves: bool = False,
        note: Callable[[str], None] = lambda words: None,
        tell: Callable[[str], None] | None = None,
    ) -> Evaluation:
        """As ``evaluate``, with every prediction and every search; ``note`` hears of progress, ``tell`` of how the table was read (by default ``note`` does)."""
        from sensorium.evaluation.run_report import evaluation_of

        return evaluation_of(
            self, table, split=split, seen=seen, entity_key=entity_key, curves=curves, note=note, tell=tell
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
        """Write the report page (HTML) of this model, measured on at most ``MAX_EVALUATED_ROWS`` rows of a table, evenly spread.

        Raises:
            UserError: the model is in no run's folder, the table has no rows, or the file can't be written.
        """
        from sensorium.evaluation.run_report import write_report_of

        return write_report_of(self, table, Path(out), split, entity_key, note)


def open_table(table: Any) -> Table:
    """A ``Table`` from whatever a user hands in."""
    return table if isinstance(table, Table) else Table.open(table)
