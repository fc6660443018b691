"""bitsandbytes' two methods against bitsandbytes: its stored tensors to the bit, its layers' outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.quantization import fixtures, inputs
from quantizers.files import as_bytes, generated, make_layer
from torch import Tensor, nn

bnb = generated("bitsandbytes")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BLOCKS = fixtures.load("bitsandbytes/blocks").tensors
EIGHT, FOUR = fixtures.load("bitsandbytes/linear_8bit").tensors, fixtures.load("bitsandbytes/linear_4bit").tensors


def pack(codes: Tensor, kind: str) -> Tensor:
    """Two codes a byte, the first in the high bits; an odd one gets that of zero beside it."""
    pairs = nn.functional.pad(codes, (0, codes.numel() % 2), value={"nf4": 7, "fp4": 0}[kind]).view(-1, 2)
    return (pairs[:, :1] << 4) | pairs[:, 1:]


@pytest.mark.parametrize("name", sorted({k.rpartition("/")[0] for k in BLOCKS if "zeros" not in k and "packed" in k}))
def test_blocks(name: str) -> None:
    """Any block size, all types; the last block is not whole, one is zero."""
    kind, dtype, block = name.split("/")
    codes, largest = bnb.round_blocks(BLOCKS["input"].to(DTYPES[dtype]).flatten(), BLOCKS[f"{kind}/table"], int(block))
    assert torch.equal(largest, BLOCKS[f"{name}/absmax"])
    assert torch.equal(pack(codes, kind), BLOCKS[f"{name}/packed"])


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_tables_and_zeros(kind: str) -> None:
    assert torch.equal(torch.tensor(bnb.TABLES[kind]), BLOCKS[f"{kind}/table"])
    codes, largest = bnb.round_blocks(BLOCKS["zeros/input"].flatten(), BLOCKS[f"{kind}/table"], 32)
    assert torch.equal(pack(codes, kind), BLOCKS[f"zeros/{kind}/packed"])
    assert torch.equal(largest, BLOCKS[f"zeros/{kind}/absmax"])


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_double_quantization(kind: str) -> None:
    """The second quantization's codes; bitsandbytes' own CPU kernel looks them up coarsely."""
    values = fixtures.load("bitsandbytes/nested_blocks").tensors
    table = bnb.dynamic_map()
    assert torch.equal(table, values["map"])
    plain = values[f"{kind}/plain_absmax"]
    codes, largest = bnb.round_blocks(plain - plain.mean(), table, 256)
    assert torch.equal(largest, values[f"{kind}/nested_absmax"])
    assert torch.equal(plain.mean(), values[f"{kind}/offset"])
    scaled = (plain - plain.mean()) / largest.repeat_interleave(256)[: len(plain)]
    mine, theirs = ((table[c.int()] - scaled).abs() for c in (codes, values[f"{kind}/absmax"]))
    apart = codes != values[f"{kind}/absmax"]
    assert (apart.sum() <= 2) and (mine[apart] < theirs[apart]).all()


def test_rows() -> None:
    values = fixtures.load("bitsandbytes/rows").tensors
    codes, largest = bnb.round_rows(values["input"])
    assert torch.equal(codes, values["0/codes"])
    assert torch.equal(largest.flatten(), values["0/row_maxima"])
    for row, expected, most in zip(values["input"].split(1), values["0/codes"], values["0/row_maxima"], strict=True):
        codes, found = bnb.round_row(row)
        assert torch.equal(codes[0], expected)
        assert found == most
    codes, largest = bnb.round_rows(values["input"], 6.0)
    assert torch.equal(largest.flatten(), values["6/row_maxima"])
    others = torch.ones(codes.shape[1], dtype=torch.bool).index_fill(0, values["6/outlier_columns"], False)
    assert torch.equal(codes[:, others], values["6/codes"][:, others])


@pytest.mark.parametrize("kernel", ["int8_cpu", "torch"])
@pytest.mark.parametrize("threshold", [0, 6])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_linear_8bit(dtype: str, threshold: int, kernel: str) -> None:
    """Without gradients bitsandbytes' eval mode to the bit, outliers included; with gradients its train mode."""
    config = bnb.BitsAndBytesConfig(
        load_in_8bit=True, llm_int8_threshold=float(threshold), kernel="torch" if kernel == "torch" else None
    )
    weight, bias, hidden = (EIGHT[name].to(DTYPES[dtype]) for name in ("weight", "bias", "hidden"))
    layer, key = make_layer(bnb.Linear8bitLt, config, weight, bias), f"{dtype}/{threshold}"
    for name, tensor in layer.stored_tensors().items():
        assert torch.equal(tensor, EIGHT[f"{key}/{name}"]), name
        assert tensor.shape == layer.empty_tensors()[name].shape
    with torch.no_grad():
        assert torch.equal(layer(hidden), EIGHT[f"{key}/eval"])
        small, expected = EIGHT["without_outliers"].to(hidden), EIGHT[f"{key}/eval_without_outliers"]
        assert torch.equal(layer(small), expected)
        assert torch.equal(
            layer(small.flatten(0, -2)[:1]), expected.flatten(0, -2)[:1]
        )  # one row has a way of its own
    trained = layer(hidden.clone().requires_grad_())
    torch.testing.assert_close(trained, EIGHT[f"{key}/train"])
    layer.bias = None
    with torch.no_grad():
        assert torch.equal(layer(hidden), EIGHT[f"{key}/eval_without_bias"])
    assert layer.kernel == kernel
    assert all(torch.equal(tensor, EIGHT[f"{key}/{name}"]) for name, tensor in layer.stored_tensors().items())


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_large_linear_8bit(batch: int) -> None:
    """Rows of a large weight that are multiplied one by one: bitsandbytes' outputs."""
    from bitsandbytes.nn import Int8Params
    from bitsandbytes.nn import Linear8bitLt as Reference

    weight, x = inputs.weight(2048, 1024).bfloat16(), inputs.activations(batch, 1024).bfloat16().clamp(-5, 5)
    layer = make_layer(bnb.Linear8bitLt, bnb.BitsAndBytesConfig(load_in_8bit=True), weight, None)
    reference = Reference(1024, 2048, bias=False, has_fp16_weights=False, threshold=6.0)
    reference.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    with torch.no_grad():
        assert torch.equal(layer(x), reference.to("cpu").eval()(x))


