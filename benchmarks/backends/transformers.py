"""transformers as a backend of `unibody bench`: what it installs is imported in the process that measures it, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class TransformersBackend:
    """Runs `transformers.Auto…` on a checkpoint, with its defaults."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        self.device = torch.device(settings.get("device") or "cpu")
        self.transformers, self.model = transformers, None

    def load(self, checkpoint: Path, model: dict[str, Any]) -> None:
        auto, dtype = getattr(self.transformers, model["auto_class"]), getattr(torch, model["dtype"])
        loaded, told = auto.from_pretrained(checkpoint, dtype=dtype, output_loading_info=True)
        if missing := sorted(told["missing_keys"]):  # they have random values now, which would measure another model
            raise ValueError(f"transformers finds no {missing[0]} and {len(missing) - 1} others in the checkpoint")
        self.model: Any = loaded.to(self.device).eval()

    def forward(self, ids: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.model(ids)[0]  # type: ignore[no-any-return]

    def prefill(self, ids: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.model(ids, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1)  # type: ignore[no-any-return]

    def generate(self, ids: Tensor, count: int, arrived: Callable[[], None]) -> list[list[int]]:
        """So many tokens for each row; its streamers take one row, so more rows are timed by what looks at each step's scores."""
        watch = Watch(arrived)
        options: dict[str, Any] = {
            "max_new_tokens": count,
            "do_sample": False,
            "eos_token_id": None,
            "pad_token_id": 0,
        }
        if len(ids) == 1:
            options["streamer"] = watch
        else:
            options["stopping_criteria"] = [watch.look]
        found = self.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return found[:, ids.shape[1] :].tolist()  # type: ignore[no-any-return]

    def train_step(self, ids: Tensor) -> float:
        if not self.model.training:
            self.model.train()
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        loss = self.model(ids, labels=ids).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()  # type: ignore[no-any-return]

    def losses(self, windows: Tensor) -> list[float]:
        def loss(window: Tensor) -> float:
            return F.cross_entropy(self.model(window[None]).logits[0, :-1].float(), window[1:]).item()

        with torch.inference_mode():
            return [loss(window) for window in windows]


class Watch:
    """A streamer that calls `arrived` for each new token; it is given the prompt first."""

    def __init__(self, arrived: Callable[[], None]) -> None:
        self.arrived, self.prompt = arrived, True

    def put(self, tokens: Any) -> None:
        if not self.prompt:
            self.arrived()
        self.prompt = False

    def end(self) -> None:
        pass

    def look(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """A criterion that stops nothing, asked after each step."""
        self.arrived()
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
