"""Quark against what the toolkit exported, recorded: weights to the bit, logits, JSON; transformers needs the toolkit for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.quantization import fixtures, inputs
from quantizers.files import as_bytes, generated
from safetensors.torch import load_file
from torch import nn

import unibody

quark, llama = generated("quark"), generated("llama")
FOLDER = fixtures.FOLDER / "quark"
SCHEMES = {
    "int4": "QuarkGroupLinear",
    "uint4": "QuarkGroupLinear",
    "int8": "QuarkInt8Linear",
    "int8-static": "QuarkInt8Linear",
    "fp8-static": "QuarkFloat8Linear",
    "fp8-tokens": "QuarkFloat8Linear",
    "mxfp4": "QuarkFloat4Linear",
    "mxfp6-e2m3": "QuarkFloat4Linear",
    "mxfp6-e3m2": "QuarkFloat4Linear",
    "int4-rows": "QuarkGroupLinear",
    "uint8-rows": "QuarkGroupLinear",
    "int8-groups": "QuarkGroupLinear",
    "int8-outputs": "QuarkInt8Linear",
    "fp8-outputs": "QuarkFloat8Linear",
    **dict.fromkeys(("int2", "int3", "int3-rows", "int4-order", "int4-tensor", "uint8-tensor"), "QuarkGroupLinear"),
    **dict.fromkeys(("int4-tokens", "kv-fp8", "kv-post-rope"), "QuarkGroupLinear"),
    **dict.fromkeys(("int8-tokens", "uint8-static", "kv-int8"), "QuarkInt8Linear"),
    "fp8-dynamic": "QuarkFloat8Linear",
    "e5m2-static": "QuarkE5M2Linear",
    "e5m2-tokens": "QuarkE5M2Linear",
    **dict.fromkeys(("mxfp4-mxfp8", "mxfp4-ceil", "fp4-floats", "rotated"), "QuarkFloat4Linear"),
    "uint4-inputs": "QuarkInt8Linear",
}
PLAIN = ("inputs-alone", "mxfp8-fake", "kv-excluded")  # exports with weights in full precision


def read_config(scheme: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"llama-{scheme}/config.json").read_text())["quantization_config"]  # type: ignore[no-any-return]


def packed(model: Any) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "stored_tensors")}


@pytest.mark.parametrize("scheme", [*SCHEMES, *PLAIN])
def test_checkpoint(scheme: str, tmp_path: Path) -> None:
    """The logits of Quark's frozen model; saved again, the same tensors."""
    values, _ = fixtures.load(f"quark/llama-{scheme}/values")
    folder = FOLDER / f"llama-{scheme}"
    model = unibody.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    kinds = {"kv-excluded": {"QuarkGroupLinear", "QuarkPlainLinear"}}  # k_proj and v_proj beside the layers of the MLP
    expected = kinds.get(scheme, {SCHEMES.get(scheme, "QuarkPlainLinear")})
    assert {type(layer).__name__ for layer in packed(model).values()} == expected
    assert len(packed(model)) == (5 if scheme == "kv-excluded" else 7)
    for layer in packed(model).values():
        layer.config.kernel = "torch"  # Quark's arithmetic, in floating point
        layer.prepare(torch.device("cpu"), torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model(values["ids"]).logits, values["logits"], rtol=1e-3, atol=1e-3)
    for layer in packed(model).values():
        layer.config.kernel = None
    model.to(torch.bfloat16)
    with torch.no_grad():
        assert model(values["ids"]).logits.isfinite().all()  # kernels with layouts of their own have run
    model.to(torch.float32)
    model.save_pretrained(tmp_path)
    first, second = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        if "proj" in name:
            assert torch.equal(as_bytes(tensor), as_bytes(second[name])), name
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert config == read_config(scheme)


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme != "rotated"])
def test_codes(scheme: str) -> None:
    """Quantized from the same weights, the tensors are Quark's to the bit; scales of inputs are calibrated there."""
    weights, stored = (
        fixtures.load("quark/llama-int4/values").tensors,
        load_file(FOLDER / f"llama-{scheme}/model.safetensors"),
    )
    config = quark.QuarkConfig.from_dict(read_config(scheme))
    quantizer, seen = quark.QuarkHfQuantizer(config, pre_quantized=False), 0
    for name, weight in weights.items():
        if name.startswith("weight/"):
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer, module = quantizer.make_linear("layer", linear), name.removeprefix("weight/")
            for key, tensor in layer.quantize(weight).items():
                expected = stored[f"{module}.{key}"]
                assert tensor.dtype == expected.dtype
                assert tensor.shape == expected.shape, key
                assert key.startswith(("input_", "output_")) or torch.equal(as_bytes(tensor), as_bytes(expected)), key
                seen += 1
    counts = {"fp8-outputs": 4, **dict.fromkeys(("int8-static", "int8-outputs", "uint8-static"), 5)}
    counts |= dict.fromkeys(("fp8-tokens", "fp8-dynamic", "e5m2-tokens", "fp4-floats"), 2) | {"uint4-inputs": 5}
    assert seen == 7 * counts.get(scheme, 2 if scheme.startswith("mx") else 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if not scheme.endswith("outputs")])
