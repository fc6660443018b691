"""The code and the commands of docs/quantization.md, of the methods' pages and of the README run as they are printed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from oracle.quantization.inputs import save_llama
from pages import ROOT, blocks, code

from benchmarks.quantizers import PAGES
from unibody import cli

COMMAND = re.compile(r"^unibody (?:quantize|dequantize|inspect) .*?(?=$| +#)", re.MULTILINE)
NAMES = """
from typing import ClassVar
from unibody.core.quantization.columns import ColumnsLayout
from unibody.core.quantization.groupwise import GroupwiseLinear
from unibody.core.quantization.kernels import Kernel
from unibody.core.quantization.kernels import Packing
"""  # which a definition imports


def run_script(script: str, folder: Path) -> str:
    """What a script prints in a folder that holds the two generated files which the pages import."""
    for file in ("models/modeling_llama.py", "quantizers/quantizer_gptq.py"):
        shutil.copy(ROOT / "generated" / file, folder)
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands(page: Path) -> list[list[str]]:
    found = [shlex.split(line)[1:] for line in COMMAND.findall(page.read_text(encoding="utf-8"))]
    assert found
    return found


def run_commands(page: Path) -> None:
    for words in commands(page):
        done = CliRunner().invoke(cli.unibody, words)
        assert done.exit_code == 0, (words, done.output)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages speak of: a checkpoint under its several names, and texts to calibrate with."""
    save_llama(tmp_path / "smollm2", hidden_size=128, vocab_size=8192)
    for name in ("checkpoint", "MODEL"):
        (tmp_path / name).symlink_to("smollm2")
    (tmp_path / "calibration.txt").write_text("t3 t9 t4 t1 t5\n\nt2 t6 t5 t3 t5\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_code_of_the_page(folder: Path) -> None:
    """What the third block shows is a kernel table: its own row, then those of four-bit groups."""
    out = run_script(
        NAMES + code("docs/quantization.md")
        + "print(type(plain).__name__, type(plain.model.layers[0].mlp.up_proj).__name__, kernels[0].name, kernels[-1].name)",
        folder,
    )  # fmt: skip
    assert out == "LlamaForCausalLM Linear triton torch\n"


def test_the_code_of_the_readme(folder: Path) -> None:
    """The two blocks that use generated files alone, in a folder where there is nothing else."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    plain, packed = (block for block in blocks(text) if "from modeling_llama import" in block)
    assert "torch.bfloat16" in run_script(plain + "print(tokens.shape[1], model.dtype)", folder)
    show = "print(model.config.quantization_config['quant_method'], type(model.lm_head).__name__)"
    out = run_script(packed + show, folder)
    assert out == "gptq Linear\n"


@pytest.mark.parametrize("page", ["docs/quantization.md", "README.md"])
def test_the_commands_of_the_page(page: str, folder: Path) -> None:
    run_commands(ROOT / page)
    assert list(folder.glob("smollm2-*/config.json"))


@pytest.mark.parametrize(
    "method", [page.stem for page in sorted(PAGES.glob("*.md")) if "unibody quantize" in page.read_text("utf-8")]
)
def test_the_commands_of_the_methods(method: str, folder: Path) -> None:
    run_commands(PAGES / f"{method}.md")
    stored = json.loads((folder / "OUT/config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert stored["quant_method"] == method
