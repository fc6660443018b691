"""Loading maps the checkpoint: no second copy is made, in a fresh process, on a file large enough to tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from oracle.zoo import first_case

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads the memory of a process from /proc, which is Linux's"
)

SIZE = {
    "vocab_size": 24_000,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
}

LOAD = """
import importlib, json, os, re, sys, time

import torch
import safetensors.torch

parent, stem, class_name, folder, asked = sys.argv[1:]
sys.path.insert(0, parent)
module = importlib.import_module(stem)


def memory():
    status = open("/proc/self/status").read()
    return {name: int(re.search(rf"{name}:\\s+(\\d+) kB", status)[1]) * 1024 for name in ("RssAnon", "VmHWM", "VmRSS")}


before = memory()
started = time.perf_counter()
model = getattr(module, class_name).from_pretrained(folder, dtype=None if asked == "stored" else asked)
seconds = time.perf_counter() - started
loaded = memory()

mappings = []
for line in open("/proc/self/maps"):
    fields = line.split(maxsplit=5)
    if len(fields) == 6 and fields[5].strip().endswith(".safetensors"):
        first, last = (int(number, 16) for number in fields[0].split("-"))
        mappings.append((first, last))
inside = [
    any(first <= tensor.data_ptr() and tensor.data_ptr() + tensor.nbytes <= last for first, last in mappings)
    for tensor in model.parameters()
]
with torch.no_grad():
    model(torch.tensor([[5, 6, 7]]))
used = memory()
needless = [name for name in ("sympy", "torch._dynamo", "huggingface_hub") if name in sys.modules]
print(json.dumps({"needless": needless, "before": before, "loaded": loaded, "used": used, "inside": inside, "seconds": seconds}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder with a float32 checkpoint of about 200 MB, the same one in shards, and the size of the tensors."""
    case = first_case()
    folder = tmp_path_factory.mktemp("large")
    with torch.device("meta"):
        model = case.model_class(case.config_class.from_dict({**case.config, **SIZE}))
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.01)
    model.save_pretrained(folder / "single")
    model.save_pretrained(folder / "sharded", max_shard_size="50MB")
    size = sum(parameter.nbytes for parameter in model.parameters())
    assert 190e6 < size < 250e6
    yield folder, size
    for file in folder.rglob("*.safetensors"):
        file.unlink()


def measured(folder, dtype: str) -> dict:
    """Memory before, after loading and after a forward pass of a process that loads `folder`."""
    case = first_case()
    file = Path(case.module.__file__)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(file.parent), file.stem, case.class_name, str(folder), dtype],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", ["single", "sharded"])
def test_parameters_are_the_mapped_file(large, form):
    """Every parameter lies in the mapping; loading allocates almost nothing, and using the model maps it once."""
    folder, size = large
    found = measured(folder / form, "stored")
    assert all(found["inside"])
    assert found["needless"] == [], "imported by loading or by a forward pass, for nothing"
    assert found["loaded"]["RssAnon"] - found["before"]["RssAnon"] < 0.1 * size
    assert found["used"]["RssAnon"] - found["before"]["RssAnon"] < 0.2 * size
    assert found["used"]["VmHWM"] - found["before"]["VmRSS"] < 1.3 * size


def test_conversion_makes_one_copy_of_the_new_type(large):
    """Loading float32 as bfloat16 allocates half of the file's size, and never holds a float32 copy."""
    folder, size = large
    found = measured(folder / "single", "bfloat16")
    assert not any(found["inside"])
    assert found["loaded"]["RssAnon"] - found["before"]["RssAnon"] < 0.5 * size * 1.1
    assert found["loaded"]["VmHWM"] - found["before"]["VmRSS"] < 1.6 * size
