"""The base of all packed linear layers: tensors in the checkpoint's form, run by the best kernel of a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibody.core import role
from unibody.core.quantization.kernels import Kernel, choose_kernel


@role
class PackedLinear(nn.Module):
    """y [..., N] = x [..., K] Wᵀ + b; W [N, K] is stored packed, in buffers that a checkpoint holds under the same names.

    A kernel may hold the weight in a layout of its own; what is saved is the checkpoint's form all the same.
    """

    kernels: ClassVar[tuple[Kernel, ...]] = ()
    variable_tensors: ClassVar[tuple[str, ...]] = ()  # of which the layer does not tell the shape; starts of names
    compute_dtype: Any = None  # type that the inputs are brought to; None: they stay as they are

    # What each format defines.
    empty_tensors: Callable[[], dict[str, Tensor]]  # the packed tensors of a checkpoint, by name, whatever they hold
    quantize: Callable[[Tensor], dict[str, Tensor]]  # those of a weight [N, K]
    unpack: Callable[[dict[str, Tensor], torch.dtype], Tensor]  # the weight [N, K] of packed tensors, in a type

    def __init__(self, linear: nn.Linear, config: Any) -> None:
        super().__init__()
        self.config = config
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        self.kernel = ""  # name of the kernel that was chosen
        self.layout: Any = None  # the kernel's own way to hold the weight; None: the checkpoint's
        self.run: Any = None
        self.prepared: Any = None  # device and type of input that the kernel was chosen for
        self.names: dict[str, str] = {}  # of the buffers, by those in the checkpoint

    def fits(self) -> bool:
        """Whether the format can hold a weight of this size."""
        return True

    def usual_tensors(self) -> dict[str, Tensor]:
        """Those of the packed tensors that a checkpoint may leave out."""
        return {}

    def round_inputs(self, x: Tensor) -> Tensor:
        """What inputs are after rounding, in their type; as they are, unless the format rounds them."""
        return x

    def why_not(self, kernel: Kernel) -> str:
        """The reason why a kernel, whose row says that it can, cannot run this layer; empty if it can."""
        return ""

    @property
    def device(self) -> torch.device:
        return next(iter((*self.buffers(), *self.parameters()))).device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.unpack(self.stored_tensors(), dtype)

    def plain(self, dtype: torch.dtype) -> nn.Module:
        """The layer without its packing, in a type."""
        linear: Any = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight, linear.bias = nn.Parameter(self.dequantize(dtype)), self.bias
        return linear

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.in_features:
            raise ValueError(f"inputs are {list(x.shape)}, expected [..., {self.in_features}]")
        if x.dim() == 1 or not x.is_contiguous():  # kernels read rows that follow each other
            rows = x.contiguous().view(-1, self.in_features)
            return PackedLinear.forward(self, rows).view(*x.shape[:-1], self.out_features)
        if x.requires_grad and torch.is_grad_enabled():
            return DequantizedMatmul.apply(x, self.bias, self)
        if not x.numel():
            return x.new_empty(*x.shape[:-1], self.out_features)
        if self.prepared != (x.device, x.dtype):
            self.prepare(x.device, x.dtype)
        return self.run(self, x)

    def prepare(self, device: torch.device, dtype: torch.dtype) -> None:
        """Chooses the kernel for inputs of this type, and brings the weight into its layout."""
        kernel, names = choose_kernel(self, device, dtype), globals()
        layout = names[kernel.layout] if kernel.layout else None
        if layout is not self.layout:
            stored = self.stored_tensors()
            self.hold(stored if layout is None else layout.pack(self, stored), layout)
        self.kernel, self.run, self.prepared = kernel.name, names[kernel.entry], (device, dtype)

    def hold(self, tensors: dict[str, Tensor], layout: Any = None) -> None:
        """Makes these the buffers, in the checkpoint's form or in a kernel's layout."""
        # Buffers have no dots in their names, and `group_size` is taken by what is a number here.
        names = {n: n.replace(".", "_") + "_" * (n in vars(self) or hasattr(type(self), n)) for n in tensors}
        self._buffers.clear()
        self._buffers.update({names[name]: tensor for name, tensor in tensors.items()})
        self.layout, self.prepared = layout, None
        if layout is None:
            self.names = names

    def replace(self, name: str, tensor: Tensor) -> None:
        """Makes this one of the tensors that are held in the checkpoint's form; `hold` sees it when all are there."""
        if name in self.names:
            self._buffers[self.names[name]] = tensor
        else:
            self.hold({**self.stored_tensors(), name: tensor})

    def stored_tensors(self) -> dict[str, Tensor]:
        """The packed tensors in the checkpoint's form."""
        if self.layout is not None:
            return self.layout.unpack(self, dict(self._buffers))
        return {name: getattr(self, attribute) for name, attribute in self.names.items()}

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves the packed tensors, but leaves their types: those are a format, not a precision."""
        stored = self.stored_tensors()
        self.hold({})
        super()._apply(fn, recurse)  # the bias
        moved = {name: fn(tensor) for name, tensor in stored.items()}
        self.hold({k: new if new.dtype == stored[k].dtype else stored[k].to(new.device) for k, new in moved.items()})
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        tensors = {**self.stored_tensors(), **({} if self.bias is None else {"bias": self.bias})}
        destination.update({prefix + name: x if keep_vars else x.detach() for name, x in tensors.items()})

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        stored = self.stored_tensors()
        for name in stored.keys() & {key.removeprefix(prefix) for key in state_dict}:
            if name.startswith(self.variable_tensors):
                stored[name] = torch.empty_like(state_dict[prefix + name], device=stored[name].device)
        self.hold(stored)
        names = {prefix + name: prefix + attribute for name, attribute in self.names.items()}
        super()._load_from_state_dict({names.get(k, k): v for k, v in state_dict.items()}, prefix, *arguments)
        self.hold(self.stored_tensors())  # which reads what they say of the layer

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, kernel={self.kernel!r}"


class DequantizedMatmul(torch.autograd.Function):
    """x Wᵀ + b and its gradients for x and b; the weight is dequantized for each of the two, and not kept between."""

    @staticmethod
    def forward(context: Any, x: Tensor, bias: Tensor | None, layer: Any) -> Tensor:
        context.layer = layer
        return F.linear(x, layer.dequantize(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        y, layer = gradients[0], context.layer
        bias = y.flatten(0, -2).sum(0).to(layer.bias.dtype) if context.needs_input_grad[1] else None
        return y @ layer.dequantize(y.dtype), bias, None


def dequantize_matmul(layer: Any, x: Tensor) -> Tensor:
    """The reference: inputs rounded as the format says, the weight in their type, and torch's product."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.linear(layer.round_inputs(x), layer.dequantize(x.dtype), bias)


def matmul_by_rows(layer: Any, x: Tensor) -> Tensor:
    """The same, of a hundred or so rows of the weight at a time, which stay in the cache; for layers that unpack row by row."""
    x, stored, step = layer.round_inputs(x), layer.stored_tensors(), max(1, 2**18 // layer.in_features)
    rows = {name: tensor for name, tensor in stored.items() if tensor.dim() and len(tensor) == layer.out_features}
    parts = (
        {**stored, **{name: tensor[start : start + step] for name, tensor in rows.items()}}
        for start in range(0, layer.out_features, step)
    )
    y = torch.cat([F.linear(x, layer.unpack(part, x.dtype)) for part in parts], -1)
    return y if layer.bias is None else y + layer.bias.to(y.dtype)
