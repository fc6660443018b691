"""One quantized linear layer on a GPU, in bfloat16, by each kernel that is there, beside torch's product of bfloat16.

    python -m benchmarks.gpu_linear [--rows 1 4 16] [--json results.json]

A layer is there often enough that the GPU's cache cannot hold its weights; all of these run one after another in one CUDA graph,
as they do in a model, and the time of one is the graph's, divided. The weight's bytes over that time is the bandwidth. `eager` is
the time of one without a graph, which Python and torch need to start it.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unibody.bench.machine import describe_machine
from unibody.bench.tables import format_table

SHAPES = (4096, 4096), (11008, 4096), (4096, 11008), (4096, 14336)  # outputs and inputs
ROWS = 1, 4, 16, 32, 64, 256
CT = ("compressed_tensors", "CompressedTensorsHfQuantizer", "CompressedTensorsConfig")
AO = ("torchao", "TorchAoHfQuantizer", "TorchAoConfig")
BNB = {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_type": "nf4"}
LAYERS: dict[str, tuple[tuple[str, str, str], dict[str, Any], tuple[str, ...]]] = {  # with the kernels that are timed
    "GPTQ 4 bits, g=128": (
        ("gptq", "GPTQLinear", "GPTQConfig"),
        {"bits": 4, "group_size": 128},
        ("triton", "int4pack_cuda"),
    ),
    "GPTQ 3 bits, g=128": (("gptq", "GPTQLinear", "GPTQConfig"), {"bits": 3, "group_size": 128}, ("triton",)),
    "GPTQ 8 bits, g=128": (("gptq", "GPTQLinear", "GPTQConfig"), {"bits": 8, "group_size": 128}, ("triton",)),
    "AWQ, g=128": (("awq", "AWQLinear", "AwqConfig"), {}, ("triton",)),
    "HQQ 4 bits, g=64": (("hqq", "HQQLinear", "HqqConfig"), {}, ("triton",)),
    "NF4": (("bitsandbytes", "Linear4bit", "BitsAndBytesConfig"), BNB, ("bitsandbytes", "triton")),
    "LLM.int8, no outliers": (
        ("bitsandbytes", "Linear8bitLt", "BitsAndBytesConfig"),
        {"load_in_8bit": True, "llm_int8_threshold": 0.0},
        ("bitsandbytes", "triton_int8", "torch"),
    ),
    "EETQ": (("eetq", "EetqLinear", "EetqConfig"), {}, ("triton",)),
    "torchao int8, int8 inputs": (
        AO,
        {"quant_type": "int8_dynamic_activation_int8_weight"},
        ("int8_product", "triton_int8"),
    ),
    "fine-grained FP8": (("finegrained_fp8", "FP8Linear", "FineGrainedFP8Config"), {}, ("triton",)),
    "FBGEMM FP8": (("fbgemm_fp8", "FbgemmFp8Linear", "FbgemmFp8Config"), {}, ("scaled_mm", "triton")),
    "compressed-tensors NVFP4": (CT, {"config_groups": {"NVFP4A16": ["Linear"]}}, ("triton_float4",)),
    "BitNet": (("bitnet", "BitLinear", "BitNetQuantConfig"), {}, ("triton",)),
}


def make_layer(names: tuple[str, str, str], options: dict[str, Any], kernel: str, shape: tuple[int, int]) -> Any:
    """A layer of a generated file of random weights, forced to a kernel."""
    module = import_module(f"unibody.generated.quantizers.quantizer_{names[0]}")
    config = getattr(module, names[2])(**options)
    config.kernel = kernel
    linear = nn.Linear(shape[1], shape[0], bias=False, device="meta")
    maker = getattr(module, names[1])
    quantizer = names[1].endswith("Quantizer")
    packed = maker(config, pre_quantized=False).make_linear("layer", linear) if quantizer else maker(linear, config)
    weight = torch.randn(shape, device="cuda", generator=torch.Generator("cuda").manual_seed(0)) / shape[1] ** 0.5
    packed.hold(packed.quantize(weight.bfloat16()))
    packed.to("cuda").prepare(torch.device("cuda:0"), torch.bfloat16)
    return packed


def repeat(layer: Any, count: int) -> list[Any]:
    return [layer, *(copy.deepcopy(layer) for _ in range(count - 1))]


def graph_time(layers: list[Callable[[Tensor], Any]], x: Tensor, rounds: int = 7) -> float:
    """Seconds of one layer, of a graph of all; the median of some replays."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for layer in layers:
            layer(x)
    torch.cuda.synchronize()
    graph, found = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        for layer in layers:
            layer(x)
    for _ in range(rounds + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / 1e3 / len(layers))
    return statistics.median(found[2:])


