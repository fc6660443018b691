"""compressed-tensors against its library: qparams and packed tensors to the bit, inputs, checkpoints through transformers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationStatus,
    apply_quantization_config,
    forward_quantize,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from oracle.quantization import inputs
from quantizers.files import as_bytes, generated
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import unibody

ct, llama = generated("compressed_tensors"), generated("llama")
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4}
"""Every size is a multiple of 256, so that blocks of 128 fit without a rest."""
FORMATS = {
    **{f"W{bits}A16": "pack-quantized" for bits in range(2, 9)},
    "W4A16_ASYM": "pack-quantized",
    "W4A8": "pack-quantized",
    "W4AFP8": "pack-quantized",
    "W8A8": "int-quantized",
    "FP8": "float-quantized",
    "FP8_DYNAMIC": "float-quantized",
    "FP8_BLOCK": "float-quantized",
    "NVFP4A16": "nvfp4-pack-quantized",
    "NVFP4": "nvfp4-pack-quantized",
    "MXFP4A16": "mxfp4-pack-quantized",
    "MXFP4": "mxfp4-pack-quantized",
    "MXFP6A16": "mxfp6-pack-quantized",
    "MXFP6A8": "mxfp6-pack-quantized",
    "MXFP8": "mxfp8-quantized",
}


def make_layer(weight: Tensor, scheme: Any, bias: Tensor | None = None) -> Any:
    """A layer of a preset's name, or of a whole group."""
    groups = {scheme: ["Linear"]} if isinstance(scheme, str) else {"group": scheme}
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    config = ct.CompressedTensorsConfig(config_groups=groups)
    layer = ct.CompressedTensorsHfQuantizer(config, pre_quantized=False).make_linear("layer", linear)
    layer.hold(layer.quantize(weight))
    return layer


def their_args(scheme: Any) -> Any:
    return (
        preset_name_to_scheme(scheme, ["Linear"]).weights
        if isinstance(scheme, str)
        else QuantizationArgs(**scheme["weights"])
    )


def their_tensors(weight: Tensor, args: Any) -> dict[str, Tensor]:
    """The library's scales and zero points, not packed yet."""
    (rows, columns), found = weight.shape, {"weight": weight}
    size = args.block_structure or {
        "tensor": (rows, columns), "channel": (1, columns)
    }.get(args.strategy, (1, args.group_size))  # fmt: skip
    blocks = weight.unflatten(1, (-1, size[1])).unflatten(0, (-1, size[0]))
    low, high, options = blocks.amin((1, 3)), blocks.amax((1, 3)), {}
    if args.strategy == "tensor_group":
        options["global_scale"] = found["weight_global_scale"] = generate_gparam(
            weight.min().view(1), weight.max().view(1)
        )
    if args.strategy == "tensor":
        low, high = low.view(1), high.view(1)
    scale, zero = calculate_qparams(low, high, args, **options)
    found["weight_scale"] = scale
    if not args.symmetric:
        found["weight_zero_point"] = zero
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scheme", FORMATS)
def test_codes(scheme: str, dtype: torch.dtype) -> None:
    """Scales, zero points and packed words are the library's to the bit; so is what they stand for."""
    weight = inputs.weight(128, 256).to(dtype)
    weight[:, :128] *= torch.arange(128)[:, None] % 5 != 0  # groups of zeros
    layer = make_layer(weight, scheme)
    args = their_args(scheme)
    found, theirs = layer.state_dict(), their_tensors(weight, args)
    compressor = BaseCompressor.get_value_from_registry(FORMATS[scheme])
    expected = compressor.compress(dict(theirs), preset_name_to_scheme(scheme, ["Linear"]))
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(as_bytes(found[name]), as_bytes(tensor)), name
    assert found.keys() - expected.keys() <= {"input_scale", "input_global_scale"}
    again = compressor.decompress(dict(expected), preset_name_to_scheme(scheme, ["Linear"]))["weight"]
    eps = 1e-6 if again.dtype == torch.float32 else 4e-3  # theirs is rounded to bfloat16 once more
    torch.testing.assert_close(layer.dequantize(), again.float(), rtol=eps, atol=1e-7)


