"""`unibody bench`: every configuration at every commit, in turns, into one folder and one database."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unibody.bench.checkpoints import check_model, find_checkpoint
from unibody.bench.configuration import Configuration, read_configurations
from unibody.bench.devices import Sample
from unibody.bench.errors import BenchmarkError
from unibody.bench.launchers import launch
from unibody.bench.machine import describe_machine
from unibody.bench.metrics import check_phases, parse_metrics
from unibody.bench.page import write_page
from unibody.bench.recorder import MetricsRecorder
from unibody.bench.report import find_metric
from unibody.bench.results import Result, read_results, result_folder
from unibody.bench.summary import Summary
from unibody.bench.worktrees import CHECKOUT, checked_out, git, has_changes

INTERRUPTED = 130


@dataclass
class Options:
    """What the command line asks for."""

    config_dir: Path
    config_name: str
    overrides: Sequence[str] = ()
    multirun: bool = False
    commits: Sequence[str] = ()
    metrics: str | None = None
    baseline: str | None = None
    fail_on_regression: float | None = None  # per cent
    output: Path | None = None
    database: str | None = None
    compare: Sequence[Path] = ()  # folders of earlier results, or of optimum-benchmark's
    repository: Path = field(default_factory=Path)
    interval: float = 0.05  # seconds between two looks at the devices


def run(options: Options) -> int:
    """Measures, writes and prints; the exit status: 0, 1 for failures and regressions, 2 for what cannot be done, 130 interrupted."""
    try:
        wanted = parse_metrics(options.metrics)
        configurations = read_configurations(
            options.config_dir, options.config_name, options.overrides, options.multirun
        )
        check(options, configurations)
        earlier = [result for folder in options.compare for result in read_earlier(folder)]
        output = options.output or default_output(options.config_name)
        output.mkdir(parents=True, exist_ok=True)
        with interruptible(), checked_out(options.repository, options.commits) as commits:
            warn_of_changes(options)
            results = [
                Result(commit, configuration, result_folder(output, commit, configuration))
                for commit in commits
                for configuration in configurations
            ]
            status = measure(results, options, output)
            summary = Summary([*earlier, *results], wanted, options.baseline, describe_run(options, results))
            summary.write(output)
            write_page(summary, output / "index.html")
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        print(f"error: {error.filename or options.output}: {error.strerror or error}", file=sys.stderr)
        return 2
    return conclude(summary, wanted, options, output, status)


def check(options: Options, configurations: Sequence[Configuration]) -> None:
    """BenchmarkError: the configurations cannot be run so."""
    for configuration in configurations:
        launcher = configuration.values["launcher"]["name"]
        if launcher not in ("process", "inprocess"):
            raise BenchmarkError(f"launcher.name is {launcher!r}: give process or inprocess")
        if launcher == "inprocess" and options.commits:
            raise BenchmarkError("--commit needs launcher=process: a process holds the code of one commit")
        check_model(configuration.values)
    names = [part for configuration in configurations for part in configuration.name.split(",")]
    if options.baseline is not None and options.baseline not in names:
        known = ", ".join(sorted(set(names) - {"default"})) or "none: there is no sweep"
        raise BenchmarkError(f"--baseline {options.baseline} is no override of the sweep; there are {known}")


def read_earlier(folder: Path) -> list[Result]:
    found = read_results(folder) if folder.is_dir() else []
    if not found:
        raise BenchmarkError(f"--compare {folder} has no benchmark.json: name the folder of an earlier run")
    for result in found:
        result.commit = replace(result.commit, source=folder.name)
    return found


def default_output(name: str) -> Path:
    return Path("benchmark-results", f"{Path(name).stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}")


def warn_of_changes(options: Options) -> None:
    if options.commits and CHECKOUT not in options.commits and has_changes(options.repository):
        say(
            f"note: the checkout has changes that no commit holds; name `{CHECKOUT}` among the commits to measure them too"
        )


def measure(results: list[Result], options: Options, output: Path) -> int:
    """Runs all rounds, writing each result as it comes; the exit status so far."""
    database = options.database or str(output / "benchmarks.sqlite")
    try:
        with (
            MetricsRecorder(database) as recorder,
            tempfile.TemporaryDirectory(prefix="unibody-bench-") as scratch,
        ):
            try:
                take_turns(results, recorder, options, Path(scratch))
            except KeyboardInterrupt:
                say("interrupted; what has been measured is kept")
                return INTERRUPTED
            finally:
                with contextlib.suppress(BenchmarkError):  # close() says it again
                    recorder.flush(timeout=10)
                for result in results:
                    if result.benchmark_id is not None:
                        result.timeline = read_timeline(
                            recorder, result.benchmark_id, [cost["start"] for cost in result.sampling]
                        )
                        result.write()
    except BenchmarkError as error:
        if not any(result.rounds for result in results):
            raise
        say(f"error: {error}")
        return 1
    return 0


def take_turns(results: list[Result], recorder: MetricsRecorder, options: Options, scratch: Path) -> None:
    """Every configuration once in each round, and every other round backwards, so that no one always goes first."""
    last = max(int(result.configuration.values["rounds"]) for result in results)
    for number in range(1, last + 1):
        for result in results[:: 1 if number % 2 else -1]:
            if result.error is None and number <= result.configuration.values["rounds"]:
                start = time.perf_counter()
                run_once(result, recorder, options, scratch)
                end = result.error["message"] if result.error else f"{time.perf_counter() - start:.1f} s"
                model, name = result.configuration.model, result.config_name
                say(f"round {number} of {last} | {model} | {name} | {result.commit.label} | {end}")


def run_once(result: Result, recorder: MetricsRecorder, options: Options, scratch: Path) -> None:
    """One round of one configuration: measured, recorded, written."""
    values = result.configuration.values
    result.folder.mkdir(parents=True, exist_ok=True)
    if result.benchmark_id is None:
        result.benchmark_id = recorder.initialise_benchmark(describe_benchmark(result, options))
    cost: dict[str, Any] = {}

    @contextlib.contextmanager
    def watch(pid: int) -> Iterator[None]:
        assert result.benchmark_id is not None
        with recorder.sampling(result.benchmark_id, options.interval, pid) as found:
            yield
        cost.update(found)

    try:
        checkpoint = find_checkpoint(values, scratch)
        found = launch(values, checkpoint, result.commit.root, result.folder / "output.log", watch)
    except (BenchmarkError, ValueError) as error:
        found = {"error": {"message": str(error), "traceback": ""}}
    result.add(found)
    if cost:
        result.sampling.append(cost)
    if "report" in found:
        recorder.collect_model_measurements(result.benchmark_id, flatten(found["report"], len(result.rounds)))
    result.write()


def flatten(report: dict[str, Any], number: int) -> dict[str, Any]:
    """The round's numbers by their dotted names, single values left out."""
    from unibody.bench.report import list_metrics

    return {"round": number, **{metric: find_metric(report, metric) for metric in list_metrics(report)}}


