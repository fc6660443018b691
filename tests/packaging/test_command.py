"""The `unibody` command: arguments, exit codes, and what a defect of unibody itself looks like."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from unibody import cli
from unibody.generator import commands

SCRIPT = [str(Path(sys.executable).parent / "unibody")]
MODULE = [sys.executable, "-m", "unibody"]


@pytest.mark.parametrize("command", [SCRIPT, MODULE], ids=["script", "module"])
def test_version(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run([*command, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"unibody {version('unibody')}\n", "")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command's exit code."""
    monkeypatch.setattr(sys, "argv", ["unibody", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize("command", ["generate", "check"])
@pytest.mark.parametrize("code", [0, 1, 2])
def test_names_project_and_exit_code_pass_through(
    command: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def record(names: list[str], project: Path, form: str, jobs: int, *_: None, **__: None) -> int:
        calls.append((names, project, form, jobs))
        return code

    monkeypatch.setattr(commands, command, record)
    assert run(monkeypatch, command, "llama", "models/mistral", "--project", str(tmp_path)) == code
    assert run(monkeypatch, command) == code
    assert run(monkeypatch, command, "--format", "json", "--jobs", "3") == code
    assert calls == [
        (["llama", "models/mistral"], tmp_path, "text", 1),
        ([], Path(), "text", 1),
        ([], Path(), "json", 3),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chek"], "No such command 'chek'. Did you mean 'check'?"),
        (["check", "--all"], "No such option '--all'"),
        (["check", "--project", "gone"], "'gone' does not exist."),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err


@pytest.mark.parametrize(
    "command", ["quantize model hqq out", "dequantize model out", "inspect model", "run model text"]
)
def test_what_needs_torch_says_so(command: str, tmp_path: Path) -> None:
    """The compiler alone is installed without it."""
    script = f"import sys; sys.modules['torch'], sys.argv[1:] = None, {command.split()}\nfrom unibody import cli; cli.main()"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: torch is not installed: pip install 'unibody[models]'\n")


def test_help_names_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.partition("Commands:\n")[2].splitlines()]
    assert dict(rows) == {
        "generate": "Compile definitions; write the generated files that change.",
        "check": "Say which generated files are stale, missing or orphaned.",
        "diff": "Show what `generate` would change, as a patch.",
        "watch": "Generate whenever a source changes.",
        "explain": "Say where a generated line comes from.",
        "lint": "Find what the transformers dialect corrupts or drops.",
        "graph": "Draw the family tree of definitions.",
        "quantize": "Quantize a checkpoint.",
        "dequantize": "Make a plain checkpoint of a quantized one.",
        "inspect": "Say what a quantized checkpoint is.",
        "run": "Continue a text with a model, writing while it is generated.",
        "chat": "Talk with a model.",
        "push": "Upload a checkpoint to the Hub.",
        "card": "Write the model card of a checkpoint.",
        "bench": "Measure speed and memory, and compare commits.",
        "export": "Write a model in another program's format.",
        "merge": "Make one checkpoint of the parts of a sharded one.",
        "help": "Explain the code of an error or a finding, with an example.",
        "new": "Write the start of a definition, and of its test.",
    }


def test_defect_of_unibody_is_not_taken_for_wrong_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise ZeroDivisionError("as a test")

    monkeypatch.setattr(commands, "check", fail)
    assert run(monkeypatch, "check") == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):\n")
    assert error.endswith(
        "ZeroDivisionError: as a test\n\n"
        "unibody: internal error. This is a defect of unibody, not of your input: please report it with the lines above.\n"
    )
