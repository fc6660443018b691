"""Auto classes: the class that reads a checkpoint, found by the `model_type` in its config.json."""

from __future__ import annotations

import copy
import os
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import torch

from unibody.configuration import PreTrainedConfig
from unibody.core.attention import ATTENTION
from unibody.core.choices import choose
from unibody.core.hub import read_json
from unibody.deprecation import FORMER, rename_argument
from unibody.editions import file_class_of
from unibody.integrations.deepspeed.configuration import is_deepspeed_zero3_enabled
from unibody.model_types import class_names, find_class, known_types, register_class, with_mixin
from unibody.models import PreTrainedModel

if TYPE_CHECKING:

    class AnyConfig(PreTrainedConfig):
        """A configuration of a type that only the checkpoint tells: a type checker does not know its fields."""

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    class AnyModel(PreTrainedModel):
        """A model of a class that only the checkpoint tells."""

        def __getattr__(self, name: str) -> Any: ...


class AutoClass:
    """Finds, for a model type, the class that the registry lists under the auto class's own name."""

    base: ClassVar[type]  # of what it gives

    @classmethod
    def _load(
        cls,
        folder_or_id: str | os.PathLike[str],
        trust_remote_code: bool | None,
        code_revision: str | None,
        options: dict[str, Any],
    ) -> Any:
        """What the found class reads from the checkpoint."""
        from unibody.hub import HUB_OPTIONS, commit_of, locate

        rename_argument(options, "use_auth_token", "token", **FORMER)
        hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
        folder = locate(folder_or_id, dict(hub), weights=False)
        if (adapter := folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            base = read_json(adapter).get("base_model_name_or_path")
            if not isinstance(base, str):
                raise ValueError(f"{adapter} names no base model: load that, and the adapter with its load_adapter")
            same = {name: value for name, value in hub.items() if name not in ("revision", "subfolder")}
            made = cls._load(base, trust_remote_code, code_revision, options | same)
            if cls.__name__ != "AutoConfig":
                (made[0] if isinstance(made, tuple) else made).load_adapter(folder)
            return made
        values, commit = read_json(folder / "config.json"), commit_of(str(folder))
        if commit:  # what is fetched from now on is of the same one
            hub["revision"] = commit
        found = cls._find_remote(values, folder_or_id, trust_remote_code, code_revision, hub)
        found = found or cls._find(values.get("model_type"), folder / "config.json")
        if cls.__name__ != "AutoConfig":
            folder = locate(folder_or_id, hub)
        made = found.from_pretrained(folder, **options)
        model = made[0] if isinstance(made, tuple) else made
        if hasattr(model, "name_or_path"):
            model.name_or_path = str(folder_or_id)
        return made

    @classmethod
    def _find_remote(
        cls,
        values: dict[str, Any],
        source: str | os.PathLike[str],
        trust: bool | None,
        code_revision: str | None,
        hub: dict[str, Any],
    ) -> Any:
        """The class whose code comes with the checkpoint, if it is to be taken."""
        from unibody.dynamic_modules import (
            PACKAGE,
            describe_code,
            find_reference,
            get_class_from_dynamic_module,
            resolve_trust_remote_code,
        )

        reference, model_type = find_reference(values, cls.__name__), values.get("model_type")
        has_local = isinstance(model_type, str) and cls.__name__ in class_names(model_type)
        files = partial(describe_code, str(reference), source, code_revision, hub)
        if not resolve_trust_remote_code(trust, str(source), has_local, reference is not None, files):
            return None
        options = {name: value for name, value in hub.items() if name != "subfolder"}
        found = get_class_from_dynamic_module(str(reference), source, code_revision=code_revision, **options)
        made: Any = with_mixin(found, cls.base) if issubclass(found, cls.base) else found
        if hasattr(made, "register_for_auto_class") and made.__module__.partition(".")[0] == PACKAGE:
            # Saved again, it takes its code along.
            made.register_for_auto_class(cls.__name__)
        return made

    @classmethod
    def _find(cls, model_type: Any, source: Path | str) -> Any:
        """The class for a model type; `source` is what names the type, for the error if there is none."""
        if not isinstance(model_type, str) or model_type not in known_types():
            known = ", ".join(sorted(known_types(), key=lambda name: (-similarity(name, str(model_type or "")), name)))
            found = "has no model_type" if model_type is None else f"says model_type {model_type!r}"
            raise ValueError(
                f"{source} {found}; generated files read {known}: correct it if it should be one of these; "
                "if not, write modular/models/modular_<name>.py and run `unibody generate`"
            )
        if cls.__name__ not in (classes := class_names(model_type)):
            raise ValueError(
                f"{source} says model_type {model_type!r}, which has no {cls.__name__}: use one of {', '.join(classes)}"
            )
        return find_class(model_type, cls.__name__)


class AutoConfig(AutoClass):
    """The configuration of a checkpoint."""

    base = PreTrainedConfig

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        *,
        trust_remote_code: bool | None = None,
        code_revision: str | None = None,
        **options: Any,
    ) -> AnyConfig:
        """The configuration; the options are those of PreTrainedConfig's, and of code that comes with it those of AutoModel's."""
        found: AnyConfig = cls._load(folder_or_id, trust_remote_code, code_revision, options)
        return found

    @classmethod
    def for_model(cls, model_type: str, **fields: Any) -> AnyConfig:
        """The configuration of a type, with these fields. ValueError: there is no such type."""
        found: AnyConfig = cls._find(model_type, "for_model")(**fields)
        return found

    @classmethod
    def register(cls, model_type: str, config: type, exist_ok: bool = False) -> None:
        """From now on AutoConfig reads this type with a configuration class of one's own.

        A class of a generated file is given in its library edition. ValueError: the type has another class already, or the class
        says another type.
        """
        require(config, PreTrainedConfig, "a configuration")
        if config.model_type != model_type:  # type: ignore[attr-defined]
            said = config.model_type  # type: ignore[attr-defined]
            raise ValueError(f"{config.__name__} says model_type {said!r}, and is to be registered as {model_type!r}")
        register_class(cls.__name__, model_type, with_mixin(config, cls.base), exist_ok)


