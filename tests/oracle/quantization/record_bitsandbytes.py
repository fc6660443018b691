"""Records `bitsandbytes/`: 4-bit blocks, LLM.int8 rows, the linear layers, and tiny checkpoints as transformers writes them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import bitsandbytes.functional as F
import torch
import transformers
from torch import Tensor

from oracle.quantization import fixtures, inputs, live

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BLOCKSIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
TYPES = ("nf4", "fp4")


def blocks() -> dict[str, Tensor]:
    """`TYPE/DTYPE/BLOCKSIZE/…` for an input of odd length whose second block of 256 is zero.

    Every block size in float32, 64 and 4096 in the other types.
    """
    values = inputs.weight(65, 67)
    values.view(-1)[256:512] = 0
    found = {"input": values, "zeros/input": torch.zeros(3, 32)}
    for kind in TYPES:
        for name, dtype in DTYPES.items():
            for blocksize in BLOCKSIZES if name == "float32" else (64, 4096):
                packed, state = F.quantize_4bit(values.to(dtype), quant_type=kind, blocksize=blocksize)
                key = f"{kind}/{name}/{blocksize}"
                found |= {f"{key}/packed": packed, f"{key}/absmax": state.absmax}
                if blocksize == 64:
                    found[f"{key}/dequantized"] = F.dequantize_4bit(packed, state)
        packed, state = F.quantize_4bit(found["zeros/input"], quant_type=kind, blocksize=32)
        found |= {f"zeros/{kind}/packed": packed, f"zeros/{kind}/absmax": state.absmax, f"{kind}/table": state.code}
    return found


def nested_blocks() -> dict[str, Tensor]:
    """`TYPE/…`: double quantization; 272 blocks of 64 have scales in two blocks of 256, the second one partial."""
    values = inputs.weight(136, 128, seed=3)
    found = {"input": values.bfloat16(), "map": F.create_dynamic_map()}
    for kind in TYPES:
        packed, state = F.quantize_4bit(values, quant_type=kind, blocksize=64, compress_statistics=True)
        plain, plain_state = F.quantize_4bit(values, quant_type=kind, blocksize=64)
        assert torch.equal(packed, plain)
        found |= {
            f"{kind}/packed": packed,
            f"{kind}/plain_absmax": plain_state.absmax,
            f"{kind}/absmax": state.absmax,
            f"{kind}/offset": state.offset,
            f"{kind}/nested_absmax": state.state2.absmax,
            f"{kind}/nested_map": state.state2.code,
            f"{kind}/absmax_dequantized": F.dequantize_blockwise(state.absmax, state.state2) + state.offset,
        }
    return found


def rows() -> dict[str, Tensor]:
    """LLM.int8 of rows: codes, row maxima and outlier columns for a threshold, from float16."""
    values = inputs.activations(33, 65).half()
    values[:, 7] *= 8
    values[4] = 0
    found = {"input": values}
    for threshold in (0.0, 6.0):
        codes, maxima, outliers = F.int8_vectorwise_quant(values, threshold=threshold)
        found |= {f"{threshold:g}/codes": codes, f"{threshold:g}/row_maxima": maxima}
        if outliers is not None:
            found[f"{threshold:g}/outlier_columns"] = outliers
    return found


def linear_8bit() -> dict[str, Tensor]:
    """`DTYPE/THRESHOLD/…`: stored tensors of a Linear8bitLt and its outputs in eval and in train mode."""
    weight, bias = inputs.weight(48, 96, seed=5), inputs.bias(48)
    hidden = inputs.activations(9, 96, seed=6)
    hidden[:, 11] *= 6
    hidden[3, 40] = 20
    found = {"weight": weight, "bias": bias, "hidden": hidden, "without_outliers": hidden.clamp(-5, 5)}
    for name, dtype in DTYPES.items():
        for threshold in (0.0, 6.0):
            layer = live.linear_8bit(weight.to(dtype), bias.to(dtype), threshold)
            key = f"{name}/{threshold:g}"
            with torch.no_grad():
                found[f"{key}/eval"] = layer.eval()(hidden.to(dtype))
                found[f"{key}/eval_without_outliers"] = layer(found["without_outliers"].to(dtype))
                found[f"{key}/train"] = layer.train()(hidden.to(dtype))
                layer.bias = None
                found[f"{key}/eval_without_bias"] = layer.eval()(hidden.to(dtype))
            found |= {f"{key}/{stored}": tensor for stored, tensor in layer.state_dict().items()}
    return found


def linear_4bit() -> dict[str, Tensor]:
    """`TYPE/DTYPE/nested|plain/…`: stored tensors of a Linear4bit, outputs and input gradient in train mode.

    Double quantization in float32 only.
    `eval` is what the kernel for AVX512_BF16 gives, which wants outputs in multiples of 32: bfloat16 inside, whatever the
    compute type.
    """
    weight, bias = inputs.weight(64, 128, seed=7), inputs.bias(64)
    hidden = inputs.activations(9, 128, seed=8)
    found = {"weight": weight, "bias": bias, "hidden": hidden}
    for kind in TYPES:
        for name, dtype in DTYPES.items():
            for nested in (False, True) if name == "float32" else (False,):
                layer = live.linear_4bit(weight.to(dtype), bias.to(dtype), kind, nested)
                key = f"{kind}/{name}/{'nested' if nested else 'plain'}"
                found |= {f"{key}/{stored}": tensor.clone() for stored, tensor in layer.state_dict().items()}
                given = hidden.to(dtype).clone().requires_grad_()
                output = layer.train()(given)
                output.float().square().sum().backward()
                found |= {f"{key}/train": output, f"{key}/gradient": given.grad}
                with torch.no_grad():
                    found[f"{key}/eval"] = layer.eval()(hidden.to(dtype))
    return found


CHECKPOINTS = {
    "llama-nf4-nested": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.float32,
    },
    "llama-fp4": {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32},
    "llama-nf4-bfloat16-storage": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": torch.float32,
        "bnb_4bit_quant_storage": torch.bfloat16,
    },
    "llama-int8": {"load_in_8bit": True},
}


def checkpoint(name: str, full: str) -> None:
    """A quantized model as transformers saves it, and its logits in train and eval mode (float32)."""
    config = transformers.BitsAndBytesConfig(**CHECKPOINTS[name])
    model = transformers.AutoModelForCausalLM.from_pretrained(
        full, quantization_config=config, dtype=torch.float32, device_map="cpu"
    )
    folder = fixtures.FOLDER / "bitsandbytes" / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    tokens = inputs.token_ids(2, 16)
    with torch.no_grad():
        values = {"input_ids": tokens, "logits_train": model.train()(tokens).logits}
        values["logits_eval"] = model.eval()(tokens).logits
    fixtures.save(f"bitsandbytes/{name}/values", __file__, values)


CONFIGS = (
    {},
    {"load_in_8bit": True},
    {"load_in_8bit": True, "llm_int8_threshold": 4.5, "llm_int8_skip_modules": ["lm_head"]},
    {"load_in_8bit": True, "llm_int8_enable_fp32_cpu_offload": True, "llm_int8_has_fp16_weight": True},
    {"load_in_4bit": True},
    {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "float16",
    },
)


if __name__ == "__main__":
    inputs.seed_all()
    fixtures.save("bitsandbytes/blocks", __file__, blocks())
    fixtures.save("bitsandbytes/nested_blocks", __file__, nested_blocks())
    fixtures.save("bitsandbytes/rows", __file__, rows())
    fixtures.save("bitsandbytes/linear_8bit", __file__, linear_8bit())
    fixtures.save("bitsandbytes/linear_4bit", __file__, linear_4bit())
    with tempfile.TemporaryDirectory() as scratch:
        full = str(inputs.save_llama(Path(scratch)))
        for checkpoint_name in CHECKPOINTS:
            checkpoint(checkpoint_name, full)
    fixtures.save_json(
        "bitsandbytes/config",
        __file__,
        [{"arguments": given, "to_dict": transformers.BitsAndBytesConfig(**given).to_dict()} for given in CONFIGS],
    )
