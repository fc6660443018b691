"""What the scenarios measure, with transformers as the oracle of what the sides compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.command import bench, ready
from bench.conftest import CONFIG
from bench.small_repository import Repository
from unibody.bench.checkpoints import check_model
from unibody.bench.configuration import read_configurations

QUICK = ("scenario.iterations=2", "scenario.warmup_runs=1", "rounds=1", "model=tiny_llama")
EVERY = "backend=unibody,torch,transformers"


def results(output: Path) -> dict[str, Any]:
    """What was written for each configuration."""
    read = (json.loads(file.read_text(encoding="utf-8")) for file in output.rglob("benchmark.json"))
    return {found["name"]: found for found in read}


def test_inference(tmp_path: Path) -> None:
    """All backends generate the same tokens from one checkpoint, and every phase is measured in full."""
    sizes = ("scenario.batch_size=1", "scenario.sequence_length=16", "scenario.new_tokens=5")
    done = ready("inference", tmp_path, "--multirun", "--baseline", "backend=transformers", EVERY, *QUICK, *sizes)
    assert done.exit_code == 0, done.output
    found = results(tmp_path)
    assert len({json.dumps(result["facts"]["tokens"]) for result in found.values()}) == 1
    for result in found.values():
        report = result["report"]
        assert list(report) == ["load_model", "prefill", "first_token", "decode", "per_token"]
        assert [len(report[phase]["latency"]["values"]) for phase in report] == [2, 2, 2, 2, 8]
        latency, throughput = report["decode"]["latency"], report["decode"]["throughput"]
        assert throughput == {"unit": "tokens/s", "value": pytest.approx(4 / latency["mean"])}
        assert report["prefill"]["throughput"]["value"] == pytest.approx(16 / report["prefill"]["latency"]["mean"])
        assert report["per_token"]["latency"]["total"] == pytest.approx(latency["total"], rel=0.01)
        assert 50 < report["prefill"]["memory"]["max_ram"] < 20_000
        assert report["prefill"]["memory"]["max_allocated"] is None
        assert report["prefill"]["not_measured"]["memory.max_*_vram, max_reserved, max_allocated"]
        energy = report["prefill"]["energy"]
        assert energy is not None or report["prefill"]["not_measured"]["energy.cpu, energy.ram"]
        assert result["sampling"][0]["cpu_percent"] >= 0
        assert result["config"]["environment"]["packages"]["torch"]
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["disagreements"] == []
    assert {change["baseline"] for change in summary["changes"]} == {"backend=transformers"}
    assert {change["config"] for change in summary["changes"]} == {"backend=unibody", "backend=torch"}


def test_several_rows(tmp_path: Path) -> None:
    sizes = ("scenario.batch_size=3", "scenario.sequence_length=8", "scenario.new_tokens=4", "scenario=decode")
    done = ready("inference", tmp_path, "--multirun", EVERY, *QUICK, *sizes)
    assert done.exit_code == 0, done.output
    found = results(tmp_path)
    assert len({result["facts"]["tokens"]["sha256"] for result in found.values()}) == 1
    assert all(len(result["report"]["decode"]["latency"]["values"]) == 2 for result in found.values())
    rate = found["backend=unibody"]["report"]["decode"]
    assert rate["throughput"]["value"] == pytest.approx(9 / rate["latency"]["mean"])


def test_other_tokens_are_told(tmp_path: Path) -> None:
    """A side whose tokens differ does other work; its times are not comparable, and the summary says so."""
    (tmp_path / "wrong.py").write_text(
        "from unibody.bench.backends.library import UnibodyBackend\n\n\nclass Wrong(UnibodyBackend):\n"
        "    def generate(self, ids, count, arrived):\n        return super().generate(ids.flip(-1), count, arrived)\n"
    )
    target = f"+backend.target={tmp_path / 'wrong.py'}:Wrong,null"
    done = ready(
        "inference", tmp_path / "out", "--multirun", target, *QUICK, "scenario=decode", "scenario.new_tokens=4"
    )
    assert done.exit_code == 0, done.output
    assert "generate different tokens from tiny_llama" in done.output


def test_train_step(tmp_path: Path) -> None:
    """The steps of all backends have the losses of transformers'."""
    done = ready(
        "inference", tmp_path, "--multirun", EVERY, *QUICK, "scenario=train_step", "scenario.sequence_length=16"
    )
    assert done.exit_code == 0, done.output
    losses = {name: found["facts"]["losses"] for name, found in results(tmp_path).items()}
    first, last = losses["backend=transformers"]
    assert last < first
    assert losses["backend=unibody"] == pytest.approx([first, last], abs=1e-5)
    assert losses["backend=torch"] == pytest.approx([first, last], abs=1e-5)


