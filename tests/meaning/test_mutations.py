"""Broken definitions: whatever is done to a real one, the compiler gives output that parses or diagnostics, nothing else."""

from __future__ import annotations

import ast
import io
import keyword
import os
import random
import re
import shutil
import tokenize
from pathlib import Path

import pytest
from meaning.unformatted import Unformatted, compile_definitions

from unibody.generator.diagnostics import CODES, CompileError

ROOT = Path(__file__).parents[2]
DEFINITIONS = sorted((ROOT / "modular").rglob("modular_*.py"))
MUTANTS = 120 if "UNIBODY_DEEP" in os.environ else 12  # of each definition
GARBAGE = (
    "(",
    ")",
    "]",
    ":",
    "=",
    "@",
    "\\",
    '"""',
    "'",
    "\t",
    "\x00",
    "\ufeff",
    "é",
    "lambda: ",
    "yield ",
    "await ",
    "*",
    "**",
    "super().",
    "\f",
)


def mutated(text: str, rng: random.Random) -> str:
    """The text with one to three small changes, of lines, tokens, names or indentation."""
    for _ in range(rng.randint(1, 3)):
        text = rng.choice((change_lines, change_lines, change_tokens, change_tokens, rename, indent, insert))(
            text, rng
        )
    return text


def change_lines(text: str, rng: random.Random) -> str:
    """A run of lines deleted, doubled, or swapped with another."""
    rows = text.split("\n")
    first, size, other = rng.randrange(len(rows)), rng.randint(1, 4), rng.randrange(len(rows))
    run = rows[first : first + size]
    match rng.randrange(3):
        case 0:
            del rows[first : first + size]
        case 1:
            rows[first:first] = run
        case _:
            rows[first : first + size] = rows[other : other + size]
            rows[other : other + size] = run
    return "\n".join(rows)


def tokens(text: str) -> list[tokenize.TokenInfo]:
    """The tokens with text of their own, as far as they can be read."""
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            found += [token] if token.string.strip() else []
    except (tokenize.TokenError, SyntaxError):
        pass
    return found


def replaced(text: str, token: tokenize.TokenInfo, new: str) -> str:
    rows = text.split("\n")
    before = sum(len(row) + 1 for row in rows[: token.start[0] - 1]) + token.start[1]
    after = sum(len(row) + 1 for row in rows[: token.end[0] - 1]) + token.end[1]
    return text[:before] + new + text[after:]


def change_tokens(text: str, rng: random.Random) -> str:
    """A token deleted, doubled, or replaced by another one of the file."""
    found = tokens(text)
    if not found:
        return text
    token = rng.choice(found)
    return replaced(text, token, rng.choice(("", f"{token.string} {token.string}", rng.choice(found).string)))


def rename(text: str, rng: random.Random) -> str:
    """One occurrence of an identifier, or all, called like another or like a keyword."""
    names = [token for token in tokens(text) if token.type == tokenize.NAME]
    if not names:
        return text
    token, other = rng.choice(names), rng.choice((rng.choice(names).string, rng.choice(keyword.kwlist), "unheard_of"))
    return replaced(text, token, other) if rng.random() < 0.5 else re.sub(rf"\b{token.string}\b", other, text)


def indent(text: str, rng: random.Random) -> str:
    """A run of lines moved to the right or to the left."""
    rows = text.split("\n")
    first = rng.randrange(len(rows))
    for index in range(first, min(len(rows), first + rng.randint(1, 20))):
        rows[index] = "    " + rows[index] if rng.random() < 0.5 else rows[index].removeprefix("    ")
    return "\n".join(rows)


def insert(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    return text[:place] + rng.choice(GARBAGE) + text[place:]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all definitions in a project of its own."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "modular", root / "modular", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pyproject.toml").write_text("[tool.unibody]\n")
    return root


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda file: file.stem.removeprefix("modular_"))
def test_output_or_diagnostics(project: Path, definition: Path) -> None:
    file = project / definition.relative_to(ROOT)
    original = definition.read_text(encoding="utf-8")
    rng = random.Random(definition.stem)
    outcomes, session = set(), Unformatted()
    compile_definitions(project, session=session)
    for number in range(MUTANTS):
        text = mutated(original, rng)
        file.write_text(text, encoding="utf-8", newline="")
        try:
            result = compile_definitions(project, [definition.stem.removeprefix("modular_")], session=session)
            outputs, diagnostics = result.outputs, result.diagnostics
        except CompileError as error:
            outputs, diagnostics = {}, error.diagnostics
        except Exception as error:
            raise AssertionError(f"mutant {number} of {definition.name} crashes the compiler:\n{text}") from error
        finally:
            file.write_text(original, encoding="utf-8")
        assert outputs or diagnostics, f"mutant {number}: neither output nor diagnostic"
        for path, output in outputs.items():
            try:
                ast.parse(output)
            except SyntaxError as error:
                raise AssertionError(
                    f"{path}, from mutant {number} of {definition.name}:\n{text}\n=====\n{output}"
                ) from error
        for found in diagnostics:
            assert found.code in CODES and found.message and found.remedy, found
            assert "Traceback" not in str(found)
        outcomes.add(bool(diagnostics))
    assert True in outcomes, "no mutant was refused: the mutations change nothing"
