"""torchao's packed int4: what torchao makes with mslk and what PyTorch's CUDA source packs, recorded; the rest of it, live."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchao.quantization as ao
import transformers
from oracle.quantization import fixtures, inputs
from quantizers.files import as_bytes, generated
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import unibody

torchao = generated("torchao")
FOLDER = fixtures.FOLDER / "mslk/llama"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TILES = {"int4_packing_format": "tile_packed_to_4d"}


def make_layer(weight: Tensor, config: Any, bias: Tensor | None = None) -> Any:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    quantizer = torchao.TorchAoHfQuantizer(torchao.TorchAoConfig(config), pre_quantized=False)
    layer = quantizer.make_linear("layer", linear)
    layer.hold(layer.quantize(weight))
    return layer


@pytest.fixture
def tiles_anywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Lets torchao make tiles without a GPU; their codes two in a byte, as it hands them to torch's operator, and torch's product.

    What stands in for the operator packs as the recording says (`test_tiles`); the product is torch's own for CPUs.
    """
    seen = []

    def convert(pairs: Tensor, tiles: int) -> Tensor:
        seen.append(pairs)
        assert tiles == 8
        return torchao.pack_tensor_cores(torch.stack((pairs >> 4, pairs & 15), -1).flatten(1))  # type: ignore[no-any-return]

    def multiply(x: Tensor, packed: Tensor, group: int, scales: Tensor) -> Tensor:
        codes = torchao.unpack_tensor_cores(packed).int()
        more = 0, 0, 0, -len(codes) % 16  # rows come in sixteens
        blocks = torch.ops.aten._convert_weight_to_int4pack_for_cpu(nn.functional.pad(codes, more), 1)
        scales = nn.functional.pad(scales, more)
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x, blocks, group, scales)[:, : len(codes)]  # type: ignore[no-any-return]

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (9, 0))
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_convert_weight_to_int4pack", convert, "CPU")
        library.impl("_weight_int4pack_mm", multiply, "CPU")
        yield seen


@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pairs(dtype: torch.dtype, group: int) -> None:
    """Codes, scales and shifts are torchao's to the bit; what they stand for is within half a step of the weight."""
    recorded = fixtures.load("mslk/layers").tensors
    weight = recorded["weight"]
    layer = make_layer(weight.to(dtype), ao.Int4WeightOnlyConfig(group_size=group))
    for name, tensor in layer.state_dict().items():
        expected = recorded[f"{str(dtype).removeprefix('torch.')}/{group}/{name.removeprefix('_weight_')}"]
        assert tensor.dtype == expected.dtype
        assert torch.equal(as_bytes(tensor), as_bytes(expected)), name
    steps = layer.state_dict()["_weight_scale"].T.float().repeat_interleave(group, 1)
    rounding = 0 if dtype == torch.float32 else 16 * torch.finfo(dtype).eps  # of scales, times 8, and of shifts
    off = (layer.dequantize() - weight).abs()
    assert (off <= steps * (0.501 + rounding) + rounding * weight.abs() + 1e-6).all()


def test_tiles() -> None:
    """Nibbles lie where the source of PyTorch's CUDA kernel puts them."""
    recorded = fixtures.load("mslk/tiles").tensors
    assert torch.equal(torchao.pack_tensor_cores(recorded["codes"]), recorded["tiles"])
    assert torch.equal(torchao.unpack_tensor_cores(recorded["tiles"]), recorded["codes"])


@pytest.mark.parametrize("algorithm", ["tinygemm", "hqq"])
@pytest.mark.parametrize(("rows", "columns", "group"), [(24, 1024, 128), (20, 192, 64), (64, 1280, 256)])
def test_tiled_layers(rows: int, columns: int, group: int, algorithm: str, tiles_anywhere: list[Tensor]) -> None:
    """Codes and scales are torchao's to the bit, also where rows and columns are filled up; and so are outputs, near."""
    weight, bias = inputs.weight(rows, columns).bfloat16(), inputs.bias(rows).bfloat16()
    weight[3], weight[5] = 0, weight[5].abs() + 1
    config = ao.Int4WeightOnlyConfig(group_size=group, int4_choose_qparams_algorithm=algorithm, **TILES)
    model = nn.Sequential(nn.Linear(columns, rows, dtype=torch.bfloat16))
    model[0].weight, model[0].bias = nn.Parameter(weight.clone()), nn.Parameter(bias)
    ao.quantize_(model, config)
    layer, theirs = make_layer(weight, config, bias), model[0].weight
    stored = layer.state_dict()
    assert torch.equal(stored["_weight_scale_and_zero"], theirs.scale_and_zero)
    assert torch.equal(stored["_weight_qdata"], theirs.qdata)
    assert len(tiles_anywhere) == 1
    for batch in (1, 7):
        x = inputs.activations(batch, columns).bfloat16()
        with torch.no_grad():
            found, expected, exact = layer(x), model(x), x.float() @ layer.dequantize().T + bias.float()
        assert layer.kernel == ("int4pack_cpu" if rows % 16 == 0 else "torch")
        assert (found.float() - exact).abs().max() <= 1e-2 * exact.abs().max()
        assert (found - expected).abs().max() <= 2e-2 * expected.abs().max()
    after = layer.state_dict()
    assert all(torch.equal(as_bytes(after[name]), as_bytes(tensor)) for name, tensor in stored.items())


def read_header(folder: Path) -> dict[str, Any]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        found = {name: json.loads(text) for name, text in file.metadata().items() if name != "format"}
    found["tensor_names"].sort()
    return found


