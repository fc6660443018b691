"""Records `quanto/`: stored tensors, outputs, calibrated activations, and checkpoints of tiny models."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
import transformers
from optimum import quanto
from torch import Tensor, nn

from oracle.quantization import fixtures, inputs, live

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WEIGHTS = ("qint8", "qint4", "qint2", "qfloat8")
WIDTHS = (96, 128, 160, 256)
"""Below 128 a row is one group; from there the group is the first of 128, 96, 64, 32 that divides the width."""


def layers() -> dict[str, Tensor]:
    """`WEIGHTS/DTYPE/WIDTH/…` for layers of 16 outputs: the state dict, the dequantized weight and outputs.

    All widths in float32, 128 in bfloat16.
    """
    found = {"bias": inputs.bias(16)}
    for width in WIDTHS:
        weight, hidden = inputs.weight(16, width, seed=width), inputs.activations(5, width, seed=width + 1)
        found |= {f"weight/{width}": weight, f"hidden/{width}": hidden}
        for kind in WEIGHTS:
            for name, dtype in DTYPES.items():
                if width != 128 and dtype != torch.float32:
                    continue
                layer = live.quanto_linear(weight.to(dtype), found["bias"].to(dtype), kind)
                key = f"{kind}/{name}/{width}"
                with torch.no_grad():
                    found[f"{key}/output"] = layer(hidden.to(dtype))
                    if width == 128:
                        found[f"{key}/dequantized"] = layer.weight.dequantize()
                found |= {f"{key}/state/{stored}": tensor for stored, tensor in layer.state_dict().items()}
    return found


def activations() -> dict[str, Tensor]:
    """`WEIGHTS/ACTIVATIONS/…` for two layers with a ReLU between: scales found by calibration, and the outputs with them.

    `…/first` is the output of the first layer alone, before it is quantized for the second.
    """
    weights = [inputs.weight(48, 96, seed=21), inputs.weight(32, 48, seed=22)]
    samples = [inputs.activations(16, 96, seed=seed) for seed in (23, 24, 25)]
    hidden = inputs.activations(5, 96, seed=26)
    found = {"weight/0": weights[0], "weight/1": weights[1], "hidden": hidden, "samples": torch.stack(samples)}
    for kind in ("qint8", "qint4", "qfloat8"):
        for activation in ("qint8", "qfloat8"):
            for streamline in (True, False):
                model = nn.Sequential(nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 32))
                for layer, weight in zip((model[0], model[2]), weights, strict=True):
                    layer.weight.data.copy_(weight)
                    layer.bias.data.copy_(inputs.bias(len(weight)))
                quanto.quantize(model, weights=getattr(quanto, kind), activations=getattr(quanto, activation))
                with torch.no_grad(), quanto.Calibration(momentum=0.9, streamline=streamline):
                    for sample in samples:
                        model(sample)
                quanto.freeze(model)
                key = f"{kind}/{activation}/{'streamlined' if streamline else 'every_output'}"
                with torch.no_grad():
                    first = model[0](hidden)
                    found[f"{key}/first"] = first.dequantize() if isinstance(first, quanto.QTensor) else first
                    output = model(hidden)
                    found[f"{key}/output"] = output.dequantize() if isinstance(output, quanto.QTensor) else output
                for i, layer in enumerate((model[0], model[2])):
                    found |= {
                        f"{key}/{i}/input_scale": layer.input_scale,
                        f"{key}/{i}/output_scale": layer.output_scale,
                    }
    return found


def checkpoint(name: str, weights: str, activation: str | None) -> None:
    """A model that quanto quantized: its state dict, its map of modules, and its logits in float32."""
    tokens = inputs.token_ids(2, 16)
    chosen = {"weights": getattr(quanto, weights), "activations": activation and getattr(quanto, activation)}
    model = inputs.llama()
    quanto.quantize(model, **chosen, exclude=["lm_head"])
    with torch.no_grad():
        if activation:
            with quanto.Calibration():
                model(inputs.token_ids(4, 16, seed=1))
        quanto.freeze(model)
        values = {"input_ids": tokens, "logits": model(tokens).logits}
    fixtures.save(f"quanto/{name}/values", __file__, values)
    folder = fixtures.FOLDER / "quanto" / name
    with tempfile.TemporaryDirectory() as scratch:
        quanto.QuantizedModelForCausalLM(model).save_pretrained(scratch)
        for file in ("config.json", "model.safetensors", "quanto_qmap.json"):
            (folder / file).write_bytes((Path(scratch) / file).read_bytes())
    assert json.loads((folder / "quanto_qmap.json").read_text(encoding="utf-8"))


CONFIGS = (
    {},
    {"weights": "int4"},
    {"weights": "int2", "modules_to_not_convert": ["lm_head"]},
    {"weights": "float8", "activations": "int8"},
)


if __name__ == "__main__":
    inputs.seed_all()
    fixtures.save("quanto/layers", __file__, layers())
    fixtures.save("quanto/activations", __file__, activations())
    checkpoint("llama-qint4", "qint4", None)
    checkpoint("llama-qint8-activations", "qint8", "qint8")
    fixtures.save_json(
        "quanto/config",
        __file__,
        [{"arguments": given, "to_dict": transformers.QuantoConfig(**given).to_dict()} for given in CONFIGS],
    )
