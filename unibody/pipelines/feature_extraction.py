"""feature-extraction: the hidden states of a text."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from unibody.pipelines.base import Pipeline


class FeatureExtractionPipeline(Pipeline):
    """The last hidden states of all tokens of a text, [1][S][H] as lists; nothing is pooled.

    Options: `return_tensors`, a tensor [1, S, H] instead; `truncation` and `tokenize_kwargs`, for the tokenizer. In batches too, S is
    the text's own length. A model with a head is asked for what its head gets.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModel",)

    def _sanitize_parameters(
        self,
        truncation: bool | str | None = None,
        tokenize_kwargs: dict[str, Any] | None = None,
        return_tensors: bool | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before = dict(tokenize_kwargs or {})
        if truncation is not None:
            if "truncation" in before:
                raise ValueError("truncation is given twice: by itself and in tokenize_kwargs")
            before["truncation"] = truncation
        return before, {}, {} if return_tensors is None else {"return_tensors": return_tensors}

    def preprocess(self, inputs: Any, **options: Any) -> dict[str, Any]:
        return self._encode(self._require_text(inputs), **options)

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Tensor]:
        mask = model_inputs.get("attention_mask", torch.ones_like(model_inputs["input_ids"]))
        return {"hidden": self._call_model(model_inputs, without_head=True).last_hidden_state, "mask": mask}

    def postprocess(self, model_outputs: dict[str, Tensor], return_tensors: bool = False) -> Any:
        kept = model_outputs["hidden"][0][model_outputs["mask"][0].bool()]  # [S, H]
        return kept[None] if return_tensors else [kept.tolist()]
