"""The models of this library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEVER = 2**31  # no token has this number: the text goes on


class UnibodyBackend:
    """Runs `unibody.Auto…` on a checkpoint."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.device = torch.device(settings.get("device") or "cpu")
        self.model: Any = None

    def load(self, checkpoint: Path, model: dict[str, Any]) -> None:
        import unibody

        auto = getattr(unibody, model["auto_class"])
        self.model = auto.from_pretrained(checkpoint, dtype=model["dtype"], device=self.device).eval()

    def forward(self, ids: Tensor) -> Tensor:
        """The first of the model's outputs."""
        with torch.inference_mode():
            return self.model(ids)[0]  # type: ignore[no-any-return]

    def prefill(self, ids: Tensor) -> Tensor:
        """The likeliest next tokens [B] after a pass that fills a cache."""
        with torch.inference_mode():
            return self.model(ids, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1)  # type: ignore[no-any-return]

    def generate(self, ids: Tensor, count: int, arrived: Callable[[], None]) -> list[list[int]]:
        """So many tokens of greedy search for each row; `arrived` is called as each step's are known."""
        steps = []
        for tokens in self.model.stream(ids, max_new_tokens=count, eos_token_id=NEVER, pad_token_id=0):
            arrived()
            steps.append(tokens)
        return torch.stack(steps, dim=1).tolist()

    def train_step(self, ids: Tensor) -> float:
        """The loss of a step of AdamW on the model's own next tokens."""
        if not self.model.training:
            self.model.train()
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        loss = self.model(ids, labels=ids).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()  # type: ignore[no-any-return]

    def losses(self, windows: Tensor) -> list[float]:
        """The mean loss of each window's tokens but the first."""

        def loss(window: Tensor) -> float:
            return F.cross_entropy(self.model(window[None]).logits[0, :-1].float(), window[1:]).item()

        with torch.inference_mode():
            return [loss(window) for window in windows]

    def bits_per_weight(self) -> float:
        """Of the linear layers that are quantized, scales and zero points included; of the model's type if none is."""
        from unibody.quantize import count_layers

        count = count_layers(self.model)
        return count.bits_per_weight if count.layers else 8.0 * self.model.dtype.itemsize

    def make_linear(self, in_features: int, out_features: int, dtype: torch.dtype, quantizer: dict[str, Any]) -> Any:
        """A linear layer with random weights, packed as the configuration's `quantizer` says."""
        linear = nn.Linear(in_features, out_features, bias=False).to(dtype)
        return linear if quantizer.get("method") is None else pack_linear(linear, quantizer)


def pack_linear(linear: nn.Linear, quantizer: dict[str, Any]) -> Any:
    """The layer, packed by a method with its options; round-to-nearest where the method would want data."""
    import unibody
    from unibody.generated.registry import QUANTIZERS

    method = quantizer["method"]
    if method not in QUANTIZERS:
        raise ValueError(f"quantizer.method {method!r} is not known: there are {', '.join(QUANTIZERS)}")
    config = getattr(unibody, QUANTIZERS[method]["config"])(**(quantizer.get("options") or {}))
    packed = unibody.AutoHfQuantizer.from_config(config, pre_quantized=False).make_linear("layer", linear)
    packed.hold(packed.quantize(linear.weight.detach()))
    return packed
