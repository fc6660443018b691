"""What `generate`, `check` and `diff` print for people, for programs and for GitHub, and that all three agree."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.workspace import Workspace
from tools.command import unibody

from unibody.generator.diagnostics import Diagnostic
from unibody.generator.report import as_github, coloured

Make = Callable[[dict[str, str]], Workspace]
ROOT = Path(__file__).parents[2]
BASE = "class BaseModel:\n    size = 1\n"
BAD = "class WrongModel:\n    size = nothing\n"


def test_diff_is_a_patch(workspace: Make) -> None:
    """`git apply` makes of the files what `generate` makes of them: changed, created, removed, without a last line end."""
    project = workspace({"base": BASE, "old": BASE.replace("Base", "Old")})
    generated = project.root / "generated"
    assert unibody("generate", cwd=project.root).status == 0
    assert unibody("diff", cwd=project.root) == (0, "", "")
    project.write("modular/modular_base.py", BASE.replace("1", "2"))
    project.write("modular/modular_more.py", BASE.replace("Base", "More"))
    (project.root / "modular/modular_old.py").unlink()
    text = (generated / "modeling_base.py").read_text()
    (generated / "modeling_base.py").write_text(text.removesuffix("\n"))

    done = unibody("diff", cwd=project.root)
    assert (done.status, done.err) == (1, "")
    assert "--- a/generated/modeling_base.py\n+++ b/generated/modeling_base.py\n" in done.out
    assert "-    size = 1\n+    size = 2\n" in done.out
    assert "\\ No newline at end of file\n" in done.out
    assert "--- /dev/null\n+++ b/generated/modeling_more.py\n" in done.out
    assert "--- a/generated/modeling_old.py\n+++ /dev/null\n" in done.out
    assert (generated / "modeling_old.py").exists(), "diff writes nothing"

    subprocess.run(["git", "apply", "-"], cwd=project.root, input=done.out, text=True, check=True)
    assert unibody("check", cwd=project.root).out == "3 files are up to date\n"
    assert not (generated / "modeling_old.py").exists()


def test_diff_of_some(workspace: Make) -> None:
    project = workspace({"base": BASE, "other": BASE.replace("Base", "Other")})
    done = unibody("diff", "other", cwd=project.root)
    assert done.status == 1
    assert "modeling_other.py" in done.out
    assert "modeling_base.py" not in done.out


def test_diff_beside_an_error(workspace: Make) -> None:
    project = workspace({"base": BASE, "wrong": BAD})
    done = unibody("diff", cwd=project.root)
    assert done.status == 1
    assert "+++ b/generated/modeling_base.py\n" in done.out
    assert "error[UB012]: nothing defines `nothing`\n" in done.err


def test_colours_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["--- a/x", "+++ b/x", "@@ -1 +1 @@", " same", "-old", "+new"]
    assert coloured(rows) == rows
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured(rows) == [
        "\x1b[1m--- a/x\x1b[0m", "\x1b[1m+++ b/x\x1b[0m", "\x1b[36m@@ -1 +1 @@\x1b[0m", " same",
        "\x1b[31m-old\x1b[0m", "\x1b[32m+new\x1b[0m",
    ]  # fmt: skip
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured(rows) == rows


def test_stdout(workspace: Make) -> None:
    project = workspace({"base": BASE})
    assert unibody("generate", cwd=project.root).status == 0
    file = project.root / "generated/modeling_base.py"
    written = file.read_text()
    file.unlink()
    assert unibody("generate", "--stdout", "base", cwd=project.root) == (0, written, "")
    assert not file.exists()


def test_stdout_of_a_wrong_or_unclear_name(workspace: Make) -> None:
    project = workspace(
        {"models/modular_base.py": BASE, "modular/a/modular_base.py": BASE, "modular/b/modular_base.py": BASE}
    )
    done = unibody("generate", "--stdout", "base", cwd=project.root)
    assert (done.status, done.out) == (2, "")
    assert "error[UB023]: `base` means `a/base` and `b/base`\n" in done.err
    assert unibody("generate", "--stdout", "a/base", cwd=project.root).status == 0
    assert unibody("generate", "--stdout", "gone", cwd=project.root).status == 2
    for names in ([], ["a/base", "b/base"]):
        done = unibody("generate", "--stdout", *names, cwd=project.root)
        assert (done.status, done.out) == (2, "")
        assert "name one definition: --stdout prints one file" in done.err


def test_stdout_of_a_broken_definition(workspace: Make) -> None:
    project = workspace({"wrong": BAD})
    done = unibody("generate", "--stdout", "wrong", cwd=project.root)
    assert (done.status, done.out) == (1, "")
    assert "error[UB012]" in done.err


def test_check_says_that_it_cannot_know_who_changed_a_file(workspace: Make) -> None:
    project = workspace({"base": BASE})
    unibody("generate", cwd=project.root)
    file = project.root / "generated/modeling_base.py"
    file.write_text(file.read_text().replace("size = 1", "size = 7"))
    done = unibody("check", cwd=project.root)
    assert done.out.startswith("stale: generated/modeling_base.py\n")
    assert "-    size = 7\n+    size = 1\n" in done.out
    assert done.out.endswith(
        "note: nothing in a generated file records what it was made from: a stale one was edited by hand, or its definition, "
        "a parent or a core block has changed since\n"
        "1 of 2 files differ; run: unibody generate\n"
    )


def test_json(workspace: Make) -> None:
    project = workspace({"base": BASE, "wrong": BAD})
    done = unibody("check", "--format", "json", cwd=project.root)
    assert (done.status, done.err) == (1, "")
    finding = {
        "code": "UB012",
        "message": "nothing defines `nothing`",
        "remedy": "import it, define it, or mend the spelling",
        "path": "modular/modular_wrong.py",
        "line": 2,
        "column": 12,
        "source": "    size = nothing",
        "length": 7,
        "notes": [],
        "severity": "error",
    }
    assert json.loads(done.out) == {
        "status": 1,
        "files": [{"path": "generated/modeling_base.py", "state": "missing"}],
        "diagnostics": [finding],
    }
    done = unibody("generate", "--format", "json", cwd=project.root)
    assert json.loads(done.out) == {
        "status": 1,
        "files": [{"path": "generated/modeling_base.py", "state": "created"}],
        "diagnostics": [finding],
    }
    (project.root / "modular/modular_wrong.py").unlink()
    unibody("generate", cwd=project.root)
    done = unibody("check", "--format", "json", cwd=project.root)
    assert (done.status, json.loads(done.out)) == (0, {"status": 0, "files": [], "diagnostics": []})


def test_json_of_an_unusable_project(workspace: Make) -> None:
    project = workspace({"pyproject.toml": "[tool.unibody]\nouput = 1\n"})
    for command in ("generate", "check"):
        done = unibody(command, "--format", "json", cwd=project.root)
        assert (done.status, done.err) == (2, "")
        found = json.loads(done.out)
        assert (found["status"], [d["code"] for d in found["diagnostics"]]) == (2, ["UB020"])


def test_github(workspace: Make) -> None:
    project = workspace({"base": BASE, "wrong": BAD})
    error = (
        "::error file=modular/modular_wrong.py,line=2,col=12,title=UB012%3A nothing defines `nothing`,endColumn=19"
        "::nothing defines `nothing`%0Ahelp: import it, define it, or mend the spelling\n"
    )
    done = unibody("check", "--format", "github", cwd=project.root)
    missing = "::error file=generated/modeling_base.py::missing; run: unibody generate\n"
    assert done == (1, error + missing, "")
    done = unibody("generate", "--format", "github", "base", cwd=project.root)
    assert done == (0, "", "")
    assert unibody("check", "--format", "github", "base", cwd=project.root) == (0, "", "")


def test_github_escapes() -> None:
    found = Diagnostic("UB008", "50 %, a: b", "one\r\ntwo", "a,b:c.py", notes=("look",))
    assert list(as_github([found], [])) == [
        "::error file=a%2Cb%3Ac.py,title=UB008%3A 50 %25%2C a%3A b::50 %25, a: b%0Anote: look%0Ahelp: one%0D%0Atwo"
    ]


def run_on_terminal(project: Workspace, script: str) -> str:
    """What the script writes to a terminal that is its standard error."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"}
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=project.root,
        env=environment,
        stderr=follower,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    os.close(follower)
    os.set_blocking(leader, False)
    try:
        return os.read(leader, 100_000).decode()
    except (BlockingIOError, OSError):
        return ""
    finally:
        os.close(leader)


PROGRAM = (
    "import sys\nfrom pathlib import Path\nfrom unibody.generator import commands, progress\n"
    "progress.PATIENCE = {patience}\n"
    "assert commands.generate([], Path()) == 0\n"
    "assert ('rich' in sys.modules) == {shown}\n"
)


def test_bar_on_a_terminal(workspace: Make) -> None:
    """It appears when a run takes long; a short one, and one whose standard error goes elsewhere, never loads rich."""
    project = workspace({f"m{i}": BASE.replace("Base", f"M{i}") for i in range(5)})
    assert "5/5" in run_on_terminal(project, PROGRAM.format(patience=-1, shown=True))
    assert run_on_terminal(project, PROGRAM.format(patience=1000, shown=False)) == ""
    quiet = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(patience=-1, shown=False)],
        cwd=project.root, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (quiet.returncode, quiet.stderr) == (0, "")
