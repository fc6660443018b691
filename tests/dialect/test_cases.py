"""Each file in `cases/` is a rule of the dialect: small definitions, their parents, and the outputs, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from dialect.tree import plant, read_case

from unibody.generator.transformers.layout import banner
from unibody.generator.transformers.library import Library
from unibody.generator.transformers.pipeline import convert_tree

CASES = sorted(Path(__file__).parent.glob("cases/*.txt"))


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_a_case_converts_to_its_outputs(file: Path, tmp_path: Path) -> None:
    inputs, expected = read_case(file.read_text(encoding="utf-8"))
    root = plant(tmp_path, inputs)
    definitions = Library(root).definitions()

    result = convert_tree(Library(root), definitions)

    assert not result.diagnostics
    made = {}
    for path, text in result.outputs.items():
        head = banner(result.sources[path], in_tree=True)
        assert text.startswith(head)
        made[path] = text.removeprefix(head)
    assert made == expected


def test_there_are_cases() -> None:
    assert len(CASES) >= 10
