"""The dialect on the command line: by option, or as [tool.unibody] of a project says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARENT = "class BaseMLP:\n    def forward(self, x):\n        return x\n"
CHILD = "from ..base.modeling_base import BaseMLP\n\n\nclass ChildMLP(BaseMLP):\n    pass\n"


def unibody(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd / "cache")}
    command = [sys.executable, "-m", "unibody", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def plant(folder: Path) -> None:
    for path, text in {"base/modeling_base.py": PARENT, "child/modular_child.py": CHILD}.items():
        (folder / "models" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "models" / path).write_text(text, encoding="utf-8")


def test_by_option(tmp_path: Path) -> None:
    plant(tmp_path)
    options = ("--dialect", "transformers", "--root", "models")
    done = unibody("check", *options, "--report", "report.json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "missing: child/modeling_child.py\n" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["definitions"] == 1
    done = unibody("generate", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "class ChildMLP:" in (tmp_path / "models/child/modeling_child.py").read_text(encoding="utf-8")
    done = unibody("check", *options, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == "1 files are up to date\n"


def test_for_programs(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "models/bad").mkdir()
    (tmp_path / "models/bad/modular_bad.py").write_text(CHILD.replace("BaseMLP)", "BaseMLP, BaseMLP)"))
    options = ("--dialect", "transformers", "--root", "models", "--format")
    done = unibody("check", *options, "json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == told["status"] == 1
    assert told["files"] == [{"path": "models/child/modeling_child.py", "state": "missing"}]
    assert [d["path"] for d in told["diagnostics"]] == ["models/bad/modular_bad.py"]
    done = unibody("check", *options, "github", cwd=tmp_path)
    assert done.returncode == 1
    refused, missing = done.stdout.splitlines()
    assert refused.startswith("::error file=models/bad/modular_bad.py,line=4,")
    remedy = "missing; run: unibody generate --dialect transformers --root models"
    assert missing == f"::error file=models/child/modeling_child.py::{remedy}"
    told = json.loads(unibody("generate", *options, "json", cwd=tmp_path).stdout)
    assert told["files"] == [{"path": "models/child/modeling_child.py", "state": "created"}]


def test_by_the_project(tmp_path: Path) -> None:
    plant(tmp_path)
    table = '[tool.unibody]\ndialect = "transformers"\nsources = ["models"]\n'
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    assert unibody("generate", cwd=tmp_path).returncode == 0
    assert (tmp_path / "models/child/modeling_child.py").is_file()
    assert unibody("check", cwd=tmp_path).returncode == 0
    assert unibody("lint", cwd=tmp_path).returncode == 0


def test_wrong_usage(tmp_path: Path) -> None:
    done = unibody("check", "--dialect", "transformers", cwd=tmp_path)
    assert done.returncode == 2
    assert "name the folder of the models with --root" in done.stderr
    (tmp_path / "pyproject.toml").write_text('[tool.unibody]\ndialect = "latin"\n', encoding="utf-8")
    done = unibody("check", cwd=tmp_path)
    assert done.returncode == 2
    assert "is 'latin'" in done.stderr
