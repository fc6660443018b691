"""Torch's CPU kernel for int8 weights, which reads whole vectors: it is wrong, or crashes, where sizes or addresses do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracle.quantization import inputs
from quantizers.files import generated
from torch import Tensor, nn

INT8 = {"num_bits": 8, "strategy": "tensor"}
QUARK = {"weight": {"dtype": "int8"}}
METHODS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "quanto": ("quanto", "QuantoHfQuantizer", "QuantoConfig", {}),
    "torchao": ("torchao", "TorchAoHfQuantizer", "TorchAoConfig", {"quant_type": "int8_weight_only"}),
    "eetq": ("eetq", "EetqHfQuantizer", "EetqConfig", {}),
    "quark": ("quark", "QuarkHfQuantizer", "QuarkConfig", {"global_quant_config": QUARK}),
    "compressed-tensors": (
        *("compressed_tensors", "CompressedTensorsHfQuantizer", "CompressedTensorsConfig"),
        {"format": "int-quantized", "config_groups": {"group": {"targets": ["Linear"], "weights": INT8}}},
    ),
}


def moved(tensor: Tensor, offset: int) -> Tensor:
    """The same at an address that many elements behind one which 64 divides, as a tensor may lie in a file."""
    place = torch.empty(tensor.numel() + 64, dtype=tensor.dtype)
    start = -place.data_ptr() % 64 // tensor.element_size() + offset
    return place[start : start + tensor.numel()].view(tensor.shape).copy_(tensor)


def make_layer(method: str, rows: int, columns: int) -> Any:
    file, quantizer, config, options = METHODS[method]
    module = generated(file)
    quantizer = getattr(module, quantizer)(getattr(module, config)(**options), pre_quantized=False)
    linear = nn.Linear(columns, rows, bias=False)
    if (layer := quantizer.make_linear("layer", linear)) is not None:
        layer.hold(layer.quantize(inputs.weight(rows, columns).bfloat16()))
    return layer


@pytest.mark.parametrize("batch", [1, 3, 5, 12, 40])
@pytest.mark.parametrize("columns", [30, 72, 192])
@pytest.mark.parametrize("method", METHODS)
def test_sizes_and_addresses(method: str, columns: int, batch: int) -> None:
    layer = make_layer(method, 48, columns)
    if layer is None:  # EETQ's tiles have 64 columns
        assert (method, columns % 64 > 0) == ("eetq", True)
        return
    layer.hold({name: moved(tensor, 1) for name, tensor in layer.stored_tensors().items()})
    x = moved(inputs.activations(batch, columns).bfloat16(), 3)
    with torch.no_grad():
        found, exact = layer(x), x.double() @ layer.dequantize(torch.float64).t()
    assert layer.kernel == ("torch" if columns % 16 else "int8pack_cpu")
    assert (found - exact).abs().max() <= 1e-2 * exact.abs().max()


@pytest.mark.parametrize("batch", [1, 8, 9])
@pytest.mark.parametrize("group", [8, 48, 144])
@pytest.mark.parametrize(
    ("file", "quantizer", "config", "options"),
    [
        ("gptq", "GptqHfQuantizer", "GPTQConfig", {"bits": 8}),
        ("gptq", "GptqHfQuantizer", "GPTQConfig", {"bits": 8, "sym": False}),
        ("hqq", "HqqHfQuantizer", "HqqConfig", {"nbits": 8}),
    ],
)
def test_groups(file: str, quantizer: str, config: str, options: dict[str, Any], group: int, batch: int) -> None:
    """Few rows are multiplied in float32, and each output is rounded once, wherever the zero points lie; for more, each weight, too."""
    module = generated(file)
    made = getattr(module, quantizer)(getattr(module, config)(**options, group_size=group), pre_quantized=False)
    layer = made.make_linear("layer", nn.Linear(144, 48, bias=False))
    layer.hold(layer.quantize(inputs.weight(48, 144).bfloat16()))
    x, weight = inputs.activations(batch, 144).bfloat16(), layer.dequantize(torch.float64)
    exact, sizes = x.double() @ weight.T, x.double().abs() @ weight.abs().T
    with torch.no_grad():
        found = layer(x)
    assert layer.kernel == "int8_groups_cpu"
    assert ((found - exact).abs() <= 2**-8 * exact.abs() + (2**-8 if batch > 8 else 1e-5) * sizes).all()
    assert (found - exact).norm() <= 4e-3 * exact.norm()
