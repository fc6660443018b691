"""The compiler's CPU time, as a multiple of parsing the files that it reads once with libcst."""

from __future__ import annotations

import gc
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import cpu_seconds, run_process, take_turns
from unibody.bench.scenarios.generator import copy_project
from unibody.bench.tables import format_table

ROOT = Path(__file__).parents[1]
COLD, UNCHANGED, COMPILE, PARSE = (
    "generate, nothing there",
    "generate, nothing changed",
    "compile_project",
    "libcst.parse_module",
)
PARSE_PROCESS = "process that parses with libcst"
PEAK = """import contextlib, io, resource, sys
from pathlib import Path
from unibody.generator.commands import generate
with contextlib.redirect_stdout(io.StringIO()):
    generate([], Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"""
PROGRAM = "import sys, libcst\nfor file in sys.argv[1:]: libcst.parse_module(open(file, 'rb').read())"


def measure(rounds: int) -> dict[str, Any]:
    """Returns CPU seconds by round: of whole processes, and within this one of compiling (to memory) and of parsing."""
    import libcst

    from unibody.generator.pipeline import compile_project
    from unibody.generator.project import find_project

    with tempfile.TemporaryDirectory() as folder:
        project, settled = (copy_project(ROOT, Path(folder, name)) for name in ("project", "settled"))
        files = sorted(path for name in ("modular", "unibody/core") for path in (project / name).rglob("*.py"))
        texts = [file.read_bytes() for file in files]

        def generate(where: Path) -> float:
            return run_process([sys.executable, "-m", "unibody", "generate", "--project", str(where)], ROOT)[0]

        def start_over() -> float:
            for name in ("generated", ".unibody_cache"):
                shutil.rmtree(project / name, ignore_errors=True)
            return generate(project)

        def parse() -> float:
            gc.disable()  # as the compiler does: trees are many small objects that a collection would walk in vain
            try:
                return cpu_seconds(lambda: [libcst.parse_module(text) for text in texts])
            finally:
                gc.enable()

        generate(settled)
        time.sleep(3)  # files that have only just changed are not taken for unchanged: see generator/memory.py
        generate(settled)
        runs: dict[str, Callable[[], float]] = {
            COLD: start_over,
            UNCHANGED: lambda: generate(settled),
            PARSE_PROCESS: lambda: run_process([sys.executable, "-c", PROGRAM, *map(str, files)])[0],
            COMPILE: lambda: cpu_seconds(lambda: compile_project(find_project(project))),
            PARSE: parse,
        }
        seconds = take_turns(runs, rounds)
        shutil.rmtree(project / "generated")
        shutil.rmtree(project / ".unibody_cache", ignore_errors=True)
        peak = subprocess.check_output([sys.executable, "-c", PEAK, str(project)], cwd=ROOT, text=True)
        outputs = list((project / "generated").rglob("*.py"))
        return {
            "rounds": rounds,
            "seconds": seconds,
            "peak kilobytes": int(peak),
            "files read": len(files),
            "lines read": sum(text.count(b"\n") for text in texts),
            "files written": len(outputs),
            "lines written": sum(path.read_bytes().count(b"\n") for path in outputs),
        }


def report(results: dict[str, Any]) -> str:
    """Returns the results as Markdown."""
    medians = {name: statistics.median(times) for name, times in results["seconds"].items()}
    bases = {COLD: PARSE_PROCESS, UNCHANGED: PARSE_PROCESS, PARSE_PROCESS: PARSE_PROCESS, COMPILE: PARSE, PARSE: PARSE}
    rows = [
        [name, f"{medians[name] * 1e3:,.0f} ms", f"{medians[name] / medians[base]:.1f}x"]
        for name, base in bases.items()
    ]
    return f"""{results["files read"]} files, {results["lines read"]:,} lines read; {results["files written"]} files, \
{results["lines written"]:,} lines written; peak memory of `generate`: {results["peak kilobytes"] / 1024:.0f} MB.

{format_table(["CPU time", "median", "of parsing"], rows)}"""
