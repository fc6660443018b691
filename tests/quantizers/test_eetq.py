"""EETQ: its tiles against PaddlePaddle's, which are the same, and its codes against the specification's C rounding."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from oracle.quantization import fixtures, inputs
from quantizers import files
from quantizers.files import generated
from safetensors.torch import load_file
from torch import Tensor

import unibody

eetq, llama = generated("eetq"), generated("llama")
WIDE = {"hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2}


def make_layer(weight: Tensor, bias: Tensor | None = None) -> Any:
    return files.make_layer(eetq.EetqLinear, eetq.EetqConfig(), weight, bias)


@pytest.mark.parametrize("shape", ["16x64", "32x128", "48x192"])
def test_tiles(shape: str) -> None:
    """Both ways."""
    recorded, _ = fixtures.load("eetq/tiles")
    codes, tiles = recorded[f"{shape}/codes"], recorded[f"{shape}/tiles"]
    assert torch.equal(eetq.tile_codes(codes).view(-1), tiles.view(-1))
    assert torch.equal(eetq.untile_codes(tiles.view(codes.shape[::-1])), codes)
    assert not torch.equal(tiles.view(-1), codes.view(-1))


def test_codes() -> None:
    """Each code by C's `round`, halves away from zero, in float32; the stored scale is the float16 next to it."""
    weight = inputs.weight(32, 128)
    weight[0, 1] = weight[0].abs().max() * 0.50390625  # 64.5 / 128 of the largest: a half
    weight[3] = 0
    stored = make_layer(weight).state_dict()
    codes = eetq.untile_codes(stored["weight"])
    largest = weight.abs().amax(1)
    assert torch.equal(stored["weight_scales"], (largest / 128).half())
    for n in range(32):
        scale = np.float32(largest[n].item()) / np.float32(128)
        for k in range(128):
            ratio = float(np.float32(weight[n, k].item()) / scale) if scale else 0.0
            expected = math.copysign(math.floor(abs(ratio) + 0.5), ratio)
            assert codes[n, k] == max(-128, min(127, expected)), (n, k)
    assert codes[0, 1] == 65


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_outputs(batch: int, dtype: torch.dtype) -> None:
    """The product with codes times scales, in float64; and what a layer holds in rows is saved in tiles."""
    layer = make_layer(inputs.weight(96, 128), inputs.bias(96))
    before = layer.state_dict()
    x = inputs.activations(batch, 128).to(dtype)
    codes, scales = eetq.untile_codes(before["weight"]), before["weight_scales"]
    expected = x.double() @ (codes.double() * scales.double()[:, None]).t() + layer.bias.double()
    with torch.no_grad():
        found = layer(x)
    assert found.dtype == dtype
    assert layer.kernel == ("int8pack_cpu" if dtype == torch.bfloat16 else "torch")
    eps = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    assert (found.double() - expected).abs().max() <= eps * expected.abs().max()
    assert torch.equal(layer(x.view(1, batch, 128))[0], layer(x))
    after = layer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_gradients() -> None:
    layer = make_layer(inputs.weight(96, 64), inputs.bias(96))
    x = inputs.activations(4, 64).requires_grad_()
    layer(x).square().sum().backward()
    weight = layer.dequantize()
    expected = 2 * (x.detach() @ weight.t() + layer.bias.detach()) @ weight
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-4)


def test_checkpoint(tmp_path: Path) -> None:
    """The logits of transformers' plain model with the dequantized weights."""
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    inputs.llama(**WIDE).save_pretrained(plain)
    quantizer = eetq.EetqHfQuantizer(eetq.EetqConfig(), pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32, quantizer=quantizer)
    model.save_pretrained(packed)
    stored, theirs = load_file(packed / "model.safetensors"), transformers.AutoModelForCausalLM.from_pretrained(plain)
    names = [name for name in stored if name.endswith(".weight_scales")]
    assert len(names) == 14
    for name in names:
        module = name.removesuffix(".weight_scales")
        codes = eetq.untile_codes(stored[f"{module}.weight"])
        theirs.get_submodule(module).weight.data = codes.float() * stored[name].float()[:, None]
    ids = inputs.token_ids(2, 9)
    again = unibody.AutoModelForCausalLM.from_pretrained(packed)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_no_whole_tiles() -> None:
    quantizer = eetq.EetqHfQuantizer(eetq.EetqConfig(), pre_quantized=False)
    assert quantizer.make_linear("name", torch.nn.Linear(96, 32)) is None
    assert quantizer.make_linear("name", torch.nn.Linear(64, 24)) is None
    assert quantizer.make_linear("name", torch.nn.Linear(64, 32)).out_features == 32


@pytest.mark.parametrize("options", [{}, {"modules_to_not_convert": ["lm_head"]}])
def test_configuration(options: dict[str, Any]) -> None:
    """The same JSON, both ways, and the same order of arguments."""
    ours, theirs = eetq.EetqConfig(**options), transformers.EetqConfig(**options)
    written = json.loads(json.dumps(theirs.to_dict()))
    assert json.loads(json.dumps(ours.to_dict())) == written
    assert unibody.AutoQuantizationConfig.from_dict(written) == ours
    assert eetq.EetqConfig("int8", ["a"]).to_dict() == transformers.EetqConfig("int8", ["a"]).to_dict()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="weights is 'int4', expected one of 'int8'"):
        eetq.EetqConfig("int4")
    with pytest.raises(ValueError):  # noqa: PT011  what they say is theirs
        transformers.EetqConfig("int4")
