"""Model: what a user holds. Each verb is a few lines that delegate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError

from sensorium.core.errors import UserError, unknown, warn
from sensorium.core.files import whole
from sensorium.core.registry import name_of
from sensorium.core.settings import build, check
from sensorium.data.media import Files
from sensorium.data.order import spread
from sensorium.data.schema import Schema, infer
from sensorium.data.settings import DataSettings
from sensorium.data.table import Table
from sensorium.dialogue.chat import Reply, choose, reply, seen_in, talker, to_answer, told_before, unless_unsure
from sensorium.dialogue.evaluate import examine
from sensorium.evaluation.baselines import Baselines
from sensorium.explain.attribution import check_way
from sensorium.explain.columns import Explanation, explain
from sensorium.export import model_folder
from sensorium.generators import INTERNAL_OPTIONS
from sensorium.inference.fill import BAD_ROW, fill, together
from sensorium.inference.rows import Answers, Rows
from sensorium.inference.surprise import away, of_rows
from sensorium.modalities import Modality
from sensorium.network.build import able_to_generate, plain
from sensorium.network.network import Network
from sensorium.nn.precision import usable
from sensorium.report.types import Evaluation
from sensorium.search.index import Index, Windows
from sensorium.training.trainer import mix

if TYPE_CHECKING:
    from sensorium.export.language_model import Adapters
    from sensorium.query import QueryResult

DRAWN = 64
"""Rows that are read at once where cells are drawn, which takes long: what is finished is handed out."""
BESIDE = 2000
"""Rows of known classes beside which an explained answer is put."""
WINDOW = 4096
"""Rows that are held in memory at once where a large table is asked."""


Cells = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
"""The row that a conversation is about, by columns, or several rows."""


class Model:
    """One trained network and all that is needed to ask it about tables.

    Attributes:
        network: the torch module; schema: its columns; settings: what it was made with.
        facts: what is known of its training (rows, seconds, seed, results on the validation part).
        folder: where it was loaded from or fitted to; None for a model that lives in memory only.
    """

    def __init__(
        self,
        network: Network,
        schema: Schema,
        settings: Mapping[str, Any],
        facts: Mapping[str, Any],
        folder: Path | None = None,
    ) -> None:
        self.network, self.schema, self.settings, self.facts = network.eval(), schema, dict(settings), dict(facts)
        self.folder = folder
        self.data = build(DataSettings, plain(self.settings, "data"), "data")
        self._adapters: Adapters | None = None

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

        return fit(
            cls,
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

    def save(self, folder: str | Path) -> Path:
        """Write the model as safetensors and JSON; a folder that ``load`` reads. Atomic file by file.

        Raises:
            UserError: the disk is full or can't be written.
        """
        folder = Path(folder)
        try:
            model_folder.write(folder, self.network, self.schema, self.settings, self.facts)
            if self.folder is not None and self.folder.resolve() != folder.resolve():
                model_folder.copy_if_there(self.folder, folder, model_folder.BESIDE)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"Can't write the model to '{folder}': {getattr(error, 'strerror', None) or error}."
            ) from error
        self.folder = self.folder or folder
        return folder

    def save_pretrained(self, folder: str | Path, *, rows: bool = False) -> Path:
        """Write the model for others: with the encoders that columns stand on, what was measured, and a card (``README.md``) that says what the model is; without what tells
        of single training rows, of the table's name or of this machine (see ``docs/privacy.md``).

        Args:
            rows: with the memory of training rows and all else that ``save`` writes, too.

        Raises:
            UserError: the disk is full or can't be written, or the folder holds a run's files that tell of rows, as this model's own does.
        """
        from sensorium.report.card import licence, write_card

        folder, encoders = (
            Path(folder),
            {c: m.encoder for c, m in self.network.modalities.items() if m.encoder is not None},
        )
        own = self.folder is not None and self.folder.resolve() == folder.resolve()
        if not rows:
            model_folder.check_given(folder, own)
        try:
            model_folder.write(folder, self.network, self.schema, self.settings, self.facts, rows, own)
            model_folder.copy_backbones(folder, encoders)
            language = getattr(self.network.trunk, "language", None)
            if language is not None:
                model_folder.copy_language(folder, language)
            if self.folder is not None and not own:
                model_folder.copy_beside(self.folder, folder, self.network, rows)
            card = write_card(
                folder,
                {name: column.kind for name, column in self.schema.columns.items()},
                self.facts,
                {
                    c: {"name": e.name, "licence": licence(e.folder), "sha256": e.sha256}
                    for c, e in {**encoders, **({"(the trunk)": language} if language is not None else {})}.items()
                },
                self.schema.left_out,
            )
            with whole(folder / "README.md") as part:
                part.write_text(card, encoding="utf-8")
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"Can't write the model to '{folder}': {getattr(error, 'strerror', None) or error}."
            ) from error
        if rows:
            self.folder = self.folder or folder
        return folder

    def push_to_hub(self, name: str, *, private: bool = True, token: str | None = None, rows: bool = False) -> str:
        """Give the model to a repository on the Hugging Face hub, ``OWNER/NAME``, made where it isn't there; the address. Nothing else leaves the machine.

        Args:
            rows: with what tells of single training rows; see ``save_pretrained``.

        Raises:
            UserError: the hub's package isn't installed, or it refuses.
        """
        import tempfile

        try:
            from huggingface_hub import HfApi
            from huggingface_hub.errors import HfHubHTTPError
        except ModuleNotFoundError as error:
            raise UserError(
                "To give a model to the hub the package 'huggingface_hub' is needed. Install it with: pip install sensorium[backbones]"
            ) from error
        with tempfile.TemporaryDirectory() as folder:
            own, hub = self.folder, HfApi(token=token)
            given = self.save_pretrained(Path(folder) / "model", rows=rows)
            self.folder = own
            try:
                hub.create_repo(name, private=private, exist_ok=True)
                if private and not hub.repo_info(name).private:
                    raise UserError(
                        f"The repository '{name}' is there and public. To give the model to everybody{', with its memory of training rows' if rows else ''}, say private=False."
                    )
                return str(hub.upload_folder(repo_id=name, folder_path=given, ignore_patterns=list(model_folder.OWN)))
            except (HfHubHTTPError, OSError, ValueError) as error:
                raise UserError(
                    f"The hub didn't take '{name}': {type(error).__name__}. Is it OWNER/NAME, and is a token with the right to write known (hf auth login)?"
                ) from error

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

    @property
    def columns(self) -> list[str]:
        """The columns the model knows."""
        return list(self.network.columns)

    def open(self, table: Any) -> Table:
        """A table as this model's run read its own: the same encoding and limits, and paths out of the table's folder where these were allowed."""
        if isinstance(table, Table):
            return table
        return self.data.open(
            table, [name for name, modality in self.network.modalities.items() if modality.as_written]
        )

    def rows(self, table: Any, columns: Sequence[str] | None = None, note: Callable[[str], None] | None = None) -> Rows:
        """Rows read and prepared once, to be asked many times. For tables that fit into memory; see ``windows``."""
        return list(self.windows(table, columns, note, size=None))[0]

    def windows(
        self,
        table: Any,
        columns: Sequence[str] | None = None,
        note: Callable[[str], None] | None = None,
        size: int | None = WINDOW,
    ) -> Iterator[Rows]:
        """The rows of a table, a window at a time, so that memory doesn't grow with the table.

        ``note`` hears once of how the table was read, of columns that lack, and for each column of cells that can't be read, which count as missing;
        by default these are warnings.

        Raises:
            UserError: the table has columns, and none of them is the model's.
        """
        if isinstance(table, Rows):
            yield table
            return
        opened, tell = self.open(table), note or warn
        self.check(columns or ())
        self.tell_of(
            opened, [c for c in self.network.columns if columns is None or c in columns], tell, row_by_row(table)
        )
        heard, strange = UnreadableCells(), dict.fromkeys(() if row_by_row(table) else self.network.columns, "")
        for start in range(0, max(opened.rows, 1), size or max(opened.rows, 1)):
            part = (
                opened
                if size is None or opened.rows <= size
                else opened.select(np.arange(start, min(start + size, opened.rows)))
            )
            read = Rows.of(
                self.network, part, columns, lambda row, column, why, start=start: heard(start + row, column, why)
            )
            for column in list(strange):
                found = self.network.modalities[column].describe_unknown(read.cells.get(column, []))
                if found or not read.has(column).any():
                    strange[column] = found or strange[column]
                else:
                    del strange[column]
            yield read
        for column, known in strange.items():
            if known:
                tell(f"column '{column}': none of its cells is one that the model knows, as {known}")
        for words in heard.words():
            tell(words)

    def tell_of(self, opened: Table, wanted: Sequence[str], tell: Callable[[str], None], partial: bool = False) -> None:
        """Say how a table was read and which wanted columns it lacks; ``partial``: its rows were written by hand, with what is known of each.

        Raises:
            UserError: it has columns, and none of them is the model's.
        """
        known = set(self.network.columns)
        if opened.columns and not known & set(opened.columns):
            raise UserError(
                f"'{opened.name}' has none of this model's columns: it has {', '.join(opened.columns[:8])}{', …' if len(opened.columns) > 8 else ''}, and the model knows "
                f"{', '.join(self.network.columns)}. Rename the table's columns."
            )
        lacking = [c for c in wanted if c not in opened.columns]
        if lacking and (not partial or set(opened.columns) - known):
            strange = [c for c in opened.columns if c not in known] if partial else []
            tell(
                f"'{opened.name}' has no column {', '.join(map(repr, lacking))}: the model answers without."
                + (f" It has {', '.join(map(repr, strange[:8]))}." if strange else "")
            )
        for words in opened.notes:
            tell(words)

    def check(self, columns: Iterable[str]) -> None:
        """Refuse columns that the model doesn't know."""
        if isinstance(columns, str):
            raise UserError(f"Columns are given as a list: ['{columns}'], not '{columns}'.")
        for column in columns:
            if column not in self.network.columns:
                raise unknown("column of this model:", column, self.network.columns)

    def embed(
        self, rows: Any, columns: Sequence[str] | None = None, note: Callable[[str], None] | None = None
    ) -> np.ndarray:
        """One unit vector [rows, gist] for each row, from whichever of ``columns`` it has (all by default); NaN for a row that can't be read."""
        self.check(columns or ())
        found = []
        for part in self.windows(rows, columns, note):
            found.append(part.gists(columns))
            found[-1][list(part.bad)] = np.nan
        return np.concatenate(found)

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
        said = self.answers(rows, column, seen, seed, note, candidates, **options)
        if not said.cells:  # the types that answers have
            return self.predict([{}], column, seen, **options).slice(0, 0)
        parts: dict[str, Any] = {
            "value": said.cells,
            "probability": pa.array(said.confidence, pa.float32(), from_pandas=True),
        }
        if said.sets is not None:
            parts["set"] = said.sets
        if said.interval is not None:
            parts |= {"low": [low for low, _ in said.interval], "high": [high for _, high in said.interval]}
        return pa.table(parts | reasons(said.bad, len(said.cells)))

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
        if samples < 1:
            raise UserError(f"samples={samples}: give at least 1.")
        if column not in self.network.generative_columns:
            if samples > 1:
                raise UserError(
                    f"samples={samples}: of '{column}' one cell is said. Possible for: {', '.join(self.network.generative_columns) or 'none'}."
                )
            if generator is not None and column in self.network.asked_columns:
                self.network.generator(column, generator)
            return self.answers(rows, column, seen, seed, note, candidates, **options).cells
        if candidates:
            raise UserError(
                f"candidates={candidates} is for text; of '{column}' draw several with samples={candidates}."
            )
        drawn = list(self.draw(rows, column, seen, seed, samples, note, generator, **options))
        cells = drawn if samples > 1 else [cells[0] for cells in drawn]
        return Files(cells) if self.network.modalities[column].media else cells

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
        self.check_asked(column, seen)
        chosen = self.options(column, generator, options)
        wanted = [c for c in (self.network.columns if seen is None else seen) if c != column]
        return (
            cells
            for number, part in enumerate(self.windows(rows, wanted, note, size=DRAWN))
            for cells in without_bad(
                part,
                samples,
                lambda good, part=part, number=number: part.generate(
                    column, seen, samples, mix(seed, number), generator, good, **chosen
                ),
            )
        )

    def options(self, column: str, generator: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options for saying or drawing a column, of the types that its generator takes.

        Raises:
            UserError: one that the generator doesn't have or that is out of range.
        """
        way = self.network.generator(column, generator)
        chosen = check(way.sample, given, f"generate for '{column}'", INTERNAL_OPTIONS)
        if way.is_generative:  # nothing of no rows, but what is out of range is told before the first row is read
            way.sample(
                lambda tokens, _: tokens.new_zeros(*tokens.shape[:2], way.width),
                0,
                self.network.seen_mark.weight.device,
                **chosen,
            )
        return chosen

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
        return list(self.continued(rows, column, horizon, seen, seed, samples, note, **options))

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
        self.check_asked(column, [c for c in seen or () if c != column])
        modality = self.network.modalities[column]
        way = self.continues(column)
        if way is None:
            able = [c for c in self.network.generative_columns if self.continues(c)]
            raise UserError(
                f"'{column}' can't be continued: that takes a series that the run learned to draw by flow. Possible: {', '.join(able) or 'none'}."
            )
        chosen = self.options(column, way, options)
        if modality.longest > modality.span:
            raise UserError(
                f"'{column}' can't be continued: training had series of {modality.longest} steps, and averaged them to {modality.span}. Fit with "
                f"column.{column}.length={modality.longest}."
            )
        if samples < 1 or horizon < 1:
            raise UserError(
                f"horizon={horizon}, samples={samples}: needed are at least 1 sample and a horizon of 1 to {modality.span - 1} steps, as "
                f"{modality.span} steps of '{column}' are drawn in all."
            )
        if horizon >= modality.span:
            if note:
                note(
                    f"column '{column}': {modality.span - 1} steps follow instead of {horizon:,}, as {modality.span} are drawn in all, and one at least is what they follow on."
                )
            horizon = modality.span - 1

        def windows() -> Iterator[list[Any]]:
            for number, part in enumerate(
                self.windows(rows, self.network.columns if seen is None else [*seen, column], note, size=DRAWN)
            ):
                long = sum(
                    modality.steps(cell) + horizon > modality.span
                    for cell in part.read.get(column, [])
                    if cell is not None
                )
                if long and note:
                    note(
                        f"column '{column}': of {long} series only the last {modality.span - horizon} steps are looked at, as training saw {modality.span} in all."
                    )
                yield from part.continue_(column, horizon, seen, samples, mix(seed, number), way, **chosen)

        return windows()

    def continues(self, column: str) -> str | None:
        """The generator of a column that can go on from a beginning; None where there is none."""
        if type(self.network.modalities[column]).prefix_tokens is Modality.prefix_tokens:
            return None
        return next(
            (
                way
                for way in self.network.generator_keys.get(column, ())
                if self.network.generator(column, way).can_continue
            ),
            None,
        )

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
        self.check_asked(column, seen)
        check_way(inside, self.network)
        self.network.generator(column, generator)
        wanted = [c for c in (self.network.columns if seen is None else seen) if c != column]
        known, which = None, np.zeros(0, np.int64)
        if among is not None:
            near = self.open(among) if not isinstance(among, Rows) else None
            which = np.arange(near.rows if near is not None else among.count)
            if near is not None and name_of(self.network.modalities[column]) == "category":
                which = spread(which, BESIDE)
                known = self.rows(near.select(which), [column, *wanted], note)
            else:
                known = self.rows(among, [column], note)
        if known is not None and not known.has(column).any():
            raise UserError(
                f"The table to look for near copies in has no cell of '{column}' that can be read. Give the one that the run was trained on."
            )
        result: list[Explanation | None] = []
        for number, part in enumerate(self.windows(rows, wanted, note, size=DRAWN)):
            here = list(
                self.said(part, column, seen, mix(seed, number), generator)
                if cells is None
                else cells[len(result) : len(result) + part.count]
            )
            for row in part.bad:
                here[row : row + 1] = [None]
            if len(here) != part.count:
                raise UserError(
                    f"{len(cells or ())} cells to explain, but more rows. Give one cell for each row, None for those to leave out."
                )
            result += explain(part, column, here, seen, generator, mix(seed, number), known, done, inside)
        for why in result:
            if why is not None:
                why.nearest, why.contrast = (
                    [(int(which[row]), away) for row, away in some] for some in (why.nearest, why.contrast)
                )
                if why.turned is not None:
                    why.turned.row = int(which[why.turned.row])
        return result

    def said(self, rows: Rows, column: str, seen: Sequence[str] | None, seed: int, generator: str | None) -> list[Any]:
        """What is said or drawn of a column for rows that were read."""
        if column in self.network.generative_columns:
            return [cells[0] for cells in rows.generate(column, seen, 1, seed, generator)]
        return rows.predict(column, seen, seed=seed).cells

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
        heard: Callable[[str], None] | None = None,
    ) -> Reply:
        """Go on with a conversation.

        Args:
            messages: in OpenAI's form; parts may bring pictures, sounds and clips (see ``chat.seen_in``), or name a cell: ``{"type": "cell", "column": NAME}``.
            cells: the row that such parts are of, or several, of which ``"row": 1`` names the second. max_tokens: of the answer; temperature, top_p: how it is drawn, 0 takes the likeliest word each time.
            sure: say "I don't know." where answers like this one were right less often, 0 to 1, on conversations held out; see ``Reply.right``.
            index: of this model (``open_index``): ``cited`` of its rows that are like what is shown come with the answer; where nothing is shown, those that are like the question are told before it.
            heard: is told each piece of the answer as it is said; all of it at its end, where it must be ``sure``.

        Raises:
            UserError: the model doesn't talk, messages are in no order, or a cell can't be read.
        """
        rows, given = self.conversation(messages, cells)
        found = [] if index is None else self.looked_up(rows, given, index, cited)
        if found and not rows.cells:
            given = told_before(self.network, given, found)
        generator = torch.Generator().manual_seed(seed)
        early = None if heard is None or sure > 0 else lambda _, text: heard(text)
        answer = unless_unsure(
            reply(
                self.network,
                rows,
                [0],
                [given],
                longest=max_tokens,
                temperature=temperature,
                top_p=top_p,
                generator=generator,
                heard=early,
            )[0],
            sure,
        )
        if heard and sure > 0:
            heard(answer.text)
        return dataclasses.replace(answer, cited=found)

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
        known = self.network.modalities[talker(self.network)].referred
        columns = (
            list(of) if of else [c for c in self.columns if c in known or name_of(self.network.modalities[c]) in known]
        )
        self.check(columns)
        chances, bad, count = [], {}, 0
        for read in self.windows(rows, columns, note):
            chances.append(choose(self.network, read, columns, question, options))
            chances[-1][list(read.bad)] = np.nan
            bad |= {count + row: why for row, why in read.bad.items()}
            count += read.count
        chance = np.concatenate(chances)
        best = [None if row in bad else options[at] for row, at in enumerate(chance.argmax(1).tolist())]
        return pa.table(
            {
                "value": pa.array(best, pa.string()),
                "probability": pa.array(chance.max(1), pa.float32(), from_pandas=True),
                **{
                    option: pa.array(chance[:, at], pa.float32(), from_pandas=True) for at, option in enumerate(options)
                },
                **reasons(bad, count),
            }
        )

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

    def looked_up(self, rows: Rows, given: Sequence[Any], index: Index, count: int) -> list[dict[str, Any]]:
        """Rows of an index that are like the row that a conversation is about, or, where it is about none, like its last question; none where neither can be searched by."""
        able = [c for c in index.store.about["columns"] if c in self.network.modalities]
        if not any(rows.has(c).any() for c in able if c in rows.cells):
            words = next((c for c in able if name_of(self.network.modalities[c]) == "text"), None)
            if words is None or rows.cells:
                return []
            rows = Rows.of(
                self.network,
                Table.open([{words: " ".join(part for part in given[-1][1] if isinstance(part, str))}]),
                [words],
            )
        return index.search_rows(rows, k=count)[-1].to_pylist()

    def conversation(self, messages: Sequence[Any], cells: Cells = None) -> tuple[Rows, list[Any]]:
        """The row that a conversation is about, read, with those that follow, and its messages as roles with parts; see ``chat``."""
        talker(self.network)
        told = [cells] if isinstance(cells, Mapping) else list(cells or ())
        cleaned, brought = seen_in(messages, self.network, told)
        given = to_answer(cleaned)
        every = [
            {column: cell for column, cell in row.items() if column in self.columns and cell is not None}
            for row in brought
        ]
        for column, at in (
            (part["column"], part.get("row", 0)) for _, parts in given for part in parts if isinstance(part, dict)
        ):
            row = every[at] if at < len(every) else {}
            if column not in row and not any(name_of(self.network.modalities[c]) == column for c in row):
                raise UserError(
                    f"The conversation refers to '{column}', which isn't there. Give it with cells={{'{column}': …}}, or bring it in the message. Columns: {', '.join(self.columns)}."
                )

        def bad(number: int, column: str, reason: str) -> None:
            raise UserError(f"The {column} of the conversation can't be read: {reason}.")

        used = [c for c in self.columns if any(c in row for row in every)]
        table = Table.open([{c: row.get(c) for c in used} or {self.columns[0]: None} for row in every])
        return Rows.of(
            self.network, table, [c for c in used if not self.network.modalities[c].is_dialogue], bad=bad
        ), given

    def surprise(self, rows: Any, note: Callable[[str], None] | None = None) -> pa.Table:
        """How little each row's cells go together: wrong labels, swapped files and odd rows stand out.

        Returns:
            ``surprise``, the largest of all columns, ``column``, whose that is, and one number for each column: 0 is usual, 1 as unusual as one of ten rows held
            out in training, larger is odder; null where the row lacks the column or has nothing beside it. ``away`` says how far what the row has lies from all that
            was trained on, in the same measure, and ``away of`` the same of its texts, pictures, sounds and series alone: what is far is of another kind.

        Raises:
            UserError: the run held out no rows that could say what is usual.
        """
        if not self.network.surprise_quantiles:
            raise UserError(
                "This run has held out too few rows to say what is usual: 20 are needed for validation. Fit it on more rows."
            )
        parts, far, bad, count = [], [], {}, 0
        for part in self.windows(rows, None, note):
            parts.append(of_rows(part))
            far.append(away(part))
            bad |= {count + row: why for row, why in part.bad.items()}
            count += part.count
        each, far = (
            {column: np.concatenate([part[column] for part in some]) for column in some[0]} for some in (parts, far)
        )
        known = np.stack(list(each.values()), 1)
        most, some = np.where(np.isfinite(known), known, -np.inf), np.isfinite(known).any(1)
        names = [list(each)[place] if there else None for place, there in zip(most.argmax(1), some, strict=True)]
        return pa.table(
            {
                "surprise": pa.array(np.where(some, most.max(1), np.nan), pa.float32(), from_pandas=True),
                "column": pa.array(names, pa.string()),
                **{f"of {column}": pa.array(values, pa.float32(), from_pandas=True) for column, values in each.items()},
                **{
                    f"away of {kind}" if kind else "away": pa.array(values, pa.float32(), from_pandas=True)
                    for kind, values in far.items()
                },
                **reasons(bad, count),
            }
        )

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

        return distilled(
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

        return preferred(
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

        return reinforced(
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

    def judged(self, messages: Sequence[Any], *, cells: Cells = None) -> float:
        """The score of the last answer of a conversation, by the judge that ``prefer`` taught (``prefer.loss=reward``); higher is better, beside other answers to the same question.

        Raises:
            UserError: there is no judge, the last message isn't the assistant's, or as of ``chat``.
        """
        from sensorium.dialogue.reward_model import FILE, RewardModel

        given = list(messages)
        if not given or dict(given[-1]).get("role") != "assistant":
            raise UserError("The last message of what is judged is by the assistant.")
        rows, before = self.conversation(given[:-1], cells)
        judge = RewardModel.load((self.folder or Path()) / FILE, self.network)
        return float(judge.scores(self.network, rows, [0], [[*before, ("assistant", [str(given[-1]["content"])])]])[0])

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
        self.check(columns)
        for column in columns:
            self.check_asked(column, seen)
        if not columns:
            raise UserError(f"No column was asked for. Possible: {', '.join(self.network.asked_columns)}.")
        if set(columns) & set(seen or ()):
            raise UserError(
                f"Asked: {', '.join(columns)}; seen: {', '.join(seen or ())}. A column is either asked or seen."
            )
        wanted = [c for c in (self.network.columns if seen is None else seen) if c not in columns]
        return (
            dict.fromkeys(columns) if place in part.bad else row
            for number, part in enumerate(self.windows(rows, wanted, note, size=DRAWN))
            for place, row in enumerate(
                together(self.network, part, columns, seen, jointly=jointly, seed=mix(seed, number))
            )
        )

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
        self.tell_of(opened, [c for c in self.network.columns if c not in (columns or ())], tell)
        if columns is not None and not columns:
            raise UserError(f"No column to fill was named. Possible: {', '.join(self.network.asked_columns)}.")
        wanted = [c for c in self.network.asked_columns if (c in opened.columns if columns is None else c in columns)]
        filled = fill(self.network, opened, wanted, jointly=jointly, seed=seed, bad=heard, done=done)
        for words in heard.words():
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
        if candidates < 0:
            raise UserError(
                f"candidates={candidates}: give 1 for the likeliest text, more to choose from, or 0 for as many as are cheap."
            )
        self.check_asked(column, seen)
        if column in self.network.generative_columns:
            raise UserError(f"A cell of '{column}' is drawn, not predicted. Ask for it with: generate.")
        wanted = [c for c in (self.network.columns if seen is None else seen) if c != column]
        chosen = self.options(column, None, options)
        said = [
            part.predict(column, seen, seed=mix(seed, i), candidates=candidates, **chosen).without(part.bad)
            for i, part in enumerate(self.windows(rows, wanted, note))
        ]
        return Answers.joined(said)

    def check_asked(self, column: str, seen: Sequence[str] | None) -> None:
        """Refuse columns that the model doesn't know or can't be asked for."""
        self.check([column])
        self.check(seen or ())
        if seen and set(seen) == {column}:
            raise UserError(f"Asked: {column}; seen: {', '.join(seen or ())}. A column is either asked or seen.")
        if column not in self.network.asked_columns:
            kind = name_of(self.network.modalities[column])
            able = column in able_to_generate(self.network.modalities)
            why = (
                f"which this run did not learn to generate. Fit with --generate {column}."
                if able
                else "which can be read but not generated."
            )
            raise UserError(
                f"Column '{column}' holds {kind}, {why} Possible: {', '.join(self.network.asked_columns) or 'none'}."
            )

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
        self.check([*query, *([column] if column else [])])
        if k < 1:
            raise UserError(f"k={k}: a search finds at least one row.")
        heard: list[str] = []
        one = self.rows([dict(query)], list(query), heard.append) if query else None
        if one is None or not any(one.has(c).any() for c in query):
            why = "; ".join(heard) or f"{', '.join(query) or 'it'} is empty"
            raise UserError(f"The query says nothing that could be looked for: {why}.")
        for words in heard:
            (note or warn)(words)
        asked = one.gists(list(query))
        numbers, parts, start = [], [], 0
        for part in self.windows(among, [column] if column else None, note):
            if column is None:
                number = np.array([row for row in range(part.count) if row not in part.bad], np.int64)
                gists = part.gists()[number]
            elif self.network.modalities[column].matched:
                number, gists = part.column_gists(column)
            else:
                number = np.flatnonzero(part.has(column))
                gists = part.gists([column])[number]
            numbers.append(number + start)
            parts.append(gists)
            start += part.count
        number, gists = np.concatenate(numbers), np.concatenate(parts)
        scores = gists @ asked[0]
        best = np.argsort(-scores, kind="stable")[:k]
        return pa.table({"row": pa.array(number[best], pa.int64()), "score": pa.array(scores[best], pa.float32())})

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
            "gist": self.network.to_gist.out_features,
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
        talker(self.network)
        opened = keep_split(self.open(table), split, self.schema.split)
        return examine(self.network, opened, infer(opened), about=about, of=of, seed=seed, note=note)

    def evaluate(
        self, table: Any, *, split: str | None = None, seen: Sequence[str] | None = None, same: str | None = None
    ) -> dict:
        """Every column, every direction, beside chance and the baselines; see ``evaluation`` for the details behind it."""
        return self.evaluation(table, split=split, seen=seen, same=same, tell=warn).results

    def evaluation(
        self,
        table: Any,
        *,
        split: str | None = None,
        seen: Sequence[str] | None = None,
        same: str | None = None,
        curves: bool = False,
        note: Callable[[str], None] = lambda words: None,
        tell: Callable[[str], None] | None = None,
    ) -> Evaluation:
        """As ``evaluate``, with every prediction and every search; ``note`` hears of progress, ``tell`` of how the table was read (by default ``note`` does)."""
        from sensorium.evaluation.evaluate import evaluate
        from sensorium.training.run_folder import known_rows

        opened = keep_split(self.open(table), split, self.schema.split)
        self.tell_of(opened, self.network.columns, tell or note)
        baselines = (
            Baselines.load(self.folder / "baselines") if self.folder and (self.folder / "baselines").is_dir() else None
        )
        result = evaluate(self.network, opened, seen=seen, same=same, baselines=baselines, curves=curves, note=note)
        result.results["trained_on"] = known_rows(self.folder, opened, self.columns)
        return result

    def report(
        self,
        table: Any,
        out: str | Path,
        *,
        split: str | None = None,
        same: str | None = None,
        note: Callable[[str], None] = lambda words: None,
    ) -> Path:
        """Write the report page (HTML) of this model, measured on at most ``MOST_EVALUATED`` rows of a table, evenly spread.

        Raises:
            UserError: the model is in no run's folder, the table has no rows, or the file can't be written.
        """
        from sensorium.evaluation.report_data import KNOWN, report_run
        from sensorium.fit.fit import MOST_EVALUATED
        from sensorium.training.run_folder import trained_on

        if self.folder is None:
            raise UserError(
                "This model is in no folder yet, and the report shows what its run wrote there. Save it first: model.save(FOLDER)."
            )
        whole = self.open(table)
        opened = keep_split(whole, split, self.schema.split)
        if not opened.rows:
            raise UserError(f"'{opened.name}' has no rows to report on.")
        part = opened.select(spread(np.arange(opened.rows), MOST_EVALUATED))
        notes = [
            f"Measured on {part.rows:,} of {opened.rows:,} rows of '{opened.name}'"
            + (f", '{split}'." if split else ".")
        ]
        known = trained_on(self.folder, whole, self.columns)
        kept = None if known is None or not known.any() else (whole, spread(np.flatnonzero(known), KNOWN))
        report_run(
            Path(out), self, part, self.evaluation(part, same=same, curves=True, note=note), notes, self.folder, kept
        )
        return Path(out)


class UnreadableCells:
    """Hears of cells that can't be read, and tells of each column how many, the first row and why."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {}

    def __call__(self, row: int, column: str, why: str) -> None:
        self.columns.setdefault(column, [0, row, why])[0] += 1

    def words(self) -> list[str]:
        """What to tell, a line a column."""
        return [
            f"column '{column}': {count} cell(s) can't be read and count as missing; the first is row {first}: {why}"
            for column, (count, first, why) in self.columns.items()
        ]


def row_by_row(table: Any) -> bool:
    """Whether rows were written by hand: a dict of cells or a list of dicts, which say of each row what is known of it."""
    return isinstance(table, Mapping) or (
        isinstance(table, list | tuple) and all(isinstance(row, Mapping) for row in table)
    )


def reasons(bad: Mapping[int, str], rows: int) -> dict[str, pa.Array]:
    """The column ``bad_row``: why a row can't be read, null for those that can; nothing where all can."""
    return {BAD_ROW: pa.array([bad.get(row) for row in range(rows)], pa.string())} if bad else {}


def without_bad(
    part: Rows, samples: int, draw: Callable[[np.ndarray | None], Iterator[list[Any]]]
) -> Iterator[list[Any]]:
    """What is drawn for the rows of a window, None for those that can't be read; ``draw`` takes the rows to draw for, None for all."""
    if not part.bad:
        yield from draw(None)
        return
    drawn = draw(np.array([row for row in range(part.count) if row not in part.bad], np.int64))
    for row in range(part.count):
        yield [None] * samples if row in part.bad else next(drawn)


def open_table(table: Any) -> Table:
    """A ``Table`` from whatever a user hands in."""
    return table if isinstance(table, Table) else Table.open(table)


def keep_split(table: Table, split: str | None, column: str | None) -> Table:
    """The rows whose split column says ``split``."""
    if split is None:
        return table
    column = column or "split"
    if column not in table.columns:
        raise UserError(
            f"--split {split} was asked, but '{table.name}' has no column '{column}'. "
            f"Columns: {', '.join(table.columns)}."
        )
    values = np.array(
        [str(cell) for _, batch in table.batches(columns=[column]) for cell in batch.column(0).to_pylist()],
        dtype=object,
    )
    rows = np.flatnonzero(values == split)
    if not len(rows):
        raise unknown(f"value of '{column}' in '{table.name}':", split, set(values.tolist()))
    return table.select(rows)
