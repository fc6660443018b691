"""Writing checkpoint folders that the Hub's libraries read, file by file, each whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor


def save_checkpoint(model: Any, folder: str | os.PathLike[str], max_shard_size: int | str = "5GB") -> None:
    """Writes config.json and the weights, in shards of at most `max_shard_size`; a tied weight is stored once."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    for name, source in model._tied_weights_keys.items():
        if state[name].data_ptr() == state[source].data_ptr():
            del state[name]
    model.config.architectures = [type(model).__name__]
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.save_pretrained(folder)
    shards = split_into_shards(state, parse_size(max_shard_size))
    files = {f"model-{n:05}-of-{len(shards):05}.safetensors": shard for n, shard in enumerate(shards, 1)}
    if len(shards) == 1:
        files = {"model.safetensors": state}
    for file, shard in files.items():
        write_atomically(Path(folder, file), lambda path: save_file(shard, path, metadata={"format": "pt"}))
    index = Path(folder, "model.safetensors.index.json")
    if len(shards) > 1:
        size = {"total_size": sum(tensor.nbytes for tensor in state.values())}
        places = {name: file for file, shard in files.items() for name in shard}
        text = json.dumps({"metadata": size, "weight_map": places}, indent=2, sort_keys=True) + "\n"
        write_atomically(index, lambda path: path.write_text(text, encoding="utf-8"))
    for path in Path(folder).glob("model*.safetensors*"):  # what an earlier save left, which a reader might prefer
        if path.name not in files and (path != index or len(shards) == 1):
            path.unlink()


def split_into_shards(state: dict[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """The tensors in order, in groups of at most `limit` bytes; a larger tensor has a group of its own."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def parse_size(size: int | str) -> int:
    """Bytes of a size such as "5GB" (powers of 1000) or 5_000_000_000."""
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B", size.upper())
    if match is None:
        raise ValueError(f"size {size!r} is not understood: write a number of bytes, or for example '5GB' or '200MB'")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2] or " "))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary neighbour of `path`, then renames it: `path` holds the old bytes or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
