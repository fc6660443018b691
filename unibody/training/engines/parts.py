"""Folders to which each process has written its part (torch.distributed.checkpoint), read without running anything they hold.

Their index is a pickle, and so are the values that are no tensors: only what such files have is let through.
"""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as records
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

INDEX = ".metadata"
CLASSES = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("collections", "OrderedDict"),
    *(("pathlib", name) for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath")),
    *((records.__name__, name) for name in ("BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex")),
    *((records.__name__, name) for name in ("StorageMeta", "TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING")),
}  # fmt: skip


class IndexUnpickler(pickle.Unpickler):
    """Makes the records of an index, sizes, types and paths. UnpicklingError: it names something else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in CLASSES or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an index")


class PartsReader(FileSystemReader):
    """torch's reader of a folder, with an index that can only be data."""

    def read_metadata(self, *_: Any, **__: Any) -> Any:
        with Path(self.path, INDEX).open("rb") as file:
            found = IndexUnpickler(file).load()
        found.storage_meta = found.storage_meta or records.StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


class PartsPlanner(DefaultLoadPlanner):
    """torch's plan of which process reads what, with values that can only be data."""

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        plain = torch.load(value, weights_only=True)
        torch.save(plain, safe := io.BytesIO())
        safe.seek(0)
        super().load_bytes(read_item, safe)


def read_index(folder: Path) -> Any:
    """What a folder of parts says that it holds. OSError: it is no such folder; ValueError: a part is missing, cut off, or not data."""
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder} is not there or has no {INDEX}: name a checkpoint of SHARDED_STATE_DICT")
    try:
        found = PartsReader(folder).read_metadata()
    except (pickle.UnpicklingError, EOFError, AttributeError) as error:
        raise ValueError(f"{folder / INDEX} cannot be read ({error}): take another checkpoint") from error
    needed: dict[str, int] = {}
    for part in (found.storage_data or {}).values():
        needed[part.relative_path] = max(needed.get(part.relative_path, 0), part.offset + part.length)
    for name, size in needed.items():
        if Path(name).name != name:
            raise ValueError(f"{folder / INDEX} names {name!r}, which is not in its folder: refused")
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}, a process's part: fetch it, or take another checkpoint")
        if (there := (folder / name).stat().st_size) < size:
            raise ValueError(
                f"{folder / name} has {there} bytes of {size}: fetch it again, or take another checkpoint"
            )
    return found


def load_parts(state: dict[str, Any], folder: Path, alone: bool = False) -> None:
    """Fills the tensors of a state, and replaces its other values; every process calls it, unless one is `alone`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # alone it need not be there
        load(state, storage_reader=PartsReader(folder), planner=PartsPlanner(), no_dist=alone)


def save_parts(state: dict[str, Any], folder: Path) -> None:
    """Writes this process's part of a state; every process calls it."""
    save(state, checkpoint_id=folder)
