"""HQQ against hqq: codes, scales and zero points to the bit for every number of bits and both axes, layers, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle.quantization import fixtures, inputs, live
from quantizers import files
from quantizers.files import as_bytes, generated
from safetensors.torch import load_file
from torch import Tensor, nn

import unibody

hqq, llama = generated("hqq"), generated("llama")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
QUANTIZED, LAYERS = fixtures.load("hqq/quantized").tensors, fixtures.load("hqq/layers").tensors


def make_layer(weight: Tensor, bias: Tensor | None = None, **options: Any) -> Any:
    return files.make_layer(hqq.HQQLinear, hqq.HqqConfig(**options), weight, bias)


@pytest.mark.parametrize("bits", [8, 4, 3, 2, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_quantized(bits: int, axis: int) -> None:
    """hqq rounds the zero points of 4 bits, unless it is told not to: then only the start of the search differs."""
    key = f"{bits}/{axis}" + ("/rounded_zero" if bits == 4 else "")
    layer = make_layer(QUANTIZED["weight"], nbits=bits, axis=axis, group_size=32)
    stored = layer.stored_tensors()
    for name in ("W_q", "scale", "zero"):
        assert torch.equal(stored[name], QUANTIZED[f"{key}/{name}"]), name
    assert torch.equal(layer.dequantize(), QUANTIZED[f"{key}/dequantized"])


def test_rows_without_groups_and_words_as_floats() -> None:
    whole = live.hqq_linear(QUANTIZED["weight"], None, nbits=4, group_size=None, axis=1).state_dict()
    mine = make_layer(QUANTIZED["weight"], nbits=4, group_size=None).stored_tensors()
    assert mine.keys() == whole.keys()
    assert all(torch.equal(tensor, mine[name]) for name, tensor in whole.items())
    layer = make_layer(QUANTIZED["weight"], nbits=4, group_size=32, view_as_float=True)
    floats = live.hqq_linear(
        QUANTIZED["weight"], None, nbits=4, group_size=32, axis=1, view_as_float=True
    ).state_dict()
    stored = layer.stored_tensors()
    assert stored["W_q"].dtype == torch.float32
    assert all(torch.equal(as_bytes(tensor), as_bytes(stored[name])) for name, tensor in floats.items())
    assert torch.equal(layer.dequantize(), QUANTIZED["4/1/rounded_zero/dequantized"])


def test_flat_groups() -> None:
    """Groups without a range, or nearly so."""
    weight = torch.zeros(8, 64)
    weight[0], weight[1], weight[2] = 1, 1e-5 * torch.randn(64), -3
    expected = live.hqq_linear(weight, None, nbits=4, group_size=32, axis=1).state_dict()
    stored = make_layer(weight, nbits=4, group_size=32).stored_tensors()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in expected.items())


@pytest.mark.parametrize("name", sorted({k.rpartition("/")[0] for k in LAYERS if k.endswith("/output")}))
def test_layer(name: str) -> None:
    """The whole state dict to the bit; outputs and gradients as near as the type of computation allows."""
    dtype, bits, axis = name.split("/")
    weight, bias, hidden = (LAYERS[key].to(DTYPES[dtype]) for key in ("weight", "bias", "hidden"))
    layer = make_layer(weight, bias, nbits=int(bits), group_size=32, axis=int(axis), kernel="torch")
    state = {key.rpartition("/")[2]: tensor for key, tensor in LAYERS.items() if key.startswith(f"{name}/state/")}
    assert layer.state_dict().keys() == state.keys() == {*layer.empty_tensors(), "bias"}
    for key, tensor in layer.state_dict().items():
        assert torch.equal(tensor, state[key]), key
        assert tensor.dtype == state[key].dtype
    given = hidden.clone().requires_grad_()
    output = layer(given)
    output.float().square().sum().backward()
    bound = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 1e-2}[dtype]
    for found, expected in ((output, LAYERS[f"{name}/output"]), (given.grad, LAYERS[f"{name}/gradient"])):
        assert (found - expected).abs().max() <= bound * expected.abs().max()


@pytest.mark.parametrize("name", ["llama-4bit-g32", "llama-mixed"])
def test_checkpoint(name: str, tmp_path: Path) -> None:
    """hqq's safetensors form, which has no configuration, gives hqq's logits; saved, it is the same to the bit."""
    folder = fixtures.FOLDER / "hqq" / name
    values = fixtures.load(f"hqq/{name}/values").tensors
    ids = values["input_ids"].long()
    quantizer = hqq.HqqHfQuantizer(hqq.HqqConfig())
    model = llama.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, quantizer=quantizer)
    with torch.no_grad():
        logits = model(ids).logits
    torch.testing.assert_close(logits, values["logits"], rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path)
    stored, saved = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(saved[key], tensor) for key, tensor in stored.items())
    assert saved.keys() == stored.keys()
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, logits)
    plain = quantizer.dequantize(model)
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"nbits": 4}, {"nbits": 3, "axis": 0}, {"nbits": 2, "group_size": 16}, {"view_as_float": True}]
)
def test_hqq_opens_what_is_saved(options: dict[str, Any], tmp_path: Path) -> None:
    """Its layers take the file's tensors and give the same logits; transformers says that it cannot do it yet."""
    from hqq.core.quantize import HQQLinear

    theirs, ids = inputs.llama(), inputs.token_ids(2, 8)
    theirs.save_pretrained(tmp_path / "plain")
    model = unibody.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", dtype=torch.float32, quantization_config=unibody.HqqConfig(**options)
    )
    model.save_pretrained(tmp_path / "packed")
    saved = load_file(tmp_path / "packed/model.safetensors")
    for key in [key for key in saved if key.endswith(".W_q")]:
        name = key.removesuffix(".W_q")
        tensors = {k.removeprefix(f"{name}."): saved.pop(k) for k in list(saved) if k.startswith(f"{name}.")}
        layer = HQQLinear(None, None, compute_dtype=torch.float32, device="cpu", initialize=False)
        layer.load_state_dict(tensors)
        theirs.set_submodule(name, layer)
    assert theirs.load_state_dict(saved, strict=False).unexpected_keys == []
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    config = transformers.HqqConfig(nbits=4, group_size=64)
    with pytest.raises(NotImplementedError, match="HQQ is not available yet"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=config)


