"""The embeddings of a model: got, replaced, tied, and given another number of tokens."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core.loading import tie_weights
from unibody.core.quantization.replacement import set_module


class EmbeddingsMixin:
    """What makes vectors of tokens, and scores of tokens of vectors."""

    _tied_weights_keys: ClassVar[dict[str, str]]
    base_model: Any
    config: Any

    def get_input_embeddings(self) -> Any:
        """The layer that makes vectors of token ids."""
        return next(module for module in self.base_model.modules() if isinstance(module, nn.Embedding))

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Puts another layer in the place of get_input_embeddings'."""
        replace(self, self.get_input_embeddings(), value)

    def get_output_embeddings(self) -> Any:
        """The layer that makes scores of tokens; None: this model predicts none."""
        heads = {name.removesuffix(".weight") for name in self._tied_weights_keys if name.endswith(".weight")}
        return next((self.get_submodule(name) for name in heads), None)  # type: ignore[attr-defined]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Puts another layer in the place of get_output_embeddings'. ValueError: there is none."""
        head = self.get_output_embeddings()
        if head is None:
            raise ValueError(f"{type(self).__name__} predicts no tokens: it has no output embeddings to replace")
        replace(self, head, new_embeddings)

    def tie_weights(self) -> None:
        """Makes the weights one that `config.tie_word_embeddings` says are one."""
        tie_weights(self)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> Any:
        """The input embeddings, which now have `new_num_tokens` rows, or up to that multiple; so has the head, if there is one.

        New rows are the mean of the old ones, so that new tokens are no likelier than others (without `mean_resizing`: random, as in
        a new model), new biases 0. None keeps the number. An optimizer has to be made anew. ValueError: the rows are packed, or lie elsewhere.
        """
        embeddings = self.get_input_embeddings()
        old = embeddings.weight.shape[0]
        new = old if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of is not None:
            new = -(-new // pad_to_multiple_of) * pad_to_multiple_of
        if new < 1:
            raise ValueError(f"new_num_tokens={new_num_tokens}: a model has at least one token")
        if new != old:
            self._resize(embeddings, old, new, mean_resizing)
        return embeddings

    def _resize(self, embeddings: nn.Embedding, old: int, new: int, mean_resizing: bool) -> None:
        table = next(name for name, one in self.named_modules() if one is embeddings)  # type: ignore[attr-defined]
        names = {f"{table}.weight", *self._tied_weights_keys, *self._tied_weights_keys.values()}
        weights = {name: weight for name, weight in self.named_parameters(remove_duplicate=False) if name in names}  # type: ignore[attr-defined]
        if names - weights.keys() or any(type(w) is not nn.Parameter or w.is_meta for w in weights.values()):
            raise ValueError(
                f"the rows of {', '.join(sorted(names))} are packed, offloaded or spread over processes: "
                "load the model plain and in one place, resize and save it, and go on from there"
            )
        resized = {id(w): nn.Parameter(self._rows(w, new, mean_resizing), w.requires_grad) for w in weights.values()}
        for name, weight in weights.items():
            path, _, attribute = name.rpartition(".")
            module = self.get_submodule(path)  # type: ignore[attr-defined]
            setattr(module, attribute, resized[id(weight)])
            for count in ("num_embeddings", "out_features"):
                if getattr(module, count, None) == old:
                    setattr(module, count, new)
        self.config.vocab_size = new

    @torch.no_grad()
    def _rows(self, weight: Tensor, count: int, mean_resizing: bool) -> Tensor:
        """The first rows of a weight, and as many new ones as are lacking."""
        fresh = weight.new_empty(max(count - len(weight), 0), *weight.shape[1:])
        if weight.dim() == 1:
            fresh.zero_()
        elif mean_resizing:
            fresh.copy_(weight.float().mean(0))
        else:
            fresh.normal_(std=self.config.initializer_range)
        return torch.cat((weight[:count], fresh))


def replace(model: Any, module: nn.Module, new: nn.Module) -> None:
    """Puts a module in the place of another, wherever the model has that."""
    for name, found in list(model.named_modules(remove_duplicate=False)):
        if found is module:
            set_module(model, name, new)
