"""`unibody quantize`: what it writes is what the library makes; what cannot be done is said, and nothing is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from oracle.inputs import token_ids
from oracle.quantization import inputs

import unibody
from unibody import cli

DATASET = "[[1, 5, 9, 2, 8, 3, 4, 6], [7, 1, 3, 2, 5, 5, 6, 1]]"


def quantize(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.unibody, ["quantize", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    inputs.llama().save_pretrained(tmp_path / "plain")
    (tmp_path / "plain/tokenizer_config.json").write_text("{}", encoding="utf-8")
    return tmp_path / "plain"


def test_a_folder_becomes_a_quantized_folder(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    options = ("--bits", 4, "--group-size=32", "--desc-act", "--dataset", DATASET, "--dtype", "bfloat16")
    status, output = quantize(plain, "gptq", out, *options)
    assert (status, output.count("\n")) == (0, 1), output
    assert output.startswith("quantized 14 of 15 linear layers, ")
    assert {file.name for file in out.iterdir()} == {file.name for file in plain.iterdir()}
    config = unibody.GPTQConfig(
        bits=4, group_size=32, desc_act=True, dataset=[[1, 5, 9, 2, 8, 3, 4, 6], [7, 1, 3, 2, 5, 5, 6, 1]]
    )
    made = unibody.AutoModelForCausalLM.from_pretrained(plain, quantization_config=config, dtype="bfloat16")
    read = unibody.AutoModelForCausalLM.from_pretrained(out)
    assert read.dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.equal(read(token_ids() % 64).logits, made(token_ids() % 64).logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("magic",), "error: method 'magic' is not known: there are .*gptq"),
        (("gptq", "--bits", 5), "error: GPTQConfig: bits is 5, expected one of 2, 3, 4, 8"),
        (("gptq", "--bit", 4), "error: --bit is no option of gptq: there are .*--bits"),
        (("gptq", "--group-size", 32), "error: .*missing 1 required positional argument: 'bits'"),
        (("gptq", "--bits", 4, "--group-size", 48, "--dataset", DATASET), "error: .*can pack none of the 15 linear"),
        (("gptq", "--bits", 4), "error: dataset is empty"),
        (
            ("fbgemm_fp8", "--kernel", "scaled_mm"),
            "error: no kernel can run FbgemmFp8Linear .*: scaled_mm: .*; leave out kernel=",
        ),
        (("eetq", "--modules-to-not-convert", '["re:("]'), r"error: .*unterminated subpattern"),
    ],
)
def test_what_cannot_be_done(arguments: tuple[object, ...], message: str, plain: Path, tmp_path: Path) -> None:
    method, *options = arguments
    status, output = quantize(plain, method, tmp_path / "packed", *options)
    assert status == 1
    assert re.match(message, output), output
    assert not (tmp_path / "packed").exists()


def test_a_folder_in_use_is_left_alone(plain: Path) -> None:
    before = {file.name: file.read_bytes() for file in plain.iterdir()}
    status, output = quantize(plain, "gptq", plain, "--bits", 4)
    assert (status, output) == (1, f"error: {plain} is not empty: name a new folder\n")
    assert before == {file.name: file.read_bytes() for file in plain.iterdir()}


def test_what_is_quantized_already(plain: Path, tmp_path: Path) -> None:
    """Its codes are not those that the options ask for."""
    options = ("--weight-block-size", "[64,64]")
    assert quantize(plain, "fp8", tmp_path / "packed", *options)[0] == 0
    for method in ("fp8", "hqq"):
        status, output = quantize(tmp_path / "packed", method, tmp_path / "again")
        assert (status, output) == (
            1, f"error: {tmp_path / 'packed'} is quantized already (fp8): start from the model's plain checkpoint\n",
        )  # fmt: skip
    assert not (tmp_path / "again").exists()


def test_layers_that_round_in_every_pass(plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """BitNet's online layers count as quantized, and none is said to be plain; what they hold are plain weights."""
    options = ("--linear-class", "autobitlinear", "--quantization-mode", "online")
    with caplog.at_level("WARNING"):
        status, output = quantize(plain, "bitnet", tmp_path / "online", *options)
    assert status == 0, output
    assert output.startswith("quantized 14 of 15 linear layers, 32.00 bits per weight")
    assert not caplog.records
    result = CliRunner().invoke(cli.unibody, ["inspect", str(tmp_path / "online"), "--device", "cpu"])
    rows = [line[12:] for line in result.output.splitlines()]
    assert rows[3] == "14 of 15 linear layers quantized; plain: lm_head"
    assert rows[5:] == ["torch runs 14 AutoBitLinear on cpu in float32"]
