"""Is it told which rows are of another kind? Emoji without two groups, and how far rows of those groups lie from what
was learned.

    python examples/foreign.py --minutes 4

The model learns the emoji table without its flags and without food and drink. Then rows of both are mixed with rows of
the other groups that it didn't see either (known concepts, drawn by the other studio). `away` should be larger for the
foreign ones: measured is the area under the ROC curve, by all that a row has and by single columns. Beside it stand
chance, the nearest training pictures by their pixels, the nearest names by their letters, and `surprise`, which asks
another question.
"""

from __future__ import annotations

import numpy as np
from _compare import arguments, build, fit, known, run, show
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from sensorium import Model, Table

FOREIGN = ("flags", "food-drink")
SEEN = ["image", "name", "tags", "year"]
SETTINGS = (
    "column.concept.kind=out",
    "column.group.kind=out",
    *(
        f"column.{column}.kind=out"
        for column in ("name_de", "name_fr", "name_es", "name_ja", "spoken", "spoken_language", "style")
    ),
    "column.image.size=32",
    "column.image.trim=true",
    "baselines.share=0",
    "data.entity_key=id",
)
ASKED, LEARNED, NEAREST = 300, 2000, 5


def main() -> None:
    given = arguments(__doc__, minutes=4.0)
    table = (
        Table.open(given.out / "emoji.parquet")
        if given.out and (given.out / "emoji.parquet").is_file()
        else build("emoji", given)
    )
    plain = table.take(np.arange(table.rows), ["group", "split"])
    foreign, split = np.isin(plain.column("group").to_pylist(), FOREIGN), np.array(plain.column("split").to_pylist())
    learned = table.select(np.flatnonzero(~foreign))
    model = known(given.out / f"run-{given.seed}") or fit(learned, "", given, f"run-{given.seed}", SETTINGS)
    rng = np.random.default_rng(given.seed)
    asked = np.concatenate(
        [rng.permutation(np.flatnonzero(some))[:ASKED] for some in (foreign, ~foreign & (split == "test_new_style"))]
    )
    rows, truth = table.select(asked), foreign[asked]
    far = model.surprise(rows.take(np.arange(rows.rows), [c for c in rows.columns if c in SEEN]))
    found = {"ours": roc_auc_score(truth, np.nan_to_num(far.column("away").to_numpy())), "chance": 0.5}
    for column in ("image", "name", "tags"):
        found[f"ours, by {column}"] = roc_auc_score(truth, np.nan_to_num(far.column(f"away of {column}").to_numpy()))
    for kind in FOREIGN:
        here = np.isin(plain.column("group").take(asked).to_pylist(), (kind,)) | ~truth
        found[f"ours, {kind}"] = roc_auc_score(truth[here], np.nan_to_num(far.column("away").to_numpy())[here])
    trained = table.select(rng.permutation(np.flatnonzero(~foreign & (split == "train")))[:LEARNED])
    found["pixels"] = roc_auc_score(truth, nearest(pictures(model, trained), pictures(model, rows)))
    names = [
        [str(name) for name in some.take(np.arange(some.rows), ["name"]).column("name").to_pylist()]
        for some in (trained, rows)
    ]
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit(names[0])
    found["letters of names"] = roc_auc_score(truth, nearest(letters.transform(names[0]), letters.transform(names[1])))
    found["surprise"] = roc_auc_score(truth, np.nan_to_num(far.column("surprise").to_numpy()))
    show(f"Foreign rows: {truth.sum()} of {len(truth)}", model, found)


def pictures(model: Model, rows: Table) -> np.ndarray:
    """Their pixels, [rows, numbers]."""
    return np.stack([cell.ravel() / 255 for cell in model.rows(rows, ["image"]).read["image"]])


def nearest(known_ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far each of some is from the nearest known ones."""
    return NearestNeighbors(n_neighbors=NEAREST).fit(known_ones).kneighbors(others)[0].mean(1)


if __name__ == "__main__":
    run(main)
