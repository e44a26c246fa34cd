"""Answering over HTTP: a model, and an index and a table with it, behind OpenAI's endpoints, our own, and a page.

    guard.py     who may ask what, and how much       protocol.py  how long a request may take to arrive
    own.py       our endpoints                        openai.py    those that OpenAI's clients call
    cells.py     what a request holds, as cells       uploads.py   files are decoded in a process of their own
    batcher.py   waiting requests, asked together     worker.py    the process that holds the model
    fetch.py     web addresses, if that is allowed    metrics.py   what Prometheus reads
    app.py       all of it, and how it starts

Only the model's process and those that decode import torch.
"""
