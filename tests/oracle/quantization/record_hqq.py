"""Records `hqq/`: codes, scales and zeros for every number of bits and both axes, layers, and checkpoints in safetensors."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import transformers
from hqq.core.quantize import BaseQuantizeConfig, Quantizer
from hqq.models.hf.base import AutoHQQHFModel
from torch import Tensor

from oracle.quantization import fixtures, inputs, live

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BITS = (8, 4, 3, 2, 1)


def quantized() -> dict[str, Tensor]:
    """`BITS/AXIS/…` with groups of 32: what is stored, the plain codes and the dequantized weight, in float32.

    `…/rounded` is the start of the optimization (optimize=False), `4/1/whole_rows` has no groups, `4/1/rounded_zero` is what
    transformers and BaseQuantizeConfig ask for at 4 bits: zeros that are whole numbers.
    """
    weight = inputs.weight(24, 64, seed=11)
    found = {"weight": weight}
    variants = [(f"{bits}/{axis}", bits, axis, {}) for bits in BITS for axis in (0, 1)]
    variants += [(f"{bits}/1/rounded", bits, 1, {"optimize": False}) for bits in BITS]
    variants += [
        ("4/0/rounded_zero", 4, 0, {"round_zero": True}),
        ("4/1/rounded_zero", 4, 1, {"round_zero": True}),
        ("4/1/whole_rows", 4, 1, {"group_size": None}),
        ("4/1/view_as_float", 4, 1, {"view_as_float": True}),
    ]
    for key, bits, axis, options in variants:
        packed, meta = Quantizer.quantize(
            weight,
            nbits=bits,
            axis=axis,
            compute_dtype=torch.float32,
            device="cpu",
            **({"group_size": 32, "channel_wise": True, "round_zero": False} | options),
        )
        found |= {f"{key}/W_q": packed, f"{key}/scale": meta["scale"], f"{key}/zero": meta["zero"]}
        found[f"{key}/dequantized"] = Quantizer.dequantize(packed, meta)
    return found


def layers() -> dict[str, Tensor]:
    """`DTYPE/BITS/AXIS/…`: the state dict of an HQQLinear with groups of 32, outputs and input gradient."""
    weight, bias = inputs.weight(32, 64, seed=12), inputs.bias(32)
    hidden = inputs.activations(5, 64, seed=13)
    found = {"weight": weight, "bias": bias, "hidden": hidden}
    for name, dtype in DTYPES.items():
        for bits in BITS:
            for axis in (0, 1):
                if dtype != torch.float32 and (bits not in (8, 4) or axis == 0):
                    continue
                layer = live.hqq_linear(weight.to(dtype), bias.to(dtype), nbits=bits, group_size=32, axis=axis)
                key = f"{name}/{bits}/{axis}"
                given = hidden.to(dtype).clone().requires_grad_()
                output = layer(given)
                output.float().square().sum().backward()
                found |= {f"{key}/output": output, f"{key}/gradient": given.grad}
                found |= {f"{key}/state/{stored}": tensor for stored, tensor in layer.state_dict().items()}
    return found


CHECKPOINTS = {
    "llama-4bit-g32": BaseQuantizeConfig(nbits=4, group_size=32, axis=1),
    "llama-mixed": {
        "self_attn.q_proj": BaseQuantizeConfig(nbits=8, group_size=32, axis=1),
        "self_attn.k_proj": BaseQuantizeConfig(nbits=3, group_size=32, axis=1),
        "self_attn.v_proj": BaseQuantizeConfig(nbits=1, group_size=16, axis=0),
        "mlp.gate_proj": BaseQuantizeConfig(nbits=4, group_size=64, axis=1),
        "mlp.up_proj": BaseQuantizeConfig(nbits=4, group_size=64, axis=0),
        "mlp.down_proj": BaseQuantizeConfig(nbits=2, group_size=64, axis=0),
    },
}
"""One configuration for all, or one for each named layer; what is not named stays as it is."""


def checkpoint(name: str) -> None:
    """A model that hqq quantized and saved in its safetensors form, and its logits in float32."""
    model = inputs.llama()
    AutoHQQHFModel.quantize_model(model, CHECKPOINTS[name], compute_dtype=torch.float32, device="cpu")
    folder = fixtures.FOLDER / "hqq" / name
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "model"
        AutoHQQHFModel.save_to_safetensors(model, str(written), verbose=False)
        folder.mkdir(parents=True, exist_ok=True)
        for file in written.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    tokens = inputs.token_ids(2, 16)
    with torch.no_grad():
        values = {"input_ids": tokens, "logits": model(tokens).logits}
    fixtures.save(f"hqq/{name}/values", __file__, values)


CONFIGS = (
    {},
    {"nbits": 8, "group_size": 128},
    {"nbits": 3, "group_size": 32, "axis": 0, "skip_modules": ["lm_head", "q_proj"]},
    {"nbits": 1, "group_size": None, "view_as_float": True},
    {
        "dynamic_config": {
            "self_attn.q_proj": {"nbits": 8, "group_size": 64},
            "mlp.down_proj": {"nbits": 3, "group_size": 32, "axis": 1},
        }
    },
)


if __name__ == "__main__":
    inputs.seed_all()
    fixtures.save("hqq/quantized", __file__, quantized())
    fixtures.save("hqq/layers", __file__, layers())
    for checkpoint_name in CHECKPOINTS:
        checkpoint(checkpoint_name)
    fixtures.save_json(
        "hqq/config",
        __file__,
        [{"arguments": given, "to_dict": transformers.HqqConfig(**given).to_dict()} for given in CONFIGS],
    )