def apply_theirs(weight: Tensor, x: Tensor, scheme: Any, stored: dict[str, Tensor]) -> Tensor:
    """The library's module: the linear layer with rounded inputs, on the dequantized weight."""
    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=x.dtype))
    given = preset_name_to_scheme(scheme, ["Linear"])
    apply_quantization_config(model, QuantizationConfig(config_groups={"group": given}))
    layer = model[0]
    layer.weight.data = weight.to(x.dtype)
    for name in ("input_scale", "input_global_scale"):
        if name in stored:
            getattr(layer, name).data = stored[name].to(getattr(layer, name).dtype)
    layer.quantization_scheme.weights = None  # it is rounded already
    with torch.no_grad():
        return layer(x[None])[0].float()  # tokens are the second dimension for it


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("scheme", FORMATS)
def test_outputs(scheme: str, batch: int, dtype: torch.dtype) -> None:
    layer = make_layer(inputs.weight(128, 256), scheme, inputs.bias(128))
    x = inputs.activations(batch, 256).to(dtype)
    static = {"input_scale": torch.tensor([0.02]), "input_global_scale": torch.tensor([300.0])}
    stored = layer.stored_tensors()
    layer.hold({**stored, **{name: value for name, value in static.items() if name in stored}})
    before = layer.state_dict()
    expected = apply_theirs(layer.dequantize(), x, scheme, layer.stored_tensors()) + layer.bias
    with torch.no_grad():
        found = layer(x)
    assert found.dtype == dtype
    eps = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}[dtype]
    assert (found.float() - expected).abs().max() <= eps * expected.abs().max(), layer.kernel
    assert torch.equal(layer(x.view(1, batch, 256))[0], layer(x))
    assert all(torch.equal(as_bytes(tensor), as_bytes(layer.state_dict()[name])) for name, tensor in before.items())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    inputs.llama(**WIDE).save_pretrained(folder)
    return folder


def quantized(plain: Path, scheme: Any, **options: Any) -> Any:
    groups = {scheme: ["Linear"]} if isinstance(scheme, str) else scheme
    config = ct.CompressedTensorsConfig(config_groups=groups, ignore=["lm_head"], **options)
    quantizer = ct.CompressedTensorsHfQuantizer(config, pre_quantized=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return llama.LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32, quantizer=quantizer)


def take_layers(theirs: Any, ours: Any, scheme: str) -> None:
    """Gives transformers' model the weights of ours, and inputs rounded by the library.

    transformers 5.23 expects zero points that are not packed, and multiplies float32 inputs by bfloat16 weights of FP4.
    """
    group = preset_name_to_scheme(scheme, ["Linear"])
    apply_quantization_config(theirs, QuantizationConfig(config_groups={"group": group}, ignore=["lm_head"]))
    for name, layer in ours.named_modules():
        if hasattr(layer, "stored_tensors"):
            module, stored = theirs.get_submodule(name), layer.stored_tensors()
            if scheme == "W4A16_ASYM":
                compressor = BaseCompressor.get_value_from_registry(FORMATS[scheme])
                module.weight.data = compressor.decompress(dict(stored), group)["weight"]
            else:  # the library gives bfloat16; test_codes compares it
                module.weight.data = layer.dequantize()
            module.quantization_scheme.weights = None
            if "input_global_scale" in stored:
                module.input_global_scale.data = stored["input_global_scale"]


