"""The generated Llama against the one of transformers, at the shape of SmolLM2-135M, on one thread.

Both read the same folder of random weights, both run with their defaults (SDPA, a growing cache), in turns, and must
give the same tokens. Times are CPU times: on one thread a process that waits for its turn is not charged for it.
"""

from __future__ import annotations

import gc
import importlib
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import bandwidth, cpu_seconds, median_ratio, run_process, take_turns
from unibody.bench.tables import format_table

SHAPE: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "tie_word_embeddings": True,
    "initializer_range": 0.04,
    "bos_token_id": None,
    "eos_token_id": None,  # nothing ends the text before its time
    "pad_token_id": 0,
}
PROMPT, NEW = 128, 64
TARGETS = {"decode": 1.05, "prefill 128": 1.0, "prefill 512": 1.0, "load": 1.5, "cold process": 2.5}
OURS, THEIRS = "unibody", "transformers"


class Stopwatch:
    """A streamer that notes the CPU time at which each token arrives."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, tokens: Any) -> None:
        self.times.append(time.process_time())

    def end(self) -> None:
        pass


def measure(rounds: int, dtype: str, module: str) -> dict[str, Any]:
    """Returns for each measurement the seconds of both sides by round, and what the table is made of."""
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        rivals = {OURS: importlib.import_module(module).LlamaForCausalLM, THEIRS: transformers.LlamaForCausalLM}
        config = transformers.LlamaConfig(**SHAPE)
        transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
        models = {name: rival.from_pretrained(folder) for name, rival in rivals.items()}
        assert all(str(model.dtype) == f"torch.{dtype}" for model in models.values())

        results = {"decode": time_decoding(models, rounds)}
        for length in (128, 512):
            results[f"prefill {length}"] = time_prefill(models, length, rounds)
        results["load"] = time_loading(rivals, folder, rounds)
        results["cold process"], walls = time_processes(folder, module, rounds)
        return {
            "rounds": rounds,
            "dtype": dtype,
            "seconds": results,
            "ratios": {name: median_ratio(sides[THEIRS], sides[OURS]) for name, sides in results.items()},
            "targets": TARGETS,
            "cold process, wall seconds": walls,
            "roof": measure_roof(models[OURS], results["decode"][OURS], rounds),
        }


def time_decoding(models: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Returns CPU seconds per token: those between the first token after the prompt and the 64 that follow it."""
    import torch

    prompt = torch.randint(5, SHAPE["vocab_size"], (1, PROMPT))
    tokens = {}

    def decode(name: str) -> float:
        watch = Stopwatch()
        options = {"max_new_tokens": NEW + 1, "do_sample": False, "streamer": watch}
        tokens[name] = models[name].generate(prompt, attention_mask=torch.ones_like(prompt), **options).tolist()
        return (watch.times[-1] - watch.times[-1 - NEW]) / NEW

    times = take_turns({name: partial(decode, name) for name in models}, rounds)
    check_equal(tokens)
    return times


def time_prefill(models: dict[str, Any], length: int, rounds: int) -> dict[str, list[float]]:
    """Returns CPU seconds of one forward pass over a prompt that fills a cache and gives the last token's logits."""
    import torch

    prompt = torch.randint(5, SHAPE["vocab_size"], (1, length))
    tokens = {}

    def prefill(name: str) -> float:
        with torch.inference_mode():
            start = time.process_time()
            outputs = models[name](prompt, use_cache=True, logits_to_keep=1)
            elapsed = time.process_time() - start
        tokens[name] = outputs.logits.argmax(-1).tolist()
        return elapsed

    times = take_turns({name: partial(prefill, name) for name in models}, rounds)
    check_equal(tokens)
    return times


def time_loading(rivals: dict[str, Any], folder: str, rounds: int) -> dict[str, list[float]]:
    """Returns CPU seconds of from_pretrained; the file is in the system's cache, and both sides map it into memory."""

    def load(rival: Any) -> float:
        gc.collect()  # of the model before, which may be the other side's
        start = time.process_time()
        model = rival.from_pretrained(folder)
        elapsed = time.process_time() - start
        assert model.config.num_hidden_layers == SHAPE["num_hidden_layers"]
        return elapsed

    return take_turns({name: partial(load, rival) for name, rival in rivals.items()}, rounds)


