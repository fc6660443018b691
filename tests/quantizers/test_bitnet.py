"""BitNet against transformers' own layers: codes, outputs, gradients, and checkpoints that both read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle.quantization import inputs
from quantizers import files
from quantizers.files import generated
from safetensors.torch import load_file
from torch import Tensor
from transformers.integrations import bitnet as reference

import unibody
from unibody.tensor_parallel.plans import check_plan

bitnet, llama = generated("bitnet"), generated("llama")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
KINDS = ["bitlinear", "autobitlinear"]
WIDE = {"hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(autouse=True)
def uncompiled() -> Iterator[None]:
    """transformers compiles its layers when they first run, which takes half a minute; what they compute is the same."""
    with torch.compiler.set_stance("force_eager"):
        yield


def make_layer(weight: Tensor, bias: Tensor | None = None, **options: Any) -> Any:
    return files.make_layer(bitnet.BitLinear, bitnet.BitNetQuantConfig(**options), weight, bias)


def their_layer(layer: Any, bias: Tensor | None, dtype: torch.dtype, **options: Any) -> Any:
    """transformers' layer with the tensors of ours."""
    kind, shape = layer.config.linear_class, (layer.in_features, layer.out_features)
    theirs = (reference.BitLinear if kind == "bitlinear" else reference.AutoBitLinear)(
        *shape, bias=bias is not None, dtype=dtype, **options
    )
    stored = layer.stored_tensors()
    packed = stored["weight"]
    theirs.weight.data = packed if kind == "bitlinear" else reference.unpack_weights(packed, dtype=dtype)
    theirs.weight_scale = stored["weight_scale"].to(dtype)
    if bias is not None:
        theirs.bias.data = bias.to(dtype)
    if options.get("use_rms_norm"):
        theirs.rms_norm.weight.data = stored["rms_norm.weight"].to(dtype)
    return theirs


