"""Inputs that no compilation can start from: unreadable files, wrong settings, a formatter that is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace

from unibody.generator.diagnostics import CompileError
from unibody.generator.render import _environment

Make = Callable[[dict[str, str]], Workspace]
BASE = "class BaseModel:\n    pass\n"


def refusals(project: Workspace, *names: str) -> list[str]:
    try:
        return [str(diagnostic) for diagnostic in project.compile(*names).diagnostics]
    except CompileError as error:
        return [str(diagnostic) for diagnostic in error.diagnostics]


def test_not_utf8(workspace: Make) -> None:
    project = workspace({"base": BASE})
    project.write("modular/modular_latin.py", b"class A:\n    name = '\xe9'\n")
    assert refusals(project) == [
        "modular/modular_latin.py:2:13: error[UB002]: byte 0xe9 is not UTF-8\n  = help: save the file as UTF-8"
    ]


def test_carriage_returns(workspace: Make) -> None:
    project = workspace({"base": BASE})
    project.write("modular/modular_dos.py", b"class A:\n    a = 1\r\n    b = 2\r\n")
    assert refusals(project) == [
        "modular/modular_dos.py:2:1: error[UB002]: the file has carriage returns (CRLF line ends)\n"
        "  = help: save it with LF line ends"
    ]


def test_unreadable(workspace: Make) -> None:
    project = workspace({"base": BASE})
    (project.root / "modular/modular_folder.py").mkdir()
    assert refusals(project) == [
        "modular/modular_folder.py: error[UB002]: cannot read the file: Is a directory\n"
        "  = help: check that it exists and is readable"
    ]


def test_two_definitions_for_one_output(workspace: Make) -> None:
    table = '[tool.unibody]\nsources = ["one", "two"]\n'
    project = workspace({"pyproject.toml": table, "one/modular_base.py": BASE, "two/modular_base.py": BASE})
    assert refusals(project) == [
        "two/modular_base.py: error[UB008]: `two/modular_base.py` and `one/modular_base.py` both make "
        "`generated/modeling_base.py`\n  = help: rename one of them"
    ]


def test_two_definitions_for_one_model_type(workspace: Make) -> None:
    model = 'class BaseConfig:\n    model_type = "same"\n\n\nclass BaseModel:\n    auto_class = "AutoModel"\n'
    project = workspace({"base": model, "other": model.replace("Base", "Other")})
    assert refusals(project) == [
        "modeling_other: error[UB008]: `modeling_base` and `modeling_other` both have the model type `same`\n"
        "  = help: give one of the configurations its own `model_type`"
    ]


def test_unknown_name(workspace: Make) -> None:
    assert refusals(workspace({"base": BASE}), "bsae") == [
        "bsae: error[UB023]: no definition is called `bsae`\n  = help: the definitions are base"
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("output = 3", "`output` in [tool.unibody] is 3\n  = help: write a str"),
        ("sources = []", "`sources` in [tool.unibody] is []\n  = help: list the folders with definitions, as in [\"modular\"]"),
        ("line-length = -3", "`line-length` in [tool.unibody] is -3\n  = help: write a number from 1 to 320"),
        ('layout = {models = "{nope}.py"}', "`models` in `layout` is '{nope}.py'\n  = help: write `{name}` once, as in \"modeling_{name}.py\""),
        ('layout = {models = "all.py"}', "`models` in `layout` is 'all.py'\n  = help: write `{name}` once, as in \"modeling_{name}.py\""),
        ('sources = ["nowhere"]', "the source folder `nowhere` does not exist\n  = help: create it or mend `sources` in [tool.unibody]"),
        ('formatter = "yapf==1"', "`formatter` is 'yapf==1'\n  = help: write \"ruff==VERSION\" or \"black==VERSION\""),
    ],
)  # fmt: skip
def test_wrong_settings(workspace: Make, table: str, message: str) -> None:
    project = workspace({"pyproject.toml": f"[tool.unibody]\n{table}\n", "base": BASE})
    assert refusals(project) == [f"pyproject.toml: error[UB020]: {message}"]


def test_settings_that_are_no_table(workspace: Make) -> None:
    project = workspace({"pyproject.toml": "[tool]\nunibody = 3\n", "base": BASE})
    assert refusals(project) == [
        "pyproject.toml: error[UB020]: `tool.unibody` is 3\n  = help: make it a table: `[tool.unibody]`"
    ]


def test_too_deep(workspace: Make) -> None:
    assert refusals(workspace({"base": f"X = {'-' * 5000}1\n\n\n{BASE}"})) == [
        "modular/modular_base.py: error[UB001]: an expression is nested too deeply to be read\n"
        "  = help: break it into several statements"
    ]


def test_formatter_of_another_version(workspace: Make) -> None:
    table = '[tool.unibody]\nformatter = "ruff==0.1.0"\n'
    (found,) = refusals(workspace({"pyproject.toml": table, "base": BASE}))
    assert found.startswith(
        "pyproject.toml: error[UB021]: the project is formatted with ruff 0.1.0, but 0.14.10 is installed"
    )
    assert found.endswith('\n  = help: run `pip install "ruff==0.1.0"`')


def test_formatter_missing(workspace: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    table = '[tool.unibody]\nformatter = "black==25.1.0"\n'
    assert refusals(workspace({"pyproject.toml": table, "base": BASE})) == [
        "pyproject.toml: error[UB021]: the project is formatted with black 25.1.0, which is not installed\n"
        '  = help: run `pip install "black==25.1.0"`'
    ]


@pytest.mark.parametrize(
    ("line", "caret", "message"),
    [
        ("{% for x in %}", 1, "Expected an expression, got 'end of statement block'"),
        ("    {{ imports.gone }}", 5, "'str object' has no attribute 'gone'"),
        ("{{ 1 / 0 }}", 1, "division by zero"),
    ],
)
def test_broken_template(
    workspace: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, caret: int, message: str
) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "module.py.j2").write_text(f"{{{{ header }}}}\n{line}\n")
    monkeypatch.setattr("unibody.generator.render.TEMPLATES", templates)
    _environment.cache_clear()
    try:
        found = refusals(workspace({"base": BASE}))
    finally:
        _environment.cache_clear()
    rows = ["  |", f"2 | {line}", f"  | {' ' * (caret - 1)}{'^' * len(line.strip())}"]
    assert found == [
        f"templates/module.py.j2:2:{caret}: error[UB028]: {message}\n"
        + "\n".join(rows)
        + "\n  = help: mend the template, or give it the value that it reads"
    ]


def test_syntax_of_a_newer_python(workspace: Make) -> None:
    """Whether a definition compiles does not depend on the Python that runs the compiler."""
    (found,) = refusals(workspace({"base": "class BaseModel[T]:\n    size: T\n"}))
    assert found.startswith("modular/modular_base.py:1:") and "error[UB001]" in found
