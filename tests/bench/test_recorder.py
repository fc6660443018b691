"""MetricsRecorder against real databases: nothing is lost and nothing is written twice, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from bench.command import bench
from bench.conftest import empty_database
from bench.postgres import Server
from bench.small_repository import Repository
from unibody.bench import BenchmarkError, MetricsRecorder
from unibody.bench.database import MIGRATIONS, Database
from unibody.bench.spool import spool_folder

THREADS, EACH = 8, 2500


def numbers(database: str) -> Counter[tuple[int, int]]:
    """How often each measurement is there, by who made it and its number."""
    engine = sa.create_engine(database)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT measurements FROM model_measurements")).scalars().all()
    engine.dispose()
    found = [row if isinstance(row, dict) else json.loads(row) for row in rows]
    return Counter((row["thread"], row["number"]) for row in found)


def record(recorder: MetricsRecorder, benchmark: str, thread: int, count: int = EACH) -> None:
    for number in range(count):
        recorder.collect_model_measurements(benchmark, {"thread": thread, "number": number, "latency": 0.1 * number})


def test_eight_threads(database: str) -> None:
    """20,000 records of eight threads, while a thread samples the devices."""
    with MetricsRecorder(database) as recorder:
        benchmark = recorder.initialise_benchmark({"commit_id": "abc", "machine": {"cores": 2}})
        with recorder.sampling(benchmark, interval=0.02) as cost:
            threads = [threading.Thread(target=record, args=(recorder, benchmark, n)) for n in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert numbers(database) == {(thread, number): 1 for thread in range(THREADS) for number in range(EACH)}
    reader = Database(database)
    assert [row["metadata"]["machine"] for row in reader.benchmarks()] == [{"cores": 2}]
    samples = reader.device_measurements(benchmark)
    reader.close()
    assert len(samples) == cost["samples"] > 0
    assert 0 < cost["cpu_seconds"] < cost["seconds"]
    assert "gpu_util, gpu_mem_megabytes" in cost["not_measured"] or samples[0]["gpu_util"] is not None
    assert all(row["mem_megabytes"] > 10 for row in samples)


def test_server_is_killed_and_comes_back(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    database = empty_database(server)
    with MetricsRecorder(database) as recorder:
        benchmark = recorder.initialise_benchmark({})
        threads = [threading.Thread(target=record, args=(recorder, benchmark, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        server.kill()
        record(recorder, benchmark, 4, 100)  # nobody waits for the server
        for thread in threads:
            thread.join()
        with pytest.raises(BenchmarkError, match="does not take the records"):
            recorder.flush(timeout=0.5)
        server.start()
        recorder.flush()
        spool = spool_folder(recorder.database.url)
    expected = {(thread, number): 1 for thread in range(4) for number in range(EACH)}
    assert numbers(database) == expected | {(4, number): 1 for number in range(100)}
    assert not spool.exists()


def test_server_stays_away(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be sent is kept, said where, and sent by the next recorder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    database = empty_database(server)
    recorder = MetricsRecorder(database)
    benchmark = recorder.initialise_benchmark({})
    recorder.flush()
    server.stop()
    try:
        record(recorder, benchmark, 0, 700)
        with pytest.raises(BenchmarkError, match=r"they are kept in .*orphan-.*\.jsonl"):
            recorder.close(timeout=0.3)
        with pytest.raises(BenchmarkError, match=r"cannot be used \(.*refused.*\): start it, or correct --database"):
            MetricsRecorder(database)
    finally:
        server.start()
    MetricsRecorder(database).close()
    assert numbers(database) == {(0, number): 1 for number in range(700)}


PROGRAM = """
import sys
from unibody.bench import MetricsRecorder
recorder = MetricsRecorder(sys.argv[1])
benchmark = recorder.initialise_benchmark({})
for number in range(10**9):
    recorder.collect_model_measurements(benchmark, {"thread": 0, "number": number})
    print(number, flush=True)
