"""bitsandbytes' layers in the place of linear ones, in a model that is there already."""

from __future__ import annotations

from typing import Any

from unibody.core.quantization.replacement import linears_to_convert
from unibody.quantization import AutoHfQuantizer


def replace_with_bnb_linear(
    model: Any,
    modules_to_not_convert: list[str] | None = None,
    quantization_config: Any = None,
    pre_quantized: bool = False,
) -> Any:
    """The same model, with its linear layers packed as a BitsAndBytesConfig says; by default the heads stay as they are.

    Weights that are there are quantized; of a model on the meta device the layers await a checkpoint's, which is packed if it is
    `pre_quantized`. ValueError: the configuration is of another method or chooses none, or no layer is left to pack.
    """
    if getattr(quantization_config, "quant_method", None) != "bitsandbytes":
        raise ValueError("quantization_config is no BitsAndBytesConfig: pass one, with load_in_8bit or load_in_4bit")
    if not quantization_config.is_quantizable():
        raise ValueError("the BitsAndBytesConfig chooses no method: set load_in_8bit=True or load_in_4bit=True")
    quantizer = AutoHfQuantizer.from_config(
        quantization_config, pre_quantized=pre_quantized, modules_to_not_convert=modules_to_not_convert
    )
    skipped = quantizer.get_modules_to_not_convert(model)
    weights = {name: linear.weight.detach() for name, linear in linears_to_convert(model, skipped).items()}
    quantizer.dtype, model.is_quantized = model.dtype, True
    quantizer.convert(model)
    if any(weight.is_meta for weight in weights.values()):
        model.hf_quantizer = quantizer
        return model
    for name, weight in weights.items():
        layer = model.get_submodule(name)
        if hasattr(layer, "quantize"):
            layer.hold(layer.quantize(weight))
    return quantizer.postprocess_model(model)
