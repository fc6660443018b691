"""`unibody help`: every code is explained, and every example says exactly what it is said to say.

`python tests/tools/test_explanations.py` rewrites the messages from what the compiler says now; read the diff.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from compiler.workspace import Workspace
from tools.command import Done, unibody

from unibody.generator.diagnostics import CODES
from unibody.generator.tools.explanations import FOLDER, Block, blocks, read_explanation

FILES = ("modular/", "more/", "models/", "generated", "pyproject.toml")  # how the name of a file in an example begins


class Example:
    """The two halves of an explanation: what is refused or found, by which command and with which words, and what is accepted."""

    def __init__(self, code: str) -> None:
        text = read_explanation(code)
        refused, _, accepted = text.partition("\n## Accepted\n")
        self.title, *_ = text.split("\n")
        found = list(blocks(refused))
        self.bad = [block for block in found if block.name.startswith(FILES)]
        (self.says,) = (block for block in found if block.name.startswith("unibody "))
        self.good = list(blocks(accepted))
        better = re.search(r"^`(unibody [^`]+)`$", accepted, re.MULTILINE)
        self.better = better[1] if better else self.says.name
        assert len(self.bad) + len(self.good) + 1 == text.count("\n```\n"), "a block without a caption"

    def run(self, command: str, files: list[Block], folder: Path) -> Done:
        project = Workspace(folder, {})
        for name, remark, text in files:
            project.write(name, text.encode("latin-1" if "latin-1" in remark else "utf-8"))
        with mock.patch.dict(os.environ, {"PATH": ""}):  # a formatter there would be part of a message
            return unibody(*command.split()[1:], cwd=folder)


def diagnostics(done: Done) -> str:
    """What a command says against the definitions, without the last line, which counts them; findings are what `lint` is asked for."""
    return "".join((done.err or done.out).splitlines(keepends=True)[:-1])


@pytest.mark.parametrize("code", CODES)
def test_example(code: str, tmp_path: Path) -> None:
    example = Example(code)
    assert example.title == f"# {code}: {CODES[code]}"
    assert re.findall(r"(?:error|warning)\[(\w+)\]", example.says.text) == [code]

    done = example.run(example.says.name, example.bad, tmp_path / "bad")
    assert done.status in (1, 2)
    assert diagnostics(done) == example.says.text
    assert done.err.endswith(f"1 error; `unibody help {code}` explains it\n") or done.out.endswith(
        f"1 finding; `unibody help {code}` explains it\n"
    )

    changed = {block.name for block in example.good}
    files = [*(block for block in example.bad if block.name not in changed), *example.good]
    done = example.run(example.better, files, tmp_path / "good")
    assert (done.status, done.err) == (0, "")


def test_no_explanation_is_left_over() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == CODES.keys()


def test_the_compiler_has_no_other_codes() -> None:
    """The codes in the text of the compiler, both dialects included, are those that are explained."""
    files = [file for file in FOLDER.parents[1].rglob("*.py") if file.name != "diagnostics.py"]
    used = {code for file in files for code in re.findall(r'"((?:UB|TD)\d{3})"', file.read_text(encoding="utf-8"))}
    assert used | {"UB001"} == CODES.keys()  # UB001 is made in diagnostics.py itself


@pytest.mark.parametrize("code", ["UB012", "ub012"])
def test_help(code: str, tmp_path: Path) -> None:
    done = unibody("help", code, cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "UB012: undefined name\n\n"
        "Code names something that nothing defines, imports or inherits. "
        "The generated file would fail when it comes to that line.\n\n"
        "Refused\n\n"
        "`modular/modular_base.py`\n\n"
        "    class BaseModel:\n"
        "        def run(self, x):\n"
        "            return halve(x)\n\n"
        "`unibody generate` says\n\n"
        "    modular/modular_base.py:3:16: error[UB012]: nothing defines `halve`\n"
        "      |\n"
        "    3 |         return halve(x)\n"
        "      |                ^^^^^\n"
        "      = help: import it, define it, or mend the spelling\n\n"
        "Accepted\n\n"
        "`modular/modular_base.py`\n\n"
        "    def halve(x):\n"
        "        return x / 2\n\n\n"
        "    class BaseModel:\n"
        "        def run(self, x):\n"
        "            return halve(x)\n"
    )


def test_list_of_codes(tmp_path: Path) -> None:
    done = unibody("help", cwd=tmp_path)
    assert dict(row.split("  ", 1) for row in done.out.splitlines()) == CODES


def test_unknown_code(tmp_path: Path) -> None:
    done = unibody("help", "UB999", cwd=tmp_path)
    assert done == (2, "", "there is no code UB999; `unibody help` lists them\n")


def _rewrite() -> None:
    for code in CODES:
        example = Example(code)
        with tempfile.TemporaryDirectory() as folder:
            said = diagnostics(example.run(example.says.name, example.bad, Path(folder)))
        file = FOLDER / f"{code}.md"
        before, after = f"`{example.says.name}` says\n\n```text\n", "```\n\n## Accepted"
        head, _, tail = file.read_text().partition(before)
        file.write_text(head + before + said + after + tail.partition(after)[2])


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    sys.exit(_rewrite())
