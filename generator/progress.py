"""A bar that shows how far a long compilation has come, on a terminal only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

PATIENCE = 0.5  # seconds before the bar appears; a run that ends sooner never loads what draws it

Seen = Callable[[int, int], None]  # takes how many definitions are done, and of how many


@contextmanager
def progress() -> Iterator[Seen | None]:
    """What to call after each definition; None where standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    start = time.monotonic()
    with ExitStack() as stack:
        advance: Seen | None = None

        def seen(done: int, total: int) -> None:
            nonlocal advance
            if advance is None and time.monotonic() - start > PATIENCE:
                advance = stack.enter_context(_bar())
            if advance is not None:
                advance(done, total)

        yield seen


@contextmanager
def _bar() -> Iterator[Seen]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("compiling"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling")
        yield lambda done, total: bar.update(task, completed=done, total=total)
