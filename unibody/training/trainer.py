"""The trainer: what is called (`train`, `evaluate`, `predict`) and what a subclass may override."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unibody.integrations.reporting import get_reporting_integration_callbacks
from unibody.publishing import PushToHubMixin
from unibody.training import losses
from unibody.training.arguments import TrainingArguments
from unibody.training.callbacks import CallbackHandler, TrainerCallback
from unibody.training.checkpoints import STATE, find_checkpoint
from unibody.training.choices import IntervalStrategy, TokenCount
from unibody.training.collators import DataCollatorWithPadding, default_data_collator
from unibody.training.data import ColumnFilter, EpochLoader, evaluation_loader, forward_names, takes
from unibody.training.engines import Engine, choose_engine
from unibody.training.evaluation import evaluation_loop
from unibody.training.flow import DefaultFlowCallback, PreemptionCallback
from unibody.training.loop import TrainingLoop
from unibody.training.optimizers import optimizer_class, parameter_groups
from unibody.training.outputs import PredictionOutput, TrainOutput
from unibody.training.progress import PrinterCallback, ProgressCallback
from unibody.training.randomness import set_seed
from unibody.training.recomputing import enable_gradient_checkpointing
from unibody.training.reports import ReportsMixin
from unibody.training.schedulers import get_scheduler
from unibody.training.state import TrainerControl, TrainerState


class Trainer(ReportsMixin):
    """Trains any module that returns a loss, evaluates it, and predicts with it; on one process or, under torchrun, on several.

    `compute_loss_func(outputs, labels, num_items_in_batch=…)` stands in for the model's own loss; `compute_metrics` gets an
    EvalPrediction of arrays, and `preprocess_logits_for_metrics(logits, labels)` makes less of the logits first.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        model_init: Callable[[], nn.Module] | None = None,
        compute_loss_func: Callable[..., Tensor] | None = None,
        compute_metrics: Callable[..., Mapping[str, Any]] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.args = args = TrainingArguments() if args is None else args
        if (model is None) == (model_init is None):
            raise ValueError("the trainer needs either a model or model_init, the function that makes one")
        if args.eval_strategy != IntervalStrategy.NO and eval_dataset is None:
            raise ValueError(f"eval_strategy is {str(args.eval_strategy)!r}, and there is no eval_dataset: give one")
        self.engine = self.create_engine()
        set_seed(args.seed, args.full_determinism)
        self.model_init = model_init
        self.model = self.placed(model_init() if model_init is not None else model)
        self.train_dataset, self.eval_dataset, self.processing_class = train_dataset, eval_dataset, processing_class
        is_tokenizer = hasattr(processing_class, "pad")
        self.data_collator = data_collator or (
            DataCollatorWithPadding(processing_class) if is_tokenizer else default_data_collator
        )
        if args.batch_eval_metrics and compute_metrics is not None and not takes(compute_metrics, "compute_result"):
            raise ValueError(
                "batch_eval_metrics needs a compute_metrics that takes compute_result, which is True at the last batch"
            )
        if args.label_smoothing_factor:
            if compute_loss_func is not None:
                raise ValueError(
                    "label_smoothing_factor is for the model's own loss, and there is a compute_loss_func: leave one"
                )
            compute_loss_func = losses.smoothed_loss(args.label_smoothing_factor, losses.is_causal(self.model))
        self.compute_loss_func, self.compute_metrics = compute_loss_func, compute_metrics
        self.preprocess_logits_for_metrics = preprocess_logits_for_metrics
        self.optimizer, self.lr_scheduler = self.given_optimizers = optimizers
        self.optimizer_cls_and_kwargs = optimizer_cls_and_kwargs
        self.train_dataloader: Any = None
        self.eval_dataloader: Any = None
        self.current_gradient_accumulation_steps = args.gradient_accumulation_steps
        self.label_names = args.label_names or self.find_label_names()
        self.state = TrainerState(
            is_local_process_zero=self.engine.is_local_main_process, is_world_process_zero=self.engine.is_main_process
        )
        self.control = TrainerControl()
        every: list[Any] = [DefaultFlowCallback()]
        if args.enable_jit_checkpoint:
            every.append(PreemptionCallback(self.engine))
        every += [*get_reporting_integration_callbacks(args.report_to), *(callbacks or [])]
        every.append(PrinterCallback if args.disable_tqdm else ProgressCallback)
        self.callback_handler = CallbackHandler(every, self)
        self.push_failed = False
        self.callback_handler.call("on_init_end")

    def create_engine(self) -> Engine:
        """What carries model and optimizer; a subclass may bring one of its own."""
        return choose_engine(self.args)

    def train(self, resume_from_checkpoint: str | Path | bool | None = None) -> TrainOutput:
        """Trains, from the beginning or from a checkpoint (True: the last in output_dir), with the same result.

        NonFiniteLossError: a loss is not a number, and nan_strategy is "stop".
        """
        if self.train_dataset is None:
            raise ValueError("there is nothing to train on: give a train_dataset")
        wanted = self.args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        checkpoint = find_checkpoint(wanted, self.args.output_dir, self.engine.resumes_from) if wanted else None
        if self.model_init is not None:
            set_seed(self.args.seed, self.args.full_determinism)
            self.model = self.placed(self.model_init())
        self.optimizer, self.lr_scheduler = self.given_optimizers
        output = TrainingLoop(self).run(checkpoint)
        if self.args.push_to_hub:
            self.push_to_hub()
        return output

    def placed(self, model: Any) -> Any:
        """The model where it computes, and as the settings want it."""
        if self.args.activation_checkpointing:  # first, for an engine may wrap the layers
            enable_gradient_checkpointing(model, self.args.activation_checkpointing_kwargs)
        self.engine.place_model(model)
        return model

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The metrics on a dataset, or on each of a dict of them, whose names then follow the prefix."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ValueError("there is nothing to evaluate on: give an eval_dataset")
        if isinstance(dataset, dict):
            metrics: dict[str, float] = {}
            for name, part in dataset.items():
                metrics |= self.evaluate(part, ignore_keys, f"{metric_key_prefix}_{name}")
            return metrics
        self.eval_dataloader = self.get_eval_dataloader(dataset)
        loss_only = self.args.prediction_loss_only or self.compute_metrics is None
        found = evaluation_loop(
            self, self.eval_dataloader, loss_only=loss_only, ignore_keys=ignore_keys, prefix=metric_key_prefix
        ).metrics
        self.log(found)
        self.callback_handler.call("on_evaluate", metrics=found)
        return {**found, "epoch": self.state.epoch}

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Predictions for a dataset, in its order; with labels also these, and the metrics."""
        self.eval_dataloader = self.get_eval_dataloader(test_dataset)
        found = evaluation_loop(
            self, self.eval_dataloader, loss_only=False, ignore_keys=ignore_keys, prefix=metric_key_prefix
        )
        self.callback_handler.call("on_predict", metrics=found.metrics)
        return PredictionOutput(found.predictions, found.label_ids, found.metrics)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: float | None = None
    ) -> Any:
        """The mean loss over the labels of one batch; where the model or the function divides by `num_items_in_batch`, its share.

        ValueError: the model returns none.
        """
        labels, forwarded = None, inputs
        if self.compute_loss_func is not None:
            forwarded = dict(inputs)
            found = [forwarded.pop(name) for name in self.label_names if name in forwarded]
            labels = found[0] if len(found) == 1 else tuple(found) or None
        elif num_items_in_batch is not None and losses.takes_items(self.model):
            forwarded = {**inputs, "num_items_in_batch": num_items_in_batch}
        outputs = losses.call(model, forwarded)
        if self.compute_loss_func is not None:
            loss: Tensor | None = self.compute_loss_func(outputs, labels, num_items_in_batch=num_items_in_batch)
        else:
            loss = losses.find_loss(outputs)
        if loss is None:
            given = ", ".join(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
            raise ValueError(
                f"{type(self.model).__name__} returned no loss for a batch of {given}: give the examples labels, "
                "or the trainer a compute_loss_func"
            )
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: float | None = None) -> Tensor:
        """Forward and backward of one batch; what it adds to the loss of its step, over the batches of all processes."""
        model.train()
        items = losses.count_items(self.model, inputs)
        with self.engine.autocast():
            loss = self.compute_loss(model, self.engine.place(inputs), num_items_in_batch=num_items_in_batch)
        shards = self.engine.data_shards
        if num_items_in_batch is None:
            loss = loss / (self.current_gradient_accumulation_steps * shards)
        else:
            if self.compute_loss_func is None and not losses.takes_items(self.model):
                if items == 0:  # a mean over nothing is not a number
                    loss = loss.nan_to_num(0.0)
                loss = loss * (items / num_items_in_batch)
            if not self.args.average_tokens_across_devices:
                loss = loss / shards
        self.engine.backward(loss * shards)  # gradients are averaged over the processes
        contribution: Tensor = loss.detach().float()
        return contribution

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Any, Any]:
        """Loss, predictions and labels of one batch, each None where there is none."""
        placed = self.engine.place(inputs)
        labels = None
        if isinstance(placed, Mapping):
            found = [placed[name] for name in self.label_names if name in placed]
            labels = found[0] if len(found) == 1 else tuple(found) or None
        with torch.no_grad(), self.engine.autocast():
            if self.compute_loss_func is not None and labels is None:
                loss, outputs = None, losses.call(model, placed)
            elif self.compute_loss_func is not None or type(self).compute_loss is not Trainer.compute_loss:
                loss, outputs = self.compute_loss(model, placed, return_outputs=True)
            else:
                outputs = losses.call(model, placed)
                loss = losses.find_loss(outputs)
        loss = None if loss is None else loss.detach().float().mean()
        if prediction_loss_only:
            return loss, None, None
        return loss, losses.find_predictions(outputs, ignore_keys or []), labels

    def get_train_dataloader(self) -> EpochLoader:
        return EpochLoader(
            self.train_dataset, self.collator(), self.args, self.engine.data_shards, self.engine.data_shard
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return evaluation_loader(dataset, self.collator(), self.args, self.engine.data_shards, self.engine.data_shard)

    def collator(self) -> Callable[[list[Any]], Any]:
        """The collator, behind a filter of the columns that the model takes."""
        names = forward_names(losses.innermost(self.model)) if self.args.remove_unused_columns else None
        if names is None:
            return self.data_collator
        return ColumnFilter(self.data_collator, {*names, "label", "label_ids", *self.label_names})

    def find_label_names(self) -> list[str]:
        """The inputs of forward that are labels by their names."""
        names = forward_names(losses.innermost(self.model)) or {"labels"}
        return sorted(n for n in names if "label" in n or n in ("start_positions", "end_positions")) or ["labels"]

    def create_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that was given, or the one that the settings name."""
        if self.optimizer is None:
            found, options = self.optimizer_cls_and_kwargs or optimizer_class(self.args)
            try:
                self.optimizer = found(parameter_groups(self.model, self.args.weight_decay), **options)
            except TypeError as error:
                raise ValueError(f"{found.__name__} does not take these optim_args: {error}") from error
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule that was given, or the one that the settings name."""
        if self.lr_scheduler is None:
            self.lr_scheduler = get_scheduler(
                self.args.lr_scheduler_type, optimizer or self.optimizer,
                self.args.get_warmup_steps(num_training_steps), num_training_steps, self.args.lr_scheduler_kwargs,
            )  # fmt: skip
        return self.lr_scheduler

    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        """Makes both, where they were not given."""
        self.create_optimizer()
        self.create_scheduler(num_training_steps)

    def get_learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def log(self, logs: dict[str, float]) -> None:
        """Adds values to the history, and tells the callbacks."""
        logs = {**logs, "epoch": self.state.epoch}
        if self.args.include_num_input_tokens_seen != TokenCount.NO:
            logs["num_input_tokens_seen"] = self.state.num_input_tokens_seen
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.callback_handler.call("on_log", logs=logs)

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Writes the model, and the tokenizer if there is one, where `from_pretrained` reads them."""
        self.write_model(Path(output_dir or self.args.output_dir))
        self.engine.barrier()

    def write_model(self, folder: Path, whole: bool = True) -> None:
        self.engine.save_model(self.model, folder, whole)
        if self.engine.is_main_process and hasattr(self.processing_class, "save_pretrained"):
            self.processing_class.save_pretrained(folder)

    def save_state(self) -> None:
        """Writes trainer_state.json, with the history, to output_dir."""
        if self.engine.is_main_process:
            self.state.save_to_json(Path(self.args.output_dir, STATE))

    def push_to_hub(self, commit_message: str = "End of training", **options: Any) -> Any:
        """Uploads model and tokenizer as one commit; the options are those of a model's `push_to_hub`. None on other processes."""
        self.callback_handler.call("on_push_begin")
        defaults = {
            "token": self.args.hub_token,
            "private": self.args.hub_private_repo,
            "revision": self.args.hub_revision,
        }
        repository = self.args.hub_model_id or Path(self.args.output_dir).resolve().name
        done, place = None, Path(self.args.output_dir, ".pushed")
        self.save_model(place)  # by all processes: each may have a part
        if self.engine.is_main_process:
            model = SavedModel(place, getattr(self.model, "config", None))
            try:
                done = model.push_to_hub(repository, commit_message=commit_message, **{**defaults, **options})
            finally:
                shutil.rmtree(place)
        self.engine.barrier()
        return done

    def push_if_possible(self, commit_message: str) -> None:
        """Uploads; a failure is warned of once, and does not end the run."""
        try:
            self.push_to_hub(commit_message)
        except OSError as error:
            if not self.push_failed:
                warnings.warn(f"an upload failed, and training goes on: {error}", stacklevel=2)
            self.push_failed = True

    def add_callback(self, callback: Any) -> None:
        self.callback_handler.add(callback)

    def pop_callback(self, callback: Any) -> TrainerCallback | None:
        """Removes a callback, named by itself or its class, and returns it."""
        found = self.callback_handler.find(callback)
        if found is not None:
            self.callback_handler.callbacks.remove(found)
        return found

    def remove_callback(self, callback: Any) -> None:
        self.pop_callback(callback)

    def is_world_process_zero(self) -> bool:
        return self.engine.is_main_process

    def is_local_process_zero(self) -> bool:
        return self.engine.is_local_main_process


class SavedModel(PushToHubMixin):
    """What a trainer uploads: the files of a folder."""

    def __init__(self, folder: Path, config: Any) -> None:
        self.folder, self.config = folder, config

    def save_pretrained(self, folder: str) -> None:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)

    def _model_card(self, repo_id: str, tags: list[str] | None) -> str:
        return f"# {repo_id.rpartition('/')[2]}\n" if self.config is None else super()._model_card(repo_id, tags)
