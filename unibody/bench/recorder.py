"""MetricsRecorder: what the devices do and what is measured of a model, from any thread into one database."""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from unibody.bench.database import Database, parse_url, reason
from unibody.bench.devices import Devices, Sample, Sampler
from unibody.bench.errors import BenchmarkError
from unibody.bench.spool import Record, Spool, find_orphans, read_records, spool_folder
from unibody.logging import get_logger

BATCH, PAUSE = 500, 0.1  # rows of one transaction; seconds that records wait for others
RETRY_FIRST, RETRY_MOST = 0.1, 5.0  # seconds between two attempts to reach the database
logger = get_logger(__name__)


class MetricsRecorder:
    """Records measurements; all methods may be called from any thread, and by several processes at once.

    A method that returns has written its record to a local file (`Spool`), which a thread in the background sends to the
    database. A connection that is lost is tried again until it is back; whatever ends the process, the next recorder of the same
    database sends what is left. No record is lost or written twice.

    `database` is a path or a URL: `results.sqlite`, `sqlite:///results.sqlite`, `postgresql+psycopg://user@host/name`.
    """

    def __init__(self, database: str | Path, *, spool: Path | None = None) -> None:
        self._folder = spool or spool_folder(parse_url(database))
        self.database = Database(database)
        try:
            self._send_orphans()
            self._spool = Spool(self._folder)
        except (BenchmarkError, OSError):
            self.database.close()
            raise
        self._known: set[str] = set()
        self._pending: list[Record] = []
        self._changed = threading.Condition()
        self._sending = self._closed = False
        self._rejected: list[str] = []
        self._error = ""
        self.writer_cpu_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="unibody-bench-writer", daemon=True)
        self._thread.start()

    def initialise_benchmark(self, metadata: dict[str, Any]) -> str:
        """The id of a new benchmark, of which `metadata` is kept: commit, machine, configuration, whatever JSON can say."""
        benchmark_id = uuid.uuid4().hex
        values = {"benchmark_id": benchmark_id, "created_at": time.time(), "metadata": checked(metadata, "metadata")}
        self._add(("benchmarks", values))
        self._known.add(benchmark_id)
        return benchmark_id

    def collect_device_measurements(
        self,
        benchmark_id: str,
        cpu_util: float | None = None,
        mem_megabytes: float | None = None,
        gpu_util: float | None = None,
        gpu_mem_megabytes: float | None = None,
    ) -> None:
        """Records one look at the devices: utilisation in per cent, memory in MB, None where it cannot be measured."""
        values = dict(zip(Sample._fields, (cpu_util, mem_megabytes, gpu_util, gpu_mem_megabytes), strict=True))
        self._add(("device_measurements", self._row(benchmark_id) | checked(values, "device measurements")))

    def collect_model_measurements(self, benchmark_id: str, measurements: dict[str, Any]) -> None:
        """Records what was measured of a model, by names such as `decode.latency.mean`."""
        values = {"measurements": checked(measurements, "measurements")}
        self._add(("model_measurements", self._row(benchmark_id) | values))

    @contextmanager
    def sampling(self, benchmark_id: str, interval: float = 0.05, pid: int | None = None) -> Iterator[dict[str, Any]]:
        """Samples the devices every `interval` seconds in a thread, for this process or for `pid` and all that it starts.

        The dictionary holds at the end what that cost: samples, and the CPU seconds of the threads that take and send them.
        """
        cost: dict[str, Any] = {}
        devices, before = Devices(pid), self.writer_cpu_seconds
        sampler = Sampler(devices, lambda sample: self.collect_device_measurements(benchmark_id, *sample), interval)
        try:
            yield cost
        finally:
            cost.update(sampler.stop())
            cost["writer_cpu_seconds"] = self.writer_cpu_seconds - before
            cost["not_measured"] = devices.not_measured

    def flush(self, timeout: float = 60) -> None:
        """Returns when all that was collected is in the database. BenchmarkError: it is not, after `timeout` seconds."""
        with self._changed:
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._pending and not self._sending, timeout)
            if not done:
                raise BenchmarkError(
                    f"database {self.database.name} does not take the records ({self._error}); they are in {self._spool.path}, "
                    "and the next run that names this database sends them"
                )
            if self._rejected:
                raise BenchmarkError(
                    f"database {self.database.name} refuses {len(self._rejected)} records ({self._rejected[0]}), "
                    f"which are kept in {self._folder / 'rejected'}"
                )

    def close(self, timeout: float = 10) -> None:
        """Sends what is left and ends. BenchmarkError: it could not be sent; it is kept, and the message says where."""
        with self._changed:
            if self._closed:
                return
        problem: BenchmarkError | None = None
        try:
            self.flush(timeout)
        except BenchmarkError as error:
            problem = error
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        left = self._spool.close(sent=not self._pending)
        self.database.close()
        if left is not None:
            raise BenchmarkError(
                f"database {self.database.name} does not take the records ({self._error}); they are kept in {left}, and the next run "
                "that names this database sends them"
            )
        if problem is not None:
            raise problem

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BenchmarkError as problem:
            if error is None:
                raise
            logger.warning(str(problem))

    def _row(self, benchmark_id: str) -> dict[str, Any]:
        if benchmark_id not in self._known:
            raise ValueError(
                f"benchmark {benchmark_id!r} is none of this recorder's: initialise_benchmark gives the id of one"
            )
        return {"measurement_id": uuid.uuid4().hex, "benchmark_id": benchmark_id, "time": time.time()}

    def _add(self, record: Record) -> None:
        with self._changed:
            if self._closed:
                raise ValueError("the recorder is closed")
            try:
                self._spool.append(record)
            except OSError as error:
                raise BenchmarkError(
                    f"{self._spool.path}: the record could not be kept ({error}): make room there"
                ) from error
            self._pending.append(record)
            if len(self._pending) >= BATCH:
                self._changed.notify_all()

    def _run(self) -> None:
        """Sends what is pending, batch by batch and in order, until the recorder is closed."""
        pause = RETRY_FIRST
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._pending) >= BATCH, PAUSE)
                batch = self._pending[:BATCH]
                if self._closed:
                    return
                self._sending = bool(batch)
            if not batch:
                continue
            sent = self._send(batch)
            with self._changed:
                self._sending = False
                if sent:
                    del self._pending[: len(batch)]
                    if not self._pending:
                        self._spool.clear()
                self._changed.notify_all()
                self.writer_cpu_seconds = time.thread_time()
                if not sent:
                    self._changed.wait_for(lambda: self._closed, pause)
            pause = RETRY_FIRST if sent else min(RETRY_MOST, 2 * pause)

    def _send(self, batch: list[Record]) -> bool:
        """Whether the batch has been dealt with: written, or refused for what it holds."""
        try:
            self.database.write(batch)
        except DBAPIError as error:
            if is_outage(error):
                self._error = reason(error)
                self.database.engine.dispose()
                return False
            if len(batch) == 1:
                self._reject(batch[0], reason(error))
                return True
            return all(self._send([record]) for record in batch)
        except SQLAlchemyError as error:
            self._error = reason(error)
            return False
        return True

    def _reject(self, record: Record, why: str) -> None:
        """Puts a record that the database will never take where it can be looked at."""
        with open(self._folder / "rejected", "a", encoding="utf-8") as file:
            file.write(json.dumps([why, *record]) + "\n")
        self._rejected.append(why)

    def _send_orphans(self) -> None:
        """Sends what recorders that are gone have left, and removes their files."""
        for path in find_orphans(self._folder):
            records = read_records(path)
            for i in range(0, len(records), BATCH):
                try:
                    self.database.write(records[i : i + BATCH])
                except SQLAlchemyError as error:
                    raise BenchmarkError(
                        f"{path} holds records for {self.database.name}, which it does not take ({reason(error)}): "
                        "move the file away, or mend the database"
                    ) from error
            path.unlink(missing_ok=True)
            logger.info("sent %d records that %s held", len(records), path)


def is_outage(error: DBAPIError) -> bool:
    """Whether the database is away, busy or full, rather than refusing what it was given."""
    return error.connection_invalidated or type(error).__name__ in (
        "OperationalError",
        "InterfaceError",
        "InternalError",
    )


def checked(values: dict[str, Any], what: str) -> dict[str, Any]:
    """The values, if JSON and every database can hold them. ValueError, TypeError: one of them cannot be held."""

    def check(value: Any, where: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise TypeError(f"{where}: the key {key!r} is no text")
                check(key, where)
                check(inner, f"{where}[{key!r}]")
        elif isinstance(value, list | tuple):
            for index, inner in enumerate(value):
                check(inner, f"{where}[{index}]")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where} is {value}: record None for what was not measured")
        elif isinstance(value, str) and "\0" in value:
            raise ValueError(f"{where} has a zero byte, which databases do not take")
        elif value is not None and not isinstance(value, str | int | float):
            raise TypeError(
                f"{where} is {value!r}, a {type(value).__name__}: record numbers, texts, lists and dictionaries"
            )

    check(values, what)
    return values
