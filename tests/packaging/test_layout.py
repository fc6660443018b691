"""The folders, links and guards that make one import package of five top-level folders."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

LINKED = ("generator", "templates", "generated", "modular")


@pytest.mark.parametrize("name", LINKED)
def test_link_leads_to_its_folder(root: Path, name: str) -> None:
    link = root / "unibody" / name
    remedy = (
        f"restore it with: git config core.symlinks true && rm -rf unibody/{name} && git checkout -- unibody/{name}"
    )
    assert link.is_symlink(), f"unibody/{name} is not a symbolic link; {remedy}"
    assert link.readlink().as_posix() == f"../{name}", f"unibody/{name} leads elsewhere; {remedy}"
    assert link.resolve() == root / name, f"{name}/ is missing"


@pytest.mark.parametrize("name", ["generator", "generated", "modular"])
def test_bare_import_is_refused(root: Path, name: str) -> None:
    """From the root of the checkout `import generated` finds the folder, and would make each class exist twice."""
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(rf"ImportError: .*\bunibody\.{name}\b", done.stderr)
    done = subprocess.run([sys.executable, "-c", f"import unibody.{name}"], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_make_help_lists_the_targets(root: Path) -> None:
    command = ["make", "--no-print-directory", "help"]
    text = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    targets = [line.split()[1] for line in text.splitlines()]
    every_day = [
        "help",
        "setup",
        "services",
        "generate",
        "check",
        "test",
        "test-deep",
        "lint",
        "types",
        "bench",
        "finetune",
    ]
    assert targets == [*every_day, "oracle-%", "record-%", "clean"]
    assert all(len(line.split()) > 2 for line in text.splitlines())
