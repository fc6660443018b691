"""GPTQ's format against gptqmodel: its packed words to the bit, its checkpoints with its logits."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.quantization import fixtures, inputs
from quantizers.files import generated
from safetensors.torch import load_file
from torch import nn

gptq, llama = generated("gptq"), generated("llama")
SOLVED, PACKED = fixtures.load("gptqmodel/solved").tensors, fixtures.load("gptqmodel/packed").tensors
LAYERS = sorted({name.rpartition("/")[0] for name in PACKED if name.endswith("/qweight")})
PACKED_TENSORS = ("qweight", "qzeros", "scales", "g_idx")
CHECKPOINTS = sorted(path.name for path in (fixtures.FOLDER / "gptqmodel").glob("llama-*"))


def packed_layer(name: str, version: str) -> Any:
    """A layer of the shape and format of a recorded one, without tensors."""
    bits, groups = int(name.partition("/")[0]), SOLVED[f"{name}/scales"].shape[1]
    outputs, columns = SOLVED[f"{name}/codes"].shape
    config = gptq.GPTQConfig(
        bits=bits,
        group_size=columns // groups,
        checkpoint_format=version,
        desc_act=True,
        act_group_aware=False,
        sym="/asym" not in name and "group_64" not in name,
    )
    layer = gptq.GPTQLinear(nn.Linear(columns, outputs, bias=False), config)
    layer.hold(layer.empty_tensors())
    return layer


def recorded(name: str, version: str) -> dict[str, torch.Tensor]:
    words = {key: PACKED[f"{name}/{key}"] for key in ("qweight", "scales", "g_idx")}
    return {**words, "qzeros": PACKED[f"{name}/qzeros{'_v1' if version == 'gptq' else ''}"]}


@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("name", LAYERS)
def test_words(name: str, version: str) -> None:
    """Codes, zero points and scales read from gptqmodel's words are its own, and make the same words."""
    layer, stored = packed_layer(name, version), recorded(name, version)
    read = layer.unpack_codes(stored)
    assert torch.equal(read.codes.int(), SOLVED[f"{name}/codes"].int())
    assert torch.equal(read.zeros.int(), SOLVED[f"{name}/zeros"].int())
    assert torch.equal(read.scales, SOLVED[f"{name}/scales"].half())
    assert torch.equal(read.groups, SOLVED[f"{name}/g_idx"].int())
    again = layer.pack_codes(read)
    assert again.keys() == stored.keys() == layer.empty_tensors().keys()
    for key, tensor in stored.items():
        assert torch.equal(again[key], tensor), key
        assert layer.empty_tensors()[key].shape == tensor.shape
        assert layer.empty_tensors()[key].dtype == tensor.dtype


@pytest.mark.parametrize("name", [name for name in LAYERS if f"{name}/dequantized" in PACKED])
def test_dequantized(name: str) -> None:
    layer = packed_layer(name, "gptq_v2")
    layer.hold(recorded(name, "gptq_v2"))
    expected = PACKED[f"{name}/dequantized"].T
    assert torch.equal(layer.dequantize(expected.dtype), expected)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint(name: str, tmp_path: Path) -> None:
    """gptqmodel's checkpoint gives its logits; saved, it is the same to the bit; dequantized, it computes the same."""
    folder = fixtures.FOLDER / "gptqmodel" / name
    values = fixtures.load(f"gptqmodel/{name}/values").tensors
    ids = values["input_ids"].long()
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    quantizer = gptq.GptqHfQuantizer(gptq.GPTQConfig.from_dict(settings))
    model = llama.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, quantizer=quantizer)
    with torch.no_grad():
        logits = model(ids).logits
        torch.testing.assert_close(logits, values["logits"], rtol=1e-4, atol=1e-4)
    assert len(gptq.packed_layers(model)) == 14
    model.save_pretrained(tmp_path)
    stored, saved = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    for key, tensor in saved.items():
        assert torch.equal(tensor, stored[key].to(tensor.dtype)), key
    assert all(
        torch.equal(saved[key], tensor) for key, tensor in stored.items() if key.rpartition(".")[2] in PACKED_TENSORS
    )
    plain = quantizer.dequantize(model)
    assert type(plain.model.layers[0].mlp.up_proj) is nn.Linear
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, logits, rtol=1e-5, atol=1e-5)


def test_the_cpu_kernel_and_its_layout(tmp_path: Path) -> None:
    """In bfloat16 torch's own kernel runs the layers; memory is that of the file, and what is saved the file's tensors."""
    folder = fixtures.FOLDER / "gptqmodel/llama-4bit-g32"
    quantizer = gptq.GptqHfQuantizer(gptq.GPTQConfig(bits=4, group_size=32))
    model = llama.LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantizer=quantizer)
    layers = gptq.packed_layers(model)
    assert {layer.kernel for layer in layers.values()} == {"int4pack_cpu"}
    ids = fixtures.load("gptqmodel/llama-4bit-g32/values").tensors["input_ids"].long()
    reference = llama.LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantizer=gptq.GptqHfQuantizer(gptq.GPTQConfig(4, group_size=32, kernel="torch"))
    )
    with torch.no_grad():
        found, expected = model(ids).logits.float(), reference(ids).logits.float()
    exact = fixtures.load("gptqmodel/llama-4bit-g32/values").tensors["logits"]
    assert (found - exact).std() < 1.5 * (expected - exact).std(), "no worse than bfloat16 itself, but for its scales"
    model.save_pretrained(tmp_path)
    stored, saved = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    for key, tensor in stored.items():
        assert torch.equal(saved[key], tensor if key.rpartition(".")[2] in PACKED_TENSORS else tensor.bfloat16()), key
    with torch.no_grad():
        model.float()(ids)
    assert {layer.kernel for layer in layers.values()} == {"torch"}, "another type of input, another kernel"


