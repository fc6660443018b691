"""Which layer of a model is split in which style: the plan that its class declares, and what a user's goes over."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from unibody.tensor_parallel.packed import check_packed, is_packed, neighbours
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
    modules = dict(model.named_modules()) if parts > 1 else {}
    for name in [name for name, style in plan.items() if style == "colwise" and name in modules]:
        if heads_of(model, name, getattr(modules[name], "out_features", 0)) == 1:
            plan[name] = "shared_head"


def check_plan(model: Any, plan: dict[str, str], parts: int) -> None:
    """ValueError: a layer cannot be split so, or not into this many parts."""
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters(remove_duplicate=False))
    for name, style_name in plan.items():
        style, module = STYLES[style_name], modules.get(name)
        if style.before == "route" and not any(
            plan.get(f"{name}.{key}") == "grouped_gemm" for key, _ in own_parameters(module)
        ):
            raise ValueError(f"the plan says {style_name!r} for {name}, and 'grouped_gemm' for none of its weights")
        if style.weight is None:
            continue
        weight = parameters.get(name) if module is None else getattr(module, "weight", None)
        if module is not None and (isinstance(module, nn.Linear) or is_packed(module)):
            shape = [module.out_features, module.in_features]
        elif isinstance(weight, nn.Parameter) and weight.dim() > 1:
            shape = list(weight.shape)
        else:
            raise ValueError(f"the plan says {style_name!r} for {name}, which has no matrix to split")
        size = shape[style.weight.dim]
        if is_packed(module):
            check_packed(name, module, style.weight, parts)
        heads = heads_of(model, name, size) if (style.before, style.after) == ("share", "") else None
        if heads is not None and heads % parts:
            raise ValueError(
                f"{name} has {heads} heads, which {parts} processes cannot share: tp_size must divide "
                f"{head_counts(model)}; or leave attention whole, tp_plan={{'{neighbours(name)}': 'replicate'}}"
            )
        if not style.uneven and not style.weight.divides(size, parts):
            raise ValueError(
                f"{name} is {shape}, and its {size} do not come out even in {parts} parts: choose a tp_size that divides them, "
                f"or leave it and its neighbours whole, tp_plan={{'{neighbours(name)}': 'replicate'}}"
            )


def own_parameters(module: Any) -> Any:
    return () if module is None else module.named_parameters(recurse=False)


def heads_of(model: Any, name: str, size: int) -> int | None:
    """How many heads a projection makes; None: its module has no heads."""
    parent = model.get_submodule(name.rpartition(".")[0])
    head = getattr(parent, "head_dim", None) or getattr(parent, "head_size", None)
    return size // head if head else None


def head_counts(model: Any) -> str:
    config = model.config
    counts = {key: getattr(config, key, None) for key in ("num_attention_heads", "num_key_value_heads")}
    return " and ".join(f"{key} ({value})" for key, value in counts.items() if value is not None)
