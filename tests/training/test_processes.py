"""The end of a program that is one of several processes: what it waits for."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest

from unibody.processes import _is_awake

TASKS = Path("/proc/self/task")
pytestmark = pytest.mark.skipif(not TASKS.is_dir(), reason="the system does not say what its threads do")


@pytest.mark.parametrize(("name", "awake"), [("pt_gloo_runloop", True), ("another (S) name", False)])
def test_a_thread_of_gloo_that_works_is_waited_for(name: str, awake: bool) -> None:
    done, data = threading.Event(), bytes(10_000_000)

    def work() -> None:
        (TASKS / str(threading.get_native_id()) / "comm").write_text(name[:15])
        while not done.is_set():
            hashlib.sha256(data)  # without Python's lock

    thread = threading.Thread(target=work)
    thread.start()
    try:
        deadline, found = time.monotonic() + (5 if awake else 0.5), False
        while time.monotonic() < deadline and not found:
            found = _is_awake(TASKS / str(thread.native_id))
            time.sleep(0.01)
    finally:
        done.set()
        thread.join()
    assert found == awake


def test_a_thread_that_sleeps_or_has_ended_is_not(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("7 (pt_gloo_runloop) S 1 1 1")
    assert not _is_awake(tmp_path)
    assert not _is_awake(tmp_path / "gone")
