"""FSDP over gloo, on one, two and four processes: the numbers of one process, half of the bytes, and checkpoints for any number.

A module's worth of runs shares a few launches; each test reads what they left.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pages import code
from safetensors.torch import load_file
from tokenization.conftest import ROOT, minilm

import unibody
from training.sharded_runs import Runs, case, copied, launch, rows_of
from training.test_distributed import ACCELERATE, TORCHRUN
from training.test_page import TEXTS
from unibody.cli import unibody as command

FOUR = (*TORCHRUN[:-1], "4")
LAUNCHED = (
    ACCELERATE[0], "launch", "--use_fsdp", "--fsdp_version", "2", "--num_processes", "2", "--main_process_port", "0",
    "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP", "--fsdp_state_dict_type", "SHARDED_STATE_DICT",
)  # fmt: skip
PARTS = {"state_dict_type": "SHARDED_STATE_DICT"}
FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Bert", "Roberta")
BRIEF = {"max_steps": 3, "save_strategy": "no", "per_device_train_batch_size": 2, "eval_strategy": "no"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 25 MB in bfloat16, 50 MB in float32."""
    torch.manual_seed(0)
    config = unibody.LlamaConfig(
        vocab_size=2048, hidden_size=512, intermediate_size=1376, num_hidden_layers=3, num_attention_heads=8
    )
    folder = tmp_path_factory.mktemp("large")
    unibody.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def one(llama, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One process, started with python: without FSDP, and with it."""
    folder = tmp_path_factory.mktemp("one")
    cases = [
        case("adamw", rows_of(4, 1)),
        case("sgd", rows_of(4, 1, optim="sgd", optim_args={"momentum": 0.9})),
        case("whole", rows_of(4, 1, fsdp=True)),
        case("parts", rows_of(4, 1, fsdp=True, fsdp_config=PARTS)),
        case("qlora", rows_of(4, 1), model="qlora"),
    ]
    launch((sys.executable,), folder, llama.folder, cases)
    return Runs(folder)


@pytest.fixture(scope="module")
def two(llama, large: Path, one: Runs, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two processes under torchrun."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("adamw", "parts"):
        copied(one.folder / name, folder / f"{name}_from_one", last=8)
    momentum = {"optim": "sgd", "optim_args": {"momentum": 0.9}}
    late = {"cpu_ram_efficient_loading": True}
    cases = [
        case("warm", {**BRIEF, "fsdp": True}),
        case("late", {**BRIEF, "optim": "sgd", "fsdp": True, "fsdp_config": late}, model=str(large)),
        case("now", {**BRIEF, "optim": "sgd", "fsdp": True}, model=str(large)),
        case("ddp", rows_of(4, 2)),
        case("adamw", rows_of(2, 2, fsdp=True, gradient_accumulation_steps=2), predict=True),
        case("sgd", rows_of(4, 2, fsdp="shard_grad_op", **momentum)),
        case("parts", rows_of(4, 2, fsdp=["full_shard"], fsdp_config=PARTS)),
        case("adamw_from_one", rows_of(4, 2, fsdp=True, fsdp_config=late), resume=True),
        case("parts_from_one", rows_of(4, 2, fsdp=True), resume=True),
        case("file", rows_of(4, 2, fsdp=True, fsdp_config={"activation_checkpointing": True}), model="file"),
        case("sized", rows_of(4, 2, fsdp="full_shard auto_wrap", fsdp_config={"min_num_params": 3000})),
        case("wrapped", rows_of(4, 2, fsdp=True, gradient_checkpointing=True), model="wrapped"),
        case("bf16", rows_of(4, 2, fsdp=True, bf16=True)),
        case("tied", rows_of(4, 2, fsdp=True, fsdp_config=PARTS, max_steps=10), model="tied"),
        case("tied_ddp", rows_of(4, 2, max_steps=10), model="tied"),
        case("qlora", rows_of(4, 2, fsdp=True), model="qlora"),
        *(case(f"{name}_fsdp", {**BRIEF, "fsdp": True}, model=f"family:{name}") for name in FAMILIES),
        *(case(f"{name}_ddp", BRIEF, model=f"family:{name}") for name in FAMILIES),
        case("wrong_layer", {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": "LlamaDecoderLayers"}}),
        case("offload", {"fsdp": "full_shard offload"}),
        case("hybrid", {"fsdp": "hybrid_shard"}),
        case("indivisible", {"fsdp": "hybrid_shard", "fsdp_config": {"dp_replicate_size": 3}}),
        case("late_adapter", {"fsdp": True, "fsdp_config": late}, model="lora"),
        case("adafactor", {"fsdp": True, "optim": "adafactor"}),
    ]
    launch(TORCHRUN, folder, llama.folder, cases)
    return Runs(folder)


@pytest.fixture(scope="module")
def killed(llama, two: Runs, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two processes, of which one is killed while they save step 16; then started again, by accelerate's launcher."""
    folder = tmp_path_factory.mktemp("killed")
    settings = {**rows_of(4, 2), "fsdp": True, "fsdp_config": PARTS}
    launch(TORCHRUN, folder, llama.folder, [case("parts", settings, kill=16)], status=1)
    left = {path.name for path in (folder / "parts").iterdir()}
    assert left == {"checkpoint-8", ".checkpoint-16.partial"}
    launch(LAUNCHED, folder, llama.folder, [case("parts", rows_of(4, 2), resume=True)])
    return Runs(folder)


@pytest.fixture(scope="module")
def four(llama, two: Runs, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Four processes that go on from two: all shards, and two replicas of two shards."""
    folder = tmp_path_factory.mktemp("four")
    for name in ("ddp", "parts"):
        copied(two.folder / name, folder / name, last=16)
    hybrid = {"dp_replicate_size": 2, **PARTS}
    cases = [
        case("ddp", rows_of(4, 4, fsdp=True), resume=True),
        case("parts", rows_of(4, 4, fsdp="hybrid_shard", fsdp_config=hybrid), resume=True),
    ]
    launch(FOUR, folder, llama.folder, cases)
    return Runs(folder)


@pytest.fixture(scope="module")
def back(llama, four: Runs, two: Runs, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One process that goes on from two: with FSDP from parts, without it from a whole checkpoint; and what it refuses."""
    folder = tmp_path_factory.mktemp("back")
    copied(two.folder / "adamw", folder / "plain", last=16)
    for name in ("parts", "refused"):
        copied(two.folder / "parts", folder / name, last=16)
    shutil.rmtree(folder / "parts" / "checkpoint-8")
    copied(two.folder / "tied", folder / "tied", last=8)
    copied(two.folder / "qlora", folder / "qlora", last=8)
    cases = [
        case("plain", rows_of(4, 1), resume=True),
        case("parts", rows_of(4, 1, fsdp=True), resume=True),
        case("tied", rows_of(4, 1, fsdp=True, max_steps=10), model="tied", resume=True),
        case("qlora", rows_of(4, 1), model="qlora", resume=True),
        case("refused", rows_of(4, 1), resume=True),
        case("other", rows_of(4, 1, fsdp=True), model="tied", resume=str(folder / "refused" / "checkpoint-8")),
    ]
    launch((sys.executable,), folder, llama.folder, cases)
    return Runs(folder)


def test_one_process(one: Runs) -> None:
    one.check("whole", one, "adamw", 1)
    one.check("parts", one, "adamw", 1)
    assert one("whole")[0]["units"] == ["FSDPLlamaDecoderLayer", "FSDPLlamaForCausalLM"]


@pytest.mark.parametrize(
    ("name", "reference"),
    [("ddp", "adamw"), ("adamw", "adamw"), ("sgd", "sgd"), ("parts", "adamw"), ("file", "adamw"), ("sized", "adamw"), ("wrapped", "adamw")],
)  # fmt: skip
def test_two_processes_are_one(one: Runs, two: Runs, name: str, reference: str) -> None:
    """One process, DDP and FSDP: the same run; of weights and optimizer, each process of FSDP has half."""
    two.check(name, one, reference, 2)
    (whole,) = one(reference)
    for process in two(name) if name != "ddp" else ():
        assert process["parameters"] <= 0.6 * whole["parameters"] and process["optimizer"] <= 0.6 * whole["optimizer"]


def test_units(two: Runs) -> None:
    assert two("adamw")[0]["units"] == ["FSDPLlamaDecoderLayer", "FSDPLlamaForCausalLM"]
    assert two("sized")[0]["units"] == [
        "FSDPEmbedding", "FSDPLinear", "FSDPLlamaAttention", "FSDPLlamaForCausalLM", "FSDPLlamaMLP",
    ]  # fmt: skip
    assert two("adamw")[1]["predictions"] == [5, 12, 128]


@pytest.mark.parametrize("name", FAMILIES)
def test_families(two: Runs, name: str) -> None:
    """Every generated family, tied embeddings included."""
    two.check(f"{name}_fsdp", two, f"{name}_ddp", 2, steps=3)
    assert two(f"{name}_fsdp")[0]["tied"] == two(f"{name}_ddp")[0]["tied"]


def test_ties_and_first_values(two: Runs) -> None:
    """Processes whose models began with other values train the first one's, as in DDP; tied weights stay one."""
    two.check("tied", two, "tied_ddp", 2, steps=10)
    assert all(process["tied"] for process in two("tied"))


def test_mixed_precision(one: Runs, two: Runs) -> None:
    """Another arithmetic, the same run but for its rounding; the weights keep their type."""
    (mine, _), (other,) = two("bf16"), one("adamw")
    assert mine["losses"] == pytest.approx(other["losses"], abs=2e-3)
    assert mine["losses"] != pytest.approx(other["losses"], abs=1e-5)
    assert {tensor.dtype for tensor in two.weights("bf16").values()} == {torch.float32}


def test_four_bits(one: Runs, two: Runs, back: Runs) -> None:
    """Adapters beside packed weights are sharded, and go on on another number of processes; the packed stay as they are."""
    (whole,), mine = one("qlora"), two("qlora")
    for found in (*mine, *back("qlora")):
        assert found["losses"] == pytest.approx(whole["losses"], abs=1e-5)
    assert mine[0]["optimizer"] <= 0.6 * whole["optimizer"]
    names = {path.name for path in (two.folder / "qlora" / "final").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}


def test_weights_are_read_in_parts(two: Runs) -> None:
    """With cpu_ram_efficient_loading no process has more in memory than its shards, and the file that is mapped."""
    for late, now in zip(two("late"), two("now"), strict=True):
        assert late["losses"] == now["losses"]
        assert late["devices"] == ["meta"] and now["devices"] == ["cpu"]
        whole = 2 * late["parameters"]
        assert late["loaded"] < 0.1 * whole and now["loaded"] > 0.8 * whole
        assert late["held"] < 0.6 * whole
        assert late["peak"] < 0.8 * now["peak"]


def test_killed_and_resumed(two: Runs, killed: Runs) -> None:
    """The same run as one that was not killed, number for number; what was half written is gone."""
    assert [found["losses"] for found in killed("parts")] == [found["losses"] for found in two("parts")]
    for name, tensor in two.weights("parts").items():
        assert torch.equal(tensor, killed.weights("parts")[name]), name
    assert sorted(path.name for path in (killed.folder / "parts").glob("*checkpoint*")) == [
        "checkpoint-16", "checkpoint-20", "checkpoint-8",
    ]  # fmt: skip


def test_other_numbers_of_processes(one: Runs, two: Runs, four: Runs, back: Runs) -> None:
    """1 → 2, 2 → 4 and 2 → 1 processes, whole checkpoints and parts, with FSDP and without."""
    two.check("adamw_from_one", one, "adamw", 2)
    two.check("parts_from_one", one, "adamw", 2)
    four.check("ddp", one, "adamw", 4)
    four.check("parts", one, "adamw", 4)
    back.check("plain", one, "adamw", 1)
    back.check("parts", one, "adamw", 1)
    back.check("tied", two, "tied_ddp", 1, steps=10)
    (whole,) = one("adamw")
    assert [round(whole["parameters"] / runs("parts")[0]["parameters"]) for runs in (one, two, four)] == [1, 2, 2]
    assert round(whole["parameters"] / four("ddp")[0]["parameters"]) == 4


def test_checkpoints(two: Runs) -> None:
    """A whole one is what DDP writes; of the other, each process has written its part."""
    whole, same, parts = (two.folder / name / "checkpoint-8" for name in ("adamw", "ddp", "parts"))
    assert {path.name for path in whole.iterdir()} == {path.name for path in same.iterdir()}
    for name in ("adamw", "parts", "file"):
        config = json.loads((two.folder / name / "checkpoint-8" / "config.json").read_text(encoding="utf-8"))
        assert config["architectures"] == ["LlamaForCausalLM"]
    sizes = [(parts / "pytorch_model_fsdp_0" / f"__{rank}_0.distcp").stat().st_size for rank in (0, 1)]
    assert max(sizes) < 0.9 * (whole / "model.safetensors").stat().st_size and min(sizes) > 0.9 * max(sizes)
    assert not (parts / "model.safetensors").exists() and not (parts / "optimizer.pt").exists()
    saved, plain = (torch.load(path / "optimizer.pt", weights_only=True) for path in (whole, same))
    for number, values in plain["state"].items():
        for name, value in values.items():
            torch.testing.assert_close(saved["state"][number][name], value, rtol=0, atol=1e-6)


def test_merging(two: Runs, tmp_path: Path) -> None:
    """One checkpoint of the parts, with the weights that accelerate merges of them; sizes of files, and ties, are kept."""
    from accelerate.utils import merge_fsdp_weights

    parts = two.folder / "parts" / "checkpoint-20"
    merged = unibody.merge_sharded_checkpoint(parts, tmp_path / "merged", max_shard_size="30KB")
    assert {path.name for path in merged.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors.index.json",
        *(f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)),
    }  # fmt: skip
    state = unibody.AutoModelForCausalLM.from_pretrained(merged).state_dict()
    merge_fsdp_weights(str(parts / "pytorch_model_fsdp_0"), str(tmp_path / "theirs"))
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    assert theirs.keys() == state.keys() and all(torch.equal(tensor, state[n]) for n, tensor in theirs.items())
    model = unibody.AutoModelForCausalLM.from_pretrained(
        unibody.merge_sharded_checkpoint(two.folder / "tied" / "checkpoint-10", tmp_path / "tied")
    )
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_merging_by_command(two: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for status, text in (
        (0, f"wrote {tmp_path / 'out'}\n"),
        (1, "holds files already: name a folder that is new or empty\n"),
    ):
        with pytest.raises(SystemExit) as done:
            command(["merge", str(two.folder / "parts" / "checkpoint-8"), str(tmp_path / "out")])
        assert done.value.code == status
        assert "".join(capsys.readouterr()).endswith(text)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_half_a_checkpoint_is_not_merged(two: Runs, tmp_path: Path) -> None:
    parts = tmp_path / "checkpoint-8"
    shutil.copytree(two.folder / "parts" / "checkpoint-8", parts)
    file = parts / "pytorch_model_fsdp_0" / "__1_0.distcp"
    whole = file.read_bytes()
    file.write_bytes(whole[:-2000])
    for remedy in (
        r"__1_0\.distcp has \d+ bytes of \d+: fetch it again",
        r"has no __1_0\.distcp, a process's part: fetch it",
    ):
        with pytest.raises(ValueError, match=remedy):
            unibody.merge_sharded_checkpoint(parts, tmp_path / "out")
        file.unlink(missing_ok=True)
    with pytest.raises(OSError, match=r"adamw/checkpoint-8/pytorch_model_fsdp_0 is not there or has no \.metadata"):
        unibody.merge_sharded_checkpoint(two.folder / "adamw" / "checkpoint-8", tmp_path / "out")
    (parts / "pytorch_model_fsdp_0" / ".metadata").write_bytes(pickle.dumps(print))
    with pytest.raises(
        ValueError, match=r"\.metadata cannot be read \(it names builtins\.print, which is no part of an index"
    ):
        unibody.merge_sharded_checkpoint(parts, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-8"]
    with pytest.raises(ValueError, match="checkpoint-8 holds files already: name a folder that is new or empty"):
        unibody.merge_sharded_checkpoint(two.folder / "parts" / "checkpoint-8", parts)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong_layer", "ValueError: transformer_layer_cls_to_wrap names LlamaDecoderLayers, which LlamaForCausalLM does not have: "
         "it has Embedding, Linear, LlamaAttention, LlamaDecoderLayer, LlamaMLP, LlamaModel, "),
        ("offload", "ValueError: fsdp offloads shards to the CPU, which is where this run computes: leave 'offload' out"),
        ("hybrid", "ValueError: hybrid_shard has one group of 2 processes, and nothing to replicate: write 'full_shard', or set "),
        ("indivisible", "ValueError: hybrid_shard over 2 processes: dp_replicate_size × dp_shard_size has to be 2"),
        ("late_adapter", "ValueError: model.layers.0.self_attn.q_proj.lora_A.default.weight is on the meta device and has no values: "),
        ("adafactor", "ValueError: Adafactor does not work on shards in this release of torch: choose another optim"),
    ],
)  # fmt: skip
def test_refused(two: Runs, name: str, message: str) -> None:
    assert all(found["error"].startswith(message) for found in two(name)), two(name)


def test_page(tmp_path: Path) -> None:
    """The code of docs/fsdp.md is a script, which two processes run."""
    tokenizer = unibody.AutoTokenizer.from_pretrained(str(minilm()))
    config = unibody.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    unibody.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    script = f"folder, texts = 'base', {TEXTS}\n{code('docs/fsdp.md')}"
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*TORCHRUN, "train.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    merged, tuned = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "tuned"))
    assert merged.keys() == tuned.keys() and all(torch.equal(tensor, tuned[name]) for name, tensor in merged.items())
    assert unibody.AutoTokenizer.from_pretrained(tmp_path / "merged").pad_token_id == tokenizer.pad_token_id


def test_resuming_is_refused(back: Runs) -> None:
    ((plain,), (other,)) = back("refused"), back("other")
    assert plain["error"].endswith("it has no optimizer.pt: it is in parts, which fsdp=True resumes from")
    assert "checkpoint-8 is a checkpoint of another model than this LlamaForCausalLM: it " in other["error"]
