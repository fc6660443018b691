"""Which layer of a model is split in which style: the plan that its class declares, and what a user's goes over."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from unibody.tensor_parallel.packed import check_packed, is_packed, without_numbers
from unibody.tensor_parallel.styles import STYLES

EXAMPLE = "tp_plan={'encoder.layer.*.intermediate.dense': 'colwise', 'encoder.layer.*.output.dense': 'rowwise'}"


def find_plan(model: Any, tp_plan: Any, ep_plan: Any = None) -> dict[str, str]:
    """The style of each module and parameter that a plan names, by full names.

    "auto" is what the model declares (`config.base_model_tp_plan`, `base_model_ep_plan`, `_tp_plan` of a head). A dictionary goes over
    it, rule by rule; an empty one means no rule at all. A rule of experts goes before others; a `*` stands for one part of a name.
    ValueError: nothing is declared, a style is unknown, or a rule fits nothing.
    """
    names = [name for name, _ in [*model.named_modules(), *model.named_parameters(remove_duplicate=False)] if name]
    found: dict[str, str] = {}
    plans = (("ep_plan", ep_plan, "base_model_ep_plan"), ("tp_plan", tp_plan, "base_model_tp_plan"))
    for option, given, attribute in plans:
        if given is None or given == {}:
            continue
        if given != "auto" and not isinstance(given, dict):
            raise TypeError(f'{option} is {given!r}, expected "auto" or a dictionary of names and styles')
        declared = declared_plan(model, attribute)
        if given == "auto" and not declared:
            raise ValueError(
                f"{type(model).__name__} declares no {option}: give one of your own, by the names of its layers, for example "
                f"{EXAMPLE}"
            )
        given = {} if given == "auto" else given
        for pattern, style in given.items():
            if style not in STYLES:
                raise ValueError(f"{option} says {style!r} for {pattern}: choose one of {', '.join(STYLES)}")
            if not any(fits(model, pattern, name) for name in names):
                raise ValueError(f"{option} names {pattern}, which is no layer of {type(model).__name__}")
        for pattern, style in [*given.items(), *declared.items()]:
            for name in names:
                if fits(model, pattern, name):
                    found.setdefault(name, style)
    return found


def declared_plan(model: Any, attribute: str) -> dict[str, str]:
    """The plan of the base model and of the head, by names in the whole model. ValueError: a style of it is unknown."""
    base = getattr(getattr(model, "config", None), attribute, None) or {}
    prefix = "" if getattr(model, "base_model", model) is model else f"{model.base_model_prefix}."
    head = getattr(model, attribute.removeprefix("base_model"), None) or {}
    found = {**{prefix + pattern: style for pattern, style in base.items()}, **head}
    if unknown := [f"{style!r} for {pattern}" for pattern, style in found.items() if style not in STYLES]:
        raise ValueError(f"{attribute} says {', '.join(unknown)}: choose one of {', '.join(STYLES)}")
    return found


def fits(model: Any, pattern: str, name: str) -> bool:
    """Whether a pattern names this module or parameter, by its name in the model or in the base model."""
    found = re.escape(pattern).replace(r"\*", r"[^.]+")
    prefix = re.escape(getattr(model, "base_model_prefix", ""))
    return re.fullmatch(rf"({prefix}\.)?{found}", name) is not None


def share_single_heads(model: Any, plan: dict[str, str], parts: int) -> None:
    """Keys and values of one head, to which all query heads attend (multi-query attention, 1911.02150), stay whole."""
    for name, style in plan.items():
        module = model.get_submodule(name) if style == "colwise" and parts > 1 else None
        if module is not None and heads_of(model, name, getattr(module, "out_features", 0)) == 1:
            plan[name] = "shared_head"


def check_plan(model: Any, plan: dict[str, str], parts: int) -> None:
    """ValueError: a layer cannot be split so, or not into this many parts."""
    for name, style_name in plan.items():
        style, parameter = STYLES[style_name], dict(model.named_parameters(remove_duplicate=False)).get(name)
        if style.weight is None:
            continue
        module = None if parameter is not None else model.get_submodule(name)
        weight = parameter if module is None else getattr(module, "weight", None)
        if isinstance(module, nn.Linear) or is_packed(module):
            shape = [module.out_features, module.in_features]
        elif weight is not None and weight.dim() > 1:
            shape = list(weight.shape)
        else:
            raise ValueError(
                f"the plan says {style_name!r} for {name}, a {type(module).__name__}, which has no matrix to split"
            )
        size = shape[style.weight.dim]
        if is_packed(module):
            check_packed(name, module, style.weight, parts)
        heads = heads_of(model, name, size) if (style.before, style.after) == ("share", "") else None
        if heads is not None and heads % parts:
            raise ValueError(
                f"{name} has {heads} heads, which {parts} processes cannot share: tp_size must divide "
                f"{head_counts(model)}; or leave attention whole, tp_plan={{'{without_numbers(name).rpartition('.')[0]}.*': 'replicate'}}"
            )
        if not style.uneven and not style.weight.divides(size, parts):
            raise ValueError(
                f"{name} is {shape}, and its {size} do not come out even in {parts} parts: choose a tp_size that divides them, "
                f"or leave it whole, tp_plan={{'{name}': 'replicate'}}"
            )


def heads_of(model: Any, name: str, size: int) -> int | None:
    """How many heads a projection makes; None: its module has no heads."""
    parent = model.get_submodule(name.rpartition(".")[0])
    head = getattr(parent, "head_dim", None) or getattr(parent, "head_size", None)
    return size // head if head else None


def head_counts(model: Any) -> str:
    config = model.config
    counts = {key: getattr(config, key, None) for key in ("num_attention_heads", "num_key_value_heads")}
    return " and ".join(f"{key} ({value})" for key, value in counts.items() if value is not None)
