"""What tests of DeepSpeed run in several processes: deepspeed_worker.py FOLDER CHECKPOINT JSON, {scenario: its options}.

Each process writes what its scenarios found into FOLDER/found-<rank>.json.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from ending import end
from torch import nn

import unibody
from training.rows import rows
from training.script import Noisy, collate

FOLDER, CHECKPOINT = (Path(sys.argv[1]), sys.argv[2]) if __name__ == "__main__" else (Path(), "")
RANK = int(os.environ.get("RANK", "0"))
GATHER = "stage3_gather_16bit_weights_on_model_save"
RUNS = {
    "sgd": {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.5, "weight_decay": 0.1},
    "adamw": {"optim": "adamw_torch", "learning_rate": 1e-3, "weight_decay": 0.1, "lr_scheduler_type": "cosine", "warmup_steps": 3},
}  # fmt: skip
CLOSE = 1e-5  # of two ways to compute the same in float32
AUTO = "auto"
BATCH = dict.fromkeys(
    ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), AUTO
)
OPTIMIZER = {
    "type": "AdamW",
    "params": {**dict.fromkeys(("lr", "betas", "eps", "weight_decay"), AUTO), "torch_adam": True},
}
SCHEDULER = {
    "type": "WarmupDecayLR",
    "params": dict.fromkeys(("warmup_min_lr", "warmup_max_lr", "warmup_num_steps", "total_num_steps"), AUTO),
}
SIZES = dict.fromkeys(
    ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold"), AUTO
)
SAME: dict[str, dict[str, Any]] = {  # what transformers runs too
    "ours-2": {**BATCH, "zero_optimization": {"stage": 2}},
    "ours-3": {**BATCH, "zero_optimization": {"stage": 3, **SIZES}},
    "optimizer-1": {**BATCH, "optimizer": OPTIMIZER, "zero_optimization": {"stage": 1}},
    "both-2": {**BATCH, "optimizer": OPTIMIZER, "scheduler": SCHEDULER, "zero_optimization": {"stage": 2}},
    "both-3": {**BATCH, "optimizer": OPTIMIZER, "scheduler": SCHEDULER, "zero_optimization": {"stage": 3, **SIZES}},
}
SAME_SETTINGS: dict[str, Any] = {
    "max_steps": 10, "learning_rate": 1e-2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "weight_decay": 0.1,
    "warmup_steps": 2, "max_grad_norm": 0.5, "optim": "adamw_torch", "lr_scheduler_type": "cosine",
}  # fmt: skip
STEADY = {"learning_rate": 1e-3, "max_steps": 12, "save_steps": 4, "per_device_train_batch_size": 2, "warmup_steps": 3}


def config(stage: int, **more: Any) -> dict[str, Any]:
    """ZeRO of this stage; nothing is kept whole because it is small."""
    zero = {"stage": stage, **({"stage3_param_persistence_threshold": 0, GATHER: True} if stage == 3 else {})}
    return {"zero_optimization": zero, **more}


def make(name: str, deepspeed: Any, model: Any = None, load: Any = None, **settings: Any) -> Any:
    """A trainer, whose arguments are made before its model is loaded."""
    objects = {key: settings.pop(key) for key in ("callbacks", "data_collator", "train_dataset") if key in settings}
    defaults = {
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "per_device_eval_batch_size": 2, "max_steps": 20,
        "logging_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    args = unibody.TrainingArguments(str(FOLDER / name), deepspeed=deepspeed, **{**defaults, **settings})
    model = (load or unibody.LlamaForCausalLM.from_pretrained)(CHECKPOINT) if model is None else model
    data = {"train_dataset": rows(), "eval_dataset": rows(7, seed=2), **objects}
    return unibody.Trainer(model, args, **data)


def logged(trainer: Any, name: str = "loss") -> list[float]:
    return [log[name] for log in trainer.state.log_history if "loss" in log]


def parts_of_optimizer(trainer: Any) -> int:
    """The elements that this process keeps of what the optimizer remembers of each weight."""
    states = trainer.engine.model.basic_optimizer.state.values()
    return sum(value.numel() for state in states for value in state.values() if torch.is_tensor(value) and value.dim())


def curves() -> dict[str, Any]:
    """20 steps of each stage and optimizer, the end of an epoch in between, where a step has one batch only."""
    found = {}
    for stage in range(4):
        for name, settings in RUNS.items():
            trainer = make("curves", config(stage), **settings)
            before = trainer.evaluate()["eval_loss"]
            trainer.train()
            engine = trainer.engine.model
            found[f"{name}-{stage}"] = {
                "loss": logged(trainer), "grad_norm": logged(trainer, "grad_norm"), "learning_rate": logged(trainer, "learning_rate"),
                "eval_loss": [before, trainer.evaluate()["eval_loss"]], "optimizer": parts_of_optimizer(trainer),
                "parameters": sum(getattr(p, "ds_tensor", p).numel() for p in trainer.model.parameters()),
                "norm_of_deepspeed": float(engine.get_global_grad_norm() or 0) if stage else None,
            }  # fmt: skip
    return found


def same() -> dict[str, Any]:
    """The runs of SAME."""
    found = {}
    for name, deepspeed in SAME.items():
        trainer = make("same", deepspeed, **SAME_SETTINGS)
        trainer.train()
        found[name] = list(zip(logged(trainer), logged(trainer, "grad_norm"), strict=True))
    return found


def anonymous() -> int:
    """The bytes of this process that are no file's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


