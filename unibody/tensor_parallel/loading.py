"""Loading a model of which this process holds a part: it reads its slices of the files, and no more."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unibody.meshes import mesh_device
from unibody.tensor_parallel.layers import Parallelism, plan_splits, same_everywhere, split_model


class SplitLoading:
    """The hooks of loading that keep of each parameter what the plan gives this process; a quantizer's hooks go through them.

    Files are mapped: what is not sliced out of them is not read. Whole are, for a moment, tied weights whose type changes.
    """

    def __init__(self, mesh: Any, tp_plan: Any, ep_plan: Any = None, quantizer: Any = None) -> None:
        self.mesh, self.tp_plan, self.ep_plan, self.quantizer = mesh, tp_plan, ep_plan, quantizer
        self.parts: dict[str, Tensor] = {}

    def __getattr__(self, hook: str) -> Any:
        return getattr(self.__dict__["quantizer"], hook)

    def _ask(self, hook: str, default: Any, *arguments: Any, **options: Any) -> Any:
        return getattr(self.quantizer, hook, lambda *_, **__: default)(*arguments, **options)

    def preprocess_model(self, *, model: Any, dtype: Any, **options: Any) -> None:
        """The quantizer may change the plan, and puts in its layers; then it is known what is split."""
        for hook in ("update_tp_plan", "update_ep_plan"):
            model.config = self._ask(hook, model.config, model.config) or model.config
        if getattr(self.quantizer, "requires_calibration", False) and not self.quantizer.pre_quantized:
            raise ValueError(
                f"{self.quantizer.quantization_config.quant_method} quantizes with data, which needs the whole model: quantize in "
                "one process, save, and load the result with this plan"
            )
        self._ask("preprocess_model", None, model=model, dtype=dtype, **options)
        self.parallelism: Parallelism = plan_splits(model, self.mesh, self.tp_plan, self.ep_plan)
        self.dtype, self.empty = dtype, dict(model.named_parameters(remove_duplicate=False))
        tied = {name for pair in model._tied_weights_keys.items() for name in pair}
        self.read_by_part = self.parallelism.splits.keys() - tied

    def check_quantized_param(self, model: Any, value: Tensor, name: str, tensors: dict[str, Tensor]) -> bool:
        if self._ask("check_quantized_param", False, model, value, name, tensors):
            return True
        return name in self.read_by_part and self.empty[name].shape == value.shape

    def create_quantized_param(
        self, model: Any, value: Tensor, name: str, target_device: Any, tensors: dict[str, Tensor]
    ) -> None:
        if self._ask("check_quantized_param", False, model, value, name, tensors):
            # On the CPU packed tensors stay the file, mapped, until they are split.
            target = "cpu" if self.quantizer.pre_quantized else target_device
            self.quantizer.create_quantized_param(model, value, name, target, tensors)
            return
        part = self.parallelism.splits[name].take(value, self.parallelism.rank, self.parallelism.size)
        kind = self.dtype if value.is_floating_point() else None
        self.parts[name] = part.to(device=mesh_device(self.mesh), dtype=kind, copy=True)

    def update_missing_keys_after_loading(self, model: Any, missing_keys: list[str], prefix: str) -> Any:
        same_everywhere(model, self.parallelism, missing_keys)
        split_model(model, self.parallelism, self.parts)
        self.parts.clear()
        return self._ask("update_missing_keys_after_loading", missing_keys, model, missing_keys, prefix)
