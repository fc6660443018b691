"""Each way to round that torchao has on a CPU and that there are layers for."""

from __future__ import annotations

from typing import Any

import torch
import torchao.quantization as ao

GROUP, TENSOR = ao.PerGroup(32), ao.PerTensor()
ASYMMETRIC = ao.MappingType.ASYMMETRIC
CONFIGS: dict[str, Any] = {
    "int8": ao.Int8WeightOnlyConfig(),
    "int8_groups": ao.Int8WeightOnlyConfig(granularity=GROUP),
    "int8_tensor": ao.Int8WeightOnlyConfig(granularity=TENSOR),
    "int8_dynamic": ao.Int8DynamicActivationInt8WeightConfig(),
    "int8_dynamic_tensors": ao.Int8DynamicActivationInt8WeightConfig(granularity=TENSOR),
    "int8_dynamic_tensor": ao.Int8DynamicActivationInt8WeightConfig(granularity=[ao.PerRow(), TENSOR]),
    "int8_dynamic_rows": ao.Int8DynamicActivationInt8WeightConfig(granularity=[TENSOR, ao.PerRow()]),
    "int8_dynamic_reduced": ao.Int8DynamicActivationInt8WeightConfig(reduce_range=True),
    "int8_dynamic_unset": ao.Int8DynamicActivationInt8WeightConfig(granularity=None, weight_only_decode=True),
    "int8_dynamic_asymmetric": ao.Int8DynamicActivationInt8WeightConfig(act_mapping_type=ASYMMETRIC),
    "int8_dynamic_asymmetric_tensors": ao.Int8DynamicActivationInt8WeightConfig(
        act_mapping_type=ASYMMETRIC, granularity=TENSOR, reduce_range=True
    ),
    **{f"intx{b}": ao.IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{b}")) for b in range(2, 9)},
    "int4_groups": ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=GROUP),
    "int4_asymmetric": ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=GROUP, mapping_type=ASYMMETRIC),
    "8da4w": ao.Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int4, weight_granularity=GROUP),
    "8da3w": ao.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int3, weight_granularity=GROUP, weight_mapping_type=ASYMMETRIC
    ),
    "int4_bfloat16_scales": ao.IntxWeightOnlyConfig(
        weight_dtype=torch.int4, granularity=GROUP, mapping_type=ASYMMETRIC, scale_dtype=torch.bfloat16
    ),
    "8da4w_bfloat16_scales": ao.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=GROUP, weight_scale_dtype=torch.bfloat16
    ),
    "int4_unclipped": ao.IntxWeightOnlyConfig(
        weight_dtype=torch.int4, granularity=GROUP, mapping_type=ao.MappingType.SYMMETRIC_NO_CLIPPING_ERR
    ),
    **{
        f"8da{b}w_fitted": ao.Int8DynamicActivationIntxWeightConfig(
            weight_dtype=getattr(torch, f"int{b}"),
            weight_granularity=GROUP,
            intx_choose_qparams_algorithm="hqq_scale_only",
        )
        for b in (2, 4, 8)
    },
    "int4_fitted": ao.IntxWeightOnlyConfig(
        weight_dtype=torch.int4, mapping_type=ASYMMETRIC, intx_choose_qparams_algorithm="hqq_scale_only"
    ),
    "float8": ao.Float8WeightOnlyConfig(),
    "float8_tensor": ao.Float8WeightOnlyConfig(granularity=TENSOR),
    "float8_groups": ao.Float8WeightOnlyConfig(granularity=GROUP),
    "float8_e5m2": ao.Float8WeightOnlyConfig(weight_dtype=torch.float8_e5m2),
    "float8_inputs": ao.Float8DynamicActivationFloat8WeightConfig(),
    "float8_e5m2_inputs": ao.Float8DynamicActivationFloat8WeightConfig(activation_dtype=torch.float8_e5m2),
    "float8_bounds": ao.Float8DynamicActivationFloat8WeightConfig(activation_value_lb=0.5, activation_value_ub=1.0),
    "float8_rows": ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow()),
    "float8_rows_bound": ao.Float8DynamicActivationFloat8WeightConfig(
        granularity=ao.PerRow(), activation_value_ub=1.0
    ),
}
