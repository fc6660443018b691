"""The library around the generated files: `from unibody import AutoModelForCausalLM, LlamaForCausalLM`.

Importing `unibody` imports nothing else. The auto classes and the classes that `generated/registry.py` lists are imported
when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unibody.auto import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )
    from unibody.generated.names import *  # noqa: F403  every class of the registry; a stub, which `unibody generate` writes

    __version__: str

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForQuestionAnswering",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "__version__",
]


def _find(name: str) -> Any:
    """What `unibody.<name>` is when it is first asked for; remembered."""
    value: Any
    if name == "__version__":
        from importlib.metadata import version

        value = version("unibody")
    elif name[:1].isupper() and name in (modules := _modules()):  # submodules and dunders need no registry
        value = _import(name, modules[name])
    else:
        raise AttributeError(f"module 'unibody' has no attribute {name!r}")
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # which would take every misspelt name for one of these
    __getattr__ = _find


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_modules()})


def _modules() -> dict[str, str]:
    """The module of each class that can be imported from here, by the class's name."""
    from unibody.generated.registry import MODELS

    modules = {name: "unibody.auto" for name in __all__ if name.startswith("Auto")}
    for entry in MODELS.values():
        for name in (entry["config"], *entry["classes"].values()):
            modules[name] = f"unibody.generated.models.{entry['module']}"
    return modules


def _import(name: str, module: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors", "huggingface_hub", "tokenizers"):
            raise
        remedy = "pip install 'unibody[models]'"
        raise ImportError(f"unibody.{name} needs {error.name}, which is not installed: {remedy}") from error
