"""Ten thousand lines of all kinds: prose, code, many scripts, emoji, control characters, random Unicode."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

FIXTURES = Path(__file__).parents[1] / "fixtures" / "text"
BLOCKS = (
    (0x20, 0x7F), (0xA0, 0x250), (0x250, 0x600), (0x600, 0xE00), (0xE00, 0x2000), (0x2000, 0x3100), (0x3100, 0xA000),
    (0xA000, 0xD800), (0xE000, 0x10000), (0x10000, 0x11000), (0x1F000, 0x1FB00), (0x20000, 0x20100), (0xE0000, 0xE0100),
)  # fmt: skip
EMOJI = [
    "😀",
    "🤣",
    "❤️",
    "👍🏽",
    "👩\u200d👩\u200d👧\u200d👦",
    "🏳️\u200d🌈",
    "🇩🇪",
    "🇨🇳",
    "1️⃣",
    "☎",
    "☎️",
    "✊🏿",
    "🧑🏻\u200d🚀",
    "\U0001fae0",
    "©️",
    "™",
    "🔥🔥🔥",
]
SPACES = ["\t", "\xa0", "\u2003", "\u200b", "\u3000", "\u202f", "\r", "\x0b", "\x0c", "\u2028", "\x85", "\ufeff"]


@cache
def ten_thousand_lines() -> list[str]:
    """The same lines every time, on one version of Python."""
    lines = [*prose(), *code(2500), *scripts(2000), *emoji(500), *controls(500), *anything(2000)]
    assert len(lines) == 10_000
    return lines


def prose() -> list[str]:
    """The beginning of Jane Austen's Persuasion (1818)."""
    return (FIXTURES / "persuasion.txt").read_text(encoding="utf-8").splitlines()


def code(count: int) -> list[str]:
    """Lines of the standard library, indentation and all."""
    texts = (Path(str(module.__file__)).read_text(encoding="utf-8") for module in (argparse, random, json.decoder))
    lines = [line for text in texts for line in text.split("\n")]
    assert len(lines) >= count
    return lines[:count]


def scripts(count: int) -> Iterator[str]:
    """Sentences of thirty languages, and their words in other orders."""
    sentences = (FIXTURES / "languages.txt").read_text(encoding="utf-8").splitlines()
    words = [word for sentence in sentences for word in sentence.split(" ")]
    source = random.Random("scripts")
    yield from sentences
    for _ in range(count - len(sentences)):
        yield " ".join(source.choice(words) for _ in range(source.randint(1, 12)))


def emoji(count: int) -> Iterator[str]:
    source = random.Random("emoji")
    for _ in range(count):
        pieces = [source.choice([*EMOJI, "so", "good", "!", ""]) for _ in range(source.randint(1, 9))]
        yield source.choice(["", " "]).join(pieces)


def controls(count: int) -> Iterator[str]:
    """Letters between control characters and spaces of every kind; also nothing at all."""
    source = random.Random("controls")
    for _ in range(count):
        yield "".join(
            source.choice([chr(source.randrange(32)), source.choice(SPACES), "a", "Bc", " ", "\x7f", "\x9f"])
            for _ in range(source.randint(0, 20))
        )


def anything(count: int) -> Iterator[str]:
    """Any character but halves of surrogate pairs, assigned or not, alone or with others of its block."""
    source = random.Random("anything")
    for _ in range(count):
        block = source.choice(BLOCKS)
        characters = []
        for _ in range(source.randint(1, 40)):
            block = block if source.random() < 0.8 else source.choice([*BLOCKS, (0x80, sys.maxunicode)])
            number = source.randrange(*block)
            characters.append(chr(number) if not 0xD800 <= number < 0xE000 else " ")
        yield "".join(characters)
