"""Adapters on the disk and on the Hub: adapter_config.json and adapter_model.safetensors, as peft writes them."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from unibody.core.hub import read_json
from unibody.core.saving import write_atomically, write_json
from unibody.errors import HubError
from unibody.hub import cached_files, has_file

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."  # of every name in the file: where peft's wrapper holds the model


def read_adapter(folder_or_id: str | os.PathLike[str], hub: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    """Configuration and tensors of an adapter. HubError: a file is not there; ValueError: it is not what it should be."""
    from peft import PeftConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config_file, *_ = cached_files(folder_or_id, [CONFIG], **hub)
    try:
        weights_file = cached_files(folder_or_id, [CONFIG, WEIGHTS], **hub)[1]
    except HubError as error:
        if Path(config_file).with_name(PICKLED).is_file() or is_pickled(folder_or_id, hub):
            raise HubError(
                f"{folder_or_id} holds only pickled weights ({PICKLED}), which run code when they are read: convert them to "
                "safetensors, or use a revision of the repository that has them"
            ) from error
        raise
    values = read_json(Path(config_file))
    try:
        config = PeftConfig.from_peft_type(**values)  # type: ignore[no-untyped-call]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{config_file} is no configuration that this peft knows ({error}): update peft?") from error
    try:
        return config, load_file(weights_file)
    except SafetensorError as error:
        raise ValueError(f"{weights_file} is not a whole safetensors file ({error}): fetch it again") from error


def is_pickled(folder_or_id: str | os.PathLike[str], hub: dict[str, Any]) -> bool:
    names = ("revision", "token", "cache_dir", "local_files_only")
    path = f"{hub['subfolder']}/{PICKLED}" if hub.get("subfolder") else PICKLED
    return has_file(folder_or_id, path, **{name: hub[name] for name in names if name in hub})


def write_adapter(folder: str | os.PathLike[str], config: Any, tensors: dict[str, Tensor]) -> None:
    """Writes both files, the configuration last; each holds its old bytes or its new."""
    from safetensors.torch import save_file

    config = copy.copy(config)
    config.inference_mode = True
    stored = {f"{PREFIX}{name}": tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_atomically(Path(folder, WEIGHTS), lambda file: save_file(stored, file, metadata={"format": "pt"}))
    write_json(Path(folder, CONFIG), {name: plain(value) for name, value in config.to_dict().items()})


def plain(value: Any) -> Any:
    """What JSON can hold: sets as sorted lists."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value