def test_perplexity(tmp_path: Path) -> None:
    """The perplexity of a plain and of a quantized model, against transformers' of the same text."""
    model = f"model.writer={Path(__file__).parent / 'tiny.py'}:write"
    more = ("model=tiny_llama", "model.config=null", model, "rounds=1", "scenario=perplexity", "scenario.windows=2")
    sweep = ("backend=unibody,transformers", "quantizer=none,ct_w8a8,quanto_int8")
    done = ready("inference", tmp_path, "--multirun", *sweep, *more, "scenario.window_length=64")
    found = {name: result["report"].get("perplexity", {}).get("quality") for name, result in results(tmp_path).items()}
    plain, theirs = found["backend=unibody,quantizer=none"], found["backend=transformers,quantizer=none"]
    assert 1 < plain["perplexity"] < 1000
    assert plain["perplexity"] == pytest.approx(theirs["perplexity"], rel=1e-4)
    assert plain["bits_per_weight"] == 32
    packed = found["backend=unibody,quantizer=ct_w8a8"]
    assert packed["perplexity"] == pytest.approx(
        found["backend=transformers,quantizer=ct_w8a8"]["perplexity"], rel=1e-3
    )
    assert packed["perplexity"] != plain["perplexity"]
    assert 8 < packed["bits_per_weight"] < 9
    # transformers does not read what quanto has packed: it makes random weights, which is told and not measured.
    assert done.exit_code == 1
    assert (
        "backend=transformers,quantizer=quanto_int8, worktree: ValueError: transformers finds no model.layers.0"
        in done.output
    )
    assert (
        "backend=unibody,quantizer=quanto_int8" in found
        and found["backend=transformers,quantizer=quanto_int8"] is None
    )


@pytest.mark.parametrize("model", ["random", "text"])
def test_quantizers_that_need_data(tmp_path: Path, model: str) -> None:
    """The ready ones calibrate on a text if the model has a tokenizer, and on random tokens if its weights are random."""
    made = {
        "random": ("model.config.num_hidden_layers=1", "model.config.hidden_size=64"),
        "text": ("model.config=null", f"model.writer={Path(__file__).parent / 'tiny.py'}:write"),
    }
    options = ("quantizer.options.group_size=32", "quantizer.options.model_seqlen=64", "scenario=load")
    sweep = ("--multirun", "quantizer=gptq,awq", "model=tiny_llama")
    done = ready("inference", tmp_path, *sweep, *made[model], *QUICK[:3], *options)
    assert done.exit_code == 0, done.output
    assert set(results(tmp_path)) == {"quantizer=gptq", "quantizer=awq"}


def test_linear_layer(tmp_path: Path) -> None:
    sizes = ("scenario.in_features=128", "scenario.out_features=64", "scenario.rows=[1,3]")
    done = ready("linear", tmp_path, "--multirun", "quantizer=none,gptq,hqq_4", *QUICK[:3], *sizes)
    assert done.exit_code == 0, done.output
    found = results(tmp_path)
    assert found["quantizer=gptq"]["facts"]["kernel"] == "int4pack_cpu"
    assert found["quantizer=none"]["facts"]["kernel"] == "Linear"
    assert all(list(result["report"]) == ["linear_m1", "linear_m3"] for result in found.values())


def test_generator(tmp_path: Path) -> None:
    done = ready("generator", tmp_path, "rounds=1", "scenario.iterations=1", "scenario.warmup_runs=0")
    assert done.exit_code == 0, done.output
    (found,) = results(tmp_path).values()
    assert found["facts"]["files"] > 20
    report = found["report"]
    assert report["compile"]["throughput"]["value"] == pytest.approx(
        found["facts"]["lines"] / report["compile"]["latency"]["mean"]
    )
    assert report["generate"]["latency"]["mean"] > 0.1


@pytest.mark.parametrize("group", ["model", "quantizer", "backend", "scenario", "launcher"])
def test_every_choice_can_be_read(group: str) -> None:
    files = list((CONFIG / group).glob("*.yaml"))
    found = read_configurations(CONFIG, "inference", [f"{group}=glob(*)"], multirun=True)
    assert {one.name for one in found} == {f"{group}={file.stem}" for file in files}
    assert len(files) > 1


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIG.glob("*.yaml")))
def test_every_configuration_can_be_read(name: str) -> None:
    (found,) = read_configurations(CONFIG, name, [], multirun=False)
    check_model(found.values)


def test_interpreter_of_another_environment(tmp_path: Path) -> None:
    """`backend.python` is what runs the backend, with the packages of its own environment."""
    import subprocess
    import sys

    repository = Repository(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "other")], check=True)
    scenario = repository.config / "scenario.py"
    scenario.write_text(scenario.read_text().replace("work.__file__", "__import__('sys').prefix"))
    python = tmp_path / "other/bin/python"
    done = bench(
        *("--config-dir", repository.config, "--config-name", "task", "--output", tmp_path / "out", "rounds=1"),
        *("--commit", repository.quick, "--repository", repository.root, f"+backend.python={python}"),
    )
    assert done.returncode == 0, done.stderr
    (found,) = results(tmp_path / "out").values()
    assert found["facts"]["file"] == str(tmp_path / "other")
