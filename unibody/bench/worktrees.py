"""The commits that are compared, each in a worktree of its own; the user's checkout is only read."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from unibody.bench.errors import BenchmarkError

MAIN = ("main", "master", "origin/main", "origin/master")
PREFIX = "unibody-bench-worktrees-"  # of a folder's name, before the id of the process
CHECKOUT = "worktree"  # the name for the checkout as it is, with what is not committed


@dataclass(frozen=True)
class Commit:
    """A state of the measured code: a commit with its worktree, or the checkout as it is."""

    name: str  # as the user gave it
    sha: str | None  # None: the checkout as it is, or none at all
    subject: str
    date: str  # ISO 8601; empty without a commit
    root: Path | None  # where its code is; None: what the interpreter imports
    source: str = ""  # the folder of earlier results that it was read from

    @property
    def label(self) -> str:
        """What it is called in results."""
        label = self.name if self.sha is None else self.sha[:10]
        return f"{label} in {self.source}" if self.source else label


@contextlib.contextmanager
def checked_out(repository: Path, wanted: Sequence[str]) -> Iterator[list[Commit]]:
    """The commits with their code; the worktrees are gone at the end, however the block ends.

    BenchmarkError: no repository, an unknown commit, or a submodule with changes that no commit holds.
    """
    if not wanted:
        yield [Commit(CHECKOUT, None, "", "", None)]
        return
    root = Path(git(repository, "rev-parse", "--show-toplevel"))
    names = resolve(root, wanted)
    check_submodules(root)
    remove_abandoned(root)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    made: list[Path] = []
    try:
        commits = []
        for name in names:
            if name == CHECKOUT:
                commits.append(Commit(name, None, "the checkout as it is", "", root))
                continue
            sha = git(root, "rev-parse", "--verify", f"{name}^{{commit}}")
            place = folder / sha[:10]
            if place not in made:
                made.append(place)
                git(root, "worktree", "add", "--detach", "--quiet", str(place), sha)
                if (place / ".gitmodules").is_file():
                    git(place, "submodule", "update", "--init", "--recursive", "--quiet")
            date, _, subject = git(root, "show", "--no-patch", "--format=%cI %s", sha).partition(" ")
            commits.append(Commit(name, sha, subject, date, place))
        yield commits
    finally:
        remove(root, folder, made)


def resolve(root: Path, wanted: Sequence[str]) -> list[str]:
    """The names, `diff` replaced by the main branch and HEAD; each is known, and none comes twice."""
    names: list[str] = []
    for name in wanted:
        names += [find_main(root), "HEAD"] if name == "diff" else [name]
    for name in names:
        if name != CHECKOUT:
            try:
                git(root, "rev-parse", "--verify", f"{name}^{{commit}}")
            except BenchmarkError:
                known = git(root, "for-each-ref", "--format=%(refname:short)", "--count=8", "refs/heads", "refs/tags")
                raise BenchmarkError(
                    f"--commit {name}: {root} has no such commit; there are {', '.join(known.split()) or 'none'}, or give a hash"
                ) from None
    return list(dict.fromkeys(names))


def find_main(root: Path) -> str:
    for name in MAIN:
        with contextlib.suppress(BenchmarkError):
            git(root, "rev-parse", "--verify", "--quiet", name)
            return name
    raise BenchmarkError(f"--commit diff compares the main branch with HEAD, and {root} has none of {', '.join(MAIN)}")


def check_submodules(root: Path) -> None:
    """BenchmarkError: a submodule of the checkout has changes, which no worktree would have."""
    if not (root / ".gitmodules").is_file():
        return
    listed = git(root, "submodule", "foreach", "--recursive", "--quiet", 'echo "$displaypath"').splitlines()
    for place in listed:
        if git(root / place, "status", "--porcelain"):
            raise BenchmarkError(
                f"submodule {place} has changes that are not committed, and no commit would be measured with them: "
                "commit or stash them"
            )


def remove(root: Path, folder: Path, made: Sequence[Path]) -> None:
    """Takes the worktrees away, and what git remembers of them."""
    for place in made:
        with contextlib.suppress(BenchmarkError):
            git(root, "worktree", "remove", "--force", "--force", str(place))
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(BenchmarkError):
        git(root, "worktree", "prune")


def remove_abandoned(root: Path) -> None:
    """Takes away the worktrees of runs that were killed."""
    for line in git(root, "worktree", "list", "--porcelain").splitlines():
        place = Path(line.removeprefix("worktree "))
        found = re.match(rf"{PREFIX}(\d+)-", place.parent.name)
        if line.startswith("worktree ") and found and not psutil.pid_exists(int(found[1])):
            remove(root, place.parent, [place])


def has_changes(repository: Path) -> bool:
    """Whether the checkout holds something that is not committed."""
    return bool(git(repository, "status", "--porcelain"))


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints. BenchmarkError: what it complains of."""
    command = ["git", "-C", str(folder), *arguments]
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith("GIT_")
    }  # a hook's are of one checkout
    try:
        done = subprocess.run(
            command, env=inherited, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise BenchmarkError("git is not installed, and --commit needs it") from None
    if done.returncode:
        raise BenchmarkError(f"git {' '.join(arguments[:2])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()