"""


def test_process_is_killed(database: str) -> None:
    """Every record whose method has returned is in the database once the next recorder has opened it."""
    command = [sys.executable, "-c", PROGRAM, database]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 3000:
                os.kill(process.pid, signal.SIGKILL)
                break
        acknowledged = 3000 + sum(1 for _ in process.stdout)
    before = numbers(database)  # it opens, and holds no half of anything
    assert set(before.values()) <= {1}
    MetricsRecorder(database).close()
    found = numbers(database)
    assert set(found.values()) == {1}
    assert set(found) >= {(0, number) for number in range(acknowledged + 1)}
    assert len(found) <= acknowledged + 2  # the one that was being made


def test_two_processes_at_once(database: str) -> None:
    program = (
        PROGRAM.replace("10**9", "1500").replace('"thread": 0', '"thread": int(sys.argv[2])') + "recorder.close()\n"
    )
    commands = [[sys.executable, "-c", program, database, str(n)] for n in range(3)]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert numbers(database) == {(n, number): 1 for n in range(3) for number in range(1500)}


def test_a_row_that_the_database_refuses(database: str) -> None:
    """The others arrive, and the one is kept for whoever wants to know."""
    recorder = MetricsRecorder(database)
    benchmark = recorder.initialise_benchmark({})
    recorder._known.add("nobody")
    recorder.collect_model_measurements("nobody", {"thread": 9, "number": 0})
    record(recorder, benchmark, 0, 10)
    with pytest.raises(BenchmarkError, match=r"refuses 1 records .*which are kept in .*rejected"):
        recorder.close()
    assert numbers(database) == {(0, number): 1 for number in range(10)}


def test_benchmark_into_a_database(database: str, tmp_path: Path) -> None:
    """What `unibody bench` leaves there: the benchmark, a row for each round, and samples of the process."""
    repository = Repository(tmp_path / "small")
    done = bench(
        *("--config-dir", repository.config, "--config-name", "task", "--output", tmp_path / "out", "rounds=2"),
        *(
            "--repository",
            repository.root,
            "--commit",
            repository.quick,
            "--database",
            database,
            "scenario.iterations=20",
        ),
    )
    assert done.returncode == 0, done.stderr
    reader = Database(database)
    (found,) = reader.benchmarks()
    assert found["metadata"]["commit_id"] == repository.quick
    assert found["metadata"]["commit_message"] == "quick"
    rows = reader.model_measurements(found["benchmark_id"])
    assert [row["measurements"]["round"] for row in rows] == [1, 2]
    assert all(row["measurements"]["task.latency.p50"] > 0.019 for row in rows)
    assert len(reader.device_measurements(found["benchmark_id"])) >= 8
    reader.close()
    assert not (tmp_path / "out/benchmarks.sqlite").exists()


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"a": float("nan")}, ValueError, "measurements['a'] is nan: record None for what was not measured"),
        ({"a": [1, float("inf")]}, ValueError, "measurements['a'][1] is inf: record None for what was not measured"),
        ({"a": "\0"}, ValueError, "measurements['a'] has a zero byte, which databases do not take"),
        ({1: 2}, TypeError, "measurements: the key 1 is no text"),
        ({"a": {2}}, TypeError, "measurements['a'] is {2}, a set: record numbers, texts, lists and dictionaries"),
    ],
)
def test_what_cannot_be_recorded(
    tmp_path: Path, values: dict[str, object], kind: type[Exception], message: str
) -> None:
    with MetricsRecorder(tmp_path / "r.sqlite") as recorder:
        benchmark = recorder.initialise_benchmark({})
        with pytest.raises(kind) as caught:
            recorder.collect_model_measurements(benchmark, values)
        assert str(caught.value) == message


def test_misuse(tmp_path: Path) -> None:
    recorder = MetricsRecorder(tmp_path / "r.sqlite")
    with pytest.raises(
        ValueError, match="benchmark 'x' is none of this recorder's: initialise_benchmark gives the id of one"
    ):
        recorder.collect_device_measurements("x", cpu_util=1.0)
    benchmark = recorder.initialise_benchmark({})
    with pytest.raises(ValueError, match="interval 0: give the seconds"), recorder.sampling(benchmark, interval=0):
        pass
    recorder.close()
    recorder.close()
    with pytest.raises(ValueError, match="the recorder is closed"):
        recorder.collect_model_measurements(benchmark, {})


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("mysql://u@h/d", "mysql is not supported: use a SQLite file or postgresql+psycopg://…"),
        ("sqlite://", "SQLite needs the path of a file, as in sqlite:///results.sqlite"),
        ("://nothing", "is no URL: write a path, or postgresql+psycopg://user@host/name"),
        ("postgresql://me:secret@127.0.0.1:1/d", r"postgresql+psycopg://me:***@127.0.0.1:1/d cannot be used ("),
    ],
)
def test_unusable_database(database: str, message: str) -> None:
    with pytest.raises(BenchmarkError) as caught:
        MetricsRecorder(database)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


FULL = """
import resource, signal, sys
from unibody.bench import MetricsRecorder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recorder = MetricsRecorder(sys.argv[1])
benchmark = recorder.initialise_benchmark({})
recorder.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, -1))
number = 0
try:
    while True:
        recorder.collect_model_measurements(benchmark, {"thread": 0, "number": number, "text": "x" * 1000})
        number += 1
