"""Records what torchao makes of weights with mslk, two int4 in a byte: `mslk/layers`, and `mslk/llama`, saved by transformers.

Of mslk, only the operators need CUDA; the Python that rounds and packs runs without them. The other packing, tiles, torch makes
on CUDA alone: `mslk/tiles` is what that kernel's source does with given codes, compiled for a CPU, one thread after the other.
The argument is the path of that file, which `SOURCE` names.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.cpp_extension import load_inline

from oracle.quantization import fixtures, inputs

COMMIT = "05f814fecfca7d2a17f28cbe7e1cb2d8d4c13230"
SOURCE = f"https://github.com/pytorch/pytorch/blob/{COMMIT}/aten/src/ATen/native/cuda/int4mm.cu"
KERNEL = "template <int InnerKTiles>\n__global__ void matrix_to_m16n8k16_Bint4_layout("
HOST = """
#define __global__
#define RestrictPtrTraits DefaultPtrTraits
static struct { int x, y; } blockIdx, threadIdx;
constexpr bool isPowerOf2(int x) { return (x & (x - 1)) == 0; }
%s
at::Tensor pack(at::Tensor pairs) {
  auto packed = at::empty({pairs.size(0) / 8, pairs.size(1) / 64, 32, 4}, at::kInt);
  auto in = pairs.packed_accessor32<uint8_t, 2>();
  auto out = packed.packed_accessor32<int32_t, 4>();
  for (blockIdx.x = 0; blockIdx.x < out.size(1); ++blockIdx.x)
    for (blockIdx.y = 0; blockIdx.y < out.size(0); ++blockIdx.y)
      for (threadIdx.x = 0; threadIdx.x < 32; ++threadIdx.x)
        matrix_to_m16n8k16_Bint4_layout<8>(in, out);
  return packed;
}
"""


def import_torchao() -> Any:
    """torchao, with an mslk whose operators are not loaded."""
    spec = find_spec("mslk")
    assert spec is not None
    package: Any = module_from_spec(spec)
    package.__version__ = version("mslk-cuda")
    sys.modules["mslk"] = package
    import torchao.quantization

    return torchao.quantization


def record_layers(ao: Any) -> None:
    weight = inputs.weight(24, 128)
    weight[3], weight[5] = 0, weight[5].abs() + 1  # a row of zeros, and one that is far from them
    found = {"weight": weight}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for size in (32, 128):
            linear = torch.nn.Linear(128, 24, bias=False)
            linear.weight = torch.nn.Parameter(weight.to(dtype))
            ao.quantize_(model := torch.nn.Sequential(linear), ao.Int4WeightOnlyConfig(group_size=size))
            for name in ("qdata", "scale", "zero_point"):
                found[f"{str(dtype).removeprefix('torch.')}/{size}/{name}"] = getattr(model[0].weight, name)
    fixtures.save("mslk/layers", __file__, found)


def record_checkpoint(ao: Any) -> None:
    import transformers

    folder = fixtures.FOLDER / "mslk/llama"
    folder.mkdir(parents=True, exist_ok=True)
    config = transformers.TorchAoConfig(ao.Int4WeightOnlyConfig(group_size=64))
    model = inputs.llama(num_hidden_layers=1).bfloat16()
    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as packed:
        model.save_pretrained(plain)
        load = transformers.AutoModelForCausalLM.from_pretrained
        load(plain, dtype=torch.bfloat16, device_map="cpu", quantization_config=config).save_pretrained(packed)
        for file in ("config.json", "model.safetensors"):
            (folder / file).write_bytes((Path(packed) / file).read_bytes())
    fixtures.save("mslk/llama/values", __file__, {name: layer.weight for name, layer in inputs.linears(model).items()})


def record_tiles(source: str) -> None:
    start = source.index(KERNEL)
    kernel = source[start : source.index("\n}\n", start) + 3]
    module = load_inline("int4_tiles", HOST % kernel, functions=["pack"], with_cuda=False)
    codes = torch.tensor(np.random.default_rng(0).integers(0, 16, (24, 384)), dtype=torch.uint8)
    tiles = module.pack((codes[:, ::2] << 4 | codes[:, 1::2]).contiguous())
    facts = {"commit": COMMIT, "kernel_sha256": hashlib.sha256(kernel.encode()).hexdigest()}
    fixtures.save("mslk/tiles", __file__, {"codes": codes, "tiles": tiles}, **facts)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"write `make record-mslk ARGS=int4mm.cu`, with the path of {SOURCE}")
    inputs.seed_all()
    package = import_torchao()
    record_layers(package)
    record_checkpoint(package)
    record_tiles(Path(sys.argv[1]).read_text(encoding="utf-8"))
