"""A model file as a program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from unibody.core.hub import locate_checkpoint


def generate_text(model_class: Any) -> None:
    """Writes what follows a prompt to standard output while it is generated, as the command line asks."""
    parser = argparse.ArgumentParser(description=f"Continue a text with {model_class.__name__}.")
    parser.add_argument("checkpoint", help="folder with config.json, *.safetensors and tokenizer.json, or a Hub id")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--dtype", help="such as bfloat16; by default that of the checkpoint")
    parser.add_argument("--device")
    for option, kind in {
        "max-new-tokens": int,
        "temperature": float,
        "top-k": int,
        "top-p": float,
        "seed": int,
    }.items():
        parser.add_argument(f"--{option}", type=kind, default=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    options["do_sample"] = not options.keys().isdisjoint(("temperature", "top_k", "top_p"))
    try:
        from tokenizers import Tokenizer

        folder = locate_checkpoint(options.pop("checkpoint"))
        tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
        model = model_class.from_pretrained(folder, dtype=options.pop("dtype"), device=options.pop("device"))
        prompt = tokenizer.encode(options.pop("prompt")).ids
        tokens = model.stream(torch.tensor([prompt], device=model.device), **options)
        for piece in decode_stream(tokenizer, prompt, tokens):
            print(piece, end="", flush=True)
        print()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def decode_stream(tokenizer: Any, prompt: list[int], tokens: Iterator[Tensor]) -> Iterator[str]:
    """The text that each token adds to the prompt's; a character that still lacks bytes waits for them."""
    ids, shown = list(prompt), len(tokenizer.decode(prompt))
    for token in tokens:
        ids.append(int(token))
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):
            yield text[shown:]
            shown = len(text)
