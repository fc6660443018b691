"""Where checkpoints are: a folder, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def locate_checkpoint(
    folder_or_id: str | os.PathLike[str], revision: str | None = None, patterns: Sequence[str] = ("*.json",)
) -> Path:
    """The folder of a checkpoint: the one named, or the Hub's repository `owner/name`, of which it fetches `patterns`."""
    folder = Path(folder_or_id)
    if folder.is_dir():
        return folder
    require_repository(folder)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise FileNotFoundError(f"{folder} is not a folder, and without huggingface_hub the Hub is unknown") from error
    return Path(snapshot_download(str(folder_or_id), revision=revision, allow_patterns=list(patterns)))


def require_repository(name: Path) -> None:
    """Refuses what is no folder and cannot be a repository's name either."""
    if not re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", str(name)):
        raise FileNotFoundError(f"{name} is not a folder: name a checkpoint's folder or a repository of the Hub")


def read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: a checkpoint is a folder with config.json and *.safetensors")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error}): fetch it again") from error
    except RecursionError as error:
        raise ValueError(f"{file} is nested too deeply for a configuration or an index: fetch another") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds {type(values).__name__}, expected an object of keys and values")
    return values
