"""Pipelines that come with a checkpoint: their code beside the weights, named in config.json under `custom_pipelines`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import unibody
from unibody.core.hub import read_json
from unibody.core.saving import write_atomically, write_json
from unibody.dynamic_modules import (
    describe_code,
    get_class_from_dynamic_module,
    needed_files,
    resolve_trust_remote_code,
)
from unibody.pipelines.registry import ALIASES, PIPELINE_REGISTRY, Task

if TYPE_CHECKING:
    from unibody.pipelines.base import Pipeline

KEY = "custom_pipelines"  # of config.json: task -> {"impl": "module.Class", "pt": auto classes}


def is_foreign(pipeline: Pipeline) -> bool:
    """Whether the class is none of the library's."""
    return type(pipeline).__module__.partition(".")[0] != "unibody"


def ship_pipeline(pipeline: Pipeline, folder: Path) -> None:
    """Copies the file of a pipeline's class, and those that it imports relatively, into a folder, and names it in config.json.

    Nothing for the library's own classes. ValueError: the class is in no file that can be imported without running a program.
    """
    made = type(pipeline)
    if not is_foreign(pipeline):
        return
    file = getattr(sys.modules.get(made.__module__), "__file__", None)
    if made.__module__ == "__main__" or not file or "." in made.__qualname__:
        raise ValueError(
            f"{made.__qualname__} of {made.__module__} cannot be shipped, for its code would run as a program or is not "
            "in a file: define it at the top of a module of its own, and import it"
        )
    for path in needed_files(Path(file).name, lambda name: Path(file).parent / name):
        write_atomically(folder / path.name, partial(Path.write_bytes, data=path.read_bytes()))
    registered = PIPELINE_REGISTRY.tasks.get(pipeline.task)
    classes = registered.auto_classes if registered and registered.pipeline_class is made else made.auto_classes
    entry = {"impl": f"{Path(file).stem}.{made.__name__}", "pt": [getattr(c, "__name__", c) for c in classes]}
    values = read_json(folder / "config.json")
    values[KEY] = {**(values.get(KEY) or {}), pipeline.task or made.__name__: entry}
    write_json(folder / "config.json", values)


def find_shipped(
    values: dict[str, Any], task: str | None, source: str, trust: bool | None, hub: dict[str, Any]
) -> tuple[str, Task] | None:
    """The task that a checkpoint brings code for, if it is the one that is asked for, or the only one; its class is imported.

    `values` are those of config.json. UntrustedCodeError: the code was not trusted, and this library knows no such task. ValueError:
    the entry is not understood.
    """
    shipped = values.get(KEY) or {}
    if not isinstance(shipped, dict):
        raise ValueError(f"{source}: config.json says {KEY} {shipped!r}: expected tasks with their classes")
    name = ALIASES.get(task, task) if task else next(iter(shipped)) if len(shipped) == 1 else None
    if name not in shipped:
        return None
    entry = shipped[name]
    reference, classes = (entry.get("impl"), entry.get("pt")) if isinstance(entry, dict) else (None, None)
    classes = [classes] if isinstance(classes, str) else list(classes or ())
    if not isinstance(reference, str) or reference.rpartition("--")[2].count(".") != 1:
        raise ValueError(f"{source}: {KEY} says {entry!r} for {name}: expected {{'impl': 'module.Class', 'pt': […]}}")
    files = partial(describe_code, reference, source, hub.get("code_revision"), hub)
    if not resolve_trust_remote_code(trust, source, name in PIPELINE_REGISTRY.tasks, True, files):
        return None
    found = get_class_from_dynamic_module(reference, source, **hub)
    if not issubclass(found, unibody.Pipeline):
        raise TypeError(f"{source}: {reference} is not a subclass of unibody.Pipeline: it is for another library")
    return str(name), Task(found, tuple(classes) or getattr(found, "auto_classes", ()))
