from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.postgres import Server, find_programs, free_port

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "benchmarks/config"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A running PostgreSQL server."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: `make services`, or apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="unibody-pg-", dir="/tmp"))  # the path of a socket has to be short
    found = Server(programs, folder, free_port())
    found.create()
    found.start()
    try:
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty database."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'results.sqlite'}"
    return empty_database(request.getfixturevalue("server"))


def empty_database(server: Server) -> str:
    import psycopg

    name = f"test_{free_port()}"
    with psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name}")
    return server.url.removesuffix("postgres") + name
