"""HTTP server: a model, and an index and a table with it, behind OpenAI's endpoints, our own, and a page.

    routes/       a file a route: requests, responses, and the worker's answer
    page/         the static files of the page
    guard.py      who may ask what, and how much        timeouts.py    how long a request may take to arrive
    cells.py      what a request holds, as cells        decoders.py    files are decoded in processes of their own
    dispatch.py   from a request to the model's answer  batcher.py     waiting requests, asked together
    worker.py     the process that holds the model      process.py     child processes, and what they are sent
    fetch.py      web addresses, if that is allowed     metrics.py     what Prometheus reads
    app.py        all of it, and how it starts

Only the model's process and those that decode import torch.
"""
