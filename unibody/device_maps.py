"""`device_map`: which part of a model lies on which device, planned by accelerate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unibody.integrations.availability import require

PLANS = ("auto", "balanced", "balanced_low_0", "sequential")


def plan_device_map(
    model: Any,
    plan: str = "auto",
    max_memory: dict[int | str, int | str] | None = None,
    dtype: Any = None,
    quantizer: Any = None,
) -> dict[str, Any]:
    """A place for each part of a model, which needs no memory itself; blocks stay whole.

    "auto" and "balanced" fill accelerators evenly, "sequential" one after the other, "balanced_low_0" leaves room on the first;
    then comes the CPU, then the disk. `max_memory` says what of each may be used, in bytes or as "10GB".
    """
    require("accelerate", "a device_map with several devices")
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory, get_max_memory

    def ask(hook: str, default: Any, *arguments: Any) -> Any:
        return getattr(quantizer, hook, lambda *_: default)(*arguments)

    sizes = {
        "no_split_module_classes": list(getattr(model, "_no_split_modules", None) or ()),
        "dtype": ask("adjust_target_dtype", dtype, dtype),
        "special_dtypes": ask("get_special_dtypes_update", {}, model, dtype),
    }
    if plan == "sequential":
        memory = get_max_memory(max_memory)
    else:
        memory = get_balanced_memory(model, max_memory, low_zero=plan == "balanced_low_0", **sizes)
    return spread(model, infer_auto_device_map(model, ask("adjust_max_memory", memory, memory), **sizes))


def check_modules(model: Any, device_map: dict[str, Any]) -> None:
    """ValueError: a map names what is no module, or leaves a weight out."""
    modules = {name for name, _ in model.named_modules()}
    if unknown := [key for key in device_map if key not in modules]:
        raise ValueError(f"device_map names {', '.join(unknown)}, which is no module of {type(model).__name__}")
    if left := [key for key in model.state_dict() if device_of(device_map, key) is None]:
        raise ValueError(f"device_map has no place for {', '.join(left)}: name the modules, or '' for all the rest")


def check_places(device_map: dict[str, Any], folder: Any) -> None:
    """ValueError: a device of the map is not here, or it asks for the disk, and there is no folder for that."""
    for device in {str(device) for device in device_map.values()} - {"disk"}:
        require_device(device)
    if disk := [key for key, place in device_map.items() if place == "disk"]:
        if folder is None:
            shown = ", ".join(key or "all" for key in disk)
            raise ValueError(
                f"device_map puts {shown} on the disk: name a folder for these weights, offload_folder='offload'"
            )
        if Path(folder).exists() and not Path(folder).is_dir():
            raise ValueError(f"offload_folder {folder} is a file: name a folder")


def device_of(device_map: dict[str, Any], name: str) -> Any:
    """The place of a tensor or module: that of the nearest module above that the map names; None: there is none."""
    while name not in device_map:
        if not name:
            return None
        name = name.rpartition(".")[0]
    return device_map[name]


def spread(model: Any, device_map: dict[str, Any]) -> dict[str, Any]:
    """The same places, with no module of the map inside of another: accelerate takes each by itself.

    Weights that a module holds beside modules with places of their own are not offloaded: no hook would fetch them.
    """
    found: dict[str, Any] = {}
    main = main_device(device_map)

    def visit(name: str, module: Any, place: Any) -> None:
        place, start = device_map.get(name, place), f"{name}." if name else ""
        if not any(key != name and key.startswith(start) for key in device_map):
            found[name] = place
            return
        for key, child in module.named_children():
            visit(start + key, child, place)
        for key in (*module._parameters, *module._buffers):
            found[start + key] = main if str(place) in ("cpu", "disk") else place

    visit("", model, None)
    return found


def main_device(device_map: dict[str, Any]) -> Any:
    """Where inputs begin and outputs come back to: the first accelerator of the map, or else the CPU."""
    return next((place for place in device_map.values() if str(place) not in ("cpu", "disk")), "cpu")


def single_device(device_map: Any) -> Any:
    """The device, if a map is nothing more than one; None: it is a plan, or a map with several parts. ValueError: it is not here."""
    if isinstance(device_map, dict):
        places = {str(place): place for place in device_map.values()}
        if set(device_map) != {""} or "disk" in places:
            return None
        device_map = next(iter(places.values()))
    elif device_map in PLANS:
        return None
    if isinstance(device_map, bool) or not isinstance(device_map, (str, int, torch.device)):
        kinds = "'auto', a device, or a dictionary of modules and devices"
        raise TypeError(f"device_map is {device_map!r}, expected {kinds}")
    return require_device(device_map)


def require_device(device: Any) -> torch.device:
    """The device. ValueError: torch knows no such, or this machine has none."""
    number = int(device) if str(device).isdigit() else None
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    try:
        found = torch.device(device) if number is None else torch.device(kind.type if kind else "cuda", number)
    except RuntimeError as error:
        raise ValueError(
            f"device_map asks for {device!r}, which is no device of torch, and no plan of {', '.join(PLANS)}"
        ) from error
    if found.type == "meta":
        raise ValueError(
            "device_map asks for 'meta', which holds no weights: build the model under torch.device('meta')"
        )
    here = found.type == "cpu" or (kind is not None and found.type == kind.type)
    if not here or (found.type != "cpu" and (found.index or 0) >= torch.accelerator.device_count()):
        there = f"{torch.accelerator.device_count()} of {kind.type}" if kind else "no accelerator"
        raise ValueError(f"device_map asks for {device}, and torch finds {there} here: use device_map='cpu'")
    return found
