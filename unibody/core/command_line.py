"""A model file as a program."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unibody.core.hub import locate_checkpoint, read_json


def generate_text(model_class: Any) -> None:
    """Writes what follows a prompt to standard output while it is generated, as the command line asks."""
    parser = argparse.ArgumentParser(description=f"Continue a text with {model_class.__name__}.")
    parser.add_argument("checkpoint", help="folder with config.json, *.safetensors and tokenizer.json, or a Hub id")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--dtype", help="such as bfloat16; by default that of the checkpoint")
    parser.add_argument("--device")
    parser.add_argument("--max-new-tokens", type=int, default=100)
    for option in ("--top-k", "--seed"):
        parser.add_argument(option, type=int, default=argparse.SUPPRESS)
    for option in ("--temperature", "--top-p"):
        parser.add_argument(option, type=float, default=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    options["do_sample"] = not options.keys().isdisjoint(("temperature", "top_k", "top_p"))
    try:
        folder = locate_checkpoint(options.pop("checkpoint"), patterns=("*.json", "model*.safetensors"))
        tokenizer = read_tokenizer(folder / "tokenizer.json")
        model = model_class.from_pretrained(folder, dtype=options.pop("dtype"), device=options.pop("device"))
        prompt = tokenizer.encode(options.pop("prompt")).ids
        tokens = model.stream(torch.tensor([prompt], device=model.device), **options)
        for piece in decode_stream(tokenizer, prompt, tokens):
            print(piece, end="", flush=True)
        print()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def read_tokenizer(file: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(read_json(file)))


def decode_stream(tokenizer: Any, prompt: list[int], tokens: Iterator[Tensor]) -> Iterator[str]:
    """The text that each token adds to the prompt's; a character that still lacks bytes waits for them."""
    ids, shown = list(prompt), len(tokenizer.decode(prompt))
    for token in tokens:
        ids.append(int(token))
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):
            yield text[shown:]
            shown = len(text)
