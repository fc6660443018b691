"""token-classification: what the words of a text name, such as persons and places."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, ClassVar

from unibody.core.choices import choose
from unibody.pipelines.base import ChunkPipeline
from unibody.pipelines.entities import STRATEGIES, find_entities, read_tokens, without_overlaps


class TokenClassificationPipeline(ChunkPipeline):
    """Entities with their places in the text; labels are read as B-TYPE (begins), I-TYPE (goes on).

    Options: `aggregation_strategy`, "none" (each token), "simple" (neighbours of one type together), or "first", "average" or "max",
    which label whole words, as their first token, by the mean or as the surest token; `ignore_labels`, by default O; `stride`: long
    texts are read in parts that overlap by so many tokens; `is_split_into_words`: an input is a list of words, which `delimiter`
    joins.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForTokenClassification",)

    def _sanitize_parameters(
        self,
        ignore_labels: list[str] | None = None,
        aggregation_strategy: str | None = None,
        stride: int | None = None,
        is_split_into_words: bool = False,
        delimiter: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        fast = getattr(self.tokenizer, "is_fast", False)
        if aggregation_strategy is not None:
            strategy = str(getattr(aggregation_strategy, "value", aggregation_strategy)).lower()
            choose(dict.fromkeys(STRATEGIES), strategy, "aggregation_strategy")
            if strategy not in ("none", "simple") and not fast:
                raise ValueError(
                    f"aggregation_strategy {strategy!r} needs to know words, which only a fast tokenizer tells: "
                    "use 'simple' or 'none', or a fast tokenizer"
                )
            after["aggregation_strategy"] = strategy
        if ignore_labels is not None:
            after["ignore_labels"] = ignore_labels
        if stride is not None:
            if after.get("aggregation_strategy") == "none":
                raise ValueError(
                    "stride reads parts that overlap, whose entities are put together: use another aggregation_strategy "
                    "than 'none'"
                )
            limit = self._longest()
            if not fast or limit is None or not 0 <= stride < limit - self._special_tokens():
                raise ValueError(
                    f"stride {stride!r} is not possible: it needs a fast tokenizer whose model_max_length says how much "
                    f"is read at once ({limit}), and has to be less than that without the special tokens"
                )
            before["stride"] = stride
        if is_split_into_words:
            before["is_split_into_words"] = True
            before["delimiter"] = " " if delimiter is None else delimiter
        return before, {}, after

    def _special_tokens(self) -> int:
        return len(self.tokenizer("")["input_ids"])

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """For each text the list of its entities.

        `{"entity", "score", "index", "word", "start", "end"}`, or with a strategy `{"entity_group", "score", "word", "start", "end"}`.
        """
        split = options.get("is_split_into_words", self._preprocess_params.get("is_split_into_words"))
        if split and isinstance(inputs, list) and all(isinstance(word, str) for word in inputs):
            inputs = [inputs]
        return super().__call__(inputs, **options)

    def preprocess(
        self, inputs: Any, stride: int | None = None, is_split_into_words: bool = False, delimiter: str = " "
    ) -> Iterator[dict[str, Any]]:
        starts, text = None, inputs
        if is_split_into_words:
            if not isinstance(inputs, (list, tuple)):
                raise TypeError(f"{self._name}: with is_split_into_words a text is a list of words, not {inputs!r}")
            words = [self._require_text(word, "lists of words") for word in inputs]
            text = delimiter.join(words)
            starts = [0, *accumulate(len(word) + len(delimiter) for word in words)]
        self._require_text(text)
        limit, fast = self._longest(), getattr(self.tokenizer, "is_fast", False)
        options: dict[str, Any] = {"is_split_into_words": True} if is_split_into_words else {}
        options |= {"truncation": True, "max_length": limit} if limit else {}
        if stride is not None:
            options |= {"return_overflowing_tokens": True, "stride": stride, "padding": True}
        encoded = self.tokenizer(
            inputs, return_tensors="pt", return_special_tokens_mask=True, return_offsets_mapping=fast, **options
        )
        for row in range(len(encoded["input_ids"])):
            chunk = {name: encoded[name][row : row + 1] for name in encoded if name != "overflow_to_sample_mapping"}
            if starts is not None and fast:
                for place, word in enumerate(encoded.word_ids(row)):
                    if word is not None:
                        chunk["offset_mapping"][0, place] += starts[word]
            yield {**chunk, "text": text}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        logits = self._call_model(model_inputs).logits
        names = ("input_ids", "special_tokens_mask", "offset_mapping", "text")
        return {"logits": logits, **{name: model_inputs[name] for name in names if name in model_inputs}}

    def postprocess(
        self,
        model_outputs: list[dict[str, Any]],
        aggregation_strategy: str = "none",
        ignore_labels: list[str] | tuple[str, ...] = ("O",),
    ) -> list[dict[str, Any]]:
        entities: list[dict[str, Any]] = []
        for output in model_outputs:
            scores = output["logits"][0].float().softmax(-1)  # [S, L]
            offsets = output["offset_mapping"][0].tolist() if "offset_mapping" in output else None
            tokens = read_tokens(
                self.tokenizer, output["text"], output["input_ids"][0].tolist(), scores, offsets,
                output["special_tokens_mask"][0].tolist(),
            )  # fmt: skip
            names = self.model.config.id2label or {index: f"LABEL_{index}" for index in range(scores.shape[1])}
            join = self.tokenizer.convert_tokens_to_string
            entities += find_entities(tokens, aggregation_strategy, names, join, ignore_labels)
        return without_overlaps(entities) if len(model_outputs) > 1 else entities
