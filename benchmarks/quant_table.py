"""Every quantization method on a real model: SmolLM2-135M, quantized by `unibody quantize`, and what is left of it.

    python -m benchmarks.quant_table                  # quantizes, measures and prints the table; an hour
    python -m benchmarks.quant_table --only gptq awq  # some of the methods
    python -m benchmarks.quant_table --resume build/table.json   # what that file has is not measured again, the rest is added
    python -m benchmarks.quant_table --output benchmarks/results --plot docs/quantization.svg

The weights come from a file of 4-bit blocks and lie on its grid, so that round-to-nearest would seem to lose nothing. They are
moved off it first, which leaves the function as it is: random factors of each channel, e^±0.1, go from one matrix into the next.
Perplexity is that of 8 windows of 256 tokens of Python's language reference in float32 (4-bit bitsandbytes: in its own compute
type, bfloat16), calibration takes other pages of it. Load, speed and memory are those of a process of its own, in bfloat16: the
peak of making is the whole process's, Python and torch included; that of loading is what it adds to them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pydoc_data.topics
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file, save_file

from benchmarks.measure import write_results
from unibody.bench.backends.library import UnibodyBackend
from unibody.bench.machine import describe_machine
from unibody.bench.scenarios.perplexity import perplexity, text_windows
from unibody.bench.tables import format_table

ROOT = Path(__file__).parents[1]
TOPICS = [" ".join(pydoc_data.topics.topics[name].split()) for name in sorted(pydoc_data.topics.topics)]
CALIBRATED = ("--model-seqlen", "256")


def compressed(scheme: str) -> tuple[str, ...]:
    return "compressed-tensors", "--ignore", '["lm_head"]', "--config-groups", f'{{"{scheme}": ["Linear"]}}'


METHODS: dict[str, tuple[str, ...]] = {
    "bitsandbytes int8": ("bitsandbytes", "--load-in-8bit"),
    "bitsandbytes NF4": ("bitsandbytes", "--load-in-4bit", "--bnb-4bit-quant-type", "nf4"),
    "bitsandbytes NF4, double": (
        *("bitsandbytes", "--load-in-4bit", "--bnb-4bit-quant-type", "nf4", "--bnb-4bit-use-double-quant"),
    ),
    "bitsandbytes FP4": ("bitsandbytes", "--load-in-4bit"),
    "quanto int8": ("quanto", "--weights", "int8"),
    "quanto float8": ("quanto", "--weights", "float8"),
    "quanto int4, g=96 and 128": ("quanto", "--weights", "int4"),
    "hqq 4 bits, g=64": ("hqq", "--nbits", "4"),
    "hqq 3 bits, g=64": ("hqq", "--nbits", "3"),
    "fine-grained FP8, 64 × 64": ("fp8", "--weight-block-size", "[64, 64]"),
    "FBGEMM FP8": ("fbgemm_fp8",),
    "EETQ int8": ("eetq",),
    "torchao int8, int8 inputs": ("torchao", "--quant-type", "int8_dynamic_activation_int8_weight"),
    "torchao 4 bits, g=32, int8 inputs": (
        *("torchao", "--quant-type", "int8_dynamic_activation_int4_weight", "--group-size", "32"),
    ),
    "compressed-tensors W8A8": compressed("W8A8"),
    "compressed-tensors W4A16, g=64": (
        *("compressed-tensors", "--ignore", '["lm_head"]', "--config-groups"),
        '{"group": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 64}}}',
    ),
    "compressed-tensors FP8": compressed("FP8_DYNAMIC"),
    "compressed-tensors NVFP4, weights": compressed("NVFP4A16"),
    "compressed-tensors MXFP4, weights": compressed("MXFP4A16"),
    "Quark 4 bits, g=64": (
        *("quark", "--exclude", '["lm_head"]', "--global-quant-config"),
        '{"weight": {"dtype": "uint4", "qscheme": "per_group", "group_size": 64, "symmetric": false}}',
    ),
    "BitNet, not trained for it": ("bitnet",),
    "round-to-nearest 4 bits, g=64": ("auto-round", "--bits", "4", "--group-size", "64", "--iters", "0"),
    "round-to-nearest 3 bits, g=64": ("auto-round", "--bits", "3", "--group-size", "64", "--iters", "0"),
    "gptq 4 bits, g=64": ("gptq", "--bits", "4", "--group-size", "64", *CALIBRATED),
    "gptq 3 bits, g=64": ("gptq", "--bits", "3", "--group-size", "64", *CALIBRATED),
    "awq 4 bits, g=64": ("awq", "--group-size", "64", *CALIBRATED),
    "auto-round 4 bits, g=64, 20 steps": (
        *("auto-round", "--bits", "4", "--group-size", "64", "--iters", "20", "--nsamples", "4", "--seqlen", "256"),
        *("--batch-size", "4"),
    ),
}
NEEDS_DATA = ("gptq", "awq", "auto-round")


def write_model(folder: Path) -> None:
    """Writes SmolLM2-135M with its weights off the grid that they come from."""
    spec = importlib.util.spec_from_file_location("smollm2_example", ROOT / "examples/smollm2.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.write_checkpoint(example.find_gguf(), folder)
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    move_off_grid(tensors, config["num_attention_heads"] // config["num_key_value_heads"], config["head_dim"])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def move_off_grid(tensors: dict[str, torch.Tensor], queries_per_key: int, head: int) -> None:
    """Moves a random factor of each channel from what makes it to what reads it; what the model computes stays."""
    generator = torch.Generator().manual_seed(0)

    def factors(count: int) -> torch.Tensor:
        return (0.2 * torch.rand(count, generator=generator) - 0.1).exp()

    for i in range(1 + max(int(name.split(".")[2]) for name in tensors if ".layers." in name)):
        layer = {name.removeprefix(f"model.layers.{i}."): t for name, t in tensors.items() if f".layers.{i}." in name}
        for norm, readers in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            scale = factors(len(layer[f"{norm}.weight"]))
            layer[f"{norm}.weight"].mul_(scale)
            for reader in readers:
                layer[f"{reader}.weight"].div_(scale)
        scale = factors(len(layer["mlp.up_proj.weight"]))
        layer["mlp.up_proj.weight"].mul_(scale[:, None])
        layer["mlp.down_proj.weight"].div_(scale)
        scale = factors(len(layer["self_attn.v_proj.weight"]))
        layer["self_attn.v_proj.weight"].mul_(scale[:, None])
        layer["self_attn.o_proj.weight"].div_(scale.view(-1, 1, head).expand(-1, queries_per_key, -1).flatten())


def run(*command: str) -> tuple[str, float, float]:
    """What a program prints, its wall seconds and its peak memory in MB."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    return output, time.perf_counter() - start, usage.ru_maxrss / 1024


