"""text-classification: which labels a text, or a pair of texts, has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from unibody.core.choices import choose
from unibody.pipelines.base import Pipeline

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "sigmoid": torch.sigmoid,
    "none": lambda x: x,
}


class TextClassificationPipeline(Pipeline):
    """Labels with scores: probabilities that sum up to 1 (softmax), one for each label (sigmoid), or the logits themselves.

    Which, the configuration says: `problem_type` "regression" means the logits, several labels at once or only one label means
    sigmoid, else softmax. Options: `top_k`, the number of labels (None: all), best first; `function_to_apply`, "softmax", "sigmoid"
    or "none"; others are the tokenizer's, such as `truncation`.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForSequenceClassification",)

    def _sanitize_parameters(
        self, function_to_apply: str | None = None, top_k: int | None | str = "", **tokenizer_options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        after: dict[str, Any] = {}
        if function_to_apply is not None:
            name = str(function_to_apply).lower()
            choose({**FUNCTIONS, "default": None}, name, "function_to_apply")
            after["function_to_apply"] = None if name == "default" else name
        if top_k != "":
            if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
                raise ValueError(f"top_k {top_k!r} is neither None (all labels) nor a number of labels")
            after |= {"top_k": top_k, "as_list": True}
        return tokenizer_options, {}, after

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """For each text `{"label": …, "score": …}`, or with `top_k` the list of these; for a single text always a list.

        A pair is `{"text": …, "text_pair": …}`.
        """
        found = super().__call__(inputs, **options)
        return [found] if isinstance(inputs, str) and "top_k" not in options else found

    def preprocess(self, inputs: Any, **options: Any) -> dict[str, Any]:
        if not isinstance(inputs, dict):
            return self._encode(self._require_text(inputs), **options)
        if "text" not in inputs or not inputs.keys() <= {"text", "text_pair"}:
            raise ValueError(
                f"{self._name}: a pair has the keys 'text' and 'text_pair', not {sorted(map(str, inputs))}"
            )
        texts = [self._require_text(inputs[key], key) for key in ("text", "text_pair") if key in inputs]
        return self._encode(*texts, **options)

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Tensor]:
        return {"logits": self._call_model(model_inputs).logits}

    def postprocess(
        self,
        model_outputs: dict[str, Tensor],
        function_to_apply: str | None = None,
        top_k: int | None = 1,
        as_list: bool = False,
    ) -> Any:
        logits = model_outputs["logits"][0].float()  # [L]
        scores = FUNCTIONS[function_to_apply or self._function()](logits).tolist()
        named = [{"label": self._label(index), "score": score} for index, score in enumerate(scores)]
        named.sort(key=lambda entry: -entry["score"])
        return named[:top_k] if as_list else named[0]

    def _function(self) -> str:
        config = self.model.config
        if found := getattr(config, "function_to_apply", None):
            choose(FUNCTIONS, found, "config.json says function_to_apply")
            return str(found)
        if config.problem_type == "regression":
            return "none"
        return (
            "sigmoid" if config.problem_type == "multi_label_classification" or config.num_labels == 1 else "softmax"
        )

    def _label(self, index: int) -> str:
        return str((self.model.config.id2label or {}).get(index, f"LABEL_{index}"))
