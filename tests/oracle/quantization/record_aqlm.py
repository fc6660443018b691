"""Records `aqlm/layers`, the weights and outputs of AQLM's layers, and `aqlm/llama`, a checkpoint that transformers runs with them.

AQLM's package does not quantize: codes and codebooks are random. Its kernel for CPUs sums rightly on one thread only, and takes tiles of
one output.
"""

from __future__ import annotations

import os

os.environ["NUMBA_NUM_THREADS"] = "1"

import inspect
import json
from typing import Any

import numpy as np
import torch
from aqlm import QuantizedLinear
from aqlm.inference_kernels import get_forward_pass_kernel
from aqlm.utils import _dequantize_weight, unpack_int_data
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from oracle.quantization import fixtures, inputs

LAYERS = {  # in_group_size, out_group_size, num_codebooks, nbits_per_codebook
    "1x8": (8, 1, 1, 8),
    "2x8": (8, 1, 2, 8),
    "1x12": (8, 1, 1, 12),
    "3x5": (4, 1, 3, 5),
    "1x16": (8, 1, 1, 16),
    "2x8-tiles": (4, 2, 2, 8),
}


def tensors(rows: int, columns: int, sizes: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """Codes, codebooks and scales of a layer."""
    width, height, count, bits = sizes
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 2**bits, (rows // height, columns // width, count))
    return {
        "codes": torch.from_numpy(
            codes.astype(np.uint8).view(np.int8) if bits <= 8 else codes.astype(np.uint16).view(np.int16)
        ),
        "codebooks": inputs.weight(count * 2**bits, height * width, seed).view(count, -1, height, width).half(),
        "scales": inputs.shared(np.exp(0.3 * draw.standard_normal((rows // height, 1, 1, 1)))).half(),
    }


def main() -> None:
    found: dict[str, Tensor] = {}
    for seed, (name, sizes) in enumerate(LAYERS.items()):
        width, height, count, bits = sizes
        stored = tensors(32, 64, sizes, seed)
        wide = {key: value if key == "codes" else value.float() for key, value in stored.items()}
        weight = _dequantize_weight(unpack_int_data(stored["codes"], bits), wide["codebooks"], wide["scales"])
        # The codebook of 16 bits is a megabyte: `inputs.weight` makes it again.
        found |= {f"{name}/{key}": value for key, value in stored.items() if bits < 16 or key != "codebooks"}
        found[f"{name}/weight"] = weight
        if height == 1:
            layer = QuantizedLinear(64, 32, width, height, count, bits, bias=True)
            for key, value in wide.items():
                getattr(layer, key).data = value.clone()
            layer.bias.data = inputs.bias(32)
            with torch.no_grad():
                found[f"{name}/y"] = layer(inputs.activations(3, 64))
    fixtures.save("aqlm/layers", __file__, found, signature=str(inspect.signature(get_forward_pass_kernel)))
    record_llama()


def record_llama() -> None:
    """In the blocks two codebooks of eight bits each, but the first block's values, which stay plain: transformers goes by names of modules."""
    sizes = (8, 1, 2, 8)
    plain = "model.layers.0.self_attn.v_proj"
    model = inputs.llama()
    state = {key: value.half() for key, value in model.state_dict().items()}
    for seed, (name, linear) in enumerate(inputs.linears(model).items()):
        if name != plain:
            del state[f"{name}.weight"]
            made = tensors(linear.out_features, linear.in_features, sizes, seed)
            state |= {f"{name}.{key}": value for key, value in made.items()}
    config = {
        "quant_method": "aqlm",
        **dict(zip(("in_group_size", "out_group_size", "num_codebooks", "nbits_per_codebook"), sizes, strict=True)),
        "linear_weights_not_to_quantize": [plain, "lm_head"],
    }
    folder = fixtures.FOLDER / "aqlm/llama"
    model.save_pretrained(folder)
    described: dict[str, Any] = json.loads((folder / "config.json").read_text())
    described |= {"quantization_config": config}
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    save_file(
        {key: value.contiguous() for key, value in sorted(state.items())},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    ids = inputs.token_ids(2, 12)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
    fixtures.save("aqlm/llama/values", __file__, {"ids": ids, "logits": logits})


if __name__ == "__main__":
    main()
