"""A language model as the trunk: how fast it learns conversations beside transformers' Trainer, and how fast it speaks
beside ``generate``.
"""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks import Comparison, Metric, Side

SIZE = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
"""6.8 million weights."""
LINES, SHORTEST, LONGEST = 16, 24, 256
"""Conversations of a step, and their tokens."""
PROMPT, SAID = 32, 128


def comparisons(quick: bool) -> list[Comparison]:
    """Tokens a second: learned, of conversations of all lengths and of one; and said, one after the other."""
    found, repeats, steps = [], 1 if quick else 3, 3 if quick else 12
    for name, shortest, wanted in (
        (f"conversations of {SHORTEST} to {LONGEST} tokens", SHORTEST, 1.3),
        (f"conversations of {LONGEST} tokens", LONGEST, None),
    ):
        given = {"shortest": shortest, "steps": steps}
        found.append(
            Comparison(
                name=f"learning {name}",
                metrics=(
                    Metric(key="learned", unit="tokens/s", less=False, wanted=wanted),
                    Metric(key="memory", unit="MiB"),
                ),
                ours=Side(run="ours", arguments=given, needs=("transformers",)),
                peers={
                    "Trainer": Side(run="trainer", arguments=given, needs=("transformers", "accelerate")),
                    **(
                        {
                            "Trainer, by length": Side(
                                run="trainer",
                                arguments=given | {"by_length": True},
                                needs=("transformers", "accelerate"),
                            )
                        }
                        if shortest < LONGEST
                        else {}
                    ),
                },
                repeats=repeats,
            )
        )
    found.append(
        Comparison(
            name=f"saying {SAID} tokens after {PROMPT}",
            metrics=(Metric(key="said", unit="tokens/s", less=False, wanted=2.4),),
            ours=Side(run="speak", needs=("transformers",)),
            peers={"generate": Side(run="generate", needs=("transformers",))},
            repeats=repeats,
        )
    )
    return found


def language(folder: str) -> str:
    """A model with weights as they are drawn, and a tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models

    torch.manual_seed(0)
    tokenizer = Tokenizer(
        models.WordLevel({str(number): number for number in range(SIZE["vocab_size"])}, unk_token="0")
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="0", unk_token="0").save_pretrained(
        folder
    )
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZE)).save_pretrained(folder)
    return folder


def conversations(shortest: int, steps: int) -> list[Any]:
    """Ids of each line of all steps."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [rng.integers(1, SIZE["vocab_size"], rng.integers(shortest, LONGEST + 1)) for _ in range(steps * LINES)]


def ours(shortest: int, steps: int) -> dict[str, float]:
    """Packed side by side; the loss in pieces."""
    import time

    import numpy as np
    import torch

    from benchmarks._measure import memory_growth
    from sensorium.network.packed_conversation import pack, summed_losses
    from sensorium.nn.precision import autocast, choose
    from sensorium.training.optimizer import Optimizer
    from sensorium.trunks.causal_lm import CausalLM

    lines = conversations(shortest, steps)
    with tempfile.TemporaryDirectory() as folder:
        trunk = CausalLM(8, [], path=language(folder), tune="full").train()
    optimizer, cpu = Optimizer([trunk], name="adamw"), torch.device("cpu")
    took: list[float] = []

    def learn() -> None:
        for start in range(0, len(lines), LINES):
            begun = time.perf_counter()
            some = lines[start : start + LINES]
            with autocast(choose("auto", cpu), cpu):
                sums, counts = summed_losses(
                    trunk,
                    pack(trunk, some, [np.ones(len(line), bool) for line in some], np.arange(len(some)), {}, {}),
                )
                (sums.sum() / counts.sum()).backward()
            optimizer.step(1.0)
            optimizer.zero()
            took.append(time.perf_counter() - begun)

    memory = memory_growth(learn)
    return {"learned": sum(map(len, lines[LINES:])) / sum(took[1:]), "memory": memory}


def trainer(shortest: int, steps: int, by_length: bool = False) -> dict[str, float]:
    """Each batch padded to its longest line; ``by_length``: lines of about one length together."""
    import time

    import torch
    import transformers

    from benchmarks._measure import memory_growth
    from sensorium.nn.precision import multiplies_bf16

    lines = [{"input_ids": line.tolist()} for line in conversations(shortest, steps)]
    took: list[float] = []
    learned: list[int] = []

    class Watch(transformers.TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            took.append(-time.perf_counter())

        def on_step_end(self, *_: object, **__: object) -> None:
            took[-1] += time.perf_counter()

    def collate(some: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        learned.append(sum(len(line["input_ids"]) for line in some))
        padded = [
            torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(line["input_ids"]) for line in some], batch_first=True, padding_value=value
            )
            for value in (0, -100)
        ]
        return {"input_ids": padded[0], "labels": padded[1], "attention_mask": (padded[1] >= 0).long()}

    with tempfile.TemporaryDirectory() as folder:
        model = transformers.AutoModelForCausalLM.from_pretrained(language(folder), dtype=torch.float32)
        model.config.use_cache = False
        how = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=LINES,
            num_train_epochs=1,
            use_cpu=True,
            bf16=multiplies_bf16(),
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **({"train_sampling_strategy": "group_by_length"} if by_length else {}),
        )
        learner = transformers.Trainer(model, how, train_dataset=lines, data_collator=collate, callbacks=[Watch()])
        memory = memory_growth(learner.train)
    return {"learned": sum(learned[1:]) / sum(took[1:]), "memory": memory}


def speak() -> dict[str, float]:
    """As ``chat`` does: what was heard is remembered, and each token is drawn from what the head says."""
    import torch

    from benchmarks._measure import seconds
    from sensorium.nn.precision import autocast, choose
    from sensorium.trunks.causal_lm import CausalLM

    with tempfile.TemporaryDirectory() as folder:
        trunk = CausalLM(8, [], path=language(folder), tune="frozen").eval()
    prompt, cpu = torch.arange(1, PROMPT + 1).unsqueeze(0), torch.device("cpu")

    @torch.inference_mode()
    def say() -> None:
        with autocast(choose("auto", cpu), cpu):
            hidden, state = trunk.prefill_tokens(trunk.words(prompt), torch.ones(prompt.shape, dtype=torch.bool))
            for _ in range(SAID):
                logits = trunk.logits(hidden[:, -1], state)
                hidden, state = trunk.decode_entered(state, trunk.words(logits.argmax(-1, keepdim=True)))

    return {"said": SAID / seconds(say)}


def generate() -> dict[str, float]:
    """transformers' own loop."""
    import torch
    import transformers

    from benchmarks._measure import seconds
    from sensorium.nn.precision import multiplies_bf16

    with tempfile.TemporaryDirectory() as folder:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            language(folder), dtype=torch.bfloat16 if multiplies_bf16() else torch.float32
        ).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    prompt = torch.arange(1, PROMPT + 1).unsqueeze(0)
    return {
        "said": SAID
        / seconds(
            lambda: model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=SAID, do_sample=False)
        )
    }
