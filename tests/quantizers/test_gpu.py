"""Packed layers and quantized models on a GPU: every kernel that fits it, against the row `torch` of its layer's table."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.inputs import token_ids
from quantizers import triton_cases
from quantizers.test_all import METHODS
from torch import Tensor

import unibody
from unibody.quantize import quantize

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU that it can use")

KINDS = {"groups": 54, "tables": 11, "eights": 16, "float8": 13}  # of triton_cases.py, and how many layers each has
CASES = [(kind, index) for kind, count in KINDS.items() for index in range(count)]
INPUTS = (  # type, numbers of rows, and the largest error in proportion: rounding of weights and outputs, on both sides
    (torch.bfloat16, (1, 2, 17, 64, 300), 1e-2),
    (torch.float16, (1, 17), 1.5e-3),
    (torch.float32, (1, 16), 1e-5),
)
COARSER = {
    "int4pack_cuda": 2e-2,  # rounds scales and offsets to bfloat16
    "bitsandbytes": 1e-3,  # of eight bits: rounds outputs to float16
}


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of 704 x 1056: many blocks, and the last of each not whole."""
    monkeypatch.setattr(triton_cases, "SCALE", 11)
    torch.manual_seed(0)


def layer_of(kind: str, index: int) -> Any:
    """A layer of triton_cases.py on the GPU, in the checkpoint's form, and the name of its Triton function."""
    packed, kernel = next(itertools.islice(getattr(triton_cases, kind)(), index, None))
    return packed.to("cuda"), f"{kernel}_matmul"


def module_of(layer: Any) -> Any:
    return sys.modules[type(layer).__module__]


def run_row(layer: Any, row: Any, x: Tensor) -> Tensor:
    """What a row of the table gives, with the weight in its layout."""
    layer.config.kernel = row.name
    layer.prepared = None
    with torch.no_grad():
        return layer(x)  # type: ignore[no-any-return]


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def fitting(layer: Any, dtype: torch.dtype) -> list[Any]:
    """The rows that can run a layer on the GPU."""
    why_not = module_of(layer).why_not
    return [row for row in layer.kernels if not why_not(row, layer, torch.device("cuda:0"), dtype)]


@pytest.mark.parametrize(("kind", "index"), CASES)
def test_every_row(kind: str, index: int, scaled: None) -> None:
    """Each row that fits gives the reference's values, and leaves the checkpoint's tensors as they were."""
    layer, triton = layer_of(kind, index)
    layer.config = copy.copy(layer.config)
    before, entries = {name: tensor.clone() for name, tensor in layer.state_dict().items()}, set()
    for dtype, counts, bound in INPUTS:
        rows = fitting(layer, dtype)
        entries |= {row.entry for row in rows}
        for count in counts:
            x = torch.randn(count, layer.in_features, device="cuda").to(dtype)
            expected = run_row(layer, triton_cases.reference_row(layer), x)
            for row in (row for row in rows if row.name != "torch"):
                found = run_row(layer, row, x)
                assert found.dtype == dtype
                assert found.shape == expected.shape
                limit = max(bound, COARSER.get(row.name, 0))
                assert difference(found, expected) < limit, (row.name, dtype, count)
    after = layer.state_dict()
    assert triton in entries
    assert all(torch.equal(triton_cases.as_bytes(before[name]), triton_cases.as_bytes(after[name])) for name in before)


def first_of_each_kernel() -> list[tuple[str, int]]:
    """A layer of every file and template."""
    tables = [("tables", index) for index in (0, 4, 8)]
    return [("groups", 0), ("groups", 1), *tables, ("eights", 0), ("eights", 1), ("float8", 0)]


@pytest.mark.parametrize(("kind", "index"), first_of_each_kernel())
@pytest.mark.parametrize("count", [1, 17])
def test_graphs(kind: str, index: int, count: int, scaled: None) -> None:
    """A layer can be captured in a CUDA graph, and compiled whole, with dynamic numbers of rows."""
    layer, _ = layer_of(kind, index)
    layer.config = copy.copy(layer.config)
    layer.config.kernel = next(
        row.name for row in layer.kernels if row.package == "triton" and row in fitting(layer, torch.bfloat16)
    )
    x = torch.randn(count, layer.in_features, device="cuda").bfloat16()
    with torch.no_grad():
        expected = layer(x)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            layer(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x)
        y.zero_()
        graph.replay()
        assert torch.equal(y, expected)
        compiled = torch.compile(layer, fullgraph=True, dynamic=True)
        # What rounds inputs may round halves differently once it is compiled.
        assert difference(compiled(x), expected) < 2e-2