def test_quantizing_a_model(tmp_path: Path) -> None:
    """What hqq makes of the same model, by one configuration and by one for each named layer."""
    inputs.llama().save_pretrained(tmp_path)
    dynamic = {
        "self_attn.q_proj": {"nbits": 8, "group_size": 32},
        "self_attn.k_proj": {"nbits": 3, "group_size": 32},
        "self_attn.v_proj": {"nbits": 1, "group_size": 16, "axis": 0},
        "mlp.gate_proj": {"nbits": 4, "group_size": 64},
        "mlp.up_proj": {"nbits": 4, "group_size": 64, "axis": 0},
        "mlp.down_proj": {"nbits": 2, "group_size": 64, "axis": 0},
    }
    for name, config in (
        ("llama-4bit-g32", hqq.HqqConfig(group_size=32)),
        ("llama-mixed", hqq.HqqConfig(dynamic_config=dynamic)),
    ):
        quantizer = hqq.HqqHfQuantizer(config, pre_quantized=False)
        model = llama.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, quantizer=quantizer)
        stored, made = load_file(fixtures.FOLDER / "hqq" / name / "model.safetensors"), model.state_dict()
        assert made.keys() == stored.keys()
        for key, tensor in made.items():
            assert torch.equal(tensor, stored[key]), key


def test_the_cpu_kernel_and_its_layout(tmp_path: Path) -> None:
    folder = fixtures.FOLDER / "hqq/llama-4bit-g32"
    ids = fixtures.load("hqq/llama-4bit-g32/values").tensors["input_ids"].long()
    exact = fixtures.load("hqq/llama-4bit-g32/values").tensors["logits"]
    models = {}
    for kernel in ("int4pack_cpu", "torch"):
        quantizer = hqq.HqqHfQuantizer(hqq.HqqConfig(kernel=kernel))
        models[kernel] = llama.LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantizer=quantizer)
        assert {layer.kernel for layer in hqq.packed_layers(models[kernel]).values()} == {kernel}
    with torch.no_grad():
        found, expected = (models[kernel](ids).logits.float() for kernel in ("int4pack_cpu", "torch"))
    assert (found - exact).std() < 2 * (expected - exact).std(), "bfloat16, and scales and zero points in it"
    models["int4pack_cpu"].save_pretrained(tmp_path)
    stored, saved = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(saved[key], tensor) for key, tensor in stored.items() if "_proj" in key)


