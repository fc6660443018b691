"""The transformers dialect over all definitions of the installed transformers, as a multiple of parsing what it reads once with libcst.

python -m benchmarks.dialect [--root FOLDER] [--rounds N] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import median_ratio, run_process, take_turns, write_results
from unibody.bench.machine import describe_machine
from unibody.bench.tables import format_table

ROOT = Path(__file__).parents[1]
FLOOR = "parse once with libcst"
COLD, TWO, WARM, ONE = "cold", "cold, two workers", "nothing changed", "one definition changed"
CHANGED = "gemma2"  # the definition that the last row touches
PARSE = "import gc, sys, libcst\ngc.disable()\nfor file in sys.argv[1:]: libcst.parse_module(open(file, 'rb').read())"
CHECK = """
import sys
from pathlib import Path
from unibody.generator.commands import check
from unibody.generator.project import Project

root, jobs, report = sys.argv[1:]
sys.exit(check([], Project(Path(root), (".",), ".", dialect="transformers"), "text", int(jobs), Path(report)))
"""


def installed_models() -> Path:
    """Returns the folder of models of the installed transformers, which is not imported."""
    found = Path(str(importlib.metadata.distribution("transformers").locate_file("transformers/models")))
    if not found.is_dir():
        raise SystemExit("install transformers first, or name its folder of models with --root")
    return found


def measure(root: Path, rounds: int) -> dict[str, Any]:
    """Returns CPU and wall seconds of whole processes by round; every run must find every file identical."""
    import json

    from unibody.generator.transformers.library import PACKAGE, Library
    from unibody.generator.transformers.parents import parents

    library = Library(root)
    definitions = library.definitions()
    read = {*definitions, *(p for d in definitions for p in parents(library, d) if not p.startswith(PACKAGE))}
    files = [str(root / path) for path in sorted(read)]
    with tempfile.TemporaryDirectory() as folder:
        copy, cache, report = Path(folder, "models"), Path(folder, "cache"), Path(folder, "report.json")
        tree = shutil.copytree(root, copy / "transformers/models", ignore=shutil.ignore_patterns("__pycache__"))
        touched = tree / CHANGED / f"modular_{CHANGED}.py"

        def check(jobs: int = 1, cold: bool = False) -> tuple[float, float]:
            if cold:
                shutil.rmtree(cache, ignore_errors=True)
            command = [sys.executable, "-c", CHECK, str(tree), str(jobs), str(report)]
            return run_process(["env", f"XDG_CACHE_HOME={cache}", *command], ROOT)[:2]

        def change_one() -> tuple[float, float]:
            touched.write_text(touched.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
            return check()

        runs: dict[str, Callable[[], tuple[float, float]]] = {
            FLOOR: lambda: run_process([sys.executable, "-c", PARSE, *files])[:2],
            TWO: lambda: check(2, cold=True),
            COLD: lambda: check(cold=True),
            WARM: check,
            ONE: change_one,
        }
        times = take_turns(runs, rounds)
        check(cold=True)
        found = json.loads(report.read_text(encoding="utf-8"))
    return {
        "rounds": rounds,
        "cpu": {name: [cpu for cpu, _ in pairs] for name, pairs in times.items()},
        "wall": {name: [wall for _, wall in pairs] for name, pairs in times.items()},
        "files read": len(files),
        **{name: found[name] for name in ("definitions", "outputs", "identical", "peak_mb")},
    }


def report(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    cpu, wall = results["cpu"], results["wall"]
    rows = [
        [
            name,
            f"{statistics.median(cpu[name]):.2f} s",
            f"{statistics.median(wall[name]):.2f} s",
            f"{median_ratio(cpu[name], cpu[FLOOR]):.2f}x",
        ]
        for name in (FLOOR, COLD, TWO, WARM, ONE)
    ]
    return f"""{results["definitions"]} definitions, {results["files read"]} files read, {results["outputs"]} outputs, \
{results["identical"]} identical, {results["peak_mb"]:.0f} MB at most.

{format_table(["", "CPU", "wall", "of the floor"], rows)}

Two workers: {median_ratio(wall[COLD], wall[TWO]):.2f}x as fast by the clock."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dialect", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--root", type=Path, help="folder of the models; default: that of the installed transformers")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default: 3)")
    parser.add_argument("--output", type=Path, help="folder for the single measurements as JSON")
    options = parser.parse_args()
    machine = describe_machine()
    print(f"{machine['cpu']}; {machine['cpu_count']} cores; Python {machine['python_version']}\n")
    results = measure(options.root or installed_models(), options.rounds)
    print(report(results))
    write_results(options.output, "dialect", results)


if __name__ == "__main__":
    main()