@pytest.mark.parametrize("scheme", [*FORMATS, "mixed"])
def test_checkpoint(scheme: str, plain: Path, tmp_path: Path) -> None:
    """What is saved gives the same logits read by transformers with the library, and read again."""
    mixed = {"W4A16": ["re:.*mlp.*"], "FP8_DYNAMIC": ["re:.*self_attn.*"]}
    # A sum of integers rounded once differs in its last bits from one of floats, and later layers' codes may then be others.
    model = quantized(plain, mixed if scheme == "mixed" else scheme, kernel="torch")
    ids = inputs.token_ids(2, 9)
    if scheme in ("FP8", "NVFP4"):
        with ct.calibrate(model), torch.no_grad():
            model(ids)
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert written["format"] == ("mixed-precision" if scheme == "mixed" else FORMATS[scheme])
    assert written["quantization_status"] == "compressed"
    readable = scheme != "W4A16_ASYM" and not scheme.startswith(("NV", "MX"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path if readable else plain, dtype=torch.float32)
    if not readable:
        take_layers(theirs, model, scheme)
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        logits, expected = model(ids).logits, theirs(ids).logits
        assert torch.equal(again(ids).logits, logits)
    assert len([m for m in again.modules() if hasattr(m, "stored_tensors")]) == 14
    torch.testing.assert_close(logits, expected, rtol=2e-3, atol=2e-3)
    with pytest.warns(UserWarning, match="run_compressed"):
        dequantized = unibody.AutoModelForCausalLM.from_pretrained(
            tmp_path, quantization_config=unibody.CompressedTensorsConfig(run_compressed=False)
        )
    assert not [m for m in dequantized.modules() if hasattr(m, "stored_tensors")]
    again = again.hf_quantizer.dequantize(again)
    with torch.no_grad():
        assert torch.equal(dequantized(ids).logits, again(ids).logits)


KV = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False}


@pytest.mark.parametrize("scheme", [KV, {**KV, "type": "int"}, {**KV, "type": "int", "num_bits": 4}])
def test_rounded_cache(scheme: dict[str, Any], plain: Path, tmp_path: Path) -> None:
    """Keys and values are rounded as the library rounds them; the scales are the checkpoint's, and are saved again."""
    model = quantized(plain, "W8A16", kernel="torch", kv_cache_scheme=scheme)
    for layer in model.model.layers:
        largest = 448 if scheme["type"] == "float" else (2 ** scheme["num_bits"] - 1) / 2
        layer.self_attn.k_scale, layer.self_attn.v_scale = torch.tensor([4 / largest]), torch.tensor([2 / largest])
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")["model.layers.1.self_attn.v_scale"] == 2 / largest
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    again, ids = unibody.AutoModelForCausalLM.from_pretrained(tmp_path), inputs.token_ids(2, 9)
    with torch.no_grad():
        found, unrounded = again(ids), quantized(plain, "W8A16", kernel="torch")(ids).logits
        expected = theirs(ids, use_cache=True)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found.logits, unrounded, atol=1e-2), "rounding counts"
    keys, values = found.past_key_values.keys[0][:, :, :9], found.past_key_values.values[0][:, :, :9]
    torch.testing.assert_close(keys, expected.past_key_values.layers[0].keys, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(values, expected.past_key_values.layers[0].values, rtol=1e-4, atol=1e-4)
    assert again.generate(ids, max_new_tokens=3).shape == (2, 12)


def test_calibrated_inputs(plain: Path) -> None:
    """The scale that `calibrate` learns is the library's for the range of a layer's inputs, also of asymmetric integers."""
    args = {"num_bits": 8, "type": "int", "symmetric": False, "strategy": "tensor", "dynamic": False}
    group = {"targets": ["re:.*q_proj"], "weights": {"num_bits": 8, "strategy": "channel"}, "input_activations": args}
    model, seen = quantized(plain, {"group": group}), []
    layer = model.model.layers[0].self_attn.q_proj
    layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with ct.calibrate(model), torch.no_grad():
        model(inputs.token_ids(2, 9))
        model(inputs.token_ids(2, 9, seed=1))
    low, high = torch.stack(seen).aminmax()
    scale, zero = calculate_qparams(low.view(1), high.view(1), QuantizationArgs(**args))
    stored = layer.stored_tensors()
    assert torch.equal(stored["input_scale"], scale)
    assert torch.equal(stored["input_zero_point"], zero)
    x = seen[0][0]
    codes = (x / scale + zero).round().clamp(-128, 127)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), ((codes - zero) * scale) @ layer.dequantize().t(), rtol=1e-4, atol=1e-4)
    assert [m for m in model.modules() if hasattr(m, "stored_tensors")] == [
        n.self_attn.q_proj for n in model.model.layers
    ]


