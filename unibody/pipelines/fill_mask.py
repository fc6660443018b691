"""fill-mask: which words fit where a text has a mask."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor

from unibody.pipelines.base import Pipeline


class FillMaskPipeline(Pipeline):
    """The likeliest tokens for each mask, each mask by itself.

    Options: `top_k`, the number of tokens; `targets`, words among which to choose; `tokenizer_kwargs`.
    """

    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForMaskedLM",)

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        targets: str | list[str] | None = None,
        tokenizer_kwargs: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if self.tokenizer is None or self.tokenizer.mask_token_id is None:
            raise ValueError(f"{self._name} needs a tokenizer with a mask token, and this one has none")
        after: dict[str, Any] = {}
        if top_k is not None:
            if not isinstance(top_k, int) or top_k < 1:
                raise ValueError(f"top_k {top_k!r} is not a number of tokens")
            after["top_k"] = top_k
        if targets is not None:
            after["target_ids"] = self._target_ids([targets] if isinstance(targets, str) else targets)
        return {"tokenizer_kwargs": tokenizer_kwargs} if tokenizer_kwargs else {}, {}, after

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """For each text the list of `{"score", "token", "token_str", "sequence"}`; with several masks, a list for each of them.

        A list of one text gives what the text alone gives.
        """
        found = super().__call__(inputs, **options)
        return found[0] if isinstance(inputs, list) and len(inputs) == 1 else found

    def preprocess(self, inputs: Any, tokenizer_kwargs: dict[str, Any] | None = None) -> dict[str, Any]:
        found = self._encode(self._require_text(inputs), **(tokenizer_kwargs or {}))
        if not (found["input_ids"] == self.tokenizer.mask_token_id).any():
            raise ValueError(f"there is no mask token ({self.tokenizer.mask_token}) in what was read of {inputs!r}")
        return found

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Tensor]:
        mask = model_inputs.get("attention_mask", torch.ones_like(model_inputs["input_ids"]))
        logits = self._call_model(model_inputs).logits
        return {"logits": logits, "input_ids": model_inputs["input_ids"], "attention_mask": mask}

    def postprocess(
        self, model_outputs: dict[str, Tensor], top_k: int = 5, target_ids: list[int] | None = None
    ) -> list[Any]:
        kept = model_outputs["attention_mask"][0].bool()
        ids, logits = model_outputs["input_ids"][0][kept], model_outputs["logits"][0][kept].float()  # [S], [S, V]
        places = (ids == self.tokenizer.mask_token_id).nonzero()[:, 0].tolist()
        found = []
        for place in places:
            scores = logits[place].softmax(-1)
            chosen = torch.arange(len(scores)) if target_ids is None else torch.tensor(target_ids)
            best = scores[chosen].topk(min(top_k, len(chosen)))
            tokens = chosen[best.indices].tolist()
            found.append(
                [
                    self._entry(ids, place, token, score, len(places) == 1)
                    for token, score in zip(tokens, best.values.tolist(), strict=True)
                ]
            )
        return found[0] if len(found) == 1 else found

    def _entry(self, ids: Tensor, place: int, token: int, score: float, skip: bool) -> dict[str, Any]:
        """With several masks, special tokens stay in the sequence, so that the other masks can be seen."""
        filled = ids.clone()
        filled[place] = token
        sequence = self.tokenizer.decode(filled, skip_special_tokens=skip)
        return {"score": score, "token": token, "token_str": self.tokenizer.decode([token]), "sequence": sequence}

    def _target_ids(self, targets: list[str]) -> list[int]:
        """The tokens of words, each once; of a word that is no token, the first of its tokens, with a warning."""
        vocabulary, found = self.tokenizer.get_vocab(), set()
        for target in targets:
            if self._require_text(target, "targets") in vocabulary:
                found.add(vocabulary[target])
            elif ids := self.tokenizer(target, add_special_tokens=False)["input_ids"]:
                found.add(ids[0])
                if len(ids) > 1:
                    begins = self.tokenizer.convert_ids_to_tokens(ids[0])
                    warnings.warn(
                        f"target {target!r} is no token: {begins!r}, with which it begins, is taken", stacklevel=4
                    )
        if not found:
            raise ValueError(f"targets {targets!r} name no token: give at least one word")
        return sorted(found)