class AutoModelClass(AutoClass):
    base = PreTrainedModel

    @overload
    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        *,
        trust_remote_code: bool | None = None,
        code_revision: str | None = None,
        output_loading_info: Literal[False] = False,
        **options: Any,
    ) -> AnyModel: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        *,
        trust_remote_code: bool | None = None,
        code_revision: str | None = None,
        output_loading_info: Literal[True],
        **options: Any,
    ) -> tuple[AnyModel, dict[str, set[str]]]: ...

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        *,
        trust_remote_code: bool | None = None,
        code_revision: str | None = None,
        **options: Any,
    ) -> Any:
        """The model that the found class reads from the checkpoint; the options are those of its own `from_pretrained`.

        The folder or repository of an adapter gives the model that it names as its base, with the adapter.

        A checkpoint may bring the code of its class. That runs with `trust_remote_code=True` only, at `code_revision` or else at
        the revision of the checkpoint; without it a class of the registry is taken, or UntrustedCodeError is raised.
        """
        return cls._load(folder_or_id, trust_remote_code, code_revision, options)

    @classmethod
    def from_config(
        cls,
        config: Any,
        *,
        dtype: torch.dtype | str | None = None,
        attn_implementation: str | None = None,
        trust_remote_code: bool | None = None,
    ) -> AnyModel:
        """A model with random weights, of a type or its name (float32 if none is said); a configuration brings no code to trust."""
        found = cls._find(config.model_type, type(config).__name__)
        if isinstance(dtype, str):
            dtype = require_type(dtype)
        if attn_implementation is not None:
            config = copy.deepcopy(config)
            config.attn_implementation = attn_implementation
        choose(ATTENTION, config.attn_implementation, "attn_implementation")
        if is_deepspeed_zero3_enabled():
            from unibody.integrations.deepspeed.partition import make_partitioned

            model: AnyModel = make_partitioned(found, config)
            return model
        model = found(config)
        return model if dtype is None else model.to(dtype)

    @classmethod
    def register(cls, config_class: type, model_class: type, exist_ok: bool = False) -> None:
        """From now on this auto class makes, for the type of a configuration class, a model of one's own class.

        A class of a generated file is given in its library edition. ValueError: the type has another class already, or the model
        class takes another configuration.
        """
        require(config_class, PreTrainedConfig, "a configuration")
        require(model_class, PreTrainedModel, "a model")
        taken = model_class.config_class  # type: ignore[attr-defined]
        if not issubclass(file_class_of(config_class) or config_class, file_class_of(taken) or taken):
            raise ValueError(
                f"{model_class.__name__} takes {taken.__name__} of {taken.__module__}, "
                f"not {config_class.__name__} of {config_class.__module__}"
            )
        model_type = config_class.model_type  # type: ignore[attr-defined]
        register_class(cls.__name__, model_type, with_mixin(model_class, cls.base), exist_ok)


class AutoModel(AutoModelClass):
    """The model without a head: hidden states."""


class AutoModelForCausalLM(AutoModelClass):
    """The model that predicts the next token."""


class AutoModelForMaskedLM(AutoModelClass):
    """The model that predicts masked words."""


class AutoModelForSequenceClassification(AutoModelClass):
    """The model that labels a text."""


class AutoModelForTokenClassification(AutoModelClass):
    """The model that labels each token."""


class AutoModelForQuestionAnswering(AutoModelClass):
    """The model that marks the answer in a text."""


def require_type(name: str) -> torch.dtype:
    """The type of weights that goes by a name of torch's. ValueError: none does."""
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype {name!r} is not a type for weights: write for example 'float32' or 'bfloat16'")
    return found


def similarity(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def require(found: type, base: type, what: str) -> None:
    """TypeError: a class is not what can be registered."""
    if not isinstance(found, type) or not issubclass(found, base) or not getattr(found, "model_type", True):
        shown = found.__name__ if isinstance(found, type) else repr(found)
        raise TypeError(
            f"{shown} is not the class of {what}: register one of a generated file, or a subclass of unibody.{base.__name__}"
        )
