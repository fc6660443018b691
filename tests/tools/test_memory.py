"""That nothing has changed is remembered, and forgotten as soon as anything has that could matter."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import metadata

import pytest
from compiler.workspace import Workspace
from tools.command import unibody

from unibody.generator import memory, pipeline
from unibody.generator.memory import recall
from unibody.generator.project import find_project

Make = Callable[[dict[str, str]], Workspace]
FILES = {
    "pyproject.toml": '[tool.unibody]\ncore = "blocks"\n',
    "base": "from unibody.core.size import SIZE\n\n\nclass BaseModel:\n    size = SIZE\n",
    "far": "from ..elsewhere.modular_parent import ParentModel\n\n\nclass FarModel(ParentModel):\n    pass\n",
    "elsewhere/modular_parent.py": "class ParentModel:\n    size = 2\n",
    "blocks/__init__.py": "",
    "blocks/size.py": "SIZE = 1\n",
}
CHANGES = {
    "a definition changes": "modular/modular_base.py",
    "a parent outside the source folders changes": "elsewhere/modular_parent.py",
    "a core block changes": "blocks/size.py",
    "the configuration changes": "pyproject.toml",
    "a generated file changes": "generated/modeling_base.py",
    "the registry changes": "generated/registry.py",
}


@pytest.fixture
def project(workspace: Make, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project of which it is remembered that nothing has changed."""
    monkeypatch.setattr(memory, "SETTLED", -(10**18))  # files are taken for settled the moment that they are written
    made = workspace(FILES)
    assert unibody("generate", cwd=made.root).status == 0
    assert known(made) is None, "what has just been written is not remembered"
    assert unibody("check", cwd=made.root).out == "3 files are up to date\n"
    assert known(made) == 3
    return made


def known(project: Workspace) -> int | None:
    return recall(find_project(project.root))


def test_nothing_is_compiled_again(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "compile_project", None)
    assert unibody("check", cwd=project.root) == (0, "3 files are up to date\n", "")
    assert unibody("check", "--format", "github", cwd=project.root) == (0, "", "")
    assert unibody("diff", cwd=project.root) == (0, "", "")
    assert unibody("generate", cwd=project.root) == (0, "0 created, 0 updated, 3 unchanged, 0 removed\n", "")


@pytest.mark.parametrize("path", CHANGES.values(), ids=CHANGES)
def test_a_changed_file(path: str, project: Workspace) -> None:
    file = project.root / path
    before = file.read_bytes()
    file.write_bytes(before + b"# more\n")
    assert known(project) is None
    file.write_bytes(before)
    assert known(project) == 3
    file.unlink()
    if path == "pyproject.toml":
        assert unibody("check", cwd=project.root).status == 2
    else:
        assert known(project) is None
        assert unibody("check", cwd=project.root).status == 1


@pytest.mark.parametrize(
    "path", ["modular/modular_more.py", "modular/a/modular_b.py", "generated/old.py", "generated/a/b.pyi"]
)
def test_a_new_file(path: str, project: Workspace) -> None:
    project.write(path, "class More:\n    size = 1\n")
    assert known(project) is None
    (project.root / path).unlink()
    assert known(project) == 3


def test_another_formatter_or_python(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version(name) + ".1")
    assert known(project) is None
    monkeypatch.setattr(metadata, "version", version)
    assert known(project) == 3
    monkeypatch.setattr("sys.version", "4.0")
    assert known(project) is None


@pytest.mark.parametrize(("name", "suffix"), [("HERE", "*.py"), ("TEMPLATES", "*.j2")])
def test_another_compiler(
    name: str,
    suffix: str,
    project: Workspace,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The compiler's own code and templates are part of the key: edited here in a copy that stands for them."""
    copy = tmp_path_factory.mktemp("copy") / "copy"
    shutil.copytree(getattr(memory, name), copy)
    monkeypatch.setattr(memory, name, copy)
    assert known(project) is None
    assert unibody("check", cwd=project.root).status == 0
    assert known(project) == 3
    file = next(iter(sorted(copy.glob(suffix))))
    file.write_text(file.read_text() + "\n")
    assert known(project) is None


def test_only_a_whole_and_good_outcome_is_remembered(workspace: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SETTLED", -(10**18))
    project = workspace(FILES)
    unibody("generate", cwd=project.root)
    unibody("check", "base", cwd=project.root)
    assert known(project) is None, "a partial run knows nothing of the others"
    project.write("modular/modular_wrong.py", "class WrongModel(:\n")
    unibody("check", cwd=project.root)
    assert known(project) is None, "a definition is broken"
    (project.root / "modular/modular_wrong.py").unlink()
    (project.root / "generated/modeling_base.py").unlink()
    unibody("check", cwd=project.root)
    assert known(project) is None, "a file is missing"


def test_fresh_files_are_not_trusted(workspace: Make) -> None:
    """A file that changed just before the run could change again without a trace in its times."""
    project = workspace(FILES)
    unibody("generate", cwd=project.root)
    assert unibody("check", cwd=project.root).status == 0
    assert known(project) is None


def test_a_folder_that_cannot_be_written(project: Workspace) -> None:
    shutil.rmtree(project.root / memory.FOLDER)
    project.write(memory.FOLDER, "in the way")
    for _ in range(2):
        assert unibody("check", cwd=project.root) == (0, "3 files are up to date\n", "")


def test_damaged_note(project: Workspace) -> None:
    note = project.root / memory.FOLDER / "unchanged"
    for text in ("", "x", "x\n3", note.read_text()[:80], "\x00\n\n\n"):
        note.write_text(text)
        assert known(project) is None
    note.write_bytes(b"\xff\xfe")
    assert known(project) is None


def test_the_folder_ignores_itself(project: Workspace) -> None:
    assert (project.root / memory.FOLDER / ".gitignore").read_text() == "*\n"
