"""Packed layers that Triton kernels can run, each with its kernel and its reference: run by Triton's interpreter, no GPU.

python tests/quantizers/triton_cases.py groups    # compares; TRITON_INTERPRET must be set before Triton is imported
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "generated/quantizers"))


SCALE = 1  # how much larger weights are than the smallest ones


def make(layer_class: Any, config: Any, *more: Any, width: int = 96) -> Any:
    """A packed layer of random weights."""
    linear = nn.Linear(width * SCALE, 64 * SCALE)
    packed = layer_class(linear, config, *more)
    packed.hold(packed.quantize(linear.weight.detach()))
    return packed


def file(name: str) -> Any:
    return import_module(f"quantizer_{name}")


def arranged(packed: Any, layout: Any) -> Any:
    """The layer with its weight in a kernel's layout, which gives the checkpoint's tensors back to the bit."""
    before = packed.state_dict()
    packed.hold(layout.pack(packed, packed.stored_tensors()), layout)
    after = packed.state_dict()
    assert all(torch.equal(as_bytes(before[name]), as_bytes(tensor)) for name, tensor in after.items()), packed
    return packed


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def scheme(weights: Any, inputs: Any = None) -> dict[str, Any]:
    return {"targets": ["Linear"], "weights": weights, "input_activations": inputs}


def compressed(weights: Any, inputs: Any = None, form: str = "dense") -> Any:
    """A layer of compressed-tensors."""
    module = file("compressed_tensors")
    config = module.CompressedTensorsConfig(config_groups={"group": scheme(weights, inputs)}, format=form)
    quantizer = module.CompressedTensorsHfQuantizer(config, pre_quantized=False)
    packed = make(lambda linear, _: quantizer.make_linear("layer", linear), config)
    if "input_scale" in packed.names:
        packed.hold({**packed.stored_tensors(), "input_scale": torch.tensor([0.02])})
    return packed


def quark(weight: Any, inputs: Any = None) -> Any:
    """A layer of Quark."""
    module = file("quark")
    config = module.QuarkConfig(global_quant_config={"weight": weight, "input_tensors": inputs})
    quantizer = module.QuarkHfQuantizer(config, pre_quantized=False)
    return make(lambda linear, _: quantizer.make_linear("layer", linear), config)


def torchao(name: str, **options: Any) -> Any:
    module = file("torchao")
    config = module.TorchAoConfig(name, **options)
    return make(module.TorchAoLinear, config, config.quant_type)


def aqlm(width: int, height: int, count: int, bits: int) -> Any:
    """A layer of AQLM, of random codes and codebooks."""
    module = file("aqlm")
    packed = module.AqlmLinear(nn.Linear(96, 64), module.AqlmConfig(width, height, count, bits))
    tensors = packed.empty_tensors()
    edge = 1 << 8 * tensors["codes"].itemsize - 1
    tensors["codes"].random_(-edge, edge)
    packed.hold({name: tensor if name == "codes" else tensor.normal_() for name, tensor in tensors.items()})
    return packed


def groups() -> Iterator[Any]:
    """Integers by group: layer and name of the kernel's function."""
    gptq, auto, awq, hqq, quanto = (file(name) for name in ("gptq", "autoround", "awq", "hqq", "quanto"))
    for bits in (2, 3, 4, 8):
        for version, form in (("gptq", "auto_round:gptq"), ("gptq_v2", "auto_round:gptqmodel")):
            config = gptq.GPTQConfig(bits=bits, group_size=32, sym=False, checkpoint_format=version)
            yield arranged(make(gptq.GPTQLinear, config), gptq.OrderedLayout), "triton"
            packed = make(gptq.GPTQLinear, config)
            packed.g_idx = packed.g_idx[torch.randperm(packed.in_features)]
            yield arranged(packed, gptq.OrderedLayout), "triton"
            config = auto.AutoRoundConfig(bits=bits, group_size=32, sym=False, packing_format=form)
            yield arranged(make(auto.AutoRoundLinear, config), auto.ColumnsLayout), "triton"
    config = auto.AutoRoundConfig(bits=4, group_size=32, sym=False, packing_format="auto_round:auto_awq")
    yield arranged(make(auto.AutoRoundLinear, config), auto.ColumnsLayout), "triton"
    for version in ("gemm", "gemv", "llm-awq"):
        packed = make(awq.AWQLinear, awq.AwqConfig(group_size=32, version=version), width=128)
        yield arranged(packed, awq.ColumnsLayout), "triton"
    for bits in (1, 2, 3, 4, 8):
        packed = make(hqq.HQQLinear, hqq.HqqConfig(nbits=bits, group_size=32))
        yield arranged(packed, hqq.ColumnsLayout), "triton"
    for kind in ("int2", "int4"):
        packed = make(quanto.QuantoLinear, quanto.QuantoConfig(weights=kind))
        yield arranged(packed, quanto.ColumnsLayout), "triton"
    for bits in (2, 3, 5, 8):
        for symmetric in (True, False):
            packed = compressed({"num_bits": bits, "group_size": 32, "symmetric": symmetric})
            yield arranged(packed, file("compressed_tensors").ColumnsLayout), "triton_groups"
    for kind in ("int4", "uint4"):
        packed = quark({"dtype": kind, "qscheme": "per_group", "group_size": 32, "symmetric": kind == "int4"})
        yield arranged(packed, file("quark").ColumnsLayout), "triton_groups"
    for kind, scheme in (("int4", "per_channel"), ("uint8", "per_channel"), ("int8", "per_group")):
        packed = quark({"dtype": kind, "qscheme": scheme, "group_size": 32 if scheme == "per_group" else None})
        yield arranged(packed, file("quark").ColumnsLayout), "triton_groups"
    for name in ("intx_weight_only", "int8_dynamic_activation_intx_weight"):
        for kind, mapping in (("int3", "SYMMETRIC"), ("int6", "ASYMMETRIC"), ("int7", "ASYMMETRIC")):
            packed = torchao(name, group_size=32, weight_dtype=kind, mapping_type=mapping)
            yield arranged(packed, file("torchao").ColumnsLayout), "triton_groups"


