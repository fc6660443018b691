"""`AutoTokenizer`: the tokenizer's class, found by what a checkpoint's files say."""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module
from typing import Any

from unibody.core.hub import read_json
from unibody.dynamic_modules import (
    describe_code,
    find_reference,
    get_class_from_dynamic_module,
    resolve_trust_remote_code,
)
from unibody.hub import HUB_OPTIONS, commit_of, locate
from unibody.tokenization.base import PreTrainedTokenizerBase
from unibody.tokenization.fast import PreTrainedTokenizerFast
from unibody.tokenization.files import CONFIG

FAMILIES = "unibody.tokenization.families"
PLACES = {  # of the ready classes, by their names without "Fast"
    "BertTokenizer": "unibody.tokenization.bert",
    "GPT2Tokenizer": FAMILIES,
    "RobertaTokenizer": FAMILIES,
    "Qwen2Tokenizer": FAMILIES,
    "LlamaTokenizer": FAMILIES,
    "GemmaTokenizer": FAMILIES,
    "T5Tokenizer": FAMILIES,
    "XLMRobertaTokenizer": FAMILIES,
}
IN_PYTHON = ("BertTokenizer",)
GENERIC = ("PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")
OF_MODELS = {  # where no file names a class
    "bert": "BertTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "llama": "LlamaTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "roberta": "RobertaTokenizer",
    "t5": "T5Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
_registered: dict[str, tuple[type | None, type | None]] = {}  # model_type, or a class's name -> in Python, fast


class AutoTokenizer:
    """Finds the class by `tokenizer_class` in tokenizer_config.json or config.json, by `auto_map`, or by the model type."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *inputs: Any,
        use_fast: bool = True,
        trust_remote_code: bool | None = None,
        code_revision: str | None = None,
        **options: Any,
    ) -> Any:
        """The tokenizer of a folder or repository: a fast one, or with `use_fast=False` the one in Python where there is one.

        The options are those of PreTrainedTokenizerBase.from_pretrained. A class that comes with the checkpoint runs with
        `trust_remote_code=True` only, otherwise UntrustedCodeError. ValueError: no file says which class it is.
        """
        source = pretrained_model_name_or_path
        hub = {name: options[name] for name in HUB_OPTIONS if name in options}
        folder = locate(source, dict(hub), weights=False)
        if commit := commit_of(str(folder)):
            options["revision"] = hub["revision"] = commit
        own = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        model = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
        name = own.get("tokenizer_class") or model.get("tokenizer_class")
        found = local_class(name, model.get("model_type"), use_fast, (folder / "tokenizer.json").is_file())
        reference = find_tokenizer(own, use_fast) or find_tokenizer(model, use_fast)
        files = partial(describe_code, str(reference), source, code_revision, hub)
        if resolve_trust_remote_code(trust_remote_code, str(source), found is not None, reference is not None, files):
            fetch = {key: value for key, value in hub.items() if key != "subfolder"}
            found = get_class_from_dynamic_module(str(reference), source, code_revision=code_revision, **fetch)
        if found is None:
            raise ValueError(
                f"{folder} names {f'the tokenizer {name}' if name else 'no tokenizer'}, and has no tokenizer.json: known are "
                f"{', '.join(PLACES)}; AutoTokenizer.register takes others"
            )
        return found.from_pretrained(source, *inputs, **options)

    @classmethod
    def register(
        cls,
        config_class: Any,
        tokenizer_class: type | None = None,
        slow_tokenizer_class: type | None = None,
        fast_tokenizer_class: type | None = None,
        exist_ok: bool = False,
    ) -> None:
        """From now on checkpoints of a configuration's model type, and those that name one of the classes, get these.

        `tokenizer_class` is the one or the other, by what it inherits from.
        """
        if isinstance(tokenizer_class, type) and issubclass(tokenizer_class, PreTrainedTokenizerFast):
            fast_tokenizer_class = fast_tokenizer_class or tokenizer_class
        else:
            slow_tokenizer_class = slow_tokenizer_class or tokenizer_class
        given = [found for found in (slow_tokenizer_class, fast_tokenizer_class) if found is not None]
        if not given or not all(
            isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase) for found in given
        ):
            raise TypeError("register takes classes that inherit from PreTrainedTokenizer or PreTrainedTokenizerFast")
        names = [str(config_class.model_type), *(found.__name__.removesuffix("Fast") for found in given)]
        known = {**OF_MODELS, **PLACES, **_registered}
        if not exist_ok and (taken := [name for name in names if name in known]):
            raise ValueError(f"{taken[0]} has a tokenizer already: pass exist_ok=True to replace it")
        _registered.update(dict.fromkeys(names, (slow_tokenizer_class, fast_tokenizer_class)))


def local_class(name: Any, model_type: Any, fast: bool, has_json: bool) -> Any:
    """The class of this library, or of a user who registered it; None: there is none for such a checkpoint."""
    short = str(name or "").removesuffix("Fast")
    if pair := _registered.get(short) or (_registered.get(str(model_type)) if not name else None):
        return (pair[1] or pair[0]) if fast else (pair[0] or pair[1])
    if not name:
        short = OF_MODELS.get(str(model_type), "")
    if short in PLACES:
        python = short in IN_PYTHON and not fast
        return getattr(import_module(PLACES[short]), short if python else f"{short}Fast")
    if has_json and (not name or name in GENERIC or name.endswith("Fast") or "Tokenizer" in name):
        return PreTrainedTokenizerFast
    return None


def find_tokenizer(config: dict[str, Any], fast: bool) -> str | None:
    """The reference of AutoTokenizer in a configuration, which may be a pair: in Python, fast."""
    found = {}
    for key in ("unibody_auto_map", "auto_map"):
        entries = config.get(key)
        entry = entries.get("AutoTokenizer") if isinstance(entries, dict) else entries
        if isinstance(entry, list) and len(entry) == 2:
            entry = (entry[1] or entry[0]) if fast else (entry[0] or entry[1])
        found[key] = {"AutoTokenizer": entry} if entry is not None else {}
    return find_reference(found, "AutoTokenizer")