def test_outputs(scheme: str, batch: int, dtype: torch.dtype) -> None:
    """The product of rounded inputs and dequantized weights, by every kernel."""
    config = quark.QuarkConfig.from_dict(read_config(scheme))
    linear = nn.Linear(64, 96)
    layer = quark.QuarkHfQuantizer(config, pre_quantized=False).make_linear("layer", linear)
    layer.hold(layer.quantize(inputs.weight(96, 64)))
    if "input_scale" in layer.names:
        layer.hold({**layer.stored_tensors(), "input_scale": torch.tensor(0.03)})
    x = inputs.activations(batch, 64).to(dtype)
    with torch.no_grad():
        if hasattr(layer, "float8_inputs"):
            codes, scales = layer.float8_inputs(x)
            values = codes.float() * scales.float()
        else:
            values = layer.round_inputs(x).float()
        expected, found = values @ layer.dequantize().t() + layer.bias, layer(x)
    eps = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}[dtype]
    assert (found.float() - expected).abs().max() <= eps * expected.abs().max(), layer.kernel
    nibbles = "int4", "uint4", "int4-rows", "int4-order", "int4-tensor", "int4-tokens", "kv-fp8", "kv-post-rope"
    kernels = {**dict.fromkeys(nibbles, "int4pack_cpu"), "int3-rows": "int3pack_cpu"}
    kernels |= {"int8-static": "int8_product", "kv-int8": "int8pack_cpu"}
    fits = scheme in kernels and (dtype == torch.bfloat16 or scheme == "int8-static")
    assert layer.kernel == (kernels[scheme] if fits else "torch")


@pytest.mark.parametrize("scheme", ["int8-static", "fp8-static"])
def test_calibrated_inputs(scheme: str, tmp_path: Path) -> None:
    """From the same samples: Quark's scales where no rounded weight comes before; after, near them in float8. There, weights are plain."""
    inputs.llama(num_hidden_layers=1).save_pretrained(tmp_path)
    quantizer = quark.QuarkHfQuantizer(quark.QuarkConfig.from_dict(read_config(scheme)), pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, quantizer=quantizer)
    stored = load_file(FOLDER / f"llama-{scheme}/model.safetensors")
    with quark.calibrate(model), torch.no_grad():
        model(inputs.token_ids(2, 16, seed=50))
    for name, layer in packed(model).items():
        first = name.endswith(("q_proj", "k_proj", "v_proj"))
        found, expected = layer.stored_tensors()["input_scale"], stored[f"{name}.input_scale"]
        if first or scheme == "fp8-static":  # one scale for all int8 weights of a layer is coarse
            torch.testing.assert_close(found, expected, rtol=1e-6 if first else 0.1, atol=0)


