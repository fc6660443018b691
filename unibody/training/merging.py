"""One checkpoint for `from_pretrained` of the parts that several processes have written."""

from __future__ import annotations

import re
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

from unibody.core.saving import parse_size, write_atomically, write_json
from unibody.training.checkpoints import MODEL_PARTS, written_whole
from unibody.training.engines.parts import load_parts, read_index

OF_A_RUN = re.compile(r"(optimizer|scheduler|scaler)\.pt|rng_state.*|trainer_state\.json|training_args\.json")


def merge_sharded_checkpoint(
    checkpoint: str | Path, output_dir: str | Path, max_shard_size: int | str = "5GB"
) -> Path:
    """Writes the model of a sharded checkpoint as `from_pretrained` reads it, and returns its folder; one process is enough.

    Never more than one file of the result is held in memory. OSError, ValueError: the checkpoint is no sharded one, a part of it
    is missing or cut off, or `output_dir` holds something already; nothing is written.
    """
    from safetensors.torch import save_file

    source, target = Path(checkpoint), Path(output_dir)
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"{target} holds files already: name a folder that is new or empty")
    stored: dict[str, Any] = read_index(source / MODEL_PARTS).state_dict_metadata
    sizes = {name: meta.size.numel() * meta.properties.dtype.itemsize for name, meta in stored.items()}
    limit, files, held = parse_size(max_shard_size), list[list[str]](), 0
    for name, size in sizes.items():
        if not files or held + size > limit:
            files.append([])
            held = 0
        files[-1].append(name)
        held += size
    with written_whole(target) as place:
        for path in source.iterdir():
            if path.is_file() and not OF_A_RUN.fullmatch(path.name):
                shutil.copy2(path, place)
        places: dict[str, str] = {}
        for number, names in enumerate(files, 1):
            file = f"model-{number:05}-of-{len(files):05}.safetensors" if len(files) > 1 else "model.safetensors"
            tensors = read_parts(source / MODEL_PARTS, {name: stored[name] for name in names})
            write_atomically(place / file, partial(save_file, tensors, metadata={"format": "pt"}))
            places |= dict.fromkeys(tensors, file)
        if len(files) > 1:
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
            write_json(place / "model.safetensors.index.json", index)
    return target


def read_parts(folder: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Whole tensors by their names in the model, put together from all processes' files."""
    import torch

    tensors = {
        name.removeprefix("model."): torch.empty(meta.size, dtype=meta.properties.dtype)
        for name, meta in metadata.items()
    }
    load_parts({"model": tensors}, folder, alone=True)
    return tensors


def run(checkpoint: Path, output_dir: Path, max_shard_size: str) -> int:
    """Merges and says so; the exit status."""
    try:
        merge_sharded_checkpoint(checkpoint, output_dir, max_shard_size)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {output_dir}")
    return 0