def time_processes(folder: str, module: str, rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns CPU and wall seconds of processes that import, load and generate; and of `import torch` alone."""
    root = Path(__file__).parents[1]
    commands = {
        OURS: [sys.executable, "-m", "benchmarks.first_tokens", module, folder],
        THEIRS: [sys.executable, "-m", "benchmarks.first_tokens", "transformers", folder],
        "import torch": [sys.executable, "-c", "import torch"],
    }
    runs = {name: partial(run_process, command, root) for name, command in commands.items()}
    results = take_turns(runs, rounds)
    check_equal({name: results[name][0][2] for name in (OURS, THEIRS)})
    cpu = {name: [seconds for seconds, _, _ in turns] for name, turns in results.items()}
    return cpu, {name: [wall for _, wall, _ in turns] for name, turns in results.items()}


def check_equal(tokens: dict[str, Any]) -> None:
    if tokens[OURS] != tokens[THEIRS]:
        raise AssertionError(f"the two sides differ, so their times mean nothing:\n{tokens[OURS]}\n{tokens[THEIRS]}")


def measure_roof(model: Any, decode: list[float], rounds: int) -> dict[str, float]:
    """Returns how fast weights can be read at all, and how fast the matrix products alone read them.

    Each weight is read once for a token; the cache (under 2 % of that here) is left out. Products are those that the
    models use (F.linear, for float32 MKL's) and, to compare, those of oneDNN.
    """
    import torch
    import torch.nn.functional as F

    weights = list({id(weight): weight.detach() for weight in model.parameters()}.values())
    size = sum(weight.nbytes for weight in weights)
    pairs = [(weight, weight.new_ones(1, weight.shape[1])) for weight in weights if weight.dim() == 2]

    def multiply(product: Any) -> float:
        with torch.inference_mode():
            return cpu_seconds(lambda: [product(vector, weight) for weight, vector in pairs])

    def onednn(vector: Any, weight: Any) -> Any:
        return torch.ops.mkldnn._linear_pointwise(vector, weight, None, "none", [], "")

    runs: dict[str, Callable[[], float]] = {"read": bandwidth(), "multiply": partial(multiply, F.linear)}
    if torch.backends.mkldnn.is_available():
        runs["onednn"] = partial(multiply, onednn)
    times = take_turns(runs, rounds)
    read, products = statistics.median(times["read"]), size / statistics.median(times["multiply"])
    reached = size / statistics.median(decode)
    return {
        "weight bytes per token": size,
        "read bytes per second": read,
        "products bytes per second": products,
        "onednn bytes per second": size / statistics.median(times["onednn"]) if "onednn" in times else math.nan,
        "roof tokens per second": read / size,
        "products tokens per second": products / size,
        "decode tokens per second": reached / size,
        "fraction of roof": reached / read,
        "fraction of products": reached / products,
    }


def report(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    rows = []
    for name, sides in results["seconds"].items():
        ours, theirs = (f"{statistics.median(sides[side]) * 1e3:,.1f} ms" for side in (OURS, THEIRS))
        ratio, target = results["ratios"][name], results["targets"][name]
        rows.append([name, ours, theirs, f"{ratio:.2f}x", f"{target:.2f}x", "yes" if ratio >= target else "no"])
    walls = {name: statistics.median(times) for name, times in results["cold process, wall seconds"].items()}
    alone = statistics.median(results["seconds"]["cold process"]["import torch"])
    roof = results["roof"]
    read, products = roof["read bytes per second"] / 1e9, roof["products bytes per second"] / 1e9
    lines = [
        format_table(["CPU time", OURS, THEIRS, "ratio", "target", "reached"], rows),
        "",
        f"Decode: per token. Cold process: {walls[OURS]:.2f} s against {walls[THEIRS]:.2f} s of wall time; "
        f"`import torch` alone takes {alone * 1e3:,.0f} ms of CPU time.",
        "",
        f"Roof of decoding: {roof['weight bytes per token'] / 1e6:.0f} MB of weights per token, read at {read:.1f} GB/s "
        f"(torch.sum): {roof['roof tokens per second']:.1f} tokens/s;",
        f"reached: {roof['decode tokens per second']:.1f}, {roof['fraction of roof']:.0%} of it. The bare matrix products "
        f"(F.linear) read at {products:.1f} GB/s:",
        f"{roof['products tokens per second']:.1f} tokens/s, of which {roof['fraction of products']:.0%} are reached. oneDNN's products read at {roof['onednn bytes per second'] / 1e9:.1f} GB/s.",
    ]
    return "\n".join(lines)
