"""VPTQ: vector quantization of weights, with residual codebooks (2409.17066). The configuration; layers are not made yet.

| | |
|---|---|
| `indices` | int32 [groups, ⌈N / v⌉, words]: of vectors of v outputs, a stream of bits, the residual index above the main one |
| `centroids.weight`, `res_centroids.weight` | [groups, centroids · v] |
| `outlier_indices`, `outlier_centroids.weight` | the same of the columns that are outliers |
| `perm` | int16 [K], the bits of unsigned numbers; `weight_scale`, `weight_bias` [K] |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from unibody.core.quantization.config import QuantizationConfigMixin

__all__ = ["VptqConfig"]


@dataclass(eq=False)
class VptqConfig(QuantizationConfigMixin):
    """What each layer's vectors and codebooks are like, by the layer's name; or what all of them share."""

    quant_method: ClassVar[str] = "vptq"

    enable_proxy_error: bool = False
    config_for_layers: dict[str, dict[str, Any]] = field(default_factory=dict)
    shared_layer_config: dict[str, Any] = field(default_factory=dict)
    modules_to_not_convert: list[str] | None = None

    def post_init(self) -> None:
        if self.enable_proxy_error:
            raise ValueError(
                "VptqConfig: enable_proxy_error is True, and proxy errors are of training only: set False"
            )
        for layer, values in self.config_for_layers.items():
            if values.get("is_indice_packed", True) is not True:
                raise ValueError(f"VptqConfig: is_indice_packed of {layer} must be True: indices are stored packed")
