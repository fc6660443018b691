"""Checkpoints that are read with other settings than their config.json says: more labels, another configuration."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from unibody.hub import HUB_OPTIONS

SHORTHANDS = ("num_labels", "rope_theta", "rope_scaling")  # keys of config.json that stand for fields
OUTPUTS = ("output_hidden_states", "output_attentions")  # keys of what a model gives, of which no field speaks
LOADING = (  # options of the generated classes
    *("dtype", "device", "attn_implementation", "quantizer", "output_loading_info", "ignore_mismatched_sizes"),
)


def take_settings(found: Any, config_class: Any, options: dict[str, Any], other: Sequence[str] = ()) -> dict[str, Any]:
    """Takes the fields of a configuration, except for those of other meaning, out of what a class is to be read with.

    TypeError: an option is neither a field nor one of the class's `from_pretrained`.
    """
    fields = {field.name for field in dataclasses.fields(config_class)}.union(SHORTHANDS, OUTPUTS).difference(other)
    settings = {name: options.pop(name) for name in fields & options.keys()}
    own = (vars(base)["from_pretrained"].__func__ for base in found.__mro__ if "from_pretrained" in vars(base))
    named = {name for function in own for name in inspect.signature(function).parameters} - {"cls", "options"}
    known = {*named, *HUB_OPTIONS, *other, *fields}
    if unknown := next((name for name in options if name not in known), None):
        close = get_close_matches(unknown, sorted(known), 1)
        hint = f": did you mean {close[0]}?" if close else ""
        raise TypeError(f"{found.__name__}.from_pretrained has no option {unknown!r}{hint}")
    return settings


def changed(config: Any, settings: dict[str, Any]) -> Any:
    """The configuration with other values; a number of labels takes the place of their names."""
    labels = ("id2label", "label2id") if "num_labels" in settings else ()
    values = {name: value for name, value in config.to_dict().items() if name not in labels}
    if "rope_parameters" in values and not settings.keys().isdisjoint(("rope_theta", "rope_scaling")):
        settings = {"rope_parameters": values["rope_parameters"], **settings}
        settings["rope_parameters"] = changed_rope(settings)
    return type(config).from_dict({**values, "attn_implementation": config.attn_implementation, **settings})


def changed_rope(settings: dict[str, Any]) -> dict[str, Any]:
    """The parameters of rotary positions, with another base or another scaling, which are taken out of the settings."""
    rope = dict(settings["rope_parameters"])
    if "rope_scaling" in settings:
        scaling = dict(settings.pop("rope_scaling") or {})
        kind = scaling.pop("type", "default")  # its former name
        rope = {"rope_theta": rope.get("rope_theta"), "rope_type": kind, **scaling}
    return {**rope, "rope_theta": settings.pop("rope_theta", rope["rope_theta"])}


def tailored(model_class: Any, config: Any, settings: dict[str, Any]) -> Any:
    """A subclass whose models are built with a configuration, or with other values of the checkpoint's, whatever that says.

    What it loads is to be given back to the class itself. ValueError: the configuration is another model's.
    """
    expected, given = model_class.config_class.model_type, getattr(config, "model_type", None)
    if config is not None and given != expected:
        raise ValueError(f"config is one of {given!r}, and {model_class.__name__} takes one of {expected!r}")

    def build(self: Any, stored: Any) -> None:
        wanted = changed(stored if config is None else config, settings)
        packed = {name: value for name, value in vars(stored).items() if name == "quantization_config"}
        vars(wanted).update(packed, attn_implementation=stored.attn_implementation)
        vars(stored).clear()
        vars(stored).update(vars(wanted))
        super(made, self).__init__(stored)

    namespace = {"__init__": build, "__module__": model_class.__module__, "__doc__": model_class.__doc__}
    made: Any = type(model_class)(model_class.__name__, (model_class,), namespace)
    return made
