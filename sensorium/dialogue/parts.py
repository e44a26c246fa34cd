"""Parts of a network that a dialogue needs, with their types: column, modality, language model and head."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sensorium.core.errors import UserError
from sensorium.modalities._capabilities import Dialogue
from sensorium.network.network import Network

if TYPE_CHECKING:
    from sensorium.network.dialogue import DialogueHead
    from sensorium.trunks.causal_lm import CausalLM


def dialogue_column(network: Network) -> str:
    """The column of conversations that a network was trained on.

    Raises:
        UserError: there is none.
    """
    if not network.dialogue_columns:
        raise UserError(
            "This model hasn't learned to talk. Build conversations and fit on them: sensorium ask-data TABLE --out "
            "conversations.parquet; sensorium fit conversations.parquet trunk=causal_lm trunk.path=FOLDER"
        )
    return network.dialogue_columns[0]


def dialogue_modality(network: Network) -> Dialogue:
    """The modality of the column of conversations."""
    return network.dialogue_modality(dialogue_column(network))


def language_trunk(network: Network) -> CausalLM:
    """The trunk of a network that was trained on conversations: a language model."""
    return cast("CausalLM", network.trunk)


def dialogue_head(network: Network) -> DialogueHead:
    """The head that packs conversations with the cells that they refer to."""
    assert network.dialogue is not None
    return network.dialogue
