"""Opening pretrained encoders and language models: where their folders are, and which library opens each."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.backbones import Backbone, Kind
from sensorium.backbones._language_model import LanguageModel
from sensorium.core.errors import UserError
from sensorium.core.registry import find, names

HUB = re.compile(r"(?:hf:)?(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?")


FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model", "README.md", "LICENSE*"]
"""Files of a repository on the hub that are fetched: no code and nothing that could run as code."""


CODE = (".py", ".so", ".pyd", ".dll")


LIBRARIES = {"voices": "ge2e"}
"""Model types that a part of another name opens."""


PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl")


def open_backbone(name: str, kind: Kind, patches: bool = False) -> Backbone:
    """Backbone of a folder, or of a repository on the hub (``OWNER/NAME@REVISION``), opened once a process.

    Raises:
        UserError: it isn't there, brings code or pickled weights, is cut short, or is no encoder of such cells.
    """
    folder = located(name)
    return _opened(folder.resolve(), kind, name, patches)


def library_of(config: Mapping[str, Any]) -> str:
    """Name of the part that opens an encoder, by its configuration, without importing any.

    One of another family says ``"library": NAME`` or ``"model_type": NAME``, where NAME is the part's file.
    """
    for key in ("library", "model_type"):
        if (name := LIBRARIES.get(config.get(key), config.get(key))) in names(Backbone):
            return str(name)
    return "timm" if "architecture" in config and "model_type" not in config else "transformers"


@functools.lru_cache(maxsize=8)
def _opened(folder: Path, kind: Kind, name: str, patches: bool) -> Backbone:
    config = checked(folder, name)
    library = library_of(config)
    if library == "timm" and kind != "image":
        raise UserError(
            f"'{name}' is an encoder of pictures (timm: {config['architecture']}); the column holds {kind}. Give "
            "another backbone."
        )
    if patches and library != "transformers":
        raise UserError(
            f"The layout of LLaVA takes a CLIP or SigLIP that transformers opens; '{name}' is one of {library}. Give "
            "another backbone, or leave column.NAME.llava out."
        )
    part = find(Backbone, library)
    try:
        backbone = part(folder, kind, patches)
        trial = {
            "image": lambda: [backbone.picture(np.zeros((8, 8, 3), np.uint8))] * 2,
            "text": lambda: ["a", "one more word"],
            "audio": lambda: [np.zeros(backbone.rate, np.float32)],
        }
        if any(
            found.ndim != 2 or found.shape[1] != backbone.width or not np.isfinite(found).all()
            for found in backbone.encode(trial[kind]())
        ):
            raise UserError(f"The backbone '{name}' gives no features of {backbone.width} finite numbers for a cell.")
        return backbone
    except UserError:
        raise
    except Exception as error:  # these libraries raise whatever a file makes them stumble over
        raise UserError(
            f"The backbone '{name}' can't be opened as an encoder of {kind} by {library}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
        ) from error


def located(name: str) -> Path:
    """Folder of a backbone.

    Of ``package:NAME`` it is that of an installed package; of one on the hub that of its files in the hub's cache,
    fetched where they aren't there.

    Raises:
        UserError: there is none.
    """
    if name.startswith("package:"):
        from sensorium.backbones._packages import packaged

        return packaged(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    found = HUB.fullmatch(name)
    if found is None or (not name.startswith("hf:") and (name[0] in ".~" or path.parent.is_dir())):
        raise UserError(
            f"There is no backbone '{name}': no such folder. Give a folder with config.json and model.safetensors, "
            "package:NAME, or a repository on the hub, OWNER/NAME@REVISION."
        )
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise UserError(
            f"The backbone '{name}' is no folder here, and fetching it from the hub needs the package "
            "'huggingface_hub'. Install it with: pip install sensorium[backbones]"
        ) from error
    try:
        return Path(snapshot_download(found["name"], revision=found["revision"], allow_patterns=FETCHED))
    except Exception as error:  # of the hub, the network or the disk
        raise UserError(
            f"The backbone '{name}' is no folder here and can't be had from the hub: {type(error).__name__}. With a "
            "connection it is fetched at first use, or by hand: "
            f"hf download {found['name']} --local-dir FOLDER; nothing is fetched where HF_HUB_OFFLINE=1."
        ) from error


def checked(folder: Path, name: str) -> dict[str, Any]:
    """Configuration in a backbone's folder, after a check of its other files.

    Raises:
        UserError: no configuration, code, or weights that are no whole safetensors.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"'{name}' holds no backbone: there is no config.json.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(config, dict)
    except (ValueError, AssertionError) as error:
        raise UserError(f"'{path}' is no configuration of a backbone: {error}") from error
    files = [file for file in folder.iterdir() if file.is_file()]
    code = [file.name for file in files if file.suffix in CODE]
    if code or "auto_map" in config:
        raise UserError(
            f"The backbone '{name}' brings code of its own ({', '.join(code) or 'auto_map in config.json'}), which is "
            "never run. Give one that transformers or timm knows without."
        )
    weights = [file for file in files if file.suffix == ".safetensors"]
    if not weights:
        pickled = [file.name for file in files if file.suffix in PICKLED]
        raise UserError(
            f"The backbone '{name}' has no model.safetensors"
            + (
                f", only {', '.join(pickled)}, which may run code when it is opened. Convert it with its maker's "
                "script."
                if pickled
                else "."
            )
        )
    from safetensors import SafetensorError, safe_open

    for file in weights:
        try:
            with safe_open(file, "pt") as opened:
                opened.keys()
        except (SafetensorError, OSError) as error:
            raise UserError(f"'{file}' is cut short or no safetensors: {error}. Fetch it again.") from error
    return config


def open_language(name: str) -> LanguageModel:
    """Language model of a folder, a GGUF file, or a repository on the hub (``OWNER/NAME@REVISION``), opened once a
    process.

    Raises:
        UserError: it isn't there, brings code or pickled weights, or is no causal language model.
    """
    path = Path(name).expanduser()
    return _opened_language((path if path.is_file() and path.suffix == ".gguf" else located(name)).resolve(), name)


@functools.lru_cache(maxsize=4)
def _opened_language(path: Path, name: str) -> LanguageModel:
    if path.is_dir():
        config = checked(path, name)
        kinds = config.get("architectures") or []
        if kinds and not any(
            "CausalLM" in kind or "LMHead" in kind or "ConditionalGeneration" in kind for kind in kinds
        ):
            raise UserError(
                f"'{name}' is no language model that writes on from what stands before ({', '.join(kinds)}). Give a "
                "causal one, as SmolLM2, Qwen 3, Llama or Gemma are."
            )
    try:
        return LanguageModel(path)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(
            f"'{name}' needs the package '{error.name}'. Install it with: pip install 'sensorium[backbones]'"
        ) from error
    except Exception as error:  # as above
        raise UserError(
            f"The language model '{name}' can't be opened: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
        ) from error
