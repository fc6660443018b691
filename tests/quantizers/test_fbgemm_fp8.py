"""FBGEMM FP8 against the package's rounding, recorded, and torch's product of scaled rows; transformers reads such layers on a GPU only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle.quantization import fixtures, inputs
from quantizers import files
from quantizers.files import as_bytes, generated
from safetensors.torch import load_file
from torch import Tensor

import unibody

fbgemm, llama = generated("fbgemm_fp8"), generated("llama")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
WIDE = {"hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2}


def make_layer(weight: Tensor, bias: Tensor | None = None, **options: Any) -> Any:
    return files.make_layer(fbgemm.FbgemmFp8Linear, fbgemm.FbgemmFp8Config(**options), weight, bias)


def test_codes() -> None:
    """Equal to the bit, rows of zeros too; with a bound, what lies beyond it is cut off."""
    recorded, facts = fixtures.load("fbgemm/rows")
    stored = make_layer(recorded["weight"]).state_dict()
    assert torch.equal(as_bytes(stored["weight"]), recorded["weight/codes"].reshape(-1))
    assert torch.equal(stored["weight_scale"].view(-1), recorded["weight/scales"])
    for key, bound in (("tokens", 1200.0), ("bounded", facts["bound"])):
        layer = make_layer(recorded["weight"], activation_scale_ub=bound)
        codes, scales = layer.float8_inputs(recorded["tokens"])
        assert torch.equal(as_bytes(codes), recorded[f"{key}/codes"].reshape(-1)), key
        assert torch.equal(scales.view(-1), recorded[f"{key}/scales"]), key
    assert not torch.equal(recorded["tokens/scales"], recorded["bounded/scales"]), "the bound counts"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("bound", [1200.0, 2.0])
def test_outputs(bound: float, batch: int, dtype: torch.dtype) -> None:
    """The same as torch's product of float8 rows with a scale each, in float32."""
    layer = make_layer(inputs.weight(96, 80), inputs.bias(96), activation_scale_ub=bound)
    x = inputs.activations(batch, 80).to(dtype)
    stored = layer.stored_tensors()
    inverse = 448 / x.float().abs().amax(1, keepdim=True).clamp(1e-12, bound)
    codes, scales = (x.float() * inverse).clamp(-448, 448).to(torch.float8_e4m3fn), 1 / inverse
    expected = torch._scaled_mm(
        codes, stored["weight"].t(), scales, stored["weight_scale"].t().contiguous(), out_dtype=torch.float32
    )
    expected = expected + layer.bias
    with torch.no_grad():
        found = layer(x)
    assert found.dtype == dtype
    eps = {torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype]
    assert (found.float() - expected).abs().max() <= eps * expected.abs().max()
    assert torch.equal(layer(x.view(1, batch, 80))[0], layer(x))


@pytest.mark.parametrize("method", ["fbgemm_fp8", "finegrained_fp8", "compressed_tensors", "torchao", "torchao_rows"])
def test_product_of_rows(method: str) -> None:
    """The row for GPUs that multiply float8, run here: torch has the same product for CPUs. The layers whose scales it cannot
    take say so.
    """
    module, linear, bias = generated(method.removesuffix("_rows")), torch.nn.Linear(64, 96), inputs.bias(96)
    linear.bias.data = bias
    if method == "fbgemm_fp8":
        layer = module.FbgemmFp8Linear(linear, module.FbgemmFp8Config())
    elif method == "finegrained_fp8":
        layer = module.FP8Linear(linear, module.FineGrainedFP8Config(weight_block_size=None))
    elif module.__name__.endswith("torchao"):
        config = module.TorchAoConfig("float8_dynamic_activation_float8_weight")
        if method == "torchao_rows":
            config.quant_type["_data"]["granularity"] = [{"_type": "PerRow", "_data": {"dim": -1}}] * 2
        layer = module.TorchAoHfQuantizer(config, pre_quantized=False).make_linear("layer", linear)
    else:
        config = module.CompressedTensorsConfig(config_groups={"FP8_DYNAMIC": ["Linear"]})
        layer = module.CompressedTensorsHfQuantizer(config, pre_quantized=False).make_linear("layer", linear)
    layer.hold(layer.quantize(inputs.weight(96, 64)))
    kernel = next(row for row in layer.kernels if row.name == "scaled_mm")
    assert layer.why_not(kernel) == ""
    for batch in (1, 5):
        x = inputs.activations(batch, 64).bfloat16()[None]
        with torch.no_grad():
            found, expected = module.scaled_matmul(layer, x), layer(x)
        assert found.shape == (1, batch, 96)
        assert (found - expected).abs().max() <= 1e-2 * expected.abs().max()
    blocks = generated("finegrained_fp8")
    other = blocks.FP8Linear(linear, blocks.FineGrainedFP8Config(weight_block_size=[32, 32]))
    assert "it takes a scale for each row, and these are of blocks of 32 x 32" in other.why_not(kernel)


