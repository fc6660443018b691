"""What a user asks for: over how many processes a model is split, and by which plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class DistributedConfig:
    """How a model is split over processes, as `from_pretrained(distributed_config=…)` takes it.

    `tp_plan` is "auto" or rules over the declared ones; with `tp_size` alone it is "auto". `ep_size`, which is `tp_size`, spreads the
    experts by `ep_plan`; `enable_expert_parallel` does so and leaves all else whole.
    """

    tp_size: int | None = None
    tp_plan: dict[str, str] | str | None = None
    enable_expert_parallel: bool = False
    ep_size: int | None = None
    ep_plan: dict[str, str] | str | None = None

    def __post_init__(self) -> None:
        if self.enable_expert_parallel and self.ep_size is None:
            self.tp_plan = self.tp_plan or {}
            self.ep_plan = self.ep_plan or "auto"
        elif self.ep_size is not None and self.ep_size > 1:
            if self.tp_size not in (None, self.ep_size):
                raise ValueError(
                    f"ep_size is {self.ep_size} and tp_size {self.tp_size}: the same processes have both, make them equal"
                )
            self.tp_size, self.ep_plan = self.ep_size, self.ep_plan or "auto"
        elif self.ep_plan:
            raise ValueError("ep_plan says how experts are spread, and ep_size over how many processes: set ep_size")
        if self.tp_plan is None and (self.tp_size or 1) > 1:
            self.tp_plan = "auto"


@dataclass
class Distribution:
    """The processes and the plans that a model is loaded with."""

    mesh: Any
    tp_plan: Any
    ep_plan: Any

    @property
    def device(self) -> Any:
        from unibody.meshes import mesh_device

        return mesh_device(self.mesh)

    def loading(self, quantizer: Any) -> Any:
        """The hooks that load what this process holds."""
        from unibody.tensor_parallel.loading import SplitLoading

        return SplitLoading(self.mesh, self.tp_plan, self.ep_plan, quantizer)


def settle_distribution(config: Any, tp_plan: Any, tp_size: int | None, device_mesh: Any) -> Distribution | None:
    """What the options of from_pretrained say together; None: nothing of the kind. ValueError: they contradict each other."""
    if config is None:
        if tp_plan is None and tp_size is None:
            if device_mesh is not None:
                raise ValueError(
                    "device_mesh says which processes share the model, and nothing says how: add tp_plan='auto'"
                )
            return None
        config = DistributedConfig(tp_size, "auto" if tp_plan is None else tp_plan)
    elif tp_plan is not None or tp_size is not None:
        raise ValueError("distributed_config says tp_plan and tp_size: leave them out beside it")
    config = DistributedConfig(**config) if isinstance(config, dict) else config
    if config.tp_plan is None and config.ep_plan is None:
        return None
    from unibody.meshes import find_mesh

    return Distribution(find_mesh(config.tp_size, device_mesh), config.tp_plan, config.ep_plan)
