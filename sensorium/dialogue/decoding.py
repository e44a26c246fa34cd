"""Decoding of replies: conversations side by side, over the cells of rows that they refer to, token by token."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sensorium.core.errors import BadCell, UserError
from sensorium.dialogue.messages import with_retrieved_rows
from sensorium.dialogue.parts import dialogue_column, dialogue_head, dialogue_modality, language_trunk
from sensorium.dialogue.reply import Reply, StreamedText, confidence_features
from sensorium.generators.autoregressive import draw
from sensorium.inference.rows import Rows
from sensorium.network.network import Network
from sensorium.nn.platt import MAX_ANSWER_TOKENS
from sensorium.nn.precision import autocast

MAX_BATCH = 32
"""Conversations that are decoded side by side."""
MAX_TOKENS = 256
"""Tokens of an answer, at most, by default."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Decoding options (as ``transformers.GenerationConfig``).

    Args:
        max_tokens: of an answer. temperature: 0 takes the likeliest token each time.
        top_k, top_p: see ``generators.autoregressive``. generator: of the random draws.
    """

    max_tokens: int = MAX_TOKENS
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    generator: torch.Generator | None = None

    def next_tokens(self, logits: torch.Tensor) -> torch.Tensor:
        """One token [n] from logits [n, vocabulary]."""
        if self.temperature == 0:
            return logits.argmax(-1)
        return draw(logits / self.temperature, self.top_k, self.top_p, self.generator)


OnText = Callable[[int, str], None]
"""Callback of a stream: the number of a conversation, and the next piece of its answer."""


def prompt_ids(network: Network, conversations: Sequence[Sequence[Any]]) -> list[list[int]]:
    """Token ids of conversations, as ``messages_of`` gives them, up to where the assistant is to speak.

    Raises:
        UserError: one is too long or in no order that the language model takes.
    """
    modality, result = dialogue_modality(network), []
    for number, messages in enumerate(conversations, 1):
        try:
            result.append(modality.shortened([[role, list(parts)] for role, parts in messages], answer=True)[0])
        except BadCell as error:
            raise UserError(f"Conversation {number}: {error}") from error
    return result


def fit_retrieved_rows(network: Network, messages: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """A prompt as ``with_retrieved_rows`` makes it, with as many rows as the model has room for."""
    for count in range(len(rows), 0, -1):
        given = with_retrieved_rows(messages, rows[:count])
        try:
            prompt_ids(network, [given])
            return given
        except UserError:
            continue
    return list(messages)


@torch.inference_mode()
def generate_replies(
    network: Network,
    rows: Rows,
    which: Sequence[int],
    conversations: Sequence[Sequence[Any]],
    sampling: Sampling = Sampling(),
    on_text: OnText | None = None,
) -> list[Reply]:
    """Replies to conversations, each about a row.

    Args:
        rows: read; which: for each conversation the row whose cells it refers to.
        on_text: is called with each piece of text as it is decoded, and the number of its conversation.

    Raises:
        UserError: the network wasn't trained on conversations, or one is too long.
    """
    prompts = prompt_ids(network, conversations)
    result: dict[int, Reply] = {}
    for batch in length_batches(prompts):
        replies = decode_replies(
            network,
            rows,
            [which[n] for n in batch],
            [prompts[n] for n in batch],
            sampling,
            on_text and (lambda at, text, batch=batch: on_text(batch[at], text)),
        )
        result |= dict(zip(batch, replies, strict=True))
    return [result[number] for number in range(len(prompts))]


def length_batches(prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of conversations that are decoded side by side: of about one length.

    None that refers to a cell goes beside one that refers to none, which may be answered by other weights.
    """
    for refers in (False, True):
        order = sorted(
            (number for number, ids in enumerate(prompts) if any(i < 0 for i in ids) == refers),
            key=lambda number: len(prompts[number]),
        )
        yield from (order[start : start + MAX_BATCH] for start in range(0, len(order), MAX_BATCH))


def tuning_context(network: Network, refers: bool) -> contextlib.AbstractContextManager[None]:
    """Context in which the language model has its tuned weights, or its original ones (see ``uses_tuned``)."""
    return contextlib.nullcontext() if uses_tuned(network, refers) else language_trunk(network).as_it_was()