def test_gradients() -> None:
    layer = make_layer(inputs.weight(96, 64), inputs.bias(96))
    x = inputs.activations(4, 64).requires_grad_()
    layer(x).square().sum().backward()
    weight = layer.dequantize()
    expected = 2 * (x.detach() @ weight.t() + layer.bias.detach()) @ weight
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-4)


def test_checkpoint(tmp_path: Path) -> None:
    """What is saved holds codes and scales as the package rounds them, and gives the logits of transformers' plain model
    whose weights are the dequantized ones and whose inputs are rounded by hooks.
    """
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    inputs.llama(**WIDE).save_pretrained(plain)
    quantizer = fbgemm.FbgemmFp8HfQuantizer(fbgemm.FbgemmFp8Config(), pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32, quantizer=quantizer)
    model.save_pretrained(packed)
    stored, weights = load_file(packed / "model.safetensors"), load_file(plain / "model.safetensors")
    theirs, count = transformers.AutoModelForCausalLM.from_pretrained(plain), 0

    def rounded(_: Any, arguments: Any) -> Any:
        inverse = 448 / arguments[0].abs().amax(-1, keepdim=True).clamp(1e-12, 1200)
        return ((arguments[0] * inverse).to(torch.float8_e4m3fn).float() / inverse,)

    for name, weight in weights.items():
        if "proj" in name:
            count += 1
            scale = 1 / (448 / weight.abs().amax(1, keepdim=True))
            assert torch.equal(stored[f"{name}_scale"], scale)
            assert stored[name].dtype == torch.float8_e4m3fn
            layer = theirs.get_submodule(name.removesuffix(".weight"))
            layer.weight.data = stored[name].float() * scale
            layer.register_forward_pre_hook(rounded)
    assert count == 14
    ids = inputs.token_ids(2, 9)
    again = unibody.AutoModelForCausalLM.from_pretrained(packed)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=1e-3, atol=1e-3)
    with pytest.warns(UserWarning, match="except for activation_scale_ub"):
        bounded = unibody.AutoModelForCausalLM.from_pretrained(
            packed, quantization_config=unibody.FbgemmFp8Config(activation_scale_ub=0.5)
        )
    with torch.no_grad():
        assert not torch.allclose(bounded(ids).logits, again(ids).logits, atol=1e-2)


@pytest.mark.parametrize("options", [{}, {"activation_scale_ub": 10.0}, {"modules_to_not_convert": ["lm_head"]}])
def test_configuration(options: dict[str, Any]) -> None:
    """The same JSON, both ways, and the same order of arguments."""
    ours, theirs = fbgemm.FbgemmFp8Config(**options), transformers.FbgemmFp8Config(**options)
    written = json.loads(json.dumps(theirs.to_dict()))
    assert json.loads(json.dumps(ours.to_dict())) == written
    assert unibody.AutoQuantizationConfig.from_dict(written) == ours
    placed = (3.0, ["a"])
    assert fbgemm.FbgemmFp8Config(*placed).to_dict() == transformers.FbgemmFp8Config(*placed).to_dict()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="activation_scale_ub is 0, expected a positive number"):
        fbgemm.FbgemmFp8Config(activation_scale_ub=0)
    with pytest.raises(TypeError, match="activation_scale_ub is 'x', expected float"):
        fbgemm.FbgemmFp8Config(activation_scale_ub="x")
