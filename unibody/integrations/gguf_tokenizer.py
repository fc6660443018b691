"""The tokenizer of a GGUF file, from tokenizer.json: byte-level BPE, and BPE over characters as sentencepiece has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unibody.core.hub import read_json

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {  # llama.cpp's names of the ways to split a text, by the expression in tokenizer.json
    CONTRACTIONS + r"\p{N}{1,3}" + REST: "llama-bpe",
    CONTRACTIONS + r"\p{N}" + REST: "qwen2",
}
SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unk": "unk_token", "pad": "pad_token"}


def add_tokenizer(writer: Any, folder: Path | None, config: Any, pre: str | None = None) -> None:
    """Adds the tokens, how they are made, and the chat template. ValueError: the file is of a kind that llama.cpp lacks."""
    if folder is None:
        raise ValueError("no folder is known that has the model's tokenizer.json: name it with tokenizer=")
    file = folder / "tokenizer.json"
    values = read_json(file)
    model = values.get("model") or {}
    if model.get("type") != "BPE":
        raise ValueError(f"{file} is of type {model.get('type')}: of tokenizers, BPE can be exported")
    tokens, kinds = list_tokens(values, config.vocab_size)
    merges = [pair if isinstance(pair, list) else pair.split(" ", 1) for pair in model["merges"]]
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_token_scores(scores(tokens, merges))
        writer.add_add_space_prefix(adds_space(values))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre or find_pre(values, file))
        writer.add_token_merges([" ".join(pair) for pair in merges])
        writer.add_add_space_prefix(False)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    add_special_tokens(writer, folder, values, tokens, config)


def list_tokens(values: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """The tokens by id, and what each is; ids of the model that have no token are unused."""
    by_id = {index: token for token, index in values["model"]["vocab"].items()}
    added = {entry["id"]: entry for entry in values.get("added_tokens") or ()}
    by_id |= {index: entry["content"] for index, entry in added.items()}
    if len(by_id) and max(by_id) >= size:
        raise ValueError(
            f"token {max(by_id)} is none of the model's, which has {size}: is it another model's tokenizer?"
        )
    kinds = []
    for index in range(size):
        token = by_id.setdefault(index, f"[PAD{index}]")
        if index in added:
            unknown = token == values["model"].get("unk_token")
            kind = UNKNOWN if unknown else CONTROL if added[index]["special"] else USER_DEFINED
        elif values["model"].get("byte_fallback") and len(token) == 6 and token.startswith("<0x"):
            kind = BYTE
        else:
            kind = NORMAL if token in values["model"]["vocab"] else UNUSED
        kinds.append(kind)
    return [by_id[index] for index in range(size)], kinds


def scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """What makes llama.cpp merge in the order of the merges: the earlier a token is made, the higher."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, 0)) for token in tokens]


def adds_space(values: dict[str, Any]) -> bool:
    """Whether a space goes before a text: by the normalizer, or by the step that splits."""
    steps = [step for part in ("normalizer", "pre_tokenizer") for step in flat(values.get(part))]
    return any(step["type"] == "Prepend" or step.get("prepend_scheme") in ("first", "always") for step in steps)


def find_pre(values: dict[str, Any], file: Path) -> str:
    """llama.cpp's name of the way in which tokenizer.json splits a text into words."""
    steps = flat(values.get("pre_tokenizer"))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and (name := SPLITS.get(steps[0]["pattern"].get("Regex", ""))):
        return name
    raise ValueError(
        f"{file} splits texts in a way that has no known name in llama.cpp ({json.dumps(steps)[:200]}): name it with pre="
    )


def flat(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a part of tokenizer.json, which may be a sequence."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for inner in part.get("pretokenizers") or part.get("normalizers") or () for step in flat(inner)]


def add_special_tokens(writer: Any, folder: Path, values: dict[str, Any], tokens: list[str], config: Any) -> None:
    """The ids of the tokens with a part to play, whether a text begins with one, and the chat template."""
    settings_file = folder / "tokenizer_config.json"
    settings = read_json(settings_file) if settings_file.is_file() else {}
    ids = {token: index for index, token in enumerate(tokens)}
    for short, name in SPECIAL.items():
        token = settings.get(name)
        token = token["content"] if isinstance(token, dict) else token
        index = ids.get(token) if token is not None else getattr(config, f"{name}_id", None)
        index = index[0] if isinstance(index, list) else index
        if index is not None:
            getattr(writer, f"add_{short}_token_id")(index)
    processor = json.dumps(values.get("post_processor"))
    bos, eos = (name in processor for name in (f'"id": {json.dumps(name)}' for name in first_and_last(settings)))
    writer.add_add_bos_token(bos)
    writer.add_add_eos_token(eos)
    template = settings.get("chat_template")
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else template
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    if template:
        writer.add_chat_template(template)


def first_and_last(settings: dict[str, Any]) -> list[str | None]:
    """The tokens that begin and end a text."""
    found = [settings.get(name) for name in ("bos_token", "eos_token")]
    return [token["content"] if isinstance(token, dict) else token for token in found]
