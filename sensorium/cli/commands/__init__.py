"""Command registry: a file a command, ``ask_data.py`` is ``sensorium ask-data`` (``sensorium.cli.lazy``).

A file defines a function of its own name, whose docstring is the help, or a ``typer.Typer`` of that name for a group
of commands. ``GROUP`` is its heading in ``sensorium --help``, ``RANK`` its place there. Both are literals, as the help
is read from the source without importing it. Import what is heavy inside the function: ``sensorium VERB --help``
imports the file.
"""
