"""The kernel table: which functions can run a packed linear layer, best first, and the rule that chooses one."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import torch


@dataclass(frozen=True)
class Kernel:
    """One way to run a packed linear layer: a function of this file, and what it asks of layer, input and machine."""

    name: str
    entry: Any = None  # function (layer, x [..., K]) -> [..., N] of this file
    template: str = ""  # or the template that makes one; the compiler fills it in
    device: str = ""  # type of the device; any, if empty
    capability: tuple[int, int] = (0, 0)  # the least compute capability of a CUDA device
    below: tuple[int, ...] = ()  # and the first that is too new
    dtypes: tuple[str, ...] = ()  # of the input; any, if empty
    bits: tuple[int, ...] = ()
    group_size: tuple[int, ...] = ()  # columns that share a scale; -1: all of a row
    multiples: tuple[int, int] = (1, 1)  # N and K are divisible by these
    package: str = ""  # what must be installed: "name" or "name>=version"
    target: str = ""  # what the function calls in that package: "module:attribute"
    layout: Any = None  # class that holds the weight in the kernel's own way; None: as in the checkpoint


@dataclass(frozen=True)
class Packing:
    """How codes lie in words, for the kernels' templates."""

    word: str = "int32"
    order: tuple[int, ...] = ()  # of the codes in a word, the lowest bits first; in sequence, if empty
    zero_point: str = "plain"  # of codes; "number": not rounded; "shift": one in units of the weight
    is_ordered: bool = False  # whether columns are in the order of the layer's `order`
    scale: str = "number"  # or "byte": exponents of two, or the bits of float8, as int8


def why_not(kernel: Kernel, layer: Any, device: torch.device, dtype: torch.dtype) -> str:
    """The reason why a kernel cannot run a layer on inputs of this type; empty if it can."""
    name, bits, group = str(dtype).removeprefix("torch."), getattr(layer, "bits", 0), getattr(layer, "group_size", 0)
    if kernel.device and device.type != kernel.device:
        return f"it runs on {kernel.device}, not on {device.type}"
    if kernel.capability > (0, 0) and (found := torch.cuda.get_device_capability(device)) < kernel.capability:
        return f"it needs compute capability {kernel.capability}, {device} has {found}"
    if kernel.below and (found := torch.cuda.get_device_capability(device)) >= kernel.below:
        return f"it is for compute capabilities below {kernel.below}, {device} has {found}"
    if kernel.dtypes and name not in kernel.dtypes:
        return f"its inputs are {' or '.join(kernel.dtypes)}, not {name}"
    if kernel.bits and bits not in kernel.bits:
        return f"it reads {' or '.join(map(str, kernel.bits))} bits, not {bits}"
    if kernel.group_size and not {group, -1 if group == layer.in_features else group}.intersection(kernel.group_size):
        return f"its groups have {' or '.join(map(str, kernel.group_size))} columns, not {group}"
    if layer.out_features % kernel.multiples[0] or layer.in_features % kernel.multiples[1]:
        return f"{layer.out_features} x {layer.in_features} is not divisible by {kernel.multiples}"
    return (missing_package(kernel.package) if kernel.package else "") or str(layer.why_not(kernel))


@cache
def missing_package(requirement: str) -> str:
    """What is missing of "name" or "name>=version"; empty if it is installed. A name is that which is imported."""
    name, _, least = requirement.partition(">=")
    if find_spec(name) is None:
        return f"{requirement} is not installed"
    found = metadata.version(name) if least else ""
    older, newer = (list(map(int, re.findall(r"\d+", version))) for version in (found, least))
    return f"{requirement} is needed, {found} is installed" if older < newer else ""


def choose_kernel(layer: Any, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The first row that can run the layer, or the one that UNIBODY_KERNEL or the configuration names."""
    wanted = os.environ.get("UNIBODY_KERNEL") or getattr(layer.config, "kernel", None)
    names = [kernel.name for kernel in layer.kernels]
    if wanted and wanted not in names:
        raise ValueError(f"kernel {wanted!r} is not one of {type(layer).__name__}'s: {', '.join(names)}")
    reasons = {}
    for kernel in (row for row in layer.kernels if row.name == (wanted or row.name)):
        reasons[kernel.name] = why_not(kernel, layer, device, dtype)
        if not reasons[kernel.name]:
            report_choice(type(layer).__name__, kernel.name, str(device), str(dtype))
            return kernel
    shown = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    remedy = f"; leave out kernel={wanted!r} (and UNIBODY_KERNEL), and the best that can runs it" if wanted else ""
    shape = f"{layer.out_features} x {layer.in_features}"
    raise RuntimeError(f"no kernel can run {type(layer).__name__} {shape}: {shown}{remedy}")


@cache
def report_choice(layer: str, kernel: str, device: str, dtype: str) -> None:
    """Logs a choice when it is first made."""
    logging.getLogger(__name__).info("%s runs on %s in %s with the kernel %s", layer, device, dtype, kernel)
