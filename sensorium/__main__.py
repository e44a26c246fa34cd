"""``python -m sensorium``."""

from sensorium.cli import main

main()
