"""Augmentation settings of pictures, shared by columns of pictures; they are settings of the column itself."""

from __future__ import annotations

import dataclasses
from typing import Annotated, TypeAlias

from sensorium.core.settings import Settable


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageAugmentation:
    """Random changes of pictures in training.

    Args:
        flip: also mirror pictures in training. Off, because left and right may be the meaning.
        turn: largest rotation in training, in radians.
        zoom: largest change of scale in training, as a share.
        move: largest shift in training, as a share of the side.
        bend: largest shift of a part of the picture against the others in training, as a share of the side.
        colour: strength of changes of brightness, contrast, saturation and hue in training.
        grey: share of pictures that lose their colours in training.
        stroke: share of pictures whose dark lines are made a pixel wider or narrower in training, half of them each:
            what is drawn with outlines and without is the same thing.
        outline: share of pictures whose edges are drawn in dark in training, for the same reason.
        reverse: share of pictures that become white on one colour in training, as signs are drawn.
    """

    flip: bool = False
    turn: float = 0.25
    zoom: float = 0.2
    move: float = 0.15
    bend: float = 0.0
    colour: float = 0.2
    grey: float = 0.0
    stroke: float = 0.0
    outline: float = 0.0
    reverse: float = 0.0


EveryAugmentation: TypeAlias = Annotated[
    ImageAugmentation,
    Settable("flip", "turn", "zoom", "move", "bend", "colour", "grey", "stroke", "outline", "reverse"),
]
