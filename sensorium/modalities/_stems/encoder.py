"""Stems of columns that use a pretrained encoder: its features, frozen or fine-tuned, projected to tokens."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from sensorium.backbones import AT_ONCE, Backbone
from sensorium.backbones._tuning import Tuning
from sensorium.nn.external import ExternalModel
from sensorium.nn.feature_projection import FeatureProjection
from sensorium.nn.shape_buckets import recurring
from sensorium.nn.stem import Cells, Stem


def collate_features(cells: Sequence[np.ndarray]) -> Cells:
    """Collated features of several cells, float16 [tokens, width] each.

    ``features`` float32 [n, tokens, width] is padded with zeros; ``there`` [n, tokens] is their mask.
    """
    longest = recurring(max(map(len, cells)))
    whole = np.zeros((len(cells), longest, cells[0].shape[1]), np.float32)
    for row, cell in zip(whole, cells, strict=True):
        row[: len(cell)] = cell
    return {
        "features": torch.from_numpy(whole),
        "there": torch.from_numpy(np.arange(longest) < np.array([len(cell) for cell in cells])[:, None]),
    }


def collate_encoded(encoder: Backbone, tuning: Tuning | None, cells: Sequence[Any]) -> Cells:
    """Collated cells of a column that uses an encoder: their features, or, where it is tuned, its inputs."""
    return collate_features(cells) if tuning is None else encoder.batch(cells)


def encoder_stem(
    width: int, encoder: Backbone, tuning: Tuning | None, places: int, dropout: float, n_placed: int = 0
) -> Stem:
    """Stem of a column that uses an encoder; see ``FeatureProjection`` for its arguments."""
    return (
        FrozenFeatures(width, encoder.width, places, dropout, n_placed)
        if tuning is None
        else TunedFeatures(encoder, tuning, width, places, dropout, n_placed)
    )


class FrozenFeatures(FeatureProjection, Stem):
    """Projection of the features of a frozen encoder."""


class TunedFeatures(ExternalModel, FeatureProjection, Stem):
    """Encoder that is fine-tuned, and the projection of its features."""

    def __init__(
        self, encoder: Backbone, tuning: Tuning, width: int, places: int, dropout: float, n_placed: int = 0
    ) -> None:
        super().__init__(width, encoder.width, places, dropout, n_placed)
        self.encoder = [encoder]
        self.wrap(tuning.of(copy.deepcopy(encoder.model)), tuning.relative, steady=True)

    def features(self, cells: Mapping[str, Tensor]) -> Cells:
        """Features, as they are now, of the encoder's inputs; features stay as they are."""
        if "features" in cells:
            return dict(cells)
        found, there = self.encoder[0].tokens(cells, self.wrapped[0])
        there = torch.ones(found.shape[:2], dtype=torch.bool, device=found.device) if there is None else there
        more = recurring(found.shape[1]) - found.shape[1]
        return {"features": F.pad(found * there.unsqueeze(2), (0, 0, 0, more)), "there": F.pad(there, (0, more))}

    def forward(
        self, cells: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "rows tokens width"], Bool[Tensor, "rows tokens"]]:
        return super().forward(self.features(cells))

    @torch.no_grad()
    def similarity_features(self, cells: Mapping[str, Tensor]) -> Tensor | None:
        return super().similarity_features(self.features(cells)) if self.n_placed else None

    @torch.no_grad()
    def initialise(self, cells: Mapping[str, Tensor], things: Tensor | None = None) -> None:
        count = len(next(iter(cells.values())))
        parts = (
            [
                self.features({key: value[at : at + AT_ONCE] for key, value in cells.items()})
                for at in range(0, count, AT_ONCE)
            ]
            if self.n_placed
            else []
        )
        super().initialise(
            {"features": torch.cat([part["features"].float() for part in parts])}
            if parts
            else {"features": self.places[:0]},
            things,
        )
