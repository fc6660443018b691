"""The same runs by transformers' Trainer: deepspeed_oracle.py FOLDER CHECKPOINT, losses and norms to FOLDER/oracle.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import deepspeed
import transformers
from accelerate.state import AcceleratorState, GradientState
from ending import end

from training.deepspeed_worker import SAME, SAME_SETTINGS
from training.rows import rows

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled
found = {}
for name, config in SAME.items():
    args = transformers.TrainingArguments(
        output_dir=sys.argv[1], use_cpu=True, ddp_backend="gloo", save_strategy="no", report_to="none", logging_steps=1,
        disable_tqdm=True, deepspeed=config, **SAME_SETTINGS,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM.from_pretrained(sys.argv[2])
    trainer = transformers.Trainer(model, args, train_dataset=rows())
    trainer.train()
    found[name] = [[log["loss"], log["grad_norm"]] for log in trainer.state.log_history if "loss" in log]
    AcceleratorState._reset_state(False)  # the next run has another configuration
    GradientState._reset_state()
if trainer.is_world_process_zero():
    Path(sys.argv[1], "oracle.json").write_text(json.dumps(found), encoding="utf-8")
end()
