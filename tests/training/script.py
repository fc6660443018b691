"""A training script, which tests run in processes of their own: script.py FOLDER CHECKPOINT JSON-of-settings [EVENT:STEP].

It trains the tiny Llama of CHECKPOINT with dropout and a collator that draws random numbers, and writes weights, history and
evaluation into FOLDER; with EVENT:STEP it kills itself there.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import unibody
from training.rows import rows
from unibody.generated.models.modeling_llama import LlamaForCausalLM
from unibody.training import checkpoints
from unibody.training.engines import data_parallel


class Noisy(nn.Module):
    """A model around the Llama whose loss has noise of each of the three random number generators."""

    def __init__(self, model: Any, noise: float) -> None:
        super().__init__()
        self.model, self.noise = model, noise

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> Any:
        loss = self.model(input_ids, attention_mask, labels=labels).loss
        if self.training:
            loss = loss * (1 + self.noise * (random.random() + np.random.rand() + torch.rand(()).item()))
        return {"loss": loss}


class Killer(unibody.TrainerCallback):
    """Ends the process without a word, as the kernel does."""

    def __init__(self, event: str, step: int) -> None:
        self.step = step
        setattr(self, event, self.strike)

    def strike(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def collate(features: list[Any]) -> Any:
    """Rows in which one token in ten is another, drawn at random."""
    batch = unibody.default_data_collator(features)
    drawn = torch.rand(batch["input_ids"].shape) < 0.1
    batch["input_ids"] = batch["input_ids"].masked_fill(
        drawn & (batch["attention_mask"] > 0), random.randrange(3, 128)
    )
    return batch


def record_threads(folder: Path) -> None:
    """Writes which threads are left at the end of the program."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    (folder / f"threads_{os.environ.get('RANK', '0')}.json").write_text(json.dumps(names), encoding="utf-8")


def main(folder: Path, checkpoint: Path, settings: dict[str, Any], kill: str = "") -> None:
    atexit.register(record_threads, folder)  # before the engine's own, so that it runs after that
    noise, resume = settings.pop("noise", 0.1), settings.pop("resume", False)
    model = LlamaForCausalLM.from_pretrained(checkpoint)
    model = Noisy(model, noise) if noise else model
    callbacks: list[Any] = []
    event, _, step = kill.partition(":")
    if event == "saving":  # halfway through writing the checkpoint of this step
        whole = checkpoints.save_model

        def half(model: Any, place: Path) -> None:
            whole(model, place)
            if place.name == f".checkpoint-{step}.partial":
                os.kill(os.getpid(), signal.SIGKILL)

        data_parallel.save_model = half
    elif event:
        callbacks.append(Killer(event, int(step)))
    args = unibody.TrainingArguments(output_dir=str(folder), use_cpu=True, disable_tqdm=True, **settings)
    trainer = unibody.Trainer(
        model, args, collate if noise else unibody.default_data_collator, rows(), rows(7, seed=2), callbacks=callbacks
    )
    trainer.train(resume_from_checkpoint=resume)
    found = trainer.evaluate()
    weights = {
        name: getattr(p.detach(), "full_tensor", p.detach)().contiguous() for name, p in model.named_parameters()
    }
    if trainer.is_world_process_zero():
        save_file(weights, folder / "weights.safetensors")
        text = json.dumps({"history": trainer.state.log_history, "eval_loss": found["eval_loss"]})
        (folder / "history.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), *sys.argv[4:])
