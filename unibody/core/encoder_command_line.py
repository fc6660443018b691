"""An encoder's file as a program."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unibody.core.command_line import read_tokenizer
from unibody.core.hub import locate_checkpoint

MASKS = ("[MASK]", "<mask>")


def encode_text(encoder: Any, classifier: Any, predictor: Any) -> None:
    """Writes the vectors of texts, their labels or their masked words to standard output, as the command line asks."""
    parser = argparse.ArgumentParser(description=f"Embed texts, classify them, or fill in words: {encoder.__name__}.")
    parser.add_argument("checkpoint", help="folder with config.json, *.safetensors and tokenizer.json, or a Hub id")
    tasks = {
        "embed": (encoder, write_vector, "the mean over the tokens, as a vector of length 1"),
        "classify": (classifier, write_labels, "each label and its probability, best first"),
        "fill": (predictor, write_words, f"the five likeliest words for each {' or '.join(MASKS)}"),
    }
    choice = parser.add_mutually_exclusive_group(required=True)
    for task, (_, _, meaning) in tasks.items():
        choice.add_argument(f"--{task}", nargs="+", metavar="TEXT", help=meaning)
    parser.add_argument("--dtype", help="such as bfloat16; by default that of the checkpoint")
    parser.add_argument("--device")
    options = vars(parser.parse_args())
    task = next(task for task in tasks if options[task])
    model_class, write, _ = tasks[task]
    try:
        folder = locate_checkpoint(options["checkpoint"], patterns=("*.json", "model*.safetensors"))
        tokenizer = read_tokenizer(folder / "tokenizer.json")
        model = model_class.from_pretrained(folder, dtype=options["dtype"], device=options["device"])
        tokenizer.no_padding()
        tokenizer.enable_truncation(model.config.longest_text)
        with torch.no_grad():
            for text in options[task]:
                write(model, tokenizer, text)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def tokenize(model: Any, tokenizer: Any, text: str) -> Tensor:
    """Token ids [1, S]."""
    if not (ids := tokenizer.encode(text).ids):
        raise ValueError(f"{text!r} has no tokens: write a text")
    return torch.tensor([ids], device=model.device)


def write_vector(model: Any, tokenizer: Any, text: str) -> None:
    hidden = model(tokenize(model, tokenizer, text)).last_hidden_state.float()  # [1, S, H]
    print(json.dumps([round(value, 6) for value in F.normalize(hidden.mean(1))[0].tolist()]))


def write_labels(model: Any, tokenizer: Any, text: str) -> None:
    scores, names = model(tokenize(model, tokenizer, text)).logits[0].float().softmax(-1), model.config.id2label or {}
    for label in scores.argsort(descending=True).tolist():
        print(f"{scores[label]:.4f} {names.get(label, f'LABEL_{label}')}")


def write_words(model: Any, tokenizer: Any, text: str) -> None:
    mask = next((mask for mask in MASKS if tokenizer.token_to_id(mask) is not None), MASKS[0])
    ids = tokenize(model, tokenizer, text.replace(MASKS[0], mask).replace(MASKS[1], mask))
    places = [place for place, token in enumerate(ids[0].tolist()) if token == tokenizer.token_to_id(mask)]
    if not places:
        raise ValueError(f"{text!r} has no masked word: write {mask} in its place")
    for scores in model(ids).logits[0, places].float().softmax(-1):  # [V], for each mask
        for token in scores.topk(5).indices.tolist():
            print(f"{scores[token]:.4f} {tokenizer.decode([token], skip_special_tokens=False).strip()}")
