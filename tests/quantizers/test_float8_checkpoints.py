"""FP8 checkpoints as others write them: every form of scale that there is, read as transformers does; damaged ones refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from oracle.quantization import inputs
from quantizers.files import as_bytes
from safetensors.torch import load_file, save_file
from torch import Tensor

import unibody

WHOLE = {"hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 1}
CUT = {"hidden_size": 192, "intermediate_size": 320, "num_hidden_layers": 1}
"""Blocks of 128 end outside of these weights, as in DeepSeek's; transformers refuses them where it has no GPU."""
BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]}
TENSOR = {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}
UP = "model.layers.0.mlp.up_proj"


def exponents(scales: Tensor) -> Tensor:
    return (scales.log2() + 127).to(torch.uint8)


FORMS: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "float32": (BLOCKS, lambda scales: scales),
    "bfloat16": (BLOCKS, lambda scales: scales.bfloat16()),
    "powers of two": (BLOCKS | {"scale_fmt": "ue8m0"}, lambda scales: scales),
    "exponents": (BLOCKS | {"scale_fmt": "ue8m0"}, lambda scales: scales.to(torch.float8_e8m0fnu)),
    "bytes": (BLOCKS | {"scale_fmt": "ue8m0"}, exponents),
    "mxfp8": (BLOCKS | {"scale_fmt": "ue8m0", "weight_block_size": [1, 32]}, exponents),
    "one": (TENSOR, lambda scales: scales.bfloat16()),
    "one in a row": (TENSOR, lambda scales: scales.view(1)),
    "one in a matrix": (TENSOR, lambda scales: scales.view(1, 1)),
}


def write(folder: Path, settings: dict[str, Any], form: Callable[[Tensor], Tensor], **sizes: int) -> dict[str, Tensor]:
    """A checkpoint of these settings in the folder, and the weights that its codes and scales stand for."""
    inputs.llama(**sizes).save_pretrained(folder)
    tensors, weights = load_file(folder / "model.safetensors"), {}
    for name in [name for name in tensors if "proj" in name]:
        weight = tensors[name]
        height, width = settings["weight_block_size"] or weight.shape
        scales = torch.empty(-(-weight.shape[0] // height), -(-weight.shape[1] // width))
        codes, expected = torch.empty_like(weight, dtype=torch.float8_e4m3fn), torch.empty_like(weight)
        for row, column in torch.cartesian_prod(*map(torch.arange, scales.shape)).tolist():
            block = slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)
            scale = scales[row, column] = 2 ** (weight[block].abs().max() / 448).log2().ceil()
            codes[block] = (weight[block] / scale).to(torch.float8_e4m3fn)
            expected[block] = codes[block].float() * scale
        scales = scales if settings["weight_block_size"] else scales.view(())
        tensors[name], tensors[f"{name}_scale_inv"], weights[name] = codes, form(scales), expected
        if settings["activation_scheme"] == "static":
            tensors[name.replace("weight", "activation_scale")] = torch.tensor(0.02)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": settings}))
    return weights


@pytest.mark.parametrize("sizes", [WHOLE, CUT], ids=["whole", "cut"])
@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, sizes: dict[str, int], tmp_path: Path) -> None:
    """The weights are what codes and scales stand for, and transformers' own; the layers multiply by these; what is saved
    again is the same, to the bit.
    """
    settings, stored = FORMS[form]
    weights = write(tmp_path, settings, stored, **sizes)
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    x = inputs.activations(3, sizes["hidden_size"])
    layer = model.get_submodule(UP)
    rounded = layer.read_inputs(x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), rounded @ weights[f"{UP}.weight"].T, rtol=1e-4, atol=1e-4)
        model.save_pretrained(tmp_path / "again")
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path, tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(as_bytes(before[name]), as_bytes(after[name])) for name in before)
    dequantized = model.hf_quantizer.dequantize(model).state_dict()
    assert all(torch.equal(dequantized[name], weight) for name, weight in weights.items())
    if sizes is WHOLE:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).state_dict()
        assert all(torch.equal(theirs[name], dequantized[name]) for name in theirs)


def lose_scale(tensors: dict[str, Tensor]) -> None:
    del tensors[f"{UP}.weight_scale_inv"]


def widen(tensors: dict[str, Tensor]) -> None:
    tensors[f"{UP}.weight"] = tensors[f"{UP}.weight"].bfloat16()


