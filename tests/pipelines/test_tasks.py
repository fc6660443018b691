"""Every task gives what transformers gives for the same checkpoint: structure, texts and places equal, numbers nearly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracle.pipelines import assert_same, sentences

import unibody
from pipelines.conftest import Pair

TEXTS = sentences(10)
Pairs = Callable[[str, str], Pair]


def check(pair: Pair, inputs: Any, *args: Any, **options: Any) -> Any:
    found = pair.ours(inputs, *args, **options)
    assert_same(found, pair.theirs(inputs, *args, **options))
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": None},
        {"top_k": 2},
        {"top_k": 1},
        {"top_k": 9},
        {"function_to_apply": "sigmoid", "top_k": None},
        {"function_to_apply": "none"},
        {"batch_size": 4},
        {"truncation": True, "max_length": 5},
    ],
    ids=str,
)
def test_text_classification(pair: Pairs, options: dict[str, Any]) -> None:
    both = pair("text-classification", "classes")
    assert len({answer["label"] for answer in both.ours(TEXTS)}) > 1, "a model that always says the same proves little"
    check(both, TEXTS, **options)
    for alone in (TEXTS[0], TEXTS[:1], "", {"text": TEXTS[0], "text_pair": TEXTS[1]}):
        check(both, alone, **options)
    check(both, [{"text": TEXTS[0], "text_pair": TEXTS[1]}, {"text": TEXTS[2]}], **options)


@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification", "single_label_classification"])
@pytest.mark.parametrize("name", ["classes", "one class"])
def test_what_scores_mean(pair: Pairs, name: str, problem: str | None) -> None:
    both = copy.deepcopy(pair("text-classification", name))
    both.ours.model.config.problem_type = both.theirs.model.config.problem_type = problem
    check(both, TEXTS[:3], top_k=None)


def test_options_of_the_constructor_hold(pair: Pairs) -> None:
    both = pair("text-classification", "classes")
    ours = unibody.TextClassificationPipeline(both.ours.model, both.ours.tokenizer, top_k=2, batch_size=3)
    assert_same(ours(TEXTS), both.theirs(TEXTS, top_k=2))
    assert_same(ours(TEXTS, top_k=1), both.theirs(TEXTS, top_k=1))
    assert_same(ours(TEXTS), both.theirs(TEXTS, top_k=2))


@pytest.mark.parametrize(
    "options", [{}, {"top_k": 2}, {"targets": ["cat", "dog", "cat"]}, {"targets": "city"}], ids=str
)
def test_fill_mask(pair: Pairs, options: dict[str, Any]) -> None:
    both = pair("fill-mask", "masks")
    several = ["the [MASK] sat", "a [MASK] ran in the [MASK] .", "[MASK]", "Zürich is [MASK]!"]
    for inputs in (several[0], several[1], several[:1], several):
        check(both, inputs, **options)
    check(both, several, batch_size=3, **options)


def test_fill_mask_with_words_of_several_tokens(pair: Pairs) -> None:
    """The first token is taken, and it is said so."""
    both = pair("fill-mask", "masks")
    with pytest.warns(UserWarning, match="target 'zebra' is no token: 'z', with which it begins, is taken"):
        ours = both.ours("the [MASK] sat", targets=["zebra", "cat"])
    assert_same(ours, both.theirs("the [MASK] sat", targets=["zebra", "cat"]))
    kept = {"tokenizer_kwargs": {"truncation": True, "max_length": 5}, "top_k": 1}
    check(both, "the [MASK] sat on a mat", **kept)


def test_feature_extraction(pair: Pairs) -> None:
    both = pair("feature-extraction", "hidden")
    for inputs in (TEXTS[0], TEXTS[:1], TEXTS):
        check(both, inputs)
    check(both, TEXTS[0], tokenize_kwargs={"truncation": True, "max_length": 4})
    tensor = both.ours(TEXTS[0], return_tensors=True)
    torch.testing.assert_close(tensor, both.theirs(TEXTS[0], return_tensors=True), rtol=0, atol=1e-5)
    assert_same(both.ours(TEXTS, batch_size=4), both.theirs(TEXTS))  # theirs would have vectors of padding


def test_feature_extraction_below_a_head(pair: Pairs) -> None:
    """A model with a head gives what its head would get."""
    model = pair("fill-mask", "masks").ours
    alone = unibody.FeatureExtractionPipeline(model.model, model.tokenizer)(TEXTS[0], return_tensors=True)
    inputs = model.tokenizer(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(alone, model.model.bert(**inputs).last_hidden_state)


@pytest.mark.parametrize(
    "options", [{}, {"multi_label": True}, {"hypothesis_template": "it is {} ."}, {"batch_size": 4}], ids=str
)
def test_zero_shot_classification(pair: Pairs, options: dict[str, Any]) -> None:
    both = pair("zero-shot-classification", "inference")
    labels = ["cat", "news", "a red city"]
    check(both, TEXTS[0], labels, **options)
    check(both, TEXTS[:4], candidate_labels=labels, **options)
    check(both, TEXTS[:1], candidate_labels="cat, news ,sport", **options)
    check(both, TEXTS[0], candidate_labels=["cat"], **options)
    check(both, " ".join(TEXTS), candidate_labels=labels, **options)  # longer than the model reads


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("name", ["entities", "short entities"])
def test_token_classification(pair: Pairs, name: str, strategy: str) -> None:
    both = pair("token-classification", name)
    for options in ({}, {"ignore_labels": []}, {"ignore_labels": ["O", "PER", "B-PER"]}, {"batch_size": 4}):
        assert check(both, [*TEXTS, " ".join(TEXTS)], aggregation_strategy=strategy, **options) != []
    for alone in (TEXTS[2], TEXTS[2:3], ""):
        check(both, alone, aggregation_strategy=strategy)
    split = [text.split() for text in TEXTS]
    check(both, split, aggregation_strategy=strategy, is_split_into_words=True)
    found = check(both, split[3], aggregation_strategy=strategy, is_split_into_words=True, delimiter=" - ")
    words = {"is_split_into_words": True, "delimiter": " - ", "aggregation_strategy": strategy}
    always = unibody.TokenClassificationPipeline(both.ours.model, both.ours.tokenizer, **words)
    assert always(split[3]) == found


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
@pytest.mark.parametrize("stride", [0, 3, 8])
def test_token_classification_of_long_texts(pair: Pairs, stride: int, strategy: str) -> None:
    """Read in parts that overlap; what two parts find at one place is one entity."""
    both = pair("token-classification", "short entities")
    texts = [" ".join(TEXTS), TEXTS[0], " ".join(reversed(TEXTS))]
    assert any(entity["end"] > 300 for entity in both.ours(texts[0], stride=stride, aggregation_strategy=strategy))
    for size in (1, 3):
        check(both, texts, stride=stride, aggregation_strategy=strategy, batch_size=size)


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")  # theirs
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_words_of_byte_pairs(pair: Pairs, strategy: str) -> None:
    """A tokenizer that marks the beginnings of words, not what goes on with them."""
    both = pair("token-classification", "roberta entities")
    check(both, TEXTS, aggregation_strategy=strategy, batch_size=3)
    check(both, [text.split() for text in TEXTS], aggregation_strategy=strategy, is_split_into_words=True)
    if strategy != "none":
        check(both, " ".join(TEXTS), aggregation_strategy=strategy, stride=4)


def test_roberta(pair: Pairs) -> None:
    """Its mask takes the space before it, its tokens keep theirs, and it reads no segments."""
    both = pair("fill-mask", "roberta masks")
    for options in ({}, {"targets": [" cat", "a"]}):
        check(both, ["the <mask> sat", "a <mask> ran in the <mask> ."], batch_size=2, **options)
    both = pair("text-classification", "roberta classes")
    check(both, [{"text": TEXTS[4], "text_pair": "the cat"}, {"text": "a dog"}], top_k=None, batch_size=2)


def test_aliases(pair: Pairs, checkpoint: Callable[[str], Any]) -> None:
    for alias, task, name in (
        ("ner", "token-classification", "entities"), ("sentiment-analysis", "text-classification", "classes"),
    ):  # fmt: skip
        ours = unibody.pipeline(alias, checkpoint(name))
        assert ours.task == task
        assert_same(ours(TEXTS), pair(task, name).theirs(TEXTS))
