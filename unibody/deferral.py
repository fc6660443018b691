"""Loading for a model that will be sharded: it is built without memory, and its weights stay in their files until then."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unibody.core.loading import tie_weights

expected = False  # whether a trainer is being set up that shards the model that is loaded next


def expect(late: bool) -> None:
    """Says whether the models that are loaded from now on will be sharded before anything is computed with them."""
    global expected  # noqa: PLW0603  the settings of a trainer and the loading of its model share no object
    expected = late


class Deferral:
    """The hooks of loading that leave every weight of a checkpoint in its file, and its parameter on the meta device.

    The parameter's `in_file` is its weight: a view of the file, of which only what is used is read.
    """

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}

    def preprocess_model(self, *, model: Any, dtype: torch.dtype, loaded_keys: list[str], **_: Any) -> None:
        """Ties of which both weights are stored are read at once: whether they are ties depends on their values."""
        self.dtype = dtype
        self.shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        self.parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        ties = model._tied_weights_keys.items() if model.config.tie_word_embeddings else ()
        stored = {name for pair in ties if pair[0] in loaded_keys for name in pair}
        self.parameters -= stored

    def check_quantized_param(self, model: Any, value: Tensor, name: str, tensors: dict[str, Tensor]) -> bool:
        return name in self.parameters and self.shapes[name] == value.shape

    def create_quantized_param(self, model: Any, value: Tensor, name: str, place: Any, tensors: Any) -> None:
        self.weights[name] = value

    def update_missing_keys_after_loading(self, model: Any, missing_keys: list[str], prefix: str) -> None:
        empty = {
            name: torch.empty_like(value, device="meta", dtype=self.dtype if value.is_floating_point() else None)
            for name, value in self.weights.items()
        }
        model.load_state_dict(empty, strict=False, assign=True)
        tie_weights(model)
        for name, parameter in model.named_parameters():
            if name in self.weights:
                parameter.in_file = self.weights[name]