@pytest.mark.parametrize("batch", [1, 2, 3, 64])
@pytest.mark.parametrize("group", [16, 48, 64])
@pytest.mark.parametrize("method", ["hqq", "gptq", "auto-round"])
def test_the_cpu_kernel_of_eight_bits(method: str, group: int, batch: int) -> None:
    """Groups of any size, zero points at the end of their range, for few rows and many; the tensors come back to the bit."""
    torch.manual_seed(batch)
    weight = (torch.randn(40, 192) + torch.linspace(-3, 3, 40)[:, None]).bfloat16()
    if method == "hqq":
        layer = make_layer(weight, torch.randn(40), nbits=8, group_size=group)
    else:
        file = generated(method.replace("-", ""))
        config_class, layer_class = (
            (file.GPTQConfig, file.GPTQLinear) if method == "gptq" else (file.AutoRoundConfig, file.AutoRoundLinear)
        )
        config = config_class(bits=8, group_size=group, sym=False)
        layer = files.make_layer(layer_class, config, weight, torch.randn(40))
    before, x = layer.state_dict(), torch.randn(2, batch, 192).bfloat16()
    with torch.no_grad():
        found = layer(x)
        exact = nn.functional.linear(x.double(), layer.dequantize(torch.float64), layer.bias.double())
    assert (layer.kernel, found.shape, found.dtype) == ("int8_groups_cpu", (2, batch, 40), torch.bfloat16)
    assert (found - exact).abs().max() <= 1e-2 * exact.abs().max()
    assert sum(tensor.nbytes for tensor in layer.buffers()) <= sum(
        tensor.nbytes for name, tensor in before.items() if name != "bias"
    )
    after = layer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], tensor) and after[key].dtype == tensor.dtype for key, tensor in before.items())


@pytest.mark.parametrize("dtype", list(DTYPES.values()))
@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("bits", [8, 4, 3, 2, 1])
def test_outputs(bits: int, batch: int, dtype: torch.dtype) -> None:
    torch.manual_seed(bits)
    layer = make_layer(torch.randn(40, 96).to(dtype), torch.randn(40).to(dtype), nbits=bits, group_size=32)
    x = torch.randn(2, batch, 96).to(dtype)
    with torch.no_grad():
        found = layer(x)
        exact = nn.functional.linear(x.double(), layer.dequantize(torch.float64), layer.bias.double())
    assert (found.shape, found.dtype) == ((2, batch, 40), dtype)
    bound = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    assert (found - exact).abs().max() <= bound * exact.abs().max()


def test_configuration() -> None:
    """The documented order; transformers' keys both ways; what is no value is refused."""
    config = hqq.HqqConfig(3, 32, True, 0, None, ["x"])
    assert (config.nbits, config.group_size, config.view_as_float, config.axis) == (3, 32, True, 0)
    for case in fixtures.load_json("hqq/config"):
        mine = hqq.HqqConfig(**case["arguments"])
        assert mine.to_dict() == case["to_dict"]
        assert hqq.HqqConfig.from_dict(json.loads(json.dumps(mine.to_dict()))) == mine
    for bad, message in (
        ({"nbits": 5}, "nbits is 5, expected one of 8, 4, 3, 2, 1"),
        ({"axis": 2}, "axis is 2, expected one of 0, 1"),
        ({"group_size": 0}, "group_size is 0, expected a number of weights"),
        ({"skip_modules": "lm_head"}, "skip_modules is 'lm_head'"),
        ({"view_as_float": "yes"}, "view_as_float is 'yes'"),
        ({"dynamic_config": {"q_proj": {"nbits": 9}}}, "dynamic_config of 'q_proj': HqqConfig: nbits is 9"),
        ({"dynamic_config": {"q_proj": {"bits": 4}}}, "dynamic_config of 'q_proj': .*'bits'"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            hqq.HqqConfig(**bad)


def test_modules_that_stay_plain(tmp_path: Path) -> None:
    inputs.llama().save_pretrained(tmp_path)
    config = hqq.HqqConfig(group_size=64, skip_modules=["self_attn", "down_proj"])
    quantizer = hqq.HqqHfQuantizer(config, pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(tmp_path, quantizer=quantizer)
    expected = {"lm_head", *(f"model.layers.{i}.mlp.{name}_proj" for i in (0, 1) for name in ("gate", "up"))}
    assert set(hqq.packed_layers(model)) == expected
    for axis, group, expected in ((1, 128, {"down_proj"}), (0, 128, {"gate_proj", "up_proj"})):  # what a group divides
        config = hqq.HqqConfig(group_size=group, axis=axis)
        quantizer = hqq.HqqHfQuantizer(config, pre_quantized=False)
        model = llama.LlamaForCausalLM.from_pretrained(tmp_path, quantizer=quantizer)
        assert {name.rpartition(".")[2] for name in hqq.packed_layers(model)} == expected
    config = hqq.HqqConfig(group_size=48)
    with pytest.raises(ValueError, match="HqqHfQuantizer finds no layer to pack"):
        llama.LlamaForCausalLM.from_pretrained(tmp_path, quantizer=hqq.HqqHfQuantizer(config, pre_quantized=False))
