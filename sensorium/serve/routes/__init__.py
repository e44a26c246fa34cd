"""Route registry: a file a route, with its request and response types, so that a new verb is one new file.

A file defines one or both of

    add_routes(router, server)         its endpoints, in the server's process
    answer(worker, jobs, **options)    the worker's answers to jobs of the verb that the file is named after

An endpoint asks the worker by ``sensorium.serve.dispatch.ask``. Both processes import the file, so torch and the model
are imported inside ``answer``. Other packages add routes by entry points of the group ``sensorium.routes``:
``verb = "package.module"``.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from importlib.metadata import entry_points
from types import ModuleType

ENTRY_POINTS = "sensorium.routes"


@functools.cache
def route_modules() -> dict[str, ModuleType]:
    """All route modules by name; ours win over another package's of the same name."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name not in modules:
            modules[point.name] = point.load()
    return modules
