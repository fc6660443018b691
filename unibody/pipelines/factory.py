"""`pipeline()`: a ready pipeline from the name of a task or of a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

import unibody
from unibody.core.hub import read_json
from unibody.hub import commit_of, locate
from unibody.pipelines.base import Pipeline, read_device
from unibody.pipelines.heads import TASK_OF_HEAD, head_of, refuse_head
from unibody.pipelines.registry import PIPELINE_REGISTRY, Task
from unibody.pipelines.shipping import find_shipped

Source = str | os.PathLike[str]


def pipeline(
    task: str | None = None,
    model: Any = None,
    *,
    tokenizer: Any = None,
    config: Any = None,
    revision: str | None = None,
    device: int | str | torch.device | None = None,
    device_map: Any = None,
    dtype: Any = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    trust_remote_code: bool | None = None,
    code_revision: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    token: bool | str | None = None,
    pipeline_class: Any = None,
    **options: Any,
) -> Pipeline:
    """The pipeline of a task with a model and its tokenizer, each an object, a folder or a repository of the Hub.

    Without `task`, the model's head says which; without `tokenizer`, the one that lies with the model is taken. A model that is
    loaded goes to `device`, else to the accelerator if there is one; `dtype`, `device_map` and `model_kwargs` are options of its
    `from_pretrained`. `config`, an object, a folder or a repository, says other labels or the like than the checkpoint. `revision`
    and `token` are for the Hub. The other options are the pipeline's own and hold for every call.

    ValueError: there is no such task, the model has no head for it, or neither says what is wanted. UntrustedCodeError: the
    checkpoint brings the pipeline's code, and `trust_remote_code=True` is missing.
    """
    if model is None:
        model, revision = default_model(task, revision)
    if not isinstance(model, (str, os.PathLike)) and (model_kwargs or dtype or device_map):
        raise ValueError("dtype, device_map and model_kwargs are for loading a model, and an object is given")
    hub = {name: value for name, value in (("revision", revision), ("token", token)) if value is not None}
    folder = None
    if isinstance(model, (str, os.PathLike)):
        folder = locate(model, dict(hub), weights=False)
        if commit := commit_of(str(folder)):  # all that is fetched from now on is of one commit
            hub["revision"] = commit
    values = read_json(folder / "config.json") if folder else config_values(model)
    name, found = choose_task(task, values, model, folder, hub, trust_remote_code, code_revision)
    trusted = {"trust_remote_code": trust_remote_code, "code_revision": code_revision}
    if tokenizer is None or isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = load_tokenizer(tokenizer, model, hub, trusted)
    made = pipeline_class or found.pipeline_class
    if folder:
        options = {**made.checkpoint_options(folder), **options}
        loading = {"dtype": dtype, "device_map": device_map, **(model_kwargs or {})}
        loading = {option: value for option, value in loading.items() if value is not None and value != "auto"}
        if device_map is None:
            loading.setdefault("device", place(device))
        auto = choose_auto_class(found, values, name, folder)
        model = auto.from_pretrained(model, **hub, **trusted, **loading)
    elif device is not None:
        model.to(read_device(device))
    if config is not None:
        apply_config(model, config, hub)
    ready: Pipeline = made(model, tokenizer, task=name, batch_size=batch_size, num_workers=num_workers, **options)
    return ready


def choose_task(
    task: str | None,
    values: dict[str, Any],
    model: Any,
    folder: Path | None,
    hub: dict[str, Any],
    trust: bool | None,
    code_revision: str | None,
) -> tuple[str, Task]:
    """The task that is asked for, or that the checkpoint is for."""
    if folder:
        code = {**hub, "code_revision": code_revision}
        if shipped := find_shipped(values, task, str(model), trust, code):
            return shipped
    return PIPELINE_REGISTRY.check_task(task or infer_task(values, folder, model))


def infer_task(values: dict[str, Any], folder: Path | None, model: Any) -> str:
    """What a checkpoint or a model is for, by its head. ValueError: that cannot be told."""
    if folder and (folder / "modules.json").is_file():  # of sentence-transformers
        return "sentence-similarity"
    names = values.get("architectures") or [""] if folder else [base.__name__ for base in type(model).__mro__]
    head = next(filter(None, (head_of(str(name), values.get("model_type")) for name in names)), None)
    if head is None:
        what = f"{folder / 'config.json'} says architectures {names}" if folder else f"the model is a {names[0]}"
        raise ValueError(f"{what}, which says no task: pass task=, one of {', '.join(PIPELINE_REGISTRY.tasks)}")
    return TASK_OF_HEAD[head]


def default_model(task: str | None, revision: str | None) -> tuple[Source, str | None]:
    """The model that a task was registered with. ValueError: none was."""
    if task is None:
        raise ValueError("pipeline() needs a task, such as 'text-generation', or a model that says one")
    name, found = PIPELINE_REGISTRY.check_task(task)
    default = found.default.get("model") or found.default.get("pt")
    default = default.get("pt") if isinstance(default, dict) else default
    if default is None:
        raise ValueError(
            f"{name} has no model of its own: pass model=, a folder, a repository of the Hub or an object"
        )
    source, pinned = default if isinstance(default, (tuple, list)) else (default, None)
    return source, revision or pinned


def choose_auto_class(found: Task, values: dict[str, Any], task: str, folder: Path) -> Any:
    """The auto class that loads a task's model: of several, the one of the checkpoint's head. ValueError: it has another head."""
    names = tuple(getattr(auto, "__name__", auto) for auto in found.auto_classes) or ("AutoModel",)
    architecture = next(iter(values.get("architectures") or ()), "")
    head = head_of(str(architecture), values.get("model_type"))
    autos = [find_auto_class(auto, task) for auto in found.auto_classes or names]
    refuse_head(head, f"{folder / 'config.json'}: {architecture}", names, task)
    return autos[names.index(head) if head in names else 0]


def find_auto_class(auto: Any, task: str) -> Any:
    """The auto class of a name, or the one that is given. ValueError: there is none of this name."""
    if not isinstance(auto, str):
        return auto
    if not auto.startswith("AutoModel") or auto not in unibody.__all__:
        raise ValueError(f"{task} is to be loaded by {auto!r}, which is no auto class of unibody")
    return getattr(unibody, auto)


def load_tokenizer(given: Source | None, model: Any, hub: dict[str, Any], trusted: dict[str, Any]) -> Any:
    """The tokenizer of a folder or repository, or of where the model came from. ValueError: that is unknown."""
    source = given or (model if isinstance(model, (str, os.PathLike)) else getattr(model, "name_or_path", ""))
    if not source:
        raise ValueError(
            "the model says not where its tokenizer is: pass tokenizer=, an object, a folder or a repository"
        )
    options = {**hub, **trusted}
    if given is not None or not isinstance(model, (str, os.PathLike)):  # the revisions are those of the model
        options = {name: value for name, value in options.items() if "revision" not in name}
    return unibody.AutoTokenizer.from_pretrained(source, **options)


def config_values(model: Any) -> dict[str, Any]:
    config: Any = getattr(model, "config", None)
    return dict(config.to_dict()) if hasattr(config, "to_dict") else {}


def apply_config(model: Any, config: Any, hub: dict[str, Any]) -> None:
    """Sets what a configuration says on the model's own. ValueError: its number of labels is not the model's."""
    if isinstance(config, (str, os.PathLike)):
        config = unibody.AutoConfig.from_pretrained(config, **({"token": hub["token"]} if "token" in hub else {}))
    if config.num_labels != model.config.num_labels:
        raise ValueError(f"config has {config.num_labels} labels, and the model {model.config.num_labels}")
    for name, value in vars(config).items():
        setattr(model.config, name, value)


def place(device: Any) -> str:
    """The device to load to: the one that is asked for, else the accelerator, else the CPU."""
    if device is not None:
        return str(read_device(device))
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return str(accelerator or "cpu")
