"""The loop of training: epochs, steps, and what follows a step; it begins anywhere, and then goes on as if never stopped."""

from __future__ import annotations

import math
import time
import warnings
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from traceback import clear_frames
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from unibody.core.saving import write_atomically
from unibody.errors import UnibodyError
from unibody.logging import get_logger
from unibody.training import checkpoints
from unibody.training.choices import HubStrategy, NonFinite, SaveStrategy, TokenCount
from unibody.training.evaluation import speed
from unibody.training.flow import find_metric
from unibody.training.losses import count_items, count_tokens
from unibody.training.noise import noisy_embeddings
from unibody.training.outputs import TrainOutput
from unibody.training.randomness import get_random_states, set_random_states, set_seed
from unibody.training.state import TrainerState

if TYPE_CHECKING:
    from unibody.training.trainer import Trainer

logger = get_logger(__name__)
ENDLESS = 2**31 - 1


class NonFiniteLossError(UnibodyError, ArithmeticError):
    """A loss or a gradient is not a finite number: says at which step and batch."""


class TrainingLoop:
    """One run of a trainer, from the beginning or from a checkpoint."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.args, self.engine = trainer, trainer.args, trainer.engine
        self.loader: Any = trainer.get_train_dataloader()
        self.batches = len(self.loader) if getattr(self.loader, "has_length", True) else None  # of an epoch
        self.steps = None if self.batches is None else -(-self.batches // self.args.gradient_accumulation_steps)
        if self.batches == 0:
            raise ValueError(
                "an epoch of train_dataset has no batch: it is empty, or dataloader_drop_last leaves none"
            )
        if self.args.auto_find_batch_size and self.engine.world_size > 1:
            raise ValueError(
                "auto_find_batch_size is for one process: set per_device_train_batch_size, gradient_accumulation_steps"
            )
        self.max_steps, self.epochs = self.plan()
        self.batch_size = self.args.train_batch_size * self.engine.data_shards  # of all processes
        self.learning_rate = self.gradient_norm = 0.0

    def plan(self) -> tuple[int, int]:
        """How many steps and epochs there will be. ValueError: nothing says so."""
        if self.args.max_steps > 0:
            epochs = ENDLESS if self.steps is None else -(-self.args.max_steps // self.steps)
            return self.args.max_steps, epochs
        if self.steps is None:
            raise ValueError("train_dataset has no length: set max_steps, which says when the run ends")
        return math.ceil(self.args.num_train_epochs * self.steps), math.ceil(self.args.num_train_epochs)

    def run(self, checkpoint: Path | None) -> TrainOutput:
        """Trains to the end; the weights are those of the best checkpoint if the settings say so."""
        trainer, call = self.trainer, self.trainer.callback_handler.call
        trainer.state = self.begin_state(checkpoint)
        trainer.train_dataloader = self.loader
        self.engine.start(trainer, self.max_steps)
        set_seed(self.args.seed + self.engine.data_shard, self.args.full_determinism)
        if self.engine.is_main_process:
            checkpoints.remove_leftovers(self.args.output_dir)
        trainer.control.should_training_stop = False
        started, before, tokens = time.perf_counter(), trainer.state.global_step, trainer.state.num_input_tokens_seen
        if checkpoint is not None:
            self.restore(checkpoint)
        call("on_train_begin")
        if self.args.eval_on_start and checkpoint is None:
            trainer.evaluate()
        if checkpoint is not None:
            self.restore_random_states(checkpoint)
        with noisy_embeddings(trainer.model, self.args.neftune_noise_alpha):
            self.run_epochs()
        state, seconds = trainer.state, time.perf_counter() - started
        if self.args.load_best_model_at_end:
            self.load_best_model()
        steps, tokens = state.global_step - before, state.num_input_tokens_seen - tokens
        rows = steps * self.batch_size * self.args.gradient_accumulation_steps
        metrics = speed("train", seconds, samples=rows, steps=steps, **({"tokens": tokens} if tokens else {}))
        metrics["train_loss"] = state.total_loss / max(1, state.global_step - state.skipped_steps)
        trainer.log(metrics)
        call("on_train_end")
        self.engine.barrier()
        return TrainOutput(state.global_step, metrics["train_loss"], {**metrics, "epoch": state.epoch})

    def begin_state(self, checkpoint: Path | None) -> TrainerState:
        """The state of the beginning, or of the checkpoint. ValueError: the checkpoint does not fit this run."""
        state = TrainerState() if checkpoint is None else TrainerState.load_from_json(checkpoint / checkpoints.STATE)
        if state.global_step > self.max_steps:
            raise ValueError(f"{checkpoint} has done {state.global_step} steps, and this run ends at {self.max_steps}")
        state.max_steps, state.num_train_epochs = self.max_steps, self.epochs
        found, self.trainer.state = state.train_batch_size, state
        if self.args.auto_find_batch_size and found and self.args.per_device_train_batch_size % found == 0:
            self.adopt_batch_size(found)  # what the run before has found out
        state.train_batch_size = self.args.train_batch_size
        for name in ("logging_steps", "eval_steps", "save_steps"):
            every = getattr(self.args, name)
            setattr(state, name, math.ceil(every * self.max_steps) if every < 1 else int(every))
        state.is_world_process_zero = self.engine.is_main_process
        state.is_local_process_zero = self.engine.is_local_main_process
        if state.position is None:
            done, steps = state.global_step, self.steps or ENDLESS
            batches = done % steps * self.args.gradient_accumulation_steps
            state.position = {"epoch": done // steps, "examples": batches * self.batch_size}
        if self.args.ignore_data_skip:
            state.position["examples"] = 0
        return state

    def restore(self, checkpoint: Path) -> None:
        """Weights, optimizer, schedule and callbacks as they were."""
        self.engine.load_model(self.trainer.model, checkpoint)
        self.engine.load_optimizer(checkpoint)
        saved = torch.load(checkpoint / "scheduler.pt", weights_only=True)
        self.trainer.lr_scheduler.load_state_dict(saved)
        self.trainer.callback_handler.restore(self.trainer.state.stateful_callbacks)

    def restore_random_states(self, checkpoint: Path) -> None:
        file = checkpoint / self.random_states_file
        try:
            set_random_states(torch.load(file, weights_only=True))
        except (FileNotFoundError, UnpicklingError):  # written by other processes, or by another library
            text = f"{file} is not there, or not this library's: dropout goes on with other random numbers"
            warnings.warn(text, stacklevel=4)

    @property
    def random_states_file(self) -> str:
        return f"rng_state_{self.engine.rank}.pth" if self.engine.world_size > 1 else "rng_state.pth"

    def run_epochs(self) -> None:
        trainer, call, state = self.trainer, self.trainer.callback_handler.call, self.trainer.state
        assert state.position is not None
        first, skip = state.position["epoch"], state.position["examples"] // self.batch_size
        for epoch in range(first, self.epochs):
            if state.global_step >= self.max_steps:
                break
            self.loader.start(epoch, skip)
            trainer.control.should_epoch_stop = False
            call("on_epoch_begin")
            done = self.run_epoch(epoch, skip)
            if done == 0:
                raise ValueError(f"train_dataset gave no batch in epoch {epoch}")
            state.position, skip = {"epoch": epoch + 1, "examples": 0}, 0
            call("on_epoch_end")
            self.follow_up()
            if trainer.control.should_training_stop:
                break

    def run_epoch(self, epoch: int, skip: int) -> int:
        """The steps of one epoch; how many batches of it are done."""
        trainer, call, state = self.trainer, self.trainer.callback_handler.call, self.trainer.state
        iterator, done = iter(self.loader), skip
        while batches := list(islice(iterator, self.args.gradient_accumulation_steps)):
            trainer.control.new_step()
            call("on_step_begin")
            try:
                taken = self.run_step(batches, epoch, done)
            except RuntimeError as error:
                done *= self.split_batches(error)
                self.loader.start(epoch, done)
                iterator = iter(self.loader)
                continue
            done += len(batches)
            state.global_step += 1
            state.epoch = epoch + done / (self.batches or self.max_steps * self.args.gradient_accumulation_steps)
            state.position = {"epoch": epoch, "examples": done * self.batch_size}
            if not taken:
                state.skipped_steps += 1
            call("on_step_end")
            if (every := self.args.torch_empty_cache_steps) and state.global_step % every == 0:
                self.engine.empty_cache()
            self.follow_up()
            if trainer.control.should_epoch_stop or trainer.control.should_training_stop:
                break
        return done

    def run_step(self, batches: list[Any], epoch: int, first: int) -> bool:
        """Forward and backward of all batches, then the optimizer; False: it was not asked, for a number was not finite."""
        trainer, call, state, engine = (
            self.trainer,
            self.trainer.callback_handler.call,
            self.trainer.state,
            self.engine,
        )
        padding = self.args.include_num_input_tokens_seen != TokenCount.NON_PADDING
        local = sum(count_items(trainer.model, batch) for batch in batches)
        items, tokens = engine.sum([local, sum(count_tokens(batch, padding) for batch in batches)])
        items = items if self.args.average_tokens_across_devices else local
        trainer.current_gradient_accumulation_steps = len(batches)
        losses = []
        for number, batch in enumerate(batches, 1):
            with engine.accumulate(last=number == len(batches)):
                losses.append(trainer.training_step(engine.model, batch, items or None))
            if number < len(batches):
                call("on_substep_end")
        state.num_input_tokens_seen += int(tokens)
        values = torch.stack(losses).tolist()
        loss = engine.sum([sum(values)])[0]
        self.learning_rate = trainer.get_learning_rate()
        self.gradient_norm = engine.clip(self.args.max_grad_norm)
        finite = math.isfinite(loss) and (self.args.fp16 or math.isfinite(self.gradient_norm))
        if not finite and self.args.nan_strategy != NonFinite.IGNORE:
            self.refuse_step(loss, values, epoch, first)
            return False
        call("on_pre_optimizer_step")
        taken = engine.step()
        call("on_optimizer_step")
        if taken and not isinstance(trainer.lr_scheduler, ReduceLROnPlateau):
            trainer.lr_scheduler.step()
        state.loss_sum += loss
        state.total_loss += loss
        state.steps_summed += 1
        return True

    def split_batches(self, error: RuntimeError) -> int:
        """Makes the batches smaller and more of them, if memory has run out and that is wanted: by which factor. Raises the error if not.

        A step has the same examples as before, so the run goes on as it would have with enough memory.
        """
        size, args = self.args.per_device_train_batch_size, self.args
        if not args.auto_find_batch_size or size == 1 or not is_out_of_memory(error):
            raise error
        factor = next(part for part in range(2, size + 1) if size % part == 0)
        self.adopt_batch_size(size // factor)
        logger.warning(
            "memory ran out at batches of %d: they have %d now, and a step more of them", size, size // factor
        )
        clear_frames(error.__traceback__)  # what the step had computed
        self.engine.optimizer.zero_grad()
        self.engine.empty_cache()
        return factor

    def adopt_batch_size(self, size: int) -> None:
        """Batches of this size from now on, and as many more in a step."""
        args, state = self.args, self.trainer.state
        args.gradient_accumulation_steps *= args.per_device_train_batch_size // size
        args.per_device_train_batch_size = state.train_batch_size = size
        self.batch_size = args.train_batch_size * self.engine.data_shards
        self.batches = len(self.loader) if self.batches is not None else None

    def refuse_step(self, loss: float, values: list[float], epoch: int, first: int) -> None:
        """Stops the run, or leaves the step out, and says where it was; the weights are as before."""
        bad = [first + number for number, value in enumerate(values) if not math.isfinite(value)]
        place = f"in batch {', '.join(map(str, bad))} of epoch {epoch}" if bad else "in another process"
        if math.isfinite(loss):
            place = f"of the gradient is {self.gradient_norm} and the loss {loss:.4g}, in epoch {epoch}, batches from {first} on"
        what = f"the norm {place}" if math.isfinite(loss) else f"the loss is {loss} {place}"
        message = f"step {self.trainer.state.global_step + 1}: {what}"
        if self.args.nan_strategy == NonFinite.STOP:
            remedy = "lower learning_rate, look at these examples, or set nan_strategy='skip' to leave such steps out"
            raise NonFiniteLossError(f"{message}: {remedy}; the weights are those of the step before")
        logger.warning("%s: the step is left out", message)
        self.engine.discard()
        if not isinstance(self.trainer.lr_scheduler, ReduceLROnPlateau):
            with warnings.catch_warnings():  # torch warns of a schedule that moves before the optimizer
                warnings.simplefilter("ignore", UserWarning)
                self.trainer.lr_scheduler.step()

    def follow_up(self) -> None:
        """Logs, evaluates and saves, if a callback asks for it."""
        trainer, control, state = self.trainer, self.trainer.control, self.trainer.state
        if control.should_log:
            control.should_log = False
            if state.steps_summed:
                logs = {"loss": state.loss_sum / state.steps_summed, "grad_norm": self.gradient_norm}
                state.loss_sum, state.steps_summed = 0.0, 0
                trainer.log({**logs, "learning_rate": self.learning_rate})
        if control.should_evaluate:
            self.judge(trainer.evaluate())
        if trainer.control.should_save:
            self.save()
            trainer.callback_handler.call("on_save")
            if self.args.push_to_hub and self.args.hub_strategy == HubStrategy.EVERY_SAVE:
                trainer.push_if_possible(f"Training in progress, step {state.global_step}")

    def judge(self, metrics: dict[str, float]) -> None:
        """Whether this is the best evaluation so far; schedules that look at the metric move on."""
        trainer, state = self.trainer, self.trainer.state
        if isinstance(trainer.lr_scheduler, ReduceLROnPlateau):
            judged = find_metric(self.args.metric_for_best_model or "loss", metrics)
            if judged is not None:
                trainer.lr_scheduler.step(judged)
        if self.args.metric_for_best_model is None:
            return
        value = find_metric(self.args.metric_for_best_model, metrics)
        if value is None:
            raise ValueError(
                f"metric_for_best_model is {self.args.metric_for_best_model!r}, which the evaluation does not give: "
                f"it gives {', '.join(metrics)}"
            )
        best = state.best_metric
        if best is None or (value > best if self.args.greater_is_better else value < best):
            state.best_metric, state.best_global_step = value, state.global_step
            trainer.control.should_save |= self.args.save_strategy == SaveStrategy.BEST

    def save(self) -> None:
        """Writes `checkpoint-<step>`, whole or not at all; removes those that are too many."""
        trainer, state, engine = self.trainer, self.trainer.state, self.engine
        folder = Path(self.args.output_dir, f"checkpoint-{state.global_step}")
        if state.best_global_step == state.global_step:
            state.best_model_checkpoint = str(folder)
        state.stateful_callbacks = trainer.callback_handler.states()
        with checkpoints.written_whole(folder, engine.is_main_process) as place:
            engine.barrier()
            trainer.write_model(place, whole=False)
            if not self.args.save_only_model:
                engine.save_optimizer(place)
                torch.save(get_random_states(), place / self.random_states_file)
            if engine.is_main_process:
                torch.save(trainer.lr_scheduler.state_dict(), place / "scheduler.pt")
                state.save_to_json(place / checkpoints.STATE)
                text = self.args.to_json_string()
                write_atomically(place / "training_args.json", lambda path: path.write_text(text, encoding="utf-8"))
            engine.barrier()
        engine.barrier()
        if engine.is_main_process:
            best = state.best_model_checkpoint if self.args.metric_for_best_model else None
            checkpoints.rotate(self.args.output_dir, self.args.save_total_limit, best)

    def load_best_model(self) -> None:
        """The weights of the best checkpoint."""
        folder = Path(self.args.output_dir, f"checkpoint-{self.trainer.state.best_global_step}")
        if self.trainer.state.best_global_step is None or not folder.is_dir():
            logger.warning("no checkpoint of the best evaluation is there: the weights are the last")
            return
        self.engine.barrier()
        self.engine.load_model(self.trainer.model, folder)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the CPU's allocator, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
