"""Quantization configurations: what config.json says under `quantization_config`, as typed fields."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
import warnings
from dataclasses import dataclass, field
from enum import Enum
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from unibody.core import role


@role
@dataclass(eq=False)
class QuantizationConfigMixin:
    """The base of all quantization configurations, which are dataclasses: their fields are the keys of the JSON."""

    quant_method: ClassVar[str]
    written_if_set: ClassVar[tuple[str, ...]] = ()  # fields that the JSON has only where they differ from the default
    loading_attributes: ClassVar[tuple[str, ...]] = ()  # fields that say how to run a checkpoint, not what it is
    ignored_keys: ClassVar[tuple[str, ...]] = ()  # keys of others' JSON that do not change how its tensors are read

    kernel: str | None = field(default=None, kw_only=True)  # which one runs the layers; None: the best that can

    def __post_init__(self) -> None:
        vars(self).update({name: value.value for name, value in vars(self).items() if isinstance(value, Enum)})
        check_types(self)
        self.post_init()
        for name in (name for name in vars(self) if name != "dataset"):  # whose texts may begin like a pattern
            check_patterns(f"{type(self).__name__}: {name}", getattr(self, name))

    def post_init(self) -> None:
        """Refuses values that the method does not have."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """The configuration with these keys; `kwargs` that are fields go before them, the others are unused."""
        names = inspect.signature(cls).parameters.keys()
        values = {**copy.deepcopy(config_dict), **{key: kwargs.pop(key) for key in names & kwargs.keys()}}
        values.pop("quant_method", None)
        config = cls(**{name: values.pop(name) for name in names & values.keys()})
        vars(config).update(values)
        if unknown := sorted(values.keys() - set(cls.ignored_keys)):
            warnings.warn(f"{cls.__name__} keeps keys that change nothing: {', '.join(unknown)}", stacklevel=2)
        return (config, kwargs) if return_unused_kwargs else config

    def to_dict(self) -> dict[str, Any]:
        """All keys of the JSON; a field that the JSON has only where it is set is left out where it is not."""
        defaults = {entry.name: entry.default for entry in dataclasses.fields(self)}
        values = {key: plain_value(value) for key, value in vars(self).items()}
        silent = {key for key in ("kernel", *self.written_if_set) if values.get(key) == defaults.get(key)}
        return {"quant_method": str(self.quant_method), **{k: v for k, v in values.items() if k not in silent}}

    def __eq__(self, other: object) -> bool:
        return hasattr(other, "to_dict") and bool(self.to_dict() == other.to_dict())


def plain_value(value: Any) -> Any:
    """The value as JSON has it: enums by their value, torch's types by their name."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: plain_value(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(entry) for entry in value]
    return str(value).removeprefix("torch.") if type(value).__module__ == "torch" else copy.deepcopy(value)


def check_types(config: Any) -> None:
    """Refuses values of other types than the fields declare."""
    hints = get_type_hints(type(config))
    for name in (entry.name for entry in dataclasses.fields(config)):
        value, hint = getattr(config, name), hints[name]
        if not has_type(value, hint):
            is_plain = isinstance(hint, type) and not get_args(hint)
            expected = hint.__name__ if is_plain else str(hint).replace("typing.", "")
            raise TypeError(f"{type(config).__name__}: {name} is {value!r}, expected {expected}")


def check_patterns(where: str, value: Any) -> None:
    """Refuses `re:` and what is no regular expression, at any depth of a value; `where` says whose it is."""
    for entry in (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_patterns(where, entry)
    try:
        re.compile(value[3:] if isinstance(value, str) and value.startswith("re:") else "")
    except re.error as error:
        raise ValueError(f"{where} has {value!r}, no regular expression ({error}): mend it, or drop 're:'") from None


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type, the entries of lists and dictionaries included; a bool is no number."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or (isinstance(value, bool) and origin is None):
        return hint in (Any, bool)
    if origin in (Union, UnionType):
        return any(has_type(value, argument) for argument in arguments)
    if origin in (list, dict):
        entries = value.values() if isinstance(value, dict) else value
        return isinstance(value, origin) and all(has_type(entry, arguments[-1]) for entry in entries)
    return isinstance(value, (int, float) if hint is float else hint)


def require_choice(config: Any, name: str, choices: Any) -> None:
    """Refuses a field's value that is not one of the choices."""
    value = getattr(config, name)
    if value not in tuple(choices):
        shown = ", ".join(repr(plain_value(choice)) for choice in choices)
        raise ValueError(f"{type(config).__name__}: {name} is {value!r}, expected one of {shown}")


def require_exllama_version(config: Any) -> None:
    """Refuses an `exllama_config` without a version that there is."""
    settings = config.exllama_config
    if settings is not None and settings.get("version") not in (1, 2):
        raise ValueError(f"{type(config).__name__}: exllama_config is {settings!r}, expected a version, 1 or 2, in it")


def require_type(config: Any, name: str, kind: Any) -> None:
    """Refuses a field's value that is of another type; a bool is no number."""
    value = getattr(config, name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise TypeError(f"{type(config).__name__}: {name} is {value!r}, expected {expected}")
