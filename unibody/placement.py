"""Loading by a device map: each weight goes to its place as it is read, and each part of the model runs where its weights are."""

from __future__ import annotations

import os
import warnings
from typing import Any

from torch import Tensor

from unibody.device_maps import (
    check_modules,
    check_places,
    device_of,
    main_device,
    plan_device_map,
    spread,
)


class Placement:
    """The hooks of loading that put each weight where a map says as soon as it is read; a quantizer's hooks go through them.

    The map is known when the model stands without memory: before any weight is read, after the quantizer has put in its layers.
    """

    def __init__(
        self,
        device_map: str | dict[str, Any],
        quantizer: Any = None,
        max_memory: dict[int | str, int | str] | None = None,
        offload_folder: str | os.PathLike[str] | None = None,
        offload_buffers: bool = False,
    ) -> None:
        self.plan, self.quantizer, self.max_memory = device_map, quantizer, max_memory
        self.folder, self.offload_buffers = offload_folder, offload_buffers
        self.device_map: dict[str, Any] = device_map if isinstance(device_map, dict) else {}
        self.placed: dict[str, Tensor] = {}  # what lies on devices, by name
        self.index: dict[str, dict[str, Any]] = {}  # what lies on the disk
        self.empty: dict[str, Tensor] = {}

    def __getattr__(self, hook: str) -> Any:
        return getattr(self.__dict__["quantizer"], hook)

    def _ask(self, hook: str, default: Any, *arguments: Any, **options: Any) -> Any:
        return getattr(self.quantizer, hook, lambda *_, **__: default)(*arguments, **options)

    def validate_environment(self, *, device_map: Any, **options: Any) -> None:
        self._ask("validate_environment", None, device_map=self.device_map or device_map, **options)

    def update_device_map(self, device_map: Any) -> Any:
        """What loading goes by for weights that are in no hook's care: they are read on the CPU."""
        if self.device_map:
            self.device_map = self._ask("update_device_map", self.device_map, self.device_map) or self.device_map
        return device_map

    def preprocess_model(self, *, model: Any, dtype: Any, **options: Any) -> None:
        self._ask("preprocess_model", None, model=model, dtype=dtype, **options)
        self.dtype = dtype
        if isinstance(self.plan, str):
            self.device_map = plan_device_map(model, self.plan, self.max_memory, dtype, self.quantizer)
        else:
            check_modules(model, self.device_map)
            self.device_map = spread(model, self.device_map)
        check_places(self.device_map, self.folder)
        for name, module in model.named_modules():
            if hasattr(module, "stored_tensors") and self._offloaded(name):
                raise ValueError(
                    f"device_map puts {name} on the {self._device(name)}, and quantized layers stay on the device that runs "
                    "them: name another place for it, or more max_memory"
                )
        calibrates = getattr(self.quantizer, "requires_calibration", False) and not self.quantizer.pre_quantized
        if calibrates and len(places := sorted({str(place) for place in self.device_map.values()})) > 1:
            raise ValueError(
                f"{self.quantizer.quantization_config.quant_method} quantizes with data, which needs all of the model on one "
                f"device, and device_map has {', '.join(places)}: quantize on one, save, and load the result by this map"
            )

    def update_expected_keys(self, model: Any, expected_keys: list[str], loaded_keys: list[str]) -> list[str]:
        self.empty = dict(model.state_dict())
        self.parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self.tied = {name for pair in model._tied_weights_keys.items() for name in pair}
        found: list[str] = self._ask("update_expected_keys", expected_keys, model, expected_keys, loaded_keys)
        return found

    def check_quantized_param(self, model: Any, value: Tensor, name: str, tensors: dict[str, Tensor]) -> bool:
        """Whether a weight is the quantizer's, or goes elsewhere than to the CPU; tied ones are moved when all are read."""
        if self._ask("check_quantized_param", False, model, value, name, tensors):
            return True
        known = name in self.empty and name not in self.tied and self.empty[name].shape == value.shape
        return known and str(self._device(name)) != "cpu"

    def create_quantized_param(
        self, model: Any, value: Tensor, name: str, target_device: Any, tensors: dict[str, Tensor]
    ) -> None:
        place = self._device(name)
        if self._ask("check_quantized_param", False, model, value, name, tensors):
            target = target_device if place == "disk" else place
            self.quantizer.create_quantized_param(model, value, name, target, tensors)
        elif place == "disk" and name in self.parameters:
            value = value.to(self.dtype)
            self._write(name, value)
            self.placed[name] = value.to("meta")  # of the type that it is brought back in
        else:
            self.placed[name] = value.to(
                device=target_device if place == "disk" else place,
                dtype=self.dtype if value.is_floating_point() else None,
            )

    def update_missing_keys_after_loading(self, model: Any, missing_keys: list[str], prefix: str) -> Any:
        model.load_state_dict(self.placed, strict=False, assign=True)
        self.placed.clear()
        return self._ask("update_missing_keys_after_loading", missing_keys, model, missing_keys, prefix)

    def dispatch(self, model: Any) -> None:
        """Moves what is left, and lets each part bring its inputs to its device, and its weights from the disk, as it is called."""
        if len(places := set(self.device_map.values())) == 1 and "disk" not in places:
            model.to(next(iter(places))).hf_device_map = self.device_map
            return
        from accelerate import dispatch_model
        from accelerate.utils import save_offload_index, set_module_tensor_to_device

        for name, tensor in model.state_dict().items():
            if self._device(name) == "disk" and name in self.parameters and not tensor.is_meta:
                self._write(name, tensor)
        if self.index:
            save_offload_index(self.index, self.folder)
        modules = dict(model.named_modules())
        for name in self.device_map.keys() - modules.keys():
            set_module_tensor_to_device(model, name, self.device_map[name])
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "The following device_map keys do not match", UserWarning
            )  # these weights
            dispatch_model(
                model, self.device_map, main_device=main_device(self.device_map), offload_dir=self.folder,
                offload_index=self.index or None, offload_buffers=self.offload_buffers, skip_keys="past_key_values",
                force_hooks=True,
            )  # fmt: skip

    def _device(self, name: str) -> Any:
        return device_of(self.device_map, name)

    def _offloaded(self, name: str) -> bool:
        """Whether a module's weights are brought elsewhere each time that it is called."""
        place = str(self._device(name))
        return place == "disk" or (place == "cpu" and str(main_device(self.device_map)) != "cpu")

    def _write(self, name: str, tensor: Tensor) -> None:
        from accelerate.utils import offload_weight

        os.makedirs(str(self.folder), exist_ok=True)
        offload_weight(tensor.detach().cpu(), name, str(self.folder), index=self.index)


def with_offloaded(model: Any, state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The state with the weights that are not on a device now, from where they are; those on the disk are mapped, not read."""
    for name, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        for part in getattr(hook, "hooks", [hook]):
            weights: Any = getattr(part, "weights_map", None)
            for key, _ in () if weights is None else module.named_parameters(recurse=False):
                full = f"{prefix}{name}.{key}" if name else f"{prefix}{key}"
                if full in state and state[full].is_meta:
                    state[full] = weights[key]
    tied = model._tied_weights_keys if model.config.tie_word_embeddings else {}
    for name, source in tied.items():
        if prefix + name in state and prefix + source in state:
            state[prefix + name] = state[prefix + source]
    return state
