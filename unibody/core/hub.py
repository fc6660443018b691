"""Where checkpoints are: a folder, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path


def locate_checkpoint(folder_or_id: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder of a checkpoint: the one named, or the Hub's snapshot of the repository `owner/name`, downloaded."""
    folder = Path(folder_or_id)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", str(folder_or_id)):
        raise FileNotFoundError(f"{folder} is not a folder: name a checkpoint's folder or a repository of the Hub")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise FileNotFoundError(f"{folder} is not a folder, and to read the Hub, huggingface_hub is needed") from error
    return Path(snapshot_download(str(folder_or_id), revision=revision, allow_patterns=["*.json", "*.safetensors"]))
