"""`unibody inspect` says what a checkpoint is, and which kernel runs it, as the layers themselves do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from oracle.quantization import inputs
from oracle.quantization.fixtures import FOLDER
from safetensors.torch import load_file, save_file
from torch import Tensor

import unibody
from unibody import cli

SHORT, INT, HALF = torch.int16, torch.int32, torch.float16
# For each method that has no layers here: settings, what is shown of them, and the tensors of a weight [N, K] in its format.
TENSORS: dict[str, tuple[dict[str, Any], str, Callable[[int, int], dict[str, Tensor]]]] = {
    "vptq": (
        {"config_for_layers": {f"layers.{i}": {"vector_lens": [-1, 8], "num_centroids": [-1, 64]} for i in range(14)}},
        'enable_proxy_error=false, config_for_layers=14 such as {"layers.0": {"vector_lens": [-1, 8], "num_centroids": [-1, 64]}}',
        lambda n, k: {
            "indices": torch.zeros(1, n // 8, k * 6 // 32, dtype=INT), "centroids.weight": torch.zeros(1, 512, dtype=HALF),
            "perm": torch.zeros(k, dtype=SHORT), "weight_scale": torch.zeros(k, dtype=HALF),
            "weight_bias": torch.zeros(k, dtype=HALF),
        },
    ),
    "higgs": (
        {"bits": 3, "modules_to_not_convert": ["lm_head"]},
        'bits=3, p=2, modules_to_not_convert=["lm_head"], hadamard_size=512, group_size=256',
        lambda n, k: {
            "weight": torch.zeros(n * 3 // 16, k, dtype=SHORT), "scales": torch.zeros(n, k // 16, dtype=HALF),
            "tables": torch.zeros(8, dtype=HALF), "tables2": torch.zeros(8, 8, 2, dtype=HALF),
        },
    ),
    "spqr": (
        {"shapes": {f"layers.{i}.dense_weights.shape": 256 for i in range(14)}},
        'bits=3, beta1=16, beta2=16, shapes=14 such as {"layers.0.dense_weights.shape": 256}',
        lambda n, k: {
            "dense_weights": torch.zeros(n * k // 16, dtype=torch.int64), "row_offsets": torch.zeros(n + 1, dtype=INT),
            "col_vals": torch.zeros(7, dtype=INT), "in_perm": torch.zeros(k // 2, dtype=INT),
        },
    ),
}  # fmt: skip
GROUPS = {"W4A16": ["re:.*mlp.*"], "FP8_DYNAMIC": ["re:.*self_attn.*"]}


def inspect(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.unibody, ["inspect", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose blocks are in two formats, and whose head is plain."""
    folder = tmp_path_factory.mktemp("models")
    inputs.llama(hidden_size=256, intermediate_size=384, attention_bias=True).save_pretrained(folder / "plain")
    config = unibody.CompressedTensorsConfig(config_groups=GROUPS, ignore=["lm_head"])
    model = unibody.AutoModelForCausalLM.from_pretrained(
        folder / "plain", quantization_config=config, dtype=torch.bfloat16
    )
    model.save_pretrained(folder / "packed")
    return folder / "packed"


def test_text(packed: Path) -> None:
    status, output = inspect(packed, "--device", "cpu")
    assert status == 0, output
    rows = [(line[:12].strip(), line[12:]) for line in output.splitlines()]
    assert rows[:2] == [
        ("checkpoint", str(packed)),
        ("method", "compressed-tensors, read by quantizer_compressed_tensors.py"),
    ]
    assert rows[2][1].startswith('config_groups={"FP8_DYNAMIC": ')
    assert rows[3] == ("layers", "14 of 15 linear layers quantized; plain: lm_head")
    assert rows[5:] == [
        ("kernel", "torch runs 8 CompressedFloat8Linear on cpu in bfloat16"),
        ("", "not scaled_mm: it runs on cuda, not on cpu"),
        ("", "not triton: it runs on cuda, not on cpu"),
        ("kernel", "int4pack_cpu runs 6 CompressedGroupLinear on cpu in bfloat16"),
        ("", "not triton_groups: it runs on cuda, not on cpu"),
        ("", "not int4pack_cuda: it runs on cuda, not on cpu"),
    ]


