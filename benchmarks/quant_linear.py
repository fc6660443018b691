"""One quantized linear layer, 2048 x 2048 in bfloat16 on one thread, against the method's own package in the same process.

    python -m benchmarks.quant_linear [--rounds 40] [--only NF4 LLM.int8] [--output benchmarks/results]

Ours and the reference take turns; the ratio is the median of the rounds' ratios, below 1 where ours is faster. gptqmodel's CPU kernel
for 4-bit groups is torch's own product, `_weight_int4pack_mm_for_cpu`, so that bare call stands for it (and for AWQ's and AutoRound's).
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor, nn

from benchmarks.measure import cpu_seconds, median_ratio, take_turns, write_results
from unibody.bench.machine import describe_machine
from unibody.bench.tables import format_table

SIZE = 2048
Product = Callable[[Tensor], Any]


def ours(method: str, layer: str, config: Any, **options: Any) -> Product:
    """A layer of a generated file, quantized from the same weight; `layer` may name the quantizer that chooses one."""
    from importlib import import_module

    module = import_module(f"unibody.generated.quantizers.quantizer_{method}")
    settings, linear = getattr(module, config)(**options), nn.Linear(SIZE, SIZE, bias=False)
    if layer.endswith("Quantizer"):
        packed = getattr(module, layer)(settings, pre_quantized=False).make_linear("layer", linear)
    else:
        packed = getattr(module, layer)(linear, settings)
    packed.hold(packed.quantize(weight()))
    return packed  # type: ignore[no-any-return]


def weight() -> Tensor:
    return torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0)).bfloat16()


def int4pack(group: int = 64) -> Product:
    """The bare call of torch's kernel."""
    codes = torch.randint(0, 16, (SIZE, SIZE), dtype=torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    groups = torch.rand(SIZE // group, SIZE, 2).bfloat16()
    return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group, groups)


def bitsandbytes(**options: Any) -> Product:
    import bitsandbytes as bnb

    if "quant_type" in options:
        layer = bnb.nn.Linear4bit(
            SIZE, SIZE, False, compute_dtype=torch.bfloat16, compress_statistics=False, **options
        )
        layer.weight = bnb.nn.Params4bit(weight(), requires_grad=False, compress_statistics=False, **options)
    else:
        layer = bnb.nn.Linear8bitLt(SIZE, SIZE, False, has_fp16_weights=False, **options)
        layer.weight = bnb.nn.Int8Params(weight(), requires_grad=False, has_fp16_weights=False)
    return layer.to("cpu").eval()  # type: ignore[no-any-return]


def hqq(bits: int) -> Product:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    linear = nn.Linear(SIZE, SIZE, bias=False)
    linear.weight.data = weight()
    config = BaseQuantizeConfig(nbits=bits, group_size=64, axis=1)
    return HQQLinear(linear, config, compute_dtype=torch.bfloat16, device="cpu")  # type: ignore[no-any-return]


def quanto(kind: str) -> Product:
    from optimum import quanto

    linear = nn.Linear(SIZE, SIZE, bias=False)
    linear.weight.data = weight()
    layer = quanto.QLinear.from_module(linear, weights=getattr(quanto, kind))
    layer.freeze()
    return layer  # type: ignore[no-any-return]


def scaled_blocks() -> Product:
    """Fine-grained FP8 with torch's conversions: transformers has no CPU kernel that could be run."""
    blocks = weight().float().view(SIZE // 128, 128, SIZE // 128, 128)
    scales = blocks.abs().amax((1, 3), keepdim=True) / 448
    codes = (blocks / scales).to(torch.float8_e4m3fn)

    def product(x: Tensor) -> Tensor:
        groups = x.float().unflatten(-1, (-1, 128))
        each = groups.abs().amax(-1, keepdim=True) / 448
        inputs = (groups / each).to(torch.float8_e4m3fn).float() * each
        return nn.functional.linear(inputs.flatten(-2), (codes.float() * scales).view(SIZE, SIZE)).to(x.dtype)

    return product


def scaled_rows() -> Product:
    """FBGEMM FP8 and compressed-tensors' with torch's conversions."""
    scales = weight().float().abs().amax(1, keepdim=True) / 448
    codes = (weight().float() / scales).to(torch.float8_e4m3fn)

    def product(x: Tensor) -> Tensor:
        each = x.float().abs().amax(-1, keepdim=True) / 448
        inputs = (x.float() / each).to(torch.float8_e4m3fn).float() * each
        return nn.functional.linear(inputs, codes.float() * scales).to(x.dtype)

    return product


def plain_int8() -> Product:
    """An int8 weight, converted and multiplied."""
    scales = weight().float().abs().amax(1) / 128
    codes = (weight().float() / scales[:, None]).round().clamp(-128, 127).to(torch.int8)
    return lambda x: nn.functional.linear(x, codes.to(x.dtype)) * scales.to(x.dtype)


def torchao(config: Callable[[Any], Any]) -> Product:
    import torchao.quantization as ao

    model = nn.Sequential(nn.Linear(SIZE, SIZE, bias=False, dtype=torch.bfloat16))
    model[0].weight = nn.Parameter(weight())
    ao.quantize_(model, config(ao))
    return model[0]  # type: ignore[no-any-return]


def compressed(scheme: str) -> Product:
    """The library's module, which dequantizes its weight and rounds its inputs in each pass."""
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme

    model = nn.Sequential(nn.Linear(SIZE, SIZE, bias=False, dtype=torch.bfloat16))
    groups = {"group": preset_name_to_scheme(scheme, ["Linear"])}
    apply_quantization_config(model, QuantizationConfig(config_groups=groups))
    model[0].weight.data = weight()
    model[0].weight_scale.data = (weight().abs().amax(1, keepdim=True) / 127.5).to(model[0].weight_scale.dtype)
    return model[0]  # type: ignore[no-any-return]


def bitnet() -> Product:
    """transformers' layer, which compiles itself when it is first run."""
    from transformers.integrations.bitnet import BitLinear, pack_weights

    layer = BitLinear(SIZE, SIZE, bias=False, dtype=torch.bfloat16)
    mean = weight().abs().mean()
    layer.weight, layer.weight_scale = pack_weights((weight() / mean).round().clamp(-1, 1)), (1 / mean).view(1)
    layer(torch.ones(1, SIZE).bfloat16())
    layer(torch.ones(32, SIZE).bfloat16())
    return layer  # type: ignore[no-any-return]


FOUR = {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}
CT = ("compressed_tensors", "CompressedTensorsHfQuantizer", "CompressedTensorsConfig")
AO = ("torchao", "TorchAoHfQuantizer", "TorchAoConfig")
PAIRS: dict[str, tuple[Callable[[], Product], Callable[[], Product]]] = {
    "GPTQ 4 bits, g=64": (lambda: ours("gptq", "GPTQLinear", "GPTQConfig", bits=4, group_size=64), int4pack),
    "AWQ 4 bits, g=64": (lambda: ours("awq", "AWQLinear", "AwqConfig", group_size=64), int4pack),
    "AutoRound 4 bits, g=64": (
        lambda: ours("autoround", "AutoRoundLinear", "AutoRoundConfig", group_size=64),
        int4pack,
    ),
    "HQQ 4 bits, g=64": (lambda: ours("hqq", "HQQLinear", "HqqConfig"), lambda: hqq(4)),
    "HQQ 8 bits, g=64": (lambda: ours("hqq", "HQQLinear", "HqqConfig", nbits=8), lambda: hqq(8)),
    "HQQ 3 bits, g=64": (lambda: ours("hqq", "HQQLinear", "HqqConfig", nbits=3), lambda: hqq(3)),
    "Quanto int8": (lambda: ours("quanto", "QuantoLinear", "QuantoConfig"), lambda: quanto("qint8")),
    "Quanto int4": (lambda: ours("quanto", "QuantoLinear", "QuantoConfig", weights="int4"), lambda: quanto("qint4")),
    "Quanto float8": (
        lambda: ours("quanto", "QuantoLinear", "QuantoConfig", weights="float8"),
        lambda: quanto("qfloat8"),
    ),
    "fine-grained FP8": (lambda: ours("finegrained_fp8", "FP8Linear", "FineGrainedFP8Config"), scaled_blocks),
    "FBGEMM FP8": (lambda: ours("fbgemm_fp8", "FbgemmFp8Linear", "FbgemmFp8Config"), scaled_rows),
    "EETQ": (lambda: ours("eetq", "EetqLinear", "EetqConfig"), plain_int8),
    "compressed-tensors W4A16, g=128": (lambda: ours(*CT, config_groups={"W4A16": ["Linear"]}), lambda: int4pack(128)),
    "compressed-tensors W8A8": (lambda: ours(*CT, config_groups={"W8A8": ["Linear"]}), lambda: compressed("W8A8")),
    "compressed-tensors FP8": (lambda: ours(*CT, config_groups={"FP8_DYNAMIC": ["Linear"]}), scaled_rows),
    "torchao int8": (
        lambda: ours(*AO, quant_type="int8_weight_only"),
        lambda: torchao(lambda ao: ao.Int8WeightOnlyConfig()),
    ),
    "torchao int8, int8 inputs": (
        lambda: ours(*AO, quant_type="int8_dynamic_activation_int8_weight"),
        lambda: torchao(lambda ao: ao.Int8DynamicActivationInt8WeightConfig()),
    ),
    "torchao int4 g=32, int8 inputs": (
        lambda: ours(*AO, quant_type="int8_dynamic_activation_int4_weight"),
        lambda: torchao(lambda ao: ao.Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4)),
    ),
    "torchao float8": (
        lambda: ours(*AO, quant_type="float8_weight_only"),
        lambda: torchao(lambda ao: ao.Float8WeightOnlyConfig()),
    ),
    "BitNet": (lambda: ours("bitnet", "BitLinear", "BitNetQuantConfig"), bitnet),
    "LLM.int8": (
        lambda: ours("bitsandbytes", "Linear8bitLt", "BitsAndBytesConfig", load_in_8bit=True),
        lambda: bitsandbytes(threshold=6.0),
    ),
    "NF4": (
        lambda: ours("bitsandbytes", "Linear4bit", "BitsAndBytesConfig", bnb_4bit_quant_type="nf4", **FOUR),
        lambda: bitsandbytes(quant_type="nf4"),
    ),
    "NF4, without its package": (
        lambda: ours(
            *("bitsandbytes", "Linear4bit", "BitsAndBytesConfig"),
            bnb_4bit_quant_type="nf4",
            kernel="table_cpu",
            **FOUR,
        ),
        lambda: bitsandbytes(quant_type="nf4"),
    ),
}


def measure(rounds: int, only: list[str] | None = None) -> dict[str, Any]:
    """Seconds of CPU time of each side, for 1 and 32 rows of input."""
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    plain = nn.Linear(SIZE, SIZE, bias=False).bfloat16()
    pairs = {name: pair for name, pair in PAIRS.items() if not only or any(part in name for part in only)}
    for name, pair in {**pairs, "(bfloat16, F.linear)": (lambda: plain, lambda: plain)}.items():
        layers = {"ours": pair[0](), "reference": pair[1]()}
        for rows in (1, 32):
            x = torch.randn(rows, SIZE).bfloat16()

            def product(layer: Product, x: Tensor = x) -> float:
                with torch.no_grad():
                    return cpu_seconds(lambda: layer(x))

            runs = {side: (lambda layer=layer, product=product: product(layer)) for side, layer in layers.items()}
            results[f"{name}, M={rows}"] = take_turns(runs, rounds) | {"kernel": getattr(layers["ours"], "kernel", "")}
    return results


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = []
    for name, found in results.items():
        ours, reference = (f"{statistics.median(found[side]) * 1e3:.2f} ms" for side in ("ours", "reference"))
        rows.append(
            [name, ours, reference, f"{median_ratio(found['ours'], found['reference']):.2f}x", found["kernel"]]
        )
    return format_table(["layer", "ours", "reference", "ratio", "kernel"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quant_linear")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", nargs="*", metavar="LAYER", help="parts of layers' names")
    parser.add_argument("--output", type=Path, help="folder for the single measurements as JSON")
    options = parser.parse_args()
    machine, results = describe_machine(), measure(options.rounds, options.only)
    print(f"{machine['cpu']}; one thread; Python {machine['python_version']}\n\n{report(results)}")
    write_results(options.output, "quant_linear", results)


if __name__ == "__main__":
    main()
