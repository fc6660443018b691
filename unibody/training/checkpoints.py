"""Folders `checkpoint-<step>`: written whole or not at all, found, rotated, and read into what they came from."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unibody.core.loading import read_tensors
from unibody.core.saving import write_atomically

NAME = re.compile(r"checkpoint-(\d+)")
STATE = "trainer_state.json"
# Folders to which each process writes its part, by accelerate's names.
MODEL_PARTS, OPTIMIZER_PARTS = "pytorch_model_fsdp_0", "optimizer_0"


def checkpoint_folders(output_dir: str | Path) -> list[Path]:
    """The checkpoints below a folder, by their steps."""
    found = ((NAME.fullmatch(path.name), path) for path in Path(output_dir).glob("checkpoint-*") if path.is_dir())
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def get_last_checkpoint(folder: str | Path) -> str | None:
    """The checkpoint with the most steps below a folder; None: there is none."""
    folders = checkpoint_folders(folder)
    return str(folders[-1]) if folders else None


def find_checkpoint(wanted: str | Path | bool, output_dir: str, needed: Iterable[str]) -> Path:
    """The checkpoint to resume from; True: the last below `output_dir`. ValueError: it lacks a file that is needed.

    Where there are two kinds of a file, "one or the other" names both.
    """
    last = get_last_checkpoint(output_dir) if wanted is True else str(wanted)
    if last is None:
        raise ValueError(
            f"{output_dir} holds no checkpoint-<step> to resume from: start without resume_from_checkpoint"
        )
    folder = Path(last)
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if lacking := [name for name in (STATE, *needed) if there.isdisjoint(name.split(" or "))]:
        near = get_last_checkpoint(folder) if folder.is_dir() else None
        remedy = f"name {near}" if near else "name a folder checkpoint-<step> that a trainer wrote with its optimizer"
        if OPTIMIZER_PARTS in there:
            remedy = "it is in parts, which fsdp=True resumes from"
        raise ValueError(f"{folder} is no checkpoint to resume from, it has no {', '.join(lacking)}: {remedy}")
    return folder


@contextmanager
def written_whole(folder: Path, first: bool = True) -> Iterator[Path]:
    """A neighbour of `folder` to write into, which takes its name at the end; `first` is the process that makes and renames it.

    Killed at any moment, `folder` holds what it held, or all of the new.
    """
    temporary = folder.with_name(f".{folder.name}.partial")
    if first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    yield temporary
    if first:
        remove_whole(folder)
        os.replace(temporary, folder)


def remove_whole(folder: Path) -> None:
    """Removes a folder so that no part of it is ever found under its name."""
    if folder.is_dir():
        doomed = folder.with_name(f".{folder.name}.removed")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(folder, doomed)
        shutil.rmtree(doomed)


def remove_leftovers(output_dir: str | Path) -> None:
    """Removes what a killed run was writing or removing."""
    for pattern in (".checkpoint-*.partial", ".checkpoint-*.removed"):
        for folder in Path(output_dir).glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def rotate(output_dir: str | Path, limit: int | None, kept: str | None) -> None:
    """Removes the oldest checkpoints over `limit`; `kept` stays, and so does the last, to resume from."""
    folders = checkpoint_folders(output_dir)
    if limit is None:
        return
    spared = {folders[-1].resolve()} | ({Path(kept).resolve()} if kept else set()) if folders else set()
    doomed = [folder for folder in folders if folder.resolve() not in spared]
    for folder in doomed[: max(0, len(folders) - limit)]:
        remove_whole(folder)


def save_model(model: Any, folder: Path) -> None:
    """The model's checkpoint: what its `save_pretrained` writes; of a module without it, model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        return
    from safetensors.torch import save_model as save_module

    write_atomically(folder / "model.safetensors", lambda path: save_module(model, str(path)))


def load_model(
    model: nn.Module,
    folder: Path,
    fill: Callable[[str, Any, Tensor], Any] = lambda _, own, stored: own.copy_(stored),
) -> None:
    """Copies the weights of a checkpoint into a model, in place. ValueError: they are another model's.

    `fill(name, own, stored)` puts one tensor into the model's own, of which a process may have a part only.
    """
    if has_adapters(model):
        stored, state = read_adapters(model, folder)
    else:
        stored, state = read_tensors(folder), model.state_dict(keep_vars=True)
    compare(model, folder, {name: tuple(tensor.shape) for name, tensor in stored.items()}, state)
    with torch.no_grad():
        for name, tensor in stored.items():
            fill(name, state[name], tensor)


def has_adapters(model: Any) -> bool:
    """Whether a model is trained, and stored, as adapters beside a base that is elsewhere."""
    return bool(getattr(model, "peft_config", None))


def read_adapters(model: Any, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of the adapter that a checkpoint holds, and those of the model's active one, by the same names."""
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import load_file

    from unibody.integrations.adapter_files import PREFIX, WEIGHTS

    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} has no {WEIGHTS}, and this {type(model).__name__} has adapters: add them later")
    (name,) = model.active_adapters() if hasattr(model, "get_adapter_state_dict") else model.active_adapters
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    stored = {key.removeprefix(PREFIX): tensor for key, tensor in load_file(folder / WEIGHTS).items()}
    return stored, {key.removeprefix(PREFIX): tensor for key, tensor in state.items()}


def compare(model: nn.Module, folder: Path, stored: dict[str, tuple[int, ...]], state: dict[str, Any]) -> None:
    """ValueError: the shapes that are stored are another model's than this one, of which `state` is the state."""
    shared: dict[str, list[str]] = {}
    for name, first in first_names(model).items():
        shared.setdefault(first, []).append(name)
    once = {other for names in shared.values() if set(names) & stored.keys() for other in names if other not in stored}
    lacking, unknown = sorted(state.keys() - stored.keys() - once), sorted(stored.keys() - state.keys())
    shapes = {name: tuple(getattr(tensor, "ds_shape", tensor.shape)) for name, tensor in state.items()}
    differing = [
        f"{name}: {list(shape)} stored, {list(shapes[name])} wanted"
        for name, shape in stored.items()
        if name in state and shape != shapes[name]
    ]
    if lacking or unknown or differing:
        parts = (("lacks ", lacking), ("has besides ", unknown), ("differs in ", differing))
        text = "; ".join(f"it {verb}{', '.join(names[:3])}{' …' * (len(names) > 3)}" for verb, names in parts if names)
        raise ValueError(
            f"{folder} is a checkpoint of another model than this {type(model).__name__.removeprefix('FSDP')}: {text}"
        )


def first_names(model: nn.Module) -> dict[str, str]:
    """For each weight the first of the names that it has, where it is tied to others."""
    found: dict[int, str] = {}
    every = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {name: found.setdefault(id(tensor), name) for name, tensor in every}
