"""Records `gptqmodel/`: the GPTQ algorithm, its packed words, linear layers, and checkpoints of a tiny Llama."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path

# Settings of the package: two workers are its least, and nothing is to be compiled while it runs.
os.environ |= {"GPTQMODEL_CPU_WORKERS": "2", "GPTQMODEL_DISABLE_PACK_EXT": "1", "TORCHDYNAMO_DISABLE": "1"}

import numpy as np
import torch
import transformers
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from gptqmodel.looper.named_module import NamedModule
from gptqmodel.nn_modules.qlinear.gemv_awq import AwqGEMVLinear
from gptqmodel.nn_modules.qlinear.gemv_fast_awq import AwqGEMVFastLinear, LLMAwqLinear
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
from gptqmodel.quantization.config import FORMAT
from gptqmodel.quantization.gptq import GPTQ
from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module
from safetensors.torch import load_file
from torch import Tensor, nn

from oracle.quantization import fixtures, inputs

SOLVED = {
    f"{bits}/{'sym' if sym else 'asym'}/{'desc_act' if desc_act else 'in_order'}": {
        "bits": bits,
        "sym": sym,
        "desc_act": desc_act,
    }
    for bits in (2, 3, 4, 8)
    for sym in (True, False)
    for desc_act in (False, True)
} | {
    "4/whole_rows": {"group_size": -1},
    "4/group_64": {"group_size": 64, "sym": False},
    "4/damp_0.01": {"damp_percent": 0.01},
    "4/static_groups": {"static_groups": True, "desc_act": True},
}


def quantize_config(**options: object) -> QuantizeConfig:
    return QuantizeConfig(
        **({"bits": 4, "group_size": 32, "sym": True, "desc_act": False, "act_group_aware": False} | options)
    )


def solved() -> dict[str, Tensor]:
    """`BITS/…/…`: codes, scales, zeros and g_idx for one weight `[32, 192]` and one set of layer inputs.

    damp_percent 0.05 where nothing else is said. Row 3 has no negative entry (asymmetric zeros of 0), input 17 is always zero.
    """
    weight, hidden = inputs.weight(32, 192, seed=31), inputs.activations(224, 192, seed=32)
    weight[3] = weight[3].abs()
    hidden[:, 17] = 0
    found = {"weight": weight, "inputs": hidden.bfloat16()}
    for key, options in SOLVED.items():
        found |= {f"{key}/{name}": tensor for name, tensor in solve(weight, hidden, options).items()}
    return found


def solve(weight: Tensor, hidden: Tensor, options: dict[str, object]) -> dict[str, Tensor]:
    layer = nn.Linear(*reversed(weight.shape), bias=False)
    layer.weight.data.copy_(weight)
    solver = GPTQ(NamedModule(layer, "layer", "layer", 0), quantize_config(**options))
    solver.quantizer.configure(perchannel=True)
    for batch in hidden.split(56):
        solver.add_batch(batch[None], layer(batch)[None])
    dequantized, scales, zeros, groups, *_ = solver.quantize()
    columns = groups.long()
    codes = (dequantized / scales[:, columns] + zeros[:, columns]).round()
    assert torch.equal((codes - zeros[:, columns]) * scales[:, columns], dequantized), options
    return {
        "codes": codes.to(torch.uint8),
        "scales": scales,
        "zeros": zeros.to(torch.int32),
        "g_idx": groups.to(torch.int32),
    }


def group_aware() -> dict[str, Tensor]:
    """`BITS/…`: the same of weight and inputs whose columns differ in size, with `act_group_aware`."""
    weight, hidden = inputs.weight(32, 192, seed=31), inputs.activations(224, 192, seed=32)
    hidden = hidden * inputs.shared(np.exp(np.random.default_rng(37).standard_normal(192)))
    found = {"weight": weight, "inputs": hidden}
    for bits in (2, 3, 4, 8):
        for sym in (True, False):
            options = {"bits": bits, "sym": sym, "act_group_aware": True}
            key = f"{bits}/{'sym' if sym else 'asym'}"
            found |= {f"{key}/{name}": tensor for name, tensor in solve(weight, hidden, options).items()}
    options = {"bits": 4, "group_size": 64, "sym": False, "act_group_aware": True}
    return found | {f"4/group_64/{name}": tensor for name, tensor in solve(weight, hidden, options).items()}


def packed(solutions: dict[str, Tensor]) -> dict[str, Tensor]:
    """`BITS/…/…`: each solution as a layer: words, float16 scales, zeros in both versions, its weight and outputs.

    `dequantized` is `[K, N]` in float16; `output` is in float32 and has a bias.
    """
    hidden, bias = inputs.activations(5, 192, seed=33), inputs.bias(32)
    found = {"hidden": hidden, "bias": bias}
    for key, options in SOLVED.items():
        config = quantize_config(**options)
        scales, zeros, groups = (solutions[f"{key}/{name}"] for name in ("scales", "zeros", "g_idx"))
        columns = groups.long()
        linear = nn.Linear(192, 32)
        linear.weight.data = (solutions[f"{key}/codes"].float() - zeros[:, columns]) * scales[:, columns]
        linear.bias.data = bias
        layer = TorchLinear(
            bits=config.bits,
            group_size=config.group_size,
            sym=config.sym,
            desc_act=config.desc_act,
            in_features=192,
            out_features=32,
            bias=True,
            format=FORMAT.GPTQ_V2,
        )
        layer.pack_block(linear, scales, zeros, groups)
        found |= {f"{key}/{name}": getattr(layer, name).clone() for name in ("qweight", "qzeros", "scales", "g_idx")}
        with torch.no_grad():
            layer.post_init()
            layer.eval()
            found[f"{key}/output"] = layer(hidden)
            if key in ("3/asym/desc_act", "4/asym/desc_act"):
                found[f"{key}/dequantized"] = layer.dequantize_weight()
        convert_gptq_v2_to_v1_format_module(layer, config)
        found[f"{key}/qzeros_v1"] = layer.qzeros
    return found


AWQ_LAYOUTS = {"gemm": AwqTorchLinear, "gemv": AwqGEMVLinear, "gemv_fast": AwqGEMVFastLinear, "llm-awq": LLMAwqLinear}


def awq_layouts() -> dict[str, Tensor]:
    """`GROUP/LAYOUT/…`: one layer `[64, 256]` of random codes in every layout of AWQ.

    Its weight is (codes − zeros) · scales: so says the reference of the first layout, the only one that runs without a GPU.
    """
    draw = np.random.default_rng(36)
    found = {}
    for group in (64, 128):
        codes = torch.from_numpy(draw.integers(0, 16, (64, 256), dtype=np.uint8))
        zeros = torch.from_numpy(draw.integers(0, 16, (64, 256 // group), dtype=np.int32))
        scales = inputs.shared(np.exp(draw.standard_normal(zeros.shape)) / 8).half()
        found |= {f"{group}/codes": codes, f"{group}/zeros": zeros, f"{group}/scales": scales}
        linear = nn.Linear(256, 64, bias=False)
        columns = torch.arange(256) // group
        linear.weight.data = ((codes.int() - zeros[:, columns]) * scales[:, columns]).float()
        for layout, layer_class in AWQ_LAYOUTS.items():
            layer = layer_class(bits=4, group_size=group, sym=False, desc_act=False, in_features=256, out_features=64)
            layer.pack(linear, scales, zeros)
            found |= {f"{group}/{layout}/{name}": tensor.clone() for name, tensor in layer.state_dict().items()}
        stored = (found[f"{group}/gemm/{name}"] for name in ("qweight", "qzeros", "scales"))
        assert torch.equal(dequantize_gemm(*stored, 4, group).T.float(), linear.weight)
    return found


CHECKPOINTS = {
    "llama-4bit-g32": {},  # calibrated in float32, the others in gptqmodel's own choice, bfloat16
    "llama-4bit-asym-desc_act-v2": {"sym": False, "desc_act": True, "group_size": 64, "format": FORMAT.GPTQ_V2},
    "llama-3bit-asym": {"bits": 3, "sym": False},
    "llama-8bit-desc_act": {"bits": 8, "desc_act": True, "group_size": 64},
    # Layers that differ: one is plain, and the head is not, for which the package adds an entry of its own.
    "llama-dynamic": {
        "sym": False,
        "lm_head": True,
        "dynamic": {
            r"-:.*layers\.1\.self_attn\.q_proj": {},
            r"+:.*layers\.0\.mlp": {"bits": 8, "group_size": 64},
            r".*layers\.1\.mlp\.down_proj": {"bits": 2, "sym": True, "desc_act": True},
        },
    },
}


def checkpoint(name: str, full: Path) -> None:
    """A model that gptqmodel quantized and saved, and its logits in float32 by the plain torch layer.

    `calibration` holds the token ids that it was quantized with.
    """
    calibration = inputs.token_ids(16, 64, seed=34)
    samples = [{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in calibration]
    config = quantize_config(**CHECKPOINTS[name], offload_to_disk=False, device="cpu")
    dtype = torch.float32 if name == "llama-4bit-g32" else "auto"
    model = GPTQModel.load(str(full), copy.deepcopy(config), dtype=dtype)
    model.quantize(samples, batch_size=1)
    folder = fixtures.FOLDER / "gptqmodel" / name
    with tempfile.TemporaryDirectory() as scratch:
        model.save(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "quantize_config.json", "model.safetensors"):
            (folder / file).write_bytes((Path(scratch) / file).read_bytes())
        loaded = GPTQModel.load(scratch, device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=torch.float16).model.float()
        assert sum(isinstance(module, TorchLinear) for module in loaded.modules()) == 14
        tokens = inputs.token_ids(2, 16)
        with torch.no_grad():
            logits = loaded(tokens).logits
    values = {"input_ids": tokens, "logits": logits, "calibration": calibration}
    fixtures.save(f"gptqmodel/{name}/values", __file__, values)


FOREIGN = ("autoawq/llama-gemm-g32", "auto-round/llama-tuned-awq", "auto-round/llama-tuned-gptq")


def foreign() -> dict[str, Tensor]:
    """`PACKAGE/CHECKPOINT/logits`: what gptqmodel reads in others' checkpoints, in float32.

    The layers' own words are dequantized with float32 scales; gptqmodel itself would compute in float16.
    """
    found = {"input_ids": inputs.token_ids(2, 16)}
    for name in FOREIGN:
        awq = "awq" in name
        backend = BACKEND.AWQ_TORCH if awq else BACKEND.GPTQ_TORCH
        with tempfile.TemporaryDirectory() as scratch:
            inputs.save_llama(Path(scratch))  # for its tokenizer, without which gptqmodel loads nothing
            for file in ("config.json", "model.safetensors"):
                (Path(scratch) / file).write_bytes((fixtures.FOLDER / name / file).read_bytes())
            loaded = GPTQModel.load(scratch, device="cpu", backend=backend, dtype=torch.float16).model
        model = inputs.llama(num_key_value_heads=loaded.config.num_key_value_heads)
        model.load_state_dict(load_file(fixtures.FOLDER / name / "model.safetensors"), strict=False)
        loaded.float()
        for path, plain in inputs.linears(model).items():
            layer = loaded.get_submodule(path)
            assert isinstance(layer, AwqTorchLinear if awq else TorchLinear), type(layer)
            with torch.no_grad():
                if awq:
                    weight = dequantize_gemm(layer.qweight, layer.qzeros, layer.scales.float(), 4, layer.group_size)
                    plain.weight.copy_(weight.T)
                else:
                    plain.weight.copy_(layer(torch.eye(plain.in_features)).T)
        with torch.no_grad():
            found[f"{name}/logits"] = model(found["input_ids"]).logits
    return found


GPTQ_CONFIGS = (
    {"bits": 4},
    {"bits": 2, "group_size": 64, "sym": False, "desc_act": True, "damp_percent": 0.05},
    {"bits": 3, "dataset": ["a text", "another"], "tokenizer": "a/tokenizer", "true_sequential": False},
    {
        "bits": 8,
        "group_size": -1,
        "model_seqlen": 512,
        "block_name_to_quantize": "model.layers",
        "module_name_preceding_first_block": ["model.embed_tokens"],
        "batch_size": 4,
        "pad_token_id": 0,
        "max_input_length": 1024,
        "cache_block_outputs": False,
        "modules_in_block_to_quantize": [["self_attn.q_proj"], ["mlp.down_proj"]],
    },
    {"bits": 4, "checkpoint_format": "gptq_v2", "meta": {"quantizer": ["x:1"]}, "backend": "torch"},
    {"bits": 4, "use_exllama": False, "exllama_config": {"version": 2}, "use_cuda_fp16": True},
)
AWQ_CONFIGS = (
    {},
    {"bits": 4, "group_size": 64, "zero_point": False, "version": "gemv", "modules_to_not_convert": ["lm_head"]},
    {"version": "gemv_fast"},
    {"backend": "autoawq", "format": "gemm"},
    {"backend": "llm-awq"},
    {"do_fuse": True, "fuse_max_seq_len": 128},
)


def configs(config_class: type, arguments: tuple[dict[str, object], ...]) -> list[dict[str, object]]:
    recorded = []
    for given in arguments:
        entry = {"arguments": given}
        try:
            entry["to_dict"] = config_class(**copy.deepcopy(given)).to_dict()
        except (ValueError, TypeError, ImportError) as error:
            entry["error"] = f"{type(error).__name__}: {error}"
        recorded.append(entry)
    return recorded


if __name__ == "__main__":
    inputs.seed_all()
    solutions = solved()
    fixtures.save("gptqmodel/solved", __file__, solutions, damp_percent=quantize_config().damp_percent)
    fixtures.save("gptqmodel/group_aware", __file__, group_aware())
    fixtures.save("gptqmodel/packed", __file__, packed(solutions))
    fixtures.save("gptqmodel/awq_layouts", __file__, awq_layouts())
    fixtures.save_json("gptqmodel/config", __file__, configs(transformers.GPTQConfig, GPTQ_CONFIGS))
    fixtures.save_json("gptqmodel/awq_config", __file__, configs(transformers.AwqConfig, AWQ_CONFIGS))
    fixtures.save("gptqmodel/foreign", __file__, foreign())
    with tempfile.TemporaryDirectory() as scratch_folder:
        os.chdir(scratch_folder)  # the package writes its logs where it runs
        full_model = inputs.save_llama(Path(scratch_folder))
        for checkpoint_name in CHECKPOINTS:
            checkpoint(checkpoint_name, full_model)