def tables() -> Iterator[Any]:
    """Values of four bits, and of codebooks."""
    module = file("bitsandbytes")
    for kind in ("nf4", "fp4"):
        for double in (False, True):
            options = {"bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double}
            config = module.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage="float16", **options)
            yield make(module.Linear4bit, config), "triton"
    nv = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
    nv["scale_dtype"] = "torch.float8_e4m3fn"
    mx = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
    yield compressed(nv), "triton_float4"
    yield compressed(mx), "triton_float4"
    yield compressed(mx, {**mx, "dynamic": True}), "triton_float4"
    fp4 = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}
    yield quark(fp4), "triton_float4"
    for sizes in ((8, 1, 1, 16), (8, 1, 2, 8), (4, 2, 3, 5)):
        yield aqlm(*sizes), "triton"


def eights() -> Iterator[Any]:
    """Weights of eight bits with a scale for each row, and of two; inputs plain or int8."""
    eetq, bitnet, bitsandbytes, quanto = (file(name) for name in ("eetq", "bitnet", "bitsandbytes", "quanto"))
    yield arranged(make(eetq.EetqLinear, eetq.EetqConfig("int8"), width=128), eetq.RowsLayout), "triton"
    for kind in ("bitlinear", "autobitlinear"):
        yield make(bitnet.BitLinear, bitnet.BitNetQuantConfig(linear_class=kind)), "triton"
    for threshold in (0.0, 2.5):
        for has_main in (False, True):
            options = {"llm_int8_threshold": threshold, "llm_int8_has_fp16_weight": has_main}
            config = bitsandbytes.BitsAndBytesConfig(load_in_8bit=True, **options)
            yield make(bitsandbytes.Linear8bitLt, config), "triton_int8"
    for kind in ("int8", "float8"):
        yield make(quanto.QuantoLinear, quanto.QuantoConfig(weights=kind)), "triton_int8"
    for name in ("int8_weight_only", "int8_dynamic_activation_int8_weight", "float8_weight_only"):
        yield torchao(name), "triton_int8"
    channel, token = {"strategy": "channel"}, {"strategy": "token", "dynamic": True}
    for weights, inputs in ((channel, None), (channel, token), ({"strategy": "tensor"}, {"strategy": "tensor"})):
        yield compressed({**weights, "num_bits": 8}, inputs, "int-quantized"), "triton_int8"
    yield quark({"dtype": "int8", "qscheme": "per_channel", "symmetric": True}), "triton_int8"


