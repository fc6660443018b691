"""zero-shot-classification: labels of one's own, by a model that knows what follows from what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from unibody.pipelines.base import ChunkPipeline


class ZeroShotClassificationPipeline(ChunkPipeline):
    """How far each label suits a text: whether "This example is LABEL." is entailed by it (1909.00161).

    Options: `candidate_labels`, a list or a text with commas; `hypothesis_template`, with {} where the label goes; `multi_label`:
    each label by itself (entailment against contradiction) instead of one among all. The model's `label2id` has to name entailment.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForSequenceClassification",)

    def _sanitize_parameters(
        self,
        candidate_labels: str | list[str] | None = None,
        hypothesis_template: str | None = None,
        multi_label: bool | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before: dict[str, Any] = {}
        if candidate_labels is not None:
            before["candidate_labels"] = self._labels(candidate_labels)
        if hypothesis_template is not None:
            before["hypothesis_template"] = hypothesis_template
            if not isinstance(hypothesis_template, str) or hypothesis_template.format("a") == hypothesis_template:
                raise ValueError(f"hypothesis_template {hypothesis_template!r} has no {{}} for the label")
        return before, {}, {} if multi_label is None else {"multi_label": multi_label}

    def __call__(self, inputs: Any, *args: Any, **options: Any) -> Any:
        """For each text `{"sequence": …, "labels": […], "scores": […]}`, the most suitable label first.

        The labels may also follow the text without a name.
        """
        if len(args) > 1 or (args and "candidate_labels" in options):
            raise ValueError(f"{self._name}: after the texts come the candidate_labels, once")
        return super().__call__(inputs, **options, **({"candidate_labels": args[0]} if args else {}))

    @property
    def entailment_id(self) -> int:
        """The model's label for what follows. ValueError: it has none."""
        labels = self.model.config.label2id or {}
        found = next((index for name, index in labels.items() if name.lower().startswith("entail")), None)
        if found is None:
            raise ValueError(
                f"{self._name} needs a model that was trained to tell entailment; the labels of this one are "
                f"{', '.join(labels) or 'without names'}: set config.label2id if one of them means it"
            )
        return int(found)

    def preprocess(
        self,
        inputs: Any,
        candidate_labels: list[str] | None = None,
        hypothesis_template: str = "This example is {}.",
    ) -> Iterator[dict[str, Any]]:
        if not candidate_labels:
            raise ValueError(f"{self._name}: candidate_labels are missing: give the labels to choose from")
        if not self._require_text(inputs):
            raise ValueError(f"{self._name}: the text is empty")
        _ = self.entailment_id
        for label in candidate_labels:
            encoded = self._encode(inputs, hypothesis_template.format(label), truncation="only_first")
            yield {**encoded, "label": label, "sequence": inputs}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        logits = self._call_model(model_inputs).logits
        return {"logits": logits, "label": model_inputs["label"], "sequence": model_inputs["sequence"]}

    def postprocess(self, model_outputs: list[dict[str, Any]], multi_label: bool = False) -> dict[str, Any]:
        logits = torch.cat([output["logits"] for output in model_outputs]).float()  # [labels, classes]
        labels, entailment = [output["label"] for output in model_outputs], self.entailment_id
        scores = self._scores(logits, entailment, multi_label or len(labels) == 1).tolist()
        order = sorted(range(len(labels)), key=scores.__getitem__)[::-1]
        return {
            "sequence": model_outputs[0]["sequence"],
            "labels": [labels[index] for index in order],
            "scores": [scores[index] for index in order],
        }

    def _scores(self, logits: Tensor, entailment: int, each: bool) -> Tensor:
        """Probabilities [labels]: of entailment against contradiction for each, or of entailment by one against the others."""
        if not each:
            return logits[:, entailment].softmax(0)
        contradiction = -1 if entailment == 0 else 0
        return logits[:, [contradiction, entailment]].softmax(-1)[:, 1]

    def _labels(self, given: Any) -> list[str]:
        parts = given.split(",") if isinstance(given, str) else given
        labels = [self._require_text(label, "candidate_labels").strip() for label in parts]
        labels = [label for label in labels if label] if isinstance(given, str) else labels
        if not labels or not all(labels):
            raise ValueError(f"{self._name}: candidate_labels {given!r} has no label, or one that is empty")
        return labels
