"""Checkpoints for the tests of quantized models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import unibody


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose layers are wide enough that what belongs to a layer, and not to a weight, counts for little."""
    torch.manual_seed(0)
    config = unibody.LlamaConfig(
        vocab_size=64, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("plain")
    unibody.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
