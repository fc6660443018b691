"""From scores for each token to entities: words, groups of words, and what overlapping parts of a text say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

STRATEGIES = ("none", "simple", "first", "average", "max")


@dataclass
class Token:
    """A token, or a word of several, with its probabilities [L] and its place in the text, if that is known."""

    word: str
    scores: Tensor
    start: int | None
    end: int | None
    index: int
    is_subword: bool = False  # goes on with the word of the token before

    @property
    def best(self) -> int:
        return int(self.scores.argmax())


def read_tokens(tokenizer: Any, text: str, ids: list[int], scores: Tensor, offsets: Any, special: Any) -> list[Token]:
    """The tokens [S] that are not special, of scores [S, L]."""
    prefix = continuing_prefix(tokenizer)
    found = []
    for index, token_id in enumerate(ids):
        if special[index]:
            continue
        word = str(tokenizer.convert_ids_to_tokens(token_id))
        if offsets is None:
            found.append(Token(word, scores[index], None, None, index))
            continue
        start, end = (int(place) for place in offsets[index])
        part = text[start:end]
        if token_id == tokenizer.unk_token_id:
            found.append(Token(part, scores[index], start, end, index))
            continue
        follows = len(word) != len(part) if prefix else start > 0 and " " not in text[start - 1 : start + 1]
        found.append(Token(word, scores[index], start, end, index, follows))
    return found


def continuing_prefix(tokenizer: Any) -> str | None:
    """What tokens inside of a word begin with, such as ## of WordPiece; None: the tokenizer marks the beginnings instead."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return getattr(getattr(backend, "model", None), "continuing_subword_prefix", None)


def find_entities(
    tokens: list[Token], strategy: str, names: dict[int, str], join: Any, ignored: Iterable[str]
) -> list[dict[str, Any]]:
    """Entities by a strategy, those with ignored labels left out; `join` makes text of the tokens of a word or group."""
    if strategy not in ("none", "simple"):
        tokens = [merge_word(word, strategy, join) for word in split_words(tokens)]
    if strategy == "none":
        found: list[dict[str, Any]] = [
            {
                "entity": names[token.best], "score": float(token.scores[token.best]), "index": token.index,
                "word": token.word, "start": token.start, "end": token.end,
            }
            for token in tokens
        ]  # fmt: skip
        return [entity for entity in found if entity["entity"] not in ignored]
    grouped = (group_entry(group, names, join) for group in split_groups(tokens, names))
    return [entity for entity in grouped if entity["entity_group"] not in ignored]


def split_words(tokens: list[Token]) -> Iterator[list[Token]]:
    word: list[Token] = []
    for token in tokens:
        if word and not token.is_subword:
            yield word
            word = []
        word.append(token)
    if word:
        yield word


def merge_word(word: list[Token], strategy: str, join: Any) -> Token:
    """One token for a word: scored as its first token, as its surest one, or with the mean."""
    if strategy == "first":
        scores = word[0].scores
    elif strategy == "max":
        scores = max(word, key=lambda token: float(token.scores.max())).scores
    else:
        scores = torch.stack([token.scores for token in word]).mean(0)
    text = join([token.word for token in word])
    return Token(text, scores, word[0].start, word[-1].end, word[0].index)


def read_tag(label: str) -> tuple[str, str]:
    """B or I and the type of a label: a label without either is like one inside (I)."""
    position, _, kind = label.partition("-")
    return (position, kind) if position in ("B", "I") and kind else ("I", label)


def split_groups(tokens: list[Token], names: dict[int, str]) -> Iterator[list[Token]]:
    """Neighbours of one type, of which none but the first begins an entity."""
    number, before = 0, None

    def group(token: Token) -> int:
        nonlocal number, before
        position, kind = read_tag(names[token.best])
        number += position == "B" or kind != before
        before = kind
        return number

    for _, members in groupby(tokens, group):
        yield list(members)


def group_entry(group: list[Token], names: dict[int, str], join: Any) -> dict[str, Any]:
    score = torch.stack([token.scores[token.best] for token in group]).mean()
    return {
        "entity_group": read_tag(names[group[0].best])[1],
        "score": float(score),
        "word": join([token.word for token in group]),
        "start": group[0].start,
        "end": group[-1].end,
    }


def without_overlaps(entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of entities that overlap, found in neighbouring parts of a text, the longest; of equally long ones the surest."""
    kept: list[dict[str, Any]] = []
    for entity in sorted(entities, key=lambda entity: int(entity["start"])):
        if kept and entity["start"] < kept[-1]["end"]:
            kept[-1] = max(kept[-1], entity, key=lambda one: (one["end"] - one["start"], one["score"]))
        else:
            kept.append(entity)
    return kept
