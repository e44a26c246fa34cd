"""Students of a flow: one with its teacher's weights, and a digest of what a student learns from."""

from __future__ import annotations

import hashlib

import torch

from sensorium.generators.flow import Flow
from sensorium.generators.onestep import Onestep
from sensorium.network.network import Network


def student_of(teacher: Flow) -> Onestep:
    """A student with the teacher's weights: at the first moment of the flow its output is the teacher's."""
    student = Onestep(
        teacher.output_tokens,
        teacher.width,
        depth=teacher.depth,
        expand=teacher.expand,
        latents=teacher.latent_tokens.width if teacher.coder else 0,
        coder=teacher.channels,
    )
    student.net.load_state_dict(
        {name: value for name, value in teacher.net.state_dict().items() if name != "given_mark"}
    )
    if teacher.coder is not None and student.coder is not None:
        student.coder.load_state_dict(teacher.coder.state_dict())
    return student


def digest_of(network: Network) -> str:
    """SHA-256 of all that a student learns from: the network without students."""
    students = tuple(
        f"generators.{key}."
        for keys in network.generator_keys.values()
        for key in keys.values()
        if network.generators[key].teacher
    )
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        if not name.startswith(students):
            found.update(
                value.detach().cpu().contiguous().view(torch.uint8).numpy().data
                if value.ndim
                else str(value.item()).encode()
            )
    return found.hexdigest()
