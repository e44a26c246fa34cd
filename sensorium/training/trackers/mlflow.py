"""MLflow. To a database file in the run's folder unless MLFLOW_TRACKING_URI says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensorium.core.errors import UserError
from sensorium.training.trackers import Tracker


class MLflow(Tracker):
    """Metrics to an MLflow run named after the run's folder, every tenth step."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        try:
            import mlflow
        except ModuleNotFoundError as error:
            raise UserError(
                "trackers=mlflow needs the package mlflow. Install it with: pip install 'sensorium[mlflow]'"
            ) from error
        self.mlflow = mlflow
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        mlflow.set_experiment("sensorium")
        self.run = mlflow.start_run(run_name=folder.name)
        mlflow.log_dict(dict(settings), "settings.json")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step % 10 == 0:
            self.mlflow.log_metrics({name.replace(" ", "_"): value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self.mlflow.end_run()