def convert(tensors: dict[str, Tensor]) -> None:
    tensors[f"{UP}.weight"] = tensors[f"{UP}.weight"].float().to(torch.float8_e5m2)


def lose_all(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.endswith("_scale_inv")]:
        del tensors[name]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_scale, rf"{UP}\.weight is float8_e4m3fn \[384, 256\] and has no {UP}\.weight_scale_inv beside it"),
        (widen, rf"{UP}\.weight is bfloat16 \[384, 256\], expected .*'float8_e4m3fn \[384, 256\]'"),
        (convert, rf"{UP}\.weight is float8_e5m2 \[384, 256\], expected .*'float8_e4m3fn \[384, 256\]'"),
        (
            lose_all,
            r"finds no layer to pack in LlamaForCausalLM: the checkpoint has no weight_scale_inv of its linear",
        ),
    ],
)
def test_damaged(damage: Callable[[dict[str, Tensor]], None], message: str, tmp_path: Path) -> None:
    """A weight without its scales, and bits of another type, are no weights."""
    write(tmp_path, BLOCKS, lambda scales: scales, **WHOLE)
    tensors = load_file(tmp_path / "model.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path)


OTHERS = {"weight_scale_inv": "weight_scale", "activation_scale": "input_scale"}
MANY = r"the checkpoint has input_scale, weight_scale, .* rename input_scale to activation_scale, weight_scale to weight_scale_inv"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (OTHERS, MANY + ".* set weight_block_size to null"),
        (
            {"activation_scale": "input_scale"},
            "the checkpoint has input_scale, .* rename input_scale to activation_scale",
        ),
    ],
)
def test_names_of_others(names: dict[str, str], message: str, tmp_path: Path) -> None:
    """AutoFP8's names, which transformers reports as unexpected, are refused; the remedy makes the checkpoint that it reads."""
    weights = write(tmp_path, TENSOR, lambda scales: scales, **WHOLE)
    file = tmp_path / "model.safetensors"

    def rename(found: dict[str, str]) -> None:
        ends = {name: name.rpartition(".")[2] for name in load_file(file)}
        tensors = {name.removesuffix(end) + found.get(end, end): load_file(file)[name] for name, end in ends.items()}
        save_file(tensors, file, metadata={"format": "pt"})

    rename(names)
    _, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert {name.rpartition(".")[2] for name in report["unexpected_keys"]} == {*names.values()}
    with pytest.raises(ValueError, match=message):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    rename({theirs: ours for ours, theirs in names.items()})
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    dequantized = model.hf_quantizer.dequantize(model).state_dict()
    assert all(torch.equal(dequantized[name], weight) for name, weight in weights.items())


def test_static_scales_are_learned(tmp_path: Path) -> None:
    """From the inputs of the dequantized model, which is what transformers runs without a GPU: none is rounded before. Without
    samples they are 1, and that is said. What is saved has them.
    """
    inputs.llama(**WHOLE).save_pretrained(tmp_path / "plain")
    with pytest.warns(
        UserWarning, match=r"static: the scales of inputs are 1 until calibrate\(model\) has learned them"
    ):
        model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=TENSOR)
    model.save_pretrained(tmp_path / "ones")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ones", dtype=torch.float32)
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "stored_tensors")}
    largest: dict[str, Tensor] = {}
    for name in layers:
        theirs.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name: largest.update(
                {name: torch.maximum(given[0].abs().max(), largest.get(name, given[0].abs().max()))}
            )
        )
    module = import_module(type(layers[UP]).__module__)
    with module.calibrate(model), torch.no_grad():
        for seed in (0, 1):
            expected = theirs(ids := inputs.token_ids(2, 9, seed)).logits
            torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-4)
    found = {name: layer.stored_tensors()["activation_scale"] for name, layer in layers.items()}
    for name, scale in found.items():
        torch.testing.assert_close(scale, largest[name] / 448, rtol=1e-5, atol=0)
    with torch.no_grad():
        assert not torch.allclose(model(ids).logits, expected, atol=1e-3), "inputs are rounded again"
    model.save_pretrained(tmp_path / "packed")
    stored = load_file(tmp_path / "packed/model.safetensors")
    assert all(torch.equal(stored[f"{name}.activation_scale"], scale) for name, scale in found.items())
    dynamic = unibody.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", quantization_config=TENSOR | {"activation_scheme": "dynamic"}
    )
    with (
        pytest.raises(ValueError, match="calibrate: no inputs of this model's layers have a static scale"),
        module.calibrate(dynamic),
    ):
        pass
