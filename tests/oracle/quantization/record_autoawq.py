"""Records `autoawq/`: rounding, clipping, the search for scales, the packed layers, and a checkpoint of a tiny Llama.

On a CPU autoawq's search restores a layer from tensors that are still the layer's own, so it goes on from a scaled weight and
finds another ratio. `Tensor.cpu` copies here, as it does from a GPU.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from awq import AutoAWQForCausalLM
from awq.modules.linear.gemm import WQLinear_GEMM
from awq.modules.linear.gemv import WQLinear_GEMV
from awq.modules.linear.gemv_fast import WQLinear_GEMVFast
from awq.quantize.quantizer import AwqQuantizer
from awq.utils.packing_utils import dequantize_gemm
from torch import Tensor, nn

from oracle.quantization import fixtures, inputs

share = Tensor.cpu
Tensor.cpu = lambda tensor, *args, **kwargs: share(tensor, *args, **kwargs).clone()


class Quantizer(AwqQuantizer):
    """The package's quantizer without a model, which keeps what it decides: the loss of each ratio, scales and clips."""

    losses: list[float]

    def __init__(self, bits: int = 4, group_size: int = 32, zero_point: bool = True) -> None:
        self.w_bit, self.group_size, self.zero_point = bits, group_size, zero_point
        self.duo_scaling, self.n_parallel_calib_samples, self.max_chunk_memory = True, None, 1 << 30
        self.losses = []

    def _compute_loss(self, *args: object) -> float:
        self.losses.append(super()._compute_loss(*args))
        return self.losses[-1]


def rounded() -> dict[str, Tensor]:
    """`BITS/GROUP/zero_point|symmetric/…`: dequantized weight, scales and zeros of round-to-nearest, in float32."""
    weight = inputs.weight(16, 128, seed=41)
    weight[3] = weight[3].abs()
    weight[5] = 0
    found = {"weight": weight}
    for bits, group in ((4, 32), (4, 64), (4, -1), (3, 32)):
        for zero_point in (True, False):
            key = f"{bits}/{group}/{'zero_point' if zero_point else 'symmetric'}"
            dequantized, scales, zeros = Quantizer(bits, group, zero_point).pseudo_quantize_tensor(weight.clone())
            found |= {f"{key}/dequantized": dequantized, f"{key}/scales": scales}
            if zeros is not None:
                found[f"{key}/zeros"] = zeros
    return found


def clipped() -> dict[str, Tensor]:
    """`BITS/zero_point|symmetric`: the largest magnitudes `[N, K / 32, 1]` that a layer's groups are clipped to."""
    weight, hidden = inputs.weight(64, 96, seed=42), inputs.activations(80, 96, seed=43)
    found = {"weight": weight, "inputs": hidden}
    for bits in (4, 3):
        for zero_point in (True, False):
            quantizer = Quantizer(bits, 32, zero_point)
            key = f"{bits}/{'zero_point' if zero_point else 'symmetric'}"
            found[key] = quantizer._compute_best_clip(weight, hidden[None])
    return found


def scaled() -> dict[str, Tensor]:
    """`BITS/…`: the search for the scales of two layers that share their input: losses of the 20 ratios, and the winner's scales."""
    weights, hidden = [inputs.weight(rows, 96, seed=rows) for rows in (32, 48)], inputs.activations(80, 96, seed=44)
    found = {"weight/0": weights[0], "weight/1": weights[1], "inputs": hidden}

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Linear(96, len(weight), bias=False) for weight in weights)
            self.first.weight.data.copy_(weights[0])
            self.second.weight.data.copy_(weights[1])

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((self.first(x), self.second(x).tanh()), dim=-1)

    for bits in (4, 3):
        quantizer, pair = Quantizer(bits, 32), Pair()
        _, _, scales = quantizer._search_best_scale(
            pair, pair, [pair.first, pair.second], hidden[None], module2inspect=pair
        )
        found |= {f"{bits}/scales": scales, f"{bits}/losses": torch.tensor(quantizer.losses, dtype=torch.float64)}
    return found