def uses_tuned(network: Network, refers: bool) -> bool:
    """True where a conversation that refers to some cell, or to none, is answered by the tuned language model.

    One that refers to no cell is answered by the original one, unless such conversations were learned.
    """
    return refers or language_trunk(network).always or dialogue_modality(network).bare


@torch.inference_mode()
def decode_replies(
    network: Network,
    rows: Rows,
    which: Sequence[int],
    prompts: Sequence[list[int]],
    sampling: Sampling,
    on_text: OnText | None = None,
    n_samples: int = 1,
) -> list[Reply]:
    """Replies to prompts as token ids, decoded side by side with a cache of keys and values.

    Args:
        which, on_text: see ``generate_replies``. n_samples: replies to each prompt, sampled one beside the other.

    Returns:
        replies, those to one prompt next to each other.
    """
    column, trunk = dialogue_column(network), language_trunk(network)
    modality, language, device = dialogue_modality(network), trunk.language, rows.device
    cells = modality.collate([np.array([*line, *[0] * len(line)], np.int32) for line in prompts])
    encoded = {c: rows.encoded(c) for c in rows.cells if c != column and rows.has(c).any()}
    with autocast(rows.precision, device):  # what cells' tokens were encoded in
        packed = dialogue_head(network).pack_conversations(column, encoded, cells, torch.tensor(list(which)))
    tokens, present, groups = packed.padded()
    length = present.sum(1)
    with autocast(rows.precision, device), tuning_context(network, any(i < 0 for line in prompts for i in line)):
        hidden, state = trunk.prefill_tokens(tokens, present, groups)
        last = hidden[torch.arange(len(prompts), device=device), length - 1]
        if n_samples > 1:
            source = torch.arange(len(prompts), device=device).repeat_interleave(n_samples)
            state, last, length = trunk.reorder(state, source), last[source], length[source]
            prompts = [line for line in prompts for _ in range(n_samples)]
            packed.recalled = [words for words in packed.recalled for _ in range(n_samples)]
            packed.near = packed.near.repeat(n_samples, 0)
        texts = [StreamedText(language) for _ in prompts]
        live, score = torch.arange(len(prompts), device=device), torch.zeros(len(prompts), device=device)
        ids: list[list[int]] = [[] for _ in prompts]
        ended = [False] * len(prompts)
        for step in range(sampling.max_tokens):
            logits = trunk.logits(last, state)
            new = sampling.next_tokens(logits)
            score[live] += logits.log_softmax(-1).gather(1, new.unsqueeze(1)).squeeze(1)
            over = torch.tensor([int(i) in language.special for i in new.tolist()])
            for number, token, done in zip(live.tolist(), new.tolist(), over.tolist(), strict=True):
                ids[number].append(token)
                ended[number] = done
                more = "" if done else texts[number].add(token)
                if more and on_text:
                    on_text(number, more)
            going = (~over).nonzero().squeeze(1).to(device)
            if not len(going) or step + 1 == sampling.max_tokens:
                break
            if len(going) < len(live):
                state, live, new = trunk.reorder(state, going), live[going], new[going]
            hidden, state = trunk.decode_entered(state, trunk.words(new.unsqueeze(1)))
            last = hidden[:, -1]
    for number, text in enumerate(texts):
        if (more := text.flush()) and on_text:
            on_text(number, more)
    replies = [
        Reply(text.text.strip(), float(s), len(own), done, int(n), recalled, tuple(near), own)
        for text, s, own, done, n, recalled, near in zip(
            texts, score, ids, ended, length, packed.recalled, packed.near.tolist(), strict=True
        )
    ]
    calibration = modality.sureness
    for reply, line in zip(replies, prompts, strict=True):
        short = reply.ended and reply.tokens <= MAX_ANSWER_TOKENS
        if calibration is not None and not trunk.foreign and short and any(i < 0 for i in line):
            reply.right = float(calibration.right(np.array([confidence_features(reply, line, language)]))[0])
    return replies
