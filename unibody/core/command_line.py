"""A model file as a program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unibody.core.hub import locate_checkpoint


def generate_text(model_class: Any) -> None:
    """Reads the command line and writes what follows the prompt to standard output as it is generated."""
    parser = argparse.ArgumentParser(description=f"Continue a text with {model_class.__name__}.")
    parser.add_argument("checkpoint", help="folder with config.json, *.safetensors and tokenizer.json, or a Hub id")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--max-new-tokens", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=0.0, help="0: always the most likely token (default)")
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--dtype", help="such as bfloat16; default: that of the checkpoint")
    parser.add_argument("--device", default="cpu")
    options = vars(parser.parse_args())
    try:
        from tokenizers import Tokenizer

        folder = locate_checkpoint(options.pop("checkpoint"))
        model = model_class.from_pretrained(
            folder, dtype=options.pop("dtype"), device=(device := options.pop("device"))
        )
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        prompt = tokenizer.encode(options.pop("prompt")).ids
        tokens = model.stream(torch.tensor([prompt], device=device), do_sample=options["temperature"] > 0, **options)
        for piece in decode_stream(tokenizer, prompt, tokens):
            print(piece, end="", flush=True)
        print()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def decode_stream(tokenizer: Any, prompt: list[int], tokens: Iterator[Tensor]) -> Iterator[str]:
    """The text that each token adds to the prompt's, held back while its last character lacks bytes."""
    ids, shown = list(prompt), tokenizer.decode(prompt)
    for token in tokens:
        ids.append(int(token))
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
