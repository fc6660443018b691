"""Records `tests/fixtures/pipelines/question-answering/`: answers of transformers 4.57.6, the last one that has this pipeline.

That version cannot live beside the oracle, so it runs in an environment of its own:

    python -m venv /tmp/legacy && /tmp/legacy/bin/pip install -c constraints.txt torch safetensors && \
        /tmp/legacy/bin/pip install transformers==4.57.6
    PYTHONPATH=. OMP_NUM_THREADS=1 /tmp/legacy/bin/python tests/oracle/record_pipelines.py

A folder for BERT and one for RoBERTa hold the checkpoint that was asked, with its tokenizer, and recorded.json: the version, the hash
of this script, and for each call its inputs, its options and the answer.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))

from oracle.pipelines import sentences, write_bert, write_roberta

OUT = Path(__file__).parents[1] / "fixtures/pipelines/question-answering"
OPTIONS: list[dict[str, Any]] = [
    {},
    {"top_k": 3},
    {"top_k": 20},
    {"handle_impossible_answer": True},
    {"handle_impossible_answer": True, "top_k": 4},
    {"align_to_words": False, "top_k": 5},
    {"max_answer_len": 1},
    {"max_answer_len": 40, "top_k": 3},
    {"max_seq_len": 60, "doc_stride": 6},
    {"max_seq_len": 54, "doc_stride": 0, "top_k": 6},
    {"max_seq_len": 58, "doc_stride": 10, "handle_impossible_answer": True, "top_k": 3},
    {"padding": "max_length", "max_seq_len": 62, "top_k": 2},
]


def examples() -> list[dict[str, str]]:
    """Questions and contexts, of which some are read in several parts."""
    generator = random.Random(5)
    questions = ["who lives in Berlin ?", "where is the cat?", "Why", "when did Anna sing, and what of Otto?"]
    texts = sentences(40, seed=7)
    contexts = [" ".join(texts[start : start + size]) for start, size in ((0, 1), (1, 2), (3, 5), (8, 9), (17, 16))]
    contexts += ["Zürich", "x9 日本 catdogs", "  the cat\n\nsat  on\tthe mat . "]
    return [{"question": generator.choice(questions), "context": context} for context in contexts]


def record(folder: Path) -> None:
    pipe = transformers.pipeline("question-answering", model=str(folder))
    calls = []
    for options in OPTIONS:
        for batch_size in (1, 4) if not options else (1,):
            given = {**options, **({"batch_size": batch_size} if batch_size > 1 else {})}
            calls.append({"inputs": examples(), "options": given, "answer": pipe(examples(), **given)})
    first = examples()[3]
    calls.append({"inputs": first, "options": {}, "answer": pipe(first)})
    calls.append({"inputs": [first], "options": {}, "answer": pipe([first])})
    calls.append({"inputs": None, "options": {**first}, "answer": pipe(**first)})
    shared = {"question": ["who ?", "where is it"], "context": first["context"]}
    calls.append({"inputs": None, "options": shared, "answer": pipe(**shared)})
    facts = {
        "transformers": transformers.__version__,
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "calls": calls,
    }
    (folder / "recorded.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    assert transformers.__version__ == "4.57.6", transformers.__version__
    record(write_bert(OUT / "bert", "BertForQuestionAnswering", longest=64, gain=2.0))
    record(write_roberta(OUT / "roberta", "RobertaForQuestionAnswering", longest=126, gain=2.0))
