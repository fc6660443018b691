"""The settings of a training run, under the names that the Hugging Face ecosystem has for them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, cast

from unibody.training.choices import (
    HubStrategy,
    IntervalStrategy,
    NonFinite,
    OptimizerNames,
    SamplingStrategy,
    SaveStrategy,
    SchedulerType,
    TokenCount,
)
from unibody.training.fsdp_config import announce_fsdp, launched_fsdp, read_fsdp_config

CHOICES = {
    "eval_strategy": IntervalStrategy,
    "logging_strategy": IntervalStrategy,
    "save_strategy": SaveStrategy,
    "lr_scheduler_type": SchedulerType,
    "optim": OptimizerNames,
    "hub_strategy": HubStrategy,
    "train_sampling_strategy": SamplingStrategy,
    "nan_strategy": NonFinite,
}
POSITIVE = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
FORMER = {"gradient_checkpointing": "activation_checkpointing"}  # names that mean the same, also with _kwargs
INTERVALS = ("logging_steps", "eval_steps", "save_steps")
SECRET = ("hub_token",)


@dataclass
class TrainingArguments:
    """Settings; numbers of steps count optimizer steps, and where they are below 1, they are shares of the whole run.

    TypeError: there is no such setting; it names the nearest. ValueError: settings that contradict each other.
    """

    output_dir: str = "trainer_output"
    do_train: bool = False  # for scripts; the trainer does what it is called for
    do_eval: bool = False
    do_predict: bool = False
    resume_from_checkpoint: str | bool | None = None

    per_device_train_batch_size: int = 8  # rows of one forward pass of one process
    per_device_eval_batch_size: int = 8
    gradient_accumulation_steps: int = 1  # forward passes of one optimizer step
    auto_find_batch_size: bool = False  # where memory runs out, smaller batches and more of them make the same step
    num_train_epochs: float = 3.0
    max_steps: int = -1  # above 0 it decides, whatever num_train_epochs says
    average_tokens_across_devices: bool = True  # the loss is the mean over the label tokens of all processes

    learning_rate: float = 5e-5
    lr_scheduler_type: SchedulerType | str = "linear"
    lr_scheduler_kwargs: dict[str, Any] = field(default_factory=dict)
    warmup_steps: float = 0
    warmup_ratio: float = 0.0  # of all steps, where warmup_steps is 0
    optim: OptimizerNames | str = "adamw_torch_fused"
    optim_args: dict[str, Any] = field(default_factory=dict)
    weight_decay: float = 0.0  # of matrices only: never of biases and scales
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0  # 0: no clipping
    label_smoothing_factor: float = 0.0  # the share of each label that is spread over all
    neftune_noise_alpha: float | None = None  # noise on the embeddings while training, 5 to 15 in the paper
    nan_strategy: NonFinite | str = "stop"  # at a loss that is not finite; "skip" leaves the step out

    bf16: bool = False  # autocast; the weights keep their type
    fp16: bool = False
    tf32: bool | None = None
    use_cpu: bool = False
    torch_compile: bool = False
    torch_compile_backend: str | None = None  # this or the next: torch_compile is meant
    torch_compile_mode: str | None = None
    torch_empty_cache_steps: int | None = None  # every so many steps the device's unused memory is given back
    activation_checkpointing: bool = False
    activation_checkpointing_kwargs: dict[str, Any] = field(default_factory=dict)
    gradient_checkpointing: bool = False  # the former name of activation_checkpointing
    gradient_checkpointing_kwargs: dict[str, Any] = field(default_factory=dict)

    eval_strategy: IntervalStrategy | str = "no"
    eval_steps: float | None = None  # None: as logging_steps
    eval_delay: float = 0  # no evaluation before this epoch or step
    eval_on_start: bool = False
    prediction_loss_only: bool = False
    batch_eval_metrics: bool = False  # compute_metrics sees batch after batch, the last with compute_result=True
    eval_do_concat_batches: bool = True  # False: predictions are lists of batches
    include_for_metrics: list[str] = field(default_factory=list)  # of "inputs" and "loss"
    label_names: list[str] | None = None  # None: what the model's forward calls so

    logging_strategy: IntervalStrategy | str = "steps"
    logging_steps: float = 500
    logging_first_step: bool = False
    include_num_input_tokens_seen: bool | str = "no"  # or "all", "non_padding"
    disable_tqdm: bool = False
    report_to: str | list[str] = "jsonl"  # trackers; "all" that are installed, or "none"
    run_name: str | None = None
    project: str = "unibody"

    save_strategy: SaveStrategy | str = "steps"
    save_steps: float = 500
    save_total_limit: int | None = None
    save_only_model: bool = False  # checkpoints are smaller, and nothing can resume from them
    enable_jit_checkpoint: bool = False  # on SIGTERM: finish the step, save, stop
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = None  # None: "loss"
    greater_is_better: bool | None = None  # None: unless the metric's name ends in "loss"

    push_to_hub: bool = False
    hub_model_id: str | None = None  # None: the name of output_dir
    hub_strategy: HubStrategy | str = "every_save"
    hub_token: str | None = field(default=None, repr=False)
    hub_private_repo: bool | None = None
    hub_revision: str | None = None

    seed: int = 42
    data_seed: int | None = None  # of the examples' order; None: seed
    full_determinism: bool = False
    train_sampling_strategy: SamplingStrategy | str = "random"
    length_column_name: str = "length"  # for "group_by_length"; without that column, lengths are counted
    ignore_data_skip: bool = False
    remove_unused_columns: bool = True
    dataloader_drop_last: bool = False
    dataloader_num_workers: int = 0
    dataloader_pin_memory: bool = True
    dataloader_prefetch_factor: int | None = None
    dataloader_multiprocessing_context: str | None = None  # "fork", "spawn" or "forkserver"

    deepspeed: str | dict[str, Any] | None = None  # DeepSpeed's configuration: a file, or what it would hold
    ddp_backend: str | None = None
    ddp_timeout: int = 1800  # seconds
    ddp_find_unused_parameters: bool | None = None
    ddp_bucket_cap_mb: int | None = None
    ddp_broadcast_buffers: bool | None = None
    ddp_static_graph: bool | None = None

    fsdp: bool | str | list[str] | None = None  # shards the model over the processes: docs/fsdp.md
    fsdp_config: dict[str, Any] | str | None = None  # or the path of a JSON file
    parallelism_config: Any = None  # sizes by name, tp_size and dp_replicate_size, or accelerate's ParallelismConfig

    hf_deepspeed_config = cast(Any, None)  # no setting: what `deepspeed` says, for as long as these arguments live

    def __new__(cls, *_: Any, **options: Any) -> Self:
        known = [f.name for f in dataclasses.fields(cls)]
        for name in (name for name in options if name not in known):
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            remedy = f": do you mean {near[0]}?" if near else ""
            raise TypeError(f"{cls.__name__} has no {name!r}{remedy}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self.output_dir = str(self.output_dir)
        for name, choice in CHOICES.items():
            try:
                setattr(self, name, choice(getattr(self, name)))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        counted = self.include_num_input_tokens_seen
        self.include_num_input_tokens_seen = TokenCount(
            ("no", "all")[counted] if isinstance(counted, bool) else counted
        )
        for name in POSITIVE:
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        for name in (
            "lr_scheduler_kwargs",
            "optim_args",
            "gradient_checkpointing_kwargs",
            "activation_checkpointing_kwargs",
        ):
            setattr(self, name, dict(getattr(self, name) or {}))
        for former, present in FORMER.items():
            for old, new in ((former, present), (f"{former}_kwargs", f"{present}_kwargs")):
                setattr(self, new, getattr(self, new) or getattr(self, old))
                setattr(self, old, getattr(self, new))
        self.torch_compile |= bool(self.torch_compile_backend or self.torch_compile_mode)
        if not 0 <= self.label_smoothing_factor < 1:
            raise ValueError(f"label_smoothing_factor is {self.label_smoothing_factor}: it must be from 0 to below 1")
        if self.auto_find_batch_size and self.dataloader_drop_last:
            raise ValueError(
                "auto_find_batch_size and dataloader_drop_last are both set: batches of another size would drop other examples"
            )
        if self.bf16 and self.fp16:
            raise ValueError("bf16 and fp16 are both set: choose one")
        self.fsdp, self.fsdp_config = launched_fsdp(self.fsdp, self.fsdp_config)
        self.sharding = read_fsdp_config(self.fsdp, self.fsdp_config)
        announce_fsdp(self.sharding)
        self.parallelism_config = read_parallelism(self.parallelism_config)
        ways = {"deepspeed": self.deepspeed, "fsdp": self.sharding, "parallelism_config": self.parallelism_config}
        if len(chosen := [name for name, value in ways.items() if value]) > 1:
            raise ValueError(
                f"{' and '.join(chosen)} are both set, and each spreads the model its own way: choose one"
            )
        self._check_intervals()
        self._check_best_model()
        if self.deepspeed is not None:
            from unibody.integrations.deepspeed.arguments import HfTrainerDeepSpeedConfig

            self.hf_deepspeed_config = HfTrainerDeepSpeedConfig(self.deepspeed)
            self.hf_deepspeed_config.trainer_config_process(self)

    def _check_intervals(self) -> None:
        if self.eval_steps is None:
            self.eval_steps = self.logging_steps
        for name in INTERVALS:
            if (value := getattr(self, name)) <= 0 or (value > 1 and value != int(value)):
                raise ValueError(f"{name} is {value}: write a whole number of steps, or a share of the run below 1")
        if self.save_total_limit is not None and self.save_total_limit < 1:
            raise ValueError(
                f"save_total_limit is {self.save_total_limit}: keep at least 1, or set save_strategy='no'"
            )

    def _check_best_model(self) -> None:
        if self.load_best_model_at_end:
            if self.eval_strategy == IntervalStrategy.NO:
                raise ValueError("load_best_model_at_end needs evaluations to compare: set eval_strategy")
            if self.save_strategy not in (SaveStrategy.BEST, str(self.eval_strategy)):
                raise ValueError(
                    f"load_best_model_at_end needs a checkpoint of each evaluation: save_strategy is "
                    f"{str(self.save_strategy)!r} and eval_strategy {str(self.eval_strategy)!r}; make them equal"
                )
            if self.save_strategy == SaveStrategy.STEPS and not is_multiple(self.save_steps, self.eval_steps):
                raise ValueError(
                    f"load_best_model_at_end needs an evaluation at each checkpoint: save_steps {self.save_steps} "
                    f"is no multiple of eval_steps {self.eval_steps}"
                )
        if self.save_strategy == SaveStrategy.BEST and self.eval_strategy == IntervalStrategy.NO:
            raise ValueError("save_strategy='best' needs evaluations to compare: set eval_strategy")
        if self.metric_for_best_model is None and (
            self.load_best_model_at_end or self.save_strategy == SaveStrategy.BEST
        ):
            self.metric_for_best_model = "loss"
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = not self.metric_for_best_model.endswith("loss")

    @property
    def train_batch_size(self) -> int:
        return self.per_device_train_batch_size

    @property
    def eval_batch_size(self) -> int:
        return self.per_device_eval_batch_size

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """The steps of the warmup, of a run of so many; a share is rounded up."""
        warmup = self.warmup_steps or self.warmup_ratio
        return int(warmup) if warmup >= 1 else -int(-num_training_steps * warmup // 1)

    def to_dict(self) -> dict[str, Any]:
        """All settings as values that JSON has; secrets are not shown."""
        values = dataclasses.asdict(self)
        return {name: f"<{name.upper()}>" if name in SECRET and value else value for name, value in values.items()}

    def to_sanitized_dict(self) -> dict[str, Any]:
        """The settings as numbers, booleans and strings, as trackers want them."""
        plain = (bool, int, float, str)
        return {name: value if isinstance(value, plain) else str(value) for name, value in self.to_dict().items()}

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, default=str)

    @classmethod
    def from_json_file(cls, file: str | Path) -> Self:
        """The settings that `to_json_string` wrote, without secrets."""
        values = json.loads(Path(file).read_text(encoding="utf-8"))
        return cls(**{name: value for name, value in values.items() if name not in SECRET})


def read_parallelism(config: Any) -> dict[str, int] | None:
    """The sizes by name; None: nothing is split. ValueError: a size is none, or of no kind that there is."""
    kinds, found = ("dp_replicate_size", "tp_size"), {}
    is_own = isinstance(config, dict)
    for name, value in (config if is_own else vars(config) if config is not None else {}).items():
        if name in kinds and value is not None:
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"parallelism_config says {name}={value!r}: it must be at least 1")
            found[name] = value
        elif name.endswith("_size") and value not in (None, 1):
            raise ValueError(f"parallelism_config asks for {name}={value}: the sizes are {' and '.join(kinds)}")
        elif is_own and not name.endswith("_size"):
            raise ValueError(f"parallelism_config has no {name!r}: the sizes are {' and '.join(kinds)}")
    return found if found.get("tp_size", 1) > 1 else None


def is_multiple(large: float, small: float | None) -> bool:
    """Whether one interval is a whole number of the other; both in steps, or both shares of the run."""
    if small is None or (large < 1) != (small < 1):
        return False
    return abs(large / small - round(large / small)) < 1e-9
