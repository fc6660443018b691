"""Fine-grained FP8 against transformers' own code and torch's product of scaled float8: codes to the bit, outputs, checkpoints."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle.quantization import inputs
from quantizers import files
from quantizers.files import as_bytes, generated
from safetensors.torch import load_file
from torch import Tensor
from transformers.integrations.finegrained_fp8 import Fp8Quantize

import unibody

fp8, llama = generated("finegrained_fp8"), generated("llama")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
KINDS: dict[str, dict[str, Any]] = {
    "blocks": {},
    "power_of_two": {"scale_fmt": "ue8m0"},
    "other_blocks": {"weight_block_size": [64, 32]},
    "whole": {"weight_block_size": None},
    "mxfp8": {"weight_block_size": [1, 32], "scale_fmt": "ue8m0"},
    "static": {"activation_scheme": "static"},
}
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4}
"""Every size is a multiple of 256, so that blocks of 128 fit without a rest."""


def make_layer(weight: Tensor, bias: Tensor | None = None, **options: Any) -> Any:
    return files.make_layer(fp8.FP8Linear, fp8.FineGrainedFP8Config(**options), weight, bias)


def reference(weight: Tensor, **options: Any) -> dict[str, Tensor]:
    """What transformers makes of a weight."""

    class Quantizer:
        quantization_config = transformers.FineGrainedFP8Config(**options)

    found = Fp8Quantize(Quantizer()).convert({"weight": weight})
    return {name.rpartition(".")[2]: tensor for name, tensor in found.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_codes(kind: str, dtype: torch.dtype) -> None:
    weight = inputs.weight(256, 384).to(dtype)
    weight[:128, :128] = 0
    layer, expected = make_layer(weight, **KINDS[kind]), reference(weight, **KINDS[kind])
    for name, tensor in expected.items():
        found = layer.state_dict()[name]
        assert found.dtype == tensor.dtype
        assert torch.equal(as_bytes(found), as_bytes(tensor)), name
    assert layer.state_dict().keys() - expected.keys() == ({"activation_scale"} if kind == "static" else set())


def blockwise(layer: Any, x: Tensor) -> Tensor:
    """The sum over blocks of columns of torch's product of float8 rows with a scale each; inputs are rounded here."""
    stored, width = layer.stored_tensors(), layer.block[1]
    total = torch.zeros(x.shape[0], layer.out_features)
    for number, start in enumerate(range(0, layer.in_features, width)):
        piece = x[:, start : start + width].float()
        scale = piece.abs().amax(1, keepdim=True) / 448
        codes = (piece / scale.clamp(min=1e-12)).to(torch.float8_e4m3fn)
        scales = stored["weight_scale_inv"].float()
        column = scales[:, number] if scales.dim() else scales.view(1)
        rows = column.repeat_interleave(layer.block[0])[None, : layer.out_features].contiguous()
        weight = stored["weight"][:, start : start + width].contiguous()
        total += torch._scaled_mm(codes, weight.t(), scale, rows, out_dtype=torch.float32)
    return total


def rounded(x: Tensor, width: int) -> Tensor:
    """Inputs as float8 holds them, with a scale for each block of columns."""
    found = x.clone()
    for start in range(0, x.shape[-1], width):
        piece = x[..., start : start + width]
        scale = piece.abs().amax(-1, keepdim=True) / 448
        found[..., start : start + width] = (piece / scale.clamp(min=1e-12)).to(torch.float8_e4m3fn).float() * scale
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "static"])
def test_outputs(kind: str, batch: int, dtype: torch.dtype) -> None:
    layer = make_layer(inputs.weight(256, 384), inputs.bias(256), **KINDS[kind])
    x = inputs.activations(batch, 384).to(dtype)
    x[0, :128] = 0
    expected = blockwise(layer, x) + layer.bias
    with torch.no_grad():
        found = layer(x)
    assert found.dtype == dtype
    eps = {torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype]
    assert (found.float() - expected).abs().max() <= eps * expected.abs().max()
    assert layer.kernel == "torch"
    nested = layer(x.view(1, batch, 384))
    assert torch.equal(nested[0], layer(x))


