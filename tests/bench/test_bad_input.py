"""What cannot be done is said in one line, with the value and the remedy; what has been measured is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.command import bench, environment, invoke, line
from bench.conftest import CONFIG
from bench.small_repository import Repository
from bench.tiny import write

INFERENCE = ("--config-dir", str(CONFIG), "--config-name", "inference")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config-dir", "gone", "--config-name", "x"), "--config-dir gone is no folder"),
        (("--config-dir", str(CONFIG), "--config-name", "infrence"), "has no infrence.yaml: is it inference?"),
        ((*INFERENCE, "--metrics", "decode.latncy.mean"), "--metrics decode.latncy.mean: is it decode.latency.mean? A metric is phase.measure.statistic"),
        ((*INFERENCE, "--metrics", "decode.latency"), "--metrics decode.latency: is it decode.latency.mean?"),
        ((*INFERENCE, "--fail-on-regression", "much"), "--fail-on-regression much: give per cent, as in 5%"),
        ((*INFERENCE, "backend=unibody,torch"), "backend=unibody,torch has several values: add --multirun, or quote it if it is one text"),
        ((*INFERENCE, "--multirun", "model=glob(nothing*)"), "model=glob(nothing*) sweeps over nothing: give it at least one value"),
        ((*INFERENCE, "backend=unibdy"), "Could not find 'backend/unibdy'"),
        ((*INFERENCE, "scenario.iteratons=3"), "Could not override 'scenario.iteratons'"),
        ((*INFERENCE, "model=3"), "inference.yaml: Config group override must be a string or a list. Got int"),
        ((*INFERENCE, "rounds"), "inference.yaml: "),
        ((*INFERENCE, "rounds=0"), "rounds is 0: give how often each configuration is run, 1 or more"),
        ((*INFERENCE, "launcher.name=docker"), "launcher.name is 'docker': give process or inprocess"),
        ((*INFERENCE, "launcher=inprocess", "--commit", "main"), "--commit needs launcher=process"),
        ((*INFERENCE, "model.config=null"), "model 'llama_135m' gives nothing to read: give one of path (a folder or a Hub id), "),
        ((*INFERENCE, "model=checkpoint", "model.path=./gone"), "model.path './gone' is neither a folder that exists nor a Hub id"),
        ((*INFERENCE, "--baseline", "backend=torch"), "--baseline backend=torch is no override of the sweep; there are none"),
        ((*INFERENCE, "--compare", "{tmp}"), "has no benchmark.json: name the folder of an earlier run"),
        ((*INFERENCE, "--database", "mysql://h/d"), "mysql is not supported"),
        ((*INFERENCE, "--database", "postgresql://u:secret@127.0.0.1:1/d"), "u:***@127.0.0.1:1/d cannot be used ("),
        ((*INFERENCE, "--output", "/proc/results"), "/proc/results"),
    ],
)  # fmt: skip
def test_refused_at_once(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*(word.format(tmp=tmp_path) if word == "{tmp}" else word for word in arguments))
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.output


def test_unknown_option() -> None:
    done = invoke(*INFERENCE, "--mutlirun")
    assert done.exit_code == 2
    assert "No such option '--mutlirun'. Did you mean '--multirun'?" in done.stderr


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is there already."""
    folder = tmp_path_factory.mktemp("plain")
    write(folder)
    return folder


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("scenario.iterations=0",),
            "ValueError: iterations 0, warmup_runs 0 and duration 0: give at least 1, 0 and 0",
        ),
        (("scenario.phases=[decod]",), "ValueError: scenario.phases is ['decod']: name some of load_model, forward,"),
        (("scenario.new_tokens=1",), "ValueError: scenario.new_tokens is 1: decoding begins with the second token"),
        (("backend.name=onnx",), "ValueError: backend 'onnx' is not known: is it torch or unibody?"),
        (("+scenario.target=nowhere.py:run",), "nowhere.py is no file: a target is module:Name or file.py:Name"),
        (("model=checkpoint", "model.path=owner/name"), "model 'owner/name': no checkpoint could be made: owner/name"),
        (("model.config.model_type=lama",), "says model_type 'lama'; generated files read"),
        (("quantizer=gptq", "quantizer.method=gpt"), "method 'gpt' is not known: there are"),
        (("backend=torch", "model=tiny_gemma"), "ValueError: backend torch cannot run model_type 'gemma'"),
        (("+backend.python=/gone/python",), "backend.python /gone/python is no file"),
    ],
)
def test_run_that_fails(overrides: tuple[str, ...], message: str, plain: Path, tmp_path: Path) -> None:
    """The reason is in the tables, and in the files that are written all the same."""
    quick = (
        "model=tiny_llama",
        "scenario.warmup_runs=0",
        "scenario.iterations=1",
        "scenario.new_tokens=2",
        "rounds=1",
    )
    launcher = "launcher=process" if "python" in overrides[0] else "launcher=inprocess"
    more = [name.removeprefix("+") if "python" in name else name for name in overrides]
    done = invoke(*INFERENCE, "--output", tmp_path, launcher, *quick, *more)
    assert done.exit_code == 1, done.output
    assert message in done.stdout
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert message in summary["failures"][0]["message"]
    assert (tmp_path / "index.html").is_file()


