"""`unibody run`: a model continues a text on the command line."""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

import unibody
from unibody.core.command_line import decode_stream
from unibody.hub import locate

ONE_TEXT = {
    "num_beams": 1,
    "num_return_sequences": 1,
}  # whatever generation_config.json asks for: it is written as it comes


def run(model: str, prompt: str, options: dict[str, Any]) -> int:
    """Writes what follows the prompt to standard output; the exit status."""
    try:
        tokenizer, found, given = load(model, options, do_sample=False)
        ids = tokenizer(prompt)["input_ids"]
        if not ids:
            raise ValueError(f"the prompt {prompt!r} has no tokens: begin the text")
        tokens = found.stream(torch.tensor([ids], device=found.device), tokenizer=tokenizer, **ONE_TEXT, **given)
        plain = SimpleNamespace(decode=partial(tokenizer.decode, skip_special_tokens=True))
        for piece in decode_stream(plain, ids, tokens):
            print(piece, end="", flush=True)
        print()
    except (ImportError, NotImplementedError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def load(model: str, options: dict[str, Any], **defaults: Any) -> tuple[Any, Any, dict[str, Any]]:
    """The tokenizer and the model of a checkpoint, and of the options those of `generate`; one for drawing asks for it."""
    given = defaults | {name: value for name, value in options.items() if value is not None}
    loading = {name: given.pop(name) for name in ("dtype", "device") if name in given}
    hub = {"revision": given.pop("revision")} if "revision" in given else {}
    if not given.keys().isdisjoint(("temperature", "top_k", "top_p")):
        given["do_sample"] = True
    folder = locate(model, hub)
    tokenizer = unibody.AutoTokenizer.from_pretrained(folder)
    return tokenizer, unibody.AutoModelForCausalLM.from_pretrained(folder, **loading), given
