"""`unibody run`: a model continues a text on the command line."""

from __future__ import annotations

import sys
from typing import Any

import torch

import unibody
from unibody.core.command_line import decode_stream, read_tokenizer
from unibody.generation import GenerationMixin
from unibody.hub import locate


def run(model: str, prompt: str, options: dict[str, Any]) -> int:
    """Writes what follows the prompt to standard output; the exit status."""
    given = {name: value for name, value in options.items() if value is not None}
    loading = {name: given.pop(name) for name in ("dtype", "device") if name in given}
    hub = {"revision": given.pop("revision")} if "revision" in given else {}
    given["do_sample"] = not given.keys().isdisjoint(("temperature", "top_k", "top_p"))
    try:
        folder = locate(model, hub)
        tokenizer = read_tokenizer(folder / "tokenizer.json")
        found = unibody.AutoModelForCausalLM.from_pretrained(folder, **loading)
        if isinstance(found, GenerationMixin):  # what its generation_config.json may ask for
            given |= {"tokenizer": tokenizer, "num_beams": 1, "num_return_sequences": 1}
        ids = tokenizer.encode(prompt).ids
        for piece in decode_stream(tokenizer, ids, found.stream(torch.tensor([ids], device=found.device), **given)):
            print(piece, end="", flush=True)
        print()
    except (ImportError, NotImplementedError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
