"""What is in the distributions, and that an installed wheel works away from the repository."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest


def call(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """What the command prints; `path` is where it finds packages first."""
    env = {"PATH": str(Path(sys.executable).parent), **({"PYTHONPATH": str(path)} if path else {})}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source distribution of the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", folder, cwd=root)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile")
    call(*pip, "--target", folder, distributions[0], cwd=folder)
    return folder


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_wheel_has_one_package(distributions: tuple[Path, Path]) -> None:
    names = {name.partition("/")[0] for name in contents(distributions[0])}
    assert {name for name in names if not name.endswith(".dist-info")} == {"unibody"}
    assert len(names) == 2


def test_wheel_has_every_file(root: Path, distributions: tuple[Path, Path]) -> None:
    """The links make the folder `unibody` of the checkout look exactly like the installed package."""
    listed = {name for name in contents(distributions[0]) if name.startswith("unibody/")}
    folders = [
        root / "unibody",
        *(root / "unibody" / name for name in ("generator", "templates", "generated", "modular")),
    ]
    present = {
        file.relative_to(root).as_posix()
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert listed == present
    assert any(name.endswith(".j2") for name in listed)
    assert "unibody/py.typed" in listed


def test_wheel_of_the_sdist_is_the_same(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, sdist = distributions
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist", cwd=source)
    (again,) = (tmp_path / "dist").glob("*.whl")
    assert contents(again) == contents(wheel)


def test_base_install_needs_no_torch(distributions: tuple[Path, Path]) -> None:
    (metadata,) = (text for name, text in contents(distributions[0]).items() if name.endswith("/METADATA"))
    lines = metadata.decode().splitlines()
    needed = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    base = {re.split(r"[^\w-]", text)[0] for text in needed if "extra ==" not in text}
    models = {re.split(r"[^\w-]", text)[0] for text in needed if text.endswith("extra == 'models'")}
    assert {"jinja2", "ruff", "click"} <= base
    assert {"safetensors", "tokenizers", "torch"} <= models
    assert not base & models
    assert "License-Expression: Apache-2.0" in lines


def test_every_module_of_the_wheel_imports(installed: Path, tmp_path: Path) -> None:
    code = """
import importlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
for file in sorted((root / "unibody").rglob("*.py")):
    parts = file.relative_to(root).with_suffix("").parts
    if parts[1] == "modular" and file.name != "__init__.py" or file.name == "__main__.py":
        continue  # definitions are read, not imported
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    assert module.__file__ == str(file), module.__file__
    print(module.__name__)
"""
    # hqq, which peft imports through transformers, warns as it is imported.
    warnings = (
        "-W",
        "error",
        "-W",
        "ignore:`torch.jit.script_method` is:DeprecationWarning",
        "-W",
        "ignore:invalid escape",
    )
    names = call(sys.executable, *warnings, "-c", code, installed, cwd=tmp_path, path=installed).split()
    assert {"unibody", "unibody.cli", "unibody.generated.registry", "unibody.generator"} <= set(names)


def test_installed_compiler_knows_its_own_output(root: Path, installed: Path, tmp_path: Path) -> None:
    """`unibody check` finds the checkout up to date, with the code and the templates of the wheel."""
    code = "import unibody, unibody.cli; print(unibody.__file__); unibody.cli.main()"
    printed = call(sys.executable, "-c", code, "check", "--project", root, cwd=tmp_path, path=installed)
    assert printed.splitlines()[0] == str(installed / "unibody" / "__init__.py")


MINE = """
from unibody.modular.models.modular_llama import LlamaConfig, LlamaForCausalLM, LlamaMLP


class MineConfig(LlamaConfig):
    model_type = "mine"


class MineMLP(LlamaMLP):
    def forward(self, hidden):
        return super().forward(hidden).clamp(-10, 10)


class MineForCausalLM(LlamaForCausalLM):
    pass
"""
RUN = """
import torch
from modeling_mine import MineConfig, MineForCausalLM, MineMLP

config = MineConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
model = MineForCausalLM(config)
assert isinstance(model.model.layers[0].mlp, MineMLP)
print(tuple(model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=4, min_new_tokens=4).shape))
"""


def test_a_project_of_ones_own(installed: Path, tmp_path: Path) -> None:
    """With the wheel alone: a definition that inherits from one in the wheel compiles, is up to date, and runs without us."""
    (tmp_path / "pyproject.toml").write_text("[tool.unibody]\n", encoding="utf-8")
    (tmp_path / "modular").mkdir()
    (tmp_path / "modular/modular_mine.py").write_text(MINE, encoding="utf-8")
    unibody = (sys.executable, "-c", "import unibody.cli; unibody.cli.main()")
    assert "created generated/modeling_mine.py\n" in call(*unibody, "generate", cwd=tmp_path, path=installed)
    call(*unibody, "check", cwd=tmp_path, path=installed)
    assert str(installed) not in (tmp_path / "generated/modeling_mine.py").read_text(encoding="utf-8")
    assert call(sys.executable, "-c", RUN, cwd=tmp_path / "generated") == "(1, 7)\n"
