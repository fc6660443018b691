"""The same inputs give the same bytes under any hash seed, and from any folder; torch and the parents are never imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from unibody.generator.transformers.library import package_file

PROGRAM = """
import hashlib, sys
from pathlib import Path
from unibody.generator.transformers.pipeline import convert_tree
from unibody.generator.transformers.library import Library

names = ["qwen2_5_omni", "gemma3", "deimv2", "conditional_detr"]
result = convert_tree(Library(Path(sys.argv[1])), [f"{name}/modular_{name}.py" for name in names])
assert not result.diagnostics
assert not {"torch", "transformers", "libcst"} & sys.modules.keys()
text = "".join(f"{path}{result.outputs[path]}" for path in sorted(result.outputs))
print(len(result.outputs), hashlib.sha256(text.encode()).hexdigest())
"""


def test_the_same_bytes_everywhere(tmp_path: Path) -> None:
    models = package_file("transformers/models")
    assert models is not None
    found = set()
    for seed in ("0", "1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(models.resolve())],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)

    assert len(found) == 1
    assert int(found.pop().split()[0]) > 10
