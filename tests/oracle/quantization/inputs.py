"""What the recording scripts quantize: random weights with a few large channels, and a tiny Llama.

Everything comes from seeds through numpy, whose numbers do not depend on the processor as torch's do, and is stored beside the
results.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LLAMA = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
"""Every linear layer's input is a multiple of 64, every output of 32: groups of 32 and 64 fit."""


def seed_all(seed: int = 0) -> None:
    """Packages draw from all three generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def weight(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Weights `[rows, columns]`: rows and columns of different size, one in a hundred entries ten times larger."""
    draw = np.random.default_rng(seed)
    values = draw.standard_normal((rows, columns)) / columns**0.5
    values *= np.exp(0.5 * draw.standard_normal((rows, 1))) * np.exp(0.3 * draw.standard_normal((1, columns)))
    values[draw.random((rows, columns)) < 0.01] *= 10
    return shared(values)


def activations(tokens: int, columns: int, seed: int = 1) -> Tensor:
    """Layer inputs `[tokens, columns]` with correlated columns and a few large ones, as a language model's are."""
    draw = np.random.default_rng(seed)
    mixed = draw.standard_normal((tokens, columns)) @ draw.standard_normal((columns, columns)) / columns**0.5
    return shared(mixed * np.exp(draw.standard_normal((1, columns))))


def shared(values: np.ndarray) -> Tensor:
    """The nearest values that float32, float16 and bfloat16 all hold exactly: a cast of an input loses nothing."""
    return (torch.tensor(values).bfloat16().float() * 2**12).round() / 2**12


def bias(rows: int) -> Tensor:
    """The bias `[rows]` of every layer that has one."""
    return shared(np.linspace(-1, 1, rows))


@torch.no_grad()
def llama(**changes: int) -> Any:
    """The tiny Llama in eval mode; its logits are of order one and its layers' inputs are not white."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**LLAMA | changes)).eval()
    for seed, (name, parameter) in enumerate(sorted(model.named_parameters())):
        normal = np.random.default_rng(seed).standard_normal(parameter.shape)
        if parameter.ndim == 1:
            parameter.copy_(shared(1 + 0.25 * normal))
        elif "embed" in name:
            parameter.copy_(shared(normal))
        else:
            parameter.copy_(weight(*parameter.shape, seed=seed))
    return model


def save_llama(folder: Path, **changes: int) -> Path:
    """The tiny Llama in `folder`, with a tokenizer: packages ask for one, even where they are given ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    llama(**changes).save_pretrained(folder)
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"t{i}": i for i in range(3, LLAMA["vocab_size"])}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def token_ids(batch: int, length: int, seed: int = 0) -> Tensor:
    """Ordinary token ids `[batch, length]`."""
    return torch.from_numpy(np.random.default_rng(seed).integers(3, LLAMA["vocab_size"], (batch, length)))


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of the model's blocks by full name; its head is not one of them."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found.pop("lm_head", None)
    return found
