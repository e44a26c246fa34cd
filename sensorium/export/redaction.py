"""Redaction of models for others: nothing that tells of single training rows, of the table, or of the machine.

Values that few rows have are no part of it (k-anonymity, Sweeney 2002); its memory of rows becomes ``nn.linear_probe``.
Weights stay as they are, and what they tell of rows with them: see ``docs/privacy.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

from sensorium.core.quantiles import PLATEAU_SHARE
from sensorium.data.prepare import MAX_LEARN_ROWS
from sensorium.network.network import Network
from sensorium.nn.linear_probe import MIN_ROWS, LinearProbes, probes
from sensorium.nn.online_memory import OnlineMemory
from sensorium.nn.row_memory import RowMemory

HIDDEN_SECTIONS = ("trackers",)
"""Sections of settings that say nothing of the model."""


def redacted_tensors(network: Network, rare: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A network's weights without the names that conversations look up and without rare classes.

    Args:
        rare: of columns that have such classes the ids that stay.
    """
    found = dict(network.state_dict())
    for path, module in network.named_modules():
        if isinstance(module, OnlineMemory):
            for name, value in module.state_dict(prefix=f"{path}.").items():
                found[name] = torch.zeros_like(value)
    for column, ids in rare.items():
        old = len(network.modalities[column].state()["classes"])
        for name in (
            f"stems.{network.stem_key[column]}.table.weight",
            *(
                f"generators.{key}.head.{part}"
                for key in network.generator_keys.get(column, {}).values()
                for part in ("weight", "bias")
            ),
        ):
            value = found.get(name)
            if value is not None and len(value) == old + 1:
                found[name] = value[ids.to(value.device)]
            elif value is not None and len(value) == old:
                found[name] = value[ids[1:].to(value.device) - 1] if len(ids) > 1 else torch.zeros_like(value[:1])
    return found


def common_classes(network: Network, counts: Mapping[str, Any], min_rows: int = MIN_ROWS) -> dict[str, torch.Tensor]:
    """The ids of classes of ``min_rows`` training rows or more, and 0 ("unseen"), of each category that has others."""
    found = {}
    for column, modality in network.modalities.items():
        seen = counts.get(column)
        if (
            isinstance(seen, list)
            and len(seen) == len(modality.state().get("classes", ()))
            and any(count < min_rows for count in seen)
        ):
            found[column] = torch.tensor([0, *(number for number, count in enumerate(seen, 1) if count >= min_rows)])
    return found


def redacted_states(
    network: Network, rare: Mapping[str, torch.Tensor], counts: Mapping[str, Any], rows: int, min_rows: int = MIN_ROWS
) -> dict[str, Any]:
    """Learned states of columns (``Modality.state``), without rare classes and with no quantile of a single row.

    Args:
        rows: training rows, for columns of which ``counts`` doesn't say how many have a value.
    """
    found = {}
    for column, modality in network.modalities.items():
        state = dict(modality.state())
        if column in rare:
            state["classes"] = [state["classes"][i - 1] for i in rare[column][1:].tolist()]
        if "quantiles" in state:
            known = counts.get(column)
            learned = min(known if isinstance(known, int) else rows, MAX_LEARN_ROWS)
            state["quantiles"] = coarse_quantiles(state["quantiles"], learned, min_rows)
        found[column] = state
    return found


def coarse_quantiles(
    quantiles: Mapping[str, list[float]], rows: int, min_rows: int = MIN_ROWS
) -> dict[str, list[float]]:
    """Quantiles (``Quantiles.state``), each the mean of ``min_rows`` values or more, or a value that so many have.

    Args:
        rows: how many they were learned from.
    """
    values, low, high = (np.asarray(quantiles[key], np.float64) for key in ("values", "low", "high"))
    counts, groups, start = rows_per_value((low + high) / 2, high - low, rows), [], 0
    for end in range(1, len(values) + 1):
        if counts[start:end].sum() >= min_rows - 1e-6:
            groups.append([start, end])
            start = end
    if start < len(values):  # too few are left for a quantile of their own
        groups = [*groups[:-1], [groups[-1][0] if groups else 0, len(values)]]
    found: dict[str, list[float]] = {"values": [], "low": [], "high": []}
    for start, end in groups:
        often = [i for i in range(start, end) if counts[i] >= min_rows - 1e-6]  # at most one: it stays as it is
        weights = counts[start:end] / counts[start:end].sum()
        centre = float((low + high)[start:end] @ weights / 2)
        found["values"].append(float(values[often[0]] if often else values[start:end] @ weights))
        found["low"].append(float(low[often[0]]) if often else centre)
        found["high"].append(float(high[often[0]]) if often else centre)
    return found


def rows_per_value(middle: np.ndarray, wide: np.ndarray, rows: int) -> np.ndarray:
    """Numbers of ``rows`` that have each value of quantiles, by the middles of their ranks and how ``wide`` these are.

    Where all values are there, the ranks tell. Where some were chosen, it is known of atoms alone; the others may be of
    one row each.
    """
    shares, below = np.zeros(len(middle)), 0.0
    for number, rank in enumerate(middle):
        shares[number] = 2 * (rank - below)
        below += shares[number]
    counts = shares * rows
    if (
        abs(below - 1) < 1e-6
        and (shares > 0).all()
        and (rows == MAX_LEARN_ROWS or np.abs(counts - counts.round()).max() < 1e-3)
    ):
        return counts
    return np.where(wide > 0, np.maximum(wide / PLATEAU_SHARE * rows, 1.0), 1.0)


def redacted_memory(
    network: Network, rare: Mapping[str, torch.Tensor], counts: Mapping[str, Any], min_rows: int = MIN_ROWS
) -> LinearProbes | None:
    """Linear probes for what the network's memory adds, without its rows; of categories no class that is rare."""
    memory = network.calibration.memory
    found = probes(memory, min_rows) if isinstance(memory, RowMemory) else memory
    if found is None:
        return None
    for column, ids in rare.items():
        new = torch.zeros(1 + len(network.modalities[column].state()["classes"]), dtype=torch.int64)
        new[ids] = torch.arange(len(ids))
        found = found.without(column, new)
    return found


def redacted_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without paths of this machine, without files beside the table, and without where the run was watched."""
    found = {section: without_paths(value) for section, value in settings.items() if section not in HIDDEN_SECTIONS}
    if isinstance(found.get("data"), dict):
        found["data"].pop("outside", None)
    return found


def redacted_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a training, and of post-training, without paths of this machine and without names of tables."""

    def without_table(value: Any) -> Any:
        return (
            {key: without_table(part) for key, part in value.items() if key != "table" or not isinstance(part, str)}
            if isinstance(value, dict)
            else value
        )

    return without_table(without_paths(facts))


def without_paths(value: Any) -> Any:
    """JSON without texts that are paths."""
    if isinstance(value, Mapping):
        return {key: without_paths(part) for key, part in value.items() if not is_path(part)}
    return [without_paths(part) for part in value if not is_path(part)] if isinstance(value, list | tuple) else value


def is_path(value: Any) -> bool:
    """True for a path that stands only where it was written."""
    return isinstance(value, str) and (
        PurePosixPath(value).is_absolute()
        or PureWindowsPath(value).is_absolute()
        or value.startswith(("~/", "./", "../", "~\\", ".\\", "..\\"))
    )
