"""Codes of 2 and 3 bits on torch's CPU kernel for 4: as near as bfloat16 allows, and the checkpoint's tensors come back to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from quantizers.files import as_bytes, generated, make_layer
from torch import nn

LAYERS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "gptq 3": ("gptq", "GPTQLinear", "GPTQConfig", {"bits": 3, "group_size": 64}),
    "gptq 3, v2, zero points": (
        *("gptq", "GPTQLinear", "GPTQConfig"),
        {"bits": 3, "sym": False, "format": "gptq_v2"},
    ),
    "gptq 2": ("gptq", "GPTQLinear", "GPTQConfig", {"bits": 2}),
    "gptq 2, zero points": ("gptq", "GPTQLinear", "GPTQConfig", {"bits": 2, "sym": False}),
    "auto-round 3": ("autoround", "AutoRoundLinear", "AutoRoundConfig", {"bits": 3, "group_size": 64}),
    "auto-round 2": ("autoround", "AutoRoundLinear", "AutoRoundConfig", {"bits": 2, "sym": False}),
    "hqq 3": ("hqq", "HQQLinear", "HqqConfig", {"nbits": 3}),
    "hqq 2": ("hqq", "HQQLinear", "HqqConfig", {"nbits": 2, "group_size": 128}),
    "quanto 2": ("quanto", "QuantoLinear", "QuantoConfig", {"weights": "int2"}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    file, layer_name, config, options = LAYERS[name]
    module = generated(file)
    torch.manual_seed(0)
    layer_class, settings = getattr(module, layer_name), getattr(module, config)(**options)
    layer = make_layer(layer_class, settings, torch.randn(96, 512).bfloat16(), torch.randn(96).bfloat16())
    before = layer.state_dict()
    for batch in (1, 3, 64):
        x = torch.randn(2, batch, 512).bfloat16()
        with torch.no_grad():
            found = layer(x)
            exact = nn.functional.linear(x.double(), layer.dequantize(torch.float64), layer.bias.double())
        assert (found.shape, found.dtype) == ((2, batch, 96), torch.bfloat16)
        assert (found - exact).abs().max() <= 2e-2 * exact.abs().max()
    assert layer.kernel == f"int{name.split()[1][0]}pack_cpu"
    held = sum(tensor.nbytes for tensor in layer.buffers() if tensor is not None)
    assert held <= 1.1 * sum(tensor.nbytes for key, tensor in before.items() if key != "bias")
    after = layer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(as_bytes(after[key]), as_bytes(tensor)) for key, tensor in before.items())


def test_small_groups_stay_in_the_checkpoints_form() -> None:
    """bfloat16 groups beside such codes would be more than a tenth of what the file holds."""
    gptq = generated("gptq")
    for bits, group in ((3, 32), (2, 64)):
        config = gptq.GPTQConfig(bits=bits, group_size=group)
        layer = make_layer(gptq.GPTQLinear, config, torch.randn(32, 128).bfloat16())
        with torch.no_grad():
            layer(torch.randn(1, 128).bfloat16())
        assert layer.kernel == "torch"
