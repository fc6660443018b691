"""What the recording scripts quantize: random weights with a few large channels, and a tiny Llama.

Everything comes from seeds and is stored beside the results, so that a test never has to make it again.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LLAMA = {
    "vocab_size": 128,
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
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator) / columns**0.5
    values *= torch.exp(0.5 * torch.randn(rows, 1, generator=generator))
    values *= torch.exp(0.3 * torch.randn(1, columns, generator=generator))
    values[torch.rand(rows, columns, generator=generator) < 0.01] *= 10
    return shared(values)


def activations(tokens: int, columns: int, seed: int = 1) -> Tensor:
    """Layer inputs `[tokens, columns]` with correlated columns and a few large ones, as a language model's are."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(tokens, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    values = mixed / columns**0.5 * torch.exp(torch.randn(1, columns, generator=generator))
    return shared(values)


def shared(values: Tensor) -> Tensor:
    """The nearest values that float32, float16 and bfloat16 all hold exactly: a cast of an input loses nothing."""
    return (values.bfloat16().float() * 2**12).round() / 2**12


@torch.no_grad()
def llama() -> Any:
    """The tiny Llama in eval mode; its logits are of order one and its layers' inputs are not white."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**LLAMA)).eval()
    for seed, (name, parameter) in enumerate(sorted(model.named_parameters())):
        generator = torch.Generator().manual_seed(seed)
        if parameter.ndim == 1:
            parameter.copy_(shared(1 + 0.25 * torch.randn(parameter.shape, generator=generator)))
        elif "embed" in name:
            parameter.copy_(shared(torch.randn(parameter.shape, generator=generator)))
        else:
            parameter.copy_(weight(*parameter.shape, seed=seed))
    return model


def save_llama(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The tiny Llama in `folder`, with a tokenizer whose tokens are the letters of its ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    llama().to(dtype).save_pretrained(folder)
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"t{i}": i for i in range(3, LLAMA["vocab_size"])}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def token_ids(batch: int, length: int, seed: int = 0) -> Tensor:
    """Ordinary token ids `[batch, length]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, LLAMA["vocab_size"], (batch, length), generator=generator)


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of the model's blocks by full name; its head is not one of them."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    found.pop("lm_head", None)
    return found