def loading(large: str) -> dict[str, Any]:
    """A checkpoint of 100 MB: how much memory each process needs while it is read, and what it keeps; a head that it lacks."""
    from unibody.integrations.deepspeed.partition import Partition

    args = unibody.TrainingArguments(str(FOLDER), use_cpu=True, deepspeed=config(3))
    unibody.LlamaForCausalLM.from_pretrained(CHECKPOINT)  # all libraries are there now
    before, seen, create = anonymous(), [0], Partition.create_quantized_param

    def watched(*arguments: Any) -> None:
        create(*arguments)
        seen.append(anonymous() - before)

    Partition.create_quantized_param = watched  # type: ignore[method-assign]
    model = unibody.AutoModelForCausalLM.from_pretrained(large)
    Partition.create_quantized_param = create  # type: ignore[method-assign]
    made = unibody.AutoModelForCausalLM.from_config(model.config)
    found = {
        "peak": max(seen), "whole": 4 * sum(p.ds_numel for p in model.parameters()),
        "kept": sum(p.ds_tensor.nbytes for p in model.parameters()), "left": sum(p.numel() for p in model.parameters()),
        "made": sum(p.ds_tensor.nbytes for p in made.parameters()),
        "deviation": float(torch.cat([p.ds_tensor for p in made.model.layers[0].mlp.parameters()]).std()),
        "errors": [],
    }  # fmt: skip
    bnb = unibody.BitsAndBytesConfig(load_in_4bit=True)
    for options in ({"quantization_config": bnb}, {"device_map": "cpu"}):
        try:
            unibody.LlamaForCausalLM.from_pretrained(CHECKPOINT, **options)
        except ValueError as error:
            found["errors"].append(str(error))
    try:
        model.save_pretrained(FOLDER / "refused")
    except ValueError as error:
        found["errors"].append(str(error))
    del args
    return found


def tied() -> dict[str, Any]:
    """Models whose embeddings are tied, with a padding row, loaded in parts, trained, and saved whole."""
    sizes = {
        "vocab_size": 128,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    models: dict[str, Any] = {
        "llama": (unibody.LlamaForCausalLM, unibody.LlamaConfig(tie_word_embeddings=True, **sizes)),
        "bert": (unibody.BertForMaskedLM, unibody.BertConfig(pad_token_id=0, **sizes)),
    }
    found, ids = {}, torch.tensor([[5, 6, 7, 8]])
    for name, (cls, settings) in models.items():
        torch.manual_seed(0)
        whole, place = cls(settings).eval(), FOLDER / f"tied-{name}"
        if RANK == 0:
            whole.save_pretrained(place)
        torch.distributed.barrier()
        trainer = make("tied", config(3), load=lambda _, cls=cls, place=place: cls.from_pretrained(place), max_steps=2)
        trainer.engine.prepare_evaluation(trainer)
        with torch.no_grad():
            difference = (trainer.model.eval()(input_ids=ids).logits - whole(input_ids=ids).logits).abs().max()
        trainer.train()
        trainer.save_model(place / "trained")
        kept, made = (
            sum(p.ds_tensor.numel() for p in model.parameters())
            for model in (trainer.model, unibody.AutoModel.from_config(settings))
        )
        whole = sum(p.numel() for p in whole.parameters())
        found[name] = {"difference": float(difference), "kept": kept / whole, "made": made / whole}
    return found


def saving() -> dict[str, Any]:
    """Checkpoints in bfloat16, whole and in parts; the best is loaded at the end, the oldest removed."""
    found = {}
    for stage in (0, 2, 3):
        settings = {
            "bf16": True, "max_steps": 6, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2,
            "load_best_model_at_end": True, "save_total_limit": 2, "learning_rate": 3e-2, "optim": "adamw_torch",
        }  # fmt: skip
        trainer = make(f"saving-{stage}", config(stage), **settings)
        trainer.train()
        found[str(stage)] = {
            "best": trainer.state.best_metric,
            "step": trainer.state.best_global_step,
            "eval_loss": trainer.evaluate()["eval_loss"],
        }
        trainer.save_model(FOLDER / f"saving-{stage}" / "best")
    without = config(3)
    del without["zero_optimization"][GATHER]
    trainer = make("parts", without, max_steps=2, optim="adamw_torch", save_strategy="steps", save_steps=2)
    trainer.train()
    whole = config(3)
    trainer.engine.config.config["zero_optimization"][GATHER] = whole["zero_optimization"][GATHER]
    trainer.save_model(FOLDER / "parts" / "whole")
    return found


def generating() -> list[Any]:
    """Texts of unequal lengths in each process, under ZeRO-3, before training."""
    trainer = make("generating", config(3))
    trainer.engine.prepare_evaluation(trainer)
    ids = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]]) + RANK
    found = []
    for options in ({"do_sample": False}, {"do_sample": False, "num_beams": 2}):
        tokens = trainer.model.generate(ids, max_new_tokens=4 + 5 * RANK, **options)
        found.append(tokens.tolist())
    stream = trainer.model.stream(ids, max_new_tokens=9)
    found.append([next(stream).tolist() for _ in range(3 - RANK)])
    stream.close()
    return found


