"""Commits side by side: the factor between two is found, one that fails is told, and the user's checkout stays as it is."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bench.command import bench, environment, line
from bench.conftest import ROOT
from bench.small_repository import PACKAGE, QUICK, SLOW, Repository

METRICS = "task.cpu_time.p50"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def arguments(repository: Repository, output: Path, *more: str) -> list[str | Path]:
    fixed = [
        "--config-dir",
        repository.config,
        "--config-name",
        "task",
        "--repository",
        repository.root,
        "--output",
        output,
    ]
    return [*fixed, *more]


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_known_factor(repository: Repository, tmp_path: Path) -> None:
    """A slower commit, one that cannot be imported, and a checkout with changes of its own."""
    (repository.root / "work.py").write_text("the user's own work, which is no Python\n")
    (repository.root / "new.txt").write_text("not committed\n")
    before = (
        repository.git("status", "--porcelain"),
        repository.git("stash", "list"),
        repository.git("rev-parse", "HEAD"),
    )
    commits = f"{repository.quick},{repository.slow},{repository.broken}"
    output = tmp_path / "out"
    more = ("--commit", commits, "--fail-on-regression", "5%", "--metrics", f"{METRICS},task.throughput.value")
    done = bench(*arguments(repository, output, *more))
    assert done.returncode == 1, done.stderr
    summary = read(output / "summary.json")
    assert summary["format_version"] == 1
    changes = {found["metric"]: found for found in summary["changes"]}
    found = changes["task.cpu_time.p50"]
    assert found["worse"] and found["beyond_noise"], found
    low, high = found["interval"]
    assert low - 5 <= 100 * (SLOW / QUICK - 1) <= high + 5, found
    assert changes["task.throughput.value"]["worse"] == (changes["task.throughput.value"]["percent"] < 0)
    assert (
        f"regression: task.cpu_time.p50 of small, default: +{changes['task.cpu_time.p50']['percent']:.1f} %"
        in done.stderr
    )
    (failure,) = summary["failures"]
    assert failure["commit"] == repository.broken[:10]
    assert failure["message"] == "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
    assert "work.py" in failure["traceback"]
    assert "note: the checkout has changes that no commit holds" in done.stderr
    for sha in (repository.quick, repository.slow):
        folder = output / f"commit={sha[:10]}"
        (entry,) = read(folder / "summary.json")["results"]
        assert (
            entry["metrics"]["task.cpu_time.p50"]
            == summary["results"]["small"]["default"][sha[:10]]["task.cpu_time.p50"]
        )
        facts = read(folder / "default/benchmark.json")["facts"]
        assert sha[:10] in facts["file"]
        assert read(folder / "default/benchmark_report.json")["task"]["latency"]["rounds"] == [5, 5, 5]
    assert (
        repository.git("status", "--porcelain"),
        repository.git("stash", "list"),
        repository.git("rev-parse", "HEAD"),
    ) == before
    assert (repository.root / "new.txt").read_text() == "not committed\n"
    assert len(repository.worktrees()) == 1


def test_no_regression(repository: Repository, tmp_path: Path) -> None:
    """The other way round the change is for the better; and the checkout as it is can be one of the sides."""
    (repository.root / "work.py").write_text(PACKAGE.format(seconds=QUICK))
    commits = f"{repository.slow},worktree"
    more = ("--commit", commits, "--fail-on-regression", "5", "--metrics", METRICS)
    done = bench(*arguments(repository, tmp_path / "out", *more))
    assert done.returncode == 0, done.stderr
    summary = read(tmp_path / "out/summary.json")
    assert {found["commit"] for found in summary["changes"]} == {"worktree"}
    assert all(not found["worse"] for found in summary["changes"])
    assert "regression" not in done.stderr


def test_earlier_results(repository: Repository, tmp_path: Path) -> None:
    """A run is compared with the folder of an earlier one."""
    repository.git("checkout", "-q", repository.quick)
    first = bench(*arguments(repository, tmp_path / "before", "--commit", "worktree"))
    assert first.returncode == 0, first.stderr
    repository.git("checkout", "-q", repository.slow)
    more = (
        "--commit",
        "worktree",
        "--compare",
        str(tmp_path / "before"),
        "--fail-on-regression",
        "5%",
        "--metrics",
        METRICS,
    )
    done = bench(*arguments(repository, tmp_path / "after", *more))
    assert done.returncode == 1, done.stderr
    summary = read(tmp_path / "after/summary.json")
    assert list(summary["results"]["small"]["default"]) == ["worktree in before", "worktree"]
    assert {(found["baseline"], found["commit"]) for found in summary["changes"]} == {
        ("worktree in before", "worktree")
    }
    assert "at worktree, against worktree in before" in done.stderr


def test_library_of_a_commit(repository: Repository, tmp_path: Path) -> None:
    """In a repository of this library, `unibody` is the commit's and what measures it the present one, whatever the commit has."""
    (repository.root / "unibody/bench").mkdir(parents=True)
    (repository.root / "unibody/__init__.py").write_text("AGE = 'old'\n")
    (repository.root / "unibody/bench/__init__.py").write_text("raise ImportError('an old one')\n")
    (repository.root / "unibody/part.py").write_text("VALUE = 7\n")
    sha = repository.commit("an old library", "task = int\n")
    text = "__import__('unibody').AGE, __import__('unibody.part').part.VALUE, __import__('unibody.bench.measures').bench.__file__"
    scenario = repository.config / "scenario.py"
    scenario.write_text(scenario.read_text().replace("work.__file__", text))
    done = bench(*arguments(repository, tmp_path / "out", "--commit", sha, "rounds=1"))
    assert done.returncode == 0, done.stdout
    facts = read(tmp_path / f"out/commit={sha[:10]}/default/benchmark.json")["facts"]
    assert facts["file"] == ["old", 7, str(ROOT / "unibody/bench/__init__.py")]


