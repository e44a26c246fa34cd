"""What the processes that hold a model or decode files share: imported once, in the process they are made from."""

import sensorium.export.model_folder
import sensorium.model  # noqa: F401
