"""Devices and precision: bf16 where a machine multiplies matrices faster in it, fp32 elsewhere."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Literal

import torch

from sensorium.core.errors import UserError

Precision = Literal["auto", "fp32", "bf16"]


def choose(wanted: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """Precision that "auto" stands for here: bf16 where the processor has instructions for it. The same on every run of
    a machine."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if device.type == "cpu" and multiplies_bf16() else "fp32"


@functools.cache
def multiplies_bf16() -> bool:
    """True where this CPU multiplies matrices in bf16 by itself (AVX-512 BF16, AMX); emulated, bf16 is slower than
    fp32."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Context manager of a forward pass."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def usable(device: str | None) -> torch.device:
    """Device of that name; None: the one that ``SENSORIUM_DEVICE`` names, else the processor.

    Raises:
        UserError: there is no such device on this machine.
    """
    named = os.environ.get("SENSORIUM_DEVICE") or "cpu"
    try:
        return torch.zeros(1, device=device or named).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        asked = f"--device {device}" if device else f"SENSORIUM_DEVICE={named}"
        raise UserError(
            f"{asked} can't be used here ({str(error).splitlines()[0]}). Possible: {', '.join(['cpu', *cuda])}."
        ) from error


def idle_gpu(device: torch.device) -> str:
    """Name of a GPU that is there while ``device`` is the processor; empty where there is none, and where it is
    used."""
    return torch.cuda.get_device_name() if device.type == "cpu" and torch.cuda.is_available() else ""
