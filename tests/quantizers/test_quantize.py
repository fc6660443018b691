"""`unibody quantize`: what it writes is what the library makes; what cannot be done is said, and nothing is written."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import CliRunner
from oracle.inputs import token_ids
from oracle.quantization import inputs
from safetensors.torch import load_file, save_file

import unibody
from unibody import cli
from unibody.quantize_options import read_options

GPTQ = ("gptq", "--bits", 4, "--group-size", 32, "--dataset")
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
        (("gptq", "--group-size", 32), "error: gptq needs --bits: `unibody quantize gptq --help` lists its options"),
        (("gptq", "--bits", 4, "--group-size", 48, "--dataset", DATASET), "error: .*can pack none of the 15 linear"),
        (("gptq", "--bits"), "error: --bits needs a value"),
        (("gptq", "--bits="), "error: --bits needs a value"),
        (("hqq", "--skip-modules", '["lm_head"'), r"error: --skip-modules \[.lm_head. is not valid JSON"),
        (("hqq", "--dtype", "float8_e4m3fn"), "error: dtype 'float8_e4m3fn' is not a type for weights"),
        (("fp8",), "error: FineGrainedFP8HfQuantizer finds no layer to pack in LlamaForCausalLM: .*none fits"),
        (("gptq", "--bits", 4), "error: dataset is empty: gptq needs texts .*--dataset FILE"),
        ((*GPTQ, "none.txt"), "error: --dataset none.txt is no text file, nor one of wikitext2, c4"),
        ((*GPTQ, "[[], []]"), "error: dataset is empty"),
        ((*GPTQ, "[[1, 64]]"), "error: dataset has the token 64, and the model's are 0 to 63"),
        ((*GPTQ, "[[1, -1]]"), "error: dataset has the token -1, and the model's are 0 to 63"),
        ((*GPTQ, "[[1.5]]"), r"error: dataset holds \[1.5\], expected a text or a list of token ids"),
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


def test_older_checkpoints_are_quantized_already(plain: Path, tmp_path: Path) -> None:
    """AutoGPTQ's settings lie beside config.json; so do optimum-quanto's."""
    for file, text, method in (
        ("quantize_config.json", '{"bits": 4, "group_size": 32}', "gptq"),
        ("quant_config.json", '{"w_bit": 4, "q_group_size": 32}', "awq"),
        ("quanto_qmap.json", '{"lm_head": {"weights": "qint8", "activations": "none"}}', "quanto"),
    ):
        (plain / file).write_text(text, encoding="utf-8")
        found = quantize(plain, "hqq", tmp_path / "packed")
        assert found == (
            1,
            f"error: {plain} is quantized already ({method}): start from the model's plain checkpoint\n",
        )
        (plain / file).unlink()
    assert not (tmp_path / "packed").exists()


def test_back_to_plain_weights(plain: Path, tmp_path: Path) -> None:
    """What the packed layers compute with, in a checkpoint that transformers reads, and that can be quantized anew."""
    assert quantize(plain, "quanto", tmp_path / "packed", "--weights", "int8")[0] == 0
    words = ["dequantize", str(tmp_path / "packed"), str(tmp_path / "back")]
    done = CliRunner().invoke(cli.unibody, words)
    assert (done.exit_code, done.output.startswith(f"wrote {tmp_path / 'back'}: ")) == (0, True), done.output
    assert {file.name for file in (tmp_path / "back").iterdir()} == {file.name for file in plain.iterdir()}
    packed = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "packed")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    with torch.no_grad():
        torch.testing.assert_close(packed(token_ids() % 64).logits, theirs(token_ids() % 64).logits, rtol=0, atol=1e-4)
    again = CliRunner().invoke(cli.unibody, words)
    assert (again.exit_code, again.output) == (1, f"error: {tmp_path / 'back'} is not empty: name a new folder\n")
    wrong = CliRunner().invoke(cli.unibody, ["dequantize", str(plain), str(tmp_path / "other")])
    assert (wrong.exit_code, wrong.output) == (1, f"error: {plain} is not quantized: its weights are plain already\n")
    assert not (tmp_path / "other").exists()
    assert quantize(tmp_path / "back", "hqq", tmp_path / "anew")[0] == 0


def lack_a_weight(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["model.layers.0.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors")


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def miss_a_shard(folder: Path) -> None:
    unibody.AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="100KB")
    (folder / "model-00002-of-00004.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lack_a_weight, r"{folder} lacks weights: model.layers.0.mlp.up_proj.weight: fetch it again"),
        (cut_short, r"{folder}/model.safetensors is not a whole safetensors file \(.*\): fetch it again"),
        (miss_a_shard, r"{folder}/model.safetensors.index.json names model-00002-of-00004.safetensors, which is not"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"{folder}/tokenizer.json holds no tokenizer"),
        (lambda folder: (folder / "config.json").write_text("{"), r"{folder}/config.json is not valid JSON"),
    ],
    ids=["lacks a weight", "cut short", "misses a shard", "tokenizer", "config"],
)
def test_damaged_checkpoints(damage: Callable[[Path], object], message: str, plain: Path, tmp_path: Path) -> None:
    damage(plain)
    status, output = quantize(plain, *GPTQ[:1], tmp_path / "packed", *GPTQ[1:], DATASET)
    assert status == 1
    assert re.match("error: " + message.format(folder=re.escape(str(plain))), output), output
    assert not (tmp_path / "packed").exists()


def test_data_that_are_no_text(plain: Path, tmp_path: Path) -> None:
    file = tmp_path / "data.txt"
    for content, message in ((b"\xff\xfe", "is no text in UTF-8"), (b" \n\n", "dataset is empty: gptq needs texts")):
        file.write_bytes(content)
        status, output = quantize(plain, *GPTQ[:1], tmp_path / "packed", *GPTQ[1:], file)
        assert (status, message in output) == (1, True), output


def test_values_as_one_writes_them(tmp_path: Path) -> None:
    """One text where a list of them is meant, and Python's words for JSON's."""
    config = read_options("hqq", ["--skip-modules", "lm_head", "--view-as-float=False", "--group-size", "None"])
    assert (config.skip_modules, config.view_as_float, config.group_size) == (["lm_head"], False, None)


def test_help_lists_the_options_of_a_method() -> None:
    status, output = quantize("smollm2", "gptq", "--help")
    rows = dict(re.findall(r"^  --([\w-]+)\s+(.+)$", output.partition("Options of gptq:")[2], re.MULTILINE))
    assert status == 0
    assert (rows["bits"], rows["group-size"]) == ("int; required", "int; by default 128")
    assert "auto-round, awq, bitnet" in quantize("--help")[1]


def test_a_place_that_cannot_be_written(plain: Path, tmp_path: Path) -> None:
    """That is said before the work, not after it; a folder that was there stays, and is as empty."""
    (tmp_path / "file").write_text("")
    status, output = quantize(plain, "hqq", tmp_path / "file/packed")
    assert (status, output) == (
        1, f"error: {tmp_path}/file/packed cannot be written (Not a directory): name a folder elsewhere\n",
    )  # fmt: skip
    (tmp_path / "empty").mkdir()
    assert quantize(plain, "fp8", tmp_path / "empty")[0] == 1
    assert not list((tmp_path / "empty").iterdir())
    assert quantize(plain, "hqq", tmp_path / "empty")[0] == 0
    assert {file.name for file in (tmp_path / "empty").iterdir()} == {file.name for file in plain.iterdir()}


def command(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "unibody", "quantize", *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_full_disk(plain: Path, tmp_path: Path) -> None:
    """Files of no more than 20 kB stand for it. What is odd about the checkpoint is said in one line."""
    state = load_file(plain / "model.safetensors")
    save_file({**state, "spare": torch.ones(1)}, plain / "model.safetensors")
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (20_000, 20_000))
    _, errors = command(plain, "hqq", tmp_path / "packed", preexec_fn=limit).communicate(timeout=120)
    warning, error = errors.splitlines()
    assert warning == f"warning: {plain} has weights without a use: spare"
    assert error.startswith(f"error: {tmp_path}/packed cannot be written (")
    assert not (tmp_path / "packed").exists()


def test_an_interrupted_run(plain: Path, tmp_path: Path) -> None:
    """Ctrl-C in the midst of the work leaves nothing behind."""
    out = tmp_path / "packed"
    options = ("--bits", 4, "--group-size", 32, "--iters", 10**6, "--dataset", DATASET)
    process = command(plain, "auto-round", out, *options)
    for _ in range(600):
        if out.exists():
            break
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)
    assert (process.returncode, output[0], output[1].strip()) == (1, "", "Aborted!")
    assert not out.exists()


@pytest.mark.parametrize("architectures", [None, ["BertForPreTraining"]])
def test_an_encoder_without_a_known_head(architectures: list[str] | None, tmp_path: Path) -> None:
    """It is quantized with the head that it was trained with."""
    config = unibody.BertConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4
    )
    unibody.AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "bert")
    values = json.loads((tmp_path / "bert/config.json").read_text())
    (tmp_path / "bert/config.json").write_text(json.dumps({**values, "architectures": architectures}))
    status, output = quantize(tmp_path / "bert", "eetq", tmp_path / "packed")
    assert status == 0, output
    assert json.loads((tmp_path / "packed/config.json").read_text())["architectures"] == ["BertForMaskedLM"]


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
