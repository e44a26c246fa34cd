"""Preloaded modules: what the processes that hold a model or decode files share, imported once in their fork server."""

from sensorium.serve.routes import route_modules

route_modules()