except Exception as error:
    print(number, type(error).__name__, error)
try:
    recorder.close(timeout=0.3)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_no_room_is_left(tmp_path: Path) -> None:
    """No file of the process can grow beyond a megabyte: what was acknowledged before is not lost."""
    database = f"sqlite:///{tmp_path / 'r.sqlite'}"
    done = subprocess.run([sys.executable, "-c", FULL, database], capture_output=True, text=True, timeout=60)
    first, second = done.stdout.splitlines()
    count = int(first.split()[0])
    assert "BenchmarkError" in first and "the record could not be kept" in first and "make room there" in first
    assert second.startswith("BenchmarkError") and "they are kept in" in second
    MetricsRecorder(database).close()
    assert numbers(database) == {(0, number): 1 for number in range(count)}


def test_database_of_a_newer_version(database: str) -> None:
    Database(database).close()
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO format_version VALUES (99)"))
    engine.dispose()
    with pytest.raises(BenchmarkError, match="has format_version 99, and this is unibody for 1: update unibody"):
        MetricsRecorder(database)


def test_recorded_database(tmp_path: Path) -> None:
    """A database of format 1, as it was written once, is read and can be written."""
    file = tmp_path / "old.sqlite"
    with sqlite3.connect(file) as connection:
        connection.executescript((Path(__file__).parent / "recorded/database-1.sql").read_text(encoding="utf-8"))
    connection.close()
    with MetricsRecorder(file) as recorder:
        (old,) = recorder.database.benchmarks()
        assert old["metadata"] == {"commit_id": "8927097", "machine": {"cpu_count": 2}}
        assert [row["mem_megabytes"] for row in recorder.database.device_measurements(old["benchmark_id"])] == [
            12.5,
            13.0,
        ]
        (measured,) = recorder.database.model_measurements(old["benchmark_id"])
        assert measured["measurements"] == {"decode.latency.mean": 0.25}
        recorder.initialise_benchmark({"commit_id": "later"})
    reader = Database(file)
    assert len(reader.benchmarks()) == 2
    reader.close()


def test_recording_is_cheap(tmp_path: Path) -> None:
    """A call returns when its line is written, which takes microseconds, not when the database has it."""
    with MetricsRecorder(tmp_path / "r.sqlite") as recorder:
        benchmark = recorder.initialise_benchmark({})
        times = []
        for number in range(300):
            start = time.perf_counter()
            recorder.collect_model_measurements(benchmark, {"number": number})
            times.append(time.perf_counter() - start)
    assert sorted(times)[150] < 0.002


def test_database_of_an_older_version(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next version's schema: whoever opens an old database first brings it up to date, once, and loses nothing."""
    with MetricsRecorder(database) as recorder:
        benchmark = recorder.initialise_benchmark({})
        record(recorder, benchmark, 0, 10)
    calls = []

    def add_column(connection: sa.Connection) -> None:
        calls.append(1)
        connection.execute(sa.text("ALTER TABLE benchmarks ADD COLUMN host VARCHAR(80)"))

    monkeypatch.setattr("unibody.bench.database.FORMAT_VERSION", 2)
    monkeypatch.setitem(MIGRATIONS, 1, add_column)
    openers = [threading.Thread(target=lambda: Database(database).close()) for _ in range(4)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()
    assert calls == [1]
    assert numbers(database) == {(0, number): 1 for number in range(10)}
    reader = Database(database)
    assert reader.read(sa.text("SELECT host FROM benchmarks")) == [{"host": None}]  # type: ignore[arg-type]
    assert [row["version"] for row in reader.read(sa.text("SELECT version FROM format_version ORDER BY 1"))] == [1, 2]  # type: ignore[arg-type]
    reader.close()


def test_migration_that_fails(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it stays, and the database is what it was."""
    Database(database).close()

    def fail(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE benchmarks ADD COLUMN host VARCHAR(80)"))
        connection.execute(sa.text("SELECT no_such_column FROM benchmarks"))

    with monkeypatch.context() as patch:
        patch.setattr("unibody.bench.database.FORMAT_VERSION", 2)
        patch.setitem(MIGRATIONS, 1, fail)
        with pytest.raises(BenchmarkError, match="cannot be used"):
            Database(database)
    reader = Database(database)
    assert [column["name"] for column in sa.inspect(reader.engine).get_columns("benchmarks")][-1] == "metadata"
    reader.close()