def test_main_weights_in_16_bits() -> None:
    """`llm_int8_has_fp16_weight`: the same products, from weights that are quantized in each pass and not rounded for gradients."""
    usual = bnb.BitsAndBytesConfig(load_in_8bit=True)
    kept = bnb.BitsAndBytesConfig(load_in_8bit=True, llm_int8_has_fp16_weight=True)
    weight, hidden = EIGHT["weight"], EIGHT["hidden"]
    layer, other = (make_layer(bnb.Linear8bitLt, config, weight, None) for config in (kept, usual))
    with torch.no_grad():
        assert torch.equal(layer(hidden), other(hidden))
    assert torch.equal(layer.dequantize(), weight.half().float())


@pytest.mark.parametrize("dtype", list(DTYPES.values()))
def test_training_of_main_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    """bitsandbytes' outputs and gradients of weight, bias and input; and a step of an optimizer that is saved."""
    from bitsandbytes.nn import Int8Params
    from bitsandbytes.nn import Linear8bitLt as Reference

    weight, bias, hidden = (EIGHT[name].to(dtype) for name in ("weight", "bias", "hidden"))
    weight = weight.half().to(dtype)
    config = bnb.BitsAndBytesConfig(load_in_8bit=True, llm_int8_has_fp16_weight=True)
    mine = make_layer(bnb.Linear8bitLt, config, weight, bias.clone())
    theirs = Reference(weight.shape[1], weight.shape[0], has_fp16_weights=True, threshold=6.0)
    theirs.weight = Int8Params(weight.clone(), requires_grad=True, has_fp16_weights=True)
    theirs.bias = nn.Parameter(bias.clone())
    found = {}
    for name, layer in (("mine", mine), ("theirs", theirs)):
        x = hidden.clone().requires_grad_()
        y = layer(x)
        y.float().square().sum().backward()
        found[name] = y, x.grad, layer.weight.grad, layer.bias.grad
    for ours, expected in zip(found["mine"], found["theirs"], strict=True):
        bound = {torch.float32: 1e-3, torch.float16: 4e-3, torch.bfloat16: 2e-2}[
            dtype
        ]  # the weight's gradient is float16
        assert (ours.float() - expected.float()).abs().max() <= bound * expected.float().abs().max()
    assert {name for name, _ in mine.named_parameters()} == {"weight", "bias"}
    before = mine.state_dict()["weight"].clone()
    torch.optim.SGD(mine.parameters(), lr=1e-4).step()
    after = mine.state_dict()["weight"]
    assert (after.dtype, after.requires_grad) == (torch.float16, False)
    assert not torch.equal(after, before)


