"""In the process that holds the model: what waiting requests ask of it, those of one kind together.

It knows verbs, rows and the model, nothing of HTTP. A request that is wrong is answered with words and doesn't touch its neighbours.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.core.registry import name_of
from sensorium.data.cells import lines
from sensorium.serve.process import go_on_or_cut, tell

if TYPE_CHECKING:
    from sensorium.data.table import Table
    from sensorium.inference.rows import Rows
    from sensorium.model import Model
    from sensorium.search.index import Index

NEAR, LOOKED = 4, 64
"""Rows that are shown beside an explained answer, not counting the row itself, and the nearest ones that they are taken from."""


OFTEN = 0.05
"""Seconds after which a network looks up again."""
CITED = 3
"""Rows of the index that come with what is said in a conversation."""


class RequestRefused(Exception):
    """What is wrong with one request; ``row`` and ``column`` say where."""

    def __init__(self, words: str, row: int | None = None, column: str | None = None) -> None:
        super().__init__(words)
        self.said = {"wrong": words, "row": row, "column": column}


class ModelWorker:
    """A model, perhaps an index of rows for it, and the verbs that requests may ask."""

    def __init__(self, model: Model, index: Index | None, table: Table | None = None) -> None:
        self.model, self.index = model, index
        self.shown = None if index is None or table is None else index.rows_in(table)
        self.verbs: dict[str, Callable[..., list[Any]]] = {
            "embed": self.embed,
            "predict": self.predict,
            "generate": self.generate,
            "search": self.search,
            "explain": self.explain,
            "surprise": self.surprise,
            "map": self.map,
            "talk": self.talk,
        }

    def about(self) -> dict[str, Any]:
        """What is known of the model: its columns, and what can be asked of them."""
        network, columns = self.model.network, {}
        for column, modality in network.modalities.items():
            asked = column in network.asked_columns
            tokens = modality.tokens() if asked else None
            columns[column] = {
                "kind": name_of(modality),
                "media": modality.media,
                "talks": modality.is_dialogue,
                "asked": asked,
                "drawn": column in network.generative_columns,
                "searched": modality.matched,
                "generators": list(network.generator_keys.get(column, ())),
                "ending": modality.ending,
                "classes": [str(value) for value in getattr(modality, "classes", [])][:200],
                "tokens": tokens.length if tokens else None,
            }
        index = None
        if self.index is not None:
            index = {
                "rows": len(self.index),
                "columns": self.index.store.about["columns"],
                "among": self.index.store.about["kinds"][1:],
                "recall": self.index.store.about["recall"],
                "size": self.index.store.about["size"],
                "table": self.index.store.about["table"],
                "elsewhere": 0 if self.shown is None else int(((self.shown < 0) & ~self.index.store.gone).sum()),
            }
        facts = {
            key: value
            for key, value in self.model.facts.items()
            if key in ("rows", "seconds", "seed", "steps", "table", "targets", "results", "parameters")
        }
        return {
            "columns": columns,
            "gist": network.to_gist.out_features,
            "index": index,
            "facts": facts,
            "surprise": list(network.surprise_quantiles),
        }

    def __call__(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """One kind of jobs, each ``rows``, of which the first ``strict`` must be readable, and perhaps ``without``; for each ``{"said": ..}`` or ``{"wrong": ..}``."""
        said: list[dict[str, Any]] = [{} for _ in message["jobs"]]
        fine: list[int] = []
        for number, job in enumerate(message["jobs"]):
            try:
                job["number"] = number
                job["read"] = [self.read(cells, row, row < job["strict"]) for row, cells in enumerate(job["rows"])]
                seen = self.model.columns if message["options"].get("seen") is None else message["options"]["seen"]
                empty = [
                    row
                    for row, read in enumerate(job["read"])
                    if not any(len(cell) for column, (cell, _) in read.items() if column in seen)
                ]
                if empty and message["verb"] in ("embed", "search"):
                    raise RequestRefused("it holds nothing that could be looked at", empty[0])
                job["barred"] = [self.read(cells, row) for row, cells in enumerate(job.get("without", ()))]
                fine.append(number)
            except RequestRefused as wrong:
                said[number] = wrong.said
        self.answer(message, fine, said)
        return said

    def answer(self, message: dict[str, Any], which: Sequence[int], said: list[dict[str, Any]]) -> None:
        """Put what is said of some jobs in its place; what is wrong is told to whom it concerns, which is found out by asking each alone."""
        try:
            found = (
                self.verbs[message["verb"]]([message["jobs"][number] for number in which], **message["options"])
                if which
                else []
            )
            for number, answer in zip(which, found, strict=True):
                said[number] = {"said": answer}
        except UserError as error:
            if len(which) == 1:
                said[which[0]] = RequestRefused(str(error)).said
                return
            for number in which:
                self.answer(message, [number], said)

    def read(self, cells: dict[str, Any], row: int, strict: bool = True) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """A row's cells as they are read and as they are prepared; files were decoded before. Those that can't be read are missing unless it is ``strict``."""
        found = {}
        for column, cell in cells.items():
            modality = self.model.network.modalities[column]
            try:
                read = cell if modality.media else modality.read(cell)
                found[column] = read, modality.prepare(read) if len(read) else read
            except BadCell as error:
                if strict:
                    raise RequestRefused(str(error), row, column) from None
        return found

    def rows(self, jobs: Sequence[dict[str, Any]], which: str = "read") -> Rows:
        """The rows of all jobs, one after the other."""
        from sensorium.inference.rows import Rows

        every = [read for job in jobs for read in job[which]]
        columns, none = [c for c in self.model.columns if any(c in read for read in every)], (None, None)
        read, prepared = ({c: [row.get(c, none)[side] for row in every] for c in columns} for side in (0, 1))
        return Rows(self.model.network, prepared, read, len(every))

    # --- verbs --------------------------------------------------------------------------------------------------------

    def embed(
        self, jobs: Sequence[dict[str, Any]], seen: Sequence[str] | None = None, size: int | None = None
    ) -> list[Any]:
        """Each job's vectors [rows, size] of length 1, turned as the index's are where there is one, and how many tokens were read."""
        from sensorium.search.store import turned

        rows = self.rows(jobs)
        gists = rows.gists(seen)
        most = gists.shape[1] if self.index is None else self.index.store.turn.shape[1]
        if size is not None and size > most:
            raise UserError(f"Vectors of {size} dimensions are asked; they have {most}.")
        if self.index is not None:
            gists = turned(gists, self.index.store.turn[:, : size or None])
        elif size not in (None, most):
            raise UserError(
                f"This model's vectors have {most} dimensions, and which of them matter most only an index says. Serve one with it to have {size}."
            )
        tokens = read_tokens(rows)
        return [
            {"vectors": np.ascontiguousarray(part), "tokens": int(count.sum())}
            for part, count in zip(split(gists, jobs), split(tokens, jobs), strict=True)
        ]

    def predict(
        self,
        jobs: Sequence[dict[str, Any]],
        column: str,
        seen: Sequence[str] | None = None,
        coverage: float | None = None,
    ) -> list[Any]:
        """Each job's answers, a mapping a row."""
        options = {} if coverage is None else {"coverage": coverage}
        rows = self.rows(jobs)
        said, tokens = self.model.predict(rows, column, seen, **options).to_pylist(), read_tokens(rows)
        return [
            {"answers": part, "tokens": int(count.sum())}
            for part, count in zip(split(said, jobs), split(tokens, jobs), strict=True)
        ]

    def generate(
        self,
        jobs: Sequence[dict[str, Any]],
        column: str,
        seen: Sequence[str] | None = None,
        samples: int = 1,
        generator: str | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> list[Any]:
        """Each job's cells, a list of samples a row; new ones each time where no seed is given."""
        rows, seed = self.rows(jobs), secrets.randbelow(2**31) if seed is None else seed
        if column in self.model.network.generative_columns:
            said = list(self.model.draw(rows, column, seen, seed, samples, None, generator, **options))
        else:
            cells = self.model.generate(rows, column, seen, seed, samples=samples, generator=generator, **options)
            said = [[cell] for cell in cells]
        return [
            {"cells": part, "tokens": int(count.sum())}
            for part, count in zip(split(said, jobs), split(read_tokens(rows), jobs), strict=True)
        ]

    def talk(
        self,
        jobs: Sequence[dict[str, Any]],
        tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        sure: float = 0.0,
        cite: int = CITED,
    ) -> list[Any]:
        """How the assistant goes on with each job's ``messages``, as roles with parts, about its first row and those after it. With an index ``cite`` of its rows come along (``Model.looked_up``)."""
        import torch

        from sensorium.dialogue.chat import reply, to_answer, told_before, unless_unsure

        given, cited = [to_answer(job["messages"]) for job in jobs], [[] for _ in jobs]
        for number, job in enumerate(jobs if self.index is not None and cite else ()):
            row = self.rows([job])
            cited[number] = self.model.looked_up(row, given[number], self.index, cite)
            if not row.cells:
                given[number] = told_before(self.model.network, given[number], cited[number])
        rows, drawn = self.rows(jobs), torch.Generator().manual_seed(secrets.randbelow(2**31) if seed is None else seed)

        def heard(number: int, text: str) -> None:
            go_on_or_cut()
            if jobs[number].get("told") and not sure:  # what must be sure is told when all of it is said
                tell([jobs[number]["number"], text])

        starts = np.cumsum([0, *(len(job["rows"]) for job in jobs)])[:-1].tolist()
        said = [
            unless_unsure(one, sure)
            for one in reply(
                self.model.network,
                rows,
                starts,
                given,
                longest=tokens,
                temperature=temperature,
                top_p=top_p,
                generator=drawn,
                heard=heard,
            )
        ]
        return [
            {
                "text": one.text,
                "tokens": one.prompt,
                "said": one.tokens,
                "ended": one.ended,
                "right": one.right,
                "unsure": one.unsure,
                "recalled": one.recalled,
                "cited": found,
            }
            for one, found in zip(said, cited, strict=True)
        ]

    def search(
        self,
        jobs: Sequence[dict[str, Any]],
        among: str | None = None,
        k: int = 10,
        condition: str | None = None,
        weights: dict[str, float] | None = None,
    ) -> list[Any]:
        """Each job's rows, nearest first."""
        if self.index is None:
            raise UserError(
                "This server has no index to search in. Make one with: sensorium index RUN TABLE --out INDEX, and start: sensorium serve RUN INDEX"
            )
        query = self.rows(jobs)
        barred = [{**job, "barred": job["barred"] or [{} for _ in job["rows"]]} for job in jobs]
        without = self.rows(barred, "barred") if any(job["barred"] for job in jobs) else None
        found = [
            self.placed(lines(table))
            for table in self.index.search_rows(
                query, among=among, k=k, condition=condition, without=without, weights=weights
            )
        ]
        return split(found, jobs)

    def placed(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of the index with their numbers in the table that is shown, ``table_row``; None where it doesn't have them."""
        if self.shown is not None:
            for line in found:
                there = int(self.shown[line["row"]])
                line["table_row"] = there if there >= 0 else None
        return found

    def explain(
        self,
        jobs: Sequence[dict[str, Any]],
        column: str,
        seen: Sequence[str] | None = None,
        seed: int = 0,
        cells: Sequence[Any] | None = None,
        inside: str = "occlusion",
    ) -> list[Any]:
        """Each job's explanations, ``Why`` as JSON, with the nearest rows of the index."""
        rows = self.rows(jobs)
        given = None if cells is None else list(cells)
        if given is None and column not in self.model.network.generative_columns:
            given = self.model.answers(rows, column, seen, seed).cells
        whys = [
            why.to_json() if why is not None else None
            for why in self.model.explain(rows, column, given, seen, seed=seed, inside=inside)
        ]
        from sensorium.media.images import png

        modalities = self.model.network.modalities
        for number, why in enumerate(whys):
            if why is not None:
                why["answer"] = given[number] if given is not None else None
                seen_as = {
                    c: modalities[c].as_image(rows.read[c][number])
                    for c in why["parts"]
                    if c in rows.read and rows.read[c][number] is not None
                }
                why["pictures"] = {c: png(pixels) for c, pixels in seen_as.items() if pixels is not None}
        if self.index is not None:
            shown = [c for c in self.index.store.about["columns"] if c != column and (seen is None or c in seen)]
            for why, near in zip(whys, self.near(rows, column, shown, given), strict=True):
                if why is not None:
                    why["index"] = near
        return split(whys, jobs)

    def near(
        self, rows: Rows, column: str, shown: Sequence[str], answers: Sequence[Any] | None
    ) -> list[dict[str, Any]]:
        """For each row the nearest of the index by some columns: of the answer's class and of others where the column is one of its plain cells."""
        from sensorium.search.store import turned

        found = []
        for number, table in enumerate(
            self.index.nearest(turned(rows.gists(shown), self.index.store.turn), None, LOOKED)
        ):
            some = self.placed(lines(table.select([c for c in ("row", "score", column) if c in table.column_names])))
            if (
                column not in table.column_names
                or answers is None
                or name_of(self.model.network.modalities[column]) != "category"
            ):
                found.append({"nearest": some[: NEAR + 1], "contrast": []})
                continue
            same = [line for line in some if line[column] == answers[number]]
            other = [line for line in some if line[column] is not None and line[column] != answers[number]]
            found.append({"nearest": same[: NEAR + 1], "contrast": other[:NEAR]})
        return found

    def map(self, jobs: Sequence[dict[str, Any]]) -> list[Any]:
        """Where each row of the index lies on its map: its number in the table that is shown, and both directions of 0 to 1; without those that the table doesn't have."""
        if self.index is None:
            raise UserError("This server has no index, which a map is of.")
        some, places = self.index.places()
        there = np.arange(len(self.index.store.gone)) if self.shown is None else self.shown
        return [
            [[int(there[row]), float(x), float(y)] for row, (x, y) in zip(some, places, strict=True) if there[row] >= 0]
            for _ in jobs
        ]

    def surprise(self, jobs: Sequence[dict[str, Any]]) -> list[Any]:
        """How little each row's cells go together, a mapping a row."""
        return split(self.model.surprise(self.rows(jobs)).to_pylist(), jobs)


def split(said: Any, jobs: Sequence[dict[str, Any]]) -> list[Any]:
    """What was said of all rows, by job."""
    result, at = [], 0
    for job in jobs:
        result.append(said[at : at + len(job["rows"])])
        at += len(job["rows"])
    return result


def read_tokens(rows: Rows) -> np.ndarray:
    """How many tokens the trunk reads of each row, [n]."""
    count = np.zeros(rows.count, np.int64)
    for part in rows.encoded_cache.values():
        count[part.index.cpu().numpy()] += part.mask.sum(1).cpu().numpy()
    return count


def begin(
    run: str, index: str | None, table: str | None, threads: int, device: str | None
) -> tuple[dict[str, Any], Any]:
    """In the child: load all, and say what it is."""
    import torch

    from sensorium.backbones._feature_cache import LIMIT
    from sensorium.model import Model

    torch.set_num_threads(threads)
    os.environ[LIMIT] = "0"  # of what people ask no features stay on the disk
    model = Model.load(Path(run), device)
    desk = ModelWorker(
        model,
        None if index is None else model.open_index(Path(index)),
        None if table is None or index is None else model.open(table),
    )
    look_up(model.network)
    return desk.about(), desk


def look_up(network: Any) -> None:
    """Let a network look up now and then, wherever it norms tokens, whether anybody still waits for what it computes."""
    last = time.monotonic()

    def look(*_: Any) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > OFTEN:
            last = now
            go_on_or_cut()

    for module in network.modules():
        if type(module).__name__.endswith("Norm"):
            module.register_forward_pre_hook(look)
