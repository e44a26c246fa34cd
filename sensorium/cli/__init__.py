"""The command line: ``main`` the command and its global options, ``commands`` a file a verb, and what these share.

``output`` prints, ``options`` are options of several verbs, ``files`` writes files, ``lazy`` finds the verbs.
"""

from sensorium.cli.main import run

__all__ = ["run"]
