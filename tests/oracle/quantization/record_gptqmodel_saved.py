"""Records `gptqmodel/saved-…`: checkpoints that were quantized here, whose layers differ, and what gptqmodel computes with them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from quantizers.files import generated
from torch import Tensor

from oracle.quantization import fixtures, inputs

PATTERNS = {
    "-:.*o_proj": {},
    r"+:model\.layers\.0\.self_attn": {"bits": 8},
    ".*q_proj": {"group_size": 64, "desc_act": True},
    r"+:.*layers\.1\.mlp": {"bits": 2, "sym": False},
}
# Of each: the model's sizes, settings, and how many layers are packed.
CASES: dict[str, tuple[dict[str, int], dict[str, Any], int]] = {
    "saved-patterns": ({}, {"group_size": 32, "dynamic": PATTERNS}, 12),
    "saved-sizes": ({"hidden_size": 96}, {"group_size": 64}, 2),  # which fits in the last layers of blocks alone
}


def save(name: str, folder: Path) -> None:
    """A tiny Llama, quantized by the generated files."""
    sizes, settings, _ = CASES[name]
    inputs.llama(**sizes).save_pretrained(folder / "plain")
    gptq, llama = generated("gptq"), generated("llama")
    config = gptq.GPTQConfig(bits=4, dataset=list(inputs.token_ids(8, 32, seed=34)), **settings)
    quantizer = gptq.GptqHfQuantizer(config, pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(folder / "plain", dtype=torch.float32, quantizer=quantizer)
    model.save_pretrained(folder)


def logits(name: str, folder: Path) -> Tensor:
    """gptqmodel's in float32, by its plain torch layer."""
    # Two workers are its least, and nothing is to be compiled while it runs.
    os.environ |= {"GPTQMODEL_CPU_WORKERS": "2", "GPTQMODEL_DISABLE_PACK_EXT": "1", "TORCHDYNAMO_DISABLE": "1"}
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear

    sizes, _, count = CASES[name]
    with tempfile.TemporaryDirectory() as scratch:
        inputs.save_llama(Path(scratch), **sizes)  # for its tokenizer, without which gptqmodel loads nothing
        for file in ("config.json", "model.safetensors"):
            (Path(scratch) / file).write_bytes((folder / file).read_bytes())
        model = GPTQModel.load(scratch, device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=torch.float16).model.float()
    assert sum(isinstance(module, TorchLinear) for module in model.modules()) == count
    with torch.no_grad():
        found: Tensor = model(inputs.token_ids(2, 16)).logits
    return found


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    for case in CASES:
        written = fixtures.FOLDER / "gptqmodel" / case
        with tempfile.TemporaryDirectory() as scratch_folder:
            save(case, Path(scratch_folder))
            written.mkdir(parents=True, exist_ok=True)
            for part in ("config.json", "model.safetensors"):
                (written / part).write_bytes((Path(scratch_folder) / part).read_bytes())
        os.chdir(tempfile.gettempdir())  # the package writes its logs where it runs
        values = {"input_ids": inputs.token_ids(2, 16), "logits": logits(case, written)}
        fixtures.save(f"gptqmodel/{case}/values", __file__, values)
