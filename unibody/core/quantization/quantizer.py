"""The base of all quantizers: what `from_pretrained(…, quantizer=q)` calls, in the order of the calls."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unibody.core import role
from unibody.core.quantization.linear import PackedLinear
from unibody.core.quantization.replacement import linears_to_convert, name_prefix, output_modules, owner, set_module


@role
class HfQuantizer:
    """Replaces a model's linear layers by packed ones while it is loaded, from packed tensors or from plain weights."""

    requires_calibration: ClassVar[bool] = False  # whether plain weights are quantized only after loading, with data
    linear_class: ClassVar[Any] = PackedLinear
    skipped_by: ClassVar[str] = "modules_to_not_convert"  # the field of the configuration that names what stays plain
    packed_tensor: ClassVar[str] = "weight"  # the tensor by which a checkpoint's packed layer is known
    prefix: str = ""  # what the names of the modules lack, if the model is a base model

    def __init__(self, quantization_config: Any, **kwargs: Any) -> None:
        self.quantization_config = quantization_config
        self.pre_quantized = kwargs.pop("pre_quantized", True)  # whether the checkpoint holds packed tensors
        self.modules_to_not_convert = kwargs.pop("modules_to_not_convert", None)
        self.dtype: Any = None
        if kwargs:
            raise TypeError(f"{type(self).__name__} does not know {', '.join(kwargs)}")

    def validate_environment(self, dtype: Any = None, device_map: Any = None, weights_only: bool = True) -> None:
        """Refuses what the method cannot do here, and devices that this machine does not have."""
        devices = device_map.values() if isinstance(device_map, dict) else [device_map]
        for device in map(str, devices):
            if (device.startswith("cuda") or device.isdigit()) and not torch.cuda.is_available():
                raise ValueError(f"device_map asks for {device}, and torch finds no CUDA device: use device='cpu'")

    def preprocess_model(self, model: Any, dtype: Any = None, loaded_keys: Any = (), **kwargs: Any) -> None:
        """Puts packed layers without memory into a model that has none either; `loaded_keys` are the checkpoint's."""
        model.is_quantized, self.dtype, self.prefix = True, dtype, name_prefix(model)
        self._process_model_before_weight_loading(model, loaded_keys=loaded_keys, **kwargs)

    def _process_model_before_weight_loading(self, model: Any, loaded_keys: Any = (), **kwargs: Any) -> None:
        if self.pre_quantized:  # the modules whose packed tensor is there, with or without the base model's prefix
            suffix, prefix = f".{self.packed_tensor}", f"{getattr(model, 'base_model_prefix', 'model')}."
            names = {key.removesuffix(suffix) for key in loaded_keys if key.endswith(suffix)}
            self.convert(model, {form for n in names for form in (n, prefix + n, n.removeprefix(prefix))})
        elif not self.requires_calibration:
            self.convert(model)

    def convert(self, model: Any, only: Any = None) -> None:
        """Replaces the linear layers, or `only` those named, by packed ones; those that the format cannot hold stay."""
        skipped = self.get_modules_to_not_convert(model) if only is None else ()
        linears = linears_to_convert(model, skipped)
        linears = {name: linear for name, linear in linears.items() if only is not None or self.means(name, linear)}
        for name, linear in linears.items():
            packed = self.make_linear(name, linear) if only is None or name in only else None
            if packed is not None:
                with torch.device("meta"):
                    packed.hold(packed.empty_tensors())
                set_module(model, name, packed)
        if not packed_layers(model):
            what = "there is none, none fits the settings, or all are to be left"
            why = what if only is None else f"the checkpoint has no {self.packed_tensor} of its linear layers"
            raise ValueError(f"{type(self).__name__} finds no layer to pack in {type(model).__name__}: {why}")

    def get_modules_to_not_convert(self, model: Any) -> list[str]:
        """What the user or the checkpoint says, or else the heads."""
        named = self.modules_to_not_convert
        named = getattr(self.quantization_config, self.skipped_by, None) if named is None else named
        return output_modules(model) if named is None else list(named)

    def means(self, name: str, linear: nn.Linear) -> bool:
        """Whether the configuration means a layer that is not among those to be left."""
        return True

    def make_linear(self, name: str, linear: nn.Linear) -> Any:
        """The packed layer for a linear one, still without tensors; None: it stays plain."""
        layer = self.linear_class(linear, self.quantization_config)
        return layer if self.pre_quantized or layer.fits() else None

    def update_expected_keys(self, model: Any, expected_keys: list[str], loaded_keys: list[str]) -> list[str]:
        """With the plain weights instead of the packed tensors, if those are still to be made."""
        layers = {} if self.pre_quantized else packed_layers(model)
        packed = {f"{name}.{tensor}" for name, layer in layers.items() for tensor in layer.names}
        return [*(key for key in expected_keys if key not in packed), *(f"{name}.weight" for name in layers)]

    def check_quantized_param(
        self, model: Any, param_value: Tensor, param_name: str, state_dict: Any, **kwargs: Any
    ) -> bool:
        """Whether the tensor is one of a packed layer's, or is to become some. ValueError: it is a part of one, and alone."""
        module, name = owner(model, param_name)
        beside = f"{param_name.rpartition('.')[0]}.{self.packed_tensor}"
        is_code = isinstance(module, nn.Linear) and param_value.element_size() == 1
        if self.pre_quantized and is_code and beside not in state_dict:
            raise ValueError(f"{param_name} is {describe(param_value)} and has no {beside} beside it: fetch it again")
        return isinstance(module, PackedLinear) and name != "bias"

    def create_quantized_param(
        self, model: Any, param_value: Tensor, param_name: str, target_device: Any, state_dict: dict[str, Any]
    ) -> None:
        """Gives a packed layer its tensor, or those that its plain weight quantizes to."""
        layer, name = owner(model, param_name)
        if self.pre_quantized:
            empty = layer.get_buffer(layer.names[name]) if name in layer.names else None
            value = param_value
            if empty is not None and empty.numel() == value.numel() == 1:  # a number, as [], [1] or [1, 1]
                value = value.view(empty.shape)
            code = torch.float8_e4m3fn  # the type of a code, where numbers may have any
            is_other = empty is None or empty.shape != value.shape or empty.dtype == code != value.dtype
            if is_other and not name.startswith(layer.variable_tensors):
                expected = {key: describe(tensor) for key, tensor in layer.stored_tensors().items()}
                found = describe(param_value)
                raise ValueError(f"{param_name} is {found}, expected {expected}: see quantization_config")
            layer.replace(name, value.to(target_device))
        else:
            shape, found = [layer.out_features, layer.in_features], describe(param_value)
            if name != "weight" or list(param_value.shape) != shape or not param_value.is_floating_point():
                raise ValueError(f"{param_name} is {found}, expected nothing but a plain weight {shape} to quantize")
            layer.hold(layer.quantize(param_value.to(target_device, self.dtype)))

    def update_missing_keys(self, model: Any, missing_keys: list[str], prefix: str) -> list[str]:
        """Without the tensors of packed layers that go without saying; others cannot be made up."""
        for key in missing_keys:
            layer, name = owner(model, key)
            if isinstance(layer, PackedLinear) and name != "bias":
                if (value := layer.usual_tensors().get(name)) is None:
                    raise ValueError(f"the checkpoint lacks {key}, and with it the layer: fetch it again")
                layer.hold({**layer.stored_tensors(), name: value})
        return [key for key in missing_keys if owner(model, key)[1] not in getattr(owner(model, key)[0], "names", ())]

    def postprocess_model(self, model: Any, **kwargs: Any) -> Any:
        """Quantizes with data where the method needs it; says what stays plain; prepares the kernels."""
        model.hf_quantizer = self
        for layer in packed_layers(model).values():
            layer.hold(layer.stored_tensors())
        self._process_model_after_weight_loading(model, **kwargs)
        linears = {} if self.pre_quantized else linears_to_convert(model, self.get_modules_to_not_convert(model))
        if plain := [name for name, linear in linears.items() if self.means(name, linear)]:
            found = len(plain), self.quantization_config.quant_method, ", ".join(plain)
            logging.getLogger(__name__).warning("%d linear layers stay plain under %s: %s", *found)
        model.config.quantization_config = self.saved_config(model)
        for layer in packed_layers(model).values():
            layer.prepare(layer.device, layer.compute_dtype or model.dtype)
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> None:
        pass

    def saved_config(self, model: Any) -> dict[str, Any]:
        """What config.json says of a model that has been quantized."""
        return dict(self.quantization_config.to_dict())

    def dequantize(self, model: Any) -> Any:
        """The model with plain linear layers in its own type."""
        for name, layer in packed_layers(model).items():
            set_module(model, name, layer.plain(model.dtype))
        model.is_quantized = False
        vars(model.config).pop("quantization_config", None)
        return model


def describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def packed_layers(model: Any) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedLinear)}