def test_checkpoint(tmp_path: Path) -> None:
    """Read, run, saved: the bytes that torchao and transformers wrote; and the same, made of the plain weights."""
    recorded = load_file(FOLDER / "model.safetensors")
    model, ids = unibody.AutoModelForCausalLM.from_pretrained(FOLDER), inputs.token_ids(2, 9)
    kernels = {layer.kernel for layer in model.modules() if hasattr(layer, "stored_tensors")}
    assert kernels == {"int4pack_cpu"}
    inputs.llama(num_hidden_layers=1).save_pretrained(tmp_path / "plain")
    given = torchao.TorchAoConfig("int4_weight_only", group_size=64)
    made = unibody.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", dtype=torch.bfloat16, quantization_config=given
    )
    with torch.no_grad():
        assert torch.equal(made(ids).logits, model(ids).logits)
    for name, source in (("read", model), ("made", made)):
        source.save_pretrained(tmp_path / name)
        found = load_file(tmp_path / name / "model.safetensors")
        assert found.keys() == recorded.keys()
        assert all(torch.equal(as_bytes(found[key]), as_bytes(tensor)) for key, tensor in recorded.items())
        assert read_header(tmp_path / name) == read_header(FOLDER)
        configs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / name, FOLDER))
        assert len({json.dumps(config["quantization_config"], sort_keys=True) for config in configs}) == 1


def mslk_product(x: Tensor, pairs: Tensor, scales: Tensor, shifts: Tensor) -> Tensor:
    """What stands in for mslk's operator, of the same arguments: W = signed code · scale + shift."""
    codes = torch.stack((pairs << 4 >> 4, pairs >> 4), -1).flatten(1).float()
    scales, shifts = (part.float().T.repeat_interleave(codes.shape[1] // len(part), 1) for part in (scales, shifts))
    return nn.functional.linear(x, (codes * scales + shifts).to(x.dtype))


@pytest.mark.parametrize(
    ("packing", "algorithm"), [("plain", "tinygemm"), ("tile_packed_to_4d", "tinygemm"), ("tile_packed_to_4d", "hqq")]
)
def test_what_transformers_reads(packing: str, algorithm: str, tmp_path: Path, tiles_anywhere: list[Tensor]) -> None:
    """A checkpoint of ours opens as torchao's tensors, with the logits of the product that torchao calls."""
    inputs.llama(hidden_size=128).save_pretrained(tmp_path / "plain")
    options = {"int4_packing_format": packing, "int4_choose_qparams_algorithm": algorithm}
    config = torchao.TorchAoConfig(ao.Int4WeightOnlyConfig(group_size=64, **options))
    model = unibody.AutoModelForCausalLM.from_pretrained(
        tmp_path / "plain", dtype=torch.bfloat16, quantization_config=config
    )
    model.save_pretrained(tmp_path / "packed")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "packed", device_map="cpu")
    kind = ao.Int4Tensor if packing == "plain" else ao.Int4TilePackedTo4dTensor
    assert isinstance(theirs.model.layers[1].mlp.up_proj.weight, kind)
    assert torch.equal(
        as_bytes(theirs.model.layers[1].mlp.up_proj.weight.qdata),
        as_bytes(model.model.layers[1].mlp.up_proj.stored_tensors()["_weight_qdata"]),
    )
    ids = inputs.token_ids(2, 9)
    with torch.no_grad(), torch.library._scoped_library("mslk", "DEF") as library:
        library.define("bf16i4bf16_rowwise(Tensor x, Tensor pairs, Tensor scales, Tensor shifts) -> Tensor")
        library.impl("bf16i4bf16_rowwise", mslk_product, "CPU")
        expected = theirs(ids).logits.float()
        assert (model(ids).logits.float() - expected).abs().max() <= 3e-2 * expected.abs().max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"int4_packing_format": "plain_int32"},
            r"is plain_int32 \(operators of XPUs and NPUs make it\), expected PLAIN or TILE_PACKED_TO_4D",
        ),
        ({"int4_packing_format": "preshuffled"}, r"is preshuffled \(torchao itself has no file of it\), expected"),
        (
            {"int4_choose_qparams_algorithm": "hqq"},
            "is PLAIN, expected TILE_PACKED_TO_4D, with which the algorithm HQQ goes",
        ),
        ({**TILES, "int4_tile_packed_ntile": 16}, "int4_tile_packed_ntile of Int4WeightOnlyConfig is 16, expected 8"),
    ],
)
def test_other_packings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        torchao.TorchAoConfig(ao.Int4WeightOnlyConfig(**options))


@pytest.mark.skipif(torch.cuda.is_available(), reason="what torchao refuses is what a machine without a GPU lacks")
def test_plain_int32_is_not_made_here() -> None:
    """Why it is refused: torchao itself has no operator for it on a CPU, so there is nothing that a layer could be compared with."""
    model = nn.Sequential(nn.Linear(256, 256, bias=False, dtype=torch.bfloat16))
    with pytest.raises(NotImplementedError, match="does not support device 'cpu'"):
        ao.quantize_(model, ao.Int4WeightOnlyConfig(int4_packing_format="plain_int32"))


def test_preshuffled_has_no_file() -> None:
    """torchao's reader and writer of safetensors do not know the class."""
    from torchao.prototype.safetensors.safetensors_utils import ALLOWED_TENSORS_SUBCLASSES

    assert {"Int4Tensor", "Int4TilePackedTo4dTensor"} <= set(ALLOWED_TENSORS_SUBCLASSES)
    assert "Int4PreshuffledTensor" not in ALLOWED_TENSORS_SUBCLASSES
