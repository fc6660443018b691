"""Several processes for one compilation, where there is enough to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

SHARE = 12  # definitions for which another process pays: it compiles their parents once more
T = TypeVar("T")


def shares(items: Sequence[str], jobs: int) -> list[list[str]]:
    """The items dealt out to at most `jobs` processes; all to one where few are, or where processes cannot be forked."""
    count = max(1, min(jobs, len(items) // SHARE))
    if count > 1:
        import multiprocessing

        count = count if "fork" in multiprocessing.get_all_start_methods() else 1
    return [list(items[start::count]) for start in range(count)]


def in_processes(task: Callable[[list[str]], T], pieces: list[list[str]], count: int = 0) -> Iterator[T]:
    """What `task` returns for each piece, in no particular order, from `count` processes (0: one for each piece).

    A process knows all that this one knows, and what it has learnt from its pieces before.
    """
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(count or len(pieces), _remember, (task,)) as pool:
        yield from pool.imap_unordered(_call, pieces, chunksize=1)


_task: Callable[[list[str]], Any]


def _remember(task: Callable[[list[str]], Any]) -> None:
    """Runs in the new process; forked with it, the task need not be pickled."""
    global _task  # noqa: PLW0603  a process of a pool keeps what it works with in its module
    _task = task


def _call(piece: list[str]) -> Any:
    return _task(piece)
