"""A tiny Llama with a tokenizer, for what reads text."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from oracle.tokenizer import tiny_tokenizer
from oracle.zoo import first_case


def write(folder: Path) -> None:
    import torch

    case = first_case()
    torch.manual_seed(0)
    config = case.config_class(**{**case.config, "max_position_embeddings": 256, "hidden_size": 64})
    case.model_class(config).save_pretrained(folder)
    tiny_tokenizer().save(str(Path(folder) / "tokenizer.json"))
