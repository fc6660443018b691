"""What is no text, no label, no strategy: an error that names it and says what to do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unibody

Checkpoints = Callable[[str], Path]
TASKS = {
    "text-classification": "classes",
    "fill-mask": "masks",
    "feature-extraction": "hidden",
    "token-classification": "entities",
    "zero-shot-classification": "inference",
}


@pytest.mark.parametrize(
    "inputs, found", [(None, "NoneType"), (b"a", "bytes: decode it first"), (5, "int"), ([5], "int")], ids=str
)
@pytest.mark.parametrize("task", TASKS)
def test_no_text(checkpoint: Checkpoints, task: str, inputs: Any, found: str) -> None:
    options = {"candidate_labels": ["a"]} if task == "zero-shot-classification" else {}
    pipe = unibody.pipeline(task, checkpoint(TASKS[task]), **options)
    for given in (inputs, iter([inputs[0] if isinstance(inputs, list) else inputs])):
        with pytest.raises(TypeError) as raised:
            list(pipe(given))
        assert str(raised.value) == f"{task} reads a text (str), not {found}"
    with pytest.raises(ValueError, match=f"{task}: the list of inputs is empty: give at least one"):
        pipe([])
    assert list(pipe(iter([]))) == []


@pytest.mark.parametrize(
    "task, inputs, options, message",
    [
        ("text-classification", {"text_pair": "a"}, {}, "a pair has the keys 'text' and 'text_pair', not ['text_pair']"),
        ("text-classification", {"text": "a", "pair": "b"}, {}, "keys 'text' and 'text_pair', not ['pair', 'text']"),
        ("text-classification", {"text": "a", "text_pair": 5}, {}, "text-classification reads text_pair (str), not int"),
        ("text-classification", [["a", "b"]], {}, "text-classification reads a text (str), not list"),
        ("text-classification", "a", {"function_to_apply": "relu"}, "function_to_apply 'relu' is not one of softmax, sigmoid"),
        ("text-classification", "a", {"top_k": 0}, "top_k 0 is neither None (all labels) nor a number of labels"),
        ("fill-mask", "the cat", {}, "there is no mask token ([MASK]) in what was read of 'the cat'"),
        ("fill-mask", "", {}, "there is no mask token ([MASK]) in what was read of ''"),
        ("fill-mask", "a [MASK]", {"targets": [""]}, "targets [''] name no token: give at least one word"),
        ("fill-mask", "a [MASK]", {"targets": []}, "targets [] name no token: give at least one word"),
        ("fill-mask", "a [MASK]", {"top_k": 0}, "top_k 0 is not a number of tokens"),
        ("token-classification", "a", {"aggregation_strategy": "most"}, "aggregation_strategy 'most' is not one of none, simple"),
        ("token-classification", "a", {"stride": 63}, "stride 63 is not possible: it needs a fast tokenizer whose"),
        ("token-classification", "a", {"stride": 2, "aggregation_strategy": "none"}, "use another aggregation_strategy"),
        ("token-classification", [["a", 5]], {"is_split_into_words": True}, "reads lists of words (str), not int"),
        ("token-classification", ["a", 5], {"is_split_into_words": True}, "with is_split_into_words a text is a list of words, not 'a'"),
        ("zero-shot-classification", "a", {}, "candidate_labels are missing: give the labels to choose from"),
        ("zero-shot-classification", "", {"candidate_labels": ["a"]}, "zero-shot-classification: the text is empty"),
        ("zero-shot-classification", "a", {"candidate_labels": []}, "candidate_labels [] has no label, or one that is empty"),
        ("zero-shot-classification", "a", {"candidate_labels": ["a", ""]}, "has no label, or one that is empty"),
        ("zero-shot-classification", "a", {"candidate_labels": " , "}, "has no label, or one that is empty"),
        ("zero-shot-classification", "a", {"candidate_labels": ["a", 5]}, "reads candidate_labels (str), not int"),
        ("zero-shot-classification", "a", {"hypothesis_template": "It is."}, "hypothesis_template 'It is.' has no {} for the label"),
        ("feature-extraction", "a", {"truncation": True, "tokenize_kwargs": {"truncation": True}}, "truncation is given twice"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_refused(
    checkpoint: Checkpoints, task: str, inputs: Any, options: dict[str, Any], message: str
) -> None:
    pipe = unibody.pipeline(task, checkpoint(TASKS[task]))
    with pytest.raises((TypeError, ValueError)) as raised:
        pipe(inputs, **options)
    assert message in str(raised.value)


@pytest.mark.parametrize("task", ["text-classification", "feature-extraction", "fill-mask"])
def test_too_long(checkpoint: Checkpoints, task: str) -> None:
    """It is said before the model fails; truncation goes to what the model reads, whatever the tokenizer believes."""
    pipe = unibody.pipeline(task, checkpoint(TASKS[task]))
    pipe.tokenizer.model_max_length = 10**30
    text = "[MASK] " + "the cat " * 50
    with pytest.raises(ValueError, match=f"{task}: a text has 103 tokens, and the model reads 64: cut texts"):
        pipe(text)
    own, said = {"truncation": True}, {"truncation": True, "max_length": 64}
    if task == "text-classification":
        assert pipe(text, **own) == pipe(text, **said)
    else:
        name = "tokenizer_kwargs" if task == "fill-mask" else "tokenize_kwargs"
        assert pipe(text, **{name: own}) == pipe(text, **{name: said})


def test_labels_without_entailment(checkpoint: Checkpoints) -> None:
    with pytest.raises(
        ValueError, match="needs a model that was trained to tell entailment; the labels of this one are LABEL_0"
    ):
        unibody.pipeline("zero-shot-classification", checkpoint("classes"))("a", ["b"])


def test_labels_follow_the_texts_once(checkpoint: Checkpoints) -> None:
    pipe = unibody.pipeline("zero-shot-classification", checkpoint("inference"))
    assert pipe("the cat", ["a", "b"]) == pipe("the cat", candidate_labels=["a", "b"])
    with pytest.raises(ValueError, match="after the texts come the candidate_labels, once"):
        pipe("the cat", ["a"], candidate_labels=["b"])


def test_empty_texts(checkpoint: Checkpoints) -> None:
    """They are texts, where a task can read them."""
    assert len(unibody.pipeline(model=checkpoint("classes"))("")) == 1
    assert unibody.pipeline(model=checkpoint("entities"))("") == []
    assert len(unibody.pipeline(model=checkpoint("hidden"))("")[0]) == 2


def test_tokenizer_without_a_mask(checkpoint: Checkpoints) -> None:
    pipe = unibody.pipeline("fill-mask", checkpoint("masks"))
    tokenizer = copy.deepcopy(pipe.tokenizer)
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="fill-mask needs a tokenizer with a mask token, and this one has none"):
        unibody.FillMaskPipeline(pipe.model, tokenizer, task="fill-mask")


def test_tokenizer_in_python(checkpoint: Checkpoints) -> None:
    """It does not know words; what needs them says so, the rest works."""
    slow = unibody.AutoTokenizer.from_pretrained(checkpoint("entities"), use_fast=False)
    assert not slow.is_fast
    fast = unibody.pipeline(model=checkpoint("entities"), aggregation_strategy="simple")
    pipe = unibody.pipeline(model=checkpoint("entities"), tokenizer=slow, aggregation_strategy="simple")
    texts = ["Jean lives in New York", "the cat"]
    without = [[{**entity, "start": None, "end": None} for entity in entities] for entities in fast(texts)]
    assert pipe(texts) == without
    with pytest.raises(
        ValueError, match="aggregation_strategy 'first' needs to know words, which only a fast tokenizer tells"
    ):
        pipe("a", aggregation_strategy="first")
    folder = Path(__file__).parents[1] / "fixtures/pipelines/question-answering/bert"
    with pytest.raises(ValueError, match="needs a fast tokenizer"):
        unibody.pipeline(model=folder, tokenizer=slow)
