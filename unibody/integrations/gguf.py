"""Export to GGUF, the one-file format of llama.cpp: metadata, tokenizer and weights of decoders of the Llama family.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names of keys and tensors are those that llama.cpp reads.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import unibody
from unibody.core.saving import write_atomically
from unibody.hub import locate
from unibody.integrations.availability import require
from unibody.integrations.gguf_tokenizer import add_tokenizer

ARCHITECTURES = {  # of llama.cpp, by model type
    "llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2",
}  # fmt: skip
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9}
BLOCK = 32  # values that share a scale, in all the q types
NAMES = {  # of llama.cpp, by those of the Hub without `model.` and `.weight` or `.bias`
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA2_NAMES = {
    **NAMES,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def export_gguf(
    model_or_folder: Any,
    file: str | os.PathLike[str],
    dtype: str = "f16",
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    pre: str | None = None,
    **hub: Any,
) -> Path:
    """Writes a GGUF file that llama.cpp runs as the model runs here; returns its path.

    The model is a checkpoint's folder, a repository of the Hub (`revision`, `token` and so on) or an object; one with packed layers
    is dequantized on the way. Matrices get `dtype` (f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0), with the embedding and the head
    in q8_0 where it has fewer bits; vectors stay in float32. The tokenizer is read from the model's folder, or from the folder
    `tokenizer`; `pre` names llama.cpp's way to split a text into words, where tokenizer.json does not tell.

    ValueError: llama.cpp cannot compute this model, or its tokenizer is unknown; nothing is written.
    """
    require("gguf", "export_gguf")
    import gguf

    if dtype not in FILE_TYPES:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(FILE_TYPES)}")
    source: Path | None = None
    model = model_or_folder
    if isinstance(model_or_folder, (str, os.PathLike)):
        source = locate(model_or_folder, hub)
        model = unibody.AutoModelForCausalLM.from_pretrained(source)
    elif Path(named := getattr(model, "name_or_path", "")).is_dir() and named:
        source = Path(named)
    if hub:
        raise TypeError(f"export_gguf does not know {', '.join(hub)}")
    check_model(model)
    architecture = ARCHITECTURES[model.config.model_type]

    def write(temporary: Path) -> None:
        writer = gguf.GGUFWriter(temporary, architecture)
        add_settings(writer, model.config, FILE_TYPES[dtype], Path(file).stem)
        add_tokenizer(writer, Path(tokenizer) if tokenizer is not None else source, model.config, pre)
        for name, values in named_tensors(model):
            kind = kind_of(name, values, dtype)
            data = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
            raw = None if kind in ("F32", "F16") else gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, data, raw_dtype=raw)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    write_atomically(Path(file), write)
    return Path(file)


def run(model: str, file: Path, options: dict[str, Any]) -> int:
    """Writes the file and says so; the exit status."""
    try:
        export_gguf(model, file, **{name: value for name, value in options.items() if value is not None})
    except (ImportError, NotImplementedError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {file}: {file.stat().st_size / 1e6:.0f} MB")
    return 0


def check_model(model: Any) -> None:
    """Refuses what llama.cpp would load and compute otherwise, or not at all."""
    config = model.config
    kind = getattr(config, "model_type", type(model).__name__)
    if kind not in ARCHITECTURES or not hasattr(model, "lm_head"):
        raise ValueError(
            f"{type(model).__name__} has no form in GGUF: export one of {', '.join(ARCHITECTURES)}, for causal language modelling"
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError("the model has adapters: merge them first, with model.merge_and_unload()")
    for name, module in model.named_modules():
        if getattr(getattr(module, "config", None), "use_rms_norm", False):
            raise ValueError(
                f"{name} normalizes its inputs, as BitNet's layers with use_rms_norm do: llama.cpp does not"
            )
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", "silu")
    usual = "gelu_pytorch_tanh" if kind.startswith("gemma") else "silu"
    if activation != usual:
        raise ValueError(f"hidden activation {activation!r} is unknown to llama.cpp for {kind}, which has {usual!r}")
    if kind == "gemma2" and not math.isclose(config.query_pre_attn_scalar, config.head_dim):
        raise ValueError(
            f"query_pre_attn_scalar {config.query_pre_attn_scalar} is not head_dim {config.head_dim}, by which llama.cpp scales"
        )
    if kind == "gemma2" and any((w is None) != bool(i % 2) for i, w in enumerate(config.attention_windows)):
        raise ValueError("layer_types are not sliding and full by turns, as llama.cpp has them for gemma2")
    rope_type = config.rope_parameters["rope_type"]
    if rope_type not in ("default", "linear", "yarn", "llama3"):
        raise ValueError(f"rope_type {rope_type!r} is unknown to llama.cpp: it has default, linear, yarn and llama3")
    if rope_type == "yarn" and (
        odd := {"mscale", "mscale_all_dim", "attention_factor"} & config.rope_parameters.keys()
    ):
        raise ValueError(f"rope_parameters have {', '.join(sorted(odd))}, and llama.cpp knows yarn without")


def add_settings(writer: Any, config: Any, file_type: int, name: str) -> None:
    """The keys from which llama.cpp builds the model."""
    kind, rope = config.model_type, config.rope_parameters
    windows = [window for window in config.attention_windows if window is not None]
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_block_count(config.num_hidden_layers)
    # llama.cpp has no windows but gemma2's: within the window the answers are the same.
    longest = config.max_position_embeddings
    writer.add_context_length(longest if kind == "gemma2" else min([longest, *windows]))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope.get("original_max_position_embeddings") or longest)
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32.0)
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1.0)
    if kind == "gemma2":
        writer.add_sliding_window(config.sliding_window)
        # 0 would mean all zeros, not none.
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping or 1e30)
        writer.add_final_logit_softcapping(config.final_logit_softcapping or 1e30)


def named_tensors(model: Any) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The tensors in float32 by llama.cpp's names, each made when its turn comes."""
    config = model.config
    kind = config.model_type
    names = GEMMA2_NAMES if kind == "gemma2" else NAMES
    tied = set(model._tied_weights_keys) if config.tie_word_embeddings else set()
    if config.rope_parameters["rope_type"] == "llama3":
        yield "rope_freqs.weight", rope_factors(model)
    for module_name, module in model.named_modules():
        weight = module.dequantize() if hasattr(module, "dequantize") else getattr(module, "weight", None)
        for tensor_name, tensor in (("weight", weight), ("bias", getattr(module, "bias", None))):
            if tensor is None or f"{module_name}.{tensor_name}" in tied:
                continue
            values = tensor.detach().float().cpu()
            role = module_name.removeprefix("model.")
            block = ""
            if role.startswith("layers."):
                _, number, role = role.split(".", 2)
                block = f"blk.{number}."
            if ARCHITECTURES[kind] == "llama" and role in ("self_attn.q_proj", "self_attn.k_proj"):
                values = pair_rotated_rows(values, config.head_dim)
            if kind.startswith("gemma") and role.endswith("norm"):
                values = values + 1  # llama.cpp multiplies by the weight, gemma by 1 + the weight
            yield f"{block}{names[role]}.{tensor_name}", values.contiguous().numpy()


def pair_rotated_rows(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of a query or key projection with the pairs that rotate together side by side: (0, D/2, 1, D/2 + 1, …)."""
    heads = weight.view(-1, 2, head_dim // 2, *weight.shape[1:])
    return heads.transpose(1, 2).reshape(weight.shape)


def rope_factors(model: Any) -> np.ndarray[Any, Any]:
    """float32 [D/2]: by what Llama 3.1 divides each angle."""
    rotary, config = model.model.rotary_emb, model.config
    angles = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    factors: Tensor = config.rope_parameters["rope_theta"] ** -angles / rotary.inv_freq.float().cpu()
    return factors.numpy()


def kind_of(name: str, values: np.ndarray[Any, Any], dtype: str) -> str:
    """The type of a tensor: that of the file, where it is a matrix whose rows are whole blocks."""
    if values.ndim == 1:
        return "F32"
    if not dtype.startswith("q"):
        return dtype.upper()
    if values.shape[-1] % BLOCK:
        return "F16"
    return "Q8_0" if name in ("token_embd.weight", "output.weight") else dtype.upper()
