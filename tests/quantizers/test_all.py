"""What holds for every method alike: memory, names of operators, quantization with `unibody quantize`, loading by itself, in shards."""

from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from oracle.inputs import token_ids
from quantizers.files import generated
from torch import nn

import unibody
from benchmarks.quantizers import EXAMPLES, PAGE, layer_classes, pages
from unibody import cli
from unibody.generated.registry import QUANTIZERS
from unibody.quantize import quantize
from unibody.quantize_options import read_options

DATASET = "[[1, 5, 9, 2, 8, 3, 4, 6], [7, 1, 3, 2, 5, 5, 6, 1]]"
QUARK = '{"weight": {"dtype": "uint4", "qscheme": "per_group", "group_size": 64, "symmetric": false}}'
METHODS: dict[str, tuple[str, ...]] = {
    "bitsandbytes_8bit": ("--load-in-8bit",),
    "bitsandbytes_4bit": ("--load-in-4bit", "--bnb-4bit-compute-dtype", "bfloat16", "--bnb-4bit-use-double-quant"),
    "gptq": ("--bits", "4", "--group-size", "64", "--dataset", DATASET),
    "awq": ("--group-size", "64", "--dataset", DATASET),
    "hqq": ("--group-size", "64"),
    "quanto": ("--weights", "int4"),
    "fp8": (),
    "bitnet": (),
    "fbgemm_fp8": (),
    "eetq": (),
    "quark": ("--global-quant-config", QUARK, "--exclude", '["lm_head"]'),
    "torchao": ("--quant-type", "int8_dynamic_activation_int4_weight"),
    "compressed-tensors": ("--config-groups", '{"W4A16": ["Linear"]}', "--ignore", '["lm_head"]'),
    "auto-round": ("--group-size", "64", "--iters", "2", "--dataset", DATASET),
}


@pytest.fixture(scope="module", params=METHODS)
def packed(request: pytest.FixtureRequest, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "packed"
    method = request.param.removesuffix("_8bit").removesuffix("_4bit")
    assert quantize(str(plain), method, folder, METHODS[request.param], "bfloat16") == 0
    return folder


def test_every_method_is_here() -> None:
    """But AQLM, which reads what others quantized (`test_aqlm.py`)."""
    assert {name for entry in QUANTIZERS.values() for name in entry["quantizers"]} == METHODS.keys() | {"aqlm"}


def layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "stored_tensors")]


def held(model: Any) -> int:
    """Bytes of all tensors that the packed layers hold, wherever."""
    found = {}
    for layer in layers(model):
        for value in (*layer.buffers(), *vars(layer).values()):
            for tensor in value.values() if isinstance(value, dict) else [value]:
                if isinstance(tensor, torch.Tensor):
                    found[tensor.data_ptr()] = tensor.nbytes
    return sum(found.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_memory(packed: Path, dtype: torch.dtype) -> None:
    """Packed layers hold what the file holds, and 10 % more at most, also after ten passes: no weight is kept dequantized."""
    model = unibody.AutoModelForCausalLM.from_pretrained(packed, dtype=dtype)
    assert len(layers(model)) == 14
    stored = sum(tensor.nbytes for layer in layers(model) for tensor in layer.stored_tensors().values())
    assert held(model) <= 1.1 * stored
    with torch.no_grad():
        for _ in range(10):
            model(token_ids() % 64)
    assert held(model) <= 1.1 * stored


def test_what_a_device_map_is_planned_with(packed: Path, plain: Path) -> None:
    """Before any weight is read, the layers count as the bytes that they will hold: of a packed checkpoint, and of one to be packed."""
    model = unibody.AutoModelForCausalLM.from_pretrained(packed)
    expected = sum(tensor.nbytes for layer in layers(model) for tensor in layer.stored_tensors().values())
    settings = json.loads((packed / "config.json").read_text())["quantization_config"]
    keys = {True: list(model.state_dict()), False: []}
    for is_packed in (True, False):
        quantizer = unibody.AutoHfQuantizer.from_config(settings, pre_quantized=is_packed)
        if quantizer.requires_calibration and not is_packed:
            continue
        with torch.device("meta"):
            empty = type(model)(unibody.LlamaConfig.from_pretrained(plain))
        quantizer.preprocess_model(model=empty, dtype=torch.bfloat16, loaded_keys=keys[is_packed])
        planned = sum(tensor.nbytes for layer in layers(empty) for tensor in layer.buffers())
        assert planned == pytest.approx(expected, rel=0.1), is_packed


def test_shards_and_mixed_layers(packed: Path, tmp_path: Path) -> None:
    """A model saved in shards is the model; its head and norms are plain."""
    model = unibody.AutoModelForCausalLM.from_pretrained(packed)
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert type(model.lm_head) is nn.Linear
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(token_ids() % 64).logits, model(token_ids() % 64).logits)


