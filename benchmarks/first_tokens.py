"""A whole program, to be timed from outside: import, load, and the first four greedy tokens after a prompt of 16.

    python -m benchmarks.first_tokens MODULE CHECKPOINT

MODULE has the class LlamaForCausalLM: transformers, or a generated file. Writes the ids to standard output.
"""

from __future__ import annotations

import importlib
import sys

import torch

model = importlib.import_module(sys.argv[1]).LlamaForCausalLM.from_pretrained(sys.argv[2])
prompt = torch.arange(1000, 1016)[None]
print(model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False).tolist())