def read_timeline(recorder: MetricsRecorder, benchmark_id: str, starts: list[float]) -> list[dict[str, Any]]:
    """What was sampled, with seconds since the beginning of its round; empty if the database does not answer."""
    try:
        rows = recorder.database.device_measurements(benchmark_id)
    except Exception:  # noqa: BLE001  whatever the driver raises: the picture lacks a line
        return []
    found, number, start = [], 0, rows[0]["time"] if rows else 0.0
    for row in rows:
        while number < len(starts) and row["time"] >= starts[number]:
            number, start = number + 1, starts[number]
        found.append({"round": number, "seconds": row["time"] - start, **{name: row[name] for name in Sample._fields}})
    return found


def describe_benchmark(result: Result, options: Options) -> dict[str, Any]:
    """What the database keeps of a benchmark."""
    commit = result.commit
    return {
        "config_name": options.config_name,
        "configuration": result.configuration.name,
        "config": result.configuration.values,
        "commit_id": commit.sha or current_commit(options.repository),
        "commit_name": commit.name,
        "commit_message": commit.subject,
        "machine": describe_machine(),
    }


def current_commit(repository: Path) -> str | None:
    try:
        return git(repository, "rev-parse", "HEAD")
    except BenchmarkError:
        return None


def describe_run(options: Options, results: Sequence[Result]) -> dict[str, Any]:
    environments = {
        side_name(result.configuration.values["backend"]): result.environment
        for result in results
        if result.environment
    }
    return {
        "name": options.config_name,
        "command": command_line(options),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "environments": environments,
    }


def side_name(backend: dict[str, Any]) -> str:
    """Whose versions are told: a backend, and its environment if that is one of its own."""
    name, python = str(backend["name"]), backend.get("python")
    return name if python is None else f"{name} in {Path(python).absolute().parents[1].name}"


def command_line(options: Options) -> str:
    """The command that was given, without where it wrote."""
    words = ["unibody", "bench", "--config-dir", str(options.config_dir), "--config-name", options.config_name]
    words += ["--commit", ",".join(options.commits)] if options.commits else []
    words += ["--metrics", options.metrics] if options.metrics else []
    words += ["--baseline", options.baseline] if options.baseline else []
    words += ["--multirun"] if options.multirun else []
    return shlex.join([*words, *options.overrides])


def conclude(summary: Summary, wanted: Sequence[str], options: Options, output: Path, status: int) -> int:
    """Prints the tables and what is wrong; the exit status."""
    print(summary.to_markdown())
    print(f"wrote {output / 'index.html'}, summary.json, .csv and .md")
    if problem := check_phases(wanted, list(summary.reports.values())):
        say(f"error: {problem}")
        status = status or 1
    limit = options.fail_on_regression
    for found in summary.regressions(limit) if limit is not None else ():
        change = found.change
        noise = "unknown" if change.noise is None else f"{change.noise:.1f} %"
        say(
            f"regression: {change.metric} of {found.model}, {found.config}: {change.percent:+.1f} % (noise {noise}) "
            f"at {found.commit}, against {found.baseline}"
        )
        status = status or 1
    return status or int(bool(summary.failures()))


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Lets SIGTERM end the run as Ctrl-C does: processes, worktrees and results are left in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
