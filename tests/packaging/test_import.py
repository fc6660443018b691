"""What `import unibody` costs and offers."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import unibody
from unibody.generated.registry import MODELS


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)


def test_import_is_light() -> None:
    """Listing what there is loads the registry, and still nothing from outside the standard library."""
    code = "import sys; before = set(sys.modules); import unibody; dir(unibody); print(*(set(sys.modules) - before))"
    done = run(code)
    assert done.returncode == 0, done.stderr
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert "unibody" in packages
    assert packages - sys.stdlib_module_names == {"unibody"}


def test_import_is_quick() -> None:
    """At most 50 ms, without torch; of the processor's time, which does not count what others do on this machine."""
    code = "import time; t = time.process_time(); import unibody; print(time.process_time() - t); import sys; 'torch' in sys.modules and exit(1)"
    runs = [run(code) for _ in range(3)]
    assert all(done.returncode == 0 for done in runs), runs
    assert min(float(done.stdout) for done in runs) <= 0.05


def test_command_is_light() -> None:
    """`unibody --version` loads neither a compiler nor what only errors and long help need."""
    code = (
        "import atexit, sys; from unibody.cli import main; sys.argv = ['unibody', '--version']; "
        "atexit.register(lambda: print(*sys.modules)); main()"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    first, modules = done.stdout.splitlines()
    assert first == f"unibody {version('unibody')}"
    assert not {"torch", "rich", "jinja2", "unibody.generator"} & set(modules.split())


@pytest.mark.parametrize("model_type", MODELS)
def test_listed_classes_can_be_imported(model_type: str) -> None:
    entry = MODELS[model_type]
    for name in (entry["config"], *entry["classes"].values()):
        found = getattr(unibody, name)
        assert found.__name__ == name
        assert found.__module__ == "unibody"
        assert f"unibody.generated.models.{entry['module']}" in {base.__module__ for base in found.__mro__}
        assert name in dir(unibody)
        assert pickle.loads(pickle.dumps(found)) is found


def test_what_is_offered() -> None:
    """`__all__`, the table of modules and what type checkers are told are one list; every auto class of the registry is on it."""
    tree = ast.parse(Path(str(unibody.__file__)).read_text(encoding="utf-8"))
    checkers = next(node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name for node in checkers.body if isinstance(node, ast.ImportFrom) for alias in node.names} - {"*"}
    names = {name for names in unibody._PLACES.values() for name in names}
    assert set(unibody.__all__) - {"__version__"} == names == told
    assert {name for entry in MODELS.values() for name in entry["classes"]} <= names
    assert all(hasattr(unibody, name) for name in unibody.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"^module 'unibody' has no attribute 'LlammaForCausalLM'$"):
        unibody.LlammaForCausalLM  # noqa: B018


def test_missing_torch_is_explained() -> None:
    done = run("import sys; sys.modules['torch'] = None; import unibody; unibody.LlamaModel")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == (
        "ImportError: unibody.LlamaModel needs torch, which is not installed: pip install 'unibody[models]'"
    )
