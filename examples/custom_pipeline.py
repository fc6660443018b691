"""A task of one's own in one file: how surprising each word of a text is to a language model.

    python examples/custom_pipeline.py owner/name "The cat sat on the mat." "The mat sat on the cat."

Whoever imports this module can ask for the task by its name; pushed with `save_pretrained` or `push_to_hub`, the file goes with the
model, and others load both with `unibody.pipeline(model="owner/name", trust_remote_code=True)`.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import torch

import unibody


class SurprisalPipeline(unibody.Pipeline):
    """For a text `{"bits": …, "tokens": [{"token", "bits"}, …]}`: -log2 of the probability of each token after the first.

    `bits` is their mean, whose power of two is the perplexity. Option: `worst`, to list only so many tokens, the most surprising first.
    """

    auto_classes = ("AutoModelForCausalLM",)

    def _sanitize_parameters(self, worst: int | None = None) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if worst is not None and worst < 1:
            raise ValueError(f"worst {worst} is not a number of tokens")
        return {}, {}, {} if worst is None else {"worst": worst}

    def preprocess(self, inputs: Any) -> dict[str, Any]:
        encoded = dict(self.tokenizer(self._require_text(inputs), return_tensors="pt"))
        if encoded["input_ids"].shape[1] < 2:
            raise ValueError(f"{inputs!r} has less than two tokens: nothing follows anything")
        return encoded

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        ids, mask = model_inputs["input_ids"], model_inputs["attention_mask"]
        logits = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1]  # [B, S - 1, V]
        following = ids[:, 1:, None]
        bits = -logits.float().log_softmax(-1).gather(-1, following)[:, :, 0] / math.log(2)  # [B, S - 1]
        return {"bits": bits, "ids": ids[:, 1:], "mask": mask[:, 1:] * mask[:, :-1]}

    def postprocess(self, model_outputs: dict[str, torch.Tensor], worst: int | None = None) -> dict[str, Any]:
        kept = model_outputs["mask"][0].bool()
        bits, ids = model_outputs["bits"][0][kept], model_outputs["ids"][0][kept]
        tokens = [
            {"token": self.tokenizer.decode([token]), "bits": value}
            for token, value in zip(ids.tolist(), bits.tolist(), strict=True)
        ]
        if worst is not None:
            tokens = sorted(tokens, key=lambda token: -token["bits"])[:worst]
        return {"bits": float(bits.mean()), "tokens": tokens}


unibody.register_pipeline("surprisal", SurprisalPipeline)


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit('usage: python custom_pipeline.py MODEL "a text" …')
    pipe = unibody.pipeline("surprisal", sys.argv[1], worst=5)
    for text, answer in zip(sys.argv[2:], pipe(iter(sys.argv[2:])), strict=True):
        print(f"{text}\n  {answer['bits']:.2f} bits for each token")
        for token in answer["tokens"]:
            print(f"  {token['bits']:6.2f}  {token['token']!r}")


if __name__ == "__main__":
    main()
