"""Reference models: built by transformers, every parameter perturbed at one of two scales, saved as checkpoints.

The default initialisation hides mistakes: zero biases, norms of one, logits of nearly nothing. Two scales are needed.
*small* adds N(0, 0.05) to it, activations stay small and a wrong epsilon shows. *unit* draws weights of
N(0, 1.5/sqrt(fan in)), so that activations are of order one and every forgotten feature shows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oracle.zoo import Case

SCALES = ("small", "unit")
VALUES = ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits")
TOLERANCE = {"small": 1e-5, "unit": 2e-4}

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that transformers wrote, and the model that it was written from."""

    case: Case
    scale: str
    folder: Path
    original: Any

    @property
    def tolerance(self) -> float:
        """Largest difference of logits that this scale allows in float32."""
        return TOLERANCE[self.scale]

    def reference(self, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> Any:
        """A fresh copy of the oracle's model in eval mode: rotary tables are state, so no two tests share one.

        Another type comes from loading, not from `.to`, which would round the rotary table too.
        """
        if dtype == torch.float32:
            model = copy.deepcopy(self.original)
        else:
            model = oracle_class(self.case).from_pretrained(self.folder, dtype=dtype).eval()
        model.set_attn_implementation(attention if model._supports_sdpa else "eager")  # gemma2 caps its scores
        return model

    def load(self, **options: Any) -> Any:
        """The generated class, loaded from the checkpoint."""
        return self.load_as(self.case, **options)

    def load_as(self, case: Case, **options: Any) -> Any:
        """The generated class of another case, loaded from this checkpoint."""
        return case.model_class.from_pretrained(self.folder, **options)


def oracle_class(case: Case) -> Any:
    """The transformers class of the same name."""
    return getattr(transformers, case.class_name)


def build(case: Case, scale: str, seed: int = 0, **changes: Any) -> Any:
    """The oracle's model in eval mode with perturbed parameters; `changes` go over the zoo's configuration."""
    config = transformers.AutoConfig.for_model(case.model_type, **{**case.config, **changes})
    torch.manual_seed(seed)
    model = oracle_class(case)(config).eval()
    perturb(model, scale, seed)
    return model


@torch.no_grad()
def perturb(model: nn.Module, scale: str, seed: int = 0) -> None:
    """Every parameter gets random values of `scale`; a tied parameter gets them once."""
    random = torch.Generator().manual_seed(seed + 1)
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=random)
        if scale == "small":
            parameter.add_(noise, alpha=0.05)
        elif id(parameter) in embeddings:
            parameter.copy_(noise)
        elif parameter.ndim == 1 and name.endswith("bias"):
            parameter.copy_(noise * 0.5)
        elif parameter.ndim == 1:
            parameter.copy_(1 + noise * 0.25)
        else:
            parameter.copy_(noise * (1.5 / math.sqrt(parameter[0].numel())))


def save(case: Case, scale: str, folder: Path, **changes: Any) -> Checkpoint:
    """A checkpoint in `folder`, as transformers writes it."""
    model = build(case, scale, **changes)
    model.save_pretrained(folder)
    return Checkpoint(case, scale, folder, model)


def values(output: Any) -> dict[str, Tensor]:
    """The tensors of a model's output that a user reads, by name."""
    found = {name: getattr(output, name) for name in VALUES if getattr(output, name, None) is not None}
    assert found, f"{type(output).__name__} carries none of {VALUES}"
    return found


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Shapes and types are equal, no value is NaN, and none differs by more than `tolerance`."""
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=tolerance, equal_nan=False)


def stored_tensors(model: Any, folder: Path) -> dict[str, Tensor]:
    """What `model` stores in `folder`, by the names in the file: run-time names may differ, stored ones may not."""
    model.save_pretrained(folder)
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def rewritten(written: Checkpoint, folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """A copy of the checkpoint in `folder` whose tensors went through `change`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes((written.folder / "config.json").read_bytes())
    tensors = {
        name: tensor.clone() for name, tensor in change(load_file(written.folder / "model.safetensors")).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
