"""Runs the benchmarks and writes tables to standard output.

python -m benchmarks [llama] [compiler] [--rounds N] [--dtype float32|bfloat16] [--output FOLDER]
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported
os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
from pathlib import Path

from benchmarks import compiler, llama
from benchmarks.measure import write_results
from unibody.bench.machine import describe_machine


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure speed; see benchmarks/README.md."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="llama or compiler; default: both")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side (default: 7)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the weights")
    parser.add_argument("--module", default="unibody.generated.models.modeling_llama", help="with LlamaForCausalLM")
    parser.add_argument("--output", type=Path, help="folder for the single measurements as JSON")
    options = parser.parse_args()
    names = options.names or ["llama", "compiler"]
    if unknown := set(names) - {"llama", "compiler"}:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}: choose llama or compiler")

    machine = describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    print(
        f"{machine['cpu']}; {machine['cpu_count']} cores, one thread used; Python {machine['python_version']}; {versions}"
    )
    if "llama" in names:
        results = llama.measure(options.rounds, options.dtype, options.module)
        print(f"\n## Llama, {options.dtype}\n\n{llama.report(results)}")
        write_results(options.output, f"llama-{options.dtype}", results)
    if "compiler" in names:
        results = compiler.measure(options.rounds)
        print(f"\n## Compiler\n\n{compiler.report(results)}")
        write_results(options.output, "compiler", results)


if __name__ == "__main__":
    main()