def peak_megabytes() -> float:
    """The most memory that this process has held so far, pages of mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def evaluate(folder: Path) -> dict[str, Any]:
    """Perplexity, size, load time and speed of a checkpoint."""
    from tokenizers import Tokenizer

    import unibody
    from unibody.quantize import count_layers

    start, before = time.perf_counter(), peak_megabytes()
    model = unibody.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    load, load_peak = time.perf_counter() - start, peak_megabytes() - before
    count = count_layers(model)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = torch.tensor(tokenizer.encode(" ".join(TOPICS[:20])).ids)
    prompt = ids[None, :32]
    model.generate(prompt, max_new_tokens=4)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        model.generate(prompt, max_new_tokens=16)
        times.append(time.perf_counter() - start)
    kernels = sorted({layer.kernel for layer in model.modules() if hasattr(layer, "stored_tensors")})
    del model
    backend = UnibodyBackend({})
    backend.load(folder, {"auto_class": "AutoModelForCausalLM", "dtype": torch.float32})
    losses = backend.losses(text_windows(folder, 8, 256))
    return {
        "perplexity": perplexity(losses),
        "quantized": count.layers,
        "layers": count.all_layers,
        "bits per weight": count.bits_per_weight if count.layers else 32,
        "megabytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6,
        "load seconds": load,
        "load peak megabytes": load_peak,
        "tokens per second": 16 / sorted(times)[1],
        "kernels": kernels,
    }


def measure(names: list[str], file: Path | None = None) -> dict[str, dict[str, Any]]:
    """The results of each method, by its name in the table; those in the file are taken from it, the others added to it."""
    known: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {}
    results = {name: known[name] for name in ("none", *names) if name in known}
    with tempfile.TemporaryDirectory() as scratch:
        plain, data = Path(scratch, "plain"), Path(scratch, "calibration.txt")
        run("-m", "benchmarks.quant_table", "--write", str(plain))  # its memory would count as the others'
        data.write_text(
            "\n\n".join(text[:4000] for text in TOPICS[20:] if len(text) > 1500)[:64_000], encoding="utf-8"
        )
        for name in (name for name in ("none", *names) if name not in known):
            folder, made = plain, (0.0, 0.0)
            if name != "none":
                method, *options = METHODS[name]
                folder = Path(scratch, "quantized")
                needed = ("--dataset", str(data)) if method in NEEDS_DATA and "0" not in options else ()
                more = ("--bnb-4bit-compute-dtype", "bfloat16") if "--load-in-4bit" in options else ()
                command = ("-m", "unibody", "quantize", str(plain), method, str(folder), *options, *needed, *more)
                made = run(*command, "--dtype", "bfloat16")[1:]
            output, _, memory = run("-m", "benchmarks.quant_table", "--evaluate", str(folder))
            results[name] = json.loads(output) | {
                "quantize seconds": made[0],
                "quantize peak megabytes": made[1],
                "peak megabytes": memory,
            }
            print(name, results[name], file=sys.stderr, flush=True)
            if file:
                file.write_text(json.dumps({**known, **results}, indent=1), encoding="utf-8")
            if name != "none":
                for written in folder.iterdir():
                    written.unlink()
    return {name: results[name] for name in ("none", *names)}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results in Markdown."""
    head = ["method", "perplexity", "bits", "quantized", "MB", "made in", "its peak", "load", "its peak", "tokens/s"]
    rows = []
    for name, found in results.items():
        rows.append(
            [
                name,
                f"{found['perplexity']:.2f}",
                f"{found['bits per weight']:.2f}",
                f"{found['quantized']} of {found['layers']}",
                f"{found['megabytes']:.0f}",
                f"{found['quantize seconds']:.0f} s",
                f"{found['quantize peak megabytes']:.0f} MB",
                f"{found['load seconds']:.1f} s",
                f"{found['load peak megabytes']:.0f} MB",
                f"{found['tokens per second']:.1f}",
            ]
        )
    return format_table(head, rows)