def test_gradients_reach_the_inputs() -> None:
    layer = gptq.GPTQLinear(nn.Linear(64, 32), gptq.GPTQConfig(bits=4, group_size=32))
    layer.hold(layer.quantize(torch.randn(32, 64)))
    x = torch.randn(3, 64, requires_grad=True)
    layer(x).square().sum().backward()
    weight, bias = layer.dequantize(), layer.bias
    other = x.detach().clone().requires_grad_()
    nn.functional.linear(other, weight, bias).square().sum().backward()
    torch.testing.assert_close(x.grad, other.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_outputs(bits: int, batch: int, dtype: torch.dtype) -> None:
    """Whatever kernel runs, the product with the dequantized weight in float64, as exactly as the type allows."""
    torch.manual_seed(bits)
    outputs = 32 if bits == 3 else 48
    layer = gptq.GPTQLinear(nn.Linear(96, outputs), gptq.GPTQConfig(bits=bits, group_size=32, sym=False)).to(dtype)
    layer.hold(layer.quantize(torch.randn(outputs, 96)))
    x = torch.randn(2, batch, 96).to(dtype)
    with torch.no_grad():
        found = layer(x)
        exact = nn.functional.linear(x.double(), layer.dequantize(torch.float64), layer.bias.double())
    assert (found.shape, found.dtype) == ((2, batch, outputs), dtype)
    bound = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    assert (found - exact).abs().max() <= bound * exact.abs().max()


def test_bad_checkpoints(tmp_path: Path) -> None:
    folder = fixtures.FOLDER / "gptqmodel/llama-4bit-g32"
    wrong = gptq.GptqHfQuantizer(gptq.GPTQConfig(bits=8, group_size=32))
    with pytest.raises(
        ValueError,
        match=r"q_proj.qweight is int32 \[8, 64\], expected .*'qweight': 'int32 \[16, 64\]'.*quantization_config",
    ):
        llama.LlamaForCausalLM.from_pretrained(folder, quantizer=wrong)
    full = inputs.llama()
    full.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="GptqHfQuantizer finds no layer to pack in LlamaForCausalLM"):
        llama.LlamaForCausalLM.from_pretrained(tmp_path, quantizer=gptq.GptqHfQuantizer(gptq.GPTQConfig(bits=4)))


def test_configuration() -> None:
    """The documented order of parameters; values and parameters that have no meaning are refused or warned of."""
    config = gptq.GPTQConfig(4, None, ["text"], 64, 0.2, True, False, False, "gptq_v2")
    assert (config.group_size, config.damp_percent, config.desc_act, config.sym) == (64, 0.2, True, False)
    assert (config.true_sequential, config.format) == (False, "gptq_v2")
    for case in fixtures.load_json("gptqmodel/config"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what changes nothing
            mine = gptq.GPTQConfig(**case["arguments"]).to_dict()
        more = {"kernel", "use_cuda_fp16", "use_exllama", "exllama_config"} & mine.keys()
        assert more <= {"kernel", *case["arguments"]}, "what 5.23 drops is kept if it is set"
        theirs = case["to_dict"] | {"dataset": None}  # of texts, the configuration keeps no copy
        assert {key: value for key, value in mine.items() if key not in more} == theirs
    for bad, message in (
        ({"bits": 5}, "bits is 5, expected one of 2, 3, 4, 8"),
        (
            {"bits": 4, "checkpoint_format": "marlin"},
            "checkpoint_format is 'marlin', expected one of 'gptq', 'gptq_v2'",
        ),
        ({"bits": 4, "group_size": 0}, r"group_size is 0, expected -1 \(a whole row\) or columns"),
        ({"bits": 4, "damp_percent": 1.5}, "damp_percent is 1.5, expected a value between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            gptq.GPTQConfig(**bad)
    for idle in (
        {"backend": "marlin"}, {"use_cuda_fp16": True}, {"use_exllama": True}, {"exllama_config": {"version": 2}},
        {"max_input_length": 2048}, {"module_name_preceding_first_block": ["model.embed_tokens"]},
    ):  # fmt: skip
        with pytest.warns(UserWarning, match=f"GPTQConfig: {next(iter(idle))} changes nothing"):
            gptq.GPTQConfig(bits=4, **idle)
    assert gptq.GPTQConfig(bits=4, backend="torch").kernel == "torch"
    assert gptq.GPTQConfig.from_dict_optimum(config.to_dict_optimum()) == config
    with pytest.warns(UserWarning, match="use_exllama changes nothing"):
        assert gptq.GPTQConfig.from_dict_optimum({"bits": 4, "disable_exllama": True}).use_exllama is False
    with pytest.raises(TypeError, match="unexpected keyword argument 'surprise'"):
        gptq.GPTQConfig(bits=4, surprise=1)


def test_auto_rounds_checkpoint_in_this_format() -> None:
    """auto-round writes 3 bits as GPTQ, with negative scales: its logits."""
    folder = fixtures.FOLDER / "auto-round/llama-tuned-gptq"
    values = fixtures.load("auto-round/llama-tuned-gptq/values").tensors
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    with pytest.warns(UserWarning, match="GPTQConfig keeps keys that change nothing: amp, autoround_version"):
        quantizer = gptq.GptqHfQuantizer(gptq.GPTQConfig.from_dict(settings))
    model = llama.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, quantizer=quantizer)
    with torch.no_grad():
        torch.testing.assert_close(model(values["input_ids"].long()).logits, values["logits"], rtol=1e-4, atol=1e-4)
    assert any((layer.scales < 0).any() for layer in gptq.packed_layers(model).values())
