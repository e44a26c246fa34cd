"""What is kept of a course of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conftest import tiny_table
from safetensors.torch import load_file

from sensorium.network.build import make_network


def test_a_mean_of_weights_over_more_steps_than_there_were_does_not_hold_on_to_the_first(
    quick_fit: Callable[..., Any],
) -> None:
    model = quick_fit(tiny_table(40), "train.ema_decay=0.999", epochs=10)
    last = load_file(sorted((model.folder / "checkpoints").glob("step-*"))[-1] / "network.safetensors")
    first, kept = make_network(model.network.modalities, model.settings, 0).state_dict(), model.network.state_dict()

    def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
        return (
            sum(float((one[name] - other[name]).square().sum()) for name, _ in model.network.named_parameters()) ** 0.5
        )

    assert 0 < apart(kept, last) < 0.5 * apart(kept, first)