def test_inspection(packed: Path) -> None:
    """`unibody inspect` names the method, counts layers and bits, and says which kernel runs these here, as the model's layers do."""
    written = json.loads((packed / "config.json").read_text())["quantization_config"]
    result = CliRunner().invoke(cli.unibody, ["inspect", str(packed), "--device", "cpu", "--format", "json"])
    assert result.exit_code == 0, result.output
    found, model = json.loads(result.output), unibody.AutoModelForCausalLM.from_pretrained(packed)
    assert found["method"] == written["quant_method"]
    assert sum(use["layers"] for use in found["kernels"]) == 14
    assert {(use["layer"], use["kernel"]) for use in found["kernels"]} == {
        (type(layer).__name__, layer.kernel) for layer in layers(model)
    }
    weights = sum(layer.in_features * layer.out_features for layer in layers(model))
    stored = sum(tensor.nbytes for layer in layers(model) for tensor in layer.stored_tensors().values())
    assert found["bits_per_weight"] == pytest.approx(8 * stored / weights)


def test_dequantized_model_is_plain(packed: Path, tmp_path: Path) -> None:
    model = unibody.AutoModelForCausalLM.from_pretrained(packed, dtype=torch.float32)
    plain = model.hf_quantizer.dequantize(model)
    assert not layers(plain)
    plain.save_pretrained(tmp_path)
    again = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(token_ids() % 64).logits, plain(token_ids() % 64).logits)


@torch.no_grad()
def test_all_inputs_that_linear_layers_take(packed: Path) -> None:
    """One row without others, none, rows with others between them, columns: what the same rows give one after the other; no other width."""
    model = unibody.AutoModelForCausalLM.from_pretrained(packed)
    layer = model.model.layers[0].mlp.down_proj
    x = torch.randn(4, 3, 512, dtype=torch.bfloat16)
    for rows in (x[0, 0], x[:, -1:], x[:, 0], x.transpose(0, 1), x.mT.contiguous().mT, x[:0], x[:, :0], x[1]):
        expected = layer(rows.contiguous().view(-1, 512)) if rows.numel() else rows.new_empty(0, 256)
        torch.testing.assert_close(layer(rows), expected.view(*rows.shape[:-1], 256))
    for wrong in (x[..., :256], torch.cat((x, x), -1)):
        with pytest.raises(ValueError, match=r"expected \[..., 512\]"):
            layer(wrong)


def test_states_are_exchanged(packed: Path) -> None:
    """A model of the same kind, with other weights, takes the state of this one, whatever kernels they have run with."""
    model, other = (unibody.AutoModelForCausalLM.from_pretrained(packed) for _ in range(2))
    for layer in layers(other):
        layer.hold(layer.quantize(torch.randn(layer.out_features, layer.in_features, dtype=torch.bfloat16)))
    ids, state = token_ids() % 64, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        assert not torch.equal(other(ids).logits, model(ids).logits)
        other.load_state_dict(state)
        assert torch.equal(other(ids).logits, model(ids).logits)
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())


