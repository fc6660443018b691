"""A repository of three commits: the package `work`, whose task takes a known time, and what measures it."""

from __future__ import annotations

import subprocess
from pathlib import Path

QUICK, SLOW = (
    0.02,
    0.03,
)  # CPU seconds of the task, which other programs hardly disturb: the second commit takes half as much again
PACKAGE = """import time


def task():
    end = time.process_time() + {seconds}
    while time.process_time() < end:
        pass
"""
SCENARIO = """def run(backend, config, checkpoint, meter, facts):
    import work

    facts["file"] = work.__file__
    return {"task": meter.measure(work.task, 1, "tasks/s")}
"""
CONFIG = """defaults:
  - _self_

model: {name: small}
quantizer: {method: null}
backend: {name: none, target: scenario.py:NoBackend}
scenario:
  name: task
  target: scenario.py:run
  checkpoint: false
  warmup_runs: 1
  iterations: 5
  memory: false
  energy: false
launcher: {name: process, threads: 1}
rounds: 3
"""


class Repository:
    """A git repository in a folder, beside a folder of configurations."""

    def __init__(self, folder: Path) -> None:
        self.root, self.config = folder / "repository", folder / "config"
        self.config.mkdir(parents=True)
        (self.config / "task.yaml").write_text(CONFIG)
        (self.config / "scenario.py").write_text(
            f"class NoBackend:\n    def __init__(self, settings):\n        pass\n\n\n{SCENARIO}"
        )
        self.root.mkdir()
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Test")
        self.git("config", "user.email", "test@example.org")
        self.quick = self.commit("quick", PACKAGE.format(seconds=QUICK))
        self.slow = self.commit("slow", PACKAGE.format(seconds=SLOW))
        self.broken = self.commit("broken", "import a_module_that_is_not_there\n")

    def commit(self, subject: str, text: str) -> str:
        (self.root / "work.py").write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", subject)
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.root), "-c", "protocol.file.allow=always", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def worktrees(self) -> list[str]:
        return self.git("worktree", "list").splitlines()
