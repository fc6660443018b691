"""How one configuration is run: in this process, or in one of its own with the interpreter and the code that it asks for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
LAST_LINES = 15  # of a process's output that are kept for the error
Watch = Callable[[int], AbstractContextManager[Any]]


def launch(
    config: dict[str, Any], checkpoint: Path | None, root: Path | None, log: Path, watch: Watch
) -> dict[str, Any]:
    """The worker's result; `root` is the checkout whose code is measured, `watch` is entered with the process's id."""
    job = {"config": config, "checkpoint": None if checkpoint is None else str(checkpoint)}
    if config["launcher"]["name"] == "inprocess":
        from unibody.bench.worker import run_job

        set_threads(config["launcher"].get("threads"))
        with watch(os.getpid()):
            return run_job(job)
    return launch_process(job, root, log, watch)


def set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def launch_process(job: dict[str, Any], root: Path | None, log: Path, watch: Watch) -> dict[str, Any]:
    """Runs the worker as a process group of its own, and ends all of it on an interruption or when its time is over."""
    launcher, backend = job["config"]["launcher"], job["config"]["backend"]
    python = find_python(backend.get("python"))
    with tempfile.TemporaryDirectory(prefix="unibody-bench-") as folder:
        told, result = Path(folder, "job.json"), Path(folder, "result.json")
        told.write_text(json.dumps(job), encoding="utf-8")
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [python, "-P", str(WORKER), str(told), str(result)],
                cwd=root, env=environment(launcher, root), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
            with ended(process), watch(process.pid):
                try:
                    status = process.wait(launcher.get("timeout"))
                except subprocess.TimeoutExpired:
                    return failure(f"took longer than launcher.timeout, {launcher['timeout']} s", log)
        if not result.is_file():
            return failure(describe_exit(status), log)
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


def find_python(python: str | None) -> str:
    if python is None:
        return sys.executable
    if not Path(python).is_file():
        raise ValueError(
            f"backend.python {python} is no file: name the interpreter of an environment, as in .venv/bin/python"
        )
    return str(Path(python).absolute())


def environment(launcher: dict[str, Any], root: Path | None) -> dict[str, str]:
    """The variables of the process: the measured code comes first on its path, its threads are counted."""
    paths = [str(root)] if root is not None else []
    paths += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    if launcher.get("threads") is not None:
        found |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(launcher["threads"]))
    return found | {str(key): str(value) for key, value in (launcher.get("environment") or {}).items()}


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leaves no process of the group behind."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def describe_exit(status: int) -> str:
    if status < 0:
        killed = "; perhaps the memory was not enough" if status == -signal.SIGKILL else ""
        return f"the process was ended by {signal.Signals(-status).name}{killed}"
    return f"the process ended with status {status} and without a result"


def failure(message: str, log: Path) -> dict[str, Any]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    return {"error": {"message": message, "traceback": "\n".join(lines)}, "seconds": 0.0}
