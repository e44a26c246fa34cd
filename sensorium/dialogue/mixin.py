"""Dialogue methods of a model: replies, choices among answers, scores of answers, and their evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from sensorium.core.renamed_settings import renamed_arguments
from sensorium.data.schema import infer
from sensorium.dialogue.decoding import Sampling
from sensorium.dialogue.evaluate import examine
from sensorium.dialogue.parts import dialogue_column
from sensorium.dialogue.reply import Reply
from sensorium.dialogue.scoring import choose_answers
from sensorium.dialogue.session import Cells, ChatSession, Retriever
from sensorium.inference.trained import Trained, keep_split


class DialogueMixin(Trained):
    """Methods for conversations about rows, inherited by ``Model``."""

    @renamed_arguments(heard="on_text")
    def chat(
        self,
        messages: Sequence[Any],
        *,
        cells: Cells = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        sure: float = 0.0,
        index: Retriever | None = None,
        cited: int = 3,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """Reply of the assistant to a conversation.

        Args:
            messages: in OpenAI's form; parts may bring pictures, sounds and clips (see ``messages.attach_media``), or
                name a cell: ``{"type": "cell", "column": NAME}``.
            cells: the row that such parts are of, or several, of which ``"row": 1`` names the second.
            max_tokens: of the answer. temperature, top_p: how it is sampled; 0 takes the likeliest token each time.
            sure: say "I don't know." where answers like this one were right less often, 0 to 1, on validation
                conversations; see ``Reply.right``.
            index: of this model (``open_index``): ``cited`` of its rows that are like what is shown come with the
                answer; where nothing is shown, those that are like the question are told before it.
            on_text: is called with each piece of the answer; with all of it at its end, where it must be ``sure``.

        Raises:
            UserError: the model doesn't talk, messages are in no order, or a cell can't be read.
        """
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p)
        session = ChatSession(self, sampling, seed=seed, sure=sure, index=index, n_cited=cited)
        return session.reply(messages, cells, on_text)

    def choose(
        self,
        rows: Any,
        question: str,
        options: Sequence[str],
        of: Sequence[str] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> pa.Table:
        """Likeliest of some answers to a question about each row; they may be names that were never learned
        (zero-shot).

        Args:
            of: columns that are shown; by default those that training conversations referred to.

        Returns:
            ``value``, ``probability``, and a column of probabilities for each option.

        Raises:
            UserError: the model doesn't talk, a column isn't there, or the options are no choice.
        """
        return choose_answers(self, rows, question, options, of, note)

    def reward_score(self, messages: Sequence[Any], *, cells: Cells = None) -> float:
        """Score of the last answer of a conversation, by the reward model that ``prefer`` trained
        (``prefer.loss=reward``).

        Higher is better, beside other answers to the same question.

        Raises:
            UserError: there is no reward model, the last message isn't the assistant's, or as of ``chat``.
        """
        from sensorium.dialogue.reward_model import score_answer

        return score_answer(self, messages, cells)

    def examine(
        self,
        table: Any,
        *,
        split: str | None = None,
        about: str | None = None,
        of: Sequence[str] = (),
        seed: int = 0,
        note: Callable[[str], None] = lambda words: None,
    ) -> dict[str, Any]:
        """Evaluation of the answers to questions about a table's rows: see ``dialogue.evaluate.examine``.

        Raises:
            UserError: the model doesn't talk, or there is nothing to ask about.
        """
        dialogue_column(self.network)
        opened = keep_split(self.open(table), split, self.schema.split)
        return examine(self.network, opened, infer(opened), about=about, of=of, seed=seed, note=note)
