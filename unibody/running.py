"""`unibody run`: a model continues a text on the command line."""

from __future__ import annotations

import sys
from typing import Any

import unibody
from unibody.generation.streamers import TextStreamer
from unibody.hub import locate

ONE_TEXT = {
    "num_beams": 1,
    "num_return_sequences": 1,
}  # whatever generation_config.json asks for: it is written as it comes


def run(model: str, prompt: str, options: dict[str, Any]) -> int:
    """Writes what follows the prompt to standard output; the exit status."""
    try:
        tokenizer, found, given = load(model, options, do_sample=False)
        inputs = tokenizer(prompt, return_tensors="pt").to(found.device)
        streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        found.generate(inputs["input_ids"], streamer=streamer, tokenizer=tokenizer, **ONE_TEXT, **given)
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
