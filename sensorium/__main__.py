"""``python -m sensorium``."""

from sensorium.cli import run

run()
