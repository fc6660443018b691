"""`unibody inspect`: what a quantized checkpoint is, and how this machine runs it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import unibody
from unibody.core.hub import locate_checkpoint
from unibody.core.loading import read_tensors
from unibody.core.quantization.config import plain_value
from unibody.core.quantization.replacement import owner
from unibody.generated.registry import QUANTIZERS
from unibody.quantize import FAILURES, count_layers, is_plain, model_class, packed_modules
from unibody.reading import read_bounded_json

MANY = 8  # entries of a setting that are still shown


@dataclass
class KernelUse:
    """A kernel, the layers that it runs, and why the better rows of the table do not."""

    layer: str  # its class
    kernel: str
    layers: int
    instead_of: dict[str, str]  # reasons by the names of those rows


@dataclass
class Inspection:
    """What a checkpoint is; sizes in bytes."""

    checkpoint: str
    method: str
    file: str  # that reads it
    settings: dict[str, Any]  # of the configuration, without those that say nothing
    quantized_layers: int
    plain_layers: list[str]
    bits_per_weight: float  # of those quantized, with scales and zero points
    quantized_bytes: int
    plain_bytes: int
    device: str
    dtype: str
    kernels: list[KernelUse]


def inspect_checkpoint(checkpoint: str, dtype: str | None = None, device: str | None = None) -> Inspection:
    """Reads the checkpoint and lets every layer choose its kernel. ValueError: it is not quantized."""
    folder = locate_checkpoint(checkpoint, patterns=("*.json", "model*.safetensors"))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    stored = read_bounded_json(folder / "config.json").get("quantization_config")
    method = stored.get("quant_method") if isinstance(stored, dict) else None
    if method in QUANTIZERS and not QUANTIZERS[method]["quantizers"]:
        return inspect_tensors(checkpoint, folder, method, dtype, device)
    model = model_class(folder).from_pretrained(folder, dtype=dtype, device=device)
    if not hasattr(model, "hf_quantizer"):
        raise ValueError(f"{folder / 'config.json'} has no quantization_config: the checkpoint is not quantized")
    config, packed = model.hf_quantizer.quantization_config, packed_modules(model)
    plain = [name for name, module in model.named_modules() if is_plain(module)]
    bytes_packed = sum(t.nbytes for layer in packed for t in layer.stored_tensors().values() if t is not None)
    held = {id(tensor) for layer in packed for tensor in (*layer.buffers(), *layer.parameters())}
    held -= {id(layer.bias) for layer in packed}  # which are plain
    rest = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers()) if id(t) not in held}
    method = str(plain_value(config.quant_method))
    module = QUANTIZERS[method]["module"] if method in QUANTIZERS else type(config).__module__
    return Inspection(
        checkpoint=checkpoint,
        method=method,
        file=f"{module}.py",
        settings={key: value for key, value in config.to_diff_dict().items() if key != "quant_method"},
        quantized_layers=len(packed),
        plain_layers=plain,
        bits_per_weight=count_layers(model).bits_per_weight,
        quantized_bytes=bytes_packed,
        plain_bytes=sum(rest.values()),
        device=device,
        dtype=str(model.dtype).removeprefix("torch."),
        kernels=kernel_uses(packed, torch.device(device), model.dtype),
    )


def inspect_tensors(checkpoint: str, folder: Path, method: str, dtype: str | None, device: str) -> Inspection:
    """What the configuration and the files say of a checkpoint whose method has no layers here."""
    config = unibody.AutoQuantizationConfig.from_pretrained(folder).to_dict()
    with torch.device("meta"):
        model = model_class(folder).from_config(unibody.AutoConfig.from_pretrained(folder))
    names = {linear: name for name, linear in model.named_modules() if is_plain(linear)}
    parts: dict[Any, dict[str, torch.Tensor]] = {linear: {} for linear in names}
    for key, tensor in (tensors := read_tensors(folder)).items():
        layer, name = owner(model, key)
        parts.get(layer, {})[name] = tensor
    packed = [linear for linear, found in parts.items() if found.keys() - {"weight", "bias"}]
    size = sum(t.nbytes for linear in packed for name, t in parts[linear].items() if name != "bias")
    return Inspection(
        checkpoint=checkpoint,
        method=method,
        file=f"{QUANTIZERS[method]['module']}.py",
        settings={
            key: value for key, value in config.items() if key != "quant_method" and value not in (None, [], {})
        },
        quantized_layers=len(packed),
        plain_layers=[name for linear, name in names.items() if linear not in packed],
        bits_per_weight=8 * size / max(1, sum(linear.in_features * linear.out_features for linear in packed)),
        quantized_bytes=size,
        plain_bytes=sum(tensor.nbytes for tensor in tensors.values()) - size,
        device=device,
        dtype=dtype or str(model.dtype).removeprefix("torch."),
        kernels=[],
    )


def kernel_uses(packed: list[Any], device: torch.device, dtype: torch.dtype) -> list[KernelUse]:
    """The kernels that were chosen, with the reasons against those that would have come first."""
    found: Counter[tuple[str, str, tuple[tuple[str, str], ...]]] = Counter()
    for layer in packed:
        why_not = import_module(type(layer).__module__).why_not
        table = getattr(layer, "kernels", ())  # none: there is no choice
        wanted = getattr(layer, "compute_dtype", None) or dtype
        better = table[: [kernel.name for kernel in table].index(layer.kernel)] if table else ()
        reasons = tuple((kernel.name, why_not(kernel, layer, device, wanted)) for kernel in better)
        found[type(layer).__name__, layer.kernel, reasons] += 1
    return [KernelUse(layer, kernel, count, dict(reasons)) for (layer, kernel, reasons), count in found.items()]


def describe(found: Inspection) -> str:
    """The text for people."""
    settings = ", ".join(f"{key}={shorten(value)}" for key, value in found.settings.items())
    plain = ", ".join(found.plain_layers) or "none"
    total = found.quantized_layers + len(found.plain_layers)
    rows = [
        ("checkpoint", found.checkpoint),
        ("method", f"{found.method}, read by {found.file}"),
        ("settings", settings or "the usual ones"),
        ("layers", f"{found.quantized_layers} of {total} linear layers quantized; plain: {plain}"),
        (
            "size",
            f"{found.bits_per_weight:.2f} bits per weight; {found.quantized_bytes / 1e6:,.1f} MB quantized, {found.plain_bytes / 1e6:,.1f} MB plain",
        ),
    ]
    if not found.kernels:
        rows.append(("kernel", f"none: {found.method} has a configuration here and no layers yet"))
    for use in found.kernels:
        rows.append(("kernel", f"{use.kernel} runs {use.layers} {use.layer} on {found.device} in {found.dtype}"))
        rows += [
            ("", f"not {name}: {reason or 'another one was asked for'}") for name, reason in use.instead_of.items()
        ]
    return "\n".join(f"{label:<12}{text}" for label, text in rows)


def shorten(value: Any) -> str:
    """A setting as JSON; of one that says something of each layer, the number and the first."""
    if not isinstance(value, dict) or len(value) <= MANY:
        return json.dumps(value)
    return f"{len(value)} such as {json.dumps(dict(list(value.items())[:1]))}"


def inspect(checkpoint: str, dtype: str | None, device: str | None, form: str) -> int:
    """Prints what the checkpoint is; the exit status."""
    try:
        found = inspect_checkpoint(checkpoint, dtype, device)
    except FAILURES as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(found), indent=2) if form == "json" else describe(found))
    return 0
