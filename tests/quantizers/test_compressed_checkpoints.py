"""Checkpoints of compressed-tensors, through transformers with the library and back; weights that are not compressed; calibration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    apply_quantization_config,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams
from oracle.quantization import inputs
from quantizers.compressed import FORMATS, KV, WIDE, ct, llama, quantized, their_tensors
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import unibody


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    inputs.llama(**WIDE).save_pretrained(folder)
    return folder


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


EIGHT = {"num_bits": 8, "strategy": "channel"}
GROUPS: dict[str, dict[str, Any]] = {  # what no scheme's name stands for
    "mixed": {"W4A16": ["re:.*mlp.*"], "FP8_DYNAMIC": ["re:.*self_attn.*"]},
    "static": {"group": {"targets": ["Linear"], "weights": EIGHT, "input_activations": {"strategy": "tensor"}}},
}


@pytest.mark.parametrize("scheme", [*FORMATS, *GROUPS])
def test_checkpoint(scheme: str, plain: Path, tmp_path: Path) -> None:
    """What is saved gives the same logits read by transformers with the library, and read again."""
    # A sum of integers rounded once differs in its last bits from one of floats, and later layers' codes may then be others.
    model = quantized(plain, GROUPS.get(scheme, scheme), kernel="torch")
    ids = inputs.token_ids(2, 9)
    if scheme in ("FP8", "NVFP4", "static"):
        with ct.calibrate(model), torch.no_grad():
            model(ids)
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert written["format"] == {"mixed": "mixed-precision", "static": "int-quantized", **FORMATS}[scheme]
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


INT = {**KV, "type": "int"}
DYNAMIC = {**KV, "dynamic": True}
CACHES: dict[str, dict[str, Any]] = {
    "float8": KV,
    "int8": INT,
    "int4": {**INT, "num_bits": 4},
    "asymmetric": {**INT, "symmetric": False},
    "heads": {**KV, "strategy": "attn_head"},
    "groups": {**DYNAMIC, "strategy": "group", "group_size": 16},
}


@pytest.mark.parametrize("kind", CACHES)
def test_rounded_cache(kind: str, plain: Path, tmp_path: Path) -> None:
    """Keys and values are rounded as the library rounds them; scales and zero points are the checkpoint's, and are saved again."""
    scheme = CACHES[kind]
    model = quantized(plain, "W8A16", kernel="torch", kv_cache_scheme=scheme)
    stored: dict[str, Tensor] = {}
    if not scheme["dynamic"]:
        largest = 448 if scheme["type"] == "float" else (2 ** scheme["num_bits"] - 1) / 2
        heads = torch.tensor([1.0, 0.5, 2.0, 0.8]).view(4, 1, 1) if kind == "heads" else torch.ones(1)
        stored = {"k_scale": 4 / largest * heads, "v_scale": 2 / largest * heads}
    if not scheme["symmetric"]:
        stored |= {
            f"{name}_zero_point": torch.tensor([point], dtype=torch.int8) for name, point in (("k", 9), ("v", -7))
        }
    for layer in model.model.layers:
        assert dict(layer.self_attn.named_buffers(recurse=False)).keys() == stored.keys()
        for name, tensor in stored.items():
            assert getattr(layer.self_attn, name).shape == tensor.shape
            setattr(layer.self_attn, name, tensor.clone())
    model.save_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(written[f"model.layers.1.self_attn.{name}"], tensor) for name, tensor in stored.items())
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


def test_cache_by_tokens(plain: Path) -> None:
    """Each token of each head has a scale; the library, which has other tensors in mind, rounds all tokens of a call by one."""
    scheme, ids = {**INT, "strategy": "token", "dynamic": True}, inputs.token_ids(2, 9)
    with torch.no_grad():
        exact = quantized(plain, "W8A16", kernel="torch")(ids).past_key_values.keys[0][:, :, :9]
        found = quantized(plain, "W8A16", kernel="torch", kv_cache_scheme=scheme)(ids).past_key_values.keys[0][
            :, :, :9
        ]
    scale = exact.abs().amax(-1, keepdim=True) / 127.5
    torch.testing.assert_close(found, (exact / scale).round().clamp(-128, 127) * scale, rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize("scheme", ["W4A16", "W8A8", "FP8_DYNAMIC"])
def test_weights_that_transformers_has_decompressed(
    scheme: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it saves after it has run: plain weights, of which the status says so."""
    monkeypatch.setenv("UNIBODY_KERNEL", "torch")
    quantized(plain, scheme).save_pretrained(tmp_path / "ours")
    theirs, ids = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours"), inputs.token_ids(2, 9)
    with torch.no_grad():
        expected = theirs(ids).logits
    theirs.save_pretrained(tmp_path / "theirs")
    values = json.loads((tmp_path / "theirs/config.json").read_text())["quantization_config"]
    assert values["quantization_status"] == "decompressed"
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path / "packed")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "packed"))
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


NAMES = ["Linear", "Module", "re:.*up_proj", "mlp.up_proj", "up_proj", "re:up_proj"]


@pytest.mark.parametrize("second", NAMES)
@pytest.mark.parametrize("first", NAMES)
def test_which_group_a_layer_is_in(first: str, second: str) -> None:
    """Its name goes before patterns, and patterns go before its class, as the library has it."""
    model = nn.ModuleDict({"mlp": nn.ModuleDict({"up_proj": nn.Linear(8, 8)})})
    groups = {
        key: {"targets": [target], "weights": {"num_bits": bits, "type": "int", "strategy": "channel"}}
        for key, target, bits in (("a", first, 4), ("b", second, 8))
    }
    apply_quantization_config(model, QuantizationConfig(config_groups=groups))
    theirs = getattr(model.get_submodule("mlp.up_proj"), "quantization_scheme", None)
    ours = ct.CompressedTensorsConfig(groups).scheme_of(nn.Linear(8, 8), "mlp.up_proj")
    bits = None if theirs is None else theirs.weights.num_bits
    assert (None if ours is None else ours["weights"]["num_bits"]) == bits


def test_names_inside_of_names(plain: Path, tmp_path: Path) -> None:
    """A part of a name that is to be ignored is saved as the names that it means, which others read; groups keep their order."""
    weights = {"num_bits": 8, "strategy": "channel"}
    groups = {
        "second": {"targets": ["re:.*gate_proj"], "weights": {**weights, "num_bits": 4}},
        "first": {"targets": ["re:.*mlp.*"], "weights": weights},
    }
    config = ct.CompressedTensorsConfig(groups, ignore=["lm_head", "down_proj"])
    quantizer, ids = ct.CompressedTensorsHfQuantizer(config, pre_quantized=False), inputs.token_ids(2, 9)
    model = llama.LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32, quantizer=quantizer)
    assert type(model.model.layers[1].mlp.down_proj) is nn.Linear
    model.save_pretrained(tmp_path)
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        logits = model(ids).logits
        assert torch.equal(again(ids).logits, logits)
        torch.testing.assert_close(theirs(ids).logits, logits, rtol=1e-4, atol=1e-4)


def test_plain_weights_without_zero_points(tmp_path: Path) -> None:
    """What a weight is to be rounded by is not made up."""
    save_uncompressed("W4A16_ASYM", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight_zero_point"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"expected plain weights.* a layer has weight, weight_scale"):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path)


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
