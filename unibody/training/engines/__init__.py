"""What carries a model and its optimizer through training, one module for each way to spread them over processes.

`data_parallel.py` is the first, and the base of all: each process holds the whole model. In `fully_sharded.py` each holds a
shard of every weight, in `tensor_parallel.py` a part of each layer; `deepspeed.py` leaves that to DeepSpeed. The settings say
which it is.
"""

from __future__ import annotations

from unibody.training.arguments import TrainingArguments
from unibody.training.engines.data_parallel import Engine

__all__ = ["Engine", "choose_engine"]


def choose_engine(args: TrainingArguments) -> Engine:
    """The engine that the settings ask for."""
    if args.deepspeed is not None:
        from unibody.training.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(args)
    if args.sharding is not None:
        from unibody.training.engines.fully_sharded import FullyShardedEngine

        return FullyShardedEngine(args)
    if args.parallelism_config:
        from unibody.training.engines.tensor_parallel import TensorParallelEngine

        return TensorParallelEngine(args)
    return Engine(args)
