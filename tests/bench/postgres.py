"""A PostgreSQL server of Debian's packages on the loopback interface, started for the tests and killed when they ask for it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

FOLDERS = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin")


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl, of the newest version."""
    found = [path for pattern in FOLDERS for path in Path("/").glob(pattern[1:]) if (path / "initdb").exists()]
    if found:
        return max(found)
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@dataclass
class Server:
    """One cluster in a folder of its own."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://tester@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        if os.getuid() == 0:  # which the server refuses to run as
            shutil.chown(self.folder, "postgres")
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "tester", "--auth=trust", "--no-sync", "-E", "UTF8")

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -c fsync=off"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-l", log, "-w", "-t", "30", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def kill(self) -> None:
        """Ends the server's first process without notice, and waits until the others have seen it."""
        first = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))
        others = first.children(recursive=True)
        first.kill()
        psutil.wait_procs([first, *others], timeout=30)

    def _run(self, program: str, *arguments: str) -> None:
        user: dict[str, Any] = {"user": "postgres", "cwd": "/"} if os.getuid() == 0 else {}
        command = [str(self.programs / program), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, **user)
        assert done.returncode == 0, done.stdout


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
