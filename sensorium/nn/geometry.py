"""Random geometry of images: an affine map and a smooth displacement field for each image of a batch.

What lies on an image (a mask, another camera's view) follows it when it is sampled with the same geometry.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclasses.dataclass
class Geometry:
    """Geometry of n images, in coordinates from -1 to 1.

    Attributes:
        across, down: where a step to the right and a step down lead, [n, 2]. shift: of the middle, [n, 2].
        field: displacements at 4 × 4 points, which are interpolated between, [n, 2, 4, 4]; None: none.
    """

    across: Float[Tensor, "n 2"]
    down: Float[Tensor, "n 2"]
    shift: Float[Tensor, "n 2"]
    field: Float[Tensor, "n 2 4 4"] | None = None

    def grid(self, height: int, width: int) -> Float[Tensor, "n height width 2"]:
        """Sampling grid for ``torch.nn.functional.grid_sample``."""
        device = self.across.device
        y, x = (((torch.arange(k, device=device) + 0.5) * (2 / k) - 1) for k in (height, width))
        down, shift, across = (part[:, None, None] for part in (self.down, self.shift, self.across))
        grid = (y[:, None, None] * down + shift) + x[:, None] * across
        if self.field is None:
            return grid
        bend = F.interpolate(self.field, (height, width), mode="bicubic", align_corners=True)
        return grid + bend.permute(0, 2, 3, 1)

    def replaced(self, other: Geometry, mine: Tensor, theirs: Tensor) -> Geometry:
        """This geometry with that of ``other`` for some images: ``mine`` [m] are their numbers here, ``theirs``
        there."""

        def put(own: Tensor, new: Tensor) -> Tensor:
            result = own.clone()
            result[mine] = new[theirs].to(own)
            return result

        field = self.field
        if field is not None or other.field is not None:
            shape = (len(self.across), 2, 4, 4)
            own = self.field if self.field is not None else self.across.new_zeros(shape)
            new = other.field if other.field is not None else own.new_zeros(len(other.across), 2, 4, 4)
            field = put(own, new)
        return Geometry(put(self.across, other.across), put(self.down, other.down), put(self.shift, other.shift), field)
