"""What fewer bits of a language model cost and save: ``python docs/bits.py [LANGUAGE_MODEL]`` (package:smollm2-135m).

A line for all bits, the same compiled (``trunk.compile=true``), eight and four, each in a process of its own: the
weights' memory, perplexity on ``how-it-works.md``, a step of LoRA on eight lines of 128 tokens and the memory it takes
beside the weights, and tokens said a second.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import torch

from sensorium.network.packed_conversation import pack, summed_losses
from sensorium.nn.precision import autocast, choose
from sensorium.training.optimizer import Optimizer
from sensorium.trunks.causal_lm import CausalLM

TEXT = Path(__file__).resolve().parent / "how-it-works.md"
LINES, LENGTH, STEPS, SAID = 8, 128, 6, 64


def told(trunk: CausalLM, lines: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of all that lines say, summed, and of how many tokens it is, in the precision that a fit takes."""
    with autocast(choose("auto", torch.device("cpu")), torch.device("cpu")):
        sums, counts = summed_losses(
            trunk, pack(trunk, lines, [np.ones(len(line), bool) for line in lines], np.arange(len(lines)), {}, {})
        )
    return sums.sum(), counts.sum()


def said(trunk: CausalLM) -> float:
    """Tokens a second after a prompt, one after the other."""
    prompt, cpu = torch.arange(100, 132).unsqueeze(0), torch.device("cpu")
    with torch.inference_mode(), autocast(choose("auto", cpu), cpu):
        hidden, state = trunk.prefill_tokens(trunk.words(prompt), torch.ones(prompt.shape, dtype=torch.bool))
        for number in range(SAID + 1):
            if number == 1:  # the first makes what the others go on with
                begun = time.perf_counter()
            hidden, state = trunk.decode_entered(
                state, trunk.words(trunk.logits(hidden[:, -1], state).argmax(-1, keepdim=True))
            )
    return SAID / (time.perf_counter() - begun)


def measure(path: str, bits: int, compiled: bool = False) -> None:
    """Print one line."""
    sys.path.insert(0, str(TEXT.parent.parent))
    from benchmarks._measure import memory_growth

    trunk = CausalLM(8, [], path=path, tune="lora", bits=bits, compile=compiled)
    ids = np.array(trunk.language.ids(TEXT.read_text(encoding="utf-8")))
    lines = [line.astype(np.int64) for line in np.array_split(ids, -(-len(ids) // LENGTH))]
    with torch.no_grad():
        sums, counts = zip(*(told(trunk.eval(), [line]) for line in lines), strict=True)
    perplexity = float(torch.stack(sums).sum() / torch.stack(counts).sum().float())
    speed = said(trunk)
    trunk.fast_decoders.clear()
    optimizer, took = Optimizer([trunk.train()], name="adamw"), []

    def learn() -> None:
        for step in range(STEPS):
            begun = time.perf_counter()
            sums, counts = told(trunk, (lines * STEPS)[step * LINES : (step + 1) * LINES])
            (sums / counts).backward()
            optimizer.step(1.0)
            optimizer.zero()
            took.append(time.perf_counter() - begun)

    memory = memory_growth(learn)
    print(
        f"{bits or 'all':>3} bits{', compiled' if compiled else ''}: {trunk.facts()['bytes'] / 2**20:5.0f} MiB; "
        f"perplexity {np.exp(perplexity):.2f}; a step {np.median(took[1:]):.2f} s and {memory:.0f} MiB; {speed:.1f} "
        f"tokens/s",
        flush=True,
    )


def main() -> None:
    """A line for each."""
    for how in ((0,), (0, True), (8,), (4,)):
        process = multiprocessing.get_context("spawn").Process(
            target=measure, args=(sys.argv[1] if len(sys.argv) > 1 else "package:smollm2-135m", *how)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
