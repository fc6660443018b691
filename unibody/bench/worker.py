"""The program that measures, in a process of its own: `python -P worker.py JOB.json RESULT.json`.

It is run by its path, so that `unibody` may be that of another commit, first on PYTHONPATH, while `unibody.bench` stays the one that
this file belongs to. Nothing but the standard library is needed, and what the backend imports.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def keep_harness() -> None:
    """Makes `unibody.bench` the package of this file, whichever `unibody` is imported."""
    sys.path.append(str(HERE.parents[1]))  # the last resort: a repository without a package of this name
    import unibody

    if Path(str(unibody.__file__)).resolve().parent == HERE.parent:
        return
    spec = importlib.util.spec_from_file_location(
        "unibody.bench", HERE / "__init__.py", submodule_search_locations=[str(HERE)]
    )
    assert spec is not None and spec.loader is not None
    package = sys.modules["unibody.bench"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    unibody.bench = package  # type: ignore[attr-defined]


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """The report, facts and environment of one configuration; or the error, with its traceback, that ended it."""
    start = time.time()
    try:
        from unibody.bench.machine import describe_machine
        from unibody.bench.measures import Meter
        from unibody.bench.registry import find_backend, find_scenario

        facts: dict[str, Any] = {}
        config = job["config"]
        checkpoint = None if job["checkpoint"] is None else Path(job["checkpoint"])
        scenario = config["scenario"]
        names = ("warmup_runs", "iterations", "duration", "memory", "energy")
        meter = Meter(**{name: scenario[name] for name in names if name in scenario})
        run, backend = find_scenario(scenario), find_backend(config["backend"])(config["backend"])
        report = run(backend, config, checkpoint, meter, facts)
        environment = describe_machine()
    except Exception as error:  # noqa: BLE001  whatever a measured program raises is a result
        message = f"{type(error).__name__}: {error}"
        return {"error": {"message": message, "traceback": traceback.format_exc()}, "seconds": time.time() - start}
    return {"report": report, "facts": facts, "environment": environment, "seconds": time.time() - start}


def main() -> None:
    job, result = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        keep_harness()
    except Exception as error:  # noqa: BLE001  a commit that cannot be imported
        message = f"{type(error).__name__}: {error}"
        found: dict[str, Any] = {"error": {"message": message, "traceback": traceback.format_exc()}, "seconds": 0.0}
    else:
        from unibody.bench.worker import run_job as run  # as a module of the package, not of this program

        found = run(json.loads(job.read_text(encoding="utf-8")))
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(found), encoding="utf-8")
    os.replace(partial, result)


if __name__ == "__main__":
    main()