def say_status(folder: Path, status: str) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"]["quantization_status"] = status
    (folder / "config.json").write_text(json.dumps(values))


def save_uncompressed(scheme: str, folder: Path) -> None:
    """A model that the library rounds as it runs, with scales that do not follow from its weights."""
    model = inputs.llama(**WIDE)
    config = QuantizationConfig(config_groups={"group": preset_name_to_scheme(scheme, ["Linear"])}, ignore=["lm_head"])
    apply_quantization_config(model, config)
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None and isinstance(module, nn.Linear):
            found = their_tensors(module.weight.data, module.quantization_scheme.weights)
            if not scheme.startswith(("NV", "MX")):
                found["weight_scale"] = found["weight_scale"] * 1.1
            found |= {"input_scale": torch.tensor([0.02]), "input_global_scale": torch.tensor([300.0])}
            for name in found.keys() & dict(module.named_parameters()).keys():
                getattr(module, name).data = found[name].to(getattr(module, name).dtype)
    model.save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    written = json.loads(config.model_dump_json())
    values["quantization_config"] = {**written, "quant_method": "compressed-tensors", "format": "dense"}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("scheme", "status"),
    [
        *(("W4A16", "initialized"), ("W3A16", "calibration"), ("W4A16_ASYM", "frozen"), ("W8A8", "frozen")),
        *(("FP8", "frozen"), ("FP8_BLOCK", "initialized"), ("NVFP4", "frozen"), ("MXFP6A16", "frozen")),
    ],
)
def test_weights_that_are_not_compressed(
    scheme: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are rounded by the scales beside them, as the library does it, and saved in the scheme's format."""
    monkeypatch.setenv("UNIBODY_KERNEL", "torch")
    save_uncompressed(scheme, tmp_path / "plain")
    say_status(tmp_path / "plain", status)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32)
    values = json.loads((tmp_path / "plain/config.json").read_text())["quantization_config"]
    quantizer = ct.CompressedTensorsHfQuantizer(ct.CompressedTensorsConfig.from_dict(values))
    model = llama.LlamaForCausalLM.from_pretrained(
        tmp_path / "plain", dtype=torch.float32, device="cpu", quantizer=quantizer
    )
    placed = unibody.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", dtype=torch.float32, device_map={"": "cpu"}
    )
    assert len([m for m in placed.modules() if hasattr(m, "stored_tensors")]) == 14
    model.save_pretrained(tmp_path / "packed")
    config = json.loads((tmp_path / "packed/config.json").read_text())["quantization_config"]
    assert (config["quantization_status"], config["format"]) == ("compressed", FORMATS[scheme])
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "packed", dtype=torch.float32)
    ids = inputs.token_ids(2, 9)
    with torch.no_grad():
        logits = model(ids).logits
        torch.testing.assert_close(logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)
        assert torch.equal(placed(ids).logits, logits)
        assert torch.equal(again(ids).logits, logits)


