"""Sensorium: one multimodal model for a table. Any column finds, predicts or generates any other.

Names are loaded when first used, so that importing the package doesn't import torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sensorium.core.errors import UserError
    from sensorium.data.table import Table
    from sensorium.model import Model

__version__ = "0.2.0"
__all__ = ["Model", "Table", "UserError"]

# Nothing leaves the machine unasked: telemetry of every dependency is off unless the user has switched it on.
for _name in ("HF_HUB_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY", "DO_NOT_TRACK", "DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

_HOMES = {"Model": "sensorium.model", "Table": "sensorium.data.table", "UserError": "sensorium.core.errors"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sensorium' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
