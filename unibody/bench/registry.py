"""Finding backends and scenarios: those that are registered, those that come along, and any class by its place."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Registered = TypeVar("Registered", bound=Callable[..., Any])

BACKENDS: dict[str, Any] = {
    "unibody": "unibody.bench.backends.library:UnibodyBackend",
    "torch": "unibody.bench.backends.plain:TorchBackend",
}
SCENARIOS: dict[str, Any] = {
    "inference": "unibody.bench.scenarios.inference:run",
    "train_step": "unibody.bench.scenarios.training:run",
    "linear": "unibody.bench.scenarios.linear:run",
    "perplexity": "unibody.bench.scenarios.perplexity:run",
    "generator": "unibody.bench.scenarios.generator:run",
}


def register_backend(name: str) -> Callable[[Registered], Registered]:
    """A decorator for a class of backends, which configurations of this process then name so."""

    def decorate(backend: Registered) -> Registered:
        BACKENDS[name] = backend
        return backend

    return decorate


def register_scenario(name: str) -> Callable[[Registered], Registered]:
    """A decorator for the function of a scenario, which configurations of this process then name so."""

    def decorate(scenario: Registered) -> Registered:
        SCENARIOS[name] = scenario
        return scenario

    return decorate


def find_backend(settings: dict[str, Any]) -> Any:
    """The class that a configuration's `backend` names, or says the place of with `target`."""
    return find(settings, BACKENDS, "backend")


def find_scenario(settings: dict[str, Any]) -> Any:
    """The function that a configuration's `scenario` names, or says the place of with `target`."""
    return find(settings, SCENARIOS, "scenario")


def find(settings: dict[str, Any], known: dict[str, Any], kind: str) -> Any:
    name, target = settings.get("name"), settings.get("target")
    if target is None:
        if name not in known:
            close = difflib.get_close_matches(str(name), known) or sorted(known)
            raise ValueError(
                f"{kind} {name!r} is not known: is it {' or '.join(close)}? Others are named by target: module:Name or file.py:Name"
            )
        target = known[name]
    return resolve(target) if isinstance(target, str) else target


def resolve(target: str) -> Any:
    """What `module:Name` or `folder/file.py:Name` names."""
    place, _, name = target.rpartition(":")
    if not place:
        raise ValueError(f"target {target!r} names no object: write module:Name or file.py:Name")
    module = import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    if not hasattr(module, name):
        raise ValueError(f"{place} has no {name}")
    return getattr(module, name)


def import_file(file: Path) -> Any:
    """The module of a file, under a name of its own."""
    if not file.is_file():
        raise ValueError(f"{file} is no file: a target is module:Name or file.py:Name")
    name = f"unibody_bench_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
