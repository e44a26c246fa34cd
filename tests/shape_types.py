"""Runtime check of shapes as types: jaxtyping's annotations in the network's folders, checked by beartype in every
test.

Imported by conftest before anything of sensorium.
"""

from __future__ import annotations

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

CHECKED = (
    "sensorium.nn",
    "sensorium.modalities",
    "sensorium.generators",
    "sensorium.trunks",
    "sensorium.objectives",
    "sensorium.network",
)
"""Packages whose functions check their arguments and results."""

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""Beartype that takes an int for a float, as type checkers do."""

hook = install_import_hook(CHECKED, "shape_types.check")
