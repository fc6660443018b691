"""torchao against the package: tensors to the bit, outputs, files that transformers reads, and its, read by us."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchao.quantization as ao
import transformers
from oracle.quantization import inputs
from quantizers.files import as_bytes, generated
from quantizers.torchao_cases import CONFIGS
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import unibody

torchao, llama = generated("torchao"), generated("llama")
DTYPES = [torch.float32, torch.bfloat16]
WIDE = {"hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(autouse=True)
def any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao asks for a GPU before it rounds inputs to float8, which it does on a CPU, too."""
    monkeypatch.setattr("torchao.quantization.quant_api._check_hardware_support", lambda _: None)


def make_layer(weight: Tensor, kind: str, bias: Tensor | None = None) -> Any:
    config = torchao.TorchAoConfig(CONFIGS[kind])
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    layer = torchao.TorchAoHfQuantizer(config, pre_quantized=False).make_linear("layer", linear)
    layer.hold(layer.quantize(weight))
    return layer


def their_layer(weight: Tensor, kind: str, bias: Tensor | None = None) -> Any:
    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype))
    model[0].weight = nn.Parameter(weight.clone())
    if bias is not None:
        model[0].bias = nn.Parameter(bias.to(weight.dtype))
    if kind.startswith("float8_rows"):  # of other types than bfloat16 only by the class itself
        module, config = sys.modules[ao.Float8Tensor.from_hp.__func__.__module__], CONFIGS[kind]
        bounds = {f"hp_value_{end}": getattr(config, f"activation_value_{end}") for end in ("lb", "ub")}
        rounded = module.QuantizeTensorToFloat8Kwargs(granularity=ao.PerRow(), **bounds)
        options = {"granularity": ao.PerRow(), "mm_config": config.mm_config, "act_quant_kwargs": rounded}
        model[0].weight = nn.Parameter(ao.Float8Tensor.from_hp(weight, **options), requires_grad=False)
    else:
        ao.quantize_(model, CONFIGS[kind])
    return model[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", CONFIGS)
def test_codes(kind: str, dtype: torch.dtype) -> None:
    weight = inputs.weight(64, 128).to(dtype)
    if not kind.startswith("float8"):  # torchao divides zero by zero there
        weight[3] = 0
    layer, theirs = make_layer(weight, kind), their_layer(weight, kind).weight
    stored = layer.state_dict()
    for name in ("qdata", "scale", "zero_point"):
        expected = getattr(theirs, name, None)
        if expected is not None:
            found = stored[f"_weight_{name}"]
            assert found.dtype == expected.dtype, name
            assert torch.equal(as_bytes(found), as_bytes(expected.reshape(found.shape))), name
    eps = 1e-6 if dtype == torch.float32 else 8e-3
    torch.testing.assert_close(layer.dequantize(), theirs.dequantize().float(), rtol=eps, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("kind", CONFIGS)
def test_outputs(kind: str, batch: int, dtype: torch.dtype) -> None:
    weight, bias = inputs.weight(64, 128).to(dtype), inputs.bias(64)
    layer, theirs = make_layer(weight, kind, bias), their_layer(weight, kind, bias)
    x = inputs.activations(batch, 128).to(dtype)
    with torch.no_grad():
        found, expected = layer(x), theirs(x)
    assert found.dtype == dtype
    eps = 1e-5 if dtype == torch.float32 else 1.5e-2
    assert (found - expected).abs().max() <= eps * expected.abs().max(), layer.kernel
    assert torch.equal(layer(x.view(1, batch, 128))[0], layer(x))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    inputs.llama(**WIDE).save_pretrained(folder)
    return folder


def quantized(plain: Path, quant_type: Any, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    config = torchao.TorchAoConfig(quant_type, **options)
    quantizer = torchao.TorchAoHfQuantizer(config, pre_quantized=False)
    return llama.LlamaForCausalLM.from_pretrained(plain, dtype=dtype, quantizer=quantizer)


def read_header(folder: Path) -> dict[str, Any]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        found = {name: json.loads(text) for name, text in file.metadata().items() if name != "format"}
    for entry in found.values():
        if isinstance(entry, dict) and "_tensor_data_names" in entry:
            entry["_tensor_data_names"].sort()
    found["tensor_names"].sort()
    return found


@pytest.mark.parametrize(
    "kind",
    [
        *("int8", "int8_groups", "int8_dynamic", "int4_asymmetric", "intx3", "8da4w", "float8", "float8_inputs"),
        *("int8_tensor", "int8_dynamic_tensors", "int8_dynamic_reduced", "int8_dynamic_asymmetric", "float8_groups"),
        *("float8_tensor", "float8_e5m2_inputs", "float8_bounds"),
    ],
)
def test_checkpoint(kind: str, plain: Path, tmp_path: Path) -> None:
    """transformers reads what we save, we read what it saves, the tensors, headers and logits are the same."""
    # Of integers' products, the sums must be those of integers: near ties of later layers would round otherwise.
    kernel = "int8_product" if kind.startswith("int8_dynamic") else "torch"
    model, ids = quantized(plain, CONFIGS[kind], kernel=kernel), inputs.token_ids(2, 9)
    model.save_pretrained(tmp_path / "ours")
    given = transformers.TorchAoConfig(CONFIGS[kind])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32, quantization_config=given)
    theirs.save_pretrained(tmp_path / "theirs")
    first, second = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    assert first.keys() == second.keys()
    assert all(torch.equal(as_bytes(first[name]), as_bytes(second[name])) for name in first)
    assert read_header(tmp_path / "ours") == read_header(tmp_path / "theirs")
    written = [json.loads((tmp_path / side / "config.json").read_text()) for side in ("ours", "theirs")]
    assert written[0]["quantization_config"].pop("kernel") == kernel
    assert written[0]["quantization_config"] == written[1]["quantization_config"]
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        expected = theirs(ids).logits
        assert torch.equal(back(ids).logits, expected)
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-3, atol=1e-3)
        assert all(layer.kernel for layer in again.modules() if hasattr(layer, "stored_tensors"))
        again = again.hf_quantizer.dequantize(again)
        model = model.hf_quantizer.dequantize(model)
        assert torch.equal(again(ids).logits, model(ids).logits)
    model.save_pretrained(tmp_path / "dequantized")
    with safe_open(tmp_path / "dequantized/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("tie", [False, True])
def test_embeddings(tie: bool, tmp_path: Path) -> None:
    """Embedding and head get codes of their own, which torchao reads; tied ones only if they may become two."""
    inputs.llama(**WIDE, tie_word_embeddings=tie).save_pretrained(tmp_path / "plain")
    options = {"include_input_output_embeddings": True}
    if tie:
        with pytest.raises(ValueError, match="are tied: set untie_embedding_weights=True"):
            quantized(tmp_path / "plain", CONFIGS["int8_groups"], **options)
        options["untie_embedding_weights"] = True
    model = quantized(tmp_path / "plain", CONFIGS["int8_groups"], **options)
    assert type(model.model.embed_tokens) is torchao.TorchAoEmbedding
    assert type(model.lm_head) is torchao.TorchAoLinear
    model.save_pretrained(tmp_path / "packed")
    ids = inputs.token_ids(2, 9)
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "packed")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "packed", dtype=torch.float32)
    assert type(again.model.embed_tokens).__name__ == "TorchAoEmbedding"
    with torch.no_grad():
        logits = model(ids).logits
        assert torch.equal(again(ids).logits, logits)
        torch.testing.assert_close(theirs(ids).logits, logits, rtol=1e-4, atol=1e-4)
        dequantized = again.hf_quantizer.dequantize(again)
        assert type(dequantized.model.embed_tokens) is nn.Embedding
        torch.testing.assert_close(dequantized(ids).logits, logits, rtol=1e-4, atol=1e-4)


def test_gradients() -> None:
    layer = make_layer(inputs.weight(64, 128), "8da4w", inputs.bias(64))
    x = inputs.activations(4, 128).requires_grad_()
    layer(x).square().sum().backward()
    weight = layer.dequantize()
    expected = 2 * (x.detach() @ weight.t() + layer.bias.detach()) @ weight
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-4)