@pytest.mark.parametrize("name", sorted({k.rpartition("/")[0] for k in FOUR if k.endswith("/train")}))
def test_linear_4bit(name: str) -> None:
    """Stored tensors to the bit (but for near ties of double quantization), outputs and gradients of train mode."""
    kind, dtype, nested = name.split("/")
    config = bnb.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=nested == "nested",
        bnb_4bit_compute_dtype=dtype,
    )
    weight, bias, hidden = (FOUR[key].to(DTYPES[dtype]) for key in ("weight", "bias", "hidden"))
    layer = make_layer(bnb.Linear4bit, config, weight, bias)
    stored = layer.stored_tensors()
    assert {f"{name}/{key}" for key in (*stored, "bias", "eval", "train", "gradient")} == {
        key for key in FOUR if key.startswith(f"{name}/")
    }
    for key, tensor in stored.items():
        expected = FOUR[f"{name}/{key}"]
        assert tensor.dtype == expected.dtype == layer.empty_tensors()[key].dtype
        assert torch.equal(tensor, expected), key
    given = hidden.clone().requires_grad_()
    output = layer(given)
    output.float().square().sum().backward()
    torch.testing.assert_close(output, FOUR[f"{name}/train"])
    torch.testing.assert_close(given.grad, FOUR[f"{name}/gradient"])


@pytest.mark.parametrize("dtype", list(DTYPES.values()))
@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("options", [{"load_in_8bit": True}, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}])
def test_outputs(options: dict[str, Any], batch: int, dtype: torch.dtype) -> None:
    """Odd shapes, one or many rows, against the product with the dequantized weight in float64."""
    torch.manual_seed(batch)
    config = bnb.BitsAndBytesConfig(**options, bnb_4bit_compute_dtype=dtype)
    layer_class = bnb.Linear8bitLt if config.load_in_8bit else bnb.Linear4bit
    layer = make_layer(layer_class, config, torch.randn(40, 72).to(dtype), torch.randn(40).to(dtype))
    x = torch.randn(2, batch, 72).to(dtype)
    with torch.no_grad():
        found = layer(x)
        exact = nn.functional.linear(x.double(), layer.dequantize(torch.float64), layer.bias.double())
    assert (found.shape, found.dtype) == ((2, batch, 40), dtype)
    bound = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    bound = max(bound, 1e-2) if config.load_in_8bit else bound  # the inputs are rounded to 8 bits
    assert (found - exact).abs().max() <= bound * exact.abs().max()


@pytest.mark.parametrize("compute", [None, *DTYPES])
@pytest.mark.parametrize("given", list(DTYPES))
def test_the_type_of_computation(given: str, compute: str | None) -> None:
    """`bnb_4bit_compute_dtype`, float32 where it is not said, whatever the inputs are: bitsandbytes' outputs, in the inputs' type."""
    from bitsandbytes.nn import Linear4bit as Reference
    from bitsandbytes.nn import Params4bit

    weight, x = inputs.weight(48, 128), inputs.activations(5, 128).to(DTYPES[given])
    config = bnb.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=compute, kernel="torch")
    reference = Reference(128, 48, bias=False, compute_dtype=DTYPES[compute or "float32"], quant_type="fp4")
    reference.weight = Params4bit(weight, requires_grad=False, quant_type="fp4", compress_statistics=False).to("cpu")
    with torch.no_grad():
        found, expected = make_layer(bnb.Linear4bit, config, weight)(x), reference.train()(x)
    assert found.dtype == expected.dtype == x.dtype
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("kernel", ["bitsandbytes_cpu", "table_cpu"])
def test_cpu_kernels(kernel: str, kind: str, nested: bool) -> None:
    """In bfloat16: as near as the type allows, whatever the number of rows, and the checkpoint's tensors come back to the bit."""
    from bitsandbytes.functional import has_avx512bf16

    if kernel == "bitsandbytes_cpu" and not has_avx512bf16():
        pytest.skip("this CPU has no AVX512_BF16, which bitsandbytes' kernel needs")
    torch.manual_seed(0)
    config = bnb.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=nested,
        bnb_4bit_compute_dtype="bfloat16",
        bnb_4bit_quant_storage="float16",
        kernel=kernel,
    )
    layer = make_layer(bnb.Linear4bit, config, torch.randn(160, 256).bfloat16(), torch.randn(160).bfloat16())
    before, bias = layer.state_dict(), layer.bias
    for batch in (1, 3, 64):
        x = torch.randn(2, batch, 256).bfloat16()
        with torch.no_grad():
            found = layer(x)
            exact = nn.functional.linear(x.double(), layer.dequantize(torch.float64), layer.bias.double())
        assert (layer.kernel, found.shape, found.dtype) == (kernel, (2, batch, 160), torch.bfloat16)
        assert (found - exact).abs().max() <= 2e-2 * exact.abs().max()
    layer.bias, x = None, x[0, :1]
    with torch.no_grad():
        found, exact = layer(x), x.double() @ layer.dequantize(torch.float64).T
    assert (found - exact).norm() <= (2e-3 if kernel == "table_cpu" else 6e-3) * exact.norm()  # one row: rounded once
    layer.bias = bias
    after = layer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(as_bytes(after[key]), as_bytes(tensor)) for key, tensor in before.items())