def test_gradients_pass_through(packed: Path) -> None:
    """Adapters below packed layers can be trained: the gradient of the embedding is that of the dequantized model.

    BitNet rounds inputs in training too, and gradients pass straight through: so do those of the dequantized model here.
    """
    bitnet = generated("bitnet")

    def rounded(layer: Any, arguments: Any) -> Any:
        codes, factors = bitnet.round_tokens(arguments[0])
        return bitnet.straight_through(arguments[0], codes / factors)

    found = []
    for plain in (False, True):
        model = unibody.AutoModelForCausalLM.from_pretrained(packed, dtype=torch.float32)
        names = [name for name, module in model.named_modules() if type(module).__name__ == "BitLinear"]
        model = model.hf_quantizer.dequantize(model) if plain else model
        for name in names if plain else ():
            model.get_submodule(name).register_forward_pre_hook(rounded)
        for layer in layers(model):
            layer.compute_dtype = None if layer.compute_dtype is None else torch.float32
        model(token_ids() % 64).logits.square().sum().backward()
        found.append(model.model.embed_tokens.weight.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4 * float(found[1].abs().max()))


def test_copies(packed: Path, tmp_path: Path) -> None:
    """A copy computes the same; in another type it is saved as it computes then, twice in one folder, and changes nothing here."""
    model = unibody.AutoModelForCausalLM.from_pretrained(packed)
    ids = token_ids() % 64
    with torch.no_grad():
        expected = model(ids).logits
        assert torch.equal(copy.deepcopy(model)(ids).logits, expected)
        moved = copy.deepcopy(model).half()
        for size in ("100KB", "5GB"):
            moved.save_pretrained(tmp_path, max_shard_size=size)
        read = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert (read.dtype, list(tmp_path.glob("*.safetensors"))) == (torch.float16, [tmp_path / "model.safetensors"])
        assert torch.equal(read(ids).logits, moved(ids).logits)
        assert torch.equal(model(ids).logits, expected)


def test_all_together() -> None:
    """All files in one process register operators in namespaces of their own, so that none runs another's kernel."""
    names = [entry["module"].removeprefix("quantizer_") for entry in QUANTIZERS.values()]
    files = {name: generated(name) for name in names}
    spaces = [
        {str(op._namespace) for op in vars(file).values() if isinstance(op, torch._library.custom_ops.CustomOpDef)}
        for file in files.values()
    ]
    assert all(len(space) <= 1 for space in spaces)
    used = [next(iter(space)) for space in spaces if space]
    assert len(used) == len(set(used)) > 0


def test_nothing_is_left_to_a_layer_that_lacks_it() -> None:
    """Every public layer has what its bases leave to it: methods that they only declare, and those that raise NotImplementedError there.

    AQLM's has no `quantize`: it reads what others quantized, and plain weights are refused before a layer is asked.
    """
    for entry in QUANTIZERS.values():
        for layer_class in layer_classes(generated(entry["module"].removeprefix("quantizer_"))):
            hints = {
                name: hint
                for base in layer_class.__mro__
                for name, hint in vars(base).get("__annotations__", {}).items()
            }
            declared = {name for name, hint in hints.items() if str(hint).startswith("Callable")}
            declared -= {"quantize"} if entry["config"] == "AqlmConfig" else set()
            for method in (*declared, *dir(layer_class)):
                code = getattr(getattr(layer_class, method), "__code__", None)
                assert "NotImplementedError" not in getattr(code, "co_names", ()), (layer_class, method)


def test_the_pages() -> None:
    """docs/quantization.md and docs/quantizers say what the files say: `python -m benchmarks.quantizers --write`."""
    found = pages()
    assert {file: file.read_text(encoding="utf-8") for file in found} == found
    assert {file.stem for file in (PAGE.parent / "quantizers").glob("*.md")} == QUANTIZERS.keys()


@pytest.mark.parametrize("method", EXAMPLES)
def test_the_examples_of_the_pages(method: str) -> None:
    """Their options are those of the configuration."""
    options = [DATASET if option == "calibration.txt" else option for option in shlex.split(EXAMPLES[method])]
    config = read_options(method, options)
    assert type(config).__name__ == QUANTIZERS[method]["config"]
