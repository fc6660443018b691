"""Checkpoints for tests of pipelines: tiny models with heads that have opinions, and the tokenizers that go with them.

Runs with any transformers from 4.57 on, so that what an older one answers can be recorded.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from torch import nn

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "in",
    "at",
    "to",
    "of",
    "is",
    "was",
    "who",
    "where",
    "when",
    "what",
    "why",
    "did",
    "he",
    "she",
    "it",
    "and",
    "or",
    "not",
    "mat",
    "park",
    "city",
    "river",
    "house",
    "berlin",
    "paris",
    "london",
    "new",
    "york",
    "jean",
    "marie",
    "anna",
    "otto",
    "lives",
    "walks",
    "works",
    "sings",
    "old",
    "young",
    "red",
    "blue",
    "big",
    "small",
    ".",
    ",",
    "?",
    "!",
    "-",
    "'s",
    "this",
    "example",
    "news",
    "sport",
    "science",
]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}:{{ message.content }}"
    "{% if not loop.last or add_generation_prompt %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)
ENTITIES = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC", 5: "MISC"}
INFERENCE = {0: "contradiction", 1: "neutral", 2: "entailment"}


def sentences(count: int = 12, seed: int = 0, longest: int = 14) -> list[str]:
    """Random texts of known words, of words in pieces, of capitals, accents and signs of no token."""
    generator = random.Random(seed)
    strange = ["Zürich", "catdogs", "O'Neill", "日本", "x9", "Marie-Anna", "lives,", "🙂", "singsong"]
    found = []
    for _ in range(count):
        words = generator.choices([*WORDS, *map(str.title, WORDS[40:48]), *strange], k=generator.randint(1, longest))
        found.append(" ".join(words))
    return found


def write_wordpiece(folder: Path, longest: int) -> None:
    """The files of an uncased BERT tokenizer that reads `longest` tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = list(dict.fromkeys([*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]))
    ids = {word: index for index, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    facts = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": longest}
    names = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps({**facts, **names}), encoding="utf-8")


def write_byte_pairs(folder: Path, longest: int) -> None:
    """The files of a RoBERTa tokenizer, byte-level BPE, that reads `longest` tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sentences(200, seed=9), trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    model = json.loads(tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    facts = {"tokenizer_class": "RobertaTokenizer", "model_max_length": longest}
    names = dict.fromkeys(("bos_token", "cls_token"), "<s>") | dict.fromkeys(("eos_token", "sep_token"), "</s>")
    names |= {"pad_token": "<pad>", "unk_token": "<unk>"}
    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False}
    mask |= {"single_word": False, "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps({**facts, **names, "mask_token": mask}), encoding="utf-8")


def write_bert(folder: Path, class_name: str, longest: int = 64, gain: float = 3.0, **config: Any) -> Path:
    """A checkpoint of a BERT class."""
    import transformers

    write_wordpiece(folder, longest)
    count = len((folder / "vocab.txt").read_text(encoding="utf-8").split("\n")) - 1
    sizes = {"vocab_size": count, "max_position_embeddings": longest, **SIZES}
    return write_encoder(folder, class_name, transformers.BertConfig(**sizes, **config), gain)


def write_roberta(folder: Path, class_name: str, longest: int = 62, gain: float = 3.0, **config: Any) -> Path:
    """A checkpoint of a RoBERTa class, whose positions begin after that of padding."""
    import transformers

    write_byte_pairs(folder, longest)
    count = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    sizes = {"vocab_size": count, "max_position_embeddings": longest + 2, "type_vocab_size": 1, **SIZES}
    tokens = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return write_encoder(folder, class_name, transformers.RobertaConfig(**sizes, **tokens, **config), gain)


def write_encoder(folder: Path, class_name: str, config: Any, gain: float) -> Path:
    """Adds the model; its head's logits are centred and multiplied by `gain`, so that answers differ."""
    import transformers

    from oracle.reference import perturb

    model = getattr(transformers, class_name)(config).eval()
    perturb(model, "unit")
    head = getattr(model, "classifier", None) or getattr(model, "qa_outputs", None)
    if isinstance(head, nn.Linear):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        with torch.no_grad():
            inputs = tokenizer(sentences(24), padding=True, truncation=True, return_tensors="pt")
            logits = model(**inputs)
            values = getattr(logits, "logits", None)
            values = torch.stack([logits.start_logits, logits.end_logits], -1) if values is None else values
            head.bias.sub_(values.flatten(0, -2).mean(0)).mul_(gain)
            head.weight.mul_(gain)
    model.save_pretrained(folder)
    return folder


def write_llama(folder: Path, **config: Any) -> Path:
    """A checkpoint of a Llama that writes characters, with a chat template."""
    import transformers

    from oracle.reference import perturb
    from oracle.tokenizer import tiny_tokenizer

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    sizes = {
        "vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**sizes, **config})).eval()
    perturb(model, "unit")
    model.save_pretrained(folder)
    return folder


def assert_same(ours: Any, theirs: Any, tolerance: float = 2e-5, at: str = "answer") -> None:
    """The same structure, keys in the same order, texts and places equal, numbers within `tolerance`."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), at
        assert list(ours) == list(theirs), at
        for key, value in theirs.items():
            assert_same(ours[key], value, tolerance, f"{at}.{key}")
    elif isinstance(theirs, (list, tuple)):
        assert isinstance(ours, list), at
        assert len(ours) == len(theirs), f"{at}: {ours} {theirs}"
        for index, value in enumerate(theirs):
            assert_same(ours[index], value, tolerance, f"{at}[{index}]")
    elif isinstance(theirs, (str, int)) or theirs is None:
        assert ours == theirs, at
        assert type(ours) is type(theirs), at
    else:
        assert type(ours) is float, at
        assert abs(ours - float(theirs)) <= tolerance, f"{at}: {ours} {theirs}"
