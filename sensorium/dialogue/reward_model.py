"""Reward model of answers, learned from preferences (``prefer.loss=reward``): tuned weights, and a head that scores.

RUN/ reward.safetensors
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from sensorium.core.errors import UserError
from sensorium.core.tensors import write_tensors
from sensorium.dialogue.parts import language_trunk
from sensorium.dialogue.scoring import pack_last_answers
from sensorium.dialogue.session import Cells, ChatSession
from sensorium.inference.rows import Rows
from sensorium.inference.trained import Trained
from sensorium.network.adapters import use_adapter_weights
from sensorium.network.network import Network
from sensorium.network.older_formats import format_7_path
from sensorium.network.packed_conversation import last_hidden
from sensorium.nn.precision import autocast

FILE = "reward.safetensors"


@dataclasses.dataclass
class RewardModel:
    """Reward model: scores answers; higher is better, and only beside other answers to the same question.

    Attributes:
        weights: what is tuned of the language model. head: [1, width] and its ``level`` [1], a bias.
        rest: the hash of all else of the network that it was learned in (``hash_of_rest``).
    """

    weights: Mapping[str, torch.Tensor]
    head: torch.Tensor
    level: torch.Tensor
    rest: str = ""

    def save(self, path: Path) -> None:
        """Write as safetensors: whole or not at all."""
        write_tensors(
            path,
            {
                "head": self.head,
                "level": self.level,
                **{f"tuned.{name}": value for name, value in self.weights.items()},
            },
            {"rest": self.rest},
        )

    @classmethod
    def load(cls, path: Path, network: Network) -> RewardModel:
        """Read what ``save`` wrote.

        Raises:
            UserError: it isn't there, or is no reward model of this network's language model.
        """
        if not path.is_file():
            raise UserError(
                f"There is no judge in '{path.parent}' that could score answers. Teach one: "
                f"sensorium prefer {path.parent} PAIRS prefer.loss=reward"
            )
        trunk = language_trunk(network)
        try:
            tensors = load_file(path)
            with safe_open(path, "pt") as opened:
                rest = (opened.metadata() or {}).get("rest", "")
            weights = {
                name.removeprefix("tuned."): value for name, value in tensors.items() if name.startswith("tuned.")
            }
            shapes = {name: value.shape for name, value in trunk.learned.items()}
            if {name: value.shape for name, value in weights.items()} != shapes or tensors["head"].shape != (
                1,
                trunk.out.in_features,
            ):
                raise UserError(
                    f"'{path}' judges answers of another language model, or of one that is tuned otherwise."
                )
            if rest and rest != hash_of_rest(network):
                raise UserError(
                    f"'{path}' was learned in another model than this one: what both have beside the tuned language "
                    "model differs. Teach one for this model: sensorium prefer RUN PAIRS prefer.loss=reward"
                )
            return cls(weights, tensors["head"], tensors["level"], rest)
        except (SafetensorError, OSError, KeyError) as error:
            raise UserError(f"'{path}' can't be read: {error}") from error

    @torch.no_grad()
    def scores(
        self, network: Network, rows: Rows, which: Sequence[int], conversations: Sequence[Sequence[Any]]
    ) -> np.ndarray:
        """Scores [n] of the assistant's last message in each conversation, of which each is about a row.

        Raises:
            UserError: a conversation is in no order or too long.
        """
        result = np.zeros(len(conversations))
        with use_adapter_weights(network, self.weights), autocast(rows.precision, rows.device):
            for numbers, _, packed in pack_last_answers(network, rows, which, conversations):
                hidden = last_hidden(network.trunk, packed).float()
                result[numbers] = (hidden @ self.head.to(hidden).T + self.level.to(hidden)).squeeze(1).cpu().numpy()
        return result


def score_answer(trained: Trained, messages: Sequence[Any], cells: Cells = None) -> float:
    """Score of a conversation's last answer by the reward model in the run's folder: see ``Model.reward_score``."""
    given = list(messages)
    if not given or dict(given[-1]).get("role") != "assistant":
        raise UserError("The last message of what is judged is by the assistant.")
    rows, prompt = ChatSession(trained).read(given[:-1], cells)
    reward_model = RewardModel.load((trained.folder or Path()) / FILE, trained.network)
    whole = [*prompt, ("assistant", [str(given[-1]["content"])])]
    return float(reward_model.scores(trained.network, rows, [0], [whole])[0])


def hash_of_rest(network: Network) -> str:
    """A hash of all of a network but what post-training changes: what is tuned of its language model."""
    found = hashlib.sha256()
    for name, value in sorted((format_7_path(name), value) for name, value in network.state_dict().items()):
        if not name.startswith("trunk.learned."):
            found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
