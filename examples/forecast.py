"""How will a movement go on? The rest of a series from its beginning, and whole series from the activity alone.

    python examples/forecast.py --minutes 5
    python examples/forecast.py --minutes 5 --table exercises

Beside ours stand plain forecasts: the last value, the last period again, and a linear model of the last steps. Drawn
series are judged by a forest that has to tell them from real ones: 0 is as hard as telling real ones from other real
ones, 0.5 is easy.
"""

from __future__ import annotations

import numpy as np
from _compare import arguments, build, fit, run, show
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score

from sensorium import Model, Table
from sensorium.data.split import Splits

TABLES = {"basicmotions": "activity", "vowels": "speaker", "exercises": "exercise"}
SAMPLES, LAST = 16, 24
"""Continuations whose middle is ours; steps that the linear model looks at."""


def main() -> None:
    given = arguments(__doc__, minutes=5.0, choices={"table": tuple(TABLES)})
    label = TABLES[given.table]
    table = build(given.table, given)
    model = fit(
        table,
        "",
        given,
        "run",
        ["questions.generate=series", "questions.generate_share=1", "questions.trunk_share=0.5"],
    )
    splits = Splits.load(model.folder / "splits.parquet")
    train, test = (whole(table, splits.rows(part)) for part in ("train", "test"))
    longest = max(map(len, train))
    horizon = max(1, longest // 5)
    show(
        f"The last {horizon} of up to {longest} steps, error in spreads of the channel",
        model,
        forecasts(model, table, splits.rows("test"), train, horizon),
    )
    show(
        "Telling drawn series from real ones",
        model,
        {"ours": judged(model, table, splits.rows("test"), test, label), "real, other rows": apart(train, test)},
    )
    print(f"\nReport: {given.out / 'run' / 'report.html'}")


def whole(table: Table, rows: np.ndarray) -> list[np.ndarray]:
    """The series of some rows, [steps, channels] each."""
    return [np.array(cell, np.float64) for cell in table.take(rows, ["series"]).column("series").to_pylist()]


def forecasts(model: Model, table: Table, rows: np.ndarray, train: list[np.ndarray], horizon: int) -> dict[str, float]:
    """Mean absolute errors of the last ``horizon`` steps of each test series that is long enough."""
    test = [series for series in whole(table, rows) if len(series) >= horizon + 4]
    spread = np.concatenate(train).std(0) + 1e-9
    begun = [series[:-horizon] for series in test]
    told = model.forecast(
        [{"series": series.tolist()} for series in begun], "series", horizon, seen=[], samples=SAMPLES, guidance=1.0
    )
    linear = linear_model(train, horizon, spread)
    said = {
        "ours": [np.median(np.array(cells, np.float64), 0) for cells in told],
        "last value": [np.repeat(series[-1:], horizon, 0) for series in begun],
        "last period": [seasonal(series, horizon) for series in begun],
        "linear": [linear(series) for series in begun],
        "mean": [np.repeat(series.mean(0, keepdims=True), horizon, 0) for series in begun],
    }
    return {
        name: float(np.mean([np.abs((a - b[-horizon:]) / spread).mean() for a, b in zip(each, test, strict=True)]))
        for name, each in said.items()
    }


def seasonal(series: np.ndarray, horizon: int) -> np.ndarray:
    """The last period of each channel again; the period is that of the largest autocorrelation."""
    said = np.empty((horizon, series.shape[1]))
    for channel, values in enumerate((series - series.mean(0)).T):
        lags = np.arange(2, max(3, len(values) // 2))
        period = lags[np.argmax([np.dot(values[lag:], values[:-lag]) / (len(values) - lag) for lag in lags])]
        said[:, channel] = series[len(series) - period + np.arange(horizon) % period, channel]
    return said


def linear_model(train: list[np.ndarray], horizon: int, spread: np.ndarray):
    """A ridge regression from the last steps of all channels to all that follow, learned from every stretch of the
    training series.
    """
    look = min(LAST, max(2, min(map(len, train)) - horizon))
    pairs = [
        (series[at - look : at], series[at : at + horizon])
        for series in train
        for at in range(look, len(series) - horizon + 1)
    ]
    x, y = (
        np.stack([part.ravel() for part in side])
        for side in zip(*[(a / spread, b / spread) for a, b in pairs], strict=True)
    )
    fitted = Ridge(alpha=len(x) * 0.1).fit(x, y)

    def say(series: np.ndarray) -> np.ndarray:
        begun = np.concatenate([np.repeat(series[:1], look, 0), series])[-look:]
        return fitted.predict((begun / spread).reshape(1, -1)).reshape(horizon, -1) * spread

    return say


def judged(model: Model, table: Table, rows: np.ndarray, test: list[np.ndarray], label: str) -> float:
    """How much better than chance a forest tells drawn series of the same rows from real ones."""
    seen = table.take(rows, [label])
    drawn = model.generate(seen, "series", seen=[label], guidance=1.0, seed=1)
    return apart(
        [
            np.array([[np.nan if x is None else x for x in step] for step in series])
            for series in drawn
            if series is not None
        ],
        test,
    )


def apart(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Accuracy of a forest on plain statistics, less a half; as many of both sides."""
    size = min(len(one), len(other))
    x = np.stack([plain(series) for series in (*one[:size], *other[:size])])
    y = np.arange(2 * size) < size
    return float(cross_val_score(RandomForestClassifier(300, random_state=0), x, y, cv=min(5, size)).mean() - 0.5)


def plain(series: np.ndarray) -> np.ndarray:
    """Mean, deviation, quantiles, mean change and correlations of the channels, and the length."""
    series = np.nan_to_num(series, nan=0.0)
    change = np.diff(series, axis=0) if len(series) > 1 else np.zeros((1, series.shape[1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        together = (
            np.nan_to_num(np.corrcoef(series.T).reshape(-1))
            if series.shape[1] > 1 and len(series) > 1
            else np.zeros(series.shape[1] ** 2)
        )
    return np.concatenate(
        [
            series.mean(0),
            series.std(0),
            *np.quantile(series, (0.1, 0.5, 0.9), axis=0),
            np.abs(change).mean(0),
            change.std(0),
            together,
            [len(series)],
        ]
    )


if __name__ == "__main__":
    run(main)