def test_diff(repository: Repository, tmp_path: Path) -> None:
    """`diff` is the main branch and HEAD."""
    repository.git("checkout", "-q", "-b", "topic", repository.slow)
    repository.git("branch", "-f", "main", repository.quick)
    done = bench(*arguments(repository, tmp_path / "out", "--commit", "diff", "rounds=1", "scenario.iterations=1"))
    assert done.returncode == 0, done.stderr
    assert list(read(tmp_path / "out/summary.json")["commits"]) == [repository.quick[:10], repository.slow[:10]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(repository: Repository, tmp_path: Path, number: int) -> None:
    """Ctrl-C in the middle: what has been measured is written, nothing runs on, and the repository is as it was."""
    (repository.root / "work.py").write_text("changed\n")
    status = repository.git("status", "--porcelain")
    commits, output = f"{repository.quick},{repository.slow}", tmp_path / "out"
    command = line(*arguments(repository, output, "--commit", commits, "--metrics", METRICS, "rounds=50"))
    with subprocess.Popen(
        command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for text in process.stderr:
            if text.startswith("round 2"):
                break
        time.sleep(0.1)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what has been measured is kept" in error
    assert (output / "index.html").is_file()
    results = read(output / "summary.json")["results"]["small"]["default"]
    assert results[repository.quick[:10]]["task.cpu_time.p50"] == pytest.approx(QUICK, rel=0.5)
    assert repository.git("status", "--porcelain") == status
    assert len(repository.worktrees()) == 1
    assert not repository.git("worktree", "prune", "--dry-run")


@pytest.mark.parametrize(
    ("commits", "message"),
    [
        ("nowhere", "has no such commit; there are main, or give a hash"),
        ("diff", "--commit diff compares the main branch with HEAD, and"),
    ],
)
def test_unknown_commits(repository: Repository, tmp_path: Path, commits: str, message: str) -> None:
    if commits == "diff":
        repository.git("branch", "-m", "main", "trunk")
    done = bench(*arguments(repository, tmp_path / "out", "--commit", commits))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_dirty_submodule(repository: Repository, tmp_path: Path) -> None:
    other = Repository(tmp_path / "other")
    repository.git("submodule", "add", "-q", str(other.root), "vendor/other")
    repository.git("commit", "-q", "-m", "with a submodule")
    (repository.root / "vendor/other/work.py").write_text("changed\n")
    done = bench(*arguments(repository, tmp_path / "out", "--commit", "HEAD"))
    assert done.returncode == 2
    assert done.stderr == (
        "error: submodule vendor/other has changes that are not committed, and no commit would be measured with them: "
        "commit or stash them\n"
    )


def test_no_repository(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    more = ["--repository", str(tmp_path / "plain"), "--commit", "main"]
    done = bench(*arguments(repository, tmp_path / "out"), *more)
    assert done.returncode == 2
    assert done.stderr.startswith("error: git rev-parse --show-toplevel: fatal: not a git repository")


def test_killed(repository: Repository, tmp_path: Path) -> None:
    """What a run that was killed has left is taken away by the next one."""
    command = line(*arguments(repository, tmp_path / "out", "--commit", repository.quick, "rounds=50"))
    with subprocess.Popen(
        command,
        env=environment() | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.kill()
    place = Path(repository.worktrees()[1].split()[0])
    assert place.is_dir()
    done = bench(*arguments(repository, tmp_path / "again", "--commit", repository.quick, "rounds=1"))
    assert done.returncode == 0, done.stderr
    assert len(repository.worktrees()) == 1
    assert not place.parent.exists()