def test_groups_of_layers() -> None:
    """By name before by class before the rest; what is excluded, or has no weight to round, stays plain."""
    specs = {kind: read_config(kind)["global_quant_config"] for kind in ("int4", "int8", "mxfp4")}
    config = quark.QuarkConfig(
        global_quant_config=specs["mxfp4"], layer_quant_config={"*.mlp.*": specs["int4"], "*.k_proj": {"weight": None}},
        layer_type_quant_config={"Linear": specs["int8"]}, exclude=["lm_head", "*o_proj"],
    )  # fmt: skip
    quantizer, linear = quark.QuarkHfQuantizer(config, pre_quantized=False), nn.Linear(64, 64)
    kinds = {
        "model.layers.0.mlp.up_proj": "QuarkGroupLinear",
        "model.layers.0.self_attn.q_proj": "QuarkInt8Linear",
        "model.layers.0.self_attn.k_proj": "NoneType",
        "model.layers.0.self_attn.o_proj": "NoneType",
        "lm_head": "NoneType",
    }
    assert {name: type(quantizer.make_linear(name, linear)).__name__ for name in kinds} == kinds
    config.layer_type_quant_config = {}
    assert type(quantizer.make_linear("model.layers.0.self_attn.q_proj", linear)).__name__ == "QuarkFloat4Linear"


