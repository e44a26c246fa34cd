"""Report writing: one self-contained HTML file, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from sensorium.report.types import Evaluation, RunInfo, Show


def write_report(path: Path, run: RunInfo, evaluation: Evaluation, show: Show) -> None:
    """Write one self-contained HTML file of less than 15 MB, whole or not at all.

    All text is escaped but what ``show`` gives, and a policy in the page lets no script run but its own and nothing be
    fetched from anywhere.

    Raises:
        UserError: the file can't be written.
    """
    from sensorium.core.errors import UserError
    from sensorium.core.files import atomic_write
    from sensorium.report.page import render

    text = render(run, evaluation, show)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            part.write_bytes(text.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"Can't write the report '{path}': {error.strerror}.") from error