@pytest.mark.parametrize("block", [None, [32, 64]])
def test_static_inputs(block: list[int] | None) -> None:
    """One scale for all inputs, the checkpoint's; what is too large for it is cut off, as torch's product shows."""
    layer = make_layer(inputs.weight(128, 256), **KINDS["static"], weight_block_size=block)
    scale = torch.tensor(0.004)
    layer.hold({**layer.stored_tensors(), "activation_scale": scale})
    x = inputs.activations(5, 256)
    assert (x.abs() > 448 * scale).any()
    codes = (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    stored = layer.stored_tensors()
    weight, scales = stored["weight"], stored["weight_scale_inv"].expand((4, 4) if block else (1, 1))
    width, expected = block[1] if block else 256, torch.zeros(5, 128)
    for column, start in zip(scales.T, range(0, 256, width), strict=True):
        rows = column.repeat_interleave(128 // len(column)).view(1, -1)
        left, right = (part[:, start : start + width].contiguous() for part in (codes, weight))
        expected += torch._scaled_mm(left, right.t(), scale.expand(5, 1).contiguous(), rows, out_dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_number(kind: str) -> None:
    """A token with NaN, and an output whose weights have one, are NaN, and no others: float8 has a code for it that is no number."""
    weight = inputs.weight(256, 384)
    weight[200, 7] = torch.nan
    layer, x = make_layer(weight, **KINDS[kind]), inputs.activations(4, 384)
    x[1, 5], x[2] = torch.nan, -0.0
    with torch.no_grad():
        found = layer(x).isnan()
    theirs = (x @ weight.T).isnan()
    assert (found >= theirs).all()
    if kind != "whole":  # there all of the weight has one scale
        assert not found[[0, 2, 3]][:, :128].any()


def test_blocks_that_end_outside() -> None:
    """DeepSeek's checkpoints have weights that are no whole blocks: the last ones are cut."""
    whole = make_layer(inputs.weight(256, 256))
    cut = make_layer(inputs.weight(256, 256)[:128, :128])
    cut.out_features, cut.in_features = 200, 180
    scales = whole.stored_tensors()["weight_scale_inv"]
    cut.hold({"weight": whole.stored_tensors()["weight"][:200, :180].clone(), "weight_scale_inv": scales})
    assert {k: v.shape for k, v in cut.empty_tensors().items()} == {
        k: v.shape for k, v in cut.stored_tensors().items()
    }
    assert torch.equal(cut.dequantize(), whole.dequantize()[:200, :180])
    x = inputs.activations(3, 180)
    with torch.no_grad():
        padded = torch.nn.functional.pad(x, (0, 76))
        torch.testing.assert_close(cut(x), whole(padded)[:, :200], rtol=1e-4, atol=1e-4)


def test_gradients() -> None:
    layer = make_layer(inputs.weight(128, 128), inputs.bias(128))
    x = inputs.activations(4, 128).requires_grad_()
    layer(x).square().sum().backward()
    weight = layer.dequantize()
    expected = 2 * (x.detach() @ weight.t() + layer.bias.detach()) @ weight
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    inputs.llama(**WIDE).save_pretrained(folder)
    return folder


def quantized(plain: Path, **options: Any) -> Any:
    quantizer = fp8.FineGrainedFP8HfQuantizer(fp8.FineGrainedFP8Config(**options), pre_quantized=False)
    return llama.LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32, quantizer=quantizer)


@pytest.mark.parametrize("kind", ["blocks", "power_of_two", "mxfp8", "other_blocks"])
def test_checkpoint(kind: str, plain: Path, tmp_path: Path) -> None:
    """What is saved gives the same logits read by us, and by transformers, which without a GPU reads it dequantized."""
    model = quantized(plain, **KINDS[kind])
    model.save_pretrained(tmp_path)
    ids = inputs.token_ids(2, 9)
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
        expected = theirs(ids).logits
    with pytest.warns(UserWarning, match="dequantize"):
        dequantized = unibody.AutoModelForCausalLM.from_pretrained(
            tmp_path, dtype=torch.float32, quantization_config={"quant_method": "fp8", "dequantize": True}
        )
    with torch.no_grad():
        torch.testing.assert_close(dequantized(ids).logits, expected, rtol=1e-4, atol=1e-4)
    width = KINDS[kind].get("weight_block_size", (128, 128))[1]
    packed = [name for name, module in model.named_modules() if isinstance(module, fp8.FP8Linear)]
    assert len(packed) == 14
    for name in packed:
        theirs.get_submodule(name).register_forward_pre_hook(lambda _, arguments: (rounded(arguments[0], width),))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(theirs(ids).logits, expected, atol=1e-2), "rounding the inputs counts"
    stored = load_file(plain / "model.safetensors")
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        if f"{name.removesuffix('.weight_scale_inv')}.weight" in stored and "proj" in name:
            key = name.rpartition(".")[2]
            expected = reference(stored[f"{name.rpartition('.')[0]}.weight"], **KINDS[kind])[key]
            assert torch.equal(as_bytes(tensor), as_bytes(expected)), name


def test_what_stays_plain(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = tmp_path
    inputs.llama(**WIDE | {"intermediate_size": 384, "num_key_value_heads": 2}).save_pretrained(plain)
    with caplog.at_level(logging.WARNING):
        model = quantized(plain, weight_block_size=[256, 256])
    names = {name for name, module in model.named_modules() if isinstance(module, fp8.FP8Linear)}
    assert names == {f"model.layers.{n}.self_attn.{p}_proj" for n in (0, 1) for p in "qo"}
    (record,) = caplog.records
    assert record.getMessage().startswith("10 linear layers stay plain under fp8: model.layers.0.self_attn.k_proj, ")
    model = quantized(plain, modules_to_convert=["q_proj"], modules_to_not_convert=["layers.1"])
    names = {name for name, module in model.named_modules() if isinstance(module, fp8.FP8Linear)}
    assert names == {"model.layers.0.self_attn.q_proj"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        *KINDS.values(),
        {"dequantize": True},
        {"modules_to_not_convert": ["lm_head"]},
        {"modules_to_convert": ["q_proj"]},
        {"activation_scheme": "STATIC"},
    ],
)
def test_configuration(options: dict[str, Any]) -> None:
    """The same JSON, both ways."""
    ours, theirs = fp8.FineGrainedFP8Config(**options), transformers.FineGrainedFP8Config(**options)
    written = json.loads(json.dumps(theirs.to_dict()))
    assert json.loads(json.dumps(ours.to_dict())) == written
    assert fp8.FineGrainedFP8Config.from_dict(written) == ours
    assert unibody.AutoQuantizationConfig.from_dict(written) == ours


def test_experts() -> None:
    with pytest.warns(UserWarning, match="expert_dtype changes nothing: no model here has experts"):
        ours = fp8.FineGrainedFP8Config(expert_dtype="fp4")
    assert json.loads(json.dumps(ours.to_dict())) == json.loads(
        json.dumps(transformers.FineGrainedFP8Config(expert_dtype="fp4").to_dict())
    )


def test_other_names() -> None:
    told = {"quant_method": "fp8", "fmt": "e4m3", "ignored_layers": ["a"], "weight_block_size": [128, 128]}
    found = fp8.FineGrainedFP8Config.from_dict(told)
    assert (
        found.modules_to_not_convert
        == ["a"]
        == transformers.FineGrainedFP8Config.from_dict(told).modules_to_not_convert
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation_scheme": "x"}, "activation_scheme is 'x', expected one of 'dynamic', 'static'"),
        ({"weight_block_size": (128,)}, r"weight_block_size is \(128,\), expected two positive numbers"),
        ({"weight_block_size": (0, 1)}, r"weight_block_size is \(0, 1\), expected two positive numbers"),
        ({"scale_fmt": "z"}, "scale_fmt is 'z', expected one of 'float', 'ue8m0'"),
        ({"expert_dtype": "z"}, "expert_dtype is 'z', expected one of 'fp8', 'fp4'"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp8.FineGrainedFP8Config(**options)
    with pytest.raises(ValueError):  # noqa: PT011  what they say is theirs
        transformers.FineGrainedFP8Config(**options)


def test_blocks_that_the_kernel_does_not_take() -> None:
    narrow, wide = make_layer(inputs.weight(96, 96), weight_block_size=[48, 48]), make_layer(inputs.weight(128, 128))
    kernel = fp8.FP8Linear.kernels[1]
    assert narrow.why_not(kernel) == "its blocks are 48 columns wide, not a multiple of 32"
    assert wide.why_not(kernel) == ""
