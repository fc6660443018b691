"""The table of packages: what is there is found without importing it; what is missing names its remedy."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from unibody import UnibodyError, integrations
from unibody.integrations.availability import PACKAGES, found_version, is_available, require

ROOT = Path(__file__).parents[2]


def test_what_is_there() -> None:
    assert found_version("gguf") == version("gguf")
    assert is_available("gguf") and integrations.is_gguf_available()
    with pytest.raises(ValueError, match="'torchh' is no package of an integration: one of accelerate, "):
        is_available("torchh")
    for name in PACKAGES:
        assert callable(getattr(integrations, f"is_{name}_available"))


def test_nothing_is_imported() -> None:
    code = (
        "import sys; from unibody.integrations.availability import PACKAGES, is_available; "
        "[is_available(name) for name in PACKAGES]; "
        "print(sorted({p.module for p in PACKAGES.values()} & set(sys.modules)), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[] False", done.stderr


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibody.integrations.availability.find_spec", lambda name: None)
    message = r"ZeRO needs deepspeed >= [\d.]+, which is not installed: pip install 'unibody\[deepspeed\]'"
    with pytest.raises(integrations.MissingPackageError, match=message) as caught:
        require("deepspeed", "ZeRO")
    assert isinstance(caught.value, UnibodyError) and isinstance(caught.value, ImportError)


def test_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibody.integrations.availability.version", lambda name: "0.0.1")
    assert not is_available("gguf")
    with pytest.raises(ImportError, match=r"gguf >= [\d.]+, and 0\.0\.1 is installed"):
        require("gguf", "An export")


def test_every_extra_installs_its_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for package in PACKAGES.values():
        assert any(need.startswith(package.distributions) for need in extras[package.extra]), package


def test_what_is_offered() -> None:
    tree = ast.parse(Path(str(integrations.__file__)).read_text(encoding="utf-8"))
    checkers = next(node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name for node in checkers.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(integrations.__all__) == {name for names in integrations._PLACES.values() for name in names} == told
    assert set(integrations.__all__) <= set(dir(integrations))
    assert all(hasattr(integrations, name) for name in integrations.__all__)
    with pytest.raises(AttributeError, match=r"module 'unibody\.integrations' has no attribute 'is_jax_available'"):
        integrations.is_jax_available  # noqa: B018
