"""Which class each auto class gives for a model type: those of the registry, and those that a program has registered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import unibody
from unibody.editions import file_class_of, library_edition
from unibody.generated.registry import MODELS

_registered: dict[str, dict[str, Any]] = {}  # model type -> auto class -> class


def known_types() -> list[str]:
    return sorted({*MODELS, *_registered})


def class_names(model_type: str) -> dict[str, str]:
    """The name of the class that each auto class gives for this type; nothing is imported."""
    entry, registered = MODELS.get(model_type), _registered.get(model_type, {})
    listed = {} if entry is None else {"AutoConfig": entry["config"], **entry["classes"]}
    return listed | {auto: found.__name__ for auto, found in registered.items()}


def find_class(model_type: str, auto_class: str) -> Any:
    """The class that an auto class gives for a type; it is one of class_names."""
    registered = _registered.get(model_type, {}).get(auto_class)
    return registered or getattr(unibody, class_names(model_type)[auto_class])


def register_class(auto_class: str, model_type: str, found: type, exist_ok: bool) -> None:
    """From now on, the auto class gives this class for the type. ValueError: it has another one, and that is not to be replaced."""
    if auto_class in class_names(model_type) and not exist_ok:
        there = find_class(model_type, auto_class)
        if there is not found:
            raise ValueError(
                f"model_type {model_type!r} has {there.__name__} for {auto_class}: "
                "choose another model_type, or pass exist_ok=True to replace it"
            )
    _registered.setdefault(model_type, {})[auto_class] = found


def model_base(file_class: type) -> type:
    """The library's base for a model's class: the one that generates, where the file's class does."""
    from unibody.generation import GenerativePreTrainedModel
    from unibody.models import PreTrainedModel

    return GenerativePreTrainedModel if hasattr(file_class, "generate") else PreTrainedModel


def with_mixin(found: type, mixin: type) -> Any:
    """A class that has the library's mixin: the class itself, or the edition of a generated file's, which may generate too.

    One that pushes itself, such as transformers', has a library of its own, and is taken as it is.
    """
    if mixin in found.__mro__ or hasattr(found, "push_to_hub"):
        return found
    return library_edition(found, before=(model_base(found) if hasattr(found, "generate") else mixin,))


def named_class(model_class: type) -> type:
    """The class that a checkpoint names: an edition or a user's own, if registered, by whatever name a wrapper's subclass goes."""
    known = {found for classes in _registered.values() for found in classes.values()}
    return next(
        (
            base
            for base in model_class.__mro__
            if base in known or file_class_of(base) or vars(base).get("_auto_class")
        ),
        model_class,
    )


def own_classes(obj: Any) -> dict[str, type]:
    """The classes that a model and its configuration are of, by auto class, where they are a user's own and no generated file's."""
    found: dict[str, type] = {}
    for one in (obj, getattr(obj, "config", None)):
        kind = named_class(type(one))
        if file_class_of(kind) is None:
            said = vars(kind).get("_auto_class")
            listed = [auto for classes in _registered.values() for auto, own in classes.items() if own is kind]
            found |= dict.fromkeys([said] if said else listed, kind)
    return found


def generated_family(obj: Any) -> tuple[Path, dict[str, str]] | None:
    """The generated file that the class of a model or configuration comes from, and its class for each auto class; None: no such.

    The classes of a file say themselves what they are (`auto_class`): it need be neither in the registry nor registered.
    """
    bases = type(obj).__mro__
    own = next((found for base in bases if (found := file_class_of(base))), None)
    own = own or next((base for base in bases if not {"auto_class", "model_type"}.isdisjoint(vars(base))), None)
    if own is None:
        return None
    module = sys.modules[own.__module__]
    models = [found for found in vars(module).values() if isinstance(found, type) and "auto_class" in vars(found)]
    config_class: Any = getattr(own, "config_class", own)
    listed = {found.auto_class: found.__name__ for found in models if found.config_class is config_class}  # type: ignore[attr-defined]
    model_type = getattr(getattr(obj, "config", obj), "model_type", "")
    if not listed or config_class.model_type != model_type or not module.__file__:
        return None
    return Path(module.__file__), {"AutoConfig": config_class.__name__, **listed}
