"""Compilation of a model's layers by torch.compile."""

from __future__ import annotations

import os
import shutil
import warnings

from torch import nn

from sensorium.backbones._tuning import layers_of
from sensorium.core.errors import UserError


def compile_layers(model: nn.Module, expert: bool) -> None:
    """Compile each layer of a model when it is first called; layers that are alike share the program.

    Raises:
        UserError: there is no compiler, or an expert would have to go around what is compiled.
    """
    if expert:
        raise UserError(
            "trunk.compile=true makes one program of each layer, past which trunk.expert=true could not go. Leave one "
            "of them out."
        )
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "g++", "clang++", "c++")):
        raise UserError(
            "trunk.compile=true wants a C++ compiler, and there is none here. Install one (Debian, Ubuntu: apt-get "
            "install g++), or leave it out."
        )
    # torch.compile looks at the gradients of what layers are given.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
    for layer in layers_of(model)[1]:
        layer.compile(dynamic=True)