def float8() -> Iterator[Any]:
    """Weights and inputs of float8."""
    fp8, fbgemm = file("finegrained_fp8"), file("fbgemm_fp8")
    for size, form in (((32, 32), "float"), ((64, 96), "ue8m0"), ((1, 32), "ue8m0"), (None, "float")):
        for activations in ("dynamic", "static"):
            config = fp8.FineGrainedFP8Config(weight_block_size=size, scale_fmt=form, activation_scheme=activations)
            packed = make(fp8.FP8Linear, config)
            if activations == "static":
                packed.hold({**packed.stored_tensors(), "activation_scale": torch.tensor(0.005)})
            yield packed, "triton"
    yield make(fbgemm.FbgemmFp8Linear, fbgemm.FbgemmFp8Config(activation_scale_ub=2.0)), "triton"
    eight = {"num_bits": 8, "type": "float"}
    grouped = {**eight, "strategy": "group", "group_size": 32}
    exponents = {**grouped, "scale_dtype": "torch.uint8"}
    for weights, inputs in (
        ({**eight, "strategy": "tensor"}, {**eight, "strategy": "tensor"}),
        ({**eight, "strategy": "channel"}, {**eight, "strategy": "token", "dynamic": True}),
        ({**eight, "strategy": "block", "block_structure": [32, 32]}, {**grouped, "dynamic": True}),
        (exponents, {**exponents, "dynamic": True}),
    ):
        yield compressed(weights, inputs), "triton"


MANY = (20, torch.float32, 1e-6), (5, torch.float16, 2e-3)


def reference_row(layer: Any) -> Any:
    return next(row for row in layer.kernels if row.name == "torch")


def compare(cases: Iterator[Any]) -> int:
    """How many layers give the same by their kernel as by the row `torch` of their table, for one row, and for some or many."""
    torch.manual_seed(0)
    count = 0
    for packed, kernel in cases:
        module = sys.modules[type(packed).__module__]
        matmul = getattr(module, f"{kernel}_matmul")
        reference = getattr(module, reference_row(packed).entry)
        assert any(row.entry == matmul.__name__ for row in packed.kernels), packed
        for rows, dtype, tolerance in ((1, torch.float32, 1e-6), MANY[count % 2]):
            x = torch.randn(rows, 1, packed.in_features).to(dtype)
            with torch.no_grad():
                found, expected = matmul(packed, x), reference(packed, x)
            worst = ((found - expected).abs().max() / expected.abs().max()).item()
            assert found.dtype == dtype, packed
            assert found.shape == expected.shape, packed
            assert worst < tolerance, (packed, packed.state_dict(), rows, worst)
        count += 1
    return count


def keep_closures() -> None:
    """Makes Triton's interpreter see what a kernel takes from the function around it, as its compiler does."""
    from triton.runtime import interpreter

    def execute(self: Any, tree: Any) -> Any:
        closure = inspect.getclosurevars(self.fn).nonlocals
        closure = {
            name: value.value if type(value).__name__ == "constexpr" else value for name, value in closure.items()
        }
        scope = {**vars(interpreter), **self.fn.__globals__, **closure}
        self.fn.__globals__.setdefault("tl", scope["tl"])  # by which it finds what to replace
        exec(compile(tree, self.filename, "exec"), scope)
        return scope[self.fn.__name__]

    interpreter.FunctionRewriter._compile_and_exec = execute


if __name__ == "__main__":
    keep_closures()
    print(compare(globals()[sys.argv[1]]()))
