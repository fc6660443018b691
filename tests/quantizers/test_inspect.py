"""`unibody inspect` says what a checkpoint is, and which kernel runs it, as the layers themselves do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from oracle.quantization import inputs
from oracle.quantization.fixtures import FOLDER
from safetensors.torch import load_file

import unibody
from unibody import cli

GROUPS = {"W4A16": ["re:.*mlp.*"], "FP8_DYNAMIC": ["re:.*self_attn.*"]}


def inspect(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.unibody, ["inspect", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose blocks are in two formats, and whose head is plain."""
    folder = tmp_path_factory.mktemp("models")
    inputs.llama(hidden_size=256, intermediate_size=384).save_pretrained(folder / "plain")
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
    quantized = {name: t for name, t in tensors.items() if "proj" in name}
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
