"""The database of measurements, through SQLAlchemy: a SQLite file or a PostgreSQL server, with a versioned schema.

Every row has a key that its writer made. Writing it twice is writing it once, so what may not have arrived is simply sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from unibody.bench.errors import BenchmarkError

FORMAT_VERSION = 1
CONNECT_SECONDS = 5
MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {}  # what brings a schema of that version to the next one

metadata = sa.MetaData()
versions = sa.Table(
    "format_version", metadata, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False)
)
benchmarks = sa.Table(
    "benchmarks",
    metadata,
    sa.Column("benchmark_id", sa.String(32), primary_key=True),
    sa.Column("created_at", sa.Float, nullable=False),  # seconds since 1970
    sa.Column("metadata", sa.JSON, nullable=False),
)
device_measurements = sa.Table(
    "device_measurements",
    metadata,
    sa.Column("measurement_id", sa.String(48), primary_key=True),
    sa.Column("benchmark_id", sa.ForeignKey("benchmarks.benchmark_id"), nullable=False, index=True),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("cpu_util", sa.Float),  # per cent of one core
    sa.Column("mem_megabytes", sa.Float),
    sa.Column("gpu_util", sa.Float),  # per cent
    sa.Column("gpu_mem_megabytes", sa.Float),
)
model_measurements = sa.Table(
    "model_measurements",
    metadata,
    sa.Column("measurement_id", sa.String(48), primary_key=True),
    sa.Column("benchmark_id", sa.ForeignKey("benchmarks.benchmark_id"), nullable=False, index=True),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("measurements", sa.JSON, nullable=False),
)
TABLES = {table.name: table for table in (benchmarks, device_measurements, model_measurements)}  # parents first


def parse_url(database: str | Path) -> sa.URL:
    """The URL of a database; a path means a SQLite file. BenchmarkError: neither SQLite nor PostgreSQL."""
    text = str(database)
    try:
        url = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
        backend = url.get_backend_name()
    except (SQLAlchemyError, ValueError) as error:
        raise BenchmarkError(
            f"database {text!r} is no URL: write a path, or postgresql+psycopg://user@host/name"
        ) from error
    if backend not in ("sqlite", "postgresql"):
        raise BenchmarkError(
            f"database {hidden(url)}: {backend} is not supported: use a SQLite file or postgresql+psycopg://…"
        )
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise BenchmarkError("database: SQLite needs the path of a file, as in sqlite:///results.sqlite")
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def hidden(url: sa.URL) -> str:
    """The URL without its password."""
    return url.render_as_string(hide_password=True)


class Database:
    """An open database with a schema of this version. BenchmarkError: it does not answer, or is of a newer version."""

    def __init__(self, database: str | Path) -> None:
        self.url = parse_url(database)
        self.name = hidden(self.url)
        try:
            self.engine, self._insert = self._connect()
        except ImportError as error:
            raise BenchmarkError(
                f"database {self.name} needs psycopg ({error}): pip install 'unibody[benchmark]'"
            ) from error
        try:
            self._open()
        except BenchmarkError:
            self.engine.dispose()
            raise
        except SQLAlchemyError as error:
            self.engine.dispose()
            raise BenchmarkError(
                f"database {self.name} cannot be used ({reason(error)}): start it, or correct --database"
            ) from error

    def _connect(self) -> tuple[sa.Engine, Any]:
        """The engine, and its dialect's insert, which can leave out what is there already."""
        if self.url.get_backend_name() == "sqlite":
            Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
            engine = sa.create_engine(self.url, connect_args={"timeout": 30})
            sa.event.listen(engine, "connect", prepare_sqlite)
            return engine, sqlite.insert
        options = {"connect_timeout": CONNECT_SECONDS, "application_name": "unibody bench"}
        return sa.create_engine(self.url, connect_args=options, pool_pre_ping=True), postgresql.insert

    def _open(self) -> None:
        """Makes the schema or brings it up to date; writers that do so at once wait for each other."""
        with self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7231984301)"))
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            metadata.create_all(connection)
            found = connection.scalar(sa.select(sa.func.max(versions.c.version)))
            if found is None:
                connection.execute(versions.insert().values(version=FORMAT_VERSION))
            elif found > FORMAT_VERSION:
                raise BenchmarkError(
                    f"database {self.name} has format_version {found}, and this is unibody for {FORMAT_VERSION}: update unibody"
                )
            else:
                for version in range(found, FORMAT_VERSION):
                    MIGRATIONS[version](connection)
                    connection.execute(versions.insert().values(version=version + 1))

    def write(self, records: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Inserts rows (table, values), those that are there already excepted, in one transaction."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for name, values in records:
            rows.setdefault(name, []).append(values)
        with self.engine.begin() as connection:
            for name, table in TABLES.items():
                if name in rows:
                    connection.execute(self._insert(table).on_conflict_do_nothing(), rows[name])

    def read(self, statement: sa.Select[Any]) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def device_measurements(self, benchmark_id: str) -> list[dict[str, Any]]:
        """What was sampled during a benchmark, in the order of time."""
        table = device_measurements
        return self.read(sa.select(table).where(table.c.benchmark_id == benchmark_id).order_by(table.c.time))

    def model_measurements(self, benchmark_id: str) -> list[dict[str, Any]]:
        """What was measured of the model, in the order of time."""
        table = model_measurements
        return self.read(sa.select(table).where(table.c.benchmark_id == benchmark_id).order_by(table.c.time))

    def benchmarks(self) -> list[dict[str, Any]]:
        """All benchmarks, the oldest first."""
        return self.read(sa.select(benchmarks).order_by(benchmarks.c.created_at, benchmarks.c.benchmark_id))

    def close(self) -> None:
        self.engine.dispose()


def prepare_sqlite(connection: Any, _: Any) -> None:
    """Readers and one writer at a time do not wait for each other, and a killed process leaves nothing half."""
    for setting in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")


def reason(error: Exception) -> str:
    """What a driver says, in one line."""
    text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    return text.splitlines()[0] if text else type(error).__name__
