"""Records `eetq/tiles`: int8 codes in the tiles that CUDA's matrix units read.

EETQ is not installable without CUDA. PaddlePaddle's `weight_quantize` writes the same tiles, which both took from NVIDIA's
FasterTransformer, and does it on a CPU. Its scale is the largest magnitude / 127, so each output has a code of 127 here, and its
codes are known.
"""

from __future__ import annotations

import numpy as np
import paddle
import torch
from paddle.nn.quant import weight_quantize

from oracle.quantization import fixtures

SHAPES = ((16, 64), (32, 128), (48, 192))  # outputs, inputs

if __name__ == "__main__":
    found = {}
    draw = np.random.default_rng(0)
    for outputs, columns in SHAPES:
        codes = draw.integers(-127, 128, (columns, outputs))
        codes[0] = 127
        weight = paddle.to_tensor((codes / 32).astype("float16"))
        tiles, scales = weight_quantize(weight, algo="weight_only_int8", arch=80)
        assert (scales.numpy() == np.float16(1 / 32)).all()
        key = f"{outputs}x{columns}"
        found |= {f"{key}/codes": torch.tensor(codes.T, dtype=torch.int8), f"{key}/tiles": torch.tensor(tiles.numpy())}
    fixtures.save("eetq/tiles", __file__, found)