def test_unknown_phase(tmp_path: Path) -> None:
    """That no phase of this name was measured is known at the end; the results are kept."""
    repository = Repository(tmp_path)
    (repository.config / "task.yaml").write_text(
        (repository.config / "task.yaml").read_text().replace("rounds: 3", "rounds: 1")
    )
    done = bench(
        *("--config-dir", repository.config, "--config-name", "task", "--output", tmp_path / "out"),
        *(
            "--repository",
            repository.root,
            "--commit",
            repository.quick,
            "--metrics",
            "tsk.latency.mean,task.latency.p90",
        ),
    )
    assert done.returncode == 1
    assert "--metrics tsk.latency.mean: no phase of this name was measured: is it task.latency.mean?" in done.stderr
    results = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))["results"]
    (values,) = results["small"]["default"].values()
    assert values["tsk.latency.mean"] is None and values["task.latency.p90"] > 0


def test_too_long(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    arguments = ("--config-dir", repository.config, "--config-name", "task", "--output", tmp_path / "out")
    more = (
        "--repository",
        repository.root,
        "--commit",
        repository.quick,
        "+launcher.timeout=0.2",
        "scenario.iterations=100000",
    )
    done = bench(*arguments, *more)
    assert done.returncode == 1
    assert "took longer than launcher.timeout, 0.2 s" in done.stdout


def test_process_that_dies(tmp_path: Path) -> None:
    """A backend that is killed, as for want of memory, is told with the last lines that it wrote."""
    repository = Repository(tmp_path)
    scenario = repository.config / "scenario.py"
    scenario.write_text(
        "import os\n\n\nclass NoBackend:\n    def __init__(self, settings):\n        print('nearly there', flush=True)\n"
        "        os.kill(os.getpid(), 9)\n\n\ndef run(*_):\n    pass\n"
    )
    done = bench("--config-dir", repository.config, "--config-name", "task", "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "the process was ended by SIGKILL; perhaps the memory was not enough" in done.stdout
    failure = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))["failures"][0]
    assert failure["traceback"] == "nearly there"


def test_disk_is_full(tmp_path: Path) -> None:
    """No file may grow beyond 40 kB after the first round: the error names the file, and the first round's report is whole."""
    repository = Repository(tmp_path)
    scenario = repository.config / "scenario.py"
    scenario.write_text(
        scenario.read_text().replace("    facts", "    facts['long'] = 'x' * 30_000 if meter else ''\n    facts")
    )
    arguments = ("--config-dir", repository.config, "--config-name", "task", "--output", tmp_path / "out")
    more = (
        "--repository",
        repository.root,
        "--commit",
        repository.quick,
        "scenario.iterations=700",
        "--database",
        tmp_path / "r.sqlite",
    )
    (repository.root / "work.py").write_text("def task():\n    pass\n")
    repository.git("commit", "-qam", "nothing to do")
    more = (*more[:3], "HEAD", *more[4:])
    limited = f"import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, -1)); import os; os.execv(sys.executable, {line(*arguments, *more)!r})"
    done = subprocess.run(
        [sys.executable, "-c", limited], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (1, 2), done.stderr
    assert "File too large" in done.stderr or "full" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    left = list((tmp_path / "out").rglob("*.json"))
    assert left and all(json.loads(path.read_text(encoding="utf-8")) for path in left)
    assert not [name for name in os.listdir(tmp_path / "out") if "partial" in name]
    assert len(repository.worktrees()) == 1
