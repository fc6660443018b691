"""Records `auto-round/`: checkpoints in its three formats, and the errors of rounding that is tuned and that is not."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path

import torch
import transformers
from auto_round import AutoRound
from torch import Tensor, nn
from torch.utils.data import DataLoader

from oracle.quantization import fixtures, inputs, measure

SETTINGS = {"group_size": 32, "seqlen": 64, "nsamples": 16, "batch_size": 4, "amp": False}
"""Of every run: 16 samples of 64 tokens, 4 in a step, in float32. The rest is the package's own: a learning rate of 1 / iters that
falls to 0, ranges tuned too, inputs of a block from the quantized blocks before it, the step of the least loss kept."""

CHECKPOINTS = {
    "llama-rtn": ({"bits": 4, "sym": True, "iters": 0, "disable_opt_rtn": True}, "auto_round"),
    "llama-tuned": ({"bits": 4, "sym": True, "iters": 20}, "auto_round"),
    "llama-tuned-gptq": ({"bits": 3, "sym": True, "iters": 20}, "auto_gptq"),
    "llama-tuned-awq": ({"bits": 4, "sym": False, "iters": 20}, "auto_awq"),
}
COMPARED = {
    "4/sym": {"bits": 4, "sym": True},
    "4/asym": {"bits": 4, "sym": False},
    "3/sym": {"bits": 3, "sym": True},
    "2/asym": {"bits": 2, "sym": False},
}
ITERATIONS = (0, 20, 200)
SEEDS = (42, 43, 44)


def rounding(full: str, calibration: Tensor, seed: int = SEEDS[0], **options: object) -> AutoRound:
    """AutoRound at the start."""
    model = transformers.AutoModelForCausalLM.from_pretrained(full, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(full)
    samples = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in calibration]
    return AutoRound(
        model,
        tokenizer,
        scheme="W4A16",
        dataset=DataLoader(samples, batch_size=SETTINGS["batch_size"]),
        device_map="cpu",
        enable_torch_compile=False,
        seed=seed,
        **SETTINGS,
        **options,
    )


def dequantized(folder: Path) -> nn.Module:
    """The tiny Llama with the weights of a checkpoint's layers as the package loads and reads them.

    Not the loaded model: the package casts all of it to float16, and its rotary frequencies too.
    """
    config = transformers.AutoRoundConfig()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, device_map="cpu")
    nn.Module.float(model)  # transformers refuses the model's own method; of the layers this casts the scales
    plain = inputs.llama()
    for name, layer in inputs.linears(plain).items():
        with torch.no_grad():
            layer.weight.copy_(model.get_submodule(name)(torch.eye(layer.in_features)).T)
    return plain


def checkpoint(name: str, full: str, calibration: Tensor) -> None:
    """A checkpoint, the logits of its dequantized weights, and its blocks' errors on the calibration tokens.

    The package needs a GPU to read its AWQ format: `gptqmodel/foreign` has the logits of that one.
    """
    options, form = CHECKPOINTS[name]
    folder = fixtures.FOLDER / "auto-round" / name
    with tempfile.TemporaryDirectory() as scratch:
        rounding(full, calibration, **options).quantize_and_save(scratch, format=form)
        written = next(Path(scratch).rglob("config.json")).parent
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "model.safetensors"):
            (folder / file).write_bytes((written / file).read_bytes())
        values = {"input_ids": inputs.token_ids(2, 16), "calibration": calibration}
        if form != "auto_awq":
            model = dequantized(written)
            values["block_errors"] = measure.block_errors(inputs.llama(), model, calibration)
            with torch.no_grad():
                values["logits"] = model(values["input_ids"]).logits
    fixtures.save(f"auto-round/{name}/values", __file__, values, settings=SETTINGS | options)


def errors(full: str, calibration: Tensor) -> dict[str, Tensor]:
    """`BITS/sym|asym/ITERS`: errors `[seeds, blocks, 2]` of `measure.block_errors` on the calibration tokens."""
    found = {"calibration": calibration}
    for key, options in COMPARED.items():
        for iters in ITERATIONS:
            more = {"disable_opt_rtn": True} if iters == 0 else {}
            runs = []
            for seed in SEEDS if iters else SEEDS[:1]:
                quantized, _ = rounding(full, calibration, seed, iters=iters, **options, **more).quantize()
                runs.append(measure.block_errors(inputs.llama(), quantized.eval(), calibration))
            found[f"{key}/{iters}"] = torch.stack(runs)
    return found


CONFIGS = (
    {},
    {"bits": 3, "group_size": 32, "sym": False, "backend": "ipex"},
    {"bits": 4, "packing_format": "auto_round:auto_gptq", "layer_config": {"lm_head": {"bits": 16}}},
)


if __name__ == "__main__":
    inputs.seed_all()
    token_ids = inputs.token_ids(16, 64, seed=51)
    with tempfile.TemporaryDirectory() as model_folder:
        os.chdir(model_folder)  # the package leaves files where it runs
        inputs.save_llama(Path(model_folder))
        for checkpoint_name in CHECKPOINTS:
            checkpoint(checkpoint_name, model_folder, token_ids)
        fixtures.save("auto-round/errors", __file__, errors(model_folder, token_ids), settings=SETTINGS, seeds=SEEDS)
    fixtures.save_json(
        "auto-round/config",
        __file__,
        [
            {"arguments": given, "to_dict": transformers.AutoRoundConfig(**copy.deepcopy(given)).to_dict()}
            for given in CONFIGS
        ],
    )
