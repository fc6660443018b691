"""How one tensor is split over processes: along which dimension, and where each process's part lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Equal parts along a dimension; of `packed` tensors that lie there one after the other, each is split by itself."""

    dim: int  # from the end where negative, so that it fits stacks of matrices too
    packed: int = 1

    def take(self, tensor: Tensor, part: int, parts: int) -> Tensor:
        """A view, if it can be one, of the part; where the parts do not come out even, the last ones are smaller."""
        taken = []
        for block in tensor.chunk(self.packed, self.dim):
            size = -(-block.shape[self.dim] // parts)
            start = min(part * size, block.shape[self.dim])
            taken.append(block.narrow(self.dim, start, min(size, block.shape[self.dim] - start)))
        return taken[0] if self.packed == 1 else torch.cat(taken, self.dim)

    def in_order(self, joined: Tensor, parts: int) -> Tensor:
        """The tensor whose parts, one after the other, are `joined`."""
        if self.packed == 1:
            return joined
        blocks = [part.chunk(self.packed, self.dim) for part in joined.chunk(parts, self.dim)]
        return torch.cat([part[number] for number in range(self.packed) for part in blocks], self.dim)

    def divides(self, size: int, parts: int) -> bool:
        return size % (self.packed * parts) == 0