def test_plain_weights_without_zero_points(tmp_path: Path) -> None:
    """What a weight is to be rounded by is not made up."""
    save_uncompressed("W4A16_ASYM", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight_zero_point"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"expected plain weights.* a layer has weight, weight_scale"):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path)


OUTPUTS = {
    "static": {"num_bits": 8, "type": "float", "strategy": "tensor"},
    "asymmetric": {"num_bits": 8, "strategy": "tensor", "symmetric": False},
    "token": {"num_bits": 8, "strategy": "token", "dynamic": True},
    "group": {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "dynamic": True},
}


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("scheme", ["W4A16", "W8A8", "FP8_DYNAMIC", "MXFP4A16"])
def test_rounded_outputs(scheme: str, kind: str) -> None:
    """What a layer returns is rounded as the library rounds it, by static scales too; these are learned."""
    given = json.loads(preset_name_to_scheme(scheme, ["Linear"]).model_dump_json())
    group = {**given, "weights": {**given["weights"], "scale_dtype": their_args(scheme).scale_dtype and "torch.uint8"}}
    layer = make_layer(inputs.weight(128, 256), {**group, "output_activations": OUTPUTS[kind]}, inputs.bias(128))
    stored, x = layer.stored_tensors(), inputs.activations(5, 256)
    static = {"output_scale": torch.tensor([0.03]), "output_zero_point": torch.tensor([3], dtype=torch.int8)}
    layer.hold({**stored, **{name: value for name, value in static.items() if name in stored}})
    assert ("output_scale" in stored) == (kind in ("static", "asymmetric"))
    args = QuantizationArgs(**OUTPUTS[kind])
    exact = make_layer(inputs.weight(128, 256), group, inputs.bias(128))
    with torch.no_grad():
        found, y = layer(x), exact(x)
        module = nn.Module()
        module.quantization_status = QuantizationStatus.FROZEN
        vars(module).update(layer.others)
        expected = forward_quantize(module, y[None], "output", args)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    rows = x.clone().requires_grad_()
    assert layer(rows).requires_grad  # not rounded: a step has no slope
    if kind in ("static", "asymmetric"):
        with ct.calibrate(nn.Sequential(layer)), torch.no_grad():
            layer(x)
        y = x @ layer.dequantize().t() + layer.bias.detach()  # of inputs that are not rounded
        scale, _ = calculate_qparams(*(v.view(1) for v in y.aminmax()), args)
        torch.testing.assert_close(layer.stored_tensors()["output_scale"], scale, rtol=1e-4, atol=0)


def test_columns_in_the_order_of_activations(plain: Path, tmp_path: Path) -> None:
    """`weight_g_idx` says which group a column is in."""
    group = {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32, "actorder": "group"}}
    layer, order = make_layer(inputs.weight(64, 128), group), torch.randperm(128)
    stored = layer.stored_tensors()
    layer.hold({**stored, "weight_g_idx": stored["weight_g_idx"][order]})
    codes = stored["weight_packed"].view(torch.uint8).repeat_interleave(2, 1) >> torch.tensor([0, 4]).repeat(64) & 15
    scales = stored["weight_scale"][:, stored["weight_g_idx"][order].long()]
    torch.testing.assert_close(layer.dequantize(), (codes.float() - 8) * scales)
    layer(inputs.activations(2, 128).bfloat16())
    assert layer.kernel == "torch"


def test_gradients() -> None:
    layer = make_layer(inputs.weight(64, 128), "W8A8", inputs.bias(64))
    x = inputs.activations(4, 128).requires_grad_()
    layer(x).square().sum().backward()
    weight = layer.dequantize()
    expected = 2 * (x.detach() @ weight.t() + layer.bias.detach()) @ weight
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme", [*FORMATS, "INT8", "W2A4", "UNQUANTIZED"])
def test_configuration(scheme: str) -> None:
    """The same JSON as transformers writes with the library, both ways; a scheme's name stands for its arguments."""
    options = {"config_groups": {scheme: ["Linear"]}, "format": "pack-quantized", "ignore": ["re:.*head"]}
    ours, theirs = ct.CompressedTensorsConfig(**options), transformers.CompressedTensorsConfig(**options)
    written = json.loads(json.dumps(theirs.to_dict()))
    found = json.loads(json.dumps(ours.to_dict()))
    written.pop("moe_sparsity_config")
    (theirs_group,) = written.pop("config_groups").values()
    (ours_group,) = found.pop("config_groups").values()
    assert ours_group == theirs_group
    assert found == written
    again = unibody.AutoQuantizationConfig.from_dict(json.loads(json.dumps(theirs.to_dict())))
    assert again.config_groups["group_0" if "group_0" in again.config_groups else scheme] == ours_group