@pytest.mark.parametrize("scheme", [*SCHEMES, *PLAIN])
def test_configuration(scheme: str) -> None:
    """The JSON that Quark wrote, both ways."""
    written = read_config(scheme)
    config = unibody.AutoQuantizationConfig.from_dict(written)
    assert json.loads(json.dumps(config.to_dict())) == written
    names = "exclude", "export", "global_quant_config"
    assert quark.QuarkConfig(**{name: written[name] for name in names}).exclude == written["exclude"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"export": {"pack_method": "none"}}, "pack_method of export is 'none', expected reorder or order"),
        (
            {"export": {"weight_format": "onnx"}},
            "weight_format of export is 'onnx', expected real_quantized or fake_q",
        ),
        (
            {"algo_config": [{"name": "svdquant"}]},
            "algo_config has 'svdquant', and no layer here adds products of low",
        ),
        (
            {"algo_config": [{"name": "rotation", "r3": True}], "kv_cache_post_rope": True},
            "algo_config has 'rotation'",
        ),
        ({"algo_config": [{"name": "a", "online_config": {"use_input_prescale": True}}]}, "algo_config has 'a'"),
        ({"global_quant_config": {"bias": {}}}, "no layer here rounds a bias, or in two stages"),
        ({"layer_quant_config": {"a": {"weight": [{}, {}]}}}, "no layer here rounds a bias, or in two stages"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quark.QuarkConfig(**options)


@pytest.mark.parametrize(
    ("part", "spec", "message"),
    [
        ("weight", {"dtype": "bfloat16"}, "dtype 'bfloat16' of weight has no layer here"),
        ("weight", {"dtype": "int3", "qscheme": "per_tensor"}, "qscheme 'per_tensor' of weight has no layer"),
        ("weight", {"dtype": "fp8_e4m3", "qscheme": "per_group"}, "qscheme 'per_group' of weight has no layer"),
        ("weight", {"dtype": "fp4", "qscheme": "per_group", "is_dynamic": True}, "is_dynamic True of weight"),
        ("weight", {"qscheme": "per_block"}, "qscheme 'per_block' of weight has no layer"),
        ("weight", {"dtype": "int8", "qscheme": "per_channel", "ch_axis": 1}, "ch_axis 1 of weight has no layer"),
        (
            "weight",
            {"dtype": "fp4", "qscheme": "per_group", "scale_calculation_mode": "round"},
            "scale_calculation_mode 'round'",
        ),
        (
            "weight",
            {"dtype": "fp4", "qscheme": "per_group", "scale_format": "e4m3"},
            "scale_format 'e4m3' of weight",
        ),
        ("weight", {"is_scale_quant": True}, "is_scale_quant True of weight has no layer"),
        ("weight", {"mx_element_dtype": "int8"}, "mx_element_dtype 'int8' of weight has no layer"),
        (
            "weight",
            {"dtype": "uint4", "zero_point_type": "float32"},
            "zero_point_type 'float32' of weight has no layer",
        ),
        ("input_tensors", {"dtype": "uint4", "is_dynamic": True}, "symmetric True of input_tensors has no layer"),
        (
            "input_tensors",
            {"is_dynamic": True, "scale_type": "float16"},
            "scale_type 'float16' of input_tensors has no",
        ),
        (
            "input_tensors",
            {"dtype": "fp8_e4m3", "qscheme": "per_group", "scale_format": "e4m3"},
            "scale_format 'e4m3' of input_tensors has no layer",
        ),
    ],
)
def test_what_no_layer_rounds(part: str, spec: dict[str, Any], message: str) -> None:
    config = quark.QuarkConfig(global_quant_config={"weight": {"dtype": "int8"}, part: spec})
    with pytest.raises(ValueError, match=message):
        quark.QuarkHfQuantizer(config, pre_quantized=False).make_linear("layer", nn.Linear(64, 64))


@pytest.mark.parametrize(
    ("scheme", "part", "spec"),
    [
        ("int4", "weight", {"dtype": "int4", "qscheme": "per_group", "group_size": 32}),
        ("fp8-static", "weight", {"dtype": "fp8_e4m3"}),
        ("int8", "weight", {"qscheme": "per_channel", "symmetric": False}),
        (
            "mxfp4",
            "weight",
            {
                "dtype": "fp4",
                "qscheme": "per_group",
                "group_size": 32,
                "scale_format": "e8m0",
                "scale_calculation_mode": "even",
            },
        ),
        ("fp8-tokens", "input_tensors", {"dtype": "fp8_e4m3", "qscheme": "per_channel", "is_dynamic": True}),
    ],
)
def test_specs_that_say_little(scheme: str, part: str, spec: dict[str, Any]) -> None:
    """They are saved with all keys, as Quark writes them: it does not read less."""
    config = quark.QuarkConfig(global_quant_config={part: spec})
    group = read_config(scheme)["global_quant_config"]
    found = config.to_dict()["global_quant_config"]
    for spec in (found[part], group[part]):
        spec["scale_type"] = spec["scale_type"] or "float"  # the same to Quark
    assert found == {**group, **dict.fromkeys(group), part: group[part]}


def test_parts_of_names_are_saved_whole(tmp_path: Path) -> None:
    """Quark excludes by patterns of full names, and does not know that a part of one may be meant."""
    inputs.llama(num_hidden_layers=1).save_pretrained(tmp_path / "plain")
    group = read_config("int4")["global_quant_config"]
    config = quark.QuarkConfig(global_quant_config=group, exclude=["lm_head", "down_proj", "*.q_proj"])
    quantizer = quark.QuarkHfQuantizer(config, pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(tmp_path / "plain", quantizer=quantizer)
    model.save_pretrained(tmp_path / "packed")
    saved = json.loads((tmp_path / "packed/config.json").read_text())["quantization_config"]
    assert saved["exclude"] == ["lm_head", "down_proj", "*.q_proj", "model.layers.0.mlp.down_proj"]
    again, ids = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "packed"), inputs.token_ids(1, 5)
    assert len(packed(again)) == 5
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)