def test_codes() -> None:
    weight = inputs.weight(96, 64)
    for kind in KINDS:
        stored = make_layer(weight, linear_class=kind).state_dict()
        mean = weight.abs().mean()
        codes = (weight / mean).round().clamp(-1, 1)
        assert torch.equal(stored["weight"], reference.pack_weights(codes.clone()))
        assert torch.equal(stored["weight_scale"], (mean if kind == "autobitlinear" else 1 / mean).reshape(1))
        expected = codes * mean
        torch.testing.assert_close(make_layer(weight, linear_class=kind).dequantize(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs(kind: str, norm: bool, batch: int, dtype: torch.dtype) -> None:
    bias = inputs.bias(96) if kind == "bitlinear" else None
    layer = make_layer(inputs.weight(96, 64), bias, linear_class=kind, use_rms_norm=norm)
    if norm:
        layer.hold({**layer.stored_tensors(), "rms_norm.weight": torch.rand(64) + 0.5})
    x = inputs.activations(batch, 64).to(dtype)
    x[0, :] *= torch.arange(64) % 2
    with torch.no_grad():
        found, expected = layer(x), their_layer(layer, bias, dtype, use_rms_norm=norm)(x)
    assert found.dtype == expected.dtype == dtype
    eps = {torch.float32: 2e-6, torch.bfloat16: 1.5e-2, torch.float16: 2e-3}[dtype]
    assert (found - expected).abs().max() <= eps * expected.abs().max()
    assert torch.equal(layer(x.view(1, batch, 64))[0], layer(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [None, inputs.bias(96)])
def test_training(bias: Tensor | None, norm: bool, dtype: torch.dtype) -> None:
    """Online: outputs and the gradients of input, weight, bias and norm, all passed straight through the roundings; to the bit."""
    linear = torch.nn.Linear(64, 96, bias=bias is not None)
    linear.weight.data = inputs.weight(96, 64)
    if bias is not None:
        linear.bias.data = bias.clone()
    config = bitnet.BitNetQuantConfig(linear_class="autobitlinear", quantization_mode="online", use_rms_norm=norm)
    ours = bitnet.AutoBitLinear(linear, config).to(dtype)
    theirs = reference.AutoBitLinear(64, 96, bias=bias is not None, online_quant=True, use_rms_norm=norm).to(dtype)
    if norm:
        ours.rms_norm.weight.data = torch.linspace(0.5, 1.5, 64).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    grads = []
    for layer in (ours, theirs):
        x = inputs.activations(5, 64).to(dtype).requires_grad_()
        y = layer(x)
        y.square().sum().backward()
        grads.append([y.detach(), x.grad, *(p.grad for _, p in sorted(layer.named_parameters()))])
    assert len(grads[0]) == 3 + (bias is not None) + norm
    for found, expected in zip(*grads, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_training_sees(dtype: torch.dtype) -> None:
    """Is what is packed, and what a plain layer gets."""
    linear = torch.nn.Linear(256, 96, bias=False, dtype=dtype)
    linear.weight.data = (inputs.weight(96, 256) * 1.37).to(dtype)
    expected = reference.WeightQuant.apply(linear.weight.data)
    offline = bitnet.BitNetQuantConfig(linear_class="autobitlinear")
    assert torch.equal(files.make_layer(bitnet.BitLinear, offline, linear.weight.data).dequantize(dtype), expected)
    online = bitnet.BitNetQuantConfig(linear_class="autobitlinear", quantization_mode="online")
    model = torch.nn.Sequential(bitnet.AutoBitLinear(linear, online))
    model.config, model.dtype = torch.nn.Module(), dtype
    assert torch.equal(bitnet.BitNetHfQuantizer(online).dequantize(model)[0].weight, expected)


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("style", ["colwise", "rowwise"])
def test_parts(style: str, mode: str, plain: Path) -> None:
    """A part of a weight has another mean, and a part of a token another largest magnitude: no process gets one."""
    config = unibody.BitNetQuantConfig(linear_class="autobitlinear", quantization_mode=mode)
    model = unibody.AutoModelForCausalLM.from_pretrained(plain, quantization_config=config)
    with pytest.raises(ValueError, match=rf"up_proj is packed by bitnet and cannot be {style}"):
        check_plan(model, {"model.layers.0.mlp.up_proj": style}, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_packed_layers(kind: str) -> None:
    """Rounded inputs forward, straight through them backward."""
    layer = make_layer(inputs.weight(96, 64), inputs.bias(96), linear_class=kind)
    x = inputs.activations(5, 64).requires_grad_()
    y = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(y, layer(x), rtol=1e-5, atol=1e-5)
    y.sum().backward()
    torch.testing.assert_close(x.grad, layer.dequantize().sum(0).expand(5, 64), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    inputs.llama(**WIDE).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("kind", "mode", "layers"),
    [("bitlinear", "offline", 14), ("autobitlinear", "offline", 14), ("autobitlinear", "online", 14)],
)
def test_checkpoint(kind: str, mode: str, layers: int, norm: bool, plain: Path, tmp_path: Path) -> None:
    """What is saved gives the same logits read by transformers, and read again; saved anew, it is the same file."""
    config = bitnet.BitNetQuantConfig(linear_class=kind, quantization_mode=mode, use_rms_norm=norm)
    quantizer = bitnet.BitNetHfQuantizer(config, pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32, quantizer=quantizer)
    model.save_pretrained(tmp_path)
    found = [m for m in model.modules() if isinstance(m, (bitnet.BitLinear, bitnet.AutoBitLinear))]
    assert len(found) == layers
    assert type(model.lm_head) is torch.nn.Linear
    ids = inputs.token_ids(2, 9)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = model(ids).logits
        torch.testing.assert_close(logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)
        assert torch.equal(again(ids).logits, logits)
    again.save_pretrained(tmp_path / "again")
    first, second = (load_file(folder / "model.safetensors") for folder in (tmp_path, tmp_path / "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    if norm:
        with pytest.raises(ValueError, match="use_rms_norm=True normalize their inputs"):
            model.hf_quantizer.dequantize(model)
        return
    dequantized = again.hf_quantizer.dequantize(again)
    assert all(type(m) is not bitnet.AutoBitLinear for m in dequantized.modules())
    name = "model.layers.0.self_attn.q_proj.weight"
    weight = load_file(plain / "model.safetensors")[name]
    mean = weight.abs().mean()
    torch.testing.assert_close(dequantized.state_dict()[name], (weight / mean).round().clamp(-1, 1) * mean)


def test_no_quarter_of_the_rows(plain: Path) -> None:
    """Four slabs need rows in fours: the layer of a model without them stays plain."""
    layer, config = torch.nn.Linear(64, 90), bitnet.BitNetQuantConfig()
    quantizer = bitnet.BitNetHfQuantizer(config, pre_quantized=False)
    assert quantizer.make_linear("name", layer) is None
    assert quantizer.make_linear("name", torch.nn.Linear(64, 92)).out_features == 92


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"linear_class": "autobitlinear"},
        {"linear_class": "autobitlinear", "quantization_mode": "online"},
        {"use_rms_norm": True, "rms_norm_eps": 1e-5},
        {"modules_to_not_convert": ["lm_head"]},
    ],
)
def test_configuration(options: dict[str, Any]) -> None:
    """The same JSON, both ways, and the same order of arguments."""
    ours, theirs = bitnet.BitNetQuantConfig(**options), transformers.BitNetQuantConfig(**options)
    written = json.loads(json.dumps(theirs.to_dict()))
    assert json.loads(json.dumps(ours.to_dict())) == written
    assert unibody.AutoQuantizationConfig.from_dict(written) == ours
    placed = (["a"], "autobitlinear", "offline", True, 1e-5)
    assert (
        bitnet.BitNetQuantConfig(*placed).to_dict().items()
        >= transformers.BitNetQuantConfig(*placed).to_dict().items()
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"linear_class": "x"}, ValueError, "linear_class is 'x', expected one of 'bitlinear', 'autobitlinear'"),
        ({"quantization_mode": "x"}, ValueError, "quantization_mode is 'x', expected one of 'online', 'offline'"),
        ({"quantization_mode": "online"}, ValueError, "set quantization_mode='offline', or linear_class"),
        ({"use_rms_norm": 1}, TypeError, "use_rms_norm is 1, expected bool"),
        ({"rms_norm_eps": "x"}, TypeError, "rms_norm_eps is 'x', expected float"),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bitnet.BitNetQuantConfig(**options)
