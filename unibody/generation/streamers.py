"""Who listens while a text is generated."""

from __future__ import annotations

from queue import Queue
from typing import Any, Self

from torch import Tensor


class BaseStreamer:
    """Gets the prompts [B, S] first, then the new tokens [B] of each step, then `end`."""

    def put(self, value: Tensor) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no put(value)")

    def end(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no end()")


class TextStreamer(BaseStreamer):
    """Prints a text while it is generated, word by word; further options are those of the tokenizer's `decode`."""

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.decode_kwargs = decode_kwargs
        self.is_prompt = True
        self.ids: list[int] = []  # of the line so far
        self.shown = 0  # characters of it that were given out

    def put(self, value: Tensor) -> None:
        if (value.ndim > 1 and len(value) > 1) or (value.ndim == 1 and not self.is_prompt and len(value) > 1):
            raise ValueError(
                f"{type(self).__name__} writes one text, and there are {len(value)}: generate one at a time"
            )
        skipped, self.is_prompt = self.is_prompt and self.skip_prompt, False
        if skipped:
            return
        self.ids += value.flatten().tolist()
        text = self.tokenizer.decode(self.ids, **self.decode_kwargs)
        if text.endswith("\n"):
            ready = text[self.shown :]
            self.ids, self.shown = [], 0
        else:
            ready = text[self.shown : finished_length(text)]
            self.shown += len(ready)
        self.on_finalized_text(ready)

    def end(self) -> None:
        text = self.tokenizer.decode(self.ids, **self.decode_kwargs) if self.ids else ""
        rest = text[self.shown :]
        self.ids, self.shown, self.is_prompt = [], 0, True
        self.on_finalized_text(rest, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """What to do with text that will not change any more."""
        print(text, flush=True, end="\n" if stream_end else "")


class TextIteratorStreamer(TextStreamer):
    """Gives the pieces of the text to whom iterates over it, in another thread than the one that generates.

    `timeout` is how many seconds to wait for a piece; queue.Empty is raised after that.
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.text_queue: Queue[str | None] = Queue()
        self.timeout = timeout

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.text_queue.put(text)
        if stream_end:
            self.text_queue.put(None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        piece = self.text_queue.get(timeout=self.timeout)
        if piece is None:
            raise StopIteration
        return piece


def finished_length(text: str) -> int:
    """How much of a text later tokens cannot change: up to the last space, or all if it ends with a Chinese character."""
    return len(text) if text and is_chinese(text[-1]) else text.rfind(" ") + 1


CHINESE = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def is_chinese(character: str) -> bool:
    """In a block of CJK ideographs, whose languages have no spaces between words."""
    return any(first <= ord(character) <= last for first, last in CHINESE)