def plot(results: dict[str, dict[str, Any]], file: Path) -> None:
    """Draws perplexity over bits per weight, of models that still know something."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "unibody"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    shown = (item for item in results.items() if item[0] != "none" and item[1]["perplexity"] < 1000)
    for index, (name, found) in enumerate(shown):
        axes.plot(found["bits per weight"], found["perplexity"], "osD^vPX*"[index % 8], label=name)
    axes.set_yscale("log")
    axes.axhline(results["none"]["perplexity"], linestyle="--", linewidth=1, label="float32")
    axes.set_xlabel("bits per weight, scales and zero points included")
    axes.set_ylabel("perplexity")
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quant_table")
    parser.add_argument("--only", nargs="*", metavar="METHOD", help="names of methods, such as gptq")
    parser.add_argument(
        "--resume", type=Path, help="JSON file of what is measured already, to which the rest is added"
    )
    parser.add_argument("--output", type=Path, help="folder for the results as JSON")
    parser.add_argument("--plot", type=Path, help="SVG file to draw (needs matplotlib)")
    parser.add_argument("--evaluate", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_model(options.write)
        return
    if options.evaluate:
        print(json.dumps(evaluate(options.evaluate)))
        return
    names = [name for name, (method, *_) in METHODS.items() if not options.only or method in options.only]
    machine = describe_machine()
    results = measure(names, options.resume)
    print(f"{machine['cpu']}; one thread; Python {machine['python_version']}\n\n{table(results)}")
    write_results(options.output, "quantization", {"methods": results})
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
