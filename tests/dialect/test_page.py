"""The example in docs/transformers-dialect.md does what the page says, and the page names every rule and file."""

from __future__ import annotations

import re
from pathlib import Path

from dialect.tree import tree
from pages import ROOT, blocks

from unibody.generator import commands
from unibody.generator.transformers.lint import REMEDIES
from unibody.generator.transformers.quirks import Quirks

PAGE = (ROOT / "docs/transformers-dialect.md").read_text(encoding="utf-8")
SOURCES = ROOT / "generator/transformers"


def write_example(number: int, folder: Path) -> Path:
    """Write one of the page's definitions to the file that its first line names."""
    name, text = blocks(PAGE)[number].removeprefix("# ").split("\n", 1)
    file = folder / name
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_the_example_generates_what_the_page_says(tmp_path: Path) -> None:
    file = write_example(0, tmp_path)

    assert commands.generate([], tree(tmp_path)) == 0

    made = {path.name: path.read_text(encoding="utf-8") for path in file.parent.iterdir()}
    assert set(made) == {"modular_mine.py", "configuration_mine.py", "modeling_mine.py"}
    for text in ("class MineAttention(", "class MineDecoderLayer(", "from transformers.cache_utils import Cache"):
        assert text in made["modeling_mine.py"]


def test_the_second_example_has_two_parents(tmp_path: Path) -> None:
    file = write_example(1, tmp_path)

    assert commands.generate([], tree(tmp_path)) == 0

    made = {path.name: path.read_text(encoding="utf-8") for path in file.parent.iterdir()}
    assert set(made) == {file.name, "configuration_my_new_model2.py", "modeling_my_new_model2.py"}
    assert "    attention_dropout: float = 0.1\n" in made["configuration_my_new_model2.py"]
    assert "class MyNewModel2TextScaledWordEmbedding(nn.Embedding):" in made["modeling_my_new_model2.py"]
    assert "Gemma" not in re.sub(r"(?m)^#.*", "", made["modeling_my_new_model2.py"]).replace("GemmaTokenizer", "")


def test_the_page_lists_every_rule_and_every_file() -> None:
    assert set(re.findall(r"^\| (TD\d+) ", PAGE, re.MULTILINE)) == set(REMEDIES)
    for file in SOURCES.glob("*.py"):
        assert file.name == "__init__.py" or f"`{file.name}`" in PAGE


def test_the_page_lists_every_quirk() -> None:
    section = PAGE.partition("\n## Quirks\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE) == Quirks.names()
