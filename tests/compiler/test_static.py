"""Definitions are parsed; nothing of them, and nothing that they import, is ever executed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from compiler.workspace import Workspace

ROOT = Path(__file__).parents[2]

TRAP = """
from pathlib import Path

Path(__file__).with_name("import.sprung").touch()
"""
DEFINITION = '''
import trap_package
from trap_package.inner import thing


def spring(name):
    open(f"{name}.sprung", "w").close()
    return lambda cls: cls


@spring("decorator")
class BaseModel:
    """Traps everywhere."""

    attribute = spring("attribute")

    def run(self, value=spring("default")):
        return trap_package, thing, value


CONSTANT = spring("constant")
__all__ = ["BaseModel", "CONSTANT"]
'''


def test_nothing_is_executed(workspace: Callable[[dict[str, str]], Workspace]) -> None:
    project = workspace(
        {
            "modular/__init__.py": TRAP,
            "trap_package/__init__.py": TRAP,
            "trap_package/inner.py": TRAP,
            "base": DEFINITION,
        }
    )
    done = subprocess.run(
        [sys.executable, "-m", "unibody", "generate"],
        cwd=project.root,
        env={"PYTHONPATH": f"{ROOT}:{project.root}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'spring("decorator")' in (project.root / "generated/modeling_base.py").read_text()
    assert not [*project.root.rglob("*.sprung"), *Path.cwd().glob("*.sprung")]


def test_the_traps_work(workspace: Callable[[dict[str, str]], Workspace]) -> None:
    project = workspace({"trap_package/__init__.py": TRAP, "trap_package/inner.py": "thing = 1", "base": DEFINITION})
    file = project.root / "modular/modular_base.py"
    subprocess.run([sys.executable, file], cwd=project.root, env={"PYTHONPATH": str(project.root)}, check=True)
    assert len([*project.root.rglob("*.sprung")]) == 5


def test_the_compiler_does_not_import_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from unibody.generator.commands import check\n"
        f"status = check([], Path({str(ROOT)!r}))\n"
        "assert not {'transformers', 'numpy', 'unibody.core'} & sys.modules.keys()\n"
        "raise SystemExit(status)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
