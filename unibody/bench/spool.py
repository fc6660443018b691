"""Records on their way into a database, in a local file: what is written there outlives the process and is sent later.

One file belongs to one recorder of one process. Files whose process is gone are orphans, and whoever opens the database next
sends them. A record is acknowledged when its line, which ends with a newline, is in the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

Record = tuple[str, dict[str, Any]]  # table, values
ORPHAN = "orphan-"


class Spool:
    """Appends records to a file of its own in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        process = psutil.Process()
        self.path = folder / f"{process.pid}-{process.create_time()}-{uuid.uuid4().hex}.jsonl"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._size = 0

    def append(self, record: Record) -> None:
        """Writes one line. OSError: it is not written, or not whole; what was there before stays as it was."""
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            try:
                written = os.write(self._file, line)
                if written != len(line):
                    raise OSError(f"only {written} of {len(line)} bytes could be written to {self.path}")
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self._size)
                raise
            self._size += len(line)

    def clear(self) -> None:
        """Forgets everything: it is in the database."""
        with self._lock:
            os.ftruncate(self._file, 0)
            self._size = 0

    def close(self, sent: bool) -> Path | None:
        """Removes the file if all is sent; otherwise leaves it for the next one, and says where it is."""
        os.close(self._file)
        if sent or self._size == 0:
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()  # unless others wait there
            return None
        left = self.path.with_name(ORPHAN + self.path.name)
        self.path.rename(left)
        return left


def spool_folder(url: Any) -> Path:
    """Where records for a database wait: beside a SQLite file, otherwise in the user's cache."""
    if url.get_backend_name() == "sqlite":
        file = Path(url.database)
        return file.with_name(file.name + ".spool")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(url.set(password=None, query={}).render_as_string().encode()).hexdigest()[:16]
    return cache / "unibody" / "bench" / name


def find_orphans(folder: Path) -> Iterator[Path]:
    """The files that no running process writes any more."""
    for path in sorted(folder.glob("*.jsonl")):
        pid, _, rest = path.name.partition("-")
        if path.name.startswith(ORPHAN) or not is_running(int(pid), float(rest.partition("-")[0])):
            yield path


def is_running(pid: int, created: float) -> bool:
    try:
        return bool(abs(psutil.Process(pid).create_time() - created) < 1)
    except psutil.NoSuchProcess:
        return False


def read_records(path: Path) -> list[Record]:
    """The acknowledged records of a file; a line that its process did not finish is none."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [(table, values) for table, values in map(json.loads, lines)]