class Spoiled(nn.Module):
    """A model whose loss in the third batch is not a number, in the second process."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.batches = model, 0

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> Any:
        loss = self.model(input_ids, attention_mask, labels=labels).loss
        self.batches += self.training
        return {"loss": loss * float("nan") if self.training and self.batches == 3 and RANK == 1 else loss}


def spoiling() -> dict[str, Any]:
    found: dict[str, Any] = {}
    settings = {"max_steps": 5, "gradient_accumulation_steps": 1, **RUNS["adamw"]}
    for stage in range(4):
        for kind in ({}, {"bf16": True}):
            load = lambda folder: Spoiled(unibody.LlamaForCausalLM.from_pretrained(folder))  # noqa: E731
            trainer = make("spoiling", config(stage), load=load, nan_strategy="skip", **settings, **kind)
            trainer.train()
            found[f"{stage}-{'bf16' in kind}"] = [logged(trainer), trainer.state.skipped_steps]
    try:
        make("spoiling", config(3), load=load, **settings).train()
    except unibody.NonFiniteLossError as error:
        found["error"] = str(error)
    return found


def again() -> dict[str, Any]:
    """A trainer that trains twice; adapters; a plain module with shared weights; layers that are computed again."""
    found: dict[str, Any] = {}
    for stage in (1, 3):
        trainer = make("again", config(stage), max_steps=3, **RUNS["sgd"])
        trainer.train()
        trainer.train()
        found[f"twice-{stage}"] = logged(trainer)
        trainer = make("again", config(stage), max_steps=3, gradient_checkpointing=True, **RUNS["sgd"])
        trainer.train()
        found[f"recomputed-{stage}"] = logged(trainer)
    return found


def refusing(other: str) -> dict[str, str]:
    """What is refused; needs the checkpoints of `saving`."""
    found, fewer = {}, FOLDER / "fewer"
    if RANK == 0:
        shutil.copytree(FOLDER / "saving-2" / "checkpoint-6", fewer)
        next(fewer.glob("*/*zero_pp_rank_1_*")).unlink()
    torch.distributed.barrier()
    contradicting = config(2, train_micro_batch_size_per_gpu=7, gradient_clipping=3.0)
    attempts = {
        "contradiction": lambda: make("refusing", contradicting).train(),
        "optimizer": lambda: twice(),
        "no checkpoint": lambda: make("refusing", config(2)).train(resume_from_checkpoint=other),
        "other number": lambda: make("refusing", config(2)).train(resume_from_checkpoint=fewer),
        "other model": lambda: fill(make("refusing", config(3)), Path(other)),
        "upload": lambda: make(
            "refusing", {"zero_optimization": {"stage": 3}}, push_to_hub=True, hub_model_id="a/b"
        ).train(),
        "compiler": lambda: make("refusing", config(2), torch_compile=True).train(),
        "float16": lambda: make("refusing", config(0), fp16=True).train(),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except ValueError as error:
            found[name] = str(error)
    return found


def fill(trainer: Any, folder: Path) -> None:
    trainer.engine.load_model(trainer.model, folder)


def twice() -> None:
    trainer = make("refusing", config(2, optimizer={"type": "AdamW", "params": {"torch_adam": True}}))
    trainer.given_optimizers = (torch.optim.SGD(trainer.model.parameters(), lr=1.0), None)
    trainer.train()


class Killer(unibody.TrainerCallback):
    """Ends the second process: without a word, as the kernel does, or with an error."""

    def __init__(self, step: int, word: str) -> None:
        self.step, self.word = step, word

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if RANK == 1 and state.global_step == self.step:
            (FOLDER / "died").touch()
            if self.word:
                raise RuntimeError(self.word)
            os.kill(os.getpid(), signal.SIGKILL)


def steady(name: str, file: str, kill: int = 0, word: str = "", resume: bool = False) -> dict[str, Any]:
    """A run with DeepSpeed's optimizer and schedule, dropout and a collator that draws random numbers; perhaps killed."""
    load = lambda folder: Noisy(unibody.LlamaForCausalLM.from_pretrained(folder), 0.1)  # noqa: E731
    callbacks = [Killer(kill, word)] if kill else []
    settings = {**STEADY, "save_strategy": "steps", "callbacks": callbacks, "data_collator": collate}
    trainer = make(name, file, load=load, **settings)
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model(FOLDER / name / "end")
    return {"loss": logged(trainer), "learning_rate": logged(trainer, "learning_rate")}


if __name__ == "__main__":
    results = {name: globals()[name](**options) for name, options in json.loads(sys.argv[3]).items()}
    (FOLDER / f"found-{RANK}.json").write_text(json.dumps(results), encoding="utf-8")
    end()
