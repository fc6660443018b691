"""sentence-similarity: how near sentences are to one sentence, in meaning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unibody.core.hub import read_json
from unibody.pipelines.base import ChunkPipeline

POOLINGS = ("mean", "cls")


class SentenceSimilarityPipeline(ChunkPipeline):
    """The cosines between the vector of a sentence and those of others, as sentence-transformers computes them (1908.10084).

    A vector is the mean of the hidden states of a sentence's tokens, padding left out, at length 1. Options: `max_length`, the
    number of tokens that are read of a sentence (sentence_bert_config.json may say so); `pooling`, "mean" or "cls" (1_Pooling).
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModel",)

    @classmethod
    def checkpoint_options(cls, folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if (file := folder / "sentence_bert_config.json").is_file() and (
            length := read_json(file).get("max_seq_length")
        ):
            found["max_length"] = length
        if (file := folder / "1_Pooling" / "config.json").is_file():
            modes = {
                name: value for name, value in read_json(file).items() if name.startswith("pooling_mode_") and value
            }
            names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
            if len(modes) != 1 or (mode := next(iter(modes))) not in names:
                raise ValueError(
                    f"{file} asks for {', '.join(modes) or 'no pooling'}; this task knows {', '.join(names)}"
                )
            found["pooling"] = names[mode]
        return found

    def _sanitize_parameters(
        self, max_length: int | None = None, pooling: str | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if pooling not in (None, *POOLINGS):
            raise ValueError(f"pooling {pooling!r} is not one of {', '.join(POOLINGS)}")
        before = {} if max_length is None else {"max_length": max_length}
        return before, {} if pooling is None else {"pooling": pooling}, {}

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """For `{"source_sentence": …, "sentences": [… ]}` the list of cosines, from -1 to 1."""
        return super().__call__(inputs, **options)

    def preprocess(self, inputs: Any, max_length: int | None = None) -> Iterator[dict[str, Any]]:
        if not isinstance(inputs, dict) or inputs.keys() != {"source_sentence", "sentences"}:
            found = sorted(map(str, inputs)) if isinstance(inputs, dict) else type(inputs).__name__
            raise ValueError(
                f"{self._name} reads a dictionary with 'source_sentence' and 'sentences', a list; not {found}"
            )
        sentences = inputs["sentences"]
        if not isinstance(sentences, (list, tuple)) or not sentences:
            raise ValueError(f"{self._name}: 'sentences' is a list of at least one text, not {sentences!r}")
        length = {} if max_length is None else {"max_length": max_length}
        for text in (inputs["source_sentence"], *sentences):
            yield self._encode(self._require_text(text, "sentences"), truncation=True, **length)

    def _forward(self, model_inputs: dict[str, Any], pooling: str = "mean") -> dict[str, Tensor]:
        hidden = self._call_model(model_inputs, without_head=True).last_hidden_state  # [B, S, H]
        mask = model_inputs.get("attention_mask", torch.ones_like(model_inputs["input_ids"]))
        if pooling == "cls":
            first = mask.argmax(-1)  # the first token that is no padding
            return {"vector": hidden[torch.arange(len(hidden), device=hidden.device), first]}
        weights = mask[:, :, None].to(hidden.dtype)
        return {"vector": (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)}  # [B, H]

    def postprocess(self, model_outputs: list[dict[str, Tensor]]) -> list[float]:
        vectors = F.normalize(torch.cat([output["vector"] for output in model_outputs]).float(), dim=-1)  # [1 + N, H]
        similarities: list[float] = (vectors[1:] @ vectors[0]).tolist()
        return similarities
