"""AQLM against its package, recorded: weights to the bit, outputs, logits of transformers with its layers."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from oracle.quantization import fixtures, inputs
from quantizers.files import generated
from safetensors.torch import load_file
from torch import Tensor, nn

import unibody
from unibody.quantize import quantize

aqlm = generated("aqlm")
LAYERS = {  # in_group_size, out_group_size, num_codebooks, nbits_per_codebook
    "1x8": (8, 1, 1, 8),
    "2x8": (8, 1, 2, 8),
    "1x12": (8, 1, 1, 12),
    "3x5": (4, 1, 3, 5),
    "1x16": (8, 1, 1, 16),
    "2x8-tiles": (4, 2, 2, 8),
}
CHECKPOINT = fixtures.FOLDER / "aqlm/llama"


def recorded(name: str) -> tuple[Any, dict[str, Tensor]]:
    """A layer of the recorded tensors, and all of them."""
    prefix, tensors = f"{name}/", fixtures.load("aqlm/layers").tensors
    found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    if "codebooks" not in found:  # the recording's seed
        found["codebooks"] = inputs.weight(2**16, 8, list(LAYERS).index(name)).view(1, -1, 1, 8).half()
    linear = nn.Linear(64, 32)
    linear.bias = nn.Parameter(inputs.bias(32))
    layer = aqlm.AqlmLinear(linear, aqlm.AqlmConfig(*LAYERS[name]))
    assert {key: found[key].dtype for key in layer.empty_tensors()} == {
        key: value.dtype for key, value in layer.empty_tensors().items()
    }
    layer.hold({key: found[key] for key in layer.empty_tensors()})
    return layer, found


@pytest.mark.parametrize("name", LAYERS)
def test_weights(name: str) -> None:
    layer, found = recorded(name)
    assert torch.equal(layer.dequantize(), found["weight"])


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name, (_, height, *_) in LAYERS.items() if height == 1])
def test_outputs(name: str) -> None:
    """By products with the codebooks that are looked up, and by the weight."""
    layer, found = recorded(name)
    x = inputs.activations(3, 64)
    torch.testing.assert_close(layer(x), found["y"])
    assert layer.kernel == "codebook_cpu"
    torch.testing.assert_close(aqlm.dequantize_matmul(layer, x), found["y"])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("name", LAYERS)
def test_batches(name: str, batch: int, dtype: torch.dtype) -> None:
    """As the recorded weight multiplies."""
    layer, found = recorded(name)
    x = inputs.activations(batch, 64).to(dtype).view(batch, 1, 64)
    expected = x.float() @ found["weight"].T + inputs.bias(32)
    y = layer(x)
    assert (y.dtype, y.shape) == (dtype, (batch, 1, 32))
    assert (y.float() - expected).norm() <= 2 * torch.finfo(dtype).eps * expected.norm()


def test_gradients() -> None:
    layer, found = recorded("2x8")
    x = inputs.activations(3, 64).requires_grad_()
    layer(x).square().sum().backward()
    y = x.detach() @ found["weight"].T + inputs.bias(32)
    torch.testing.assert_close(x.grad, 2 * y @ found["weight"])
    torch.testing.assert_close(layer.bias.grad, 2 * y.sum(0))


def packed(model: Any) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "stored_tensors")}


@torch.no_grad()
def test_checkpoint(tmp_path: Path) -> None:
    """transformers' logits; a layer that is plain in the file stays so; saved in shards, the same tensors and configuration."""
    values = fixtures.load("aqlm/llama/values").tensors
    model = unibody.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    assert len(packed(model)) == 13
    assert type(model.model.layers[0].self_attn.v_proj) is nn.Linear
    torch.testing.assert_close(model(values["ids"]).logits, values["logits"], rtol=1e-4, atol=1e-4)
    for layer in packed(model).values():  # nothing is held beside the checkpoint's tensors
        tensors = [*layer.buffers(), *(value for value in vars(layer).values() if isinstance(value, Tensor))]
        assert sum(t.nbytes for t in tensors) == sum(t.nbytes for t in layer.stored_tensors().values())
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    first, second = (
        {key: value for file in folder.glob("model*.safetensors") for key, value in load_file(file).items()}
        for folder in (CHECKPOINT, tmp_path)
    )
    assert first.keys() == second.keys()
    for name, tensor in second.items():
        assert torch.equal(first[name].to(tensor.dtype), tensor)
        assert first[name].dtype == tensor.dtype or not name.endswith((".codes", ".codebooks", ".scales"))
    configs = [json.loads((folder / "config.json").read_text()) for folder in (CHECKPOINT, tmp_path)]
    assert configs[0]["quantization_config"] == configs[1]["quantization_config"]
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(values["ids"]).logits, model(values["ids"]).logits)
    plain = model.hf_quantizer.dequantize(model)
    assert not packed(plain)
    torch.testing.assert_close(plain(values["ids"]).logits, values["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("field", ["in_group_size", "out_group_size", "num_codebooks", "nbits_per_codebook"])
def test_sizes_are_the_checkpoints(field: str, tmp_path: Path) -> None:
    """Another number in config.json is refused, by the tensor that it does not fit."""
    for file in CHECKPOINT.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    described = json.loads((tmp_path / "config.json").read_text())
    described["quantization_config"][field] = 4
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"proj\.(codes|codebooks|scales) is .*expected .*see quantization_config"):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_plain_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs.llama().save_pretrained(tmp_path)
    message = "AQLM's codebooks are learned by github.com/Vahe1994/AQLM: load a checkpoint that it wrote"
    with pytest.raises(ValueError, match=message):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=unibody.AqlmConfig())
    assert quantize(str(tmp_path), "aqlm", tmp_path / "out", []) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_packages_kernels_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the recorded signature; what they get is what its layers give them."""

    def get_forward_pass_kernel(codebooks: Tensor, optimize_for_training: bool) -> Any:
        def product(x: Tensor, codes: Tensor, codebooks: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
            assert x.dtype == codebooks.dtype == scales.dtype
            stored = {"codes": codes, "codebooks": codebooks, "scales": scales}
            return nn.functional.linear(x, layer.unpack(stored, x.dtype), bias)

        return product

    signature = fixtures.load("aqlm/layers").facts["signature"]
    assert list(inspect.signature(get_forward_pass_kernel).parameters) == ["codebooks", "optimize_for_training"]
    assert signature.startswith("(codebooks: torch.Tensor, optimize_for_training: bool) -> ")
    module = ModuleType("aqlm.inference_kernels")
    module.get_forward_pass_kernel = get_forward_pass_kernel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "aqlm", ModuleType("aqlm"))
    monkeypatch.setitem(sys.modules, "aqlm.inference_kernels", module)
    layer, _ = recorded("2x8")
    x = inputs.activations(3, 64).half()
    with torch.no_grad():
        torch.testing.assert_close(aqlm.aqlm_matmul(layer, x), aqlm.dequantize_matmul(layer, x), rtol=2e-2, atol=2e-2)
