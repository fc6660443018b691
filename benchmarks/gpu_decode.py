"""Tokens a second of a model of SmolLM2-135M's shape on a GPU, with random weights in bfloat16, plain and quantized.

    python -m benchmarks.gpu_decode [--tokens 64] [--transformers]

One sequence, greedy, after a prompt of 128 tokens. `eager` is `generate`. `graph` is one pass of one token, captured in a
CUDA graph and replayed: what the GPU itself needs, without a cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import unibody
from benchmarks.gpu_linear import describe_gpu
from unibody.bench.tables import format_table

FOUR = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {  # configuration and its options
    "bfloat16": ("", {}),
    "NF4": ("BitsAndBytesConfig", FOUR),
    "NF4, without its package": ("BitsAndBytesConfig", {**FOUR, "kernel": "triton"}),
    "4 bits in GPTQ's form, rounded, g=64": ("AutoRoundConfig", {"group_size": 64, "iters": 0}),
    "HQQ 4 bits, g=64": ("HqqConfig", {}),
    "EETQ": ("EetqConfig", {}),
}


def make_model(folder: Path) -> None:
    torch.manual_seed(0)
    config = unibody.LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    unibody.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)


def speed(model: Any, tokens: int) -> float:
    """Tokens a second after the first, the best of three runs."""
    ids = torch.randint(0, 49152, (1, 128), device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    found = []
    for _ in range(3):
        times = []
        for count in (1, tokens + 1):
            torch.cuda.synchronize()
            start = time.perf_counter()
            model.generate(ids, max_new_tokens=count, min_new_tokens=count, do_sample=False)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        found.append(tokens / (times[1] - times[0]))
    return max(found)


@torch.no_grad()
def graph_speed(model: Any) -> float:
    """Steps of one token a second, without a cache's growth: the layers and the head, replayed from a CUDA graph."""
    ids = torch.zeros(1, 1, dtype=torch.long, device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(ids, use_cache=False)
    torch.cuda.synchronize()
    graph, found = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        model(ids, use_cache=False)
    for _ in range(20):
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return 1 / statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_decode")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--transformers", action="store_true", help="measure the plain model by transformers, too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch finds no GPU that it can use")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        plain = Path(name)
        make_model(plain)
        for method, (config, settings) in METHODS.items():
            chosen = {"quantization_config": getattr(unibody, config)(**settings)} if config else {}
            model = unibody.AutoModelForCausalLM.from_pretrained(
                plain, dtype=torch.bfloat16, device_map="cuda", **chosen
            )
            layers = [layer.kernel for layer in model.modules() if hasattr(layer, "stored_tensors")]
            eager, replayed = speed(model, options.tokens), graph_speed(model)
            rows.append([method, layers[0] if layers else "", f"{eager:.0f}", f"{replayed:.0f}"])
        if options.transformers:
            import transformers

            model = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.bfloat16).cuda()
            rows.append(["bfloat16, transformers", "", f"{speed(model, options.tokens):.0f}", ""])
    gpu = describe_gpu()
    print(f"{gpu['gpu']}, torch {gpu['torch']}, Triton {gpu['triton']}\n")
    print(format_table(["model", "kernel", "eager, tokens/s", "graph, steps/s"], rows))


if __name__ == "__main__":
    main()
