"""Fast tokenizers of the model families: what their checkpoints leave unsaid, and how the vocabulary's own files are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from unibody.core.hub import read_json
from unibody.tokenization.fast import PreTrainedTokenizerFast

END = "<|endoftext|>"
FENCED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
SENTENCES = {**FENCED, "sep_token": "</s>", "cls_token": "<s>", "pad_token": "<pad>", "mask_token": "<mask>"}
QWEN_WORDS = (  # contractions, words with what stands before them, single digits, marks, line ends, spaces
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class ByteLevelTokenizerFast(PreTrainedTokenizerFast):
    """Byte-level BPE (GPT-2, section 2.2), of tokenizer.json or of vocab.json and merges.txt."""

    vocab_files_names: ClassVar[dict[str, str]] = {
        "vocab_file": "vocab.json", "merges_file": "merges.txt", "tokenizer_file": "tokenizer.json",
    }  # fmt: skip

    @classmethod
    def build(cls, settings: dict[str, Any]) -> Tokenizer:
        files = [settings.get("vocab_file"), settings.get("merges_file")]
        if None in files:
            raise FileNotFoundError(
                f"{cls.__name__} reads tokenizer.json, or vocab.json and merges.txt, and of these there is "
                f"{' and '.join(Path(file).name for file in files if file) or 'none'}: fetch the others"
            )
        vocabulary, merges = read_json(Path(str(files[0]))), read_merges(Path(str(files[1])))
        backend = Tokenizer(models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=""))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=bool(settings.get("add_prefix_space", False))
        )
        backend.decoder = decoders.ByteLevel()
        cls.finish(backend, settings)
        return backend

    @classmethod
    def finish(cls, backend: Tokenizer, settings: dict[str, Any]) -> None:
        """What a family does differently."""
        backend.post_processor = processors.ByteLevel(trim_offsets=False)


class GPT2TokenizerFast(ByteLevelTokenizerFast):
    """GPT-2's tokenizer, which many models of English text and code have."""

    defaults: ClassVar[dict[str, Any]] = {"bos_token": END, "eos_token": END, "unk_token": END}


class RobertaTokenizerFast(ByteLevelTokenizerFast):
    """RoBERTa's tokenizer: GPT-2's with `<s> A </s>`, and `<s> A </s></s> B </s>` for pairs."""

    defaults: ClassVar[dict[str, Any]] = SENTENCES

    @classmethod
    def finish(cls, backend: Tokenizer, settings: dict[str, Any]) -> None:
        first, last = str(settings["cls_token"]), str(settings["sep_token"])
        start, end = backend.token_to_id(first), backend.token_to_id(last)
        if start is None or end is None:
            raise ValueError(
                f"{settings['vocab_file']} lacks {first} or {last}, which every text needs: name the tokens it has"
            )
        backend.post_processor = processors.RobertaProcessing(
            (last, end), (first, start), add_prefix_space=bool(settings.get("add_prefix_space", False))
        )


class Qwen2TokenizerFast(ByteLevelTokenizerFast):
    """The tokenizer of Qwen2 and Qwen3: byte-level BPE of NFC text, digits one by one."""

    defaults: ClassVar[dict[str, Any]] = {"eos_token": END, "unk_token": END, "pad_token": END}

    @classmethod
    def finish(cls, backend: Tokenizer, settings: dict[str, Any]) -> None:
        backend.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                words,
                pre_tokenizers.ByteLevel(
                    add_prefix_space=bool(settings.get("add_prefix_space", False)), use_regex=False
                ),
            ]
        )


class LlamaTokenizerFast(PreTrainedTokenizerFast):
    """The tokenizer of Llama, of tokenizer.json: SentencePiece's BPE (Llama 2) or byte-level BPE (Llama 3)."""

    padding_side = "left"
    defaults: ClassVar[dict[str, Any]] = FENCED


class GemmaTokenizerFast(PreTrainedTokenizerFast):
    """The tokenizer of Gemma, of tokenizer.json: SentencePiece's BPE with bytes for what is unknown."""

    padding_side = "left"
    defaults: ClassVar[dict[str, Any]] = {
        "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
    }  # fmt: skip


class T5TokenizerFast(PreTrainedTokenizerFast):
    """The tokenizer of T5, of tokenizer.json: SentencePiece's unigrams, and `<extra_id_0>` to `<extra_id_99>`."""

    defaults: ClassVar[dict[str, Any]] = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


class XLMRobertaTokenizerFast(PreTrainedTokenizerFast):
    """The tokenizer of XLM-RoBERTa, of tokenizer.json: SentencePiece's unigrams, with RoBERTa's special tokens."""

    defaults: ClassVar[dict[str, Any]] = SENTENCES


def read_merges(file: Path) -> list[tuple[str, str]]:
    """The pairs of a merges.txt, the first to be merged first. ValueError: a line has not two parts."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: it has a pair of tokens on each line")
    lines = file.read_text(encoding="utf-8").split("\n")
    merges = []
    for number, line in enumerate(lines, 1):
        if (number == 1 and line.startswith("#version")) or not line.strip():
            continue
        pair = line.split(" ")
        if len(pair) != 2:
            raise ValueError(
                f"{file}, line {number}: {json.dumps(line)} is no pair of tokens with a space between them"
            )
        merges.append((pair[0], pair[1]))
    return merges
