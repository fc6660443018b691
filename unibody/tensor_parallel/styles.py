"""The words of a plan, which are those of the Hugging Face ecosystem, and how a layer of each style is split and called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unibody.tensor_parallel.collectives import Gather, Part, Share, Sum, summed
from unibody.tensor_parallel.splits import Split


@dataclass(frozen=True)
class Style:
    """How a layer's tensors are split, and what happens to its inputs and its output.

    `before` is "share" (all processes have the inputs, and each uses them for its part), "part" (they take their part of them),
    "gather" (they put their parts together), "ids" (tokens, of which a process knows some) or "route" (numbers of experts, of which
    a process has some); `after` is "sum" or "gather".
    """

    weight: Split | None = None
    bias: Split | None = None
    before: str = ""
    after: str = ""
    uneven: bool = False  # whether the last parts may be smaller
    sums_gradients: bool = False  # of weights that are whole, and see other activations in each process


OUT, IN = Split(-2), Split(-1)  # of a weight [N, K] or a stack of such; a bias [N] is split along its last dimension
STYLES = {
    "colwise": Style(OUT, Split(-1), before="share"),
    "colwise_gather_output": Style(OUT, Split(-1), before="share", after="gather", uneven=True),
    "colwise_rep": Style(OUT, Split(-1), before="share", after="gather", uneven=True),
    "colwise_whole_input": Style(OUT, Split(-1), before="gather", after="gather"),
    "rowwise": Style(IN, after="sum"),
    "rowwise_split_input": Style(IN, before="part", after="sum"),
    "rowwise_rep": Style(IN, before="part", after="sum"),
    "packed_colwise": Style(Split(-2, packed=2), Split(-1, packed=2), before="share"),
    "packed_rowwise": Style(Split(-1, packed=2), after="sum"),
    "embedding_rowwise": Style(Split(0), before="ids", after="sum", uneven=True),
    "embedding_colwise": Style(Split(1), after="gather"),
    "replicate": Style(),
    "replicated_with_grad_allreduce": Style(sums_gradients=True),
    # A key or value head to which the query heads of all processes attend.
    "shared_head": Style(before="share", sums_gradients=True),
    "all_reduce": Style(after="sum"),
    "moe_tp_experts": Style(before="share", after="sum"),
    "grouped_gemm": Style(Split(0), Split(0)),
    "ep_dispatch_experts": Style(before="route", after="sum"),
}


class SplitLayer:
    """The hooks of a layer that computes with its part: its parameters are DTensors, and plain tensors while it is called."""

    def __init__(self, module: Any, style: Style, mesh: Any, names: list[str]) -> None:
        self.style, self.mesh, self.names = style, mesh, names
        self.part, self.parts = mesh.get_local_rank(), mesh.size()
        self.first = self.known = 0  # tokens or experts of this process
        self.unknown: Any = None
        self.adds_bias = style.after == "sum" and getattr(module, "bias", None) is not None
        if style.before == "ids":
            self.limit_ids(module)
        elif style.before == "route":
            self.known = len(module._parameters[names[0]].to_local())
            self.first = self.part * self.known
        if isinstance(module, nn.Embedding):
            self.size = module.embedding_dim
        else:
            self.size = getattr(module, "out_features", 0) * (1 if "weight" in names else self.parts)
        self.inputs = getattr(module, "in_features", 0)
        module.register_forward_pre_hook(self.before, with_kwargs=True)
        module.register_forward_hook(self.after, with_kwargs=True, always_call=True)

    @property
    def group(self) -> Any:
        """Asked for when it is needed: who kept it would keep its threads, of which gloo's abort a program that ends."""
        return self.mesh.get_group()

    def limit_ids(self, embedding: Any) -> None:
        """The tokens that this process knows; the one of padding, whose row gets no gradient, by its local number."""
        self.known = len(embedding.weight.to_local())
        self.first = self.part * -(-embedding.num_embeddings // self.parts)
        if embedding.padding_idx is not None:
            number = embedding.padding_idx - self.first
            embedding.padding_idx = number if 0 <= number < self.known else None

    def before(self, module: Any, args: Any, kwargs: Any) -> Any:
        vars(module).update({name: module._parameters[name].to_local() for name in self.names})
        if self.adds_bias:
            vars(module)["bias"] = None  # added once, to the sum
        return tuple(map(self.arrive, args)), {name: self.arrive(value) for name, value in kwargs.items()}

    def arrive(self, x: Any) -> Any:
        """An input as this process needs it."""
        how = self.style.before
        if not isinstance(x, Tensor):
            return x
        if x.is_floating_point():
            if how in ("share", "route"):
                return Share.apply(x, self.group)  # type: ignore[no-untyped-call]
            if how == "gather":
                return Share.apply(Gather.apply(x, self.group, self.inputs), self.group)  # type: ignore[no-untyped-call]
            return Part.apply(x, self.group) if how == "part" else x  # type: ignore[no-untyped-call]
        if how in ("ids", "route"):
            here = (x >= self.first) & (x < self.first + self.known)
            self.unknown = ~here[..., None]
            return (x - self.first).where(here, 0 if how == "ids" else self.known)
        return x

    def after(self, module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        for name in (*self.names, "bias") if self.adds_bias else self.names:
            vars(module).pop(name, None)
        if output is None:  # the call failed
            return None
        if self.style.before == "ids":
            output = output.masked_fill(self.unknown, 0)
        if self.style.after == "gather":
            return Gather.apply(output, self.group, self.size)  # type: ignore[no-untyped-call]
        if self.style.after == "sum":
            output = Sum.apply(output, self.group)  # type: ignore[no-untyped-call]
        return output + module.bias.to(output.dtype) if self.adds_bias else output


def sum_gradient(parameter: Any, mesh: Any) -> None:
    """Gradients of this parameter are summed over the processes from now on."""
    parameter.register_hook(lambda gradient: summed(gradient, mesh.get_group()))
