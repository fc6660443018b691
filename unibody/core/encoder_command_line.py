"""An encoder's file as a program."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch
import torch.nn.functional as F

from unibody.core.hub import locate_checkpoint, read_json

MASKS = ("[MASK]", "<mask>")


def encode_text(encoder: Any, classifier: Any, predictor: Any) -> None:
    """Writes, for each text of the command line, its vector, its label or its masked word to standard output."""
    parser = argparse.ArgumentParser(
        description=f"Embed or classify texts, or fill in a word, with {encoder.__name__}."
    )
    parser.add_argument("checkpoint", help="folder with config.json, *.safetensors and tokenizer.json, or a Hub id")
    tasks = parser.add_mutually_exclusive_group(required=True)
    tasks.add_argument("--embed", nargs="+", metavar="TEXT", help="vector of length 1: the mean over the tokens")
    tasks.add_argument("--classify", nargs="+", metavar="TEXT", help="each label and its probability, best first")
    tasks.add_argument("--fill", nargs="+", metavar="TEXT", help=f"the five likeliest words for {' or '.join(MASKS)}")
    parser.add_argument("--dtype", help="such as bfloat16; by default that of the checkpoint")
    parser.add_argument("--device")
    options = parser.parse_args()
    model_class = classifier if options.classify else predictor if options.fill else encoder
    try:
        from tokenizers import Tokenizer

        folder = locate_checkpoint(options.checkpoint, patterns=("*.json", "model*.safetensors"))
        tokenizer = Tokenizer.from_str(json.dumps(read_json(folder / "tokenizer.json")))
        model = model_class.from_pretrained(folder, dtype=options.dtype, device=options.device)
        tokenizer.no_padding()
        tokenizer.enable_truncation(model.config.longest_text)
        write = write_labels if options.classify else write_words if options.fill else write_vector
        with torch.no_grad():
            for text in options.embed or options.classify or options.fill:
                write(model, tokenizer, text)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def write_vector(model: Any, tokenizer: Any, text: str) -> None:
    ids = torch.tensor([tokenizer.encode(text).ids], device=model.device)  # [1, S]
    vector = F.normalize(model(ids).last_hidden_state.float().mean(1))[0]  # [1, S, H] -> [H]
    print(json.dumps([round(value, 6) for value in vector.tolist()]))


def write_labels(model: Any, tokenizer: Any, text: str) -> None:
    ids = torch.tensor([tokenizer.encode(text).ids], device=model.device)
    scores = model(ids).logits[0].float().softmax(-1)  # [L]
    names = model.config.id2label or {}
    for score, label in zip(*(values.tolist() for values in scores.sort(descending=True)), strict=True):
        print(f"{score:.4f} {names.get(label, f'LABEL_{label}')}")


def write_words(model: Any, tokenizer: Any, text: str) -> None:
    known = [mask for mask in MASKS if tokenizer.token_to_id(mask) is not None]
    for mask in known:
        for other in MASKS:
            text = text.replace(other, mask)
    ids = torch.tensor([tokenizer.encode(text).ids], device=model.device)
    places = torch.isin(ids[0], torch.tensor([tokenizer.token_to_id(mask) for mask in known], device=ids.device))
    if not places.any():
        raise ValueError(f"{text!r} has no masked word: write {' or '.join(known or MASKS)} in its place")
    for scores in model(ids).logits[0, places].float().softmax(-1):  # [V], for each mask
        best = scores.topk(5)
        for score, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            print(f"{score:.4f} {tokenizer.decode([token]).strip()}")