@pytest.mark.parametrize(("kind", "index"), first_of_each_kernel())
def test_gradients(kind: str, index: int, scaled: None) -> None:
    """The gradient for the inputs is that of the dequantized weight."""
    layer, _ = layer_of(kind, index)
    x = torch.randn(5, layer.in_features, device="cuda", requires_grad=True)
    layer(x).square().sum().backward()
    linear = layer.plain(torch.float32)
    y = torch.zeros(5, layer.in_features, device="cuda", requires_grad=True)
    (linear(y) * (2 * layer(x).detach())).sum().backward()
    assert difference(x.grad, y.grad) < 1e-5  # type: ignore[arg-type]


CHOSEN = {  # the row that runs a method's layers in bfloat16 on a GPU of compute capability 9.0, without others' packages
    "bitsandbytes_8bit": "triton_int8",
    "bitsandbytes_4bit": "triton",
    "gptq": "triton",
    "awq": "triton",
    "hqq": "triton",
    "quanto": "triton",
    "fp8": "triton",
    "bitnet": "triton",
    "fbgemm_fp8": "scaled_mm",
    "eetq": "triton",
    "quark": "triton_groups",
    "torchao": "triton_groups",
    "compressed-tensors": "triton_groups",
    "auto-round": "triton",
}


@pytest.fixture(scope="module", params=METHODS)
def packed(request: pytest.FixtureRequest, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp(request.param) / "packed"
    method = request.param.removesuffix("_8bit").removesuffix("_4bit")
    assert quantize(str(plain), method, folder, METHODS[request.param], "bfloat16") == 0
    return request.param, folder


def packed_layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "stored_tensors")]


def test_models(packed: Any) -> None:
    """A quantized model is read to the GPU, chooses its rows, and generates what the reference on the CPU does."""
    method, folder = packed
    model = unibody.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cuda")
    chosen = CHOSEN[method]
    if method.startswith("bitsandbytes") and find_spec("bitsandbytes"):
        chosen = "bitsandbytes"
    if torch.cuda.get_device_capability() >= (8, 9):
        assert {layer.kernel for layer in packed_layers(model)} == {chosen}
    assert {tensor.device.type for layer in packed_layers(model) for tensor in layer.buffers()} == {"cuda"}
    exact = unibody.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for layer in packed_layers(exact):
        layer.config = copy.copy(layer.config)
        layer.config.kernel, layer.prepared = "torch", None
    ids = token_ids() % 64
    with torch.no_grad():
        found, expected = model(ids.cuda()).logits, exact(ids).logits
    assert difference(found.cpu(), expected) < 0.05
    tokens = model.generate(ids[:1].cuda(), max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].cpu()
    for place, token in enumerate(tokens):  # greedy: of the exact model's logits, the best but for rounding
        before = torch.cat((ids[:1], tokens[None, :place]), 1)
        with torch.no_grad():
            logits = exact(before).logits[0, -1]
        assert float(logits[token]) >= float(logits.max()) - 0.05 * float(logits.std() * 4)


def test_saved_from_the_gpu(packed: Any, tmp_path: Path) -> None:
    """What is saved after layers have run in their kernels' layouts is what was read."""
    _, folder = packed
    model = unibody.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cuda")
    with torch.no_grad():
        model(token_ids().cuda() % 64)
    model.save_pretrained(tmp_path)
    before, after = (unibody.AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (folder, tmp_path))
    assert before.keys() == after.keys()
    assert all(torch.equal(triton_cases.as_bytes(before[name]), triton_cases.as_bytes(after[name])) for name in before)


@pytest.mark.parametrize("options", [{"bits": 4}, {"bits": 3}, {"bits": 8, "group_size": 32}], ids=str)
def test_large_weights(options: dict[str, int]) -> None:
    """Large weights are cut otherwise than small ones, and many rows are multiplied by torch."""
    module = triton_cases.file("gptq")
    linear = torch.nn.Linear(8192, 4224, device="cuda")
    layer = module.GPTQLinear(linear, module.GPTQConfig(**options, kernel="triton"))
    layer.hold(layer.quantize(linear.weight.detach()))
    for count in (1, 3, 33, 100, 129, 1000):
        x = torch.randn(count, 8192, device="cuda")
        with torch.no_grad():
            expected = module.dequantize_matmul(layer, x)
            assert difference(layer(x), expected) < 1e-5
            assert difference(layer(x.bfloat16()), expected) < 1e-2
    if options == {"bits": 4}:
        layer.config.kernel, layer.prepared = "int4pack_cuda", None
        x = torch.randn(5, 8192, device="cuda")
        with torch.no_grad():
            found, expected = layer(x.bfloat16()), module.dequantize_matmul(layer, x)
        assert difference(found, expected) < COARSER["int4pack_cuda"]
