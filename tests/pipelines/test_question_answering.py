"""question-answering gives the answers that transformers 4.57.6 gave for the stored checkpoint: texts and places equal."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from oracle.pipelines import assert_same, sentences

import unibody

FOLDERS = sorted((Path(__file__).parents[1] / "fixtures/pipelines/question-answering").iterdir())
RECORDED = {folder.name: json.loads((folder / "recorded.json").read_text(encoding="utf-8")) for folder in FOLDERS}
CALLS = [(name, call) for name, recorded in RECORDED.items() for call in recorded["calls"]]
CONTEXT = " ".join(sentences(5))


@pytest.fixture(scope="module")
def pipes() -> dict[str, Any]:
    return {folder.name: unibody.pipeline(model=folder) for folder in FOLDERS}


@pytest.fixture
def pipe(pipes: dict[str, Any]) -> Any:
    return pipes["bert"]


def possible(answer: Any) -> Any:
    """Without answers of score 0, with which 4.57.6 fills up a list: they begin at a token that is not of the context."""
    if not isinstance(answer, list):
        return answer
    kept = [one for one in answer if one["score"] > 0]
    return kept[0] if len(kept) == 1 else kept


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_by_this_script(name: str) -> None:
    script = Path(__file__).parents[1] / "oracle/record_pipelines.py"
    assert RECORDED[name]["script_sha256"] == hashlib.sha256(script.read_bytes()).hexdigest()
    assert RECORDED[name]["transformers"] == "4.57.6"


@pytest.mark.parametrize(
    "name, call", CALLS, ids=lambda value: value if isinstance(value, str) else str(value["options"])[:60]
)
def test_recorded(pipes: dict[str, Any], name: str, call: dict[str, Any]) -> None:
    ask, given = pipes[name], call["inputs"]
    found = ask(**call["options"]) if given is None else ask(given, **call["options"])
    several = isinstance(given, list) and len(given) > 1
    for ours, theirs in zip(found, call["answer"], strict=True) if several else [(found, call["answer"])]:
        assert_same(ours, possible(theirs))


def test_padding_on_the_left(pipes: dict[str, Any]) -> None:
    """Questions come after contexts then, and batches are padded before them; RoBERTa counts positions without padding."""
    left = copy.copy(pipes["roberta"])
    left.tokenizer = copy.deepcopy(left.tokenizer)
    left.tokenizer.padding_side = "left"
    inputs = [{"question": "who lives in Berlin?", "context": text} for text in (CONTEXT, "the cat", "Anna sings")]
    for options in ({"top_k": 3}, {"top_k": 3, "handle_impossible_answer": True}, {"align_to_words": False}):
        alone = left(inputs, **options)
        assert_same(left(inputs, **options, batch_size=4), alone)
        for row, answers in zip(inputs, alone, strict=True):
            for one in answers if isinstance(answers, list) else [answers]:
                assert row["context"][one["start"] : one["end"]] == one["answer"]


def test_long_questions(pipe: Any) -> None:
    """They are cut where it is asked for, and refused where they leave no room."""
    question = " ".join(sentences(6))
    with pytest.raises(ValueError, match=r"the question has \d+ tokens, which leaves none of 64 for the context"):
        pipe(question=question, context=CONTEXT)
    cut = pipe(question=question, context=CONTEXT, max_question_len=9)
    encoded = pipe.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
    assert cut == pipe(question=question[: encoded["offset_mapping"][8][1]], context=CONTEXT)
    lazy = pipe({"question": "who?", "context": text} for text in (CONTEXT, "the cat"))
    assert next(lazy) == pipe(question="who?", context=CONTEXT)


@pytest.mark.parametrize(
    "inputs, message",
    [
        (
            {"question": "who?"},
            "question-answering reads a dictionary with 'question' and 'context', not ['question']",
        ),
        ("who?", "question-answering reads a dictionary with 'question' and 'context', not str"),
        ({"question": "", "context": "a"}, "question-answering: the question is empty"),
        ({"question": "a", "context": ""}, "question-answering: the context is empty"),
        ({"question": "a", "context": None}, "question-answering reads context (str), not NoneType"),
        ({"question": b"a", "context": "a"}, "question-answering reads question (str), not bytes: decode it first"),
        ([], "question-answering: the list of inputs is empty: give at least one"),
        (None, "question-answering needs question= and context=, or a dictionary that has both"),
    ],
    ids=str,
)
def test_bad_input(pipe: Any, inputs: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        pipe(inputs)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "options, message",
    [
        ({"top_k": 0}, "top_k 0 is not at least 1"),
        ({"max_answer_len": 0}, "max_answer_len 0 is not at least 1"),
        (
            {"max_seq_len": 20, "doc_stride": 18},
            "doc_stride 18 is not less than the 15 tokens that max_seq_len 20 leaves",
        ),
        ({"question": ["a", "b"], "context": ["c"]}, "there are 2 questions and 1 contexts: give as many of both"),
    ],
    ids=str,
)
def test_bad_options(pipe: Any, options: dict[str, Any], message: str) -> None:
    given = {"question": "who?", "context": CONTEXT, **options}
    with pytest.raises(ValueError, match=message):
        pipe(**given)
