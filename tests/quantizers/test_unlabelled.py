"""Packed checkpoints without a `quantization_config`: known by their keys, never loaded with random weights in their place."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from oracle.quantization import fixtures, inputs
from quantizers.files import generated
from safetensors.torch import load_file, save_file

import unibody

CHECKPOINTS = sorted(
    path.parent.relative_to(fixtures.FOLDER).as_posix() for path in fixtures.FOLDER.rglob("model.safetensors")
)
REMEDY = (
    r"holds \d+ layers packed, such as (model\.layers\.0\.|lm_head ).*pass the quantizer that reads it, quantizer="
)
IN_FULL = ("quark/llama-inputs-alone", "quark/llama-mxfp8-fake")  # their weights are whole, inputs are rounded


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A recorded checkpoint whose config.json does not say that it is quantized."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(fixtures.FOLDER / request.param, folder)
    file = folder / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values.pop("quantization_config", None)
    file.write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.mark.parametrize("folder", [name for name in CHECKPOINTS if name not in IN_FULL], indirect=True)
def test_what_no_quantizer_reads_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=REMEDY):
        generated("llama").LlamaForCausalLM.from_pretrained(folder)
    if not {"quanto_qmap.json", "quantize_config.json"} & {path.name for path in folder.iterdir()}:
        with pytest.raises(ValueError, match=REMEDY):
            unibody.AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("folder", IN_FULL, indirect=True)
def test_scales_of_whole_weights_are_warned_of(folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"has weights without a use: .*down_proj\.(input|weight)_scale"):
        generated("llama").LlamaForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("folder", [name for name in CHECKPOINTS if name.startswith("quanto/")], indirect=True)
def test_optimum_quantos_own_form(folder: Path, request: pytest.FixtureRequest) -> None:
    """The map beside the weights says what they are: optimum-quanto's logits, and what does not fit the map is refused."""
    name = request.node.callspec.params["folder"]
    values = fixtures.load(f"{name}/values").tensors
    model = unibody.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = model(values["input_ids"].long()).logits
    torch.testing.assert_close(logits, values["logits"], rtol=1e-4, atol=1e-4)
    assert model.config.quantization_config["activations"] == ("int8" if "activations" in name else None)
    with pytest.raises(ValueError, match="is quantized with quanto, and quantization_config asks for hqq"):
        unibody.AutoModelForCausalLM.from_pretrained(folder, quantization_config=unibody.HqqConfig())
    file = folder / "quanto_qmap.json"
    entries = json.loads(file.read_text(encoding="utf-8"))
    first = next(iter(entries))
    for changed, message in (
        ({**entries, first: {"weights": "qint2", "activations": "none"}}, r"q_proj\.\w+\S* is .*, expected .*_shift"),
        (
            {**entries, first: {"weights": "qint3", "activations": "none"}},
            "weights is 'int3', expected one of 'float8'",
        ),
        (
            {**entries, first: {"weights": "qint4"}},
            r"is no map of layers to their types: .*q_proj has {'weights': 'qint4'}",
        ),
        ({**entries, first: "qint4"}, "is no map of layers to their types: .*q_proj has 'qint4'"),
        ({}, r"quanto_qmap\.json names no layers: fetch it again"),
    ):
        file.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            unibody.AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("method", ["fp8", "bitnet", "quanto"])
@pytest.mark.parametrize("stored", ["fp8", "fbgemm_fp8", "eetq", "bitnet"])
def test_codes_are_not_quantized_again(stored: str, method: str, tmp_path: Path) -> None:
    """A packed checkpoint that does not say so is no plain one, whose weights a method rounds."""
    inputs.llama(hidden_size=128, num_hidden_layers=1).save_pretrained(tmp_path / "plain")
    model = unibody.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", quantization_config={"quant_method": stored}
    )
    model.save_pretrained(tmp_path / "packed")
    file = tmp_path / "packed/config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    del values["quantization_config"]
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"_proj\.weight(_scale(s|_inv)?)? is .*, expected nothing but a plain weight"
    ):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "packed", quantization_config={"quant_method": method})


@pytest.mark.parametrize("method", ["fp8", "eetq", "hqq"])
def test_sizes_are_those_of_the_configuration(method: str, tmp_path: Path) -> None:
    """Also where the weight is rounded while it is read."""
    inputs.llama(hidden_size=128, intermediate_size=256, num_hidden_layers=1).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"intermediate_size": 128}), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"_proj\.weight is float32 \[.*256.*\], expected nothing but a plain weight \["
    ):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config={"quant_method": method})


@pytest.mark.parametrize("folder", ["gptqmodel/llama-4bit-asym-desc_act-v2", "autoawq/llama-gemm-g32"], indirect=True)
def test_settings_in_a_file_of_their_own(folder: Path, request: pytest.FixtureRequest) -> None:
    """As AutoGPTQ and AutoAWQ once wrote them, beside a config.json that does not know of them."""
    name = request.node.callspec.params["folder"]
    values = fixtures.load(f"{name}/values").tensors
    if name.startswith("autoawq"):
        old = {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}
        (folder / "quant_config.json").write_text(json.dumps(old), encoding="utf-8")
    model = unibody.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = model(values["input_ids"].long()).logits
    torch.testing.assert_close(logits, values["logits"], rtol=1e-4, atol=1e-4)
    assert model.config.quantization_config["group_size"] == (32 if name.startswith("autoawq") else 64)


@pytest.mark.parametrize("weights", ["qint8", "qint4", "qint2", "qfloat8"])
def test_what_optimum_quanto_saves(weights: str, tmp_path: Path) -> None:
    """As it is today, each of its types."""
    from optimum import quanto

    inputs.llama().save_pretrained(tmp_path / "plain")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    theirs = quanto.QuantizedModelForCausalLM.quantize(plain, weights=getattr(quanto, weights), exclude="lm_head")
    theirs.save_pretrained(tmp_path / "packed")
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "packed", dtype=torch.float32)
    ids = inputs.token_ids(2, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("marker", ["codes", "weight_packed", "weight._data"])
def test_the_base_model_and_single_layers(marker: str, tmp_path: Path) -> None:
    """With or without the prefix of the base model, and one layer alone."""
    model = inputs.llama()
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[f"model.layers.0.mlp.up_proj.{marker}"] = tensors.pop("model.layers.0.mlp.up_proj.weight").to(torch.int8)
    for prefix in ("model.", ""):
        stored = {key.removeprefix("model.") if not prefix else key: tensor for key, tensor in tensors.items()}
        save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(
            ValueError, match=rf"holds 1 layers packed, such as .*layers\.0\.mlp\.up_proj \({marker}\)"
        ):
            unibody.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_what_is_plain_still_loads(tmp_path: Path) -> None:
    """A missing weight and keys of another head are warned of, as ever; float8 without scales are numbers."""
    model = inputs.llama()
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    tensors["score.dense.weight"] = tensors.pop("lm_head.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = unibody.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert len(caught) == 2
    assert torch.equal(found.model.layers[0].mlp.up_proj.weight, tensors[name].float())
