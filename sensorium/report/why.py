"""Explanation page: Shapley values of columns, attributions of words and patches, and nearest training cells.

One section for each explained cell.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from sensorium.report.assets import asset, environment

INSIDE = {
    "occlusion": "Inside a cell: asked again without each word or patch. Orange: the answer would be less likely "
    "without it; blue: more likely.",
    "gradients": "Inside a cell: integrated gradients, what each word or patch did on the path from none of them to "
    "all. Orange: for the answer; blue: against it.",
    "attention": "Inside a cell: the share of attention that each word or patch got while the cell was "
    "predicted (attention rollout), which need not be what counted.",
}
"""Legends for the colours of a seen cell's parts, by method of attribution."""
MAPS = 4
"""Parts of a cell for which a map of what they moved is drawn, the strongest first."""


@dataclasses.dataclass
class ExplainedCell:
    """An explained cell, as HTML and JSON.

    Attributes:
        row: its number.
        html: the cell as HTML that is safe as it is (``Modality.show``). Such HTML is also in ``seen`` for each seen
            column, ``nearest`` for the nearest training rows, ``contrast`` for those of other classes, and
            ``why["turned"]["shown"]`` for the counterfactual cell.
        why: ``explain.columns.Explanation`` as JSON.
        read: of each seen column a picture of what the model has of it (``Attributable.as_image``) as a data URL,
            where there is one.
    """

    row: int
    html: str
    seen: Mapping[str, str]
    why: Mapping[str, Any]
    nearest: Sequence[str]
    contrast: Sequence[str] = ()
    read: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of characters of its HTML."""
        return len(self.html) + sum(map(len, (*self.seen.values(), *self.nearest, *self.contrast, *self.read.values())))


def write_page(
    column: str,
    entries: Sequence[ExplainedCell],
    overall: Mapping[str, tuple[float, float | None, float | None]] | None = None,
    spatial: bool = False,
) -> str:
    """Render the page as HTML; ``overall``: of each column its mean share and the ends of its interval.

    ``spatial``: tokens of the column's cells lie on a square grid.
    """
    how = next((e.why["inside"] for e in entries), "occlusion")
    page, most = (
        environment().get_template("why.html.jinja"),
        max((abs(mean) for mean, _, _ in (overall or {}).values()), default=0) or 1.0,
    )
    return page.render(
        column=column,
        style=Markup(asset("style.css")),
        entries=[entry(e, spatial) for e in entries],
        inside=INSIDE[how],
        overall=[
            {"name": c, "mean": mean, "low": low, "high": high, "length": 100 * abs(mean) / most}
            for c, (mean, low, high) in (overall or {}).items()
        ],
    )


def entry(e: ExplainedCell, spatial: bool = False) -> dict[str, Any]:
    """Template context of one cell."""
    shares = e.why["shares"]
    most = max(map(abs, shares.values()), default=0) or 1.0
    return {
        "row": e.row,
        "shown": Markup(e.html),
        "nothing": e.why["nothing"],
        "everything": e.why["everything"],
        "copied": e.why["copied"],
        "columns": [
            {
                "name": c,
                "read": e.read.get(c, ""),
                "shown": Markup(e.seen[c]),
                "share": share,
                "error": e.why["errors"][c],
                "length": 100 * abs(share) / most,
                "parts": parts(e.why["parts"].get(c), e.why["inside"], spatial),
            }
            for c, share in sorted(shares.items(), key=lambda pair: -pair[1])
        ],
        **{
            side: [{"shown": Markup(html), **near} for html, near in zip(cells, e.why[side], strict=True)]
            for side, cells in (("nearest", e.nearest), ("contrast", e.contrast))
        },
        "turned": {**e.why["turned"], "shown": Markup(e.why["turned"]["shown"])}
        if (e.why["turned"] or {}).get("shown")
        else None,
    }


def parts(found: Mapping[str, Any] | None, how: str, spatial: bool) -> dict[str, Any] | None:
    """A seen cell's parts in their order.

    For the strongest parts also a map of the predicted cell's tokens that they moved.
    """
    if found is None:
        return None
    worse, names = np.array(found["worse"], np.float64), found["names"]
    mean = worse.mean(1)
    tint = mean / (np.abs(mean).max() or 1.0)
    side = math.isqrt(worse.shape[1]) if spatial else 0
    width = side if side * side == worse.shape[1] and side > 1 else worse.shape[1]
    most, grid = np.abs(worse).max() or 1.0, all("," in name and name.replace(",", "").isdigit() for name in names)
    strongest = np.argsort(-np.abs(mean), kind="stable")[:MAPS] if worse.shape[1] > 1 else []
    tinted = [
        {"name": name, "value": value, "tint": colour(t)} for name, value, t in zip(names, mean, tint, strict=True)
    ]
    timed = [part for part in tinted if part["name"].startswith("step ") or part["name"].endswith(" s")]
    return {
        "names": tinted,
        "over": tinted if grid else timed,
        "beside": [] if grid else [part for part in tinted if part not in timed],
        "grid": math.isqrt(len(names)) if grid else 0,
        "width": width,
        "how": "from" if how == "attention" else "without",
        "maps": [
            {
                "name": names[i],
                "cells": [
                    {"tint": colour(value), "value": raw} for value, raw in zip(worse[i] / most, worse[i], strict=True)
                ],
            }
            for i in strongest
        ],
    }


def colour(value: float) -> str:
    """-1 to 1 as a colour: orange helps, blue hinders."""
    strength = min(abs(value), 1.0)
    return f"rgba({'230,120,20' if value > 0 else '40,110,220'},{strength:.2f})"
