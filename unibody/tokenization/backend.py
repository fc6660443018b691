"""Changing a `tokenizers.Tokenizer` through its JSON: its parts have no setters of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer, pre_tokenizers, processors, trainers

EMPTY: dict[str, dict[str, Any]] = {  # what a model has learned, forgotten
    "BPE": {"vocab": {}, "merges": []},
    "Unigram": {"vocab": []},
    "WordLevel": {"vocab": {}},
    "WordPiece": {"vocab": {}},
}


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """A part of a tokenizer and all that it holds."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from parts(inner)


def set_prefix_space(tokenizer: Tokenizer, prefix: bool) -> None:
    """Whether a text is read as if a space stood before it."""
    if tokenizer.pre_tokenizer is None:
        return
    state = json.loads(tokenizer.to_str())
    changed = False
    for part in parts(state["pre_tokenizer"]):
        if part.get("type") == "ByteLevel" and part["add_prefix_space"] != prefix:
            part["add_prefix_space"] = changed = prefix
            changed = True
        if part.get("type") == "Metaspace" and (part["prepend_scheme"] == "never") == prefix:
            part["prepend_scheme"] = "always" if prefix else "never"
            changed = True
    if changed:
        tokenizer.pre_tokenizer = pre_tokenizer_of(state["pre_tokenizer"])


def frame(first: tuple[str, int] | None, last: tuple[str, int] | None) -> Any:
    """The post-processor that puts tokens (text and number) around each text, those of a pair's second of type 1; None: none."""
    around = [token for token in (first, last) if token is not None]
    if not around:
        return None
    before, behind = ([] if token is None else [token[0]] for token in (first, last))
    single, second = (
        " ".join(f"{piece}:{kind}" for piece in (*before, text, *behind)) for kind, text in enumerate(("$A", "$B"))
    )
    return processors.TemplateProcessing(single=single, pair=f"{single} {second}", special_tokens=around)


def pre_tokenizer_of(state: dict[str, Any]) -> Any:
    """A pre-tokenizer from its JSON."""
    shell: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
    }
    model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    whole = {**shell, "pre_tokenizer": state, "post_processor": None, "decoder": None, "model": model}
    return Tokenizer.from_str(json.dumps(whole)).pre_tokenizer


def trained_anew(
    tokenizer: Tokenizer, texts: Any, size: int, length: int | None, special: Iterable[Any], options: dict[str, Any]
) -> Tokenizer:
    """A tokenizer with the same steps and special tokens, and a vocabulary learned from batches of texts."""
    state = json.loads(tokenizer.to_str())
    model, processor = state["model"], state["post_processor"]
    unknown = model.get("unk_token")
    if model["type"] == "Unigram" and model["unk_id"] is not None:
        unknown = model["vocab"][model["unk_id"]][0]
        model["unk_id"] = None
    state |= {"added_tokens": [], "post_processor": None, "padding": None, "truncation": None}
    model |= EMPTY[model["type"]]
    fresh = Tokenizer.from_str(json.dumps(state))
    tokens = [token if isinstance(token, AddedToken) else AddedToken(str(token), special=True) for token in special]
    settings: dict[str, Any] = {
        "vocab_size": size,
        "special_tokens": [token for token in tokens if token.special],
        **options,
    }
    if model["type"] in ("BPE", "WordPiece"):
        settings.setdefault("show_progress", False)
        if prefix := model.get("continuing_subword_prefix"):
            settings["continuing_subword_prefix"] = prefix
        if suffix := model.get("end_of_word_suffix"):
            settings["end_of_word_suffix"] = suffix
    if model["type"] == "Unigram":
        settings |= {"unk_token": unknown, "show_progress": False}
    if any(part.get("type") == "ByteLevel" for part in parts(state["pre_tokenizer"])):
        settings.setdefault("initial_alphabet", pre_tokenizers.ByteLevel.alphabet())
    trainer = getattr(trainers, {"BPE": "BpeTrainer"}.get(model["type"], f"{model['type']}Trainer"))
    fresh.train_from_iterator(texts, trainer(**settings), length=length)
    fresh.add_tokens([token for token in tokens if not token.special])
    if processor is not None:
        fresh.post_processor = renumbered(processor, fresh)
    return fresh


def renumbered(processor: dict[str, Any], tokenizer: Tokenizer) -> Any:
    """A post-processor with the numbers that its tokens have in another vocabulary."""
    for part in parts(processor):
        for name, token in (part.get("special_tokens") or {}).items():
            token["ids"] = [tokenizer.token_to_id(text) for text in token["tokens"]]
            if None in token["ids"]:
                raise ValueError(
                    f"the new vocabulary lacks {name}, which the tokenizer adds to texts: name it as special"
                )
        for role in ("sep", "cls"):
            if isinstance(part.get(role), list):
                part[role] = [part[role][0], tokenizer.token_to_id(part[role][0])]
    return read_processor(processor)


def read_processor(state: dict[str, Any]) -> Any:
    """A post-processor from its JSON."""
    found = processors.ByteLevel()
    found.__setstate__(json.dumps(state).encode())
    return found
