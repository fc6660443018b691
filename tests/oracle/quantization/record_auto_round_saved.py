"""Records `auto-round/saved-…`: checkpoints that were quantized here, whose layers differ, and what auto-round computes with them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from quantizers.files import generated
from torch import Tensor, nn

from oracle.quantization import fixtures, inputs

LAYERS = {"model.layers.0.mlp.up_proj": {"bits": 8, "group_size": 64}, "k_proj": {"bits": 16}}
CASES: dict[str, tuple[dict[str, Any], int]] = {  # settings, and how many layers are packed
    "saved-head": ({"layer_config": LAYERS, "modules_to_not_convert": ["o_proj"]}, 11),
    "saved-zero-points": ({"sym": False, "layer_config": LAYERS, "modules_to_not_convert": ["o_proj", "lm_head"]}, 10),
}


def save(name: str, folder: Path) -> None:
    """A tiny Llama, rounded to nearest by the generated files."""
    inputs.llama().save_pretrained(folder / "plain")
    autoround, llama = generated("autoround"), generated("llama")
    config = autoround.AutoRoundConfig(group_size=32, iters=0, **CASES[name][0])
    quantizer = autoround.AutoRoundQuantizer(config, pre_quantized=False)
    model = llama.LlamaForCausalLM.from_pretrained(folder / "plain", dtype=torch.float32, quantizer=quantizer)
    model.save_pretrained(folder)


@torch.no_grad()
def logits(name: str, folder: Path) -> Tensor:
    """Those of the weights of the layers that auto-round loads; as a whole it would compute in float16."""
    import transformers

    config = transformers.AutoRoundConfig()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, device_map="cpu")
    nn.Module.float(model)  # transformers refuses the model's own method; of the layers this casts the scales
    plain, count = inputs.llama(), 0
    for path, linear in plain.named_modules():
        if isinstance(linear, nn.Linear):
            layer = model.get_submodule(path)
            count += not isinstance(layer, nn.Linear)
            linear.weight.copy_(layer(torch.eye(linear.in_features)).T)
    assert count == CASES[name][1]
    found: Tensor = plain(inputs.token_ids(2, 16)).logits
    return found


if __name__ == "__main__":
    for case in CASES:
        written = fixtures.FOLDER / "auto-round" / case
        with tempfile.TemporaryDirectory() as scratch_folder:
            save(case, Path(scratch_folder))
            written.mkdir(parents=True, exist_ok=True)
            for part in ("config.json", "model.safetensors"):
                (written / part).write_bytes((Path(scratch_folder) / part).read_bytes())
        values = {"input_ids": inputs.token_ids(2, 16), "logits": logits(case, written)}
        fixtures.save(f"auto-round/{case}/values", __file__, values)
