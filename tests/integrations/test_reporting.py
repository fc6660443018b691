"""Each tracker's own files are read back, and hold the values that were logged."""

from __future__ import annotations

import json
import sqlite3
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unibody
from unibody import integrations
from unibody.integrations import reporting
from unibody.integrations.reporting.base import ReportingCallback, named

BEGIN = """
import sys, torch, unibody
from torch import nn
class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)
    def forward(self, x, labels):
        return {"loss": ((self.linear(x) - labels) ** 2).mean()}
data = [{"x": torch.tensor([float(i)]), "labels": torch.tensor([2.0 * i])} for i in range(8)]
def trainer(tracker, folder, **more):
    args = unibody.TrainingArguments(
        folder, max_steps=4, logging_steps=1, eval_strategy="steps", eval_steps=2, learning_rate=0.01, optim="sgd", use_cpu=True,
        save_steps=4, report_to=tracker, run_name="run-of-the-test", project="project-of-the-test", disable_tqdm=True, **more)
    torch.manual_seed(0)
    return unibody.Trainer(Line(), args, train_dataset=data, eval_dataset=data[:3])
made = trainer(sys.argv[1], sys.argv[2])
made.train()
made.save_state()
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`trained(tracker, **environment)`: a run in a process of its own, as trackers keep threads; what it logged, by step."""

    def run(tracker: str, more: str = "", **environment: str) -> dict[int, dict[str, float]]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        command = [sys.executable, "-W", "ignore", "-c", BEGIN + more, tracker, str(tmp_path / "out")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "reports no more" not in done.stderr
        state = unibody.TrainerState.load_from_json(tmp_path / "out" / "trainer_state.json")
        found: dict[int, dict[str, float]] = {}
        for log in state.log_history:
            found.setdefault(log["step"], {}).update(named({k: v for k, v in log.items() if k != "step"}))
        assert set(found) == {1, 2, 3, 4}
        assert {"train/loss", "train/learning_rate", "eval/loss", "train/train_loss"} <= found[4].keys()
        return found

    return run


def assert_logged(
    values: dict[int, dict[str, float]], logged: dict[int, dict[str, float]], precision: float = 0
) -> None:
    """Every value that was logged is there, at its step."""
    for step, expected in logged.items():
        assert expected.keys() <= values[step].keys()
        for name, value in expected.items():
            assert values[step][name] == pytest.approx(value, rel=precision), (step, name)


def test_jsonl(trained: Any, tmp_path: Path) -> None:
    logged, values = trained("jsonl"), dict[int, dict[str, float]]()
    for line in (tmp_path / "out" / "log.jsonl").read_text(encoding="utf-8").splitlines():
        read = json.loads(line)
        values.setdefault(read.pop("step"), {}).update(named(read))
    assert_logged(values, logged)


def test_tensorboard(trained: Any, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    logged, values = trained("tensorboard"), dict[int, dict[str, float]]()
    events = accumulator.EventAccumulator(str(tmp_path / "out" / "runs" / "run-of-the-test")).Reload()
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            values.setdefault(event.step, {})[name] = event.value
    assert_logged(values, logged, precision=1e-6)
    (text,) = events.Tensors("args/text_summary")
    assert json.loads(text.tensor_proto.string_val[0])["learning_rate"] == 0.01


def records(file: Path) -> Any:
    """The records of a .wandb file: blocks of 32 KiB of LevelDB's log format, after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := -position % 32768) and left < 7:
            position += left
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_wandb(trained: Any, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    logged = trained("wandb", WANDB_MODE="offline", WANDB_DIR=str(tmp_path), WANDB_SILENT="true")
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    values, config, project = dict[int, dict[str, float]](), dict[str, Any](), set[str]()
    for record in records(file):
        if record.HasField("history"):
            items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            values.setdefault(items["train/global_step"], {}).update(items)
        if record.HasField("config"):
            config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        if record.HasField("run"):
            project |= {record.run.project, record.run.display_name}
    assert_logged(values, logged)
    assert config["learning_rate"] == 0.01 and {"project-of-the-test", "run-of-the-test"} <= project


def test_mlflow(trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    logged = trained(
        "mlflow", MLFLOW_ALLOW_FILE_STORE="true", MLFLOW_TRACKING_URI=f"file://{tmp_path}/store",
        MLFLOW_EXPERIMENT_NAME="project-of-the-test", MLFLOW_TAGS='{"who": "a test"}', HF_MLFLOW_LOG_ARTIFACTS="1",
    )  # fmt: skip
    (run,) = (path.parent for path in tmp_path.glob("store/*/*/metrics"))
    values: dict[int, dict[str, float]] = {}
    for file in (path for path in (run / "metrics").rglob("*") if path.is_file()):
        for line in file.read_text(encoding="utf-8").splitlines():
            _, value, step = line.split()
            values.setdefault(int(step), {})[file.relative_to(run / "metrics").as_posix()] = float(value)
    assert_logged(values, logged)
    assert (run / "params" / "learning_rate").read_text(encoding="utf-8") == "0.01"
    assert (run / "tags" / "who").read_text(encoding="utf-8") == "a test"
    assert (run / "tags" / "mlflow.runName").read_text(encoding="utf-8") == "run-of-the-test"
    assert (run / "artifacts" / "checkpoint-4" / "model.safetensors").is_file()
    assert "status: 3" in (run / "meta.yaml").read_text(encoding="utf-8")  # finished


def test_comet(trained: Any, tmp_path: Path) -> None:
    pytest.importorskip("comet_ml", reason="comet-ml is not installed")
    logged = trained(
        "comet", COMET_START_ONLINE="0", COMET_OFFLINE_DIRECTORY=str(tmp_path / "comet"), COMET_API_KEY="none",
        COMET_PROJECT_NAME="project-of-the-test", COMET_LOGGING_CONSOLE="CRITICAL",
    )  # fmt: skip
    (archive,) = (tmp_path / "comet").glob("*.zip")
    with zipfile.ZipFile(archive) as files:
        messages = [json.loads(line) for line in files.read("messages.json").decode().splitlines()]
    values, parameters = dict[int, dict[str, float]](), dict[str, Any]()
    for message in (entry["payload"] for entry in messages):
        if metric := message.get("metric"):
            values.setdefault(metric["step"], {})[metric["metricName"]] = float(metric["metricValue"])
        if parameter := message.get("param"):
            parameters[parameter["paramName"]] = parameter["paramValue"]
    assert_logged(values, logged)
    assert float(parameters["learning_rate"]) == 0.01


def test_trackio(trained: Any, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    logged = trained("trackio", TRACKIO_DIR=str(tmp_path / "trackio"))
    values: dict[int, dict[str, float]] = {}
    with sqlite3.connect(tmp_path / "trackio" / "project-of-the-test.db") as database:
        for step, text, name in database.execute("select step, metrics, run_name from metrics"):
            assert name == "run-of-the-test"
            values.setdefault(step, {}).update(json.loads(text))
        ((config,),) = database.execute("select config from configs")
    assert_logged(values, logged)
    assert json.loads(config)["learning_rate"] == 0.01


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.linear(x) - labels) ** 2).mean()}


def trainer(folder: Path, **settings: Any) -> unibody.Trainer:
    callbacks = settings.pop("callbacks", [])
    data = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 4
    args = unibody.TrainingArguments(
        str(folder), max_steps=3, logging_steps=1, use_cpu=True, disable_tqdm=True, **settings
    )
    return unibody.Trainer(Line(), args, train_dataset=data, eval_dataset=data, callbacks=callbacks)


@pytest.mark.parametrize("method", ["start", "write", "save", "end"])
def test_a_tracker_that_fails_stops_nothing(tmp_path: Path, method: str) -> None:
    calls: list[str] = []

    class Fails(ReportingCallback):
        pass

    def fail(self: Any, *_: Any) -> None:
        calls.append(method)
        raise ConnectionError("no network")

    setattr(Fails, method, fail)
    made = trainer(tmp_path, report_to="none", callbacks=[Fails()])
    with pytest.warns(
        UserWarning, match=r"^Fails failed, and reports no more; .*\(ConnectionError: no network\)$"
    ) as caught:
        assert made.train().global_step == 3
    assert len(caught) == len(calls) == 1


def test_only_the_first_process_reports(tmp_path: Path) -> None:
    made = trainer(tmp_path, report_to="jsonl", save_strategy="no")

    class Second(unibody.TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            state.is_world_process_zero = False

    made.callback_handler.callbacks.insert(0, Second())
    made.train()
    assert not (tmp_path / "log.jsonl").exists()


def test_values_that_json_lacks(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.log({"loss": float("nan"), "other": 1.5})
    (line,) = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["loss"] is None and json.loads(line)["other"] == 1.5


def test_names() -> None:
    available = integrations.get_available_reporting_integrations()
    assert "jsonl" in available
    assert set(available) == {
        name for name in reporting.TRACKERS if name == "jsonl" or integrations.is_available(name)
    }
    find = integrations.get_reporting_integration_callbacks
    assert find("none") == find([]) == find(None) == []
    assert find(["jsonl", "jsonl"]) == find("jsonl") == [integrations.JsonlCallback]
    assert find("comet_ml") == [integrations.CometCallback]
    assert [found.__name__ for found in find("all")] == [reporting.TRACKERS[name] for name in available]
    with pytest.raises(ValueError, match="report_to names 'wanbd', which is no tracker: do you mean 'wandb'"):
        find("wanbd")
    with pytest.raises(ValueError, match="report to some of comet, jsonl, mlflow, tensorboard, trackio, wandb"):
        find("xyz")


def test_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("unibody.integrations.availability.find_spec", lambda name: None if name == "wandb" else 1)
    message = r"WandbCallback, which report_to asks for, needs wandb >= [\d.]+, which is not installed: pip install 'unibody\[wandb\]'"
    with warnings.catch_warnings(), pytest.raises(integrations.MissingPackageError, match=message):
        trainer(tmp_path, report_to=["jsonl", "wandb"])
    assert not list(tmp_path.iterdir())