def eager_time(layers: list[Callable[[Tensor], Any]], x: Tensor) -> float:
    """Seconds of one layer when Python starts each."""
    start = time.perf_counter()
    for _ in range(2):
        for layer in layers:
            layer(x)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(layers) / 2


@torch.no_grad()
def measure(shapes: Any, rows: Any, wanted: list[str] | None) -> list[dict[str, Any]]:
    """One entry for each shape, layer, kernel and number of rows."""
    cache = 4 * torch.cuda.get_device_properties(0).L2_cache_size
    found = []
    for shape in shapes:
        dense: dict[int, float] = {}
        for name, (names, options, kernels) in {"dense": ((), {}, ("torch",)), **LAYERS}.items():
            if wanted and name != "dense" and name not in wanted:
                continue
            for kernel in kernels:
                try:
                    if name == "dense":
                        layer = nn.Linear(shape[1], shape[0], bias=False, device="cuda", dtype=torch.bfloat16)
                    else:
                        layer = make_layer(names, options, kernel, shape)  # type: ignore[arg-type]
                except (RuntimeError, ValueError) as error:
                    print(f"{name}, {shape[0]} x {shape[1]}: {error}")
                    continue
                nbytes = sum(tensor.nbytes for tensor in (*layer.buffers(), *layer.parameters()))
                layers = repeat(layer, max(2, math.ceil(cache / nbytes)))
                for count in rows:
                    x = torch.randn(count, shape[1], device="cuda").bfloat16()
                    seconds = graph_time(layers, x)
                    dense.setdefault(count, seconds)
                    found.append({
                        "layer": name, "kernel": kernel, "outputs": shape[0], "inputs": shape[1], "rows": count,
                        "microseconds": 1e6 * seconds, "gigabytes_per_second": nbytes / seconds / 1e9,
                        "of_dense": seconds / dense[count], "eager_microseconds": 1e6 * eager_time(layers, x),
                    })  # fmt: skip
                del layer, layers
    return found


def report(found: list[dict[str, Any]]) -> str:
    """The results as Markdown, a table for each shape."""
    parts = []
    for shape in dict.fromkeys((entry["outputs"], entry["inputs"]) for entry in found):
        here = [entry for entry in found if (entry["outputs"], entry["inputs"]) == shape]
        counts = list(dict.fromkeys(entry["rows"] for entry in here))
        rows = []
        for key in dict.fromkeys((entry["layer"], entry["kernel"]) for entry in here):
            of = {entry["rows"]: entry for entry in here if (entry["layer"], entry["kernel"]) == key}
            cells = [f"{of[m]['microseconds']:.1f} ({of[m]['of_dense']:.2f})" if m in of else "" for m in counts]
            first = of[counts[0]]
            speed = f"{first['gigabytes_per_second'] / 1e3:.2f} TB/s"
            rows.append([*key, *cells, speed, f"{first['eager_microseconds']:.0f}"])
        heads = ["layer", "kernel", *(f"M={m}" for m in counts), f"bytes, M={counts[0]}", "eager"]
        parts.append(f"{shape[0]} x {shape[1]}\n\n{format_table(heads, rows)}")
    return "\n\n".join(parts)


def describe_gpu() -> dict[str, Any]:
    import triton

    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_linear")
    parser.add_argument("--shapes", nargs="+", type=lambda text: tuple(map(int, text.split("x"))), default=SHAPES)
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS, help="of inputs")
    parser.add_argument("--layers", nargs="+", help="their names; all, if none is given")
    parser.add_argument("--json", type=Path, help="file for the single measurements")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch finds no GPU that it can use")
    gpu, found = describe_gpu(), measure(options.shapes, options.rows, options.layers)
    print(f"{gpu['gpu']}, torch {gpu['torch']}, Triton {gpu['triton']}, CUDA {gpu['cuda']}\n\n{report(found)}")
    if options.json:
        machine = {**describe_machine(), **gpu}
        options.json.write_text(json.dumps({"machine": machine, "results": found}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