def packed() -> dict[str, Tensor]:
    """`GROUP/LAYOUT/…`: one layer `[32, 256]` in three layouts; `dequantized` `[K, N]` is read from the first."""
    weight, bias = inputs.weight(32, 256, seed=45).half(), inputs.bias(32).half()
    found = {"weight": weight, "bias": bias}
    for group in (64, 128):
        linear = nn.Linear(256, 32).half()
        linear.weight.data, scales, zeros = Quantizer(4, group).pseudo_quantize_tensor(weight.clone())
        linear.bias.data = bias
        for layout, layer_class in (
            ("gemm", WQLinear_GEMM),
            ("gemv", WQLinear_GEMV),
            ("gemv_fast", WQLinear_GEMVFast),
        ):
            turned = (scales.T.contiguous(), zeros.T.contiguous()) if layout == "gemm" else (scales, zeros)
            layer = layer_class.from_linear(linear, 4, group, False, *turned)
            found |= {f"{group}/{layout}/{name}": tensor.clone() for name, tensor in layer.state_dict().items()}
        stored = (found[f"{group}/gemm/{name}"] for name in ("qweight", "qzeros", "scales"))
        found[f"{group}/dequantized"] = dequantize_gemm(*stored, 4, group)
    return found


def keeping(decide: Callable[..., object], kept: list[object]) -> Callable[..., object]:
    """The method `decide`, which also puts what it returns into `kept`."""

    def method(*args: object, **kwargs: object) -> object:
        kept.append(decide(*args, **kwargs))
        return kept[-1]

    return method


def checkpoint(name: str) -> None:
    """A model that autoawq quantized in float32 and saved, what it decided, and the logits of its dequantized weights.

    `scale/BLOCK/ANSWER` is each block's answer in the order of the search (input norm, v to o, second norm, up to down),
    `clip/MODULE` the magnitudes of the modules that are clipped. Keys and values have as many heads as queries here: only then is
    the scale of o searched, and clipping wants outputs in multiples of 64.
    """
    calibration = inputs.token_ids(16, 64, seed=46)
    scales: list = []
    clips: list = []
    AwqQuantizer._search_best_scale = keeping(AwqQuantizer._search_best_scale, scales)
    AwqQuantizer._search_best_clip = keeping(AwqQuantizer._search_best_clip, clips)
    folder = fixtures.FOLDER / "autoawq" / name
    with tempfile.TemporaryDirectory() as full, tempfile.TemporaryDirectory() as scratch:
        inputs.save_llama(Path(full), num_key_value_heads=4)
        model = AutoAWQForCausalLM.from_pretrained(full, torch_dtype=torch.float32, device_map="cpu", use_cache=False)
        config = {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}
        model.quantize(None, quant_config=config, calib_data=calibration.tolist(), max_calib_seq_len=64)
        model.save_quantized(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "model.safetensors"):
            (folder / file).write_bytes((Path(scratch) / file).read_bytes())
    values = {"calibration": calibration}
    for i, (_, names, found) in enumerate(scales):
        values[f"scale/{i // 4}/{','.join(name.rpartition('.')[2] for name in names)}"] = found
    for block, found in enumerate(clips):
        values |= {f"clip/{block}/{module.rpartition('.')[2]}": magnitude for module, magnitude in found}
    tokens = inputs.token_ids(2, 16)
    with torch.no_grad():
        values |= {"input_ids": tokens, "logits": dequantized(model.model).float()(tokens).logits}
    fixtures.save(f"autoawq/{name}/values", __file__, values)


def dequantized(model: nn.Module) -> nn.Module:
    """The model with plain layers of the packed layers' weights in float32: autoawq's own forward wants a GPU."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, WQLinear_GEMM):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=False)
            scales = layer.scales.float()
            plain.weight.data = dequantize_gemm(layer.qweight, layer.qzeros, scales, 4, layer.group_size).T
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, plain)
    return model


if __name__ == "__main__":
    inputs.seed_all()
    fixtures.save("autoawq/rounded", __file__, rounded())
    fixtures.save("autoawq/clipped", __file__, clipped())
    fixtures.save("autoawq/scaled", __file__, scaled())
    fixtures.save("autoawq/packed", __file__, packed())
    checkpoint("llama-gemm-g32")
