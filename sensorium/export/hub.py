"""Model folders for others: saved with a model card and without private rows, and pushed to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from safetensors import SafetensorError

from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write
from sensorium.export import backbone_folders, model_folder, run_files
from sensorium.inference.trained import Trained


def save(trained: Trained, folder: Path) -> Path:
    """Write a model to its folder: see ``Model.save``."""
    try:
        model_folder.write(folder, trained.network, trained.schema, trained.settings, trained.facts)
        if trained.folder is not None and trained.folder.resolve() != folder.resolve():
            run_files.copy_existing(trained.folder, folder, run_files.RUN_FILES)
    except (OSError, SafetensorError) as error:
        raise _unwritable(folder, error) from error
    trained.folder = trained.folder or folder
    return folder


def save_pretrained(trained: Trained, folder: Path, rows: bool) -> Path:
    """Write a model for others, with its encoders and a model card: see ``Model.save_pretrained``."""
    from sensorium.report.card import licence, write_card

    network = trained.network
    encoders = {column: m.encoder for column, m in network.modalities.items() if m.encoder is not None}
    own = trained.folder is not None and trained.folder.resolve() == folder.resolve()
    if not rows:
        run_files.check_target(folder, own)
    try:
        model_folder.write(folder, network, trained.schema, trained.settings, trained.facts, rows, own)
        backbone_folders.copy_backbones(folder, encoders)
        language = getattr(network.trunk, "language", None)
        if language is not None:
            backbone_folders.copy_language(folder, language)
        if trained.folder is not None and not own:
            run_files.copy_run_files(trained.folder, folder, network, rows)
        card = write_card(
            folder,
            {name: column.kind for name, column in trained.schema.columns.items()},
            trained.facts,
            {
                column: {"name": e.name, "licence": licence(e.folder), "sha256": e.sha256}
                for column, e in {**encoders, **({"(the trunk)": language} if language is not None else {})}.items()
            },
            trained.schema.left_out,
        )
        with atomic_write(folder / "README.md") as part:
            part.write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise _unwritable(folder, error) from error
    if rows:
        trained.folder = trained.folder or folder
    return folder


def push_to_hub(trained: Trained, name: str, private: bool, token: str | None, rows: bool) -> str:
    """Upload a model to a repository on the hub: see ``Model.push_to_hub``."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError as error:
        raise UserError(
            "To give a model to the hub the package 'huggingface_hub' is needed. "
            "Install it with: pip install sensorium[backbones]"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        own, hub = trained.folder, HfApi(token=token)
        given = save_pretrained(trained, Path(folder) / "model", rows)
        trained.folder = own
        try:
            hub.create_repo(name, private=private, exist_ok=True)
            if private and not hub.repo_info(name).private:
                raise UserError(
                    f"The repository '{name}' is there and public. To give the model to everybody"
                    f"{', with its memory of training rows' if rows else ''}, say private=False."
                )
            return str(
                hub.upload_folder(repo_id=name, folder_path=given, ignore_patterns=list(run_files.MACHINE_FILES))
            )
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise UserError(
                f"The hub didn't take '{name}': {type(error).__name__}. Is it OWNER/NAME, and is a token with the "
                "right to write known (hf auth login)?"
            ) from error


def _unwritable(folder: Path, error: Exception) -> UserError:
    """The error of a folder that can't be written."""
    return UserError(f"Can't write the model to '{folder}': {getattr(error, 'strerror', None) or error}.")
