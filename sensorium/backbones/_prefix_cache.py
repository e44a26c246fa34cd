"""Key-value cache of a decoder, together with the mask and the number of its tokens."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from sensorium.backbones._fast_decode import DecoderCache


@dataclasses.dataclass
class PrefixCache:
    """Keys and values of all tokens so far.

    Attributes:
        cache: a ``DecoderCache``, or one of transformers'.
        mask: which of the tokens are present, [n, s]. count: their number, [n].
    """

    cache: Any
    mask: Bool[Tensor, "n s"]
    count: Int[Tensor, " n"]

    def reordered(self, rows: Int[Tensor, " m"]) -> PrefixCache:
        """Cache of the rows with these indices [m]."""
        if isinstance(self.cache, DecoderCache):
            return PrefixCache(self.cache.reordered(rows), self.mask[rows], self.count[rows])
        cache = branched(self.cache)
        cache.batch_select_indices(rows)
        return PrefixCache(cache, self.mask[rows], self.count[rows])


def branched(cache: Any) -> Any:
    """Cache of transformers that continues another one, which stays as it is: layers replace their tensors."""
    result = copy.copy(cache)
    result.layers = [copy.copy(layer) for layer in cache.layers]
    return result