def test_told_in_other_ways() -> None:
    """The library's objects, a nested `quantization_config`, and what llm-compressor writes beside."""
    theirs = preset_name_to_scheme("W8A8", ["Linear"])
    given = ct.CompressedTensorsConfig(config_groups={"group_0": theirs}, global_compression_ratio=1.5)
    assert given.config_groups["group_0"] == ct.CompressedTensorsConfig({"W8A8": ["Linear"]}).config_groups["W8A8"]
    nested = {
        "quantization_config": given.to_dict(),
        "sparsity_config": {},
        "version": "0.14.0",
        "transform_config": {},
    }
    again = ct.CompressedTensorsConfig.from_dict(nested)
    assert again.config_groups == given.config_groups
    assert again.global_compression_ratio == 1.5
    placed = ct.CompressedTensorsConfig(
        {"W8A8": ["Linear"]}, "int-quantized", "compressed", KV, 1.0, ["a"], None, False
    )
    assert (placed.format, placed.quantization_status, placed.ignore) == ("int-quantized", "compressed", ["a"])
    assert (placed.kv_cache_scheme, placed.global_compression_ratio, placed.run_compressed) == (
        {**KV, "group_size": None},
        1.0,
        False,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "x"}, "format is 'x', expected one of 'dense', 'pack-quantized'"),
        ({"format": "marlin-24"}, "the sparse format 'marlin-24' is not read any more"),
        ({"sparsity_config": {"format": "sparse-bitmask"}}, "the sparse format 'sparse-bitmask' is not read any more"),
        ({"quantization_status": "x"}, "quantization_status is 'x', expected one of"),
        ({"config_groups": {"W9A16": ["Linear"]}}, "no scheme is called 'W9A16'"),
        ({"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 9}}}}, "num_bits is 9"),
        ({"config_groups": {"g": {"targets": ["Linear"], "weights": {"strategy": "group"}}}}, "needs a group_size"),
        ({"config_groups": {"g": {"targets": [], "output_activations": {"num_bits": 9}}}}, "num_bits is 9"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ct.CompressedTensorsConfig(**options)


def test_checkpoints_that_are_refused(plain: Path, tmp_path: Path) -> None:
    for scheme, name in (("W8A8", "weight is torch.int8"), ("W4A16", "weight_packed is torch.int32")):
        quantized(plain, scheme).save_pretrained(tmp_path / scheme)
        say_status(tmp_path / scheme, "frozen")
        with pytest.raises(ValueError, match=f"says that the checkpoint is not compressed, and .*{name}"):
            unibody.AutoModelForCausalLM.from_pretrained(tmp_path / scheme)
    plain_weights = tmp_path / "plain"
    inputs.llama(**WIDE).save_pretrained(plain_weights)
    config = ct.CompressedTensorsConfig({"W8A8": ["Linear"]}, ignore=["lm_head"])
    with pytest.raises(ValueError, match="is 'initialized' and the checkpoint has no scales: quantize it"):
        llama.LlamaForCausalLM.from_pretrained(plain_weights, quantizer=ct.CompressedTensorsHfQuantizer(config))
    with pytest.raises(ValueError, match="config_groups names no layers"):
        llama.LlamaForCausalLM.from_pretrained(
            plain, quantizer=ct.CompressedTensorsHfQuantizer(ct.CompressedTensorsConfig(), pre_quantized=False)
        )
    with pytest.warns(UserWarning, match="use_optimized_inference changes nothing"):
        ct.CompressedTensorsConfig(use_optimized_inference=True)


def test_zero_points_that_say_nothing(plain: Path, tmp_path: Path) -> None:
    """Old checkpoints have zero points of symmetric weights; layers that no group targets stay plain."""
    model = quantized(plain, {"W8A8": ["re:.*mlp.*"]})
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    scales = {name: tensor for name, tensor in tensors.items() if name.endswith("weight_scale")}
    assert len(scales) == 6
    points = {
        f"{name.removesuffix('scale')}zero_point": torch.zeros_like(t, dtype=torch.int8) for name, t in scales.items()
    }
    save_file({**tensors, **points}, file, {"format": "pt"})
    again, ids = unibody.AutoModelForCausalLM.from_pretrained(tmp_path), inputs.token_ids(1, 5)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
