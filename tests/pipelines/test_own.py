"""Pipelines of a user's own: what their four methods get and may return, in batches of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from oracle.pipelines import sentences
from torch import Tensor

import unibody
from pipelines.conftest import Pair

TEXTS = sentences(9)
Pairs = Callable[[str, str], Pair]


class Raw(unibody.Pipeline):
    """Hands the tokenizer's own object to the model and its whole output on."""

    def _sanitize_parameters(self, second: str | None = None, scale: float | None = None) -> Any:
        return {} if second is None else {"second": second}, {}, {} if scale is None else {"scale": scale}

    def preprocess(self, inputs: Any, second: str | None = None) -> Any:
        return self.tokenizer(inputs, second, return_tensors="pt")

    def _forward(self, model_inputs: dict[str, Any]) -> Any:
        return self.model(**model_inputs)

    def postprocess(self, model_outputs: Any, scale: float = 1.0) -> list[float]:
        assert len(model_outputs.logits) == 1
        return [value * scale for value in model_outputs.logits[0].tolist()]


class Layers(NamedTuple):
    hidden: tuple[Tensor, ...]
    texts: list[str]
    shared: Any
    nothing: None = None


class Structured(unibody.Pipeline):
    """Gives tuples within named tuples, lists, and what is no row's."""

    def _sanitize_parameters(self) -> Any:
        return {}, {}, {}

    def preprocess(self, inputs: Any) -> dict[str, Any]:
        return {**self.tokenizer(inputs, return_tensors="pt"), "text": inputs}

    def _forward(self, model_inputs: dict[str, Any]) -> Layers:
        hidden = self._call_model(model_inputs, without_head=True).last_hidden_state
        return Layers((hidden, hidden * 2), model_inputs["text"], torch.tensor(7), None)

    def postprocess(self, model_outputs: Any) -> Any:
        first, second = model_outputs.hidden
        assert type(model_outputs) is Layers
        assert (first.shape[0], second.shape[0], int(model_outputs.shared), model_outputs.nothing) == (1, 1, 7, None)
        return [model_outputs.texts, float((second / first).mean())]


class Windows(unibody.ChunkPipeline):
    """The mean of the logits of all windows of three words."""

    def _sanitize_parameters(self) -> Any:
        return {}, {}, {}

    def preprocess(self, inputs: Any) -> Iterator[dict[str, Any]]:
        words = inputs.split()
        for start in range(0, len(words), 3):
            yield {**self.tokenizer(" ".join(words[start : start + 3]), return_tensors="pt"), "start": start}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        return {"logits": self._call_model(model_inputs).logits, "start": model_inputs["start"]}

    def postprocess(self, model_outputs: list[dict[str, Any]]) -> Any:
        assert [output["start"] for output in model_outputs] == list(range(0, 3 * len(model_outputs), 3))
        return torch.cat([output["logits"] for output in model_outputs]).mean(0).tolist()


@pytest.fixture(scope="module", params=["ours", "theirs"])
def parts(request: pytest.FixtureRequest, pair: Pairs) -> tuple[Any, Any]:
    """Model and tokenizer: this library's, and transformers', whose outputs are dictionaries with attributes."""
    made = getattr(pair("text-classification", "classes"), request.param)
    return made.model, made.tokenizer


@pytest.mark.parametrize("size", [1, 2, 4, 20])
def test_batches_make_no_difference(parts: tuple[Any, Any], size: int) -> None:
    model, tokenizer = parts
    for made, options in ((Raw, {}), (Raw, {"second": "the cat", "scale": 2.0}), (Windows, {})):
        pipe = made(model, tokenizer)
        alone = [pipe(text, **options) for text in TEXTS]
        for found, expected in zip(pipe(TEXTS, batch_size=size, **options), alone, strict=True):
            assert found == pytest.approx(expected, abs=1e-5)
    structured = Structured(model, tokenizer)(TEXTS, batch_size=size)
    assert [text for text, _ in structured] == TEXTS
    assert [ratio for _, ratio in structured] == pytest.approx([2.0] * len(TEXTS))


def test_values(pair: Pairs) -> None:
    """What the model gave is what the user gets."""
    both = pair("text-classification", "classes")
    pipe = Raw(both.ours.model, both.ours.tokenizer, scale=3.0)
    with torch.no_grad():
        logits = both.theirs.model(**both.theirs.tokenizer(TEXTS[0], "a dog", return_tensors="pt")).logits[0]
    assert pipe(TEXTS[0], second="a dog") == pytest.approx((logits * 3).tolist(), abs=1e-4)


def test_answers_have_no_gradients(pair: Pairs) -> None:
    class Tensors(Raw):
        def postprocess(self, model_outputs: Any, scale: float = 1.0) -> Any:
            return model_outputs.logits

    both = pair("text-classification", "classes")
    found = Tensors(both.ours.model, both.ours.tokenizer)("the cat")
    assert not found.requires_grad
    assert not found.is_inference(), "it may be used in a computation with gradients"
    assert torch.is_grad_enabled()


def test_what_cannot_be_batched(pair: Pairs) -> None:
    class Many(Raw):
        def preprocess(self, inputs: Any, second: str | None = None) -> Any:
            return self.tokenizer([inputs, inputs], padding=True, return_tensors="pt")

        def postprocess(self, model_outputs: Any, scale: float = 1.0) -> Any:
            return len(model_outputs.logits)

    class Uneven(Raw):
        def preprocess(self, inputs: Any, second: str | None = None) -> Any:
            return {**super().preprocess(inputs), **({"more": 1} if "cat" in inputs else {})}

    class Nothing(Windows):
        def preprocess(self, inputs: Any) -> Iterator[dict[str, Any]]:
            yield from ()

    model, tokenizer = (
        pair("text-classification", "classes").ours.model,
        pair("text-classification", "classes").ours.tokenizer,
    )
    assert Many(model, tokenizer)(["a", "b"]) == [2, 2]
    with pytest.raises(ValueError, match=r"input_ids of an input has not one row, \[2, 3\]: use batch_size=1"):
        Many(model, tokenizer)(["a", "b"], batch_size=2)
    with pytest.raises(ValueError, match=r"inputs of one batch have different parts: .*'more'"):
        Uneven(model, tokenizer)(["a", "the cat"], batch_size=2)
    with pytest.raises(ValueError, match="nothing to compute was made of the input 'a'"):
        Nothing(model, tokenizer)("a")


def test_a_class_that_lacks_a_step(checkpoint: Callable[[str], Path]) -> None:
    class Half(unibody.Pipeline):
        def preprocess(self, inputs: Any) -> Any: ...

    with pytest.raises(TypeError, match=r"abstract .*_forward"):
        unibody.pipeline("text-classification", checkpoint("classes"), pipeline_class=Half)
