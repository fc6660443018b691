"""Writing checkpoint folders that the Hub's libraries read, file by file, each whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor


def save_checkpoint(
    model: Any, folder: str | os.PathLike[str], max_shard_size: int | str, state_dict: dict[str, Tensor] | None = None
) -> None:
    """Writes config.json and the weights, in files of at most `max_shard_size` ("5GB"); a tied weight is stored once.

    `state_dict` stands in for the model's own, where that does not hold the weights as they are to be stored.
    """
    from safetensors.torch import save_file

    state = {name: tensor.detach().contiguous() for name, tensor in (state_dict or model.state_dict()).items()}
    for name, source in model._tied_weights_keys.items():
        if name in state and source in state and state[name].data_ptr() == state[source].data_ptr():
            del state[name]
    quantizer = model.hf_quantizer if getattr(model, "is_quantized", False) else None
    header = {"format": "pt", **getattr(quantizer, "file_metadata", lambda _: {})(model)}
    limit = parse_size(max_shard_size)
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in state.items():
        if shards[-1] and sum(other.nbytes for other in shards[-1].values()) + tensor.nbytes > limit:
            shards.append({})
        shards[-1][name] = tensor
    files = {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, 1)}
    files = files if len(shards) > 1 else {"model.safetensors": state}
    for file, shard in files.items():
        write_atomically(Path(folder, file), partial(save_file, shard, metadata=header))
    index = Path(folder, "model.safetensors.index.json")
    if len(shards) > 1:
        places = {name: file for file, shard in files.items() for name in shard}
        write_json(index, {"metadata": {"total_size": sum(t.nbytes for t in state.values())}, "weight_map": places})
    for path in Path(folder).glob("model*.safetensors*"):  # left by an earlier save, and readers might prefer it
        if path.name not in files and (path != index or len(shards) == 1):
            path.unlink()
    for file, values in getattr(quantizer, "companion_files", lambda _: {})(model).items():
        write_json(Path(folder, file), values)
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]  # FSDP2 gives models classes of its own
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.save_pretrained(folder)


def parse_size(size: int | str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT])B", str(size).upper())
    if match is None and not isinstance(size, int):
        raise ValueError(f"size {size!r} is not understood: write a number of bytes, or for example '5GB' or '200MB'")
    return int(size) if match is None else int(float(match[1]) * 1000 ** " KMGT".index(match[2]))


def write_json(path: Path, values: dict[str, Any]) -> None:
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a temporary neighbour of `path`, then renames it: `path` holds the old bytes or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # anyone's that new files are; safetensors writes for the owner alone
        write(temporary)
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