def test_keys_and_values_that_are_not_quantized_alike() -> None:
    """What a checkpoint says of its cache is not passed over."""
    values = read_config("kv-post-rope")
    values["kv_cache_quant_config"]["*v_proj"]["output_tensors"]["dtype"] = "int8"
    quantizer = quark.QuarkHfQuantizer(quark.QuarkConfig.from_dict(values))
    folder = FOLDER / "llama-kv-post-rope"
    with pytest.raises(ValueError, match="with the same output_tensors in all of kv_cache_quant_config"):
        llama.LlamaForCausalLM.from_pretrained(folder, quantizer=quantizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"global_quant_config": {"weight": {"observer_cls": "PerTensorMSEObserver"}}},
            "observer_cls 'PerTensorMSEObs",
        ),
        (
            {"global_quant_config": {"weight": {"scale_type": "float16"}}},
            "scale_type 'float16' of weight: that is read",
        ),
        ({"export": {"weight_format": "fake_quantized"}}, "weight_format 'fake_quantized' of export: that is read of"),
        (
            {"export": {"min_kv_scale": 1.0}},
            "min_kv_scale 1.0 of export: that is read of checkpoints, and not done here",
        ),
        ({"algo_config": [{"name": "gptq"}]}, "algo_config 'gptq': that is read of checkpoints, and not done here"),
    ],
)
def test_what_is_only_read(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    """It says how a checkpoint was made; made here, it would be something else."""
    inputs.llama(num_hidden_layers=1).save_pretrained(tmp_path)
    config = quark.QuarkConfig(**{"global_quant_config": {"weight": {"dtype": "int8"}}, **options})
    with pytest.raises(ValueError, match=message):
        llama.LlamaForCausalLM.from_pretrained(tmp_path, quantizer=quark.QuarkHfQuantizer(config, pre_quantized=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_quant_config": {"weight": {"qmax": 7}}}, "qmax 7 of weight changes nothing"),
        ({"layer_quant_config": {"*q_proj": {"rank": 8}}}, r"rank 8 of \*q_proj changes nothing"),
        ({"softmax_quant_spec": {"dtype": "fp8_e4m3"}}, "softmax_quant_spec changes nothing"),
    ],
)
def test_what_changes_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        quark.QuarkConfig(**options)


def test_layers_by_two_patterns() -> None:
    """The cache's before those by name, and these before all; an excluded layer keeps its weight and not its outputs."""
    read = {kind: read_config(kind)["global_quant_config"] for kind in ("int4", "int8", "mxfp4")}
    cached = {**read["int8"], "output_tensors": read_config("fp8-static")["global_quant_config"]["weight"]}
    config = quark.QuarkConfig(
        global_quant_config=read["mxfp4"], layer_quant_config={"*self_attn*": read["int4"]},
        kv_cache_quant_config={"*k_proj": cached, "*v_proj": cached}, exclude=["*v_proj", "*o_proj"],
    )  # fmt: skip
    quantizer, linear = quark.QuarkHfQuantizer(config, pre_quantized=False), nn.Linear(64, 64)
    kinds = {"q": "QuarkGroupLinear", "k": "QuarkInt8Linear", "v": "QuarkPlainLinear", "o": "NoneType"}
    found = {letter: quantizer.make_linear(f"a.self_attn.{letter}_proj", linear) for letter in kinds}
    assert {letter: type(layer).__name__ for letter, layer in found.items()} == kinds
    assert found["v"].outputs.split == "e4m3"


def test_rotated_weights() -> None:
    """Without their packing, layers with rotated inputs give nearly the same: inputs and weight are not rounded twice."""
    folder, (values, _) = FOLDER / "llama-rotated", fixtures.load("quark/llama-rotated/values")
    model = unibody.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    layer, x = model.model.layers[0].mlp.down_proj, inputs.activations(5, 96)
    with torch.no_grad():
        rotated = layer(x)
    layer.inputs = None
    with torch.no_grad():
        exact = layer(x)
        plain = model.hf_quantizer.dequantize(model)
        torch.testing.assert_close(plain.model.layers[0].mlp.down_proj(x), exact, rtol=1e-4, atol=1e-4)
    assert not torch.equal(rotated, exact)
    assert plain(values["ids"]).logits.isfinite().all()


def test_gradients() -> None:
    config = quark.QuarkConfig.from_dict(read_config("uint4"))
    layer = quark.QuarkHfQuantizer(config, pre_quantized=False).make_linear("layer", nn.Linear(64, 96))
    layer.hold(layer.quantize(inputs.weight(96, 64)))
    x = inputs.activations(4, 64).requires_grad_()
    layer(x).square().sum().backward()
    weight = layer.dequantize()
    expected = 2 * (x.detach() @ weight.t() + layer.bias.detach()) @ weight
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-4)
