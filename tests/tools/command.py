"""The `unibody` command, run in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from unibody import cli


class Done(NamedTuple):
    status: int
    out: str
    err: str


def unibody(*arguments: str, cwd: Path) -> Done:
    """What the command printed and returned when it ran in `cwd`."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["unibody", *arguments]),
    ):
        status = -1
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
    return Done(status, out.getvalue(), err.getvalue())
