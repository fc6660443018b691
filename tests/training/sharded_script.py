"""Many short runs in one process, or in several under a launcher: sharded_script.py FOLDER JSON-of-cases.

A case is {"name", "settings", and perhaps "model", "resume", "kill"}; what each process saw of it goes to FOLDER/<name>/rank-<rank>.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from ending import end
from torch import nn

import unibody
from training.rows import rows
from unibody.generated.models.modeling_llama import LlamaForCausalLM
from unibody.training.engines import sharded_checkpoints

SMALL = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


class WrappedForCausalLM(nn.Module):
    """A module of a user's own, with a model of a generated file in it."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.inner = LlamaForCausalLM.from_pretrained(checkpoint)

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> Any:
        return {"loss": self.inner(input_ids, attention_mask, labels=labels).loss}


def tied(checkpoint: str) -> Any:
    """A model with a tied head whose starting values are others on each process."""
    torch.manual_seed(int(os.environ.get("RANK", "0")))
    return unibody.LlamaForCausalLM(unibody.LlamaConfig(**SMALL, tie_word_embeddings=True))


def adapted(checkpoint: str, four_bits: bool) -> Any:
    import peft

    torch.manual_seed(7)
    config = unibody.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4") if four_bits else None
    model = unibody.AutoModelForCausalLM.from_pretrained(checkpoint, quantization_config=config)
    model.add_adapter(peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    return model


def family(name: str) -> Any:
    torch.manual_seed(3)
    config = getattr(unibody, f"{name}Config")
    known = {key: value for key, value in SMALL.items() if hasattr(config(), key)}
    found = config(**known)
    found.head_dim = 8
    return getattr(unibody, f"{name}ForMaskedLM" if "ert" in name else f"{name}ForCausalLM")(found)


def make(kind: str, checkpoint: str) -> Any:
    """The model of a case; the default is the checkpoint's, in float32."""
    makers = {"wrapped": WrappedForCausalLM, "file": LlamaForCausalLM.from_pretrained, "tied": tied}
    if kind in makers:
        return makers[kind](checkpoint)
    if kind in ("lora", "qlora"):
        return adapted(checkpoint, four_bits=kind == "qlora")
    if kind.startswith("family:"):
        return family(kind.removeprefix("family:"))
    return unibody.AutoModelForCausalLM.from_pretrained(kind or checkpoint, dtype="float32")


def local_bytes(tensors: Any) -> int:
    return sum((t.to_local() if hasattr(t, "to_local") else t).nbytes for t in tensors)


def memory(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in text.splitlines() if line.startswith(key)).split()[1]) * 1024


def die_while_saving(step: int) -> None:
    """The second process ends without a word after it has written its part of the weights."""
    save = sharded_checkpoints.save_sharded_optimizer

    def half(model: Any, optimizer: Any, folder: Path) -> None:
        if f"checkpoint-{step}" in folder.name and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        save(model, optimizer, folder)

    sharded_checkpoints.save_sharded_optimizer = half


def run(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    settings = {
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "max_steps": 20, "learning_rate": 1e-3,
        "weight_decay": 0.1, "lr_scheduler_type": "cosine", "warmup_steps": 3, "max_grad_norm": 0.5, "save_steps": 8,
        "eval_strategy": "steps", "eval_steps": 10, "per_device_eval_batch_size": 2, **case["settings"],
    }  # fmt: skip
    if "kill" in case:
        die_while_saving(case["kill"])
    args = unibody.TrainingArguments(str(folder / case["name"]), **settings)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    resident, before = memory("VmRSS"), memory("RssAnon")
    model = make(case.get("model", ""), case["checkpoint"])
    devices, loaded = sorted({p.device.type for p in model.parameters()}), memory("RssAnon") - before
    trainer = unibody.Trainer(model, args, unibody.default_data_collator, rows(48), rows(7, seed=2))
    peak, held = memory("VmHWM") - resident, memory("RssAnon") - before
    trainer.train(resume_from_checkpoint=case.get("resume", False))
    evaluated = trainer.evaluate()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    state = [v for values in trainer.optimizer.state.values() for v in values.values() if isinstance(v, torch.Tensor)]
    found = {
        "losses": [log["loss"] for log in logs],
        "norms": [log["grad_norm"] for log in logs],
        "eval_loss": evaluated["eval_loss"],
        "parameters": local_bytes(model.parameters()),
        "optimizer": local_bytes(state),
        "units": sorted({type(m).__name__ for m in model.modules() if isinstance(m, unit_class())}),
        "devices": devices, "loaded": loaded, "peak": peak, "held": held,
        "tied": len({id(p) for p in model.parameters()}) < len(list(model.named_parameters(remove_duplicate=False))),
        "predictions": list(trainer.predict(rows(5, seed=4)).predictions.shape) if case.get("predict") else None,
    }  # fmt: skip
    trainer.save_model(folder / case["name"] / "final")
    return found


def unit_class() -> type:
    from torch.distributed.fsdp import FSDPModule

    return FSDPModule


def main(folder: Path, checkpoint: str, cases: list[dict[str, Any]]) -> None:
    for case in cases:
        try:
            found = run(folder, {"checkpoint": checkpoint, **case})
        except (ValueError, UserWarning) as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        place = folder / case["name"] / f"rank-{os.environ.get('RANK', '0')}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(found), encoding="utf-8")
    end()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
