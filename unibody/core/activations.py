"""Activation functions by the names that configurations use."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F

gelu_tanh = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Any] = {"silu": F.silu, "gelu": F.gelu, "gelu_pytorch_tanh": gelu_tanh, "relu": F.relu}
