"""`unibody chat`: a conversation with a model on the terminal."""

from __future__ import annotations

import os.path
import sys
from collections.abc import Iterator
from typing import Any

import torch

from unibody.core.cache import KVCache
from unibody.generation.reader import crop
from unibody.generation.streamers import TextStreamer
from unibody.running import ONE_TEXT, load

COMMANDS = "/clear begins anew, /exit ends"


def chat(model: str, options: dict[str, Any]) -> int:
    """Reads messages from standard input and writes answers to standard output; the exit status."""
    try:
        tokenizer, found, given = load(model, options)
        tokenizer.get_chat_template()
        talk = Conversation(found, tokenizer, given.pop("system", None), given)
        print(COMMANDS)
        for message in messages():
            if message == "/clear":
                talk.clear()
            else:
                talk.answer(message)
    except (ImportError, NotImplementedError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def messages() -> Iterator[str]:
    """What the user types, line by line, until /exit or the end of the input."""
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if line == "/exit":
            return
        if line:
            yield line


class Conversation:
    """What was said so far, and the cache of it, so that the model reads of each turn only what is new."""

    def __init__(self, model: Any, tokenizer: Any, system: str | None, options: dict[str, Any]) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.options = {"tokenizer": tokenizer, **ONE_TEXT, **options}
        self.system = system
        self.clear()

    def clear(self) -> None:
        """Forgets all but the instructions."""
        self.history = [] if self.system is None else [{"role": "system", "content": self.system}]
        self.cache = KVCache(self.model.config.attention_windows)
        self.read: list[int] = []  # the tokens that the cache holds, and perhaps one more

    def answer(self, message: str) -> None:
        """Writes the model's answer to standard output while it is generated; Ctrl-C ends it."""
        self.history.append({"role": "user", "content": message})
        ids = self.tokenizer.apply_chat_template(self.history, add_generation_prompt=True, return_dict=False)
        same = len(os.path.commonprefix([ids, self.read]))
        if self.cache.length > (kept := min(same, len(ids) - 1)):
            crop(self.cache, kept)
        streamer, said = TextStreamer(self.tokenizer, skip_special_tokens=True, skip_prompt=True), list[int]()
        prompt = torch.tensor([ids], device=self.model.device)
        streamer.put(prompt)
        try:
            for token in self.model.stream(prompt, past_key_values=self.cache, **self.options):
                said.append(int(token))
                streamer.put(token)
            self.read = [*ids, *said]
        except KeyboardInterrupt:  # in the middle of a pass, perhaps: some layers have read more than others
            self.cache, self.read = KVCache(self.model.config.attention_windows), []
        streamer.end()
        self.history.append({"role": "assistant", "content": self.tokenizer.decode(said, skip_special_tokens=True)})
