"""LoRA (2106.09685) beside packed linear layers: y = W x + b + s B A x, where W stays packed; A and B learn.

peft finds the layer through `register_packed_layers`, which tells one configuration which classes of a model are packed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import Tensor, nn

PLAIN_STARTS = (True, False, "gaussian", "eva")  # values of init_lora_weights that do not ask for the base's weight
OF_ACTIVATIONS = ("input_", "output_", "activation_", "rms_norm.")  # starts of names of tensors that no weight changes
ONE_WAY = {"bitnet": "its three values are those that it was trained with, and rounding to them again gives others"}


def is_packed(module: nn.Module) -> bool:
    """Whether a module is a packed linear layer, of whichever generated file."""
    return hasattr(module, "stored_tensors") and hasattr(module, "dequantize")


def packed_classes(model: nn.Module) -> set[type]:
    return {type(module) for module in model.modules() if is_packed(module)}


def register_packed_layers(config: Any, model: nn.Module) -> Any:
    """The configuration, which now knows the model's packed layers; other methods than LoRA have no layer for them."""
    if hasattr(config, "_register_custom_module"):
        config._register_custom_module(dict.fromkeys(packed_classes(model), LoraPackedLinear))
    return config


@contextmanager
def with_weights(model: nn.Module) -> Iterator[None]:
    """While it lasts, packed layers that hold no `weight` have one of their tensors for it: peft reads its device there."""
    lacking = [module for module in model.modules() if is_packed(module) and not hasattr(module, "weight")]
    for module in lacking:
        vars(module)["weight"] = next(module.buffers())
    try:
        yield
    finally:
        for module in lacking:
            del vars(module)["weight"]


class LoraPackedLinear(Linear):
    """peft's LoRA layer around a packed one; its matrices are float32 unless they are cast."""

    def __init__(self, base_layer: Any, adapter_name: str, config: Any, **options: Any) -> None:
        super().__init__(base_layer, adapter_name, config=config, **options)
        self.unmerged: dict[str, Tensor] = {}  # the packed tensors from before the first merge, while merged

    def update_layer(self, adapter_name: str, r: int, lora_alpha: int, config: Any, **options: Any) -> None:
        if config.init_lora_weights not in PLAIN_STARTS:
            raise ValueError(
                f"init_lora_weights={config.init_lora_weights!r} starts from the base's weight, which is packed: "
                "leave it at True, or dequantize the model first with model.hf_quantizer.dequantize(model)"
            )
        super().update_layer(adapter_name, r, lora_alpha=lora_alpha, config=config, **options)

    def resolve_lora_variant(self, *, config: Any, **options: Any) -> Any:
        for name in ("use_dora", "use_qalora", "use_bdlora", "velora_config", "kasa_config", "monteclora_config"):
            if getattr(config, name, None):
                raise ValueError(f"{name} is not known for packed layers: leave it out, or dequantize the model first")
        return super().resolve_lora_variant(config=config, **options)

    def _get_in_out_features(self, module: Any) -> tuple[int, int]:
        return module.in_features, module.out_features

    def _get_base_layer_device_and_dtype(self, base_layer: Any) -> tuple[torch.device, None]:
        """No type: that of the packed tensors is a format, not a precision."""
        return base_layer.device, None

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Makes the packed weight that of W + s B A, rounded to its format again.

        ValueError: the format cannot be rounded to again, or a merged value is not finite; nothing has changed.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.lora_A]
        if not names:
            return
        layer: Any = self.get_base_layer()
        method = str(getattr(layer.config, "quant_method", ""))
        if method in ONE_WAY:
            raise ValueError(f"an adapter cannot be merged into {method}: {ONE_WAY[method]}: {UNMERGED}")
        if any(self.lora_bias[name] for name in names):
            raise ValueError(f"the bias of an adapter with lora_bias=True has no place in a packed layer: {UNMERGED}")
        weight = layer.dequantize(torch.float32)
        for name in names:
            weight = weight + self.get_delta_weight(name).to(weight.device, weight.dtype)
        if not torch.isfinite(weight).all():
            raise ValueError(f"{', '.join(names)} gives weights that are not finite: the adapter is broken")
        stored = layer.stored_tensors()
        packed = {
            name: stored[name] if name.startswith(OF_ACTIVATIONS) and name in stored else tensor
            for name, tensor in layer.quantize(weight).items()
        }
        self.unmerged = self.unmerged or stored
        layer.hold(packed)
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Brings back the packed tensors as they were before merging, bit by bit."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        layer: Any = self.get_base_layer()
        layer.hold(self.unmerged)
        self.unmerged = {}
        self.merged_adapters.clear()


UNMERGED = "keep it beside the layer, or merge it into model.hf_quantizer.dequantize(model)"
