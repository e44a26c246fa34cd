"""What does a model that is given away tell of its training rows, and what does it cost to leave rows out?

    python examples/membership.py --epochs 20 --seed 0

Of each emoji, which two studios drew, one drawing, by lot, is in the training table (a member) and the other isn't:
members and non-members are of the same concepts and names, and of one distribution. Some concepts are kept out
altogether. Three models of one run are asked: with its rows (``save_pretrained(rows=True)``), as it is given away by
default, and its weights alone. All are attacked by the loss of an answer (Yeom et al. 2018, arXiv 1709.01604), by how
well a picture matches its name, and by a logistic regression on all that can be told, which knows half of the members;
that with rows also by the nearest remembered gists. Printed are the AUC and the share of members found at 1 % false
alarms (Carlini et al. 2022, arXiv 2112.03570); 0.5 and 0.01 mean that nothing is told.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _compare import arguments, build, fit, known, run, show
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sensorium import Model, Table
from sensorium.data.split import Splits
from sensorium.inference.rows import Rows
from sensorium.nn.row_memory import RowMemory

NEW = 0.15
"""Share of the concepts that are kept out."""
SETTINGS = (
    "column.id.kind=out",
    "column.image.trim=true",
    "column.image.grey=0.2",
    "column.image.stroke=0.6",
    "data.entity_key=id",
    "data.validation=0.1",
    "questions.weights=name:4,image:3",
    "baselines.share=0",
)
SEEN = (["image", "name"], ["image"], ["name"])


def main() -> None:
    given = arguments(__doc__, minutes=2.0)
    given.out = given.out or Path(tempfile.mkdtemp(prefix="sensorium-membership-"))
    path = given.out / f"members-{given.seed}.parquet"
    if not path.is_file():
        built = given.out / "emoji.parquet"
        pq.write_table(drawn(Table.open(built) if built.is_file() else build("emoji", given), given.seed), path)
    table, name = Table.open(path), f"run-{given.seed}-{given.epochs or given.minutes:g}"
    model = known(given.out / name) or fit(table, "", given, name, SETTINGS)
    inside, outside, new = parts(model, table)
    found: dict[str, float] = {}
    signs: dict[str, list[dict[str, np.ndarray]]] = {}
    for who, rows in (("with rows", True), ("as given", False)):
        one = Model.load(model.save_pretrained(given.out / f"{name}-{who.replace(' ', '-')}", rows=rows))
        read = [one.rows(some) for some in (inside, outside, new)]
        for asked in (who,) if rows else (who, "weights"):
            one.network.calibration.memory = None if asked == "weights" else one.network.calibration.memory
            found |= {
                f"{asked}: group, known": accuracy(read[1], outside),
                f"{asked}: group, new": accuracy(read[2], new),
            }
            signs[asked] = [signals(some, cells) for some, cells in zip(read[:2], (inside, outside), strict=True)]
    for which in ("known", "new"):
        most, least = found[f"with rows: group, {which}"], found[f"weights: group, {which}"]
        kept = found[f"as given: group, {which}"] - least
        found |= {f"gain of rows, {which}": most - least}
        found |= {f"of it as given, {which}": kept / (most - least) if most > least else float("nan")}
    for who, (member, other) in signs.items():
        for what, (auc, caught) in attacks(member, other).items():
            found |= {f"{who}: {what}, AUC": auc, f"{who}: {what}, TPR": caught}
    show("Who was in the table", model, found)


def drawn(table: Table, seed: int) -> pa.Table:
    """The emoji table with a split by lot: of each emoji one drawing to learn from, and some concepts for neither."""
    lot = np.random.default_rng(seed)
    cells = table.take(np.arange(table.rows), ["id", "concept", "name", "group", "year", "image"])
    ids, concepts = cells.column("id").to_pylist(), cells.column("concept").to_pylist()
    names = sorted(set(concepts))
    out = {names[i] for i in lot.choice(len(names), int(NEW * len(names)), replace=False)}
    first, seen = {one: int(lot.integers(2)) for one in dict.fromkeys(ids)}, dict.fromkeys(ids, 0)
    split = []
    for one, concept in zip(ids, concepts, strict=True):
        split.append("test_new" if concept in out else "train" if seen[one] == first[one] else "test")
        seen[one] += 1
    return cells.drop(["concept"]).append_column("split", pa.array(split))


def parts(model: Model, table: Table) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Members and non-members, one of each for each emoji, in the same order; and rows of new concepts."""
    cells = table.take(np.arange(table.rows), table.columns)
    ids, split = (np.array(cells.column(name).to_pylist()) for name in ("id", "split"))
    learned, other = Splits.load(model.folder / "splits.parquet").rows("train"), np.flatnonzero(split == "test")
    inside, outside = learned[np.isin(ids[learned], ids[other])], other[np.isin(ids[other], ids[learned])]
    return (
        cells.take(inside[ids[inside].argsort()]),
        cells.take(outside[ids[outside].argsort()]),
        cells.take(np.flatnonzero(split == "test_new")),
    )


def accuracy(rows: Rows, cells: pa.Table) -> float:
    """How often the group is right, from image and name."""
    said, truth = rows.predict("group", SEEN[0]).cells, cells.column("group").to_pylist()
    return float(np.mean([a == b for a, b in zip(said, truth, strict=True) if b is not None]))


@torch.inference_mode()
def signals(rows: Rows, cells: pa.Table) -> dict[str, np.ndarray]:
    """What may tell members: higher is likelier one, [rows]."""
    network, truth = rows.network, cells.column("group").to_pylist()
    classes, years = network.modalities["group"].classes, np.array(cells.column("year").to_pylist(), float)
    found = {}
    for seen in SEEN:
        likely = rows.predict("group", seen).probabilities
        each = [likely[n, 1 + classes.index(cell)] if cell in classes else np.nan for n, cell in enumerate(truth)]
        loss = np.log(np.maximum(each, 1e-12))
        found[f"group from {' and '.join(seen)}"] = np.where(np.isnan(loss), np.nanmean(loss), loss)
    found["year"] = -np.abs(np.array(rows.predict("year", SEEN[0]).cells, float) - years)
    image, name = (rows.encoded(column).gist.float() for column in SEEN[0])
    found["match"] = (image * name).sum(1).numpy()
    if isinstance(network.calibration.memory, RowMemory):
        cosines = [
            gist @ network.calibration.memory.known[network.calibration.memory.columns.index(column)].float().T
            for column, gist in zip(SEEN[0], (image, name), strict=True)
        ]
        found |= {"nearest gist": cosines[0].amax(1).numpy(), "nearest row": sum(cosines).amax(1).numpy()}
    return found


def attacks(inside: dict[str, np.ndarray], outside: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Of each attack the AUC and the share of members found at 1 % false alarms."""
    count, told = len(inside["match"]), {name: np.concatenate([inside[name], outside[name]]) for name in inside}
    truth, things = np.repeat([1, 0], count), np.tile(np.arange(count), 2)
    told = {
        "loss of the group": told["group from image and name"],
        **{name: told[name] for name in ("match", "nearest gist", "nearest row") if name in told},
        "all": cross_val_predict(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
            np.stack(list(told.values()), 1),
            truth,
            groups=things,
            cv=GroupKFold(2),
            method="predict_proba",
        )[:, 1],
    }
    result = {}
    for name, scores in told.items():
        false, true, _ = roc_curve(truth, scores)
        result[name] = float(roc_auc_score(truth, scores)), float(true[np.searchsorted(false, 0.01, side="right") - 1])
    return result


if __name__ == "__main__":
    run(main)