def test_bytes_at_odd_places() -> None:
    """A file may hold a weight at any byte; the kernel reads two at once."""
    config = bnb.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype="bfloat16", kernel="table_cpu")
    layer, x = make_layer(bnb.Linear4bit, config, torch.randn(24, 64).bfloat16()), torch.randn(3, 64).bfloat16()
    stored = layer.stored_tensors()
    with torch.no_grad():
        expected = layer(x)
        file = torch.cat((torch.zeros(1, dtype=torch.uint8), stored["weight"].flatten()))
        layer.hold({**stored, "weight": file[1:, None]})
        assert layer.weight.storage_offset() == 1
        assert torch.equal(layer(x), expected)


def test_configuration() -> None:
    """The documented order; transformers' keys; what excludes each other or is no value is refused."""
    config = bnb.BitsAndBytesConfig(True, False, 5.0, ["lm_head"], True, True)
    assert (config.llm_int8_threshold, config.llm_int8_skip_modules) == (5.0, ["lm_head"])
    for case in fixtures.load_json("bitsandbytes/config"):
        mine = bnb.BitsAndBytesConfig(**case["arguments"])
        assert mine.to_dict() == case["to_dict"]
        assert bnb.BitsAndBytesConfig.from_dict(case["to_dict"]) == mine
    for options, method in (
        ({}, None),
        ({"load_in_8bit": True}, "llm_int8"),
        ({"load_in_4bit": True}, "fp4"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
    ):
        config = bnb.BitsAndBytesConfig(**options)
        assert (config.is_quantizable(), config.quantization_method()) == (method is not None, method)
    for bad, message in (
        ({"load_in_8bit": True, "load_in_4bit": True}, "exclude each other"),
        ({"bnb_4bit_quant_type": "int4"}, "bnb_4bit_quant_type is 'int4', expected one of 'nf4', 'fp4'"),
        (
            {"bnb_4bit_quant_storage": "complex64"},
            "bnb_4bit_quant_storage is torch.complex64, expected one of 'uint8'",
        ),
        ({"bnb_4bit_compute_dtype": "int8"}, "bnb_4bit_compute_dtype is torch.int8, expected one of 'float32'"),
        ({"bnb_4bit_compute_dtype": "fast"}, "bnb_4bit_compute_dtype is 'fast', expected one of 'float32'"),
        ({"load_in_8bit": 1}, "load_in_8bit is 1"),
        ({"llm_int8_threshold": "6"}, "llm_int8_threshold is '6'"),
        ({"llm_int8_skip_modules": "lm_head"}, "llm_int8_skip_modules is 'lm_head'"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            bnb.BitsAndBytesConfig(**bad)
    with pytest.raises(TypeError, match="unexpected keyword argument 'surprise'"):
        bnb.BitsAndBytesConfig(surprise=1)
    for options, later in (({"load_in_4bit": True}, "load_in_8bit"), ({"load_in_8bit": True}, "load_in_4bit")):
        quantizer = bnb.Bnb4BitHfQuantizer(bnb.BitsAndBytesConfig(**options), pre_quantized=False)
        quantizer.validate_environment()
        setattr(quantizer.quantization_config, later, True)
        with pytest.raises(ValueError, match="load_in_8bit and load_in_4bit exclude each other"):
            quantizer.validate_environment()


def test_bindings() -> None:
    """What is called in bitsandbytes takes what it is given: the operator's arguments, and the layout that its own layer makes."""
    from bitsandbytes.functional import QuantState, _convert_weight_packed_for_cpu

    schema = torch.ops.bitsandbytes.gemv_4bit.default._schema
    assert [argument.name for argument in schema.arguments] == ["A", "B", "shapeB", "absmax", "code", "blocksize"]
    layer = make_layer(bnb.Linear4bit, bnb.BitsAndBytesConfig(load_in_4bit=True), torch.randn(96, 192))
    stored, table = layer.stored_tensors(), layer.weight_quant_map
    state = QuantState(
        stored["weight.absmax"], torch.Size((96, 192)), table, blocksize=64, quant_type="fp4", dtype=torch.bfloat16
    )
    packed, state = _convert_weight_packed_for_cpu(stored["weight"], state)
    held = bnb.Avx512Bf16Layout.pack(layer, stored)
    assert torch.equal(held["packed"], packed)
    assert torch.equal(held["block_scales"], state.absmax)
