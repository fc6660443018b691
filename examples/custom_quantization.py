"""A quantization method of one's own: weights rounded to int8 with one scale a row, registered with the library.

pip install unibody[models]
python custom_quantization.py CHECKPOINT
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody import (
    AutoModelForCausalLM,
    HfQuantizer,
    QuantizationConfigMixin,
    register_quantization_config,
    register_quantizer,
)


@register_quantization_config("rows-int8")
class RowsInt8Config(QuantizationConfigMixin):
    """Which layers stay as they are."""

    quant_method = "rows-int8"

    def __init__(self, skip: str = "lm_head") -> None:
        self.skip = skip
        self.kernel = None


class RowsInt8Linear(nn.Module):
    """y = x (code · scale)ᵀ + b with codes int8 [N, K] and one scale a row [N, 1]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        shape = (linear.out_features, linear.in_features)
        self.register_buffer("weight", torch.empty(shape, dtype=torch.int8, device="meta"))
        self.register_buffer("scale", torch.empty(shape[0], 1, device="meta"))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, (self.weight * self.scale).to(x.dtype), self.bias)


@register_quantizer("rows-int8")
class RowsInt8Quantizer(HfQuantizer):
    """Rounds the weights while they are loaded, and loads what it has saved."""

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and self.quantization_config.skip not in name:
                parent, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(parent), attribute, RowsInt8Linear(module))

    def check_quantized_param(self, model: Any, value: Tensor, name: str, state: Any, **_: Any) -> bool:
        module, _, tensor = name.rpartition(".")
        packed = isinstance(model.get_submodule(module), RowsInt8Linear)
        return packed and tensor == "weight" and value.is_floating_point()

    def create_quantized_param(self, model: Any, value: Tensor, name: str, device: Any, state: Any) -> None:
        layer = model.get_submodule(name.rpartition(".")[0])
        layer.scale = (value.float().abs().amax(1, keepdim=True) / 127).clamp(min=1e-12).to(device)
        layer.weight = (value.to(device) / layer.scale).round().to(torch.int8)

    def update_missing_keys(self, model: Any, missing_keys: list[str], prefix: str) -> list[str]:
        return [name for name in missing_keys if self.pre_quantized or not name.endswith(".scale")]


def main() -> None:
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], quantization_config=RowsInt8Config())
    layers = [module for module in model.modules() if isinstance(module, RowsInt8Linear)]
    print(f"{len(layers)} layers in int8, {sum(layer.weight.nbytes for layer in layers)} bytes")
    print(model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=8)[0].tolist())


if __name__ == "__main__":
    main()
