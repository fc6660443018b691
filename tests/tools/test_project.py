"""`[tool.unibody]`: the version that a project asks for, and the page that describes all keys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace
from tools.command import unibody

from unibody import cli
from unibody.generator import project as module
from unibody.generator.project import KEYS, Project, own_version

Make = Callable[[dict[str, str]], Workspace]
BASE = "class BaseModel:\n    size = 1\n"


@pytest.mark.parametrize(
    ("wanted", "version", "fine"),
    [
        (">=0.1", "0.1.0", True),
        (">=0.1,<0.3", "0.2.9", True),
        (">=0.1,<0.3", "0.3.0", False),
        ("==0.4.*", "0.4.2", True),
        ("==0.4.*", "0.5.0", False),
        ("~=1.2", "1.9.1", True),
        ("~=1.2", "2.0", False),
        ("!=1.5", "1.5", False),
        (">=0.2", "0.2.1.dev3", True),
        ("", "0.1.0", True),
    ],
)
def test_required_version(
    wanted: str, version: str, fine: bool, workspace: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "own_version", lambda: version)
    project = workspace({"pyproject.toml": f'[tool.unibody]\nrequired-version = "{wanted}"\n', "base": BASE})
    done = unibody("check", cwd=project.root)
    if fine:
        assert (done.status, done.err) == (1, "")
        assert "missing: " in done.out
    else:
        assert done == (
            2,
            "",
            f"pyproject.toml: error[UB025]: the project needs unibody {wanted}, and this is unibody {version}\n"
            f'  = help: run `pip install "unibody{wanted}"`\n'
            "1 error; `unibody help UB025` explains it\n",
        )


def test_another_version_comes_before_keys_that_this_one_does_not_know(workspace: Make) -> None:
    project = workspace({"pyproject.toml": '[tool.unibody]\nrequired-version = ">=1000"\nfuture = true\n'})
    err = unibody("check", cwd=project.root).err
    assert "error[UB025]" in err
    assert "error[UB020]" not in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('required-version = "new"', "`required-version` is 'new'"),
        ("required-version = 1", "`required-version` in [tool.unibody] is 1"),
        ('stub = "names.py"', "`stub` in [tool.unibody] is 'names.py'"),
        ("stub = true", "`stub` in [tool.unibody] is True"),
        ('stub-bases = "a.B"', "`stub-bases` in [tool.unibody] is 'a.B'"),
        ('stub-bases = {models = ["a.B", "*"]}', "`models` in `stub-bases` is ['a.B', '*']"),
        ('stub-bases = {model = ["a.B"]}', "`model` in `stub-bases` is ['a.B']"),
        ('stub-bases = {model = ["*", "B"]}', "`model` in `stub-bases` is ['*', 'B']"),
        ('stub-bases = {model = "*"}', "`model` in `stub-bases` is '*'"),
    ],
)
def test_wrong_value(line: str, message: str, workspace: Make) -> None:
    done = unibody("check", cwd=workspace({"pyproject.toml": f"[tool.unibody]\n{line}\n"}).root)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"pyproject.toml: error[UB020]: {message}\n  = help: ")


def test_own_version_of_a_checkout(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an installation it is what the checkout says."""
    from importlib import metadata

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert f'\nversion = "{own_version()}"\n' in (root / "pyproject.toml").read_text()


def test_every_key_is_documented_with_its_default(root: Path) -> None:
    page = (root / "docs/tools.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*?) \|", page.partition("## Configuration")[2], re.MULTILINE))
    assert rows.keys() == KEYS.keys()
    project = Project(Path())
    assert rows["sources"] == f"`{json.dumps(project.sources)}`"
    assert rows["layout"] == "`{" + ", ".join(f'{k} = "{v}"' for k, v in project.layout.items()) + "}`"
    assert rows["line-length"] == f"`{project.line_length}`"
    for key in ("output", "core-package", "formatter", "license"):
        assert rows[key] == f'`"{getattr(project, key.replace("-", "_"))}"`'


def test_every_command_is_documented(root: Path) -> None:
    page = (root / "docs/tools.md").read_text()
    listed = set(re.findall(r"^\| `unibody (\w+)", page, re.MULTILINE))
    assert listed == set(cli.unibody.commands)