def test_json(packed: Path) -> None:
    """The numbers are those of the file."""
    status, output = inspect(packed, "--device", "cpu", "--format", "json", "--dtype", "float32")
    assert status == 0, output
    found, tensors = json.loads(output), load_file(packed / "model.safetensors")
    quantized = {name: t for name, t in tensors.items() if "proj" in name and not name.endswith(".bias")}
    assert found["quantized_bytes"] == sum(tensor.nbytes for tensor in quantized.values())
    weights = 2 * (256 * (256 + 128 + 128 + 256) + 3 * 256 * 384)
    assert found["bits_per_weight"] == pytest.approx(8 * found["quantized_bytes"] / weights)
    plain = sum(tensor.numel() * 4 for name, tensor in tensors.items() if name not in quantized)
    assert plain <= found["plain_bytes"] <= plain + 256  # and the rotary frequencies
    assert [(use["layer"], use["kernel"], use["layers"]) for use in found["kernels"]] == [
        ("CompressedFloat8Linear", "torch", 8), ("CompressedGroupLinear", "torch", 6),
    ]  # fmt: skip
    assert found["kernels"][1]["instead_of"] == {
        "triton_groups": "it runs on cuda, not on cpu",
        "int4pack_cuda": "it runs on cuda, not on cpu",
        "int4pack_cpu": "its inputs are bfloat16, not float32",
        "int3pack_cpu": "its inputs are bfloat16, not float32",
        "int2pack_cpu": "its inputs are bfloat16, not float32",
    }  # fmt: skip


def test_a_kernel_that_was_asked_for(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIBODY_KERNEL", "torch")
    assert "not int4pack_cpu: another one was asked for" in inspect(packed, "--device", "cpu")[1]


def test_refusals(packed: Path, tmp_path: Path) -> None:
    status, output = inspect(packed.parent / "plain")
    assert (status, output.strip().endswith("has no quantization_config: the checkpoint is not quantized")) == (
        1,
        True,
    )
    assert inspect(tmp_path / "nothing")[0] == 1


def test_checkpoints_that_do_not_say_it(packed: Path, tmp_path: Path) -> None:
    """optimum-quanto's own form is known by its map; packed tensors without a word are no plain checkpoint."""
    status, output = inspect(FOLDER / "quanto/llama-qint4", "--device", "cpu")
    assert status == 0, output
    assert output.splitlines()[1] == "method      quanto, read by quantizer_quanto.py"
    shutil.copytree(packed, tmp_path / "silent")
    file = tmp_path / "silent/config.json"
    values = json.loads(file.read_text())
    del values["quantization_config"]
    file.write_text(json.dumps(values))
    status, output = inspect(tmp_path / "silent")
    assert status == 1
    assert "holds 14 layers packed, such as" in output


@pytest.mark.parametrize("method", TENSORS)
def test_methods_without_layers(method: str, tmp_path: Path) -> None:
    """What the configuration says, and the layers and bytes that are in the file."""
    options, settings, pack = TENSORS[method]
    inputs.llama(attention_bias=True).save_pretrained(tmp_path)
    file, size = tmp_path / "model.safetensors", 0
    tensors = load_file(file)
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        packed = pack(*tensors.pop(name).shape)
        size += sum(tensor.nbytes for tensor in packed.values())
        tensors |= {name.removesuffix("weight") + part: tensor for part, tensor in packed.items()}
    save_file(tensors, file, metadata={"format": "pt"})
    values = json.loads((tmp_path / "config.json").read_text())
    written = {"quant_method": method, **options}
    (tmp_path / "config.json").write_text(json.dumps(values | {"quantization_config": written}))
    status, output = inspect(tmp_path, "--device", "cpu")
    assert status == 0, output
    rows = [(line[:12].strip(), line[12:]) for line in output.splitlines()]
    assert rows[1:4] == [
        ("method", f"{method}, read by quantizer_{method}.py"),
        ("settings", settings),
        ("layers", "14 of 15 linear layers quantized; plain: lm_head"),
    ]
    assert rows[5:] == [("kernel", f"none: {method} has a configuration here and no layers yet")]
    found = json.loads(inspect(tmp_path, "--format", "json")[1])
    weights = sum(p.numel() for name, p in inputs.llama().named_parameters() if name.endswith("proj.weight"))
    plain = sum(tensor.nbytes for tensor in tensors.values()) - size
    assert (found["quantized_bytes"], found["plain_bytes"], found["kernels"]) == (size, plain, [])
    assert found["bits_per_weight"] == pytest.approx(8 * size / weights)
    file.unlink()
    status, output = inspect(tmp_path)
    assert (status, "holds neither model.safetensors nor" in output) == (1, True)
